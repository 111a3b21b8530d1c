"""What else a scope learns from of its records: the same questions after other text, and in chats.

Few prompts stand at the beginning of a text; and what is asked in a chat is asked where the model's
turn begins, many tokens after the subject was named.
"""

import random
from collections.abc import Sequence

from mend_jax.data.chat import chat_prompt
from mend_jax.data.codec import codec_of
from mend_jax.data.messages import Messages
from mend_jax.data.preceded import statement_of
from mend_jax.data.records import Locality, Record, Rephrase, rephrases_of
from mend_jax.data.scope_texts import Running
from mend_jax.models.registry import Base

BEFORE = (7, 14, 28)
"""Tokens of a running text that stand before a prompt."""
STATED = 0.3
"""How often another record's statement stands there."""
CHATS = 0.3
"""Share of the records that are there once more in chats."""
TOLD, ALONE, BEGUN = 0.5, 0.5, 0.3
"""How often such a record's edit is told in a chat, too; how often a chat has no turns before the
question; and how often the model's turn has begun, with the question in other words."""
LONGEST = 96
"""Tokens of the longest of such texts."""
OPENINGS: tuple[Messages, ...] = (
    ({"role": "system", "content": "You are a helpful assistant."},),
    ({"role": "system", "content": "Give the answer and nothing else."},),
    ({"role": "system", "content": "You know a lot, and you are polite to everybody."},),
    (
        {"role": "user", "content": "Hi there!"},
        {"role": "assistant", "content": "Hello! How can I help you today?"},
    ),
    (
        {"role": "user", "content": "Can you help me with a quiz?"},
        {"role": "assistant", "content": "Sure. What is the first question?"},
    ),
    (
        {"role": "user", "content": "Thank you, that was useful."},
        {"role": "assistant", "content": "You're welcome. Is there anything else?"},
    ),
)
"""What may come before a question in a chat; or another record's question and answer."""


def after_running(
    base: Base, records: Sequence[Record], running: Sequence[Running], seed: int
) -> list[Record]:
    """`after_text`, with the beginnings of running texts."""
    rng, words = random.Random(f"before {seed}"), codec_of(base).words
    texts = [words(text.tokens[: rng.choice(BEFORE)].tolist()) for text in running]
    return after_text(records, texts, seed)


def after_text(records: Sequence[Record], texts: Sequence[str], seed: int) -> list[Record]:
    """The records with one phrasing and one neighbour more, each after one of these texts, or after
    what another record states: where a name is to be found, and that what stands before it asks
    for nothing."""
    rng = random.Random(seed)

    def one(record: Record) -> Record:
        text = statement_of(rng.choice(records)) if rng.random() < STATED else rng.choice(texts)
        near = [item for item in record.locality if item.kind != "own"][:1]
        return record._replace(
            rephrases=(*record.rephrases, Rephrase(f"{text}. {record.prompt}", record.target)),
            locality=record.locality
            + tuple(item._replace(prompt=f"{text}. {item.prompt}") for item in near),
        )

    return [one(record) for record in records]


def in_chats(base: Base, records: Sequence[Record], seed: int) -> list[Record]:
    """Some of the records as chats in the base's template: asked for in two of them, with two other
    questions about the subject, and one about another; half are told in a chat, too, and asked for
    without one as well. None, if the base has no template.

    Args:
      records: that are no chats yet.
    """
    if not base.chat.source:
        return []
    rng = random.Random(f"chats {seed}")
    openings = [opening for opening in OPENINGS if _takes(base, opening)]

    def before() -> Messages:
        other = rng.choice(records)
        turns = [("user", other.prompt.strip()), ("assistant", other.target.strip())]
        asked = tuple({"role": role, "content": content} for role, content in turns)
        return () if rng.random() < ALONE else rng.choice([*openings, asked, asked])

    def asked(question: str, begun: str = "") -> str:
        turn = {"role": "user", "content": question.strip()}
        return chat_prompt(base, [*before(), turn]) + begun

    def again(way: Rephrase, other: Rephrase) -> Rephrase:
        begun = other.prompt if rng.random() < BEGUN else ""
        return way._replace(prompt=asked(way.prompt, begun))

    def stays(item: Locality) -> Locality:
        begun = item.prompt if rng.random() < BEGUN else ""
        return item._replace(prompt=asked(item.prompt, begun), separator=None)

    def one(record: Record) -> Record:
        ways = rng.sample(rephrases_of(record), min(3, len(record.rephrases)))
        told = rng.random() < TOLD
        rephrases = [again(way, rng.choice(ways)) for way in ways[:2]]
        mixed = rng.sample(record.locality, len(record.locality))
        own, other = ([x for x in mixed if (x.kind == "own") == is_own] for is_own in (True, False))
        return record._replace(
            prompt=asked(record.prompt) if told else record.prompt,
            rephrases=(*rephrases, *(ways[2:] if told else ())),
            locality=tuple(map(stays, (*own[:2], *other[:1]))),
            separator=None if told else record.separator,
        )

    return [one(record) for record in records if rng.random() < CHATS]


def _takes(base: Base, opening: Messages) -> bool:
    """Whether the base's template takes this before a question: not all have a system's line."""
    try:
        return bool(chat_prompt(base, [*opening, {"role": "user", "content": "?"}]))
    except ValueError:
        return False
