"""Where in a text held edits act: token by token, which one, and how near it was."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from mend_jax.data.codec import codec_of
from mend_jax.data.decoding import pad_prompts
from mend_jax.editors.held import Slots
from mend_jax.editors.scoped import acting
from mend_jax.models.stages import Inputs, run_trunk
from mend_jax.saved.directory import SavedEditor
from mend_jax.scopes.active import NONE, passed
from mend_jax.scopes.network import Near, Scope
from mend_jax.scopes.registry import scope_of


class Step(NamedTuple):
    """One token of a text, or all of one that is read as a whole.

    active: the slot of the edit that acts there, or None. nearest: of the edit that passes both
    thresholds best. subject, relation: its logits; both above 0: it fires.
    """

    token: str
    active: int | None
    nearest: int
    subject: float
    relation: float


def trace(saved: SavedEditor, held: Slots, text: str) -> list[Step]:
    """What the scope of an editor says of every position of a text while these edits are held; or
    of the text, if it is read as a whole."""
    codec, phi = codec_of(saved.base), saved.state.phi.scope
    scope: Scope = scope_of(saved.config["scoped"]["scope"])
    ids = codec.prompt(text)

    @jax.jit
    def read(params: PyTree, held: Slots, tokens: Any, mask: Any) -> tuple[jax.Array, Near]:
        below: Any = saved.base.model.clone(stop=scope.stages[-1])
        seen: Any = run_trunk(below, params, Inputs(tokens, mask=mask)).seen
        near = scope.near(phi, scope.keys(phi, seen.states, seen.mask), held.kept.keys)
        return acting(scope, phi, held, seen), near

    tokens, lengths = pad_prompts([ids])
    mask = np.arange(tokens.shape[1])[None] < lengths[:, None]
    parts = [text] if scope.whole else [codec.words([token]) for token in ids]
    which, near = jax.device_get(read(saved.base.params, held, tokens, mask))
    best = np.argmax(np.asarray(passed(Near(*near), held.used)), axis=-1)
    return [
        Step(
            part,
            None if which[0, i] == NONE else int(which[0, i]),
            int(best[0, i]),
            float(near.subject[0, i, best[0, i]]),
            float(near.relation[0, i, best[0, i]]),
        )
        for i, part in enumerate(parts)
    ]


def lines_of(steps: list[Step]) -> list[str]:
    """As lines: the token, both questions' logits, and a mark where an edit acts."""
    width = max(len(repr(step.token)) for step in steps)
    head = f"{'token':<{width}}  subject  relation"
    return [head] + [
        f"{step.token!r:<{width}}  {step.subject:7.1f}  {step.relation:8.1f}"
        f"{'' if step.active is None else f'  edit {step.active + 1} acts'}"
        for step in steps
    ]
