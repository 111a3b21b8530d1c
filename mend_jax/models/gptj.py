"""GPT-J: attention and MLP side by side on one norm, rotary positions by neighbouring pairs.

Wang and Komatsuzaki 2021 (github.com/kingoflolz/mesh-transformer-jax). In each head the first
rotary_dim features turn with the position, the others do not; the attention has no biases; the
head is a table of its own with a bias. Module names follow Hugging Face's `GPTJForCausalLM`.

    tokens [k, length] -> embed -> h_0 ... -> head -> logits [k, answers, vocabulary]
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mend_jax.models import declared, gpt
from mend_jax.models.attention import Heads, heads_alike
from mend_jax.models.causal import CausalAttention
from mend_jax.models.family import (
    Family,
    expect_linear,
    expect_table,
    features_apart,
    last_blocks,
    read_dimensions,
)
from mend_jax.models.layers import MLP, Linear, take
from mend_jax.models.one_stack import Places, Sizes
from mend_jax.models.settings import check_heads, require, settle
from mend_jax.parallel import Partition
from mend_jax.weights import Expected


@dataclass(frozen=True)
class GPTJConfig:
    """The dimensions; field names are those of Hugging Face's config.json."""

    vocab_size: int
    n_positions: int
    n_embd: int
    n_layer: int
    n_head: int
    n_inner: int
    rotary_dim: int = 64
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], names: Collection[str] = ()) -> "GPTJConfig":
        """Reads a Hugging Face config.json (the names of the tensors are not needed).

        Raises:
          ConfigError: a setting that is not implemented; a rotary_dim that is odd or larger than
            a head.
        """
        del names
        said = settle(config, declared.GPTJ)
        check_heads(said, "n_embd", "n_head")
        turning, head = said["rotary_dim"], said["n_embd"] // said["n_head"]
        require(
            turning % 2 == 0 and turning <= head,
            f"rotary_dim = {turning} is not supported: it has to be even and at most {head}, the "
            "width of a head",
        )
        return read_dimensions(cls, said, n_inner=said["n_inner"] or 4 * said["n_embd"])


def rotary_pairs(
    x: Float[Array, "k length heads d"], positions: Int[Array, "k length"], turning: int
) -> Float[Array, "k length heads d"]:
    """Turns the features (0, 1), (2, 3), ... below `turning`, pair i by position / 10000^(2i/d)."""
    frequencies = 10000.0 ** (-jnp.arange(0, turning, 2, dtype=jnp.float32) / turning)
    angles = positions[:, :, None, None].astype(jnp.float32) * frequencies[None, None, None]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = (x[..., i:turning:2].astype(jnp.float32) for i in (0, 1))
    turned = jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-1)
    turned = turned.reshape(*x.shape[:-1], turning).astype(x.dtype)
    return jnp.concatenate([turned, x[..., turning:]], axis=-1)


class Attention(CausalAttention):
    """With rotary positions, without biases."""

    config: GPTJConfig

    @property
    def heads(self) -> Heads:
        """As wide together as the model."""
        return heads_alike(self.config.n_head, self.config.n_embd)

    def linear(self, name: str, features: int) -> Linear:
        """Without a bias."""
        return Linear(features, use_bias=False, dtype=self.dtype, name=name)

    def prepare(
        self, query: Array, key: Array, asking: Int[Array, "k queries"], places: Places
    ) -> tuple[Array, Array]:
        """Turned by their positions."""
        turning = self.config.rotary_dim
        return rotary_pairs(query, asking, turning), rotary_pairs(key, places.positions, turning)


class Block(gpt.Block):
    """x + attention(norm x) + mlp(norm x): one norm for both."""

    config: GPTJConfig

    attention = Attention

    def mlp(self) -> MLP:
        """Four times as wide, if n_inner says nothing else."""
        c = self.config
        names = ("fc_in", "fc_out")
        return MLP(c.n_inner, c.activation_function, self.dtype, names, name="mlp")

    @nn.compact
    def __call__(
        self, x: Float[Array, "k length d"], places: Places
    ) -> Float[Array, "k queries d"]:
        normed = self.norm("ln_1")(x)
        attended = self.attend(normed, places)
        return take(x, places.read) + attended + self.mlp()(take(normed, places.read))


class GPTJ(gpt.GPT):
    """The model, or stages of it. Stages: embed, h_0, ..., head."""

    config: GPTJConfig

    block_type = Block

    @property
    def sizes(self) -> Sizes:
        """Of the whole model."""
        c = self.config
        return Sizes(c.vocab_size, c.n_embd, c.n_layer, c.n_positions)

    def read_out(
        self, x: Float[Array, "k answers d"], embedding: Float[Array, "vocabulary d"]
    ) -> Float[Array, "k answers vocabulary"]:
        """By a table of its own, with a bias."""
        return self.head(tied=False, bias=True)(x, embedding)


def default_sites(config: GPTJConfig) -> str:
    """MLPs of the last three blocks (the paper's choice)."""
    return rf"h_({last_blocks(config.n_layer, 3)})/mlp/(fc_in|fc_out)"


def expected_weights(config: GPTJConfig) -> dict[str, Expected]:
    """Where each Hugging Face tensor goes: {name: (path, shape, transposed?)}."""
    d, inner, vocabulary = config.n_embd, config.n_inner, config.vocab_size
    block = expect_linear("mlp.fc_in", (d, inner)) | expect_linear("mlp.fc_out", (inner, d))
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        block |= expect_linear(f"attn.{name}", (d, d), bias=False)
    head = expect_table("lm_head", (vocabulary, d), "head/embedding")
    head["lm_head.bias"] = Expected(("head", "bias"), (vocabulary,), False)
    return gpt.expected(GPTJ(config).sizes, block) | head


PARTITION: Partition = (
    (r"(head/)?embedding", ("model", None)),
    (r"head/bias", ("model",)),
    *features_apart("q_proj|k_proj|v_proj|fc_in", "out_proj|fc_out"),
)
"""A block's attention and MLP end in one sum over the devices, since they stand side by side."""

SPARE = {
    r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias": "the causal mask, which is made anew",
    r"(transformer\.)?h\.\d+\.attn\.embed_positions": "sines and cosines, which are made anew",
}

FAMILY = Family(GPTJConfig.from_hf, GPTJ, expected_weights, default_sites, PARTITION, SPARE)
