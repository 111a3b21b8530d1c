"""Trains a small base of any family on the project's facts, to have knowledge to edit offline.

    mend-jax pretrain --family t5 --out runs/t5

Writes a Hugging Face folder (config.json, model.safetensors, tokenizer.json) that `mj.load` and the
`experiments.train_*` commands take, and pretraining.json: exact match on the facts in a phrasing
that was trained on, and in two that no training text contains. BERT learns to verify claims: first
the facts, then the verdicts.
"""

import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np

from mend_jax.commands.command import Command
from mend_jax.data.codec import codec_of
from mend_jax.data.encoding import Tokens
from mend_jax.data.sources.common_words import common_words
from mend_jax.data.sources.fact_questions import Questions
from mend_jax.data.sources.facts import Relation, relations_for
from mend_jax.data.sources.pararel import pararel_relations
from mend_jax.files import write_text
from mend_jax.models.registry import Base
from mend_jax.option_checks import check_options
from mend_jax.option_types import Batch, InputFolder, OutFolder, Rate, Seed, Steps, Times, between
from mend_jax.runs.out import Out, begin, taken
from mend_jax.runs.pretraining import Course, Epoch, exact_match, pretrain
from mend_jax.runs.small_bases import TRAINING, Family, Training, fresh, fresh_base, naming
from mend_jax.runs.splits import KNOWS_FACTS
from mend_jax.weights.export import write_folder


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Options of pretraining; the defaults are meant for 15 minutes on two CPU cores."""

    family: Family
    """Model family."""
    out: OutFolder
    """Folder for the base; must be empty or absent."""
    pararel: InputFolder | None = None
    """Folder of ParaRel's data, to learn up to 1,000 of its facts as well."""
    facts: Times = 0
    """Learn only so many facts of each relation (0: all)."""
    phrasings: Times = 18
    """Learn only so many ways to put each of the project's relations (0: all, about 30)."""
    steps: Steps | None = None
    """Training steps; by default the family's own (3,000 to 4,500)."""
    naming: Times | None = None
    """Of BERT: steps before these, to learn the facts by; by default 3,500 (0: none)."""
    batch: Batch = 64
    """Questions a step."""
    learning_rate: Rate | None = None
    """Peak learning rate (warm-up, then cosine decay); by default the family's own."""
    vocabulary: Annotated[int, between(400, 1_000_000)] = 6000
    """Most tokens of the tokenizer that is trained."""
    seed: Seed = 0
    """Seeds everything that is random."""
    resume: bool = False
    """Begin anew what was stopped in --out; a finished base is left as it is."""


def knowledge(config: Pretrain) -> tuple[Relation, ...]:
    """What is to be learned."""
    found = relations_for("train", config.phrasings)
    if config.pararel is not None:
        known = {subject for relation in found for subject, _ in relation.facts}
        found += pararel_relations(config.pararel, 1000, known, config.seed)
    if config.facts:
        found = tuple(r._replace(facts=r.facts[: config.facts]) for r in found)
    return found


def run(config: Pretrain) -> dict[str, Any] | None:
    """Trains, scores, writes; returns the content of pretraining.json, or None if that was there.

    Raises:
      OptionError: an option whose value is not allowed.
      ValueError: the folder is not empty, or in use; --naming where it does nothing.
      TrainingError: the loss or its gradient was not finite for long, or at the end.
    """
    check_options(config)
    if config.naming is not None and config.family != "bert":
        raise ValueError(f"--naming is for BERT: {config.family} answers questions from the start")
    options = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()}
    out = Out(config.out, options, config.resume, KNOWS_FACTS)
    with taken(out) as state:
        return None if state == "finished" else _made(config, out)


def _made(config: Pretrain, out: Out) -> dict[str, Any]:
    """The base, in a folder that is free or holds half of it."""
    chosen = {k: getattr(config, k) for k in ("steps", "naming", "learning_rate")}
    training = TRAINING[config.family]._replace(
        **{k: v for k, v in chosen.items() if v is not None}
    )
    known = knowledge(config)
    base, shape = fresh_base(
        config.family, known, config.vocabulary, config.seed, str(config.out)
    )
    asked = Questions(known, base.model.kind == "classifier", common_words())
    encode = codec_of(base).pair
    stop = "\n" if base.model.kind == "causal" else ""  # others end their answers anyway

    def draw(rng: np.random.Generator) -> list[Tokens]:
        lesson = asked.lesson(random.Random(int(rng.integers(2**32))))
        return [encode(prompt, answer + stop) for prompt, answer in lesson]

    facts = sum(len(relation.facts) for relation in known)
    size = sum(x.size for x in jax.tree.leaves(base.params))
    print(f"{config.family}: {size:,} parameters, {facts:,} facts")

    def report(step: int, loss: float, seconds: float) -> None:
        print(f"step {step:>6}  loss {loss:.4f}  {seconds:.0f} s", flush=True)

    begin(out)
    began = time.perf_counter()
    params = _taught(config, base, asked, draw, training, report)
    seconds = time.perf_counter() - began
    rng = random.Random(f"questions {config.seed}")
    scores = {}
    for name, pairs in (("trained", asked.every(rng)), ("unseen", asked.unseen(rng))):
        right = exact_match(base.model, params, [encode(*pair) for pair in pairs])
        scores[name] = {"exact_match": float(np.mean(right)), "n": len(pairs)}
        print(f"{name} phrasings: {np.mean(right):.3f} of {len(pairs):,} answered right")
    write_folder(
        config.out, shape, params, base.family.expected_weights(base.config), base.tokenizer
    )
    result = {
        "family": config.family,
        "parameters": size,
        "facts": facts,
        **scores,
        "seconds": round(seconds, 1),
        "config": {k: v for k, v in asdict(config).items() if k not in ("out", "resume")}
        | {"pararel": config.pararel is not None}
        | training._asdict(),
    }
    write_text(config.out / KNOWS_FACTS, json.dumps(result, indent=1) + "\n")
    return result


def _taught(
    config: Pretrain,
    base: Base,
    asked: Questions,
    draw: Epoch,
    training: Training,
    report: Callable[[int, float, float], None],
) -> Any:
    """The trained parameters."""
    course = Course(
        training.steps, training.learning_rate, training.warm_up, config.batch, config.seed
    )
    params = base.params
    if training.naming:
        namer, draw_names = naming(base, asked._replace(verify=False))
        print("first the facts: the words of the object, at the first token of a question")
        before = course._replace(steps=training.naming)
        named = pretrain(namer, fresh(namer, config.seed), draw_names, before, report)
        params = {**params, **{k: v for k, v in named.items() if k != "head"}}
        print("now the verdicts")
    return pretrain(base.model, params, draw, course, report)


COMMAND = Command(Pretrain, run, __doc__)
