"""Fine-tunes an encoder as a fact checker: claims in, SUPPORTS or REFUTES out.

    mend-jax finetune_fever --train FILE --validation FILE --out runs/minilm_fever
    python -m experiments.train_bert_fever --model runs/minilm_fever --train FILE --validation FILE

The paper edits BERT-base fine-tuned on FEVER; the default here is MiniLM, 23 million parameters,
from the Python package index. Files are FEVER's lists of claims with labels. Writes a Hugging Face
folder that `mj.load` takes, and finetuning.json: the share of verdicts that are right.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mend_jax.commands.command import Command
from mend_jax.data.codec import codec_of
from mend_jax.data.encoding import Tokens
from mend_jax.data.records import Locality
from mend_jax.data.sources.registry import read_answers
from mend_jax.data.writable import UnwritableError
from mend_jax.files import write_text
from mend_jax.models.registry import FAMILIES, Base, load
from mend_jax.option_checks import check_options
from mend_jax.option_types import Batch, Input, Model, OutFolder, Rate, Seed, Steps
from mend_jax.runs.option_groups import Length
from mend_jax.runs.out import Out, begin, taken
from mend_jax.runs.pretraining import Course, exact_match, pretrain
from mend_jax.weights.export import write_folder


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """Options of fine-tuning; the defaults are meant for 30 minutes on two CPU cores."""

    train: Input
    """Claims to learn from."""
    validation: Input
    """Claims to score on."""
    out: OutFolder
    """Folder for the fact checker; must be empty or absent."""
    model: Model = "all-minilm-l6-v2"
    """A BERT of any kind: all-minilm-l6-v2, a Hugging Face folder or a hub id."""
    steps: Steps = 1200
    """Training steps."""
    batch: Batch = 32
    """Claims a step."""
    learning_rate: Rate = 1e-4
    """Peak learning rate (warm-up, then cosine decay)."""
    longest: Length = 64
    """Longest claim in tokens; longer ones are left out and counted."""
    seed: Seed = 0
    """Seeds everything that is random."""
    resume: bool = False
    """Begin anew what was stopped in --out; a finished fact checker is left as it is."""


def fact_checker(base: Base, seed: int) -> Base:
    """The encoder of the base under a fresh head with one logit, that of a claim's being true.

    Raises:
      ValueError: the base is no BERT.
    """
    if base.family != FAMILIES["bert"]:
        raise ValueError(f"{base.name!r} is a {base.model.kind!r} model: give a BERT as --model")
    dimensions = replace(
        base.config, task="classification", num_labels=1, labels=("REFUTES", "SUPPORTS")
    )
    model = base.family.model(dimensions)
    head = model.init(jax.random.key(seed), model.example_inputs())["params"]["head"]
    return base._replace(
        model=model, params={**base.params, "head": head}, config=dimensions
    )


_OF_THE_HEAD = ("task", "labels", "num_labels")


def hf_config(dimensions: Any) -> Mapping[str, Any]:
    """config.json of the fact checker."""
    values = {
        k: v for k, v in asdict(dimensions).items() if v is not None and k not in _OF_THE_HEAD
    }
    labels = {"id2label": {"0": "SUPPORTS"}, "label2id": {"SUPPORTS": 0}}
    return {
        "model_type": "bert",
        "architectures": ["BertForSequenceClassification"],
        **values,
        **labels,
    }


LAST = "finetuning.json"


def _tokens(base: Base, pairs: Sequence[Locality], longest: int) -> list[Tokens]:
    """The claims of at most `longest` tokens that the tokenizer can write."""
    encode = codec_of(base).pair
    found = []
    for pair in pairs:
        try:
            found.append(encode(pair.prompt, pair.answer))
        except UnwritableError:
            continue
    return [pair for pair in found if len(pair.tokens) <= longest]


def run(config: Finetune) -> dict[str, Any] | None:
    """Trains, scores, writes; returns the content of finetuning.json, or None if that was there.

    Raises:
      OptionError: an option whose value is not allowed.
      ValueError: the folder is not empty, or in use; the base is no BERT; no claim is short enough.
      RecordError: a file that does not hold claims with verdicts.
      TrainingError: the loss or its gradient was not finite for long, or at the end.
    """
    check_options(config)
    options = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()}
    out = Out(config.out, options, config.resume, LAST)
    with taken(out) as state:
        return None if state == "finished" else _made(config, out)


def _made(config: Finetune, out: Out) -> dict[str, Any]:
    """The fact checker, in a folder that is free or holds half of it."""
    claims = {name: read_answers(getattr(config, name)) for name in ("train", "validation")}
    learned = {pair.prompt.casefold() for pair in claims["train"]}
    new = [pair for pair in claims["validation"] if pair.prompt.casefold() not in learned]
    known = len(claims["validation"]) - len(new)
    print(f"{known} claims to score on are among those to learn from, and left out")
    claims["validation"] = new
    base = fact_checker(load(config.model), config.seed)
    encoded = {name: _tokens(base, pairs, config.longest) for name, pairs in claims.items()}
    for name, kept in encoded.items():
        left_out = len(claims[name]) - len(kept)
        lossy = sum(bool(pair.lost) for pair in kept)
        print(
            f"{name}: {len(kept):,} claims; left out: {left_out} longer than {config.longest} "
            f"tokens, or of nothing that the tokenizer knows; {lossy} have characters it lacks"
        )
        if not kept:
            raise ValueError(f"{getattr(config, name)}: every claim is longer: raise --longest")
    begin(out)
    began = time.perf_counter()

    def report(step: int, loss: float, seconds: float) -> None:
        print(f"step {step:>6}  loss {loss:.4f}  {seconds:.0f} s", flush=True)

    course = Course(config.steps, config.learning_rate, batch=config.batch, seed=config.seed)
    params = pretrain(base.model, base.params, lambda rng: encoded["train"], course, report)
    seconds = time.perf_counter() - began
    scores = {}
    for name, pairs in encoded.items():
        right = exact_match(base.model, params, pairs)
        scores[name] = {"accuracy": float(np.mean(right)), "n": len(pairs)}
        print(f"{name}: {np.mean(right):.3f} of {len(pairs):,} verdicts are right")
    expected = base.family.expected_weights(base.config)
    write_folder(config.out, hf_config(base.config), params, expected, base.tokenizer)
    options = {k: v for k, v in out.options.items() if k != "resume"}
    result = {**scores, "seconds": round(seconds, 1), "config": options}
    write_text(config.out / LAST, json.dumps(result, indent=1) + "\n")
    return result


COMMAND = Command(Finetune, run, __doc__)
