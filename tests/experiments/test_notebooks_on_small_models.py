"""Notebooks on models of their own, cut short; and what all notebooks have."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest
from notebooks import FOLDER, printed_by, read

import mend_jax as mj

NAMES = ("compose_an_editor", "hold_a_thousand_edits", "ship_it", "train_t5xxl")


def test_compose_an_editor(monkeypatch: pytest.MonkeyPatch):
    printed = printed_by("compose_an_editor", monkeypatch)
    assert "the base answers 100.0% of 1152 questions" in printed
    gap = re.search(r"in the first ten steps the two losses differ by ([\d.e+-]+) at most", printed)
    assert gap and float(gap[1]) < 1e-4


def test_train_t5xxl(monkeypatch: pytest.MonkeyPatch):
    printed = printed_by("train_t5xxl", monkeypatch, MEND_JAX_NOTEBOOK_STEPS="10")
    assert "google/t5-small-ssm-nq" in printed and "exact" in printed
    killed = re.search(r"killed after step (\d+)", printed)
    resumed = re.search(r"resuming from step (\d+)", printed)
    assert killed and resumed and 0 < int(resumed[1]) <= int(killed[1])
    assert "the same losses, bit for bit: True" in printed


@pytest.mark.parametrize("name", NAMES)
def test_what_is_committed_was_run(name: str):
    """From top to bottom, without errors or warnings; with a figure; and small."""
    cells = [cell for cell in read(name).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not any(x.output_type == "error" or x.get("name") == "stderr" for x in outputs)
    assert any("image/png" in x.get("data", {}) for x in outputs)
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 60_000


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_what_they_use_of_the_package_is_there(path: Path):
    """Found in a second; to run them all takes minutes."""
    cells = [cell.source for cell in read(path.stem).cells if cell.cell_type == "code"]
    python = [re.sub(r"^( *)%.*$", r"\1pass", cell, flags=re.MULTILINE) for cell in cells]
    nodes = [node for cell in python for node in ast.walk(ast.parse(cell))]
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    used = [
        (node.module, name.name)
        for node in froms
        if node.module and node.module.startswith("mend_jax")
        for name in node.names
    ]
    gone = [f"{module}.{name}" for module, name in used if not hasattr(import_module(module), name)]
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    names = {x.attr for x in attributes if isinstance(x.value, ast.Name) and x.value.id == "mj"}
    assert names
    assert not [*gone, *(f"mj.{name}" for name in names if not hasattr(mj, name))]
