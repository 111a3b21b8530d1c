"""An editor packed for others: half the bytes, the same edits but for rounding, no folder."""

import json
from pathlib import Path

import jax
import numpy as np
from tiny_run import Finished
from typed import typed

import mend_jax as mj

pytest_plugins = ["finished_run"]


def test_packed_is_the_editor_rounded(finished: Finished, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("mend_jax.saved.arrays.LARGE", 100)
    out = tmp_path / "packed"
    ended = typed("mend-jax", "pack", "--editor", finished.config.out, "--out", out)
    assert ended.code == 0 and f"written to {out}" in ended.out
    before, after = mj.load_editor(finished.config.out), mj.load_editor(out)
    rounded = 0
    for x, y in zip(*(jax.tree.leaves(e.state) for e in (before, after)), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-6)
        rounded += not np.array_equal(x, y)
    assert rounded
    written = "".join((out / name).read_text() for name in ("config.json", "results.json"))
    assert str(finished.config.out) not in written and str(finished.config.train) not in written
    assert json.loads((out / "results.json").read_text())["metrics"]
    again = typed("mend-jax", "pack", "--editor", finished.config.out, "--out", out)
    assert again.code == 1 and "is not empty" in again.error
