"""How texts become tokens, for each kind of model: a prompt and what should follow it, as one pair.

    causal       the first n + a - 1 tokens of prompt, separator and target; `read` says where the a
                 logits stand that predict the target
    seq2seq      the prompt is the source; the decoder says the target and the end of the text
    classifier   the prompt is the text; the target is the name of a class

Texts are taken as they are written. Here, once, it is looked at whether the tokens say them: a
target that the tokenizer cannot write is refused, since its edit would teach the token for
"unknown"; of a prompt, the lost characters are told, and it is refused if nothing of it is left.
"""

from collections.abc import Callable, Collection, Sequence
from functools import cache, partial
from itertools import groupby, takewhile
from typing import Any, NamedTuple

import numpy as np

from mend_jax.data.chat import special_tokens, text_of, turn_of
from mend_jax.data.encoding import (
    Ids,
    Tokens,
    encode_answer,
    encode_claim,
    encode_pair,
    encode_prompt,
)
from mend_jax.data.spacing import separator_of
from mend_jax.data.writable import (
    Writing,
    check_prompt,
    check_target,
    lost_of,
    writing_of,
)
from mend_jax.models.generate import LOST
from mend_jax.models.layers import check_tokens
from mend_jax.models.registry import Base


class Codec(NamedTuple):
    """Texts to tokens and back, for one base.

    pair(prompt, target, separator=None) -> Tokens; without a separator, `spacing` finds one (an
    encoder-decoder and a classifier join nothing). prompt(text) -> token ids to answer, or go on
    from. Both raise ValueError for what cannot be put in tokens, UnwritableError if it is the
    tokenizer that cannot. lost(text) -> the characters of a prompt that it has no tokens for.
    question(pair) -> the prompt's ids in a pair, and words(ids) -> what they say.
    text(ids, lines=1) -> what generated ids say up to the end of the text or, of a causal model,
    of so many lines; None for all of them, as labels have them. ended(ids, lines=1) -> whether that
    is all it can be, whatever ids follow.
    """

    pair: Callable[..., Tokens]
    prompt: Callable[[str], list[int]]
    lost: Callable[[str], str]
    question: Callable[[Tokens], np.ndarray]
    words: Callable[[Ids], str]
    text: Callable[..., str]
    ended: Callable[..., bool]


def codec_of(base: Base) -> Codec:
    """The codec of a base.

    Raises:
      ValueError: the base is of a kind that answers nothing (an encoder without a head).
    """
    tokenizer, kind, config = base.tokenizer, base.model.kind, base.config
    if kind not in ("causal", "seq2seq", "classifier"):
        raise ValueError(
            f"{base.name!r} is a {kind!r} model: it gives no answers to edit (causal and "
            "encoder-decoder language models and classifiers do)"
        )
    writing = writing_of(tokenizer)
    prompt = partial(encode_prompt, tokenizer, goes_on=kind == "causal")
    said = partial(_until, writing, ())
    lost = partial(lost_of, writing)
    pair = partial(encode_pair, tokenizer)
    codec = Codec(pair, prompt, lost, _source, said, said, _chosen)
    checked = partial(_checked, base, writing)
    if kind == "causal":
        added = tokenizer.get_added_tokens_decoder() if tokenizer is not None else {}
        special = {i: token.content for i, token in added.items() if token.special}
        ends = frozenset(special) - {writing.unknown}
        joined = partial(_joined, tokenizer, tuple(special.values()))
        text, ended = partial(_lines, writing, ends), partial(_lines_ended, writing, ends)
        return checked(codec._replace(pair=joined, question=_begins, text=text, ended=ended))
    if kind == "seq2seq":
        start, end = config.decoder_start_token_id, config.eos_token_id
        answer = partial(encode_answer, tokenizer, start=start, end=end)
        text, ended = partial(_whole, writing, (end,)), partial(_whole_ended, (end,))
        return checked(codec._replace(pair=_apart(answer), text=text, ended=ended))
    names = config.labels
    claim = _apart(partial(encode_claim, tokenizer, names))
    named = codec._replace(pair=claim, text=partial(_class_name, names))
    return checked(named, written=False)


