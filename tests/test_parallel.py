"""Meshes and partition tables; and, in a process with eight CPU devices, that sharded is single."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

import mend_jax as mj
from mend_jax.cost.small_families import SMALL
from mend_jax.models.registry import family_of
from mend_jax.models.stages import abstract_params
from mend_jax.parallel import ParallelError, partition_spec

MESH = AbstractMesh((2, 4), ("data", "model"))


@pytest.mark.parametrize("chosen", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_on_eight_devices(chosen: str):
    """Runs on_eight_devices.py: JAX can be given virtual devices only before it starts."""
    script = Path(__file__).parent / "support" / "on_eight_devices.py"
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider", "-m", chosen, script],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]


@pytest.mark.parametrize(
    "path, shape, wanted",
    [
        ("layers_0/wide/kernel", (6, 8), (None, "model")),
        ("layers_0/wide/kernel", (8, 6), ()),  # 6 does not divide by 4
        ("layers_0/tall/kernel", (8, 6), ("model",)),
        ("layers_0/tall/bias", (8,), ()),  # no rule
        ("more/tall/kernel/more", (8, 6), ()),  # a rule is for a whole path
        ("first/kernel", (8, 8), ("model",)),  # the first rule that matches
    ],
)
def test_partition_spec(path: str, shape: tuple[int, ...], wanted: tuple[str | None, ...]):
    rules = (
        (r"first/kernel", ("model", None)),
        (r"(.*/)?(wide|first)/kernel", (None, "model")),
        (r".*/tall/kernel", ("model", None)),
    )
    assert partition_spec(path, shape, rules, MESH) == PartitionSpec(*wanted)


def test_a_rule_for_another_number_of_dimensions_is_refused():
    with pytest.raises(ParallelError, match=r"a/kernel has shape \(4, 4, 4\), but its rule is"):
        partition_spec("a/kernel", (4, 4, 4), ((r".*", (None, "model")),), MESH)


WHOLE = (
    r"(.*/)?(relative_attention_bias.*|(position|type)_embedding|bias"
    r"|(pooler|classifier|gate)/kernel)"
)
"""What every device holds whole: small tables, and the routers of experts."""


@pytest.mark.parametrize("name", SMALL)
def test_every_large_parameter_is_split(name: str):
    family = family_of(SMALL[name])
    params = abstract_params(family.model(family.dimensions(SMALL[name], ())))
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        leaf = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = partition_spec(leaf, x.shape, family.partition, MESH)
        small = x.ndim < 2 or re.fullmatch(WHOLE, leaf)
        assert small or "model" in spec, leaf


@pytest.mark.parametrize("data, model, message", [(1, 64, "needs 64 devices"), (0, 1, "at least")])
def test_meshes_that_cannot_be(data: int, model: int, message: str):
    with pytest.raises(ParallelError, match=f"mesh {data}x{model}.*{message}"):
        mj.make_mesh(data, model)


def test_joining_a_run_needs_all_or_nothing():
    with pytest.raises(ParallelError, match="all three: address, processes and rank"):
        mj.start_distributed("localhost:1", rank=0)
