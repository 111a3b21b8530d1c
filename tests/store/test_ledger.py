"""The rows of a store: what was done is done whole, and the history tells every state there was."""

import random
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from compare import assert_equal
from stored_edits import kept, new, origin

from mend_jax.factors import Factors
from mend_jax.store.changes import ContradictionError
from mend_jax.store.database import StoreError
from mend_jax.store.ledger import Ledger, OvertakenError
from mend_jax.store.rows import Damaged

ORIGIN = origin()


def held(ledger: Ledger, event: int | None = None) -> dict[int, str]:
    """Prompts by their numbers."""
    return {number: edit.words.prompt for number, edit in ledger.at(event).edits.items()}


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A store that holds edits 1, 2 and 3, of prompts a, b and c."""
    path = tmp_path / "edits.db"
    with Ledger(path) as ledger:
        assert ledger.add([new("a"), new("b"), new("c")], ORIGIN) == [1, 2, 3]
    return path


def test_the_state_after_an_event_is_that_of_replaying(tmp_path: Path):
    """Whatever was done, and when it is asked: now, later, or of a file that is opened again."""
    rng = random.Random(0)
    states: list[dict[int, str]] = [{}]
    now: dict[int, str] = {}
    every: dict[int, str] = {}
    with Ledger(tmp_path / "edits.db") as ledger:
        for step in range(60):
            gone = [number for number in every if number not in now]
            free = [number for number in gone if every[number] not in now.values()]
            what = rng.choice(["add", "remove", "restore", "replace"])
            if what == "remove" and now:
                number = rng.choice(sorted(now))
                ledger.remove([number])
                del now[number]
            elif what == "restore" and free:
                number = rng.choice(free)
                ledger.restore([number])
                now[number] = every[number]
            elif what == "replace" and now:
                number = rng.choice(sorted(now))
                (by,) = ledger.add([new(now[number], f"target {step}", (number,))], ORIGIN)
                every[by] = now[by] = now.pop(number)
                states.append({k: v for k, v in now.items() if k != by})
            else:
                prompts = [f"prompt {step} {i}" for i in range(rng.randint(1, 3))]
                numbers = ledger.add([new(prompt) for prompt in prompts], ORIGIN)
                for number, prompt in zip(numbers, prompts, strict=True):
                    every[number] = now[number] = prompt
                    states.append(dict(now))
                continue
            states.append(dict(now))
        kinds = {event.kind for event in ledger.history()}
        assert kinds == {"added", "removed", "restored", "replaced"}
        last = ledger.history()[-1].id
        assert last == len(states) - 1
        assert [held(ledger, event) for event in range(last + 1)] == states
    with Ledger(tmp_path / "edits.db") as ledger:
        assert [held(ledger, event) for event in range(last + 1)] == states
        assert held(ledger) == now and ledger.at().damaged == ()
        assert [event.id for event in ledger.history(last - 4)] == list(range(last - 3, last + 1))
        for event in (-1, last + 1):
            with pytest.raises(StoreError, match=f"no event {event}; the last is {last}"):
                ledger.at(event)


def test_removed_is_gone_and_restored_is_there_bit_for_bit(three: Path):
    with Ledger(three) as ledger:
        before = dict(ledger.arrays([1, 2, 3]))
        assert_equal(before[2], kept("b"))
        ledger.remove([2])
        assert held(ledger) == {1: "a", 3: "c"} and ledger.find("b") is None
        ledger.restore([2])
        assert_equal(dict(ledger.arrays([1, 2, 3])), before)
        edit = ledger.at().edits[2]
        assert edit.words == new("b").words and edit == ledger.find("b")
        told = [(event.kind, event.edit, event.by) for event in ledger.history(3)]
        assert told == [("removed", 2, None), ("restored", 2, None)]
    assert [file.name for file in three.parent.iterdir()] == ["edits.db"]


def test_a_batch_is_added_whole_or_not_at_all(three: Path):
    with Ledger(three) as ledger:
        for wrong, error, said in (
            (new("a", "Oslo"), ContradictionError, "'a' -> 'Oslo' contradicts edit 1, 'a' -> 'R"),
            (new("d", "Oslo"), ContradictionError, "contradicts edit 4"),  # one of the same batch
            (new("e", replaces=(9,)), StoreError, "no edit 9"),
            (new(" "), StoreError, "needs a prompt"),
            (new("e", "\n"), StoreError, "needs a target"),
        ):
            with pytest.raises(error, match=said):
                ledger.add([new("d"), wrong], ORIGIN)
        for numbers, said in (([1, 9], "no edit 9"), ([1, 1], "edit 1 is not held")):
            with pytest.raises(StoreError, match=said):
                ledger.remove(numbers)
        with pytest.raises(StoreError, match="edit 3 is held already"):
            ledger.restore([3])
        assert held(ledger) == {1: "a", 2: "b", 3: "c"} and len(ledger.history()) == 3


def test_a_batch_that_is_given_again_is_not_added_twice(three: Path):
    """By those who were killed before they were told what became of it."""
    with Ledger(three) as ledger:
        assert ledger.add([new("d"), new("a"), new("d", " Rome")], ORIGIN) == [4, 1, 4]
        assert held(ledger) == {1: "a", 2: "b", 3: "c", 4: "d"}
        assert len(ledger.history()) == 4


def test_an_edit_that_gave_way_comes_back_once_its_place_is_free(three: Path):
    with Ledger(three) as ledger:
        assert ledger.add([new("a", "Oslo", (1, 2))], ORIGIN) == [4]
        assert held(ledger) == {3: "c", 4: "a"}
        told = [(event.kind, event.edit, event.by) for event in ledger.history(3)]
        assert told == [("replaced", 1, 4), ("replaced", 2, 4), ("added", 4, None)]
        with pytest.raises(StoreError, match="prompt of edit 1 is held by edit 4 .* remove that"):
            ledger.restore([1])
        ledger.remove([4])
        ledger.restore([1, 2])
        assert held(ledger) == {1: "a", 2: "b", 3: "c"}


def test_who_was_overtaken_is_told(three: Path):
    with Ledger(three) as one, Ledger(three) as other:
        event = one.at().event
        other.add([new("d")], ORIGIN)
        with pytest.raises(OvertakenError):
            one.add([new("e")], ORIGIN, seen=event)
        assert one.add([new("e")], ORIGIN, seen=one.at().event) == [5]


def test_a_reader_sees_one_state(three: Path):
    """While another writes, and a writer that is not done is not seen."""
    with Ledger(three) as reader, Ledger(three) as writer:
        with writer._database.writing() as connection:
            connection.exec_driver_sql("UPDATE edits SET held = 0")
            assert held(reader) == {1: "a", 2: "b", 3: "c"}
        assert held(reader) == {1: "a", 2: "b", 3: "c"}  # as the events say
        assert reader.at().damaged == (1, 2, 3)  # and the rows do not


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE edits SET arrays = CAST(substr(arrays, 1, 600) || x'00' || substr(arrays, 602) "
        "AS BLOB) WHERE id = 2",
        "UPDATE edits SET arrays = x'0011' WHERE id = 2",
        "UPDATE edits SET target = 'Oslo' WHERE id = 2",
        "UPDATE edits SET prompt = CAST(x'61ff' AS TEXT) WHERE id = 2",
        "UPDATE edits SET note = x'00' WHERE id = 2",
        "UPDATE edits SET time = 'then' WHERE id = 2",
        "UPDATE edits SET checksum = '' WHERE id = 2",
    ],
)
def test_a_damaged_row_is_named_and_the_others_work(three: Path, damage: str):
    connection = sqlite3.connect(three)
    with connection:
        connection.execute(damage)
    connection.close()
    with Ledger(three) as ledger:
        found = dict(ledger.arrays(list(ledger.at().edits)))
        assert isinstance(found[2], Damaged) and "another checksum" in found[2].why
        assert_equal((found[1], found[3]), (kept("a"), kept("c")))
        ledger.remove([2])
        assert ledger.add([new("b")], ORIGIN) == [4]
        assert held(ledger) == {1: "a", 3: "c", 4: "b"}


def test_a_row_that_is_lost_is_named(three: Path):
    connection = sqlite3.connect(three)
    with connection:
        connection.execute("DELETE FROM edits WHERE id = 2")
    connection.close()
    with Ledger(three) as ledger:
        assert held(ledger) == {1: "a", 3: "c"} and ledger.at().damaged == (2,)
        assert ledger.at(2).damaged == (2,) and ledger.at(1).damaged == ()


def test_a_damaged_page_is_named_and_the_others_work(tmp_path: Path):
    """Of the file itself: a page that the arrays of one edit go on in."""
    path = tmp_path / "edits.db"
    with Ledger(path) as ledger:
        for number, prompt in enumerate("abc", start=1):
            edit = kept(prompt)
            many = Factors(*np.full((2, 3000, 5), number, np.float32))
            big = edit._replace(rows=edit.rows | {"layers_1/mlp/up_proj": many})
            assert ledger.add([new(prompt)._replace(kept=big)], ORIGIN) == [number]
    raw = bytearray(path.read_bytes())
    within = raw.find(np.full(1000, 2, np.float32).tobytes())
    page = -(-within // 4096) * 4096  # the next one: it begins with the number of another
    raw[page : page + 4] = (2**31 - 1).to_bytes(4, "big")
    path.write_bytes(raw)
    with Ledger(path) as ledger:
        found = dict(ledger.arrays(list(held(ledger))))
    assert [isinstance(found[number], Damaged) for number in (1, 2, 3)] == [False, True, False]
