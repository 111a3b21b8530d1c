"""`mend-jax edits ...` as it is typed: what is added, told, removed, brought back and checked."""

import json
import re
import sqlite3
from pathlib import Path

import pytest
from stored_edits import new, origin
from tiny_run import Finished, some_records
from typed import Ended, typed

from mend_jax.data.records import Record, write_records
from mend_jax.store.ledger import Ledger

pytest_plugins = ["scoped_run"]

PROMPT = ("--prompt", "Person 24 lives in")


def edits(name: str, store: Path, *arguments: object) -> Ended:
    """The command, which succeeds."""
    ended = typed("mend-jax", "edits", name, *arguments, "--store", store)
    assert ended.code == 0, ended.error
    return ended


def listed(store: Path, *arguments: object) -> list[tuple[int, str, str]]:
    rows = json.loads(edits("list", store, "--json", *arguments).out)
    return [(row["edit"], row["prompt"], row["target"]) for row in rows]


def test_an_edit_is_added_shown_and_checked(scoped_folder: Path, tmp_path: Path):
    """Before and after are the model's own words; where they are not the target, that is said."""
    store, editor = tmp_path / "new" / "edits.db", ("--editor", scoped_folder)
    ask = "Where is person 24? In"
    one = edits("add", store, *editor, *PROMPT, "--target", "Paris", "--rephrase", ask,
                "--subject", "Person 24", "--note", "[bold]why")  # fmt: skip
    lines = [line.strip() for line in one.out.splitlines() if line.strip()]
    assert lines[0] == f"added 1 of 1; {store} holds 1"
    assert lines[1] == "1: Person 24 lives in -> Paris"
    said = {line.split(":")[0]: line for line in lines[2:4]}
    assert set(said) == {"before", "after"}
    asked = lines[lines.index(ask) + 1 :]
    assert asked[0].removeprefix("before:") == asked[1].removeprefix("after: ")  # not in its scope
    assert asked[2] == "warning: the edit does not hold on a rephrase"
    holds = "Paris" in said["after"]
    assert ("does not hold on its own prompt" in one.out) != holds
    checked = edits("check", store, *editor)
    assert f"{int(holds)} of 1 edits hold on their own prompt" in checked.out
    assert "of 100 neighbours stay" in checked.out  # of the project's facts
    shown = edits("show", store, 1).out
    for text in ("1: Person 24 lives in -> Paris", "subject: 'Person 24'", "note: '[bold]why'",
                 "layers_1/mlp/up_proj: ", "event 1: added"):  # fmt: skip
        assert text in shown
    assert float(re.findall(r"norm (\S+)", shown)[0]) > 0
    assert "[bold]why" in edits("list", store).out and "1 edits after event 1" in one_line(store)


def one_line(store: Path) -> str:
    return edits("list", store).out.splitlines()[-1]


def test_records_are_added_in_one_step_and_neighbours_are_asked(
    scoped_folder: Path, tmp_path: Path
):
    store, file = tmp_path / "edits.db", tmp_path / "records.jsonl"
    editor = ("--editor", scoped_folder)
    records = some_records(400, 3)
    write_records(file, [*records, records[0]._replace(target="Quito")])
    ended = typed("edits", "add", *editor, "--store", store, "--records", file)
    assert ended.code == 1 and "added 3 of 4" in ended.out
    assert ended.error.startswith("error: not added: 1 edits, as said above")
    said = f"it contradicts '{records[0].prompt}' -> '{records[0].target}'"
    assert ended.out.rstrip().endswith(f"{records[0].prompt} -> Quito\n  {said}")
    assert listed(store) == [(i + 1, r.prompt, r.target) for i, r in enumerate(records)]
    events = json.loads(edits("history", store, "--json").out)
    assert [(e["event"], e["what"], e["edit"]) for e in events] == [
        (i, "added", i) for i in (1, 2, 3)
    ]
    again = edits("add", store, *editor, "--records", write(file, records))
    assert "added 0 of 3" in again.out and again.out.count("it is held already") == 3
    checked = edits("check", store, *editor, "--records", file)
    hold, asked = map(int, re.findall(r"(\d+) of (\d+) rephrases hold", checked.out)[0])
    wrong = [r for x in records for r in x.rephrases if f"\n{r} -> {x.target}\n" in checked.out]
    assert asked == 6 and hold == 6 - len(wrong)
    stays, n = map(int, re.findall(r"(\d+) of (\d+) neighbours stay", checked.out)[0])
    assert n == len({x.prompt for r in records for x in r.locality} - {r.prompt for r in records})
    assert stays == n - checked.out.count("before:")


def write(file: Path, records: list[Record]) -> Path:
    write_records(file, records)
    return file


