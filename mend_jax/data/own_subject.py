"""What else is asked of a record's own subject: locality of the kind "own".

With "The capital of France is -> Rome" held, "The currency of France is" must stay. Few data sets
ask that. So the subject is put into the prompts of other records, and their targets are what is
compared there; whether they are true of it does not matter, since what must stay is what the base
says.

Which prompts ask for the same is not known of every file. A prompt whose answers are of the kind
that the record's own prompt asks for may (two ways to ask for a country), and is not used: a kind
is the answers of a template, and those of all templates that share one of them.
"""

import random
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

from mend_jax.data.records import Locality, Record, rephrases_of

ASKED = 2
"""Prompts of a record."""
TRIES = 50
"""Draws for one of them, before the record is left with fewer."""


class Question(NamedTuple):
    """A prompt with {} for its subject, and an answer of the kind that it asks for."""

    template: str
    answer: str
    separator: str | None = None


def question_of(record: Record) -> Question | None:
    """The record's prompt as a question of any subject; None if it does not name its own once."""
    subject = record.subject.strip()
    if not subject or record.prompt.count(subject) != 1 or "{}" in record.prompt:
        return None
    return Question(record.prompt.replace(subject, "{}"), record.target, record.separator)


def with_own(records: Sequence[Record], seed: int = 0, count: int = ASKED) -> list[Record]:
    """The records, each with `count` locality prompts of the kind "own", if there are so many.

    Records that have some, or do not name a subject, stay as they are. The draws for a record
    depend on the questions of all records, and on nothing else of them.
    """
    questions = [question_of(record) for record in records]
    known = sorted({question for question in questions if question}, key=str)
    answers: dict[str, set[str]] = {}
    for one in known:
        answers.setdefault(one.template, set()).add(one.answer.casefold())

    templates: dict[str, set[str]] = {}
    for template, said in answers.items():
        for answer in said:
            templates.setdefault(answer, set()).add(template)

    @cache
    def kind(template: str) -> frozenset[str]:
        sharing = {other for answer in answers[template] for other in templates[answer]}
        return frozenset(answer for other in sharing for answer in answers[other])

    def apart(a: Question, b: Question) -> bool:
        return a.template != b.template and answers[b.template].isdisjoint(kind(a.template))

    found = []
    for record, question in zip(records, questions, strict=True):
        if question is None or any(item.kind == "own" for item in record.locality):
            found.append(record)
            continue
        rng = random.Random(f"own {seed} {record.prompt}")
        drawn = (rng.choice(known) for _ in range(TRIES * count))
        others = (other for other in drawn if apart(question, other))
        own = own_questions(record, others, count)
        found.append(record._replace(locality=record.locality + own))
    return found


def own_questions(
    record: Record, questions: Iterable[Question], count: int = ASKED
) -> tuple[Locality, ...]:
    """The first `count` questions, asked of the record's subject; none of its texts twice."""
    texts = {record.prompt, *(r.prompt for r in rephrases_of(record))}
    texts |= {item.prompt for item in record.locality}
    asked: list[Locality] = []
    for template, answer, separator in questions:
        prompt = template.replace("{}", record.subject.strip())
        if prompt not in texts:
            texts.add(prompt)
            asked.append(Locality(prompt, answer, "own", separator))
        if len(asked) == count:
            break
    return tuple(asked)
