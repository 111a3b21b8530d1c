"""How texts become tokens, for each kind of model: a prompt and what should follow it, as one pair.

    causal       the first n + a - 1 tokens of `prompt target`; `read` says where the a logits stand
                 that predict the target
    seq2seq      the prompt is the source; the decoder says the target and the end of the text
    classifier   the prompt is the text; the target is the name of a class
"""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np

from mend_jax.models.layers import check_tokens
from mend_jax.models.registry import Base


class Tokens(NamedTuple):
    """One pair, not padded: tokens int32[n], read int32[a], labels int32[a].

    target: int32[a], the decoder's tokens of an encoder-decoder (the labels, moved one to the
      right), whose logits are not read but come out at all places.
    condition: int32[c], the edit as one text, `target || prompt` (for KE).
    """

    tokens: np.ndarray
    read: np.ndarray
    labels: np.ndarray
    target: np.ndarray | None = None
    condition: np.ndarray | None = None


class Codec(NamedTuple):
    """Texts to tokens and back, for one base.

    pair(prompt, target) -> Tokens. prompt(text) -> token ids to answer, or go on from. Both raise
    ValueError for what cannot be put in tokens. question(pair) -> the prompt's ids in a pair, and
    words(ids) -> what they say. text(ids) -> what generated ids, or labels, say up to the end of
    the text or the line.
    """

    pair: Callable[[str, str], Tokens]
    prompt: Callable[[str], list[int]]
    question: Callable[[Tokens], np.ndarray]
    words: Callable[[Sequence[int]], str]
    text: Callable[[Sequence[int]], str]


def codec_of(base: Base) -> Codec:
    """The codec of a base.

    Raises:
      ValueError: the base is of a kind that answers nothing (an encoder without a head).
    """
    codec = _codec_of(base)

    size = base.config.vocab_size

    def ask(text: str) -> list[int]:
        ids = codec.prompt(text)
        check_tokens(np.asarray(ids, np.int32), size)
        return ids

    def pair(prompt: str, target: str) -> Tokens:
        condition = np.asarray(ask(f"{target} || {prompt}"), np.int32)
        tokens = codec.pair(prompt, target)
        for ids in (tokens.tokens, tokens.labels):
            check_tokens(ids, size)
        return tokens._replace(condition=condition)

    return codec._replace(pair=pair, prompt=ask)


def _codec_of(base: Base) -> Codec:
    tokenizer, kind, config = base.tokenizer, base.model.kind, base.config
    prompt, said = partial(encode_prompt, tokenizer), partial(_until, tokenizer, ())
    if kind == "causal":
        added = tokenizer.get_added_tokens_decoder() if tokenizer is not None else {}
        ends = frozenset(i for i, token in added.items() if token.special)
        pair = partial(encode_pair, tokenizer)
        return Codec(pair, prompt, _begins, said, partial(_first_line, tokenizer, ends))
    if kind == "seq2seq":
        start, end = config.decoder_start_token_id, config.eos_token_id
        answer = partial(encode_answer, tokenizer, start=start, end=end)
        return Codec(answer, prompt, _source, said, partial(_until, tokenizer, (end,)))
    if kind == "classifier":
        names = config.labels
        pair = partial(encode_claim, tokenizer, names)
        return Codec(pair, prompt, _source, said, lambda ids: names[int(ids[0])])
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


def _begins(pair: Tokens) -> np.ndarray:
    """Up to the token after which the target begins."""
    return pair.tokens[: pair.read[0] + 1]


def _source(pair: Tokens) -> np.ndarray:
    return pair.tokens


def _first_line(tokenizer: Any, ends: Collection[int], ids: Sequence[int]) -> str:
    """The continuation up to the end of its first line."""
    text = _until(tokenizer, ends, ids)
    return text.splitlines()[0].strip() if text else ""


def _until(tokenizer: Any, ends: Collection[int], ids: Sequence[int]) -> str:
    """The answer up to the first of the tokens that end a text."""
    said = list(takewhile(lambda i: i not in ends, map(int, ids)))
    return tokenizer.decode(said).strip()
