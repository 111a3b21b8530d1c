"""The table of editors; and an editor of one's own, named by its import path."""

import sys
from pathlib import Path

import pytest
from tiny_run import Files, options

import mend_jax as mj
from mend_jax.editors.registry import EDITORS, method_of
from mend_jax.runs.run import run
from mend_jax.saved.arrays import EditorError

pytest_plugins = ["finished_run"]

OWN = '''"""An editor of one's own: one step of plain descent, scaled to a given length."""

from typing import Any

import jax
import jax.numpy as jnp

import mend_jax as mj


def descent(outputs: mj.Outputs, sites: mj.Sites, *, length: float = 1.0) -> mj.Editor:
    gradient = mj.capture(outputs.loss, sites)

    def edit(state: mj.EditorState, params: Any, example: mj.Example) -> mj.Edit:
        factors = jax.lax.stop_gradient(gradient(params, example.edit)[1])
        norms = jnp.stack([mj.norm(part) for part in factors.values()])
        return mj.scale(factors, -length / jnp.linalg.norm(norms))

    return mj.untrained(edit, {"options": {"length": length}})
'''


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The import path of the example of CONTRIBUTING.md, as a user's own module."""
    (tmp_path / "my_editors.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("my_editors", None)
    return "my_editors:descent"


def test_an_editor_of_ones_own_is_run_saved_and_opened_with_trust(
    tiny_files: Files, tmp_path: Path, mine: str
):
    config = options(tiny_files, tmp_path / "out", editor=mine)
    finished = run(config, lambda message: None)
    assert finished.results["editor"] == mine
    assert finished.saved.editor.config == {"editor": mine, "options": {"length": 1.0}}
    with pytest.raises(EditorError, match=r"made by the code at 'my_editors:descent'.*--trust"):
        mj.load_editor(config.out)
    with pytest.raises(EditorError, match="made by the code at"):
        mj.load_editor(config.out, trust="my_editors:other")
    loaded = mj.load_editor(config.out, trust=mine)
    assert loaded.editor.config == finished.saved.editor.config


def test_names_that_are_none(mine: str):
    with pytest.raises(ValueError, match="no editor is called 'rome'; known are mend, ft, ft_kl"):
        method_of("rome")
    with pytest.raises(ValueError, match="'nowhere:editor' cannot be imported"):
        method_of("nowhere:editor")
    with pytest.raises(ValueError, match="'my_editors:ascent' cannot be imported"):
        method_of(mine.replace("descent", "ascent"))
    with pytest.raises(ValueError, match="is a module: neither a function nor a Method"):
        method_of("my_editors:jax")


def test_every_method_has_options_that_a_command_can_show():
    for name, method in EDITORS.items():
        assert method.options() == method.options(), name
        assert set(method.at_once) <= {"joint", "summed", "solved"}, name
