"""Where an editor is: in a folder, with the package, or on the Hugging Face hub.

    find_editor("runs/scoped")              # a folder
    find_editor("smollm2-135m")             # the one that comes with the package for this base
    find_editor("user/name@revision")       # the hub's, at a branch, tag or commit

Of the hub's, the files of an editor are fetched, and no others: JSON and safetensors, which are
data. What was fetched has a commit, by which it can be opened again as it was.
"""

import re
from pathlib import Path
from typing import NamedTuple

from mend_jax.saved.arrays import EditorError
from mend_jax.saved.shipped import SHIPPED, shipped

FILES = ("config.json", "editor.safetensors", "results.json", "README.md")
"""Of an editor on the hub: itself, and what is told of it."""
NAME = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>\S+))?")


class Place(NamedTuple):
    """folder: of the editor's files. origin: how it is found again: the folder, or, on the hub,
    user/name@commit."""

    folder: Path
    origin: str


def find_editor(name: str | Path) -> Place:
    """Finds an editor, and fetches it if it is on the hub and not in its cache.

    Args:
      name: a folder; the name of a base that an editor comes with the package for; or user/name or
        user/name@revision of the hub. A `Path` is a folder.

    Raises:
      EditorError: the hub has no such editor, or cannot be reached. A folder is not looked into.
    """
    if isinstance(name, str) and name in SHIPPED:
        return Place(shipped(name), name)
    there = _on_hub(name)
    return Place(Path(name), str(name)) if there is None else _fetched(there)


def check_place(name: str) -> None:
    """As `find_editor`, but of the hub's it says no more than that there could be one.

    Raises:
      EditorError: neither a folder that is there, nor a name.
    """
    if name in SHIPPED or _on_hub(name) or (name.strip() and Path(name).is_dir()):
        return
    raise EditorError(
        f"{name!r} is neither a directory, nor one of {', '.join(SHIPPED)}, nor an editor's name "
        "on the hub (user/name)"
    )


def _on_hub(name: str | Path) -> re.Match[str] | None:
    """The parts of a name on the hub. A name without a revision is a folder's, if that is there, or
    the folder is that it would be in."""
    found = NAME.fullmatch(name) if isinstance(name, str) else None
    if found is None or found["revision"]:
        return found
    return None if Path(name).exists() or Path(name).parent.is_dir() else found


def _fetched(there: re.Match[str]) -> Place:
    import huggingface_hub  # slow to import

    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                there["repo"], revision=there["revision"], allow_patterns=list(FILES)
            )
        )
    except hub_errors() as error:
        raise EditorError(
            f"{there[0]!r} is no folder here, and the Hugging Face hub did not provide it: "
            f"{reason_of(error)}\nCheck name, revision and network (a private one needs `hf auth "
            "login`)"
        ) from error
    return Place(folder, f"{there['repo']}@{folder.name}")


def hub_errors() -> tuple[type[Exception], ...]:
    """What the hub's client raises; of HTTP, an error of whichever library it uses."""
    from huggingface_hub.errors import HfHubHTTPError

    of_http = [kind for kind in HfHubHTTPError.__bases__ if issubclass(kind, Exception)]
    return OSError, ValueError, *of_http


def reason_of(error: BaseException) -> str:
    """What the hub's client says, on one line; of several, the two that say it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__
