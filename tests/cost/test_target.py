"""Targets: each known one compiles; without the compiler, or with another JAX's, that is said."""

import importlib.metadata

import jax
import jax.numpy as jnp
import pytest
from gpu_programs import needs_compiler
from jax.sharding import NamedSharding, PartitionSpec

from mend_jax.commands.plan import PlanConfig, plan
from mend_jax.cost import target
from mend_jax.cost.gpu_plan import Setting, compile_for_gpu, efficiency, make_gpu_plan, roofline
from mend_jax.cost.kernels import Kernel, Work, work_of
from mend_jax.cost.program_text import parse_program
from mend_jax.cost.small_families import SIZES, SMALL
from mend_jax.cost.target import TargetError, check_compiler, target_mesh, target_of
from mend_jax.option_types import OptionError

NAMES = ("h100", "h200", "a100", "l4", "t4", "b200")


def test_an_unknown_target_is_named_with_those_that_are_known():
    with pytest.raises(ValueError, match=r"'h9'.*h100, h200, a100, l4, t4, b200"):
        target_of("h9")
    with pytest.raises(OptionError, match=r"--target 'h9'.*h100, h200"):
        plan(PlanConfig("distilgpt2", target="h9"))


@pytest.mark.parametrize("name", NAMES)
def test_a_target_is_what_its_data_sheet_says(name: str):
    found = target_of(name)
    assert 15e9 < found.memory < 200e9 and 3e11 <= found.bandwidth <= 8e12
    assert found.rate32 < found.rate16 and found.link in ("NVLink", "PCIe")
    assert found.bfloat16 == (name != "t4")


@pytest.mark.parametrize("versions, said", [
    ({}, r"gpu-compile.*pip install \"jax\[cuda12-local\]=="),
    ({"jax-cuda12-plugin": "0.1.2"}, r"jax-cuda12-plugin 0.1.2 is for another JAX.*cuda12-local"),
])  # fmt: skip
def test_without_its_compiler(
    versions: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
):
    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(target.importlib.metadata, "version", version)
    with pytest.raises(TargetError, match=said):
        plan(PlanConfig("distilgpt2", target="h100"))


def test_a_roofline_is_the_longer_of_moving_and_multiplying():
    card = target_of("h100")
    second = Kernel("a", "", 2, int(card.bandwidth), 1.0, "bf16", "fusion")
    product = Kernel("b", "", 3, 1, 2 * card.rate32, "f32", "fusion")
    assert roofline(Work((second, product), (), 0), card) == pytest.approx(2 + 6)
    found = efficiency(1.0, card.link_bandwidth, card)
    assert found == {"NVLink": 0.5, "400 Gb/s": pytest.approx(0.1)}


@needs_compiler
@pytest.mark.parametrize("name", NAMES)
def test_each_target_compiles(name: str):
    """A loop, a product in bfloat16, one of one row: FLOPs as by hand, whatever the card."""
    mesh = target_mesh(target_of(name))
    here = NamedSharding(mesh, PartitionSpec())

    def shape(*sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, jnp.bfloat16, sharding=here)

    def function(x: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
        y, _ = jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, length=7)
        return y, x[:1] @ w

    compiled = compile_for_gpu(jax.jit(function).lower(shape(128, 256), shape(256, 256)))
    work = work_of(parse_program(compiled.as_text()))
    products = 7 * 2 * 128 * 256 * 256
    assert products < work.flops <= products + 2 * 16 * 256 * 256 and not work.endless
    assert work.bytes > 7 * 2 * 256 * 256
    assert compiled.memory_analysis().argument_size_in_bytes == 2 * (128 * 256 + 256 * 256)


@needs_compiler
def test_a_plan_for_eight_cards():
    """FLOPs of all of them; and what they send each other, and how long that takes."""
    found = make_gpu_plan(target_of("h100"), Setting(SMALL["llama"], (2, 4), 6, sizes=SIZES))
    assert found.bytes.peak == sum(found.bytes[:-1]) and found.bytes.inputs >= 0
    assert set(found.sent) >= {"data", "model"} and min(found.sent.values()) > 0
    assert found.collectives["all-reduce"]["count"] > 0
    assert 0 < found.efficiency["400 Gb/s"] < found.efficiency["NVLink"] < 1
    assert found.kernels > sum(part["kernels"] for part in found.products.values()) > 0
    assert found.in_place > 0 and not found.endless


def test_what_is_installed_is_known():
    try:
        check_compiler()
    except TargetError as error:
        assert jax.__version__ in str(error)
