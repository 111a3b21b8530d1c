"""What a store's editor holds: brought up to date, it is what would be loaded from nothing."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from compare import assert_equal
from stored_edits import SLOT, kept, new, origin

from mend_jax.factors import Factors, rounded
from mend_jax.scopes.active import NONE
from mend_jax.scopes.network import SIZES
from mend_jax.store.ledger import Ledger
from mend_jax.store.slots import room_for, slot_of
from mend_jax.store.standing import Standing, catch_up, stand

ORIGIN = origin()


class Watched(Ledger):
    """Notes whose arrays were read."""

    def arrays(self, numbers: Sequence[int]) -> Any:
        self.read = [*getattr(self, "read", []), *numbers]
        return super().arrays(numbers)


def by_number(standing: Standing) -> dict[int, Any]:
    """The slots in use by the numbers of their edits, in whatever order they are."""
    used = np.asarray(standing.slots.used)
    np.testing.assert_array_equal(used, standing.numbers > 0)
    slots = jax.device_get(standing.slots.kept)
    return {
        int(standing.numbers[i]): jax.tree.map(lambda x, i=i: x[i], slots)
        for i in np.flatnonzero(used)
    }


def test_a_slot_holds_the_edit_as_it_was_made(tmp_path: Path):
    """Its rows, then rows of zeros; its target, then NONE."""
    with Ledger(tmp_path / "edits.db") as ledger:
        numbers = ledger.add([new(f"prompt {i}") for i in range(9)], ORIGIN)
        found = by_number(stand(ledger, SLOT))
    assert sorted(found) == numbers
    lengths = set()
    for i, number in enumerate(numbers):
        wanted, slot = kept(f"prompt {i}"), found[number]
        assert_equal(slot.keys, wanted.keys)
        n = len(wanted.target)
        np.testing.assert_array_equal(slot.target[:n], wanted.target)
        assert np.all(slot.target[n:] == NONE)
        for site, part in wanted.rows.items():
            rows = len(part.u)
            lengths.add(rows)
            assert_equal(jax.tree.map(lambda x, r=rows: x[:r], slot.rows[site]), part)
            assert all(not np.any(x[rows:]) for x in slot.rows[site])
    assert lengths == {1, 2, 3}


def test_one_more_edit_reads_one_row_and_the_value_is_the_same(tmp_path: Path):
    """After any changes, by this process or another; also where the slots are no longer enough."""
    rng = random.Random(1)
    with Watched(tmp_path / "edits.db") as ledger, Ledger(tmp_path / "edits.db") as other:
        other.add([new(f"prompt {i}") for i in range(60)], ORIGIN)
        standing = stand(ledger, SLOT)
        assert len(standing.numbers) == 64
        assert catch_up(ledger, SLOT, standing) is standing
        for step in range(12):
            held = sorted(ledger.at().edits)
            gone = sorted(ledger.edits().keys() - held)
            other.remove(rng.sample(held, 2))
            other.restore(gone[:1])
            more = other.add([new(f"more {step} {i}") for i in range(rng.randint(1, 4))], ORIGIN)
            passing = other.add([new("passing")], ORIGIN)
            other.remove(passing)
            ledger.read = []
            standing = catch_up(ledger, SLOT, standing)
            assert sorted(ledger.read) == sorted([*more, *gone[:1]])
            wanted = stand(other, SLOT)
            assert standing.event == wanted.event == other.history()[-1].id
            assert_equal(by_number(standing), by_number(wanted))
        assert len(standing.numbers) == len(wanted.numbers) == 128
        past = stand(ledger, SLOT, event=60)
        assert sorted(by_number(past)) == list(range(1, 61)) and past.event == 60


def test_a_damaged_edit_is_named_until_it_is_removed(tmp_path: Path):
    with Ledger(tmp_path / "edits.db") as ledger:
        ledger.add([new("a"), new("b"), new("c")], ORIGIN)
        with ledger._database.writing() as connection:
            connection.exec_driver_sql("UPDATE edits SET arrays = x'00' WHERE id = 2")
        standing = stand(ledger, SLOT)
        assert sorted(by_number(standing)) == [1, 3]
        assert list(standing.damaged) == [2] and "checksum" in standing.damaged[2]
        ledger.add([new("d")], ORIGIN)
        with ledger._database.writing() as connection:
            connection.exec_driver_sql("UPDATE edits SET note = 'x' WHERE id = 4")
            connection.exec_driver_sql("UPDATE events SET kind = 'lost' WHERE edit = 3")
        standing = catch_up(ledger, SLOT, standing)
        assert sorted(by_number(standing)) == [1, 3] and sorted(standing.damaged) == [2, 4]
        again = stand(ledger, SLOT)
        assert sorted(by_number(again)) == [1] and sorted(again.damaged) == [2, 3, 4]
        assert "does not agree with its events" in again.damaged[3]
        ledger.remove([2])
        assert sorted(catch_up(ledger, SLOT, standing).damaged) == [4]


def test_arrays_of_another_editor_are_named(tmp_path: Path):
    edit = new("b")
    renamed = {f"x/{site}": part for site, part in edit.kept.rows.items()}
    narrow = jax.tree.map(lambda x: x[..., :2], edit.kept.rows)
    long = edit.kept._replace(target=np.arange(99, dtype=np.int32))
    others = [edit.kept._replace(rows=renamed), edit.kept._replace(rows=narrow), long]
    with Ledger(tmp_path / "edits.db") as ledger:
        ledger.add([new("a")], ORIGIN)
        for i, other in enumerate(others):
            ledger.add([new(f"b {i}")._replace(kept=other)], ORIGIN)
        standing = stand(ledger, SLOT)
    assert sorted(by_number(standing)) == [1]
    assert set(standing.damaged) == {2, 3, 4}
    assert all("other shapes, or sites" in why for why in standing.damaged.values())


def test_rows_that_were_written_in_float32_are_rounded(tmp_path: Path):
    """Their file stays as it is; bit for bit they are held as they would be kept today."""
    rng = np.random.default_rng(0)
    edit = new("old")
    was = {
        site: Factors(*(x * rng.standard_normal(x.shape, np.float32) for x in part))
        for site, part in edit.kept.rows.items()
    }
    with Ledger(tmp_path / "edits.db") as ledger:
        (number,) = ledger.add([edit._replace(kept=edit.kept._replace(rows=was))], ORIGIN)
        held = by_number(stand(ledger, SLOT))[number]
        ledger.remove([number])
        ledger.restore([number])
        again = by_number(stand(ledger, SLOT))[number]
    assert_equal(again, held)
    for site, part in was.items():
        assert part.u.dtype == np.float32
        n = len(part.u)
        assert_equal(jax.tree.map(lambda x, n=n: x[:n], held.rows[site]), rounded(part))


def test_an_edit_of_smollm2_takes_less_than_100_kb():
    kernels = {name: {"kernel": np.zeros((576, 1536))} for name in ("gate_proj", "up_proj")}
    sites = [f"layers_{i}/mlp/{name}" for i in (28, 29) for name in kernels]
    params = {f"layers_{i}": {"mlp": kernels} for i in (28, 29)}
    slot = slot_of(params, sites, {"rows": 4, "scope": SIZES})
    assert sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(slot)) < 70_000


@pytest.mark.parametrize("n", [0, 1, 63, 64, 1000, 9_999, 10_000, 123_456])
def test_there_is_room_for_one_more_and_little_beyond(n: int):
    room = room_for(n)
    assert n < room <= max(64, 1.25 * n + 64) and room % 64 == 0
