"""Makes safetensors of a model that has only pickled weights (pytorch_model.bin), or of an editor.

    mend-jax convert FOLDER --out DIR
    mend-jax convert --editor FILE --model ID --out DIR

Needs PyTorch. With --editor, an archive of MEND's as its authors and ROME publish them becomes an
editor of the base ID, to be used like any other. Its edits are added, as their code adds them
(--descent: subtracted, as in the paper).

A model's file is mapped and written on tensor by tensor, so a model larger than the
machine's memory converts too. Nothing in the file is run: what is not a plain dict of tensors is
refused. Each tensor keeps its dtype; tensors that share their memory are written once, under the
first of their names (the index says what the others were).
"""

import json
import pickle
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from mend_jax.commands.command import Command
from mend_jax.models.registry import default_sites, load
from mend_jax.models.stages import sites_of
from mend_jax.option_checks import check_options
from mend_jax.option_types import Gigabytes, Input, InputFolder, Model, OutFolder, SiteNames, Text
from mend_jax.runs.out import contents, locked
from mend_jax.saved.archive import Unsaid, editor_of_archive
from mend_jax.saved.archive_file import read_archive
from mend_jax.saved.directory import write_editor
from mend_jax.weights.errors import WeightsError
from mend_jax.weights.hf_folder import find_shards
from mend_jax.weights.safetensors_file import write_safetensors

_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64",
    "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
INDEX = "model.safetensors.index.json"
DRAFT, WHOLE = "convert.draft", "convert.whole"
"""Folders that a conversion that is killed leaves: the first is thrown away, out of the second the
rest of the files are moved to where they belong."""
_BESIDE = (".json", ".txt", ".model")
"""Endings of the files that belong to the model beside its weights: config and tokenizer."""


@dataclass(frozen=True)
class Convert:
    """Options of a conversion."""

    folder: Positional[InputFolder | None] = None
    """Folder of a model, with pytorch_model.bin or its shards."""
    out: OutFolder | None = None
    """New folder for the safetensors, config and tokenizer (default: write beside the .bin); or for
    the editor."""
    shard_gb: Gigabytes = 5.0
    """Largest size of a shard, in GB; only a tensor that is larger itself makes a larger one."""
    editor: Input | None = None
    """An archive of MEND's, in the place of a folder."""
    model: Model | None = None
    """The base that the editor was made for: a Hugging Face folder or a hub id."""
    sites: SiteNames = ""
    """Regular expression of the layers that it edits; empty: the authors' choice for the family."""
    matrices: Annotated[tuple[Text, ...], tyro.conf.UseAppendAction] = ()
    """In place of --sites, and in the order of the run's config (inner_params): the names of the
    edited matrices in PyTorch; to be given once for each."""
    descent: bool = False
    """Its edits are subtracted."""
    normalized: bool = True
    """Its statistics are used: not so in the ablation without a normaliser."""
    identity: bool = True
    """Its networks have a residual: not so in the ablation that starts elsewhere."""


def convert(config: Convert) -> None:
    """Reads, writes, and says what was written; or finishes what was stopped before.

    Raises:
      WeightsError: nothing to convert, shards missing, a file that is damaged or is no plain dict
        of tensors.
      OptionError: an option whose value is not allowed. ValueError: the folder holds safetensors
        already, or --out anything; or it is in use.
    """
    check_options(config)
    if (config.folder is None) == (config.editor is None):
        raise ValueError("give the folder of a model, or --editor FILE --model ID --out DIR")
    if config.editor is not None:
        return convert_editor(config.editor, config)
    assert config.folder is not None
    folder, out = config.folder, config.out or config.folder
    sources = find_shards(folder, "pytorch_model.bin", "pytorch_model.bin.index.json")
    if sources is None:
        raise WeightsError(f"{folder} has no pytorch_model.bin and no pytorch_model.bin.index.json")
    with locked(out):
        draft, whole = out / DRAFT, out / WHOLE
        if not whole.exists():
            here = out.samefile(folder)
            for name in contents(out) - {DRAFT}:
                if ".safetensors" in name or not here:
                    raise ValueError(f"{out} holds {name} already: give another --out")
            shutil.rmtree(draft, ignore_errors=True)  # of a conversion that was killed
            draft.mkdir()
            try:
                write_shards(sources, draft, config.shard_gb * 1e9)
                for file in () if here else folder.iterdir():
                    if file.suffix in _BESIDE and not file.name.endswith(".index.json"):
                        shutil.copyfile(file, draft / file.name)
                draft.rename(whole)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        for file in sorted(whole.iterdir(), key=lambda file: file.suffix == ".json"):
            file.replace(out / file.name)  # the index after the shards: it vouches for them
        whole.rmdir()
        total = json.loads((out / INDEX).read_text(encoding="utf-8"))["metadata"]["total_size"]
    print(f"{out}: {total / 1e9:.2f} GB of safetensors")


