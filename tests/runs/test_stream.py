"""Runs that hold only the tail of their base: the scores of a run that holds all of it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from compare import assert_equal
from tiny_run import Files, Finished, byte_level_bpe, options, some_records

import mend_jax as mj
from mend_jax.commands.evaluate import Evaluate, check, evaluate
from mend_jax.runs import room
from mend_jax.runs.opening import OpeningOptions, open_editor
from mend_jax.runs.options import ExperimentError
from mend_jax.runs.run import Run, run
from mend_jax.runs.streaming import check_stream, parts_of, room_to_train

pytest_plugins = ["finished_run", "scoped_run"]


@pytest.fixture(autouse=True)
def kept_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEND_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "trunk"


def assert_same_scores(a: Run, b: Run) -> None:
    """Metrics, and the trained editor."""
    assert b.results["metrics"]["locality_kl"]["value"] > 1e-4
    assert_same_metrics(a.results["metrics"], b.results["metrics"])
    assert_equal(a.saved.state.stats, b.saved.state.stats)


def assert_same_metrics(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours.keys() == theirs.keys()
    for name, metric in theirs.items():
        for key, value in metric.items():
            np.testing.assert_allclose(ours[name][key], value, 1e-5, 1e-5, err_msg=name)


def save_gpt2(folder: Path) -> Path:
    """A GPT2LMHeadModel with random weights, as transformers saves it, and its tokenizer.json."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    texts = [t for r in some_records(0, 40) for t in (r.prompt, *r.rephrases, f" {r.target}")]
    tokenizer = byte_level_bpe(texts)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64}
    sizes |= {"vocab_size": tokenizer.get_vocab_size(), "initializer_range": 0.3}
    GPT2LMHeadModel(GPT2Config(**sizes)).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_a_llama_scores_as_if_it_were_whole(finished: Finished, tmp_path: Path, kept_in: Path):
    config = dataclasses.replace(finished.config, out=tmp_path / "out", stream=True)
    said: list[str] = []
    made = run(config, said.append)
    assert made is not None
    assert_same_scores(made, finished.run)
    assert made.saved.base.params.keys() == {"embedding", "layers_1", "head"}
    assert any("texts below the edited layers: " in line and str(kept_in) in line for line in said)
    assert sum("tokens through the layers below in" in line for line in said) == 1
    assert made.results["config"]["streamed"]["flops"] > 0
    assert len(list(kept_in.glob("*/*.states"))) == 1
    loaded = mj.load_editor(config.out)  # over the whole base, which it knows again
    assert_equal(loaded.state, made.saved.state)
    for editor, said_of in (("in_context", "needs layers below"), ("ft_kl", "other texts")):
        other = dataclasses.replace(config, out=tmp_path / editor, editor=editor)
        with pytest.raises(ExperimentError, match=f"--stream: .*{said_of}"):
            run(other, lambda message: None)
    assert len(list(kept_in.glob("*/*.states"))) == 1


def test_what_has_no_room_is_streamed_unless_it_cannot_be(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The weights and what is made beside them, of what is free; less a tenth of it."""
    config, base = finished.config, finished.run.saved.base
    needed = room_to_train(config)
    weights, editor = (
        sum(np.asarray(x).nbytes for x in jax.tree.leaves(tree))
        for tree in (base.params, finished.run.saved.state.phi)
    )
    assert needed.weights == weights and 0.7 * 5 * editor < needed.beside <= 5 * editor
    said: list[str] = []
    for share, kept in ((1.12, "all"), (1.1, "tail")):
        free = share * (needed.weights + needed.beside)
        monkeypatch.setattr(room, "free_bytes", lambda device, free=free: free)
        assert parts_of(config, said.append) == kept
        assert len(said) == (kept == "tail")
    assert "only the edited layers and those above are held" in said[0]
    for option in ({"scope": True}, {"mesh": "2x1"}):
        assert parts_of(dataclasses.replace(config, **option), said.append) == "all"

    made = run(dataclasses.replace(config, out=tmp_path / "out"), said.append)
    assert made is not None and "layers_0" not in made.saved.base.params
    assert_same_scores(made, finished.run)
    monkeypatch.setattr(room, "free_bytes", lambda device: 1.0)
    ours = Evaluate(
        editor=str(tmp_path / "out"), records=finished.files.validation, out=tmp_path / "scores"
    )
    evaluate(ours)
    assert json.loads((ours.out / "results.json").read_text())["config"]["stream"]


def test_a_gpt2_scores_as_if_it_were_whole(tiny_files: Files, tmp_path: Path):
    files = tiny_files._replace(model=save_gpt2(tmp_path / "gpt2"))
    sites = r"h_2/mlp/(c_fc|c_proj)"
    runs = [
        run(options(files, tmp_path / str(stream), sites=sites, steps=3, stream=stream), print)
        for stream in (False, True)
    ]
    assert_same_scores(runs[1], runs[0])
    assert "position_embedding" not in runs[1].saved.base.params


@pytest.mark.parametrize(
    "scoped, options",
    [
        (False, {}), (False, {"k": 3, "at_once": "solved"}), (False, {"sequential": 4}),
        (True, {"k": 3}),
    ],
)  # fmt: skip
def test_an_editor_is_scored_as_over_the_whole_base(
    finished: Finished, scoped_folder: Path, tmp_path: Path, kept_in: Path,
    scoped: bool, options: dict[str, Any], capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    editor = scoped_folder if scoped else finished.config.out
    records = finished.files.validation
    for stream in (True, False):
        out = tmp_path / str(stream)
        evaluate(Evaluate(editor=str(editor), records=records, out=out, stream=stream, **options))
    ours, theirs = (
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("True", "False")
    )
    assert_same_metrics(ours["metrics"], theirs["metrics"])
    assert ours.get("curve") == theirs.get("curve")
    assert f"MB in {kept_in}" in capsys.readouterr().out
    saved = open_editor(str(editor), OpeningOptions(), stream=True)
    assert saved.base.params.keys() == {"embedding", "layers_1", "head"}


@pytest.mark.parametrize(
    "option, value",
    [
        ("mesh", "2x1"), ("alone", True), ("elsewhere", 2), ("generate", 4),
        ("protocol", "exact"), ("protocol", "contains"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_a_streamed_evaluation(tmp_path: Path, option: str, value: Any):
    config: Any = {"editor": str(tmp_path), "out": tmp_path / "out", option: value}
    with pytest.raises(ValueError, match=f"--stream: --{option}.* does not go with it"):
        check(Evaluate(stream=True, **config))


@pytest.mark.parametrize(
    "option, value",
    [("mesh", "2x1"), ("distributed", True), ("scope", True), ("trunk_cache", "disk")],
)
def test_what_does_not_go_with_it(tiny_files: Files, tmp_path: Path, option: str, value: Any):
    config = options(tiny_files, tmp_path / "out", stream=True, **{option: value})
    with pytest.raises(ExperimentError, match=f"--stream: --{option.replace('_', '-')} does not"):
        check_stream(config)
    check_stream(dataclasses.replace(config, stream=False))
