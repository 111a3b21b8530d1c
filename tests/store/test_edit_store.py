"""A store with its editor: edits act as they were made, do not contradict, and are gone when they
are removed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from compare import assert_close, assert_equal
from stored_edits import with_threshold
from tiny_run import CITIES, Finished, some_records
from tokenizers import Tokenizer, models, pre_tokenizers

import mend_jax as mj
from mend_jax.objectives import outputs_of
from mend_jax.reports.before_after import edit_example
from mend_jax.saved.directory import SavedEditor
from mend_jax.store.database import StoreError
from mend_jax.store.store import Added

pytest_plugins = ["scoped_run"]

RECORDS = some_records(300, 4)
Answers = Callable[[Any], list[np.ndarray]]


@pytest.fixture(scope="module")
def answers(scoped_editor: SavedEditor) -> Answers:
    """answers(held) -> the logits at the end of each record's prompt: always the same program."""
    saved, logits = scoped_editor, outputs_of(scoped_editor.base.model).logits
    asked = [edit_example(saved.base, r.prompt, r.target).edit for r in RECORDS]

    @jax.jit
    def run(held: Any, params: Any, pair: Any) -> Any:
        return saved.editor.apply(saved.state, logits, held)(params, pair)[0, 0]

    return lambda held: [np.asarray(run(held, saved.base.params, pair)) for pair in asked]


@pytest.fixture
def store(scoped_editor: SavedEditor, tmp_path: Path) -> Any:
    with mj.EditStore(tmp_path / "edits.db", scoped_editor) as store:
        yield store


def held(store: mj.EditStore) -> dict[int, tuple[str, str]]:
    edits = store.ledger.at().edits
    assert set(edits) == set(store.numbers.tolist()) - {0}
    return {number: (edit.words.prompt, edit.words.target) for number, edit in edits.items()}


def test_an_edit_acts_as_it_was_made_and_is_gone_when_removed(
    store: mj.EditStore, scoped_editor: SavedEditor, answers: Answers
):
    none = answers(store.held)
    assert [x.number for x in store.add(RECORDS)] == [1, 2, 3, 4]
    every = answers(store.held)
    make, state = jax.jit(scoped_editor.editor.edit), scoped_editor.state
    for i, record in enumerate(RECORDS):
        example = edit_example(scoped_editor.base, record.prompt, record.target)
        alone = make(state, scoped_editor.base.params, example)
        assert_close(every[i], answers(alone)[i], 1e-4)
        assert np.max(np.abs(every[i] - none[i])) > 1e-3 * np.max(np.abs(none[i]))
    store.remove(2, 4)
    some = answers(store.held)
    assert_equal(some, [every[0], none[1], every[2], none[3]])
    store.restore(4)
    assert_equal(answers(store.held), [every[0], none[1], every[2], every[3]])
    assert_equal(answers(store.at(4).slots), every)
    assert_equal(answers(store.at(0).slots), none)
    assert store.event == 7
    with mj.EditStore(store.ledger.path, scoped_editor) as again:
        assert_equal(answers(again.held), [every[0], none[1], every[2], every[3]])


def test_an_edit_that_contradicts_is_refused_or_replaces(store: mj.EditStore):
    record, other = RECORDS[:2]
    assert store.add([record]) == [Added(1)]
    said = f"'{record.prompt}' -> 'Quito' contradicts edit 1, '{record.prompt}' -> '{CITIES[4]}'"
    quito = record._replace(target="Quito")
    assert store.add([quito, other]) == [Added(None, said, (1,)), Added(2)]
    assert store.add([record, other]) == [Added(i, "it is held already") for i in (1, 2)]
    assert store.add([quito, record], replace=True) == [
        Added(3, "", (1,)), Added(None, f"it contradicts {record.prompt!r} -> 'Quito'"),
    ]  # fmt: skip
    assert held(store) == {2: (other.prompt, other.target), 3: (record.prompt, "Quito")}
    assert store.add([quito, quito], replace=True) == [Added(3, "it is held already")] * 2
    twice = RECORDS[2]
    assert store.add([twice, twice]) == [Added(4), Added(4, "it is held already")]


def test_what_is_in_the_scope_of_an_edit_contradicts_it(
    scoped_editor: SavedEditor, tmp_path: Path
):
    """Here, all that there is; another prompt with the same target does not contradict."""
    with mj.EditStore(tmp_path / "edits.db", with_threshold(scoped_editor, -2.0)) as store:
        a, b, c = RECORDS[0], RECORDS[1], RECORDS[2]._replace(target=RECORDS[0].target)
        found = store.add([a, b, c])
        assert found == [Added(1), Added(None, f"it contradicts {a.prompt!r} -> {a.target!r}"),
                         Added(2)]  # fmt: skip
        (refused,) = store.add([b])
        assert refused.number is None and refused.against == (1, 2)
        assert f"contradicts edit 1, {a.prompt!r}" in refused.why and "edit 2" in refused.why
        assert store.add([b], replace=True) == [Added(3, "", (1, 2))]
        assert list(held(store)) == [3]
        kinds = [(event.kind, event.edit, event.by) for event in store.ledger.history(2)]
        assert kinds == [("replaced", 1, 3), ("replaced", 2, 3), ("added", 3, None)]


