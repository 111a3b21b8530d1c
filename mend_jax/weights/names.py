"""What tensors are called: in older files, and by what stood around the model when it was saved."""

from collections.abc import Iterable, Mapping

from mend_jax.weights.errors import WeightsError

_AROUND = ("module.", "_forward_module.", "base_model.model.")
"""DataParallel, DeepSpeed and PEFT put these before the names of all tensors."""
_WITHIN = ("_orig_mod.", "_fsdp_wrapped_module.")
"""torch.compile and FSDP put these anywhere into names."""
_ADAPTER = (".lora_", ".base_layer.", "modules_to_save.", ".prompt_embeddings", ".ia3_")
"""Parts of the names of tensors that belong to an adapter, not to a model."""


def spellings(name: str) -> tuple[str, ...]:
    """Other names a tensor has in older files: without the model's own prefix; gamma and beta."""
    bare = name.partition(".")[2]
    old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
        "LayerNorm.bias", "LayerNorm.beta"
    )
    head = {"lm_head.weight": "embed_out.weight"}.get(name, name)  # of GPT-NeoX
    return tuple(dict.fromkeys((name, bare, old, old.partition(".")[2], head)))


def plain_names(names: Iterable[str], origin: str) -> Mapping[str, str]:
    """{the model's own name: the name in the file}, without what training code put around it.

    Args:
      origin: the file or folder, for messages.

    Raises:
      WeightsError: tensors of an adapter that has not been merged; or two have the same name.
    """
    names = list(names)
    if adapter := [name for name in names if any(part in name for part in _ADAPTER)]:
        raise WeightsError(
            f"{origin} holds an adapter that is not merged into the model ({len(adapter)} of "
            f"{len(names)} tensors, such as {adapter[0]}). Merge it (in PEFT: "
            "`model.merge_and_unload()`) and save the model again."
        )
    plain = [_without(name, _WITHIN) for name in names]
    while found := [p for p in _AROUND if plain and all(name.startswith(p) for name in plain)]:
        plain = [name.removeprefix(found[0]) for name in plain]
    if len(set(plain)) < len(plain):
        twice = next(name for name in plain if plain.count(name) > 1)
        both = [name for name, own in zip(names, plain, strict=True) if own == twice]
        raise WeightsError(f"{origin} holds one tensor twice: {' and '.join(both)}")
    return dict(zip(plain, names, strict=True))


def _without(name: str, parts: Iterable[str]) -> str:
    for part in parts:
        name = name.replace(part, "")
    return name
