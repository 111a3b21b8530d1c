"""Files that are replaced whole or not at all; their checksums; and JSON, read with care.

Of several processes, the first one writes. All JSON of the package is read by `parse_json`, so that
a file that is damaged, or was made to do damage, ends in one error that names file and line.
"""

import json
import mmap
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

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


def cache_folder() -> Path:
    """Where files are kept that can be fetched or made again: `$MEND_JAX_CACHE`, or
    `~/.cache/mend_jax`."""
    return Path(os.environ.get("MEND_JAX_CACHE") or "~/.cache/mend_jax").expanduser()


def let_go(array: np.ndarray) -> None:
    """Gives back the memory of a mapped file, if the array is one's: what was read of it, by
    whomever, counts no longer as this process's own, and is read again when it is looked at."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)


# ------------------------------------------------------------------------------------ checksums


def checksum(kind: str, data: Any) -> str:
    """16 hex digits (XXH3, 64 bits) of what bytes mean, such as "F32 [2, 3]", and of the bytes.

    Against damage, not against malice: about 1 of 10^19 damages goes unseen.

    Args:
      data: bytes, or an array, whose memory is read as it lies if it is contiguous.
    """
    import xxhash

    found = xxhash.xxh3_64(kind.encode())
    if isinstance(data, np.ndarray):
        data = np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
    found.update(data)
    return found.hexdigest()


def array_checksum(array: np.ndarray) -> str:
    """Of an array's dtype, shape and bytes."""
    return checksum(f"{array.dtype.name} {list(array.shape)}", array)


def json_checksum(value: Any) -> str:
    """Of what a JSON value means, whatever the order of its keys and the white space."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return checksum("json", text.encode())


def file_checksum(paths: Iterable[Path]) -> str:
    """Of the names and contents of files, which are read whole."""
    return checksum("files", b"".join(path.name.encode() + path.read_bytes() for path in paths))


# ---------------------------------------------------------------------------------- reading JSON

DEEPEST, MOST_DIGITS = 100, 100
"""Lists and objects inside of each other, and digits of a whole number, that are read."""

_LFS = "version https://git-lfs.github.com/spec/"
_LONE = re.compile(
    r"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]", re.DOTALL
)
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"\s*:?|-?\d++(?:[.eE][-+.eE\d]*+)?|[\[\]{}]', re.DOTALL)


def read_json(path: Path, error: type[Exception], advice: str = "") -> Any:
    """The value of a JSON file.

    Args:
      error: what is raised. advice: what to do, the end of its message.

    Raises:
      error: no UTF-8, or as `parse_json`. OSError: the file cannot be read.
    """
    try:
        return parse_json(read_text(path, error), path, error)
    except error as problem:
        raise error(f"{problem}{f'. {advice}' if advice else ''}") from None


def read_text(path: Path, error: type[Exception]) -> str:
    """A UTF-8 text; the mark with which Windows begins a file is dropped.

    Raises:
      error: no UTF-8; a pointer of Git LFS in the file's place.
    """
    check_no_pointer(path, error)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(f"{path}: not UTF-8 ({problem})") from None


def check_no_pointer(path: Path, error: type[Exception]) -> None:
    """Raises `error` for a text of Git LFS that stands where the file itself was not fetched."""
    with path.open("rb") as file:
        start = file.read(200).decode("ascii", "replace")
    if start.startswith(_LFS):
        size = re.search(r"^size (\d+)$", start, re.MULTILINE)
        whole = f" of {int(size[1]):,} bytes" if size else ""
        raise error(
            f"{path} is a Git LFS pointer to the file{whole}, not the file itself: run "
            "`git lfs pull` in its repository, or download the file"
        )


def parse_json(text: str, path: Path | str, error: type[Exception], line: int = 1) -> Any:
    """The value of a JSON text.

    Args:
      path, line: the file, and the line of it in which the text begins.

    Raises:
      error: not JSON; a key twice in one object; half a character (a lone surrogate); deeper than
        `DEEPEST`; a whole number of more than `MOST_DIGITS` digits. It names file and line.
    """
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_int=_whole)
        fault = _fault(text) if _LONE.search(text) or _too_deep(value) else None
    except json.JSONDecodeError as problem:
        fault = problem.pos, f"not valid JSON ({problem.msg})"
    except (ValueError, RecursionError) as problem:
        fault = _fault(text) or (0, f"not valid JSON ({problem})")
    if fault is not None:
        at, what = fault
        raise error(f"{path}, line {line + text.count(chr(10), 0, at)}: {what}")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key twice")
    return found


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError("a long number")
    return int(digits)


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        within = (x.values() if isinstance(x, dict) else x for x in level)
        level = [x for part in within if not isinstance(part, str | int | float | None)
                 for x in part if isinstance(x, dict | list)]  # fmt: skip
        if not level:
            return False
    return True


def _fault(text: str) -> tuple[int, str] | None:
    """Where the first thing stands that `parse_json` refuses in valid JSON, and what it is."""
    keys: list[set[str]] = []  # of the objects (and lists) that are open
    for match in _TOKEN.finditer(text):
        token, at = match[0], match.start()
        if token in "[{":
            keys.append(set())
            if len(keys) > DEEPEST:
                return at, f"lists and objects more than {DEEPEST} deep"
        elif token in "]}":
            if keys:
                keys.pop()
        elif token[0] != '"':
            if token.lstrip("-").isdigit() and len(token) > MOST_DIGITS:
                return at, f"a number of {len(token.lstrip('-')):,} digits"
        else:
            said = json.loads(token.rstrip(": \t\r\n"), strict=False)
            if any("\ud800" <= x <= "\udfff" for x in said):
                return at, f"half a character in {token[:40]} (a lone surrogate)"
            if token[-1] == ":" and keys:
                if said in keys[-1]:
                    return at, f"the key {said!r} twice in one object"
                keys[-1].add(said)
    return None