def convert_editor(archive: Path, config: Convert) -> None:
    """Reads an archive, opens the base, writes the editor.

    Raises:
      EditorError: as `read_archive` and `editor_of_archive`. ValueError: there is no --model or no
        --out; or --out holds something.
    """
    out = config.out
    if config.model is None or out is None:
        raise ValueError("--editor FILE goes with --model ID, its base, and --out DIR")
    if out.exists() and contents(out):
        raise ValueError(f"{out} is not empty: give another --out")
    found = read_archive(archive)
    base = load(config.model)
    sites = sites_of(base.model, config.sites) if config.sites else default_sites(base)
    unsaid = Unsaid(config.descent, config.normalized, config.identity)
    saved = editor_of_archive(found, base, sites, config.matrices, unsaid)
    write_editor(out, saved)
    sign = "subtracted" if config.descent else "added"
    print(f"{out}: an editor of {', '.join(saved.config['matrices'])}; its edits are {sign}")


def write_shards(sources: dict[Path, list[str]], draft: Path, limit: float) -> None:
    """Writes all shards and their index into a folder."""
    shards: list[list[str]] = []
    waiting: dict[str, Any] = {}
    shared: dict[str, str] = {}
    size = total = 0

    def flush() -> None:
        kinds = {name: (_DTYPES[_kind(t)], tuple(t.shape), t.nbytes) for name, t in waiting.items()}
        bodies = (_bytes(tensor) for tensor in waiting.values())
        write_safetensors(draft / f"{len(shards)}.shard", kinds, bodies, {"format": "pt"})
        shards.append(list(waiting))
        waiting.clear()

    for source, promised in sources.items():
        first: dict[Any, str] = {}
        lacking = set(promised)
        for name, tensor in read_tensors(source):
            lacking.discard(name)
            place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
            if tensor.numel() and first.setdefault(place, name) != name:
                shared[name] = first[place]
                continue
            if waiting and size + tensor.nbytes > limit:
                flush()
                size = 0
            waiting[name] = tensor
            size, total = size + tensor.nbytes, total + tensor.nbytes
        if lacking:
            raise WeightsError(
                f"{source} lacks {len(lacking)} tensors that the index places there, such as "
                f"{min(lacking)}. Download shards and index again."
            )
    if waiting:
        flush()
    weight_map: dict[str, str] = {}
    for i, names in enumerate(shards):
        file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        (draft / f"{i}.shard").rename(draft / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total, "shared": shared}, "weight_map": weight_map}
    (draft / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def read_tensors(path: Path) -> Iterator[tuple[str, Any]]:
    """The tensors of a pickled file, mapped; no code of the file is run.

    Raises:
      WeightsError: a damaged file; or one that holds anything else than named tensors.
    """
    import torch

    # Files from before PyTorch 1.6 are no zip archives and cannot be mapped: read as a whole.
    try:
        mapped = zipfile.is_zipfile(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is refused: it is damaged, or holds more than tensors, and to load that would "
            "run code from the file. Save the model's plain state_dict, or get it as safetensors."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path} is cut short or was not written by torch.save "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}). "
            "Download it again."
        ) from error
    if not isinstance(tensors, dict) or not tensors:
        raise WeightsError(f"{path} holds a {type(tensors).__name__}, not a dict of tensors")
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor) or _kind(tensor) not in _DTYPES:
            what = getattr(tensor, "dtype", type(tensor).__name__)
            raise WeightsError(
                f"{path}: {name!r} is a {what}, and only tensors of {', '.join(_DTYPES)} can be "
                "converted. Is this a model's state_dict?"
            )
        yield str(name), tensor.detach()


def _kind(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _bytes(tensor: Any) -> Any:
    import torch

    return tensor.contiguous().flatten().view(torch.uint8).numpy()


COMMAND = Command(Convert, convert, __doc__)
