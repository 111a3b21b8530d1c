"""Mixtures of experts: Llama's blocks, whose MLP is a router and many small MLPs, the experts.

    y = sum_e w_e(x) down_e(act(gate_e x) * up_e x),    w: the largest of softmax(router x)

Mixtral: Jiang et al. 2024 (arXiv 2401.04088). Qwen3-MoE: Yang et al. 2025 (arXiv 2505.09388).
Every expert is computed at every position, one after another, and its weight is 0 where it is not
chosen: no token is left out, and shapes are fixed. Attention, the router (`mlp/gate`) and the MLPs
of layers without experts are sites. An expert's kernels are none: few of the rows of an edit reach
one, and which do changes with the edit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mend_jax.models import declared, llama
from mend_jax.models.family import Family, expect_linear, last_blocks
from mend_jax.models.layers import ACTIVATIONS, MLP, Linear
from mend_jax.models.llama_config import LlamaConfig
from mend_jax.models.settings import Declared, require
from mend_jax.weights import Expected

PARTS = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class ExpertsConfig(LlamaConfig):
    """The dimensions. norm_topk_prob: the weights of the chosen experts sum to 1. dense: layers
    that have one MLP, of `intermediate_size`, in place of experts."""

    num_experts: int = 8
    num_experts_per_tok: int = 2
    moe_intermediate_size: int = 14336
    norm_topk_prob: bool = True
    dense: tuple[int, ...] = ()

    theirs: ClassVar[tuple[str, ...]] = ("mlp", *PARTS)
    """What files call the router and experts of a block, and the kernels of an expert."""

    @classmethod
    def layers(cls, said: Mapping[str, Any]) -> dict[str, Any]:
        """And how many experts there are, of what size."""
        n, chosen = said["num_experts"], said["num_experts_per_tok"]
        problem = f"num_experts_per_tok = {chosen} is not supported (at most num_experts, {n}, is)"
        require(chosen <= n, problem)
        return super().layers(said) | cls.experts(said)

    @classmethod
    def experts(cls, said: Mapping[str, Any]) -> dict[str, Any]:
        """Experts in all layers, of the size of the MLP that they stand for."""
        return {"moe_intermediate_size": said["intermediate_size"]}


@dataclass(frozen=True)
class MixtralConfig(ExpertsConfig):
    """Mixtral."""

    declared: ClassVar[Declared] = declared.MIXTRAL
    theirs: ClassVar[tuple[str, ...]] = ("block_sparse_moe", "w1", "w3", "w2")


@dataclass(frozen=True)
class Qwen3MoeConfig(ExpertsConfig):
    """Qwen3-MoE: Qwen3's attention; experts in some layers, or in all."""

    declared: ClassVar[Declared] = declared.QWEN3_MOE
    qk_norm: ClassVar[Any] = "head"

    @classmethod
    def experts(cls, said: Mapping[str, Any]) -> dict[str, Any]:
        """As many layers apart as the file says, but for those that it names."""
        named, every = said["mlp_only_layers"] or [], said["decoder_sparse_step"]
        problem = f"mlp_only_layers = {named!r} is not supported (numbers of layers are)"
        require(all(type(i) is int for i in named), problem)
        layers = range(said["num_hidden_layers"])
        return {"dense": tuple(i for i in layers if i in named or (i + 1) % every)}


