"""Notebooks, run from top to bottom in a kernel of their own, cut short where they train."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "experiments/notebooks"
FEW = {
    "MEND_JAX_NOTEBOOK_STEPS": "3",
    "MEND_JAX_NOTEBOOK_EDITS": "12",
    "MEND_JAX_NOTEBOOK_MODEL": "google/t5-small-ssm-nq",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",  # as in the other tests
}


def read(name: str) -> Any:
    """The notebook as it is in the repository."""
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def printed_by(name: str, environment: pytest.MonkeyPatch, **more: str) -> str:
    """What all cells print. An error in a cell is raised here."""
    for key, value in (FEW | more).items():
        environment.setenv(key, value)
    done = NotebookClient(read(name), timeout=600, kernel_name="python3").execute()
    return "".join(
        output.get("text", "") for cell in done.cells for output in cell.get("outputs", [])
    )
