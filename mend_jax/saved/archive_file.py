"""MEND's editors as the authors and ROME publish them: `torch.save` archives, read as data.

    {"model": {"edit_lrs", "model_config", "mend.(768, 3072).u_mean",
               "mend.(768, 3072).mlp.layers.0.u", ...}, "opt", "step", ...}

ROME's say "gtn." in the place of "mend.". No code of the file is run: it is opened with
`weights_only`, and the model's config, which is an object of transformers', is passed over.
"""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mend_jax.saved.arrays import EditorError

Arrays = Mapping[str, np.ndarray]
PREFIX = re.compile(r"(mend|gtn)\.")
CONFIGS = re.compile(r"(transformers|numpy)\.[\w.]+")
"""Of whose objects the archive may hold some beside tensors. They are passed over."""


class Archive(NamedTuple):
    """arrays: by name, without the prefix, in the file's order. rates: alpha, as the matrices were
    listed. origin: the file."""

    arrays: Arrays
    rates: Float[np.ndarray, "_"]
    origin: str


def read_archive(path: Path) -> Archive:
    """Opens an archive of MEND's.

    Raises:
      EditorError: no archive of `torch.save`, or a damaged one; it holds code, or no editor.
    """
    import torch

    if not zipfile.is_zipfile(path):
        raise EditorError(f"{path}: no archive of torch.save (since PyTorch 1.6), or cut short")
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
        if code := [name for name in foreign if not CONFIGS.fullmatch(name)]:
            raise EditorError(f"{path} is refused: to load {code[0]} would run code of the file")
        with torch.serialization.safe_globals([(_PassedOver, name) for name in foreign]):
            held = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EditorError(f"{path}: damaged, or no archive of torch.save ({reason})") from None
    model = held.get("model", held) if isinstance(held, Mapping) else {}
    found = {str(k): x.detach() for k, x in model.items() if isinstance(x, torch.Tensor)}
    arrays = {PREFIX.sub("", k, count=1): x.float().numpy() for k, x in found.items()
              if PREFIX.match(k)}  # fmt: skip
    if "edit_lrs" not in found or not arrays:
        known = ", ".join(map(repr, list(model)[:4])) or "nothing"
        raise EditorError(
            f"{path}: no editor of MEND's: 'edit_lrs' and names that begin with 'mend.' or 'gtn.' "
            f"are wanted in its 'model', it holds {known}"
        )
    return Archive(arrays, found["edit_lrs"].float().numpy(), str(path))


class _PassedOver:
    """In the place of an object that is no tensor."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...
