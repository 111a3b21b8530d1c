"""A base made from nothing, by its command, and the flagship run on it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
import pytest
from tiny_run import ROOT

import mend_jax as mj
from experiments.train_bert_fever import BertFever
from experiments.train_t5xxl import T5XXL
from mend_jax.commands.pretrain import Pretrain, knowledge, run
from mend_jax.data.encoding import Tokens
from mend_jax.data.records import write_records
from mend_jax.data.sources.common_words import common_words
from mend_jax.data.sources.fact_questions import Questions
from mend_jax.data.sources.facts import relations
from mend_jax.data.sources.registry import read_records
from mend_jax.runs import run as experiment
from mend_jax.runs.options import ExperimentError
from mend_jax.runs.pretraining import Course, pretrain
from mend_jax.runs.small_bases import fresh_base, naming
from mend_jax.training.loop import TrainingError
from mend_jax.training.stopping import Stopped

ROWS = Path(__file__).with_name("zsre_rows.json")
ZSRE = ROOT.parent / "shared" / "data" / "zsre"
FEW: dict[str, Any] = dict(
    dev=6, steps=3, rank=8, batch=4, max_train=20, max_validation=8, evaluate_every=3
)


@contextmanager
def optimised() -> Iterator[None]:
    """Where running takes longer than compiling, unlike in the other tests."""
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="module")
def small_t5(tmp_path_factory: Any) -> Path:
    """A T5 that knows three facts of each relation."""
    out = tmp_path_factory.mktemp("bases") / "t5"
    options = dict(facts=3, steps=240, batch=32, vocabulary=700, learning_rate=4e-3)
    with optimised():
        result = run(Pretrain(family="t5", out=out, **options))
    assert result["facts"] == 63
    assert result["trained"]["exact_match"] >= 0.9, result
    return out


def test_the_folder_is_a_base(small_t5: Path):
    """What was trained is what is loaded, tokenizer and all."""
    base = mj.load(str(small_t5))
    codec = mj.codec_of(base)
    ids = np.asarray([codec.prompt("The capital of Albania is")], np.int32)
    said = mj.generate(base.model, base.params, ids, np.asarray([ids.shape[1]]), 6)
    assert codec.text(np.asarray(said)[0]) == "Tirana"


def test_pretraining_refuses_a_folder_in_use(small_t5: Path):
    with pytest.raises(ValueError, match="not empty: give another --out, or --resume to leave"):
        run(Pretrain(family="t5", out=small_t5))
    with pytest.raises(ValueError, match="started with other options: --facts was 3, is 0"):
        run(Pretrain(family="t5", out=small_t5, resume=True))


def lesson(rng: np.random.Generator) -> list[Tokens]:
    whole = rng.integers(61, size=(8, 6)).astype(np.int32)
    return [Tokens(row[:-1], np.array([3, 4], np.int32), row[4:]) for row in whole]


@pytest.mark.parametrize(
    ("rate", "weight", "steps", "stopped"),
    [(np.nan, 1.0, 1, 0), (1e38, 1.0, 100, 40), (1e-3, np.nan, 3, 3), (1e-3, np.inf, 41, 20)],
)
def test_what_is_not_finite_ends_pretraining(
    tiny: Any, rate: float, weight: float, steps: int, stopped: int
):
    """As it ends the training of editors; also where the last step alone broke the base."""
    params = jax.tree.map(lambda x: x * weight, tiny.params)
    what = f"stopped at step {stopped}: " if stopped else "the trained parameters are"
    with pytest.raises(TrainingError, match=f"{what}.*not finite.*lower the learning"):
        pretrain(tiny.model, params, lesson, Course(steps, rate, warm_up=1, batch=4))


def test_pretraining_that_fails_or_is_stopped_writes_no_base(tmp_path: Path):
    """And can be given again, until there is one, and after that."""
    config = Pretrain(family="gpt2", out=tmp_path, facts=1, vocabulary=600, resume=True)
    here = "mend_jax.commands.pretrain"
    for failure in (TrainingError("not finite"), Stopped(15)):
        with mock.patch(f"{here}.pretrain", side_effect=failure), pytest.raises(type(failure)):
            run(config)
        assert [path.name for path in tmp_path.iterdir()] == ["run.json"]

    def untrained(model: Any, params: Any, *_: object) -> Any:
        return params

    with mock.patch(f"{here}.pretrain", untrained):
        with mock.patch(f"{here}.exact_match", return_value=np.ones(3)):
            assert run(config)["facts"] == 21
    assert run(config) is None
    assert {path.name for path in tmp_path.iterdir()} == {
        "run.json", "config.json", "model.safetensors", "tokenizer.json", "pretraining.json"
    }  # fmt: skip


def test_rewordings_are_learned_if_asked_for_and_held_out_phrasings_never(tmp_path: Path):
    few, every = (
        knowledge(Pretrain(family="t5", out=tmp_path / "t5", **more))
        for more in ({}, {"phrasings": 0})
    )
    for mine, whole, known in zip(few, every, relations(), strict=True):
        assert mine.phrasings == known.phrasings
        assert whole.phrasings == (*known.phrasings, *known.rewordings)
        assert not set(known.held_out) & set(whole.phrasings)


def test_naming_is_for_classifiers(tmp_path: Path):
    with pytest.raises(ValueError, match="--naming is for BERT"):
        run(Pretrain(family="t5", out=tmp_path / "t5", naming=5))


def test_what_bert_learns_first_is_the_words_of_the_object():
    """All at the first token, in any order; in a model with one block less and the same words."""
    config = Pretrain(family="bert", out=Path("unused"), facts=1, vocabulary=600)
    known = knowledge(config)
    base, _ = fresh_base("bert", known, config.vocabulary, config.seed, "verifier")
    namer, draw = naming(base, Questions(known, False, common_words()))
    assert namer.kind == "masked" and namer.stages[-2] == base.model.stages[-3]
    lesson = draw(np.random.default_rng(0))
    spoken = {base.tokenizer.decode(pair.labels.tolist()).replace(" ##", "") for pair in lesson}
    assert len(lesson) == len(known) and not any(np.any(pair.read) for pair in lesson)
    assert {r.facts[0][1].casefold() for r in known} & {text.casefold() for text in spoken}


def scored_or_unwritable(results: dict[str, Any]) -> int:
    """Held-out records: the tokenizer of a base of a few facts has not every letter."""
    counts = results["config"]["left_out"].get("not in the tokenizer, validation")
    return results["n"] + (counts["records"] if counts else 0)


def test_the_flagship_runs_on_it(small_t5: Path, tmp_path: Path):
    options = T5XXL(model=str(small_t5), out=tmp_path / "out", dtype="float32", **FEW)
    finished = experiment.run(options)
    assert finished.results["dataset"] == "facts"
    assert scored_or_unwritable(finished.results) == 8
    assert len(finished.saved.sites) == 8
    again = mj.load_editor(tmp_path / "out")
    assert again.sites == finished.saved.sites


@pytest.mark.parametrize("where", ["own rows", "shared rows"])
def test_the_flagship_runs_on_zsre(small_t5: Path, tmp_path: Path, where: str):
    train, validation = ROWS, tmp_path / "validation.jsonl"
    if where == "shared rows":
        train, validation = ZSRE / "train.json", ZSRE / "validation.json"
        if not train.exists():
            pytest.skip("the shared data is not here")
    else:
        held_out = [r._replace(subject="other " + r.subject) for r in read_records(ROWS)]
        write_records(validation, held_out)
    options = T5XXL(
        model=str(small_t5), out=tmp_path / "out", dtype="float32", train=train,
        validation=validation, **FEW | {"dev": 2, "longest": 64},
    )  # fmt: skip
    results = experiment.run(options).results
    assert scored_or_unwritable(results) == 8
    assert set(results["metrics"]) >= {"edit_success", "drawdown"}


def test_a_base_that_learned_no_facts_needs_records(tmp_path: Path):
    for model in ("google/t5-xxl-ssm-nq", str(tmp_path)):
        with pytest.raises(ExperimentError, match="give --train FILE and --validation FILE"):
            experiment.run(T5XXL(model=model, out=tmp_path / "out"))
    with pytest.raises(ExperimentError, match="--validation FILE, to score"):
        experiment.run(T5XXL(train=ROWS, out=tmp_path / "out"))


def test_a_classifier_is_edited_on_claims(tmp_path: Path):
    options = dict(facts=2, steps=4, naming=3, batch=16, vocabulary=600)
    run(Pretrain(family="bert", out=tmp_path / "bert", **options))
    config = BertFever(model=str(tmp_path / "bert"), out=tmp_path / "out", **FEW)
    finished = experiment.run(config)
    assert finished.results["dataset"] == "claims"
    pretraining = json.loads((tmp_path / "bert" / "pretraining.json").read_text())
    assert pretraining["trained"]["n"] == 42
