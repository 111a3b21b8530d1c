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

from mend_jax.models import gpt
from mend_jax.models.causal import EMBEDDING_INIT, CausalModel, Sizes
from mend_jax.models.family import Family, expect_linear, expect_norm, last_blocks
from mend_jax.models.layers import Linear, layer_norm, logits_against, take
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
          ValueError: an activation or a head that is not implemented; a rotary_dim that is odd or
            larger than a head.
        """
        del names
        activation = gpt.checked(config, {"tie_word_embeddings": False}, "GPT-J")
        turning, head = config.get("rotary_dim", 64), config["n_embd"] // config["n_head"]
        if not turning or turning % 2 or turning > head:
            raise ValueError(
                f"GPT-J with rotary_dim {turning} is not implemented: it has to be even and at "
                f"most {head}, the width of a head"
            )
        return cls(
            vocab_size=config["vocab_size"],
            n_positions=config["n_positions"],
            n_embd=config["n_embd"],
            n_layer=config["n_layer"],
            n_head=config["n_head"],
            n_inner=config.get("n_inner") or 4 * config["n_embd"],
            rotary_dim=turning,
            activation_function=activation,
            layer_norm_epsilon=config.get("layer_norm_epsilon", 1e-5),
        )


def rotary_pairs(
    x: Float[Array, "k length heads d"], positions: Int[Array, "k length"], turning: int
) -> Float[Array, "k length heads d"]:
    """Turns the features (0, 1), (2, 3), ... below `turning`, pair i by position / 10000^(2i/d)."""
    frequencies = 10000.0 ** (-jnp.arange(0, turning, 2, dtype=jnp.float32) / turning)
    angles = positions[:, :, None, None].astype(jnp.float32) * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = (x[..., i:turning:2].astype(jnp.float32) for i in (0, 1))
    turned = jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-1)
    turned = turned.reshape(*x.shape[:-1], turning).astype(x.dtype)
    return jnp.concatenate([turned, x[..., turning:]], axis=-1)


class Attention(nn.Module):
    """Causal attention with rotary positions, without biases."""

    config: GPTJConfig
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

        def project(name: str, x: Array) -> Array:
            y = Linear(c.n_embd, dtype=self.dtype, name=name, use_bias=False)(x)
            return gpt.split_heads(y, c.n_head)

        asking = positions if read is None else take(positions, read)
        query = project("q_proj", x if read is None else take(x, read))
        query = rotary_pairs(query, asking, c.rotary_dim)
        key = rotary_pairs(project("k_proj", x), positions, c.rotary_dim)
        value = project("v_proj", x)
        out = gpt.attend(query, key, value, positions, read, self.cache_length)
        return Linear(c.n_embd, dtype=self.dtype, name="out_proj", use_bias=False)(out)


class Block(nn.Module):
    """x + attention(norm x) + mlp(norm x); with `read`, at these positions only."""

    config: GPTJConfig
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
        if read is not None:
            x, normed = take(x, read), take(normed, read)
        names = ("fc_in", "fc_out")
        mlp = gpt.MLP(c.n_inner, c.activation_function, self.dtype, names, name="mlp")
        return x + attended + mlp(normed)


class Head(nn.Module):
    """The last norm, then logits against a table of its own, with a bias."""

    config: GPTJConfig
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "k answers d"]) -> Float[Array, "k answers vocabulary"]:
        c = self.config
        x = layer_norm(c.layer_norm_epsilon, self.dtype, "ln_f")(x)
        table = self.param("embedding", EMBEDDING_INIT, (c.vocab_size, c.n_embd))
        bias = self.param("bias", nn.initializers.zeros, (c.vocab_size,))
        return logits_against(x, table) + bias.astype(jnp.float32)


class GPTJ(CausalModel):
    """The model, or stages of it. Stages: embed, h_0, ..., head."""

    config: GPTJConfig

    @property
    def sizes(self) -> Sizes:
        """Of the whole model."""
        c = self.config
        return Sizes(c.vocab_size, c.n_embd, c.n_layer, c.n_positions)

    def block(self, number: int, name: str) -> Block:
        """All are alike."""
        return Block(self.config, self.dtype, self.cache_length, name=name)

    def read_out(self, x: Array, embedding: Array) -> Array:
        """By a table of its own."""
        return Head(self.config, self.dtype, name="head")(x)


def default_sites(config: GPTJConfig) -> str:
    """MLPs of the last three blocks (the paper's choice)."""
    return rf"h_({last_blocks(config.n_layer, 3)})/mlp/(fc_in|fc_out)"


def expected_weights(config: GPTJConfig) -> dict[str, Expected]:
    """Where each Hugging Face tensor goes: {name: (path, shape, transposed?)}."""
    d, inner, vocabulary = config.n_embd, config.n_inner, config.vocab_size
    table = {
        "transformer.wte.weight": Expected(("embedding",), (vocabulary, d), False),
        "lm_head.weight": Expected(("head", "embedding"), (vocabulary, d), False),
        "lm_head.bias": Expected(("head", "bias"), (vocabulary,), False),
    }
    for i in range(config.n_layer):
        theirs, ours = f"transformer.h.{i}", f"h_{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            table |= expect_linear(
                f"{theirs}.attn.{name}", f"{ours}/attn/{name}", (d, d), transpose=True, bias=False
            )
        for name, shape in {"fc_in": (d, inner), "fc_out": (inner, d)}.items():
            table |= expect_linear(f"{theirs}.mlp.{name}", f"{ours}/mlp/{name}", shape, True)
        table |= expect_norm(f"{theirs}.ln_1", f"{ours}/ln_1", d)
    return table | expect_norm("transformer.ln_f", "head/ln_f", d)


PARTITION: Partition = (
    (r"(head/)?embedding", ("model", None)),
    (r"head/bias", ("model",)),
    (r".*/(q_proj|k_proj|v_proj|fc_in)/kernel", (None, "model")),
    (r".*/(out_proj|fc_out)/kernel", ("model", None)),
)
"""Heads and MLP features apart; attention and MLP of a block end in one sum over the devices."""

FAMILY = Family(GPTJConfig.from_hf, GPTJ, expected_weights, default_sites, PARTITION)