class Experts(nn.Module):
    """The router, and the sum of what the experts say that it chooses.

    Their kernels are parameters of their own, as in files; while a layer runs, they are put
    together, which takes room for one layer's experts more.
    """

    config: ExpertsConfig
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "k length d"]) -> Float[Array, "k length d"]:
        c, act = self.config, ACTIVATIONS[self.config.hidden_act]
        weights = self.routed(x)
        each = [self.expert(f"experts_{e}", x.shape[-1]) for e in range(c.num_experts)]
        kernels = jax.tree.map(lambda *parts: jnp.stack(parts), *each)

        def product(x: Array, layer: Mapping[str, Array]) -> Array:
            y = x @ layer["kernel"].astype(x.dtype)
            if "scale" in layer:
                y = y * jnp.broadcast_to(layer["scale"].astype(x.dtype), y.shape)
            return y

        def add(total: Array, one: tuple[Array, Any]) -> tuple[Array, None]:
            weight, layers = one
            gate, up, down = (layers[name] for name in PARTS)
            h = act(product(x, gate)) * product(x, up)
            return total + product(h, down) * weight[..., None], None

        nothing = jnp.zeros(x.shape, x.dtype)
        return jax.lax.scan(jax.checkpoint(add, prevent_cse=False), nothing, (weights, kernels))[0]

    def expert(self, name: str, d: int) -> Any:
        """The parameters of one: for thousands of experts, modules would take minutes to trace."""
        if self.has_variable("params", name):
            return self.get_variable("params", name)
        inner, init = self.config.moe_intermediate_size, nn.initializers.lecun_normal()
        shapes = {part: (d, inner) for part in PARTS[:2]} | {PARTS[2]: (inner, d)}

        def fresh(key: PRNGKeyArray) -> dict[str, dict[str, Array]]:
            keys = jax.random.split(key, len(shapes))
            each = zip(keys, shapes.items(), strict=True)
            return {part: {"kernel": init(key, shape)} for key, (part, shape) in each}

        return self.param(name, fresh)

    def routed(self, x: Float[Array, "k length d"]) -> Float[Array, "experts k length"]:
        """Each expert's weight at each position, 0 if it is not chosen there."""
        c = self.config
        logits = Linear(c.num_experts, use_bias=False, dtype=self.dtype, name="gate")(x)
        likely = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
        most, chosen = jax.lax.top_k(likely, c.num_experts_per_tok)
        if c.norm_topk_prob:
            most = most / jnp.sum(most, axis=-1, keepdims=True)
        places = jax.nn.one_hot(chosen, c.num_experts, axis=0, dtype=x.dtype)
        return jnp.sum(places * most.astype(x.dtype)[None], axis=-1)


class Block(llama.Block):
    """One layer, with experts or without."""

    config: ExpertsConfig

    def mlp(self) -> MLP | Experts:  # type: ignore[override]
        """Gated, or experts that are."""
        if self.layer.experts:
            return Experts(self.config, self.dtype, name="mlp")
        return super().mlp()


class Mixture(llama.Llama):
    """The model, or stages of it. Stages: embed, layers_0, ..., head."""

    config: ExpertsConfig

    block_type: ClassVar[Any] = Block

    def layer(self, number: int) -> llama.Layer:
        """With experts, if it is not one of the `dense`."""
        return super().layer(number)._replace(experts=number not in self.config.dense)


def default_sites(config: ExpertsConfig) -> str:
    """Values and outputs of the last three blocks' attention: what there is in every layer. (Not
    chosen by a measured edit.)"""
    return rf"layers_({last_blocks(config.num_hidden_layers, 3)})/self_attn/(v|o)_proj"


def expected_weights(config: ExpertsConfig) -> dict[str, Expected]:
    """Llama's table, with experts in the place of MLPs; files have each kernel by itself."""
    c, table = config, llama.expected_weights(config)
    d, f, (block, *parts) = c.hidden_size, c.moe_intermediate_size, config.theirs
    for i in range(c.num_hidden_layers):
        if i in c.dense:
            continue
        own, there = f"layers_{i}/mlp", f"model.layers.{i}.{block}"
        for name in PARTS:
            del table[f"model.layers.{i}.mlp.{name}.weight"]
        table |= expect_linear(f"{there}.gate", (d, c.num_experts), f"{own}/gate", bias=False)
        for e in range(c.num_experts):
            for name, said in zip(PARTS, parts, strict=True):
                shape = (f, d) if name == "down_proj" else (d, f)
                where = f"{own}/experts_{e}/{name}"
                table |= expect_linear(f"{there}.experts.{e}.{said}", shape, where, bias=False)
    return table


def family(kind: type[ExpertsConfig]) -> Family:
    """The model with dimensions of this kind."""
    tables = llama.PARTITION, llama.SPARE, llama.COPIES
    made: Any = (kind.from_hf, Mixture, expected_weights, default_sites, *tables)
    return Family(*made)


FAMILIES = {"mixtral": family(MixtralConfig), "qwen3_moe": family(Qwen3MoeConfig)}