def _checked(base: Base, writing: Writing, codec: Codec, written: bool = True) -> Codec:
    """The codec that looks at what the tokenizer makes of its texts, and adds the condition. A chat
    is what the base's template makes of it; if answers end their turns, the target has that mark.

    Args:
      written: whether a target is a text, and not the name of a class.
    """

    def within(ids: Any) -> Any:
        check_tokens(np.asarray(ids, np.int32), base.config.vocab_size)
        return ids

    def prompt(text: str) -> list[int]:
        text = text_of(base, text)
        check_prompt(writing, text)
        return within(codec.prompt(text))

    marks = special_tokens(base.tokenizer) if base.chat.ends else []
    model_turn = cache(partial(turn_of, base))  # a template takes seconds to import what reads it

    def end_of(prompt: str) -> str:
        """The mark after an answer that is all of the model's turn; nothing after others."""
        if not any(mark in prompt for mark in marks):
            return ""
        begin, end = model_turn()
        return end if begin and prompt.endswith(begin) else ""

    def pair(prompt: str, target: str, separator: str | None = None) -> Tokens:
        prompt = text_of(base, prompt)
        lost = check_prompt(writing, prompt)
        if written:
            check_target(writing, target)
        condition = np.asarray(within(codec.prompt(f"{target} || {prompt}")), np.int32)
        tokens = codec.pair(prompt, target + end_of(prompt), separator)
        within(tokens.tokens)
        within(tokens.labels)
        return tokens._replace(condition=condition, lost=lost)

    def lost(text: str) -> str:
        return codec.lost(text_of(base, text))

    return codec._replace(prompt=prompt, pair=pair, lost=lost)


def _joined(
    tokenizer: Any, marks: tuple[str, ...], prompt: str, target: str, separator: str | None
) -> Tokens:
    """A pair as one text, with what its writer, or `spacing`, puts between."""
    between = separator_of(prompt, target, marks) if separator is None else separator
    return encode_pair(tokenizer, prompt, target, between)


def _apart(pair: Callable[[str, str], Tokens]) -> Callable[..., Tokens]:
    """A pair of two texts, between which nothing stands."""
    return lambda prompt, target, separator=None: pair(prompt, target)


def _begins(pair: Tokens) -> np.ndarray:
    """Up to the token after which the target begins."""
    return pair.tokens[: pair.read[0] + 1]


def _source(pair: Tokens) -> np.ndarray:
    return pair.tokens


def _lines(
    writing: Writing, ends: Collection[int], ids: Ids, lines: int | None = 1
) -> str:
    """The continuation up to the end of its first lines."""
    return "\n".join(_until(writing, ends, ids).splitlines()[:lines]).strip()


def _lines_ended(
    writing: Writing, ends: Collection[int], ids: Ids, lines: int | None = 1
) -> bool:
    """Whether the text has ended, or a line has begun after the first ones."""
    begun = len(_until(writing, ends, ids).splitlines())
    return _whole_ended(ends, ids) or (lines is not None and begun > lines)


def _whole(
    writing: Writing, ends: Collection[int], ids: Ids, lines: int | None = 1
) -> str:
    """The answer of a model that ends its answers, however many lines it has."""
    return _until(writing, ends, ids)


def _whole_ended(ends: Collection[int], ids: Ids, lines: int | None = 1) -> bool:
    """Whether the text has ended."""
    return any(i in (LOST, *ends) for i in map(int, ids))


def _chosen(ids: Ids, lines: int | None = 1) -> bool:
    """Whether there is a class."""
    return len(ids) > 0


def _class_name(names: Sequence[str], ids: Ids, lines: int | None = 1) -> str:
    """The class that was chosen; nothing, if none could be."""
    return names[int(ids[0])] if ids[0] != LOST else ""


def _until(writing: Writing, ends: Collection[int], ids: Ids) -> str:
    """The answer up to the first of the tokens that end a text.

    A token for "unknown" is shown, which the tokenizer's own decoder would leave out: what is said
    with it is not what is said without it.
    """
    kept = takewhile(lambda i: i not in (LOST, *ends), map(int, ids))
    tokenizer, unknown = writing.tokenizer, writing.unknown
    runs = groupby(kept, lambda i: i == unknown)
    parts = [
        tokenizer.id_to_token(unknown) if lost else tokenizer.decode(list(run))
        for lost, run in runs
    ]
    return "".join(parts).strip()
