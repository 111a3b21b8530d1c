"""What a scope reads beside the records: what the base writes itself, and records after other text.

Most texts ask for nothing: running text, what is said about a subject, what follows an answer. And
few prompts stand at the beginning of a text.
"""

import random
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from mend_jax.data.chat import chat_prompt
from mend_jax.data.codec import codec_of
from mend_jax.data.decoding import answers
from mend_jax.data.records import Locality, Record, Rephrase, rephrases_of
from mend_jax.data.scope_texts import Running
from mend_jax.data.spacing import separator_of
from mend_jax.data.token_records import TokenRecord
from mend_jax.models.generate import sampled
from mend_jax.models.registry import Base

PASSAGES = 384
"""Texts that the base writes itself, about some of the subjects; a quarter as many are about
anything."""
WRITTEN = 48
"""Tokens of one."""
SPOKEN = 1536
"""Edits whose answer the base goes on from, and by how many tokens."""
AFTER = 20
PIECES = (1, 1, 2, 3)
"""Of other text before a prompt, each as often as another; and tokens of one."""
BEFORE = 14
STATED = 0.5
"""Share of them that state a fact, as an edit does."""
CHATS, BARE = 0.3, 2 / 3
"""Share of the records that are asked for in a chat, too; and of these, whose answer begins at
once."""
LONGEST = 64
"""Tokens of the longest of such texts."""


def written(
    base: Base, beginnings: Sequence[str], new: int, seed: int
) -> list[Int[np.ndarray, "_"]]:
    """What the base makes of beginnings of texts, by drawing so many new tokens: running text."""
    prompts = [codec_of(base).prompt(text) for text in beginnings]
    said = dict(answers(base, prompts, new, 32, sampled, seed))
    return [np.asarray([*prompt, *said[i]], np.int32) for i, prompt in enumerate(prompts)]


def surroundings(base: Base, records: Sequence[Record], seed: int) -> list[Running]:
    """Running texts: passages about some of the records' subjects, and texts about anything."""
    return [*passages_of(base, records, PASSAGES, seed), *anything(base, seed)]


def among(
    base: Base, records: Sequence[Record], running: Sequence[Running], seed: int
) -> list[Record]:
    """The records with some of their questions asked after the beginnings of running texts, and in
    chats."""
    before = [codec_of(base).words(text.tokens[:BEFORE].tolist()) for text in running]
    return in_chat(base, after_text(records, before, seed), seed)


def after_text(records: Sequence[Record], texts: Sequence[str], seed: int) -> list[Record]:
    """The records with one phrasing and one locality prompt more, each after other text: some of
    these, and what other records' locality states. Where a name is to be found, and that what
    stands before it asks for nothing."""
    rng = random.Random(seed)
    facts = [item for record in records for item in record.locality]

    def piece() -> str:
        if facts and rng.random() < STATED:
            return stated(rng.choice(facts)) + ". "
        return rng.choice(texts) + ". "

    def after(prompt: str) -> str:
        return "".join(piece() for _ in range(rng.choice(PIECES))) + prompt

    def one(record: Record) -> Record:
        again = rng.choice([Rephrase(record.prompt, record.target), *rephrases_of(record)])
        stays = rng.sample(record.locality, min(len(record.locality), 1))
        return record._replace(
            rephrases=(*record.rephrases, again._replace(prompt=after(again.prompt))),
            locality=(
                *record.locality, *(x._replace(prompt=after(x.prompt)) for x in stays)
            ),
        )  # fmt: skip

    return [one(record) for record in records]


def stated(item: Locality) -> str:
    """Its prompt, and its answer."""
    given = item.separator
    between = separator_of(item.prompt, item.answer) if given is None else given
    return item.prompt + between + item.answer


def in_chat(base: Base, records: Sequence[Record], seed: int) -> list[Record]:
    """Some of the records with a phrasing, and a locality prompt of each kind, that a user says in
    a chat, in the base's template, if it has one. What is asked is to be known where the model's
    turn begins, or after it has begun to say the prompt in other words."""
    rng = random.Random(f"chat {seed}")

    def asked(question: str, begun: str) -> str:
        return chat_prompt(base, [{"role": "user", "content": question}]) + begun

    def one(record: Record) -> Record:
        bare = rng.random() < BARE
        question, begun = (rng.choice(rephrases_of(record)) for _ in range(2))
        kinds = {item.kind: item for item in record.locality}.values()
        again = begun._replace(prompt=asked(question.prompt, "" if bare else begun.prompt))
        stays = (
            item._replace(prompt=asked(item.prompt, "" if bare else item.prompt), separator=None)
            for item in kinds
        )
        return record._replace(
            rephrases=(*record.rephrases, again), locality=(*record.locality, *stays)
        )

    if not base.chat.source:
        return list(records)
    return [one(record) if rng.random() < CHATS else record for record in records]


def passages_of(base: Base, records: Sequence[Record], count: int, seed: int) -> list[Running]:
    """What the base writes about so many of the subjects."""
    rng = np.random.default_rng((seed, 3))
    names = [record.subject or record.prompt for record in records]
    chosen = [int(i) for i in rng.permutation(len(names))[:count]]
    texts = written(base, [f"{names[i]} is" for i in chosen], WRITTEN, seed)
    return [Running(text, i) for text, i in zip(texts, chosen, strict=True)]


OPENINGS = (
    "The", "In the", "It was", "We", "When", "There is a", "How to", "This", "On the", "If you",
    "A new", "My", "She said", "According to", "For many years", "First,",
)  # fmt: skip
"""Of texts about whatever the base likes."""


def anything(base: Base, seed: int, count: int = PASSAGES // 4) -> list[Running]:
    """What the base writes about nothing that was asked for."""
    begun = [OPENINGS[i % len(OPENINGS)] for i in range(count)]
    return [Running(text) for text in written(base, begun, WRITTEN, seed)]


def spoken_of(
    base: Base, records: Sequence[TokenRecord], seed: int
) -> list[Int[np.ndarray, "_"]]:
    """Each edit's prompt with all of its answer; some of them, as the base goes on from there."""
    texts = [np.append(r.edit.tokens, r.edit.labels[-1]).astype(np.int32) for r in records]
    chosen = np.random.default_rng((seed, 5)).permutation(len(texts))[:SPOKEN]
    said = answers(base, [texts[i] for i in chosen], AFTER, 32)
    for place, more in said:
        i = chosen[place]
        texts[i] = np.append(texts[i], np.asarray(more, np.int32))
    return texts
