"""How texts become tokens, for each kind of model: a prompt and what should follow it, as one pair.

    causal       the first n + a - 1 tokens of `prompt target`; `read` says where the a logits stand
                 that predict the target
    seq2seq      the prompt is the source; the decoder says the target and the end of the text
    classifier   the prompt is the text; the target is the name of a class
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from mend_jax.models.registry import Base


class Tokens(NamedTuple):
    """One pair, not padded: tokens int32[n], read int32[a], labels int32[a].

    target: int32[a], the decoder's tokens of an encoder-decoder (the labels, moved one to the
      right), whose logits are not read but come out at all places.
    """

    tokens: np.ndarray
    read: np.ndarray
    labels: np.ndarray
    target: np.ndarray | None = None


class Codec(NamedTuple):
    """Texts to tokens and back, for one base.

    pair(prompt, target) -> Tokens. prompt(text) -> token ids to answer, or go on from.
    text(ids) -> what generated token ids say. Both raise ValueError for what cannot be put in
    tokens.
    """

    pair: Callable[[str, str], Tokens]
    prompt: Callable[[str], list[int]]
    text: Callable[[Sequence[int]], str]


def codec_of(base: Base) -> Codec:
    """The codec of a base.

    Raises:
      ValueError: the base is of a kind that answers nothing (an encoder without a head).
    """
    tokenizer, kind, config = base.tokenizer, base.model.kind, base.config
    prompt = partial(encode_prompt, tokenizer)
    if kind == "causal":
        return Codec(partial(encode_pair, tokenizer), prompt, partial(_first_line, tokenizer))
    if kind == "seq2seq":
        start, end = config.decoder_start_token_id, config.eos_token_id
        answer = partial(encode_answer, tokenizer, start=start, end=end)
        return Codec(answer, prompt, partial(_until, tokenizer, end))
    if kind == "classifier":
        names = config.labels
        return Codec(
            partial(encode_claim, tokenizer, names), prompt, lambda ids: names[int(ids[0])]
        )
    raise ValueError(
        f"{base.name!r} is a {kind!r} model: it gives no answers to edit (causal and "
        "encoder-decoder language models and classifiers do)"
    )


def encode_prompt(tokenizer: Any, prompt: str) -> list[int]:
    """Token ids of a prompt, with the marks that the model puts around a text, if it has any.

    Raises:
      ValueError: there is no tokenizer.
    """
    if tokenizer is None:
        raise ValueError("the base has no tokenizer: put its tokenizer.json beside its weights")
    return tokenizer.encode(prompt).ids


def encode_pair(tokenizer: Any, prompt: str, target: str) -> Tokens:
    """Tokens of `prompt + " " + target`; what differs from the prompt's tokens is the target.

    Raises:
      ValueError: no token is left to predict (a tokenizer that knows none of the characters).
    """
    before = encode_prompt(tokenizer, prompt)
    whole = encode_prompt(tokenizer, f"{prompt} {target}")
    n = 0
    while n < min(len(before), len(whole) - 1) and before[n] == whole[n]:
        n += 1
    ids = np.asarray(whole, np.int32)
    n = max(n, 1)
    if len(ids) <= n:
        raise ValueError(f"the tokenizer leaves nothing to predict of {prompt!r}, {target!r}")
    return Tokens(ids[:-1], np.arange(n - 1, len(ids) - 1, dtype=np.int32), ids[n:])


def encode_answer(tokenizer: Any, prompt: str, target: str, *, start: int, end: int) -> Tokens:
    """The prompt as the source; the target and `end` as labels, `start` before the first.

    Raises:
      ValueError: no token of the target is left (a tokenizer that knows none of its characters).
    """
    source = np.asarray(encode_prompt(tokenizer, prompt), np.int32)
    answer = tokenizer.encode(target, add_special_tokens=False).ids
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
    if target not in names:
        raise ValueError(f"{prompt!r}: the model has no class {target!r}; it has {list(names)}")
    ids = np.asarray(encode_prompt(tokenizer, prompt), np.int32)
    return Tokens(ids, np.zeros(1, np.int32), np.asarray([names.index(target)], np.int32))


def _first_line(tokenizer: Any, ids: Sequence[int]) -> str:
    """The continuation up to the end of its first line."""
    text = tokenizer.decode([int(i) for i in ids]).strip()
    return text.splitlines()[0].strip() if text else ""


def _until(tokenizer: Any, end: int, ids: Sequence[int]) -> str:
    """The answer up to the end of the text."""
    said = [int(i) for i in ids]
    return tokenizer.decode(said[: said.index(end)] if end in said else said).strip()
