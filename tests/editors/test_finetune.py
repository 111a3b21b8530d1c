"""An encoder becomes a fact checker: trained, written, loaded, refused."""

import json
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import mend_jax as mj
from mend_jax.commands.finetune_fever import Finetune, fact_checker, run
from mend_jax.commands.pretrain import Pretrain
from mend_jax.commands.pretrain import run as pretrain
from mend_jax.training.loop import TrainingError


@pytest.fixture(scope="module")
def small_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bases") / "bert"
    pretrain(Pretrain(family="bert", out=out, facts=2, steps=2, naming=2, vocabulary=600))
    return out


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Claims whose first word says whether they are true; some say neither, one is long, and one
    stands in both files."""
    folder = tmp_path_factory.mktemp("claims")
    labels = {"Indeed": "SUPPORTS", "Never": "REFUTES", "Perhaps": "NOT ENOUGH INFO"}
    found = {}
    for name, numbers in (("train", range(40)), ("validation", range(40, 60))):
        rows = [
            {"id": n, "claim": f"{word} the capital of France is number {n}.", "label": label}
            for n in numbers
            for word, label in labels.items()
        ]
        rows[0]["claim"] = f"Indeed {name} " + "the capital " * 60
        known = "Never the capital of France is number 1."
        rows.append({"id": 99, "claim": known, "label": "REFUTES"})
        found[name] = folder / f"{name}.json"
        found[name].write_text(json.dumps(rows))
    return found


@pytest.mark.filterwarnings("ignore:.*left out")
def test_a_fact_checker_learns_and_is_loaded_again(
    small_bert: Path, files: dict[str, Path], tmp_path: Path, capsys: Any
):
    out = tmp_path / "checker"
    options = dict(steps=60, batch=16, learning_rate=2e-3)
    result = run(Finetune(model=str(small_bert), out=out, **files, **options))
    said = capsys.readouterr().out
    assert "1 claims to score on are among those to learn from, and left out" in said
    assert "validation: 39 claims; left out: 1 longer than 64 tokens" in said
    assert result["validation"] == {"accuracy": 1.0, "n": 39}
    base = mj.load(str(out))
    assert base.model.kind == "classifier" and base.config.num_labels == 1
    codec = mj.codec_of(base)
    for word, verdict in (("Indeed", "SUPPORTS"), ("Never", "REFUTES")):
        pair = codec.pair(f"{word} the capital of France is number 99.", verdict)
        inputs = mj.Inputs(pair.tokens[None], mask=np.ones((1, len(pair.tokens)), bool))
        logits = mj.sequence_logits(base.model)(base.params, mj.Pair(inputs, None))
        assert codec.text(np.argmax(np.asarray(logits[0]), -1)) == verdict


def test_the_encoder_stays_and_the_head_is_fresh(small_bert: Path):
    base = mj.load(str(small_bert))
    checker = fact_checker(base, seed=3)
    assert checker.params["block_0"] is base.params["block_0"]
    fresh = checker.params["head"]["classifier"]["kernel"]
    assert fresh.shape == (128, 1)
    assert np.any(fresh != fact_checker(base, seed=4).params["head"]["classifier"]["kernel"])


@pytest.mark.filterwarnings("ignore:.*left out")
def test_what_is_refused(small_bert: Path, files: dict[str, Path], tmp_path: Path, tiny: Any):
    with pytest.raises(ValueError, match="not empty"):
        run(Finetune(model=str(small_bert), out=small_bert, **files))
    failing = mock.patch(
        "mend_jax.commands.finetune_fever.pretrain", side_effect=TrainingError("not finite")
    )
    again = Finetune(model=str(small_bert), out=tmp_path / "nan", resume=True, **files)
    for _ in range(2):
        with failing, pytest.raises(TrainingError):
            run(again)
    assert [path.name for path in (tmp_path / "nan").iterdir()] == ["run.json"]
    (tmp_path / "nan" / "finetuning.json").touch()
    assert run(again) is None
    with pytest.raises(ValueError, match="every claim is longer"):
        run(Finetune(model=str(small_bert), out=tmp_path / "a", longest=2, **files))
    causal = mj.Base(tiny.model, tiny.params, None, None, "a llama", None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'a llama' is a 'causal' model: give a BERT"):
        fact_checker(causal, 0)
