"""Generation edits as MEND's authors made them of Wikitext: one JSON object.

    {"n_tokens": 10, "original": [...], "completions": [...]}

A completion is the beginning of an original passage and `n_tokens` tokens that a model went on
with; they are the target. There is no tokenizer here, so the cut between prompt and target is where
completion and original part, moved back to the space before that word: prompt + " " + target is the
completion, whatever stands on either side of the space.
"""

import os
import random
import re
from collections.abc import Iterable
from typing import NamedTuple

from mend_jax.data.fields import RecordError, texts_of
from mend_jax.data.records import Locality, Record
from mend_jax.data.sources.base import (
    Read,
    Reading,
    Row,
    Source,
    distinct,
    draw_locality,
    left_out,
)

REPHRASES = 4
BEGINNING = 16
"""Words of a passage that are a locality prompt, at most; at least as many are left to follow."""
NEXT = 5
"""Words after them, the answer."""


class Text(NamedTuple):
    """A passage, and its beginning with other words after it."""

    place: str
    original: str
    completion: str


def read_completions(rows: Iterable[Row], reading: Reading) -> Read:
    """An edit of every completion.

    Rephrases are the prompt without its first k words, k up to half of them; locality is how other
    passages go on.
    """
    rng = random.Random(f"wikitext {reading.split} {reading.seed}")
    texts = []
    most = 0
    for row in rows:
        n_tokens = row.value.get("n_tokens")
        if not isinstance(n_tokens, int) or n_tokens < 1:
            raise RecordError(f"{row.where}: 'n_tokens' must be a number of tokens")
        most = max(most, n_tokens)
        texts += _texts(row)
    passages = [_passage(text.original) for text in texts]
    pool = distinct(passage for passage in passages if passage)
    records, without = [], []
    for text, passage in zip(texts, passages, strict=True):
        prompt, target = _cut(text)
        # a token holds one word at most; one more, because the cut moved back
        if not prompt or not target or len(target.split()) > most + 1:
            without.append(text.place)
            continue
        but = (passage.prompt,) if passage else ()
        records.append(
            Record(
                prompt=prompt,
                target=target,
                rephrases=trimmed(rng, prompt),
                locality=draw_locality(rng, pool, reading.localities, but),
                separator=" ",
            )
        )
    why = f"do not part from their original in their last {most} tokens"
    return Read(records, left_out(without, len(records), why))


def _texts(row: Row) -> list[Text]:
    originals, completions = (
        texts_of(row.value, field, row.where, blank=True) for field in ("original", "completions")
    )
    if len(originals) != len(completions):
        raise RecordError(
            f"{row.where}: 'original' has {len(originals)} texts, 'completions' {len(completions)}"
        )
    return [
        Text(f"completions[{i}]", original, completion)
        for i, (original, completion) in enumerate(zip(originals, completions, strict=True))
    ]


def _spaces(text: str) -> list[int]:
    """Where a text can be cut in two that a single space joins again."""
    return [m.start() for m in re.finditer(r"(?<=\S) (?=\S)", text)]


def _cut(text: Text) -> tuple[str, str]:
    """(prompt, target); empty if the completion never parts from the original, or at once."""
    common = len(os.path.commonprefix([text.original, text.completion]))
    places = [place for place in _spaces(text.completion) if place <= common]
    if common == len(text.completion) or not places:
        return "", ""
    return text.completion[: places[-1]], text.completion[places[-1] + 1 :]


def trimmed(rng: random.Random, prompt: str) -> tuple[str, ...]:
    """The prompt without its first k words, for some k up to half of them."""
    spaces = _spaces(prompt)
    half = range((len(spaces) + 1) // 2)  # the space after the k-th word, of k up to half
    chosen = rng.sample(half, min(REPHRASES, len(half)))
    return tuple(prompt[spaces[k] + 1 :] for k in chosen)


def _passage(original: str) -> Locality | None:
    """The beginning of a passage and how it goes on; None of a single word."""
    spaces = _spaces(original)
    if not spaces:
        return None
    begin = min(BEGINNING, (len(spaces) + 1) // 2)
    end = spaces[begin - 1 + NEXT] if begin - 1 + NEXT < len(spaces) else len(original)
    return Locality(
        original[: spaces[begin - 1]], original[spaces[begin - 1] + 1 : end], "far", " "
    )


SOURCE = Source("Wikitext generation", ("n_tokens", "original", "completions"), read_completions)
