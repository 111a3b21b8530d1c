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
from jaxtyping import Array, Float, Int

from mend_jax.models import gpt
from mend_jax.models.causal import Sizes
from mend_jax.models.family import Family, expect_linear, expect_norm, last_blocks
from mend_jax.models.layers import Linear, layer_norm, take
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
          ValueError: an activation, a head or a kind of attention that is not implemented; not as
            many kinds of attention as there are blocks.
        """
        del names
        activation = gpt.checked(config, {"tie_word_embeddings": True}, "GPT-Neo")
        return cls(
            vocab_size=config["vocab_size"],
            max_position_embeddings=config["max_position_embeddings"],
            hidden_size=config["hidden_size"],
            num_layers=config["num_layers"],
            num_heads=config["num_heads"],
            intermediate_size=config.get("intermediate_size") or 4 * config["hidden_size"],
            attention_layers=_attention_layers(config),
            window_size=config.get("window_size", 256),
            activation_function=activation,
            layer_norm_epsilon=config.get("layer_norm_epsilon", 1e-5),
        )


def _attention_layers(config: Mapping[str, Any]) -> tuple[str, ...]:
    """`attention_types` written out: [[[global, local], 2]] is global, local, global, local."""
    types = config.get("attention_types") or [[["global", "local"], config["num_layers"] // 2]]
    layers = config.get("attention_layers") or [
        kind for kinds, times in types for _ in range(times) for kind in kinds
    ]
    if len(layers) != config["num_layers"] or set(layers) - {"global", "local"}:
        raise ValueError(
            f"GPT-Neo with attention {layers} in {config['num_layers']} blocks is not implemented "
            "(one of global and local for each block is)"
        )
    return tuple(layers)


class Attention(nn.Module):
    """Causal attention without 1/sqrt(d), in a window of the past or in all of it."""

    config: GPTNeoConfig
    dtype: Any
    cache_length: int
    local: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "k length d"],
        positions: Int[Array, "k length"],
        read: Int[Array, "k answers"] | None,
    ) -> Float[Array, "k queries d"]:
        c = self.config

        def project(name: str, x: Array, scale: float = 1.0) -> Array:
            init = nn.initializers.variance_scaling(scale, "fan_in", "truncated_normal")
            y = Linear(
                c.hidden_size, dtype=self.dtype, name=name, use_bias=False, kernel_init=init
            )(x)
            return gpt.split_heads(y, c.num_heads)

        # Scores that are not scaled are large: queries begin small, or attention would begin as a
        # hard choice, and bfloat16 would round them too coarsely.
        asking = x if read is None else take(x, read)
        query = project("q_proj", asking, c.num_heads / c.hidden_size).astype(jnp.float32)
        key, value = project("k_proj", x), project("v_proj", x)
        window = c.window_size if self.local else None
        out = gpt.attend(query, key, value, positions, read, self.cache_length, window, scale=1.0)
        return Linear(c.hidden_size, dtype=self.dtype, name="out_proj")(out)


class Block(nn.Module):
    """One layer; with `read`, its output holds only these positions."""

    config: GPTNeoConfig
    dtype: Any
    cache_length: int
    local: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "k length d"],
        positions: Int[Array, "k length"],
        read: Int[Array, "k answers"] | None,
    ) -> Float[Array, "k queries d"]:
        c = self.config
        normed = layer_norm(c.layer_norm_epsilon, self.dtype, "ln_1")(x)
        attended = Attention(c, self.dtype, self.cache_length, self.local, name="attn")(
            normed, positions, read
        )
        x = (x if read is None else take(x, read)) + attended
        normed = layer_norm(c.layer_norm_epsilon, self.dtype, "ln_2")(x)
        mlp = gpt.MLP(c.intermediate_size, c.activation_function, self.dtype, name="mlp")
        return x + mlp(normed)


class GPTNeo(gpt.TiedGPT):
    """The model, or stages of it. Stages: embed, h_0, ..., head."""

    config: GPTNeoConfig

    @property
    def sizes(self) -> Sizes:
        """Of the whole model."""
        c = self.config
        return Sizes(c.vocab_size, c.hidden_size, c.num_layers, c.max_position_embeddings)

    def block(self, number: int, name: str) -> Block:
        """With attention in a window, or to all of the past."""
        local = self.config.attention_layers[number] == "local"
        return Block(self.config, self.dtype, self.cache_length, local, name=name)


def default_sites(config: GPTNeoConfig) -> str:
    """MLPs of the last three blocks (the paper's choice)."""
    return rf"h_({last_blocks(config.num_layers, 3)})/mlp/(c_fc|c_proj)"


def expected_weights(config: GPTNeoConfig) -> dict[str, Expected]:
    """Where each Hugging Face tensor goes: {name: (path, shape, transposed?)}."""
    d, inner, places = config.hidden_size, config.intermediate_size, config.max_position_embeddings
    table = {
        "transformer.wte.weight": Expected(("embedding",), (config.vocab_size, d), False),
        "transformer.wpe.weight": Expected(("position_embedding",), (places, d), False),
    }
    for i in range(config.num_layers):
        theirs, ours = f"transformer.h.{i}", f"h_{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            table |= expect_linear(
                f"{theirs}.attn.attention.{name}", f"{ours}/attn/{name}", (d, d),
                transpose=True, bias=name == "out_proj",
            )  # fmt: skip
        for name, shape in {"c_fc": (d, inner), "c_proj": (inner, d)}.items():
            table |= expect_linear(f"{theirs}.mlp.{name}", f"{ours}/mlp/{name}", shape, True)
        for name in ("ln_1", "ln_2"):
            table |= expect_norm(f"{theirs}.{name}", f"{ours}/{name}", d)
    return table | expect_norm("transformer.ln_f", "head/ln_f", d)


PARTITION: Partition = (
    (r"embedding", (None, "model")),  # 50257 rows: no number of devices divides them
    (r".*/(q_proj|k_proj|v_proj|c_fc)/kernel", (None, "model")),
    (r".*/(out_proj|c_proj)/kernel", ("model", None)),
)
"""Heads and MLP features apart; one sum over the devices an attention and one an MLP."""

FAMILY = Family(GPTNeoConfig.from_hf, GPTNeo, expected_weights, default_sites, PARTITION)
