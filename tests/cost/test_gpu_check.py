"""The check of a machine with a GPU, run on a CPU: its parts are sound, or say why not."""

import pytest

from mend_jax.cost import gpu_check
from mend_jax.cost.gpu_check import LIMITS, Run, check, parity
from mend_jax.cost.small_families import SIZES, SMALL


def test_all_parts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu_check, "SMALL", {"llama": SMALL["llama"]})
    found = check("tiny", steps=2, batch=2, minutes=10.0)
    parts = found["parts"]
    assert found["platform"] == "cpu" and not any("failed" in part for part in parts.values())
    assert parts["training"]["sound"] and len(parts["training"]["losses"]) == 2
    assert parts["memory"]["planned"] > 0 < parts["memory"]["measured"]
    assert min(parts["benchmark"]["seconds"].values()) > 0
    compared = parts["parity llama"]
    assert compared["sound"] and compared["float32"] < compared["bfloat16"] < LIMITS["bfloat16"]


def test_a_part_that_fails_or_comes_too_late_says_so(monkeypatch: pytest.MonkeyPatch):
    assert all("over" in part["skipped"] for part in check("tiny", 1, 1, 0.0)["parts"].values())
    with pytest.raises(RuntimeError, match="did not get so far"):
        Run(SMALL["t5"], SIZES, 1).memory()


def test_a_difference_beyond_the_limit_is_not_sound(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(LIMITS, "bfloat16", 1e-6)
    assert not parity(SMALL["llama"])["sound"]
