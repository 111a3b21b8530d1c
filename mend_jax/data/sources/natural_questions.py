"""Natural Questions (Kwiatkowski et al. 2019): what must stay, far from every edit.

Two forms: JSONL of {"question", "answer": [...]} (NQ-open), of whose answers the shortest is taken;
and MEND's one JSON object, {"questions": [...], "answers": [...]}.
"""

from collections.abc import Iterable
from typing import Literal

from mend_jax.data.fields import RecordError, text_of, texts_of
from mend_jax.data.records import Locality
from mend_jax.data.sources.base import Answers, Reading, Row, Source, counted


def read_questions(rows: Iterable[Row], reading: Reading) -> Answers:
    """Of JSONL."""
    pairs = []
    further = 0
    for row in rows:
        question = text_of(row.value, "question", row.where)
        answers = texts_of(row.value, "answer", row.where)
        if not answers:
            raise RecordError(f"{row.where}: 'answer' is empty")
        pairs.append(_pair(question, min(answers, key=len), reading.questions))
        further += len({*answers}) - 1
    return Answers(
        pairs, counted((further, "answers beside the shortest of their question are not read"))
    )


def read_object(rows: Iterable[Row], reading: Reading) -> Answers:
    """Of the one object."""
    pairs = []
    for row in rows:
        questions, answers = (texts_of(row.value, field, row.where) for field in OBJECT.fields)
        if len(questions) != len(answers):
            raise RecordError(
                f"{row.where}: there are {len(questions)} 'questions', {len(answers)} 'answers'"
            )
        for question, answer in zip(questions, answers, strict=True):
            pairs.append(_pair(question, answer, reading.questions))
    return Answers(pairs, [])


def _pair(question: str, answer: str, form: Literal["sentence", "exact"]) -> Locality:
    if form == "sentence":
        question = question[0].upper() + question[1:].removesuffix("?").rstrip() + "?"
    return Locality(question, answer, "far")


SOURCE = Source("Natural Questions", ("question", "answer"), read_locality=read_questions)
OBJECT = Source(
    "Natural Questions in one object", ("questions", "answers"), read_locality=read_object
)
