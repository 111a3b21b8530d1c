"""A pytest plugin: the finished run's editor with a scope, as a directory and opened.

The scope is not trained: its thresholds let pass a prompt itself, and hardly anything else.
"""

from pathlib import Path

import jax
import pytest
from stored_edits import with_threshold
from tiny_run import Finished

import mend_jax as mj
from mend_jax.editors.base import EditorState
from mend_jax.editors.scoped import ScopedPhi
from mend_jax.objectives import outputs_of
from mend_jax.saved.building import build_editor
from mend_jax.saved.directory import SavedEditor, save_editor
from mend_jax.scopes.network import two_keys

pytest_plugins = ["finished_run"]

STAGES = (1, 2)


@pytest.fixture(scope="session")
def scoped_folder(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    saved = mj.load_editor(finished.config.out)
    scope = two_keys(STAGES, heads=2, width=4, subject=16, relation=16, hidden=8)
    within = {"scope": scope.config, "last_block": "layers_1/", "rows": 4}
    config = saved.config | {"scoped": within}
    base = saved.base._replace(model=saved.base.model.clone(keep=STAGES))
    phi = ScopedPhi(saved.state.phi, scope.init(jax.random.key(0), 16))
    made = SavedEditor(
        build_editor(config, outputs_of(base.model)),
        EditorState(phi, saved.state.stats), base, saved.sites, config,
    )  # fmt: skip
    made = with_threshold(made, 0.9999)
    out = tmp_path_factory.mktemp("scoped") / "editor"
    save_editor(out, made.editor, made.state, base, made.sites, config["training"])
    return out


@pytest.fixture(scope="session")
def scoped_editor(scoped_folder: Path) -> SavedEditor:
    return mj.load_editor(scoped_folder)
