"""The folder that an export makes: new, and there only when it is whole."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


class ExportError(ValueError):
    """Edits that a format cannot hold, or a folder that they cannot be written to."""


@contextlib.contextmanager
def new_folder(out: str | Path) -> Iterator[Path]:
    """A draft beside `out`, which takes its place at the end; after an error there is neither.

    Raises:
      ExportError: `out` holds something already, or is a file.
    """
    check_free(out)
    out = Path(out)
    draft = out.absolute().with_name(f".{out.absolute().name}.{os.getpid()}.draft")
    draft.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
    draft.mkdir()
    try:
        yield draft
        draft.rename(out.absolute())  # in the place of an empty folder, too
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def check_free(out: str | Path) -> None:
    """Raises ExportError for a folder that holds something, or a file."""
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        what = "is not empty" if out.is_dir() else "is a file"
        raise ExportError(f"{out} {what}: give another folder")
