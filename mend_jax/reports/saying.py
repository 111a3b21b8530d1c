"""What an edited base goes on with: a program for all of it, or for its tail alone.

So that little is compiled for what is asked by hand, the trunk of a causal base with a scoped
editor is called from the host, block by block, token by token: of blocks that are alike one is
compiled, and of the tail one program, in which the edits act.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from mend_jax.editors.base import EditorState
from mend_jax.evaluation.generation import speak_of
from mend_jax.models.generate import LOST, prediction
from mend_jax.models.stages import Inputs
from mend_jax.programs import jit_quickly
from mend_jax.saved.directory import SavedEditor
from mend_jax.saved.parts import trunk_of

Say = Callable[..., Int[Array | np.ndarray, "k new"]]
"""say(state, params, edit, tokens, lengths, enough) -> the words after an edit, as `generate` gives
them: of texts int32[k, length] of so many tokens each. What enough(words int32[k, said]) is true of
need not be gone on with; LOST follows then."""


def never(said: Int[np.ndarray, "k said"]) -> bool:
    """Of no words that they are enough."""
    return False


def sayer(saved: SavedEditor, new: int) -> Say:
    """How the edited base goes on with texts, greedily.

    Args:
      new: how many tokens.
    """
    trunk, model = trunk_of(saved), saved.base.model
    if trunk is None or model.kind != "causal":
        speak = speak_of(model, new)

        @jit_quickly
        def whole(state: EditorState, params: PyTree, edit: Any, *asked: Array) -> Array:
            return saved.editor.apply(state, speak, edit)(params, *asked)

        return lambda *asked, enough=never: whole(*asked)  # one program says all
    stop = trunk.stop

    @partial(jit_quickly, static_argnums=0)
    def step(
        length: int,
        state: EditorState,
        params: PyTree,
        edit: Any,
        cache: PyTree,
        carry: Inputs,
    ) -> tuple[PyTree, Array]:
        """Cache and next token, after the trunk's carry."""
        tail = model.clone(start=stop, cache_length=length)

        def run(params: PyTree, cache: PyTree, carry: Inputs) -> Any:
            return tail.apply({"params": params, **cache}, carry, mutable=["cache"])

        logits, cache = saved.editor.apply(state, run, edit)(params, cache, carry)
        return dict(cache), prediction(logits)

    def say(
        state: EditorState,
        params: PyTree,
        edit: Any,
        tokens: Int[np.ndarray, "k length"],
        lengths: Int[np.ndarray, "k"],
        enough: Callable[[Int[np.ndarray, "k said"]], bool] = never,
    ) -> Int[np.ndarray, "k new"]:
        length = tokens.shape[1] + new
        below = trunk.clone(cache_length=length)
        place, zeros = np.asarray(lengths)[:, None], np.zeros((len(tokens), 1), np.int32)
        inputs = Inputs(jnp.asarray(tokens), jnp.asarray(place - 1))
        known: Any = {}
        cache: Any = {}
        found: list[np.ndarray] = []
        lost = zeros > 0
        for said in range(new):
            carry, known = below.apply({"params": params, **known}, inputs, mutable=["cache"])
            cache, token = step(length, state, params, edit, cache, carry)
            found.append(np.where(lost, LOST, np.asarray(token)))
            if enough(np.concatenate(found, axis=1)):
                break
            lost = found[-1] == LOST
            token, at = jnp.asarray(np.where(lost, 0, found[-1])), jnp.asarray(place + said)
            inputs = Inputs(token, jnp.asarray(zeros), at)
        words = np.concatenate(found, axis=1)
        return np.pad(words, ((0, 0), (0, new - len(found))), constant_values=LOST)

    return say
