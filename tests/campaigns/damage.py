"""Damage to every file of a saved editor, its base, its results and a cache; then it is used.

Cut, emptied, deleted, grown, one bit flipped, one byte changed. The editor is opened with the base
that its config names, so damage to the base, which a folder of plain files cannot tell by itself,
has to be told by the editor's fingerprint. Of results.json, which holds no checksum, only the
manner is held to the law: it is read, or refused by one clear error.
"""

import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import jax
import numpy as np

import mend_jax as mj
from mend_jax.data.records import write_records
from mend_jax.data.trunk_cache import TrunkCache
from mend_jax.reports.tables import read_results
from mend_jax.runs.run import run
from tests.campaigns.base import Attempt, Campaign, judged
from tests.campaigns.mutations import of_bytes


def attempts(folder: Path, random: Random) -> Iterator[Attempt]:
    """Every file in turn, one damage each."""
    from tests.support.tiny_run import Files, options, save_folder, some_records

    write_records(folder / "train.jsonl", some_records(0, 24))
    write_records(folder / "validation.jsonl", some_records(22, 10))
    model = save_folder(folder / "model")
    files = Files(model, folder / "train.jsonl", folder / "validation.jsonl")
    out = folder / "out"
    finished = run(options(files, out, steps=2), lambda message: None)
    base = finished.saved.base
    wanted = arrays_of(finished.saved.state)
    params = arrays_of(base.params)
    text = "Person 3 lives in"
    ids = base.tokenizer.encode(text).ids

    def opened(whole: bool) -> Callable[[], Any]:
        return lambda: strictly(lambda: mj.load_editor(out, None if whole else base))

    def same(found: mj.SavedEditor) -> bool:
        return (
            equal(arrays_of(found.state), wanted)
            and equal(arrays_of(found.base.params), params)
            and found.base.tokenizer.encode(text).ids == ids
            and found.sites == finished.saved.sites
        )

    def results(found: Any) -> bool:
        return isinstance(found, list)

    jobs: list[tuple[str, Path, Callable[[], Any], Callable[[Any], bool]]] = [
        ("editor arrays", out / "editor.safetensors", opened(False), same),
        ("editor config", out / "config.json", opened(False), same),
        *[(f"base {file.name}", file, opened(True), same) for file in sorted(model.iterdir())],
        ("results", out / "results.json", lambda: read_results(out), results),
    ]
    while True:
        for kind, path, use, right in jobs:
            yield from damaged(kind, path, use, right, random)
        yield from cache(folder / "cache", random)


def damaged(
    kind: str, path: Path, use: Callable[[], Any], right: Callable[[Any], bool], random: Random
) -> Iterator[Attempt]:
    """One damage to a file, which is as it was thereafter."""
    kept = path.with_name(path.name + ".kept")
    shutil.copyfile(path, kept)
    raw = path.read_bytes()
    deleted = random.random() < 0.1
    path.unlink()
    if not deleted:
        path.write_bytes(of_bytes(raw, random))
    now = b"" if deleted else path.read_bytes()
    place = next((i for i, (a, b) in enumerate(zip(raw, now, strict=False)) if a != b), len(now))
    what = "deleted" if deleted else f"{len(raw)} bytes, now {len(now)}, others from {place} on"
    yield judged(kind, use, right, what)
    kept.replace(path)


def cache(folder: Path, random: Random) -> Iterator[Attempt]:
    """Damage to a trunk cache while it is used: its length is kept, since it is mapped."""
    folder.mkdir(exist_ok=True)
    path = folder / "trunk.npy"
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (40, 8))
    rows[:] = np.random.default_rng(0).standard_normal((40, 8))
    rows.flush()
    keys = [np.arange(i, i + 4, dtype=np.int32) for i in range(10)]
    made = TrunkCache(rows, {key.tobytes(): (4 * i, 4) for i, key in enumerate(keys)}, path)
    whole = np.array(rows)
    at = random.randrange(rows.nbytes)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - rows.nbytes + at)
        file.write(bytes([random.randrange(256)]))
    yield judged(
        "trunk cache",
        lambda: np.concatenate([made.lookup(key) for key in keys]),
        lambda found: bool(np.array_equal(found, whole)),
        f"byte {at}",
    )


def strictly(use: Callable[[], Any]) -> Any:
    """A warning, which says what is wrong, is as good as an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:
            return use()
        except UserWarning as said:
            raise OSError(str(said)) from None


def arrays_of(tree: Any) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def equal(found: list[np.ndarray], wanted: list[np.ndarray]) -> bool:
    """Bit by bit."""
    return len(found) == len(wanted) and all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes()
        for a, b in zip(found, wanted, strict=True)
    )


CAMPAIGN = Campaign("damage", attempts)
