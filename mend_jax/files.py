"""Files that are replaced whole or not at all; of several processes, the first writes them."""

from collections.abc import Callable
from pathlib import Path

from mend_jax.parallel import is_first


def replace_whole(path: str | Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a draft beside `path`, then puts it in its place in one step."""
    if not is_first():
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".draft")
    try:
        write(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes a UTF-8 text file whole."""
    replace_whole(path, lambda draft: draft.write_text(text, encoding="utf-8"))
