"""Edits of a tiny base, each held in a scope that only its own text is in."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from conftest import Tiny

import mend_jax as mj
from mend_jax.editors.base import Editor, EditorState
from mend_jax.editors.scoped import holding, scoped
from mend_jax.example import Example, Pair
from mend_jax.models.stages import run_trunk
from mend_jax.scopes.network import Scope, two_keys

SITES = (r"layers_(1|2)/mlp/(up|down)_proj",)
STAGES = (1, 2)
LENGTH, ANSWERS, N = 7, 2, 5


class Setting(NamedTuple):
    """A tiny base, an editor with a scope, and edits of texts that share no token with others."""

    editor: Editor
    scope: Scope
    state: EditorState
    params: Any
    outputs: mj.Outputs
    held: Any
    edits: Pair
    others: Pair


def pairs(rng: np.random.Generator, n: int, low: int, high: int) -> Pair:
    """n texts of their own tokens, the last two of which answer."""
    x = rng.integers(low, high, (n, 1, LENGTH)).astype(np.int32)
    read = np.tile(np.arange(LENGTH - ANSWERS, LENGTH, dtype=np.int32), (n, 1, 1))
    labels = np.concatenate([x[..., -1:], rng.integers(low, high, (n, 1, 1))], -1).astype(np.int32)
    return Pair(mj.Inputs(x, read), labels)


def make_setting(tiny: Tiny) -> Setting:
    model = tiny.model.clone(keep=STAGES)
    trunk, tail = mj.split(model, SITES[0])
    outputs = mj.outputs_of(tail, trunk)
    scope = two_keys(STAGES, heads=2, width=4, subject=16, relation=16, hidden=8)
    mend = mj.gradient_editor(outputs.loss, SITES[0], mj.chain(mj.rate(-0.5)))
    late = [f"layers_2/mlp/{name}_proj" for name in ("up", "down")]
    editor = scoped(mend, scope, outputs.logits, late, rows=LENGTH)
    rng = np.random.default_rng(0)
    edits, others = (
        jax.tree.map(jnp.asarray, pairs(rng, n, *span)) for n, span in ((N, (0, 30)), (4, (30, 61)))
    )
    edits, others = (
        p._replace(inputs=run_trunk(trunk, tiny.params, p.inputs)) for p in (edits, others)
    )
    state, kept = made_of(editor, tiny.params, edits, near=0.9999)
    held = holding().hold(kept, N + 2)
    return Setting(editor, scope, state, tiny.params, outputs, held, edits, others)


def made_of(editor: Editor, params: Any, edits: Pair, near: float) -> tuple[EditorState, Any]:
    """(a fresh state, the edits made by it), with a threshold that only a text itself passes."""
    one = jax.tree.map(lambda x: x[0], edits)
    state = editor.init(jax.random.key(0), params, Example(one, one, one))
    threshold = dict.fromkeys(state.phi.scope["threshold"], jnp.float32(near))
    phi = state.phi._replace(scope=state.phi.scope | {"threshold": threshold})
    state = state._replace(phi=phi)
    make = jax.jit(jax.vmap(editor.edit, (None, None, 0)))
    made = make(state, params, Example(edits, edits, edits))
    return state, jax.tree.map(lambda x: x[:, 0], made.kept)


def answers(s: Setting, held: Any, texts: Pair) -> jax.Array:
    """Logits of all texts, as one batch, under these edits: always the same program."""
    flat = jax.tree.map(lambda x: x[:, 0], texts)
    return program_of(s)(s.state, s.params, held, flat)


_programs: dict[int, Any] = {}


def program_of(s: Setting) -> Any:
    """Of `answers`, compiled once."""

    def run(state: EditorState, params: Any, held: Any, flat: Pair) -> jax.Array:
        return s.editor.apply(state, s.outputs.logits, held)(params, flat)

    return _programs.setdefault(id(s.editor), jax.jit(run))
