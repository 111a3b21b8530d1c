"""What a run is said to need: what can be counted is, and the rest grows as it should."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_run import Files, options

import mend_jax as mj
from mend_jax.models.registry import Base
from mend_jax.runs.forecast import Forecast, forecast, told
from mend_jax.runs.options import TrainConfig
from mend_jax.runs.splits import Data, prepare, read_files

pytest_plugins = ["finished_run"]


@pytest.fixture(scope="module")
def base(tiny_files: Files) -> Base:
    return mj.load(str(tiny_files.model))


def data_of(config: TrainConfig, base: Base) -> Data:
    given = read_files(config)
    assert given is not None
    return prepare(config, base, given)


def test_what_is_counted(tiny_files: Files, base: Base, tmp_path: Path):
    config = options(tiny_files, tmp_path / "out")
    sites = ("layers_1/mlp/down_proj", "layers_1/mlp/up_proj")
    data = data_of(config, base)
    found = forecast(config, base, sites, data)
    weights = sum(np.asarray(x).nbytes for x in jax.tree.leaves(base.params))
    assert found.weights == weights
    blocks, d = 2, 16 + 28  # two shapes, each with U, V and b in two blocks
    assert found.editor == 5 * 4 * 2 * blocks * (2 * d * config.rank + d)
    texts = {t.tobytes(): len(t) for t in (
        p.tokens for r in (*data.train, *data.dev, *data.validation)
        for p in (*r.outer, *r.locality)
    )}  # fmt: skip
    assert found.cached == 4 * 16 * sum(texts.values())
    below = sum(
        x.size
        for path, x in jax.tree_util.tree_leaves_with_path(base.params["layers_0"])
        if path[-1].key == "kernel"
    )
    assert found.flops_trunk == 2 * below * sum(texts.values())
    assert found.memory == pytest.approx(sum(found[:5])) and found.scope == 0

    twice = forecast(replace(config, batch=2 * config.batch), base, sites, data)
    assert twice.flops_step == 2 * found.flops_step and twice.activations == 2 * found.activations
    assert twice[:3] == found[:3]
    alone = forecast(replace(config, near=0, far=0), base, sites, data)
    assert alone.flops_step < found.flops_step
    disk = forecast(replace(config, trunk_cache="off"), base, sites, data)
    assert disk.cached == 0

    scoped = replace(config, scope=True, scope_batch=10)
    held = [forecast(replace(scoped, scope_batch=n), base, sites, data).scope for n in (10, 20)]
    kept, drawn = 2, 6  # two states of a position; texts of a record
    assert held[1] - held[0] == 10 * drawn * 32 * 12 * kept * 16 * 4
    less = data._replace(train=data.train[: len(data.train) // 2])
    assert 0 < forecast(scoped, base, sites, less).scope < held[0]
    assert forecast(replace(scoped, scope_of="lent"), base, sites, data).scope == 0


def test_in_words(tiny_files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mend_jax.runs.forecast.speed_of_products", lambda: 2e9)
    found = Forecast(1e9, 5e8, 0.0, 2.5e8, 0.0, 6e10, 3e9)
    config = options(tiny_files, tmp_path / "out", steps=100)
    assert found.seconds(100, 1e9) == 360
    assert told(found, config).startswith(
        "about 6 minutes for 100 steps of 3 GFLOP; about 1.8 GB of memory: base 1, editor 0.5, "
    )
    assert "about 60 s for 0 steps" in told(found, replace(config, steps=0))
    assert "and the training of the scope;" in told(found, replace(config, scope=True))
