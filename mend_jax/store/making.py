"""Edits of records, made by a scoped editor; and whom one meets: whose scope its prompt is in."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree

from mend_jax.data.batches import edit_examples, shapes_of_edits
from mend_jax.data.codec import codec_of
from mend_jax.data.encoding import Tokens
from mend_jax.data.records import Record
from mend_jax.data.writable import warn_of
from mend_jax.editors.scoped import ScopedEdit
from mend_jax.factors import in_float32, norm
from mend_jax.saved.directory import SavedEditor
from mend_jax.saved.parts import entered, trunk_of
from mend_jax.scopes.network import Keys, Scope

SIDE_BY_SIDE = 8
"""Edits that are made at a time."""

Make = Callable[[Sequence[Record]], list[ScopedEdit | str]]
Meets = Callable[[Keys, Keys, Bool[Array | np.ndarray, "edits"]], Bool[np.ndarray, "edits"]]


def maker_of(saved: SavedEditor) -> Make:
    """make(records) -> the edit of each or, in words, why there is none: the tokenizer has no
    tokens for it, it is too long, or the edit changes nothing or is no number. One compilation a
    padded shape."""
    encode = codec_of(saved.base).pair
    jitted = jax.jit(jax.vmap(saved.editor.edit, (None, None, 0)))
    trunk, params = trunk_of(saved), saved.base.params

    def tokens(record: Record) -> Tokens | str:
        try:
            pair: Tokens = encode(record.prompt, record.target, record.separator)
            shapes_of_edits([pair])
        except ValueError as error:
            return str(error)
        warn_of(pair.lost, record.prompt)
        return pair

    def make(records: Sequence[Record]) -> list[ScopedEdit | str]:
        found: list[Any] = [tokens(record) for record in records]
        good = [i for i, pair in enumerate(found) if not isinstance(pair, str)]
        if not good:
            return found
        shapes = shapes_of_edits([found[i] for i in good])
        batch = SIDE_BY_SIDE if len(good) > 1 else 1
        for first in range(0, len(good), batch):
            chosen = good[first : first + batch]
            filled = [*chosen, *[chosen[-1]] * (batch - len(chosen))]
            examples = edit_examples([[found[i]] for i in filled], shapes)
            made: Any = jitted(saved.state, params, entered(trunk, params, examples))
            kept = jax.device_get(jax.tree.map(lambda x: x[:, 0], made.kept))
            for j, i in enumerate(chosen):
                found[i] = _sound(jax.tree.map(lambda x, j=j: x[j], kept))
        return found

    return make


def _sound(kept: ScopedEdit) -> ScopedEdit | str:
    """The edit, or what is wrong with it."""
    if not all(np.all(np.isfinite(x)) for x in jax.tree.leaves(kept)):
        return "the edit has values that are not finite"
    if not any(float(norm(part)) for part in in_float32(kept.rows).values()):
        return "the edit is exactly zero: this editor changes nothing for this prompt"
    return kept


def meeting_of(scope: Scope, phi: PyTree) -> Meets:
    """meets(keys, held, used) -> the edits in whose scope a prompt with these keys is."""

    @jax.jit
    def met(phi: Any, asking: Keys, held: Keys, used: Array) -> Array:
        near = scope.near(phi, jax.tree.map(lambda x: x[None], asking), held)
        return (jnp.minimum(near.subject, near.relation)[0] > 0) & used

    return lambda asking, held, used: np.asarray(met(phi, asking, held, used))
