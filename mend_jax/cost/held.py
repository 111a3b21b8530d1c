"""What held edits cost a model that nobody asks about them: a pass over texts, and decoding."""

from collections.abc import Callable
from functools import partial, reduce
from operator import getitem
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from mend_jax.editors.base import EditorState
from mend_jax.editors.gradient import gradient_editor
from mend_jax.editors.held import Slots
from mend_jax.editors.scoped import ScopedEdit, ScopedPhi, scoped
from mend_jax.factors import Factors, rounded
from mend_jax.links import rate
from mend_jax.models.generate import generate
from mend_jax.models.stages import Inputs, sites_at_read, split
from mend_jax.objectives import outputs_of
from mend_jax.scopes.active import NONE
from mend_jax.scopes.network import Keys, Scope, two_keys
from mend_jax.scopes.reading import stages_for
from mend_jax.sites import kernel_path

TEXTS, LENGTH = 8, 64
"""Of the pass."""
PROMPTS, PROMPT, NEW = 16, 16, 32
"""Of decoding: texts, their tokens, and new ones."""
ROWS, ANSWERS = 4, 2
"""Of an edit at each site, and tokens of its target."""


def random_edits(scope: Scope, phi: PyTree, shapes: dict[str, tuple[int, int]], n: int) -> Slots:
    """So many edits whose keys are near to nothing."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Array:
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    rows = {
        site: rounded(Factors(normal(n, ROWS, d_in), normal(n, ROWS, d_out)))
        for site, (d_in, d_out) in shapes.items()
    }
    blank = jax.eval_shape(scope.keys, phi, jnp.zeros((1, 1, len(scope.stages), phi_width(phi))))
    drawn = (normal(n, key.shape[-1]) for key in blank)
    keys = Keys(*(x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in drawn))
    target = jnp.full((n, ANSWERS), NONE, jnp.int32).at[:, 0].set(0)
    return Slots(ScopedEdit(rows, keys, target), jnp.ones(n, bool))


def phi_width(phi: PyTree) -> int:
    """Features of the states that a scope reads."""
    return int(phi["centre"].shape[-1])


def held_actions(
    model: Any, params: PyTree, sites: tuple[str, ...], width: int, n: int
) -> dict[str, Callable[[], None]]:
    """What is to be timed, of a causal model: pass and decode, and both with n edits held.

    Raises:
      ValueError: no block lies before the first edited one.
    """
    trunk, _ = split(model, sites)
    stages, late = stages_for(len(model.stages) - 2, 0 if trunk is None else trunk.stop)
    base, kept = model, model.clone(keep=stages)
    scope = two_keys(stages, late=late)
    phi = scope.init(jax.random.key(0), width)
    outputs = outputs_of(kept)
    inner = gradient_editor(outputs.loss, sites, rate())
    editor = scoped(inner, scope, outputs.logits, sites_at_read(model, sites))
    state = EditorState(ScopedPhi({}, phi), {})
    paths = {site: kernel_path(params, site) or () for site in sites}
    shapes = {site: reduce(getitem, path, params).shape for site, path in paths.items()}
    held = random_edits(scope, phi, shapes, n)
    rng = np.random.default_rng(1)

    def texts(k: int, length: int) -> Array:
        return jnp.asarray(rng.integers(3, 1000, (k, length)), jnp.int32)

    asked, lengths = texts(PROMPTS, PROMPT), jnp.full(PROMPTS, PROMPT, jnp.int32)
    read = texts(TEXTS, LENGTH)

    def logits(model: Any, params: PyTree, tokens: Array) -> Any:
        return model.apply({"params": params}, Inputs(tokens))

    def speak(model: Any, params: PyTree, tokens: Array) -> Array:
        return generate(model, params, tokens, lengths, NEW)

    def under(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(state: EditorState, held: Any, params: PyTree, tokens: Array) -> Any:
            return editor.apply(state, partial(function, kept), held)(params, tokens)

        return partial(jax.jit(run), state, held)

    programs: dict[str, tuple[Any, Array]] = {
        "pass": (jax.jit(partial(logits, base)), read),
        "pass_held": (under(logits), read),
        "decode": (jax.jit(partial(speak, base)), asked),
        "decode_held": (under(speak), asked),
    }
    return {
        name: partial(_run, run, params, tokens) for name, (run, tokens) in programs.items()
    }


def _run(program: Callable[..., Any], *args: Any) -> None:
    jax.block_until_ready(program(*args))