def test_a_contradiction_is_refused_or_replaces(scoped_folder: Path, tmp_path: Path):
    store, editor = tmp_path / "edits.db", ("--editor", scoped_folder)
    edits("add", store, *editor, *PROMPT, "--target", "Paris")
    line = ("edits", "add", *editor, "--store", store, *PROMPT, "--target", "Oslo")
    refused = typed("mend-jax", *line)
    assert refused.code == 1 and refused.error.startswith(
        "error: not added: 'Person 24 lives in' -> 'Oslo' contradicts edit 1, 'Person 24 lives in' "
        "-> 'Paris' (--replace lets held edits give way)\n"
    )
    replaced = typed("mend-jax", *line, "--replace")
    assert replaced.code == 0 and "2: Person 24 lives in -> Oslo, in place of 1" in replaced.out
    assert listed(store) == [(2, "Person 24 lives in", "Oslo")]
    assert listed(store, "--at", 1) == [(1, "Person 24 lives in", "Paris")]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Three edits, by nobody who is here."""
    with Ledger(tmp_path / "edits.db") as ledger:
        ledger.add([new("a"), new("b"), new("c")], origin())
    return tmp_path / "edits.db"


def test_edits_are_removed_and_brought_back_without_an_editor(store: Path):
    assert edits("remove", store, 1, 3).out == "removed 1: a -> Rome\nremoved 3: c -> Rome\n"
    assert listed(store) == [(2, "b", "Rome")]
    assert edits("restore", store, 3).out == "restored 3: c -> Rome\n"
    assert [number for number, *_ in listed(store)] == [2, 3]
    table = edits("history", store).out
    words = [line for line in re.findall(r"\w+", table) if line in ("added", "removed", "restored")]
    assert words == ["added"] * 3 + ["removed"] * 2 + ["restored"]
    assert listed(store, "--at", 0) == [] and len(listed(store, "--at", 3)) == 3


def test_a_damaged_row_is_named(scoped_folder: Path, tmp_path: Path):
    store, editor = tmp_path / "edits.db", ("--editor", scoped_folder)
    file = write(tmp_path / "records.jsonl", some_records(400, 2))
    edits("add", store, *editor, "--records", file)
    connection = sqlite3.connect(store)
    with connection:
        connection.execute("UPDATE edits SET target = 'Oslo' WHERE id = 2")
    connection.close()
    ended = typed("mend-jax", "edits", "check", *editor, "--store", store)
    assert ended.code == 1 and "2: damaged, and not held: the row has another check" in ended.out
    assert "of 1 edits hold" in ended.out and "1 rows are damaged" in ended.error
    assert "damaged: the row has another checksum" in edits("show", store, 2).out
    connection = sqlite3.connect(store)
    with connection:
        connection.execute("DELETE FROM edits WHERE id = 2")
    connection.close()
    assert "edit 2: its row is lost" in edits("list", store).error
    assert [row.get("prompt") for row in json.loads(edits("history", store, "--json").out)] == [
        "Person 400 lives in", None
    ]  # fmt: skip


def test_errors_are_one_message(finished: Finished, scoped_folder: Path, store: Path):
    """And nothing is changed, or made."""
    editor, there = ("--editor", scoped_folder), ("--store", store)
    other = ("--store", store.with_name("other.db"))
    nothing = store.with_name("nothing.jsonl")
    write_records(nothing, [some_records(0, 1)[0]._replace(locality=(), rephrases=())])
    made = (*PROMPT, "--target", "Rome")
    cases = [
        (("add", *editor, *there, *made), "the store's edits were made on the base 'tiny', and"),
        (("add", "--editor", finished.config.out, *other, *made), "the editor has no scope"),
        (("add", *editor, *other, *PROMPT), "nothing to add: give --prompt and --target, or"),
        (("add", *editor, *other, *made, "--records", nothing), "give no --prompt and the like"),
        (("add", *editor, *other, "--prompt", "word " * 200, "--target", "Rome"), "is too long"),
        (("add", *editor, *other, *made, "--chat"), "has no chat template: give the prompt as a"),
        (("check", *editor, *there), "the store's edits were made on the base 'tiny'"),
        (("check", *editor, *there, "--records", nothing), "neither rephrases nor locality to ask"),
        (("remove", 1, 9, *there), "there is no edit 9"),
        (("remove", *there), "no edits given"),
        (("restore", 1, *there), "edit 1 is held already"),
        (("show", 9, *there), "there is no edit 9"),
        (("list", "--at", 4, *there), "there is no event 4; the last is 3"),
        (("list", "--store", nothing), "this is no store of edits, nor any database"),
        (("history", "--store", store.with_name("missing.db")), "there is no such file"),
    ]  # fmt: skip
    for arguments, message in cases:
        code, _, error = typed("mend-jax", "edits", *arguments)
        assert code == 1 and error.startswith("error: ") and message in error, (arguments, error)
        assert len(error.strip().splitlines()) == 2
    assert [number for number, *_ in listed(store)] == [1, 2, 3]


def test_help_of_the_group_and_of_its_commands(tmp_path: Path):
    names = (
        "add", "benchmark", "benchmark_scoped", "check", "export", "history", "list", "remove",
        "restore", "show",
    )  # fmt: skip
    for arguments, code in ((("edits",), 0), (("edits", "--help"), 0), (("edits", "ad"), 1)):
        ended = typed("mend-jax", *arguments)
        assert ended.code == code
        assert re.findall(r"^  edits (\w+) ", ended.out, re.MULTILINE) == list(names)
    assert "there is no command 'edits ad'" in ended.error
    assert "usage: mend-jax edits add" in typed("mend-jax", "edits", "add", "--help").out
    said = typed("edits", "add", "--help").out
    assert "usage: python -m experiments.edits add" in said and "--replace" in said
    assert "python -m experiments.edits add --editor" in said


def test_the_benchmark_measures(tmp_path: Path):
    ended = typed("mend-jax", "edits", "benchmark", "--edits", 130, "--rounds", 2, "--model",
                  "smollm2-135m", "--json", tmp_path / "x.json")  # fmt: skip
    assert ended.code == 0, ended.error
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["edits"] == 130 and found["file_bytes"] > 130 * 4 * 6 * 2 * 2000
    assert set(found["seconds"]) == set(found["cpu_seconds"]) == {
        "make_and_write_all", "open", "add_one", "add_one_slowest", "remove_one",
        "remove_one_slowest",
    }  # fmt: skip