def test_a_damaged_edit_gives_way_to_the_same_anew(
    store: mj.EditStore, scoped_editor: SavedEditor, answers: Answers
):
    store.add(RECORDS)
    wanted = answers(store.held)
    with store.ledger._database.writing() as connection:
        connection.exec_driver_sql("UPDATE edits SET arrays = x'00' WHERE id = 2")
    with mj.EditStore(store.ledger.path, scoped_editor) as again:
        assert list(again.damaged) == [2]
        assert again.add(RECORDS[1:3]) == [Added(5, "", (2,)), Added(3, "it is held already")]
        assert again.damaged == {} and sorted(held(again)) == [1, 3, 4, 5]
        assert_close(answers(again.held), wanted, 1e-4)


def test_who_adds_at_the_same_time_is_not_passed_over(
    store: mj.EditStore, scoped_editor: SavedEditor
):
    """Another process adds between the look and the change: it is looked at again."""
    record = RECORDS[0]
    with mj.EditStore(store.ledger.path, scoped_editor) as other:
        judged, looks = store._judged, []

        def slow(*args: Any) -> Any:
            found = judged(*args)
            if not looks:
                other.add([record._replace(target="Quito")])
            looks.append(found)
            return found

        store._judged = slow  # type: ignore[method-assign]
        (refused, added) = store.add([record, RECORDS[1]])
        assert len(looks) == 2 and refused.against == (1,) and added == Added(2)
        assert list(held(store)) == [1, 2] and list(other.numbers[:2]) == [1, 0]
        other.refresh()
        assert list(held(other)) == [1, 2]


def test_what_cannot_be_made_is_refused_and_the_rest_is_added(
    scoped_editor: SavedEditor, tmp_path: Path
):
    words = {word: i for i, word in enumerate(["?", "Person", "lives", "in", "Rome", "7"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    base = scoped_editor.base._replace(tokenizer=tokenizer)
    with mj.EditStore(tmp_path / "edits.db", scoped_editor._replace(base=base)) as store:
        with pytest.warns(UserWarning, match="no tokens for 'Otl' in the prompt"):
            found = store.add(
                [
                    mj.Record("Person 7 lives in", "Oslo"),
                    mj.Record("北", "Rome"),
                    mj.Record("Person " * 200, "Rome"),
                    mj.Record("Person Ottl lives in", "Rome"),
                    mj.Record("Person 7 lives in", "Rome"),
                ],
                note="of the test",
            )
        refused, added = found[:3], found[3:]
        assert [x.number for x in refused] == [None] * 3
        for x, said in zip(
            refused, ("no tokens for 'Oslo' in the target", "nothing is left of", "is too long"),
            strict=True,
        ):  # fmt: skip
            assert said in x.why
        assert added == [Added(1), Added(2)]
        assert {edit.words.note for edit in store.ledger.edits().values()} == {"of the test"}
        assert store.add([]) == []


def test_an_edit_that_is_no_number_or_nothing_is_refused(
    scoped_editor: SavedEditor, tmp_path: Path
):
    for factor, said in ((0.0, "exactly zero"), (np.nan, "not finite")):
        phi = jax.tree.map(lambda x, f=factor: x * f, scoped_editor.state.phi.editor)
        state = scoped_editor.state
        broken = state._replace(phi=state.phi._replace(editor=phi))
        saved = scoped_editor._replace(state=broken)
        with mj.EditStore(tmp_path / f"{factor}.db", saved) as store:
            (found,) = store.add(RECORDS[:1])
            assert found.number is None and said in found.why
            assert held(store) == {}


def test_a_store_is_opened_by_the_editor_that_made_its_edits(
    store: mj.EditStore, scoped_editor: SavedEditor, finished: Finished
):
    store.add(RECORDS[:1])
    path = store.ledger.path
    other = with_threshold(scoped_editor, 0.5)
    with pytest.raises(StoreError, match="by another editor than .* they differ in what was trai"):
        mj.EditStore(path, other)
    kernels = jax.tree.map(lambda x: x * 2 + 0.1, scoped_editor.base.params)
    base = scoped_editor.base._replace(params=kernels, name="twice")
    with pytest.raises(StoreError, match="made on the base .* and this is 'twice': the kernel at"):
        mj.EditStore(path, scoped_editor._replace(base=base))
    with pytest.raises(StoreError, match="the editor has no scope"):
        mj.EditStore(path, finished.run.saved)
    with pytest.raises(StoreError, match="no store of edits here"):
        mj.EditStore(path.with_name("other.db"), scoped_editor, create=False)
    assert not path.with_name("other.db").exists()
