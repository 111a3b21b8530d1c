"""FEVER (Thorne et al. 2018): claims, and edits of the verdict on them.

Two forms: a JSON list of {"claim", "label"}, with labels SUPPORTS, REFUTES and NOT ENOUGH INFO; and
KnowledgeEditor's JSONL (`fever-*-kilt.jsonl`), read in `knowledge_editor`, which also has a model's
own prediction and rephrases. An edit flips the prediction. In the paper only half of the edits do,
the others ask for what the model says already, so that an editor that does nothing is right half of
the time.
"""

import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mend_jax.data.fields import RecordError, text_of
from mend_jax.data.records import Locality, Record
from mend_jax.data.sources.base import (
    Answers,
    Read,
    Reading,
    Row,
    Source,
    distinct,
    draw_locality,
    left_out,
)
from mend_jax.data.sources.claims import VERDICTS

UNKNOWN = "NOT ENOUGH INFO"
TEMPLATES = {
    "train": (
        "It is true that {}",
        "It is a fact that {}",
        "According to the record, {}",
        "The record says that {}",
        "As is known, {}",
    ),
    "validation": ("It is the case that {}", "It is correct that {}", "In fact, {}"),
}
"""Rephrases of a claim that has none; they change neither its truth nor a letter of it."""
REPHRASES = 2
"""How many of them a claim gets."""


class Claim(NamedTuple):
    """verdict: the true one. predicted: the model's own."""

    text: str
    verdict: str
    predicted: str
    rephrases: tuple[str, ...]
    asked: tuple[str, ...]


def read_claims(rows: Iterable[Row], reading: Reading) -> Read:
    """Of the list; the true verdict stands for the model's own, and templates for rephrases."""
    rng = random.Random(f"templates {reading.split} {reading.seed}")
    templates = TEMPLATES[reading.split]
    claims, unknown = [], []
    for row in rows:
        text = text_of(row.value, "claim", row.where)
        verdict = _label(row)
        if verdict == UNKNOWN:
            unknown.append(row.place)
            continue
        again = tuple(t.format(text) for t in rng.sample(templates, REPHRASES))
        claims.append(Claim(text, verdict, verdict, again, (text,)))
    notes = left_out(unknown, len(claims), f"are labelled {UNKNOWN}")
    if claims:
        notes += [
            f"the rephrases of all {len(claims)} records are made of templates: "
            + ", ".join(repr(template) for template in templates),
            "the true verdict stands for the model's own prediction, which the file does not have",
        ]
    return Read(verdict_edits(claims, reading), notes)


def read_verdicts(rows: Iterable[Row], reading: Reading) -> Answers:
    """Of the list: every claim with its true verdict, where there is one."""
    pairs, unknown = [], []
    for row in rows:
        claim, verdict = text_of(row.value, "claim", row.where), _label(row)
        if verdict == UNKNOWN:
            unknown.append(row.place)
        else:
            pairs.append(Locality(claim, verdict, "far"))
    return Answers(pairs, left_out(unknown, len(pairs), f"are labelled {UNKNOWN}"))


def verdict_edits(claims: Sequence[Claim], reading: Reading) -> list[Record]:
    """One edit of each claim: the other verdict than the model's own, or, with `reading.flip` of
    half, as likely the same. Locality is other claims with their true verdicts."""
    rng = random.Random(f"fever {reading.split} {reading.seed}")
    pool = distinct(Locality(claim.text, claim.verdict, "far") for claim in claims)
    records = []
    for claim in claims:
        kept = rng.random() < 0.5 and reading.flip == "half"
        flipped = VERDICTS[1 - VERDICTS.index(claim.predicted)]
        records.append(
            Record(
                prompt=claim.text,
                target=claim.predicted if kept else flipped,
                rephrases=claim.rephrases,
                locality=draw_locality(rng, pool, reading.localities, claim.asked),
            )
        )
    return records


def _label(row: Row) -> str:
    label = text_of(row.value, "label", row.where)
    return verdict_of(label, "label", row.where, (*VERDICTS, UNKNOWN))


def verdict_of(text: str, field: str, where: str, allowed: Sequence[str] = VERDICTS) -> str:
    """The text of a field, if it is a verdict.

    Raises:
      RecordError: it is none.
    """
    if text not in allowed:
        raise RecordError(f"{where}: {field!r} must be one of {', '.join(allowed)}, is {text!r}")
    return text


SOURCE = Source(
    "FEVER, a list of claims",
    ("claim", "label"),
    read_claims,
    read_verdicts,
    unread=("id", "verifiable", "evidence"),
)
