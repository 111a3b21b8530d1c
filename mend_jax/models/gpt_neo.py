"""GPT-Neo: every other block attends only to a window of the past.

Black et al. 2021 (doi 10.5281/zenodo.5297715). As GPT-2, but that blocks alternate between global
and local attention, that scores are not divided by sqrt(d), and that queries, keys and values have
no bias. Module names follow Hugging Face's `GPTNeoForCausalLM`.

    tokens [k, length] -> embed -> h_0 ... -> head -> logits [k, answers, vocabulary]
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Int

from mend_jax.models import declared, gpt
from mend_jax.models.attention import Heads, Scoring, heads_alike
from mend_jax.models.causal import CausalAttention
from mend_jax.models.family import (
    Family,
    expect_linear,
    expect_norm,
    features_apart,
    last_blocks,
    read_dimensions,
)
from mend_jax.models.layers import MLP, Linear
from mend_jax.models.one_stack import Places, Sizes
from mend_jax.models.settings import check_heads, require, settle
from mend_jax.parallel import Partition
from mend_jax.weights import Expected


@dataclass(frozen=True)
class GPTNeoConfig:
    """The dimensions; field names are those of Hugging Face's config.json."""

    vocab_size: int
    max_position_embeddings: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    attention_layers: tuple[str, ...]  # "global" or "local", one a block
    window_size: int = 256
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], names: Collection[str] = ()) -> "GPTNeoConfig":
        """Reads a Hugging Face config.json (the names of the tensors are not needed).

        Raises:
          ConfigError: a setting or a kind of attention that is not implemented; not as many kinds
            of attention as there are blocks.
        """
        del names
        said = settle(config, declared.GPT_NEO)
        check_heads(said, "hidden_size", "num_heads")
        return read_dimensions(
            cls,
            said,
            intermediate_size=said["intermediate_size"] or 4 * said["hidden_size"],
            attention_layers=_attention_layers(said),
        )


def _attention_layers(said: Mapping[str, Any]) -> tuple[str, ...]:
    """`attention_types` written out: [[[global, local], 2]] is global, local, global, local."""
    n = said["num_layers"]
    types = said["attention_types"] or [[["global", "local"], 12]]
    layers = said["attention_layers"]
    if not layers:
        require(all(map(_is_run, types)), f"attention_types = {types!r} is not supported")
        layers = [kind for kinds, times in types for _ in range(times) for kind in kinds]
    require(
        len(layers) == n and all(kind in ("global", "local") for kind in layers),
        f"attention_types or attention_layers: {layers} in {n} blocks is not supported (one of "
        "global and local for each block is)",
    )
    return tuple(layers)


def _is_run(entry: Any) -> bool:
    """Whether it is [[kind, ...], how many times], of a size that can be written out."""
    if not isinstance(entry, list | tuple) or len(entry) != 2:
        return False
    kinds, times = entry
    return isinstance(kinds, list | tuple) and isinstance(times, int) and times <= 10_000


class Attention(CausalAttention):
    """Without 1/sqrt(d), and without biases but for the output's."""

    config: GPTNeoConfig

    @property
    def scoring(self) -> Scoring:
        """As they are."""
        return Scoring(scale=1.0)

    @property
    def window(self) -> int | None:
        """Of the local layers only."""
        return self.config.window_size if self.layer == "local" else None

    @property
    def heads(self) -> Heads:
        """As wide together as the model."""
        return heads_alike(self.config.num_heads, self.config.hidden_size)

    def linear(self, name: str, features: int) -> Linear:
        """Scores that are not scaled are large: queries begin small, or attention would begin as a
        hard choice, and bfloat16 would round them too coarsely (`prepare`)."""
        if name == "out_proj":
            return Linear(features, dtype=self.dtype, name=name)
        scale = self.config.num_heads / self.config.hidden_size if name == "q_proj" else 1.0
        init = nn.initializers.variance_scaling(scale, "fan_in", "truncated_normal")
        return Linear(features, use_bias=False, dtype=self.dtype, kernel_init=init, name=name)

    def prepare(
        self, query: Array, key: Array, asking: Int[Array, "k queries"], places: Places
    ) -> tuple[Array, Array]:
        """The scores are made in float32."""
        return query.astype(jnp.float32), key


class Block(gpt.Block):
    """One layer."""

    config: GPTNeoConfig

    attention = Attention

    def mlp(self) -> MLP:
        """Four times as wide, if intermediate_size says nothing else."""
        c = self.config
        names = ("c_fc", "c_proj")
        return MLP(c.intermediate_size, c.activation_function, self.dtype, names, name="mlp")


class GPTNeo(gpt.TiedGPT):
    """The model, or stages of it. Stages: embed, h_0, ..., head."""

    config: GPTNeoConfig

    block_type = Block

    @property
    def sizes(self) -> Sizes:
        """Of the whole model."""
        c = self.config
        return Sizes(c.vocab_size, c.hidden_size, c.num_layers, c.max_position_embeddings)

    def layer(self, number: int) -> str:
        """Whether it is a local or a global one."""
        return self.config.attention_layers[number]


def default_sites(config: GPTNeoConfig) -> str:
    """MLPs of the last three blocks (the paper's choice)."""
    return rf"h_({last_blocks(config.num_layers, 3)})/mlp/(c_fc|c_proj)"


def expected_weights(config: GPTNeoConfig) -> dict[str, Expected]:
    """Where each Hugging Face tensor goes: {name: (path, shape, transposed?)}."""
    d, inner = config.hidden_size, config.intermediate_size
    block = expect_norm("ln_2", d)
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        theirs, ours = f"attn.attention.{name}", f"attn/{name}"
        block |= expect_linear(theirs, (d, d), ours, bias=name == "out_proj")
    block |= expect_linear("mlp.c_fc", (d, inner)) | expect_linear("mlp.c_proj", (inner, d))
    sizes = GPTNeo(config).sizes
    return gpt.expected(sizes, block) | gpt.expected_positions(sizes)


PARTITION: Partition = (
    (r"embedding", (None, "model")),  # 50257 rows: no number of devices divides them
    *features_apart("q_proj|k_proj|v_proj|c_fc", "out_proj|c_proj"),
)

SPARE = {
    r"(transformer\.)?h\.\d+\.attn\.attention\.(masked_)?bias": (
        "the causal mask, which is made anew"
    )
}
COPIES = {"lm_head.weight": "transformer.wte.weight"}

FAMILY = Family(
    GPTNeoConfig.from_hf, GPTNeo, expected_weights, default_sites, PARTITION, SPARE, COPIES
)
