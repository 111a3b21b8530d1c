"""GPT-2: distilgpt2, gpt2, gpt2-medium, gpt2-large, gpt2-xl, and all that was made of them.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners". Learned positions,
LayerNorm before attention and MLP, queries, keys and values by one fused matrix, head tied to the
embedding. Module names follow Hugging Face's `GPT2LMHeadModel`.

    tokens [k, length] -> embed -> h_0 ... -> head -> logits [k, answers, vocabulary]
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mend_jax.models import declared, gpt
from mend_jax.models.attention import Heads, heads_alike, split_heads
from mend_jax.models.causal import CausalAttention
from mend_jax.models.family import (
    Family,
    expect_linear,
    expect_norm,
    features_apart,
    last_blocks,
    read_dimensions,
)
from mend_jax.models.layers import MLP, take
from mend_jax.models.one_stack import Sizes
from mend_jax.models.settings import check_heads, settle
from mend_jax.parallel import Partition
from mend_jax.weights import Expected


@dataclass(frozen=True)
class GPT2Config:
    """The dimensions; field names are those of Hugging Face's config.json."""

    vocab_size: int
    n_positions: int
    n_embd: int
    n_layer: int
    n_head: int
    n_inner: int
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], names: Collection[str] = ()) -> "GPT2Config":
        """Reads a Hugging Face config.json (the names of the tensors are not needed).

        Raises:
          ConfigError: a setting that is not implemented.
        """
        del names
        said = settle(config, declared.GPT2)
        check_heads(said, "n_embd", "n_head")
        return read_dimensions(cls, said, n_inner=said["n_inner"] or 4 * said["n_embd"])


class Attention(CausalAttention):
    """c_attn makes queries, keys and values at once."""

    config: GPT2Config

    names = ("c_attn", "c_attn", "c_attn", "c_proj")

    @property
    def heads(self) -> Heads:
        """As wide together as the model."""
        return heads_alike(self.config.n_head, self.config.n_embd)

    def split(
        self, x: Float[Array, "k length d"], read: Int[Array, "k answers"] | None
    ) -> tuple[Array, Array, Array]:
        """The fused product's thirds."""
        fused = self.linear("c_attn", 3 * self.config.n_embd)(x)
        thirds = jnp.split(fused, 3, axis=-1)
        query, key, value = (split_heads(third, self.config.n_head) for third in thirds)
        return take(query, read), key, value


class Block(gpt.Block):
    """One layer."""

    config: GPT2Config

    attention = Attention

    def mlp(self) -> MLP:
        """Four times as wide, if n_inner says nothing else."""
        c = self.config
        names = ("c_fc", "c_proj")
        return MLP(c.n_inner, c.activation_function, self.dtype, names, name="mlp")


class GPT2(gpt.TiedGPT):
    """The model, or stages of it. Stages: embed, h_0, ..., head."""

    config: GPT2Config

    block_type = Block

    @property
    def sizes(self) -> Sizes:
        """Of the whole model."""
        c = self.config
        return Sizes(c.vocab_size, c.n_embd, c.n_layer, c.n_positions)


def default_sites(config: GPT2Config) -> str:
    """MLPs of the last three blocks (the paper's choice)."""
    return rf"h_({last_blocks(config.n_layer, 3)})/mlp/(c_fc|c_proj)"


def expected_weights(config: GPT2Config) -> dict[str, Expected]:
    """Where each Hugging Face tensor goes. Their Conv1D is [d_in, d_out], as kernels are here."""
    d, inner = config.n_embd, config.n_inner
    kernels = {
        "attn.c_attn": (d, 3 * d),
        "attn.c_proj": (d, d),
        "mlp.c_fc": (d, inner),
        "mlp.c_proj": (inner, d),
    }
    block = expect_norm("ln_2", d)
    for name, shape in kernels.items():
        block |= expect_linear(name, shape, transpose=False)
    sizes = GPT2(config).sizes
    return gpt.expected(sizes, block) | gpt.expected_positions(sizes)


PARTITION: Partition = (
    (r"embedding", (None, "model")),  # 50257 rows: no number of devices divides them
    *features_apart("c_attn|c_fc", "c_proj"),
)
"""MLP features apart. An even cut of c_attn's outputs does not cut queries, keys and values into
whole heads each, so the compiler exchanges them (activations, never the matrix) before attention,
which it then runs by heads, as the rows of c_proj ask for."""

SPARE = {r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias": "the causal mask, which is made anew"}
COPIES = {"lm_head.weight": "transformer.wte.weight"}

FAMILY = Family(GPT2Config.from_hf, GPT2, expected_weights, default_sites, PARTITION, SPARE, COPIES)
