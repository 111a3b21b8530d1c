"""GPT-2: distilgpt2, gpt2, gpt2-medium, gpt2-large, gpt2-xl, and all that was made of them.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners". Learned positions,
LayerNorm before attention and MLP, queries, keys and values by one fused matrix, head tied to the
embedding. Module names follow Hugging Face's `GPT2LMHeadModel`.

    tokens [k, length] -> embed -> h_0 ... -> head -> logits [k, answers, vocabulary]
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mend_jax.models import gpt
from mend_jax.models.causal import Sizes
from mend_jax.models.family import Family, expect_linear, expect_norm, last_blocks
from mend_jax.models.layers import Linear, layer_norm, take
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
          ValueError: an activation, a scaling of the scores, a head or a cross-attention that is
            not implemented.
        """
        del names
        activation = gpt.checked(config, _ONLY, "GPT-2")
        return cls(
            vocab_size=config["vocab_size"],
            n_positions=config["n_positions"],
            n_embd=config["n_embd"],
            n_layer=config["n_layer"],
            n_head=config["n_head"],
            n_inner=config.get("n_inner") or 4 * config["n_embd"],
            activation_function=activation,
            layer_norm_epsilon=config.get("layer_norm_epsilon", 1e-5),
        )


_ONLY = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}


class Attention(nn.Module):
    """Causal attention; c_attn makes queries, keys and values at once, the output is at `read`."""

    config: GPT2Config
    dtype: Any
    cache_length: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "k length d"],
        positions: Int[Array, "k length"],
        read: Int[Array, "k answers"] | None,
    ) -> Float[Array, "k queries d"]:
        c = self.config
        fused = Linear(3 * c.n_embd, dtype=self.dtype, name="c_attn")(x)
        parts = (gpt.split_heads(part, c.n_head) for part in jnp.split(fused, 3, axis=-1))
        query, key, value = parts
        query = query if read is None else take(query, read)
        out = gpt.attend(query, key, value, positions, read, self.cache_length)
        return Linear(c.n_embd, dtype=self.dtype, name="c_proj")(out)


class Block(nn.Module):
    """One layer; with `read`, its output holds only these positions."""

    config: GPT2Config
    dtype: Any
    cache_length: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "k length d"],
        positions: Int[Array, "k length"],
        read: Int[Array, "k answers"] | None,
    ) -> Float[Array, "k queries d"]:
        c = self.config
        normed = layer_norm(c.layer_norm_epsilon, self.dtype, "ln_1")(x)
        attended = Attention(c, self.dtype, self.cache_length, name="attn")(normed, positions, read)
        x = (x if read is None else take(x, read)) + attended
        normed = layer_norm(c.layer_norm_epsilon, self.dtype, "ln_2")(x)
        mlp = gpt.MLP(c.n_inner, c.activation_function, self.dtype, name="mlp")
        return x + mlp(normed)


class GPT2(gpt.TiedGPT):
    """The model, or stages of it. Stages: embed, h_0, ..., head."""

    config: GPT2Config

    @property
    def sizes(self) -> Sizes:
        """Of the whole model."""
        c = self.config
        return Sizes(c.vocab_size, c.n_embd, c.n_layer, c.n_positions)

    def block(self, number: int, name: str) -> Block:
        """All are alike."""
        return Block(self.config, self.dtype, self.cache_length, name=name)


def default_sites(config: GPT2Config) -> str:
    """MLPs of the last three blocks (the paper's choice)."""
    return rf"h_({last_blocks(config.n_layer, 3)})/mlp/(c_fc|c_proj)"


def expected_weights(config: GPT2Config) -> dict[str, Expected]:
    """Where each Hugging Face tensor goes. Their Conv1D is [d_in, d_out], as kernels are here."""
    d, inner = config.n_embd, config.n_inner
    table = {
        "transformer.wte.weight": Expected(("embedding",), (config.vocab_size, d), False),
        "transformer.wpe.weight": Expected(
            ("position_embedding",), (config.n_positions, d), False
        ),
    }
    kernels = {
        "attn.c_attn": (d, 3 * d),
        "attn.c_proj": (d, d),
        "mlp.c_fc": (d, inner),
        "mlp.c_proj": (inner, d),
    }
    for i in range(config.n_layer):
        for name, shape in kernels.items():
            ours = f"h_{i}/{name.replace('.', '/')}"
            table |= expect_linear(f"transformer.h.{i}.{name}", ours, shape, transpose=False)
        for name in ("ln_1", "ln_2"):
            table |= expect_norm(f"transformer.h.{i}.{name}", f"h_{i}/{name}", d)
    return table | expect_norm("transformer.ln_f", "head/ln_f", d)


PARTITION: Partition = (
    (r"embedding", (None, "model")),  # 50257 rows: no number of devices divides them
    (r".*/(c_attn|c_fc)/kernel", (None, "model")),
    (r".*/c_proj/kernel", ("model", None)),
)
"""MLP features apart. An even cut of c_attn's outputs does not cut queries, keys and values into
whole heads each, so the compiler exchanges them (activations, never the matrix) before attention,
which it then runs by heads, as the rows of c_proj ask for."""

FAMILY = Family(GPT2Config.from_hf, GPT2, expected_weights, default_sites, PARTITION)
