"""A store and the editor whose edits it keeps: edits are made, added, and held as one value.

    saved = mj.load_editor("runs/scoped")
    with mj.EditStore("edits.db", saved) as store:
        store.add([mj.Record("The capital of France is", "Rome")])
        answer = saved.editor.apply(saved.state, function, store.held)

Other processes may work on the same file; `refresh` sees what they did.
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from mend_jax.data.chat import in_template
from mend_jax.data.records import Record
from mend_jax.editors.held import Slots
from mend_jax.editors.scoped import ScopedEdit
from mend_jax.saved.directory import SavedEditor
from mend_jax.scopes.registry import scope_of
from mend_jax.store.changes import contradiction, differ
from mend_jax.store.ledger import Ledger, OvertakenError
from mend_jax.store.making import maker_of, meeting_of
from mend_jax.store.origin import origin_of
from mend_jax.store.rows import NewEdit, StoredEdit, Words
from mend_jax.store.slots import slot_of
from mend_jax.store.standing import Standing, catch_up, stand


class Added(NamedTuple):
    """What became of a record.

    number: of its edit, None if that was refused. why: it was, or that it was held already; empty
    for a new edit. against: numbers of the held edits that it contradicts, or mends; they gave way
    to it, if it was not refused.
    """

    number: int | None
    why: str = ""
    against: tuple[int, ...] = ()


class EditStore:
    """Edits in a file, and the value that their editor holds.

    ledger: the rows and the history. Use as a context manager, or close it.

    Args:
      path: of the file.
      saved: an editor with a scope.
      create: make the file if there is none.

    Raises:
      StoreError: the editor has no scope; the store has edits of another base or editor; the file
        is no store, of a newer version, damaged or locked.
    """

    def __init__(self, path: str | Path, saved: SavedEditor, create: bool = True) -> None:
        self._origin, self._base = origin_of(saved), saved.base
        scoped = saved.config["scoped"]
        self._slot = slot_of(saved.base.params, saved.sites, scoped)
        self._make = maker_of(saved)
        self._meets = meeting_of(scope_of(scoped["scope"]), saved.state.phi.scope)
        self.ledger = Ledger(path, create)
        try:
            self.ledger.check_origin(self._origin)
            self._standing = stand(self.ledger, self._slot)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "EditStore":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file."""
        self.ledger.close()

    @property
    def held(self) -> Slots:
        """What the editor applies, as of the last change or `refresh`, which take its buffers: ask
        for it anew after them."""
        return self._standing.slots

    @property
    def numbers(self) -> np.ndarray:
        """int[capacity], the number of the edit in each slot of `held`; 0 where there is none."""
        return self._standing.numbers

    @property
    def event(self) -> int:
        """The last event of the history that `held` knows."""
        return self._standing.event

    @property
    def damaged(self) -> dict[int, str]:
        """Numbers of edits that cannot be held since their rows are damaged, and how."""
        return self._standing.damaged

    def at(self, event: int) -> Standing:
        """What was held after an event of the history, as a value of its own.

        Raises:
          StoreError: there was no such event.
        """
        return stand(self.ledger, self._slot, event)

    def refresh(self) -> None:
        """Sees what other processes have done."""
        self._standing = catch_up(self.ledger, self._slot, self._standing)

    def remove(self, *numbers: int) -> None:
        """Removes edits. Raises StoreError, and removes none, if one is not held."""
        self.ledger.remove(numbers)
        self.refresh()

    def restore(self, *numbers: int) -> None:
        """Brings edits back, bit for bit. Raises StoreError, and brings back none, if one is held,
        or its prompt is, by another."""
        self.ledger.restore(numbers)
        self.refresh()

    def add(self, records: Sequence[Record], replace: bool = False, note: str = "") -> list[Added]:
        """Makes the edits of records and adds, in one step, all that may be added.

        Chats are kept as texts in the base's template. Refused is what the tokenizer cannot write,
        what is too long, and what contradicts: an edit whose prompt is in the scope of a held edit,
        or of an earlier one of these, with another target. A damaged edit gives way to a new one of
        its prompt.

        Args:
          replace: held edits that are contradicted give way. note: kept with each edit.

        Returns:
          what became of each record, in their order.

        Raises:
          ValueError: a record is a chat, and the base has no template, or it refuses.
        """
        records = in_template(self._base, records)
        made = self._make(records)
        words = [Words(r.prompt, r.target, r.subject, r.separator, note) for r in records]
        while True:
            self.refresh()
            found, new = self._judged(words, made, replace)
            try:
                added = self.ledger.add(list(new.values()), self._origin, self._standing.event)
            except OvertakenError:  # others were faster: look again
                continue
            self.refresh()
            for n, (i, number) in enumerate(zip(new, added, strict=True)):
                why = "it is held already" if number in added[:n] else ""
                found[i] = found[i]._replace(number=number, why=why)
            return found

    def _judged(
        self, words: Sequence[Words], made: Sequence[ScopedEdit | str], replace: bool
    ) -> tuple[list[Added], dict[int, NewEdit]]:
        """What is to become of each; and the edits that may be added."""
        found: list[Added] = []
        new: dict[int, NewEdit] = {}
        gone: set[int] = set()
        rival_of = self._rivals(words, made)
        for i, (said, kept) in enumerate(zip(words, made, strict=True)):
            if isinstance(kept, str):
                found.append(Added(None, kept))
                continue
            same = self.ledger.find(said.prompt)
            broken = [same.id] if same is not None and same.id in self.damaged else []
            same = None if broken else same
            against = [x for x in self._met(kept, same) if differ(x.words, said)]
            if rival := rival_of(i, kept, new):
                found.append(Added(None, f"it contradicts {rival.prompt!r} -> {rival.target!r}"))
            elif same is not None and not differ(same.words, said) and not (against and replace):
                found.append(Added(same.id, "it is held already"))
            elif against and not replace:
                why = "; ".join(contradiction(said, x) for x in against)
                found.append(Added(None, why, tuple(x.id for x in against)))
            else:
                give_way = tuple(x for x in [*broken, *(y.id for y in against)] if x not in gone)
                gone.update(give_way)
                new[i] = NewEdit(said, kept, give_way)
                found.append(Added(None, "", give_way))
        return found, new

    def _met(self, kept: ScopedEdit, same: StoredEdit | None) -> list[StoredEdit]:
        """The held edits in whose scope an edit is; `same` has its prompt."""
        slots = np.flatnonzero(self._meets(kept.keys, self.held.kept.keys, self.held.used))
        met = self.ledger.edits([int(self.numbers[slot]) for slot in slots]) if len(slots) else {}
        return list((met | ({same.id: same} if same else {})).values())

    def _rivals(
        self, words: Sequence[Words], made: Sequence[ScopedEdit | str]
    ) -> Callable[[int, ScopedEdit, Collection[int]], Words | None]:
        """rival_of(i, edit, others) -> the first of the others that contradicts edit i."""
        good = [kept.keys for kept in made if not isinstance(kept, str)]
        if len(good) < 2:
            return lambda i, kept, others: None
        keys = jax.tree.map(lambda *x: np.stack(x), *good)
        places = np.cumsum([not isinstance(kept, str) for kept in made]) - 1
        everywhere = np.ones(len(good), bool)

        def rival_of(i: int, kept: ScopedEdit, others: Collection[int]) -> Words | None:
            met = self._meets(kept.keys, keys, everywhere)
            for j in others:
                near = met[places[j]] or words[j].prompt == words[i].prompt
                if near and differ(words[j], words[i]):
                    return words[j]
            return None

        return rival_of
