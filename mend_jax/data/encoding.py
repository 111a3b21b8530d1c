"""How a prompt and what should follow it become tokens, each kind of model's way."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from mend_jax.data.writable import encoded

Ids: TypeAlias = Sequence[int] | np.ndarray
"""Of tokens, in order."""


class Tokens(NamedTuple):
    """One pair, not padded: tokens int32[n], read int32[a], labels int32[a].

    target: int32[a], the decoder's tokens of an encoder-decoder (the labels, moved one to the
      right), whose logits are not read but come out at all places.
    condition: int32[c], the edit as one text, `target || prompt` (for KE).
    lost: characters of the prompt that the tokenizer has no tokens for.
    """

    tokens: np.ndarray
    read: np.ndarray
    labels: np.ndarray
    target: np.ndarray | None = None
    condition: np.ndarray | None = None
    lost: str = ""


def encode_prompt(tokenizer: Any, prompt: str, goes_on: bool = False) -> list[int]:
    """Token ids of a prompt, with the marks that the model puts around a text, if it has any.

    A mark that the prompt brings itself is not doubled.

    Args:
      goes_on: the model is to go on with the text. Then no mark is put at its end; and white space
        at its end is left to the answer, where the tokenizer joins it to the next word.

    Raises:
      ValueError: there is no tokenizer.
    """
    ids = _marked(tokenizer, prompt, end=not goes_on)
    if not goes_on or not prompt[-1:].isspace():
        return ids
    same = _common(ids, _marked(tokenizer, f"{prompt}a", end=False))
    return ids[:same] if same else ids


def marks_around(tokenizer: Any) -> tuple[int, int]:
    """How many marks the tokenizer puts before a text, and after it.

    Raises:
      ValueError: there is no tokenizer.
    """
    return _marks(encoded(tokenizer, "a"))


def _marks(encoding: Any) -> tuple[int, int]:
    mark = encoding.special_tokens_mask
    lead = next((i for i, m in enumerate(mark) if not m), len(mark))
    return lead, next((i for i, m in enumerate(reversed(mark)) if not m), 0)


def _marked(tokenizer: Any, text: str, end: bool) -> list[int]:
    """The tokens of a text with the marks before it and, with `end`, those after it."""
    encoding = encoded(tokenizer, text)
    ids, (lead, tail) = encoding.ids, _marks(encoding)
    first, own, last = ids[:lead], ids[lead : len(ids) - tail], ids[len(ids) - tail :]
    if own[:lead] == first:
        first = []
    if own[len(own) - tail :] == last or not end:
        last = []
    return [*first, *own, *last]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two texts begin with alike."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def encode_pair(tokenizer: Any, prompt: str, target: str, separator: str = " ") -> Tokens:
    """Tokens of prompt, separator and target; what differs from the prompt's is the target.

    Raises:
      ValueError: no token is left to predict (a tokenizer that knows none of the characters).
    """
    before = _marked(tokenizer, prompt, end=False)
    whole = _marked(tokenizer, f"{prompt}{separator}{target}", end=True)
    ids = np.asarray(whole, np.int32)
    n = max(_common(before, whole[:-1]), 1)
    if len(ids) <= n:
        raise ValueError(f"the tokenizer leaves nothing to predict of {prompt!r}, {target!r}")
    return Tokens(ids[:-1], np.arange(n - 1, len(ids) - 1, dtype=np.int32), ids[n:])


def encode_answer(tokenizer: Any, prompt: str, target: str, *, start: int, end: int) -> Tokens:
    """The prompt as the source; the target and `end` as labels, `start` before the first.

    Raises:
      ValueError: no token of the target is left (a tokenizer that knows none of its characters).
    """
    source = np.asarray(encode_prompt(tokenizer, prompt), np.int32)
    answer = encoded(tokenizer, target, add_special_tokens=False).ids
    while answer[-1:] == [end]:  # the target has it already
        answer = answer[:-1]
    if not answer:
        raise ValueError(f"the tokenizer leaves nothing to predict of {prompt!r}, {target!r}")
    labels = np.asarray([*answer, end], np.int32)
    decoder = np.asarray([start, *answer], np.int32)
    return Tokens(source, np.arange(len(labels), dtype=np.int32), labels, decoder)


def encode_claim(tokenizer: Any, names: Sequence[str], prompt: str, target: str) -> Tokens:
    """The prompt as the text to judge; the label is the number of the class `target`.

    Raises:
      ValueError: the model has no class of this name.
    """
    if target.strip() not in names:
        raise ValueError(f"{prompt!r}: the model has no class {target!r}; it has {list(names)}")
    ids = np.asarray(encode_prompt(tokenizer, prompt), np.int32)
    label = names.index(target.strip())
    return Tokens(ids, np.zeros(1, np.int32), np.asarray([label], np.int32))
