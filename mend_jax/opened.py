"""A model that is told things: a base, its editor and the edits that are held, as one value.

    model = mj.open("smollm2-135m")
    edited = mj.tell(model, "The capital of France is", "Rome")
    mj.ask(edited, "France's capital city is")
    mj.forget(edited, "The capital of France is")

Nothing changes in place: `model` is as it was, and both may be asked. What is held in memory here,
an `EditStore` keeps in a file.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from mend_jax.data.chat import in_template, text_of
from mend_jax.data.messages import Messages
from mend_jax.data.records import Record
from mend_jax.editors.held import Slots, take_out, with_room
from mend_jax.editors.scoped import ScopedEdit
from mend_jax.reports.before_after import BeforeAfter, before_after_of
from mend_jax.saved.arrays import EditorError
from mend_jax.saved.directory import Opening, SavedEditor, load_editor
from mend_jax.saved.shipped import shipped
from mend_jax.scopes.registry import scope_of
from mend_jax.store.making import Make, Meets, maker_of, meeting_of
from mend_jax.store.slots import blank, fill, room_for, slot_of


class Opened(NamedTuple):
    """saved: base and editor. held: what the editor applies. edits: the record of each slot, None
    where there is none. ready: compiled programs."""

    saved: SavedEditor
    held: Slots
    edits: tuple[Record | None, ...]
    ready: "Ready"

    @property
    def told(self) -> list[Record]:
        """The edits that are held."""
        return [record for record in self.edits if record is not None]


class Ready(NamedTuple):
    """make: edits of records. meets: whose scope a prompt is in. speaks(n): answers of at most n
    tokens."""

    make: Make
    meets: Meets
    speaks: Callable[[int], BeforeAfter]


def open(model: str, editor: str | Path | None = None, **how: Unpack[Opening]) -> Opened:
    """A base with an editor, ready to be told things.

    Args:
      model: as `load` takes it.
      editor: the directory of an editor with a scope, or its name on the hub: user/name, or
        user/name@revision; by default the one that comes with this package, for the models that
        there is one for.
      how: as `load_editor` takes it.

    Raises:
      EditorError: no editor comes with the package for this model; the editor is for another, or
        has no scope; as `load_editor`.
    """
    if editor is None:
        shipped(model)  # or it is said that there is none
        editor = model
    return opened(load_editor(editor, model, **how))


def opened(saved: SavedEditor) -> Opened:
    """The same of an editor that is loaded, which holds nothing yet.

    Raises:
      EditorError: it has no scope.
    """
    if "scoped" not in saved.config:
        raise EditorError("the editor has no scope: give it one first (mend-jax scope)")
    scope, capacity = scope_of(saved.config["scoped"]["scope"]), room_for(0)
    slot = _slot_of(saved)
    empty = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), slot)
    meets = meeting_of(scope, saved.state.phi.scope)

    @cache
    def speaks(tokens: int) -> BeforeAfter:
        return before_after_of(saved, tokens)

    ready = Ready(maker_of(saved), meets, speaks)
    return Opened(saved, Slots(empty, jnp.zeros(capacity, bool)), (None,) * capacity, ready)


def tell(
    model: Opened,
    prompt: str | Messages,
    target: str,
    separator: str | None = None,
    replace: bool = False,
) -> Opened:
    """The model that goes on with `target` after `prompt`, and after whatever else asks for it.

    Args:
      prompt: the beginning of a text; or a chat, {"role", "content"} each, in the model's template.
      separator: what stands between prompt and target; None leaves it to `data.spacing`.
      replace: edits that say otherwise give way.

    Raises:
      ValueError: the tokenizer cannot write it, it is too long, or it contradicts what is held.
    """
    record = Record(text_of(model.saved.base, prompt), target, separator=separator)
    return tell_records(model, [record], replace)


def tell_records(model: Opened, records: Sequence[Record], replace: bool = False) -> Opened:
    """The model that is told all of these; or none, if one cannot be told.

    Raises:
      ValueError: as `tell`; names the records.
    """
    records = in_template(model.saved.base, records)
    made = model.ready.make(records)
    pairs = zip(records, made, strict=True)
    if wrong := [f"{r.prompt!r}: {kept}" for r, kept in pairs if isinstance(kept, str)]:
        raise ValueError("; ".join(wrong[:5]))
    held = with_room(model.held, len(records))
    edits = [*model.edits, *[None] * (len(held.used) - len(model.edits))]
    keys: Any = jax.tree.map(np.array, jax.device_get(held.kept.keys))
    used = np.array(held.used)
    new: dict[int, ScopedEdit] = {}
    for record, kept in zip(records, made, strict=True):
        assert not isinstance(kept, str)
        near = np.flatnonzero(model.ready.meets(kept.keys, keys, used)).tolist()
        near += [i for i, x in enumerate(edits) if x and x.prompt == record.prompt]
        known = {i: x for i in near if (x := edits[i]) is not None}
        against = {i: x for i, x in known.items() if x.target.strip() != record.target.strip()}
        if against and not replace:
            said = "; ".join(f"{x.prompt!r} -> {x.target!r}" for x in against.values())
            raise ValueError(
                f"{record.prompt!r} -> {record.target!r} contradicts what is held: {said}. Forget "
                "that, or say replace=True"
            )
        for slot in against:
            edits[slot], used[slot] = None, False
            held, _ = take_out(held, slot), new.pop(slot, None)
        if any(x.prompt == record.prompt for i, x in known.items() if i not in against):
            continue  # it is held already
        slot = int(np.argmin(used))
        edits[slot], used[slot], new[slot] = record, True, kept
        for place, key in zip(keys, kept.keys, strict=True):
            place[slot] = key
    return model._replace(held=_placed(model, held, new), edits=tuple(edits))


def forget(model: Opened, prompt: str | Messages) -> Opened:
    """The model as if it had never been told what follows this prompt.

    Raises:
      ValueError: it was not; names what was, if the prompt asks for it in other words.
    """
    text = text_of(model.saved.base, prompt)
    slots = [i for i, x in enumerate(model.edits) if x and x.prompt == text]
    if not slots:
        kept = model.ready.make([Record(text, "a")])[0]
        near = [] if isinstance(kept, str) else np.flatnonzero(
            model.ready.meets(kept.keys, model.held.kept.keys, model.held.used)
        ).tolist()  # fmt: skip
        asked = [x.prompt for i in near if (x := model.edits[i])]
        told = f"; it asks for what was told of {asked[0]!r}" if asked else ""
        raise ValueError(f"nothing was told of {text!r}{told}")
    edits = [None if i in slots else x for i, x in enumerate(model.edits)]
    return model._replace(held=take_out(model.held, slots[0]), edits=tuple(edits))


def ask(
    model: Opened,
    prompt: str | None = None,
    messages: Messages | None = None,
    tokens: int = 24,
    lines: int = 1,
) -> str:
    """What the model goes on with, greedily: at most so many tokens, and lines.

    Args:
      prompt: the beginning of a text. messages: in its place, a chat.

    Raises:
      ValueError: not one of the two is given; as `chat_prompt`; the prompt cannot be put in tokens.
    """
    given = [x for x in (prompt, messages) if x is not None]
    if len(given) != 1:
        raise ValueError("give a prompt, or messages")
    text = text_of(model.saved.base, given[0])
    said: list[str] = model.ready.speaks(tokens).say(model.held, [text], lines)
    return said[0]


def _placed(model: Opened, held: Slots, new: dict[int, ScopedEdit]) -> Slots:
    """With these edits in their slots.

    Raises:
      ValueError: one is of other shapes than the slots.
    """
    if not new:
        return held
    kept = blank(_slot_of(model.saved), len(new))
    for i, one in enumerate(new.values()):
        if why := fill(one, kept, i):
            raise ValueError(why)
    at = jnp.asarray(list(new))
    written = jax.tree.map(lambda room, x: room.at[at].set(x), held.kept, kept)
    return Slots(written, held.used.at[at].set(True))


def _slot_of(saved: SavedEditor) -> ScopedEdit:
    """One slot, abstract."""
    return slot_of(saved.base.params, saved.sites, saved.config["scoped"])
