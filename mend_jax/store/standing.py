"""The edits of a store as the value that a scoped editor holds, brought up to date edit by edit.

Of 10,000 edits, one more is one row read and one slot written: `catch_up` takes the buffers of the
value that it is given (they are donated), as a training step takes its state. A value that is made
anew has more slots than edits, by a quarter at most; one that is full gets twice as many. So few
sizes are ever compiled for.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mend_jax.editors.held import Slots, with_room
from mend_jax.editors.scoped import ScopedEdit, holding
from mend_jax.store.ledger import Ledger
from mend_jax.store.rows import Damaged
from mend_jax.store.schema import HOLDS
from mend_jax.store.slots import SIDE_BY_SIDE, blank, fill, room_for


class Standing(NamedTuple):
    """The held edits after an event.

    slots: what the editor applies. numbers: of the edit in each slot, 0 where there is none.
    damaged: numbers of edits that should be held and cannot be, and why.
    """

    slots: Slots
    numbers: Int[np.ndarray, "capacity"]
    event: int
    damaged: dict[int, str]


def stand(ledger: Ledger, slot: ScopedEdit, event: int | None = None) -> Standing:
    """All edits that are held now, or were after an event.

    Raises:
      StoreError: as the ledger.
    """
    moment = ledger.at(event)
    lost = "its row is lost, or does not agree with its events"
    damaged = dict.fromkeys(moment.damaged, lost)
    wanted = [number for number in moment.edits if number not in damaged]
    capacity = room_for(len(wanted))
    numbers = np.zeros(capacity, np.int64)
    empty = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), slot)
    held = Slots(empty, jnp.zeros(capacity, bool))
    for first in range(0, len(wanted), SIDE_BY_SIDE):
        room = blank(slot, SIDE_BY_SIDE)
        for i, (number, kept) in enumerate(ledger.arrays(wanted[first : first + SIDE_BY_SIDE])):
            if why := _placed(kept, room, i):
                damaged[number] = why
            else:
                numbers[first + i] = number
        part = Slots(room, jnp.asarray(numbers[first : first + SIDE_BY_SIDE] > 0))
        held = _write(held, part, np.int32(first))
    return Standing(held, numbers, moment.event, damaged)


def catch_up(ledger: Ledger, slot: ScopedEdit, standing: Standing) -> Standing:
    """The same after all events that came since; `standing` is used up, if there were any.

    Raises:
      StoreError: as the ledger.
    """
    events = ledger.history(standing.event)
    if not events:
        return standing
    holds = {event.edit: event.kind in HOLDS for event in events}
    held, numbers, damaged = standing.slots, standing.numbers.copy(), dict(standing.damaged)
    for number, stays in holds.items():
        damaged.pop(number, None)
        if not stays and number in numbers:
            at = int(np.argmax(numbers == number))
            held, numbers[at] = _remove(held, np.int32(at)), 0
    new = [number for number, stays in holds.items() if stays and number not in numbers]
    held = with_room(held, len(new))
    numbers = np.pad(numbers, (0, len(held.used) - len(numbers)))
    for number, kept in ledger.arrays(new):
        room = blank(slot, 1)
        if why := _placed(kept, room, 0):
            damaged[number] = why
            continue
        numbers[np.argmin(numbers > 0)] = number  # where `add` puts it: the first that is free
        held = _add(held, jax.tree.map(lambda x: x[0], room))
    return Standing(held, numbers, events[-1].id, damaged)


_add = jax.jit(holding().add, donate_argnums=0)
_remove = jax.jit(holding().remove, donate_argnums=0)


@partial(jax.jit, donate_argnums=0)
def _write(held: Slots, part: Slots, first: Int[Array, ""]) -> Slots:
    """With these slots from the first one on."""
    update = jax.lax.dynamic_update_slice_in_dim
    written: Slots = jax.tree.map(lambda x, y: update(x, y, first, 0), held, part)
    return written


def _placed(kept: ScopedEdit | Damaged, room: ScopedEdit, n: int) -> str:
    """As `fill`; of a damaged edit, why it cannot."""
    return kept.why if isinstance(kept, Damaged) else fill(kept, room, n)
