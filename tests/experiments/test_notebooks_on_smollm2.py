"""Notebooks on the real model: they run, with fewer steps and edits, and show what they say."""

import re

import pytest
from notebooks import printed_by


def test_edit_a_model(monkeypatch: pytest.MonkeyPatch):
    printed = printed_by("edit_a_model", monkeypatch)
    assert "Paris" in printed  # the unedited base, after the edit was dropped
    assert "merged equals edited" in printed


def test_hold_a_thousand_edits(monkeypatch: pytest.MonkeyPatch):
    printed = printed_by("hold_a_thousand_edits", monkeypatch)
    assert "holds 12, 0 gave way" in printed
    scores = dict(re.findall(r"^(\w+) +([01]\.\d\d)$", printed, re.MULTILINE))
    assert list(scores) == ["edit", "rephrase", "near", "own"]
    assert scores["edit"] == "1.00" and float(scores["near"]) >= 0.9
    assert "the others, bit for bit: True" in printed


def test_ship_it(monkeypatch: pytest.MonkeyPatch):
    printed = printed_by("ship_it", monkeypatch)
    assert "contradicts edit 1" in printed
    assert "held after the removal: 7, now: 8" in printed
    assert "as before, bit for bit: True" in printed
    assert "16 of 16 answers are those that mend_jax gives" in printed
    left = re.search(r"differ from the edits by (\d\.\d)% at most", printed)
    assert left and float(left[1]) <= 1.0
