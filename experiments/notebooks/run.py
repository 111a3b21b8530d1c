"""Runs notebooks from top to bottom and writes their outputs into them.

    python experiments/notebooks/run.py edit_a_model ship_it

What a library says beside the outputs (stderr) is left out, and pictures get a palette of 64
colours: a notebook is to stay small enough to be read as a change.
"""

import base64
import io
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parent


def run(name: str) -> None:
    """Runs a notebook of this folder and replaces its outputs; nothing is written if it fails."""
    path = FOLDER / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    about = notebook.metadata.copy()
    resources = {"metadata": {"path": str(FOLDER)}}
    NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=resources).execute()
    notebook.metadata = about
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [shrunk(x) for x in cell.outputs if x.get("name") != "stderr"]
    nbformat.write(notebook, path)


def shrunk(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An output, its picture (PNG), if it has one, in at most 64 colours."""
    if "image/png" in output.get("data", {}):
        picture = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
        file = io.BytesIO()
        picture.convert("RGB").quantize(64).save(file, "PNG", optimize=True)
        output.data["image/png"] = base64.b64encode(file.getvalue()).decode()
    return output


if __name__ == "__main__":
    for name in sys.argv[1:]:
        run(name)
        print(name, "done")
