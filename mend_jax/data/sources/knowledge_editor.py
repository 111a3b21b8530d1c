"""zsRE and FEVER as De Cao et al. (2021, KnowledgeEditor) made lines of KILT's
(`structured_zeroshot-*-new_annotated_final.jsonl`, `fever-*-kilt.jsonl`).

    {"input", "output": [{"answer"}], "prediction", "alternatives": [...],
     "filtered_rephrases": [...], "meta"?: {"template_questions"?: [...]}}

`prediction` is their model's answer, `alternatives` are others that it finds likely: what to edit
towards. The rephrases are those by which the model answers the same. The fields of both data sets
are the same: the answers tell them apart. Of zsRE, the edit target is one of the alternatives, and
what must stay is the answers to other lines; of FEVER see `fever`.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from mend_jax.data.fields import RecordError, text_of, texts_of
from mend_jax.data.records import Locality, Record
from mend_jax.data.sources.base import (
    Read,
    Reading,
    Row,
    Source,
    counted,
    distinct,
    draw_locality,
    left_out,
)
from mend_jax.data.sources.claims import VERDICTS
from mend_jax.data.sources.fever import Claim, verdict_edits, verdict_of


class Line(NamedTuple):
    """A line that can be an edit. asked: every way in which the file puts this question. further:
    gold answers beside the first. again: rephrases that are the input, or another rephrase."""

    where: str
    prompt: str
    answer: str
    prediction: str
    alternatives: tuple[str, ...]
    rephrases: tuple[str, ...]
    asked: tuple[str, ...]
    further: int
    again: int


def read_edits(rows: Iterable[Row], reading: Reading) -> Read:
    """Of either data set."""
    lines, notes = read_lines(rows)
    claims = any(line.answer in VERDICTS for line in lines)
    return Read((_fever if claims else _zsre)(lines, reading), notes)


def _zsre(lines: Sequence[Line], reading: Reading) -> list[Record]:
    """Target and locality are drawn."""
    rng = random.Random(f"zsre {reading.split} {reading.seed}")
    pool = distinct(Locality(line.prompt, line.answer, "far") for line in lines)
    return [
        Record(
            prompt=line.prompt,
            target=rng.choice(line.alternatives),
            rephrases=line.rephrases,
            locality=draw_locality(rng, pool, reading.localities, line.asked),
        )
        for line in lines
    ]


def _fever(lines: Sequence[Line], reading: Reading) -> list[Record]:
    """Edits of the verdict that their model gives."""
    claims = [
        Claim(
            line.prompt,
            verdict_of(line.answer, "answer", line.where),
            verdict_of(line.prediction, "prediction", line.where),
            line.rephrases,
            line.asked,
        )
        for line in lines
    ]
    return verdict_edits(claims, reading)


def read_lines(rows: Iterable[Row]) -> tuple[list[Line], list[str]]:
    """(lines with an alternative and a rephrase that is not the input itself, notes)."""
    kept, without = [], []
    for row in rows:
        line = _line(row)
        if line.alternatives and line.rephrases:
            kept.append(line)
        else:
            without.append(row.place)
    notes = left_out(without, len(kept), "have no alternative answer or no rephrase")
    return kept, notes + counted(
        (sum(line.further for line in kept), "answers beside the first of their row are not read"),
        (sum(line.again for line in kept), "rephrases are their input again, or another rephrase, "
         "and are left out"),
    )  # fmt: skip


def _line(row: Row) -> Line:
    value, where = row.value, row.where
    prompt = text_of(value, "input", where)
    alternatives = texts_of(value, "alternatives", where, blank=True)
    rephrases = texts_of(value, "filtered_rephrases", where, blank=True)
    meta = value.get("meta")
    templates: tuple[str, ...] = ()
    if isinstance(meta, Mapping):
        at = f"{where}: meta"
        templates = texts_of(meta, "template_questions", at, required=False, blank=True)
    others = tuple(dict.fromkeys(r for r in rephrases if r and r != prompt))
    answers = _answers(row)
    return Line(
        where,
        prompt,
        answers[0],
        text_of(value, "prediction", where, required=False),
        tuple(a for a in alternatives if a),
        others,
        (prompt, *others, *templates),
        len({*answers}) - 1,
        sum(map(bool, rephrases)) - len(others),
    )


def _answers(row: Row) -> list[str]:
    """The gold answers; other entries of `output` hold only where they were found."""
    output = row.value.get("output")
    items = output if isinstance(output, list) else []
    found = [item for item in items if isinstance(item, Mapping) and "answer" in item]
    if not found:
        raise RecordError(f"{row.where}: 'output' must be a list with an object that has 'answer'")
    at = f"{row.where}: output"
    further = (text_of(item, "answer", at, required=False) for item in found[1:])
    return [text_of(found[0], "answer", at), *filter(None, further)]


SOURCE = Source(
    "zsRE or FEVER, KnowledgeEditor's lines",
    ("input", "output", "alternatives", "filtered_rephrases"),
    read_edits,
    optional=("prediction", "meta"),
    unread=("id", "provenance", "rephrases", "logit"),
)
