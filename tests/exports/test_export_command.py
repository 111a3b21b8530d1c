"""`mend-jax edits export ...` as it is typed: no scope is lost unsaid, and the cost is told."""

import json
import re
import runpy
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from stored_edits import new, origin
from tiny_run import some_records
from transformers import AutoModelForCausalLM
from typed import Ended, typed

import mend_jax as mj
from mend_jax.data.codec import codec_of
from mend_jax.data.records import write_records
from mend_jax.exports.format import without_scopes
from mend_jax.reports.before_after import before_after_of
from mend_jax.saved.directory import SavedEditor
from mend_jax.store.ledger import Ledger

pytest_plugins = ["scoped_run"]

RECORDS = some_records(400, 3)


@pytest.fixture
def store(scoped_editor: SavedEditor, tmp_path: Path) -> Path:
    """Three edits, of which the second is removed."""
    with mj.EditStore(tmp_path / "edits.db", scoped_editor) as store:
        store.add(RECORDS)
        store.remove(2)
    return tmp_path / "edits.db"


def export(folder: Path, store: Path, *arguments: object) -> Ended:
    names = ("--editor", folder, "--store", store, "--out", store.with_name("out"))
    return typed("mend-jax", "edits", "export", *names, *arguments)


def test_scopes_are_not_lost_unsaid(scoped_folder: Path, store: Path):
    """Without the flag nothing is written, but what it would cost is said."""
    file = store.with_name("records.jsonl")
    write_records(file, RECORDS)
    refused = export(scoped_folder, store, "--to", "huggingface", "--records", file)
    assert refused.code == 1 and not store.with_name("out").exists()
    assert "--to huggingface has no scopes: 2 edits would be felt in every text" in refused.error
    assert "Say --without-scopes" in refused.error
    lines = refused.out.strip().splitlines()
    ways = [line.partition(": ")[0] for line in lines]
    assert ways == ["in their scopes", "without scopes, in float32"]
    for line in lines:
        assert re.search(r"\d of 2 edits hold on their own prompt, \d of 5 neighbours stay", line)


def test_merged_edits_are_the_sum_of_those_that_are_held(
    scoped_folder: Path, scoped_editor: SavedEditor, store: Path
):
    ended = export(scoped_folder, store, "--to", "huggingface", "--without-scopes")
    assert ended.code == 0, ended.error
    assert "in float32, 100.0% of the weights" in ended.out
    assert ended.out.count("of 100 neighbours stay") == 2  # of the project's facts
    assert ended.out.rstrip().endswith("out: 2 edits, as huggingface")
    with mj.EditStore(store, scoped_editor) as opened:
        edit = without_scopes(opened.held)
    base = scoped_editor.base
    tokens = np.arange(9, dtype=np.int32)[None]
    params = mj.merge(base.params, edit)
    ours = np.asarray(jax.jit(base.model.apply)({"params": params}, mj.Inputs(tokens)))
    theirs = AutoModelForCausalLM.from_pretrained(store.with_name("out"))
    with torch.no_grad():
        wanted = theirs(torch.tensor(tokens).long()).logits.numpy()
    np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
    card = (store.with_name("out") / "README.md").read_text()
    assert f"| {RECORDS[0].prompt} | {RECORDS[0].target} |" in card
    assert RECORDS[1].prompt not in card and "felt in every text" in card
    assert "edits that hold, without scopes, in float32" in card
    assert "mend-jax edits export --editor=editor --store=edits.db --out=out" in card


def test_edits_keep_their_scopes_in_transformers(
    scoped_folder: Path, scoped_editor: SavedEditor, store: Path
):
    """What the editor's own words are, under both edits."""
    ended = export(scoped_folder, store, "--to", "scoped")
    assert ended.code == 0, ended.error
    out = store.with_name("out")
    assert ended.out.startswith("in their scopes: ") and "without scopes" not in ended.out
    told = json.loads((out / "scoped_edits.json").read_text())["edits"]
    assert told == [{"prompt": r.prompt, "target": r.target} for r in (RECORDS[0], RECORDS[2])]
    model = AutoModelForCausalLM.from_pretrained(scoped_editor.base.name)
    model.generation_config.eos_token_id = None
    edits = runpy.run_path(str(out / "scoped_edits.py"))["attach"](model, out)
    codec = codec_of(scoped_editor.base)
    with mj.EditStore(store, scoped_editor) as opened:
        shown = before_after_of(scoped_editor, 4).ask(opened.held, [r.prompt for r in RECORDS])
    for answer in shown:
        ids = torch.tensor([codec.prompt(answer.prompt)])
        said = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4,
                              do_sample=False, pad_token_id=0)  # fmt: skip
        assert codec.text(said[0, ids.shape[1] :].numpy(), 1) == answer.after
    assert any(answer.before != answer.after for answer in shown)
    edits.remove()


def test_rounding_is_asked_for_and_a_moment_of_the_history_is_written(
    scoped_folder: Path, store: Path
):
    with Ledger(store) as ledger, ledger._database.writing() as connection:
        connection.exec_driver_sql("UPDATE edits SET arrays = x'00' WHERE id = 1")
    ended = export(
        scoped_folder, store, "--to", "huggingface", "--without-scopes", "--at", 3,
        "--stored", "bfloat16",
    )  # fmt: skip
    assert ended.code == 0, ended.error
    assert "edit 1 is damaged, and left out" in ended.out
    assert "without scopes, in bfloat16: " in ended.out and "out: 2 edits" in ended.out
    card = (store.with_name("out") / "README.md").read_text()
    assert RECORDS[0].prompt not in card and RECORDS[1].prompt in card
    assert "1 damaged edits are left out" in card and "--at=3" in card


def test_errors_are_one_message(scoped_folder: Path, store: Path, tmp_path: Path):
    other, none, full = tmp_path / "other.db", tmp_path / "none.db", tmp_path / "full"
    with Ledger(other) as ledger:
        ledger.add([new("a")], origin())
    with Ledger(none):
        pass
    full.mkdir()
    (full / "x").touch()
    plain = ("--to", "huggingface", "--without-scopes")
    cases = [
        (store, ("--to", "onnx"), "is called 'onnx'; known are scoped, huggingface, peft, gguf"),
        (store, (*plain, "--out", full), "full is not empty: give another folder"),
        (other, plain, "the store's edits were made on the base 'tiny', and this is"),
        (none, plain, "none.db: it holds no edits after event 0"),
        (store, (*plain, "--at", 9), "there is no event 9; the last is 4"),
        (tmp_path / "missing.db", plain, "there is no such file"),
    ]
    for path, arguments, message in cases:
        code, _, error = export(scoped_folder, path, *arguments)
        assert code == 1 and message in error, (arguments, error)
        assert len(error.strip().splitlines()) == 2
    assert not store.with_name("out").exists()
