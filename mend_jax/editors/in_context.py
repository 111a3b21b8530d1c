"""Editing in context: the edit is a text that stands before every question, and no weight changes.

The plainest form of IKE (Zheng et al. 2023, "Can We Edit Factual Knowledge by In-Context
Learning?"), which shows demonstrations as well:

    prompt target <after> question        (of an encoder-decoder, all of it in the source)

It acts on every question, whatever that asks. The texts are joined as tokens, inside of the jitted
program: each piece says which of its tokens count, and those that do are moved together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray, PyTree

from mend_jax.editors.base import Editor, EditorState, calibrate_nothing, observe_nothing
from mend_jax.editors.method import Ground, Method
from mend_jax.example import Example, Pair
from mend_jax.objectives import IGNORED, Outputs
from mend_jax.sites import Sites


class Piece(NamedTuple):
    """Of each text some tokens, and which of them count; the others are as if not there."""

    tokens: Int[Array, "*k length"]
    counts: Bool[Array, "*k length"]


def in_context(
    outputs: Outputs,
    at: Sites = (),
    *,
    after: Sequence[int] = (),
    marks: Sequence[int] = (0, 0),
) -> Editor:
    """The editor; an edit is a `Piece`: the text of the k pairs of an example, one after another.

    Its `apply` takes functions of (params, pair), and those of (params, tokens, lengths) that make
    texts (`generate`); both of the whole base.

    Args:
      at: not used; it edits no site.
      after: tokens between the text of an edit and what follows it.
      marks: how many the tokenizer puts before a text, and after it. All pieces are one text.

    Raises:
      ValueError: the base does not answer in words. (from its functions) What they are given are
        not tokens but states: of a tail, say.
    """
    del at
    if outputs.kind not in ("causal", "seq2seq"):
        raise ValueError(
            "in_context puts a text before questions that are answered in words: it is for causal "
            f"models and encoder-decoders, not for a {outputs.kind!r} model"
        )
    first, last = marks
    is_source = outputs.kind == "seq2seq"

    def init(key: PRNGKeyArray, params: PyTree, example: Example) -> EditorState:
        del key, params
        check_tokens_of(example.edit)
        return EditorState({}, {})

    def edit(state: EditorState, params: PyTree, example: Example) -> Any:
        del state, params
        check_tokens_of(example.edit)
        pieces = source_and_answer if is_source else prompt_and_answer
        text = unmarked(joined(*pieces(example.edit, last)), first, keep_first=True)
        end = jnp.broadcast_to(jnp.asarray(after, jnp.int32), (len(text.tokens), len(after)))
        whole = joined(text, Piece(end, jnp.ones(end.shape, bool)))
        return packed(jax.tree.map(lambda x: x.reshape(-1), whole))

    def before(edit: Piece, asked: Piece) -> Piece:
        k = len(asked.tokens)
        text = jax.tree.map(lambda x: jnp.broadcast_to(x, (k, *x.shape)), edit)
        return joined(text, unmarked(asked, first))

    def with_text(edit: Piece, pair: Pair) -> Pair:
        check_tokens_of(pair)
        inputs = pair.inputs
        whole = before(edit, of_inputs(pair))
        if inputs.read is not None and not is_source:
            place = jnp.cumsum(whole.counts, axis=-1, dtype=jnp.int32) - 1
            was = jnp.asarray(inputs.read) + len(edit.tokens)
            inputs = inputs._replace(read=jnp.take_along_axis(place, was, axis=1))
        tokens, counts = packed(whole)
        return pair._replace(inputs=inputs._replace(x=tokens, mask=counts))

    def apply(state: EditorState, function: Callable[..., Any], edit: Any) -> Callable[..., Any]:
        del state

        def told(params: PyTree, asked: Any, *lengths: Any) -> Any:
            if isinstance(asked, Pair):
                return function(params, with_text(edit, asked))
            tokens = jnp.asarray(asked)
            counts = jnp.arange(tokens.shape[1])[None] < jnp.asarray(lengths[0])[:, None]
            whole = packed(before(edit, Piece(tokens, counts)))
            return function(params, whole.tokens, jnp.sum(whole.counts, axis=1, dtype=jnp.int32))

        return told

    options = {"after": list(after), "marks": list(marks)}
    config = {"editor": "in_context", "options": options}
    return Editor(init, calibrate_nothing, edit, observe_nothing(edit), apply, config)


def of_inputs(pair: Pair) -> Piece:
    """What a model reads of each pair."""
    x, mask = jnp.asarray(pair.inputs.x), pair.inputs.mask
    return Piece(x, jnp.ones(x.shape, bool) if mask is None else jnp.asarray(mask))


def prompt_and_answer(pair: Pair, last: int) -> tuple[Piece, Piece]:
    """Of a causal model, whose pairs are one text; `last` marks end it."""
    read, labels = jnp.asarray(pair.inputs.read), jnp.asarray(pair.labels)
    whole = of_inputs(pair)
    prompt = jnp.arange(whole.tokens.shape[1])[None] <= read[:, :1]
    return whole._replace(counts=whole.counts & prompt), answer_of(labels, last)


def source_and_answer(pair: Pair, last: int) -> tuple[Piece, Piece]:
    """Of an encoder-decoder, whose answers end with one token that ends them."""
    source = of_inputs(pair)
    left = jnp.sum(source.counts, axis=1, keepdims=True) - jnp.cumsum(source.counts, axis=1)
    counts = source.counts & (left >= last)
    return source._replace(counts=counts), answer_of(jnp.asarray(pair.labels), 1)


def answer_of(labels: Int[Array, "k answers"], last: int) -> Piece:
    """All but its last tokens."""
    scored = labels != IGNORED
    left = jnp.sum(scored, axis=1, keepdims=True) - jnp.cumsum(scored, axis=1)
    return Piece(jnp.where(scored, labels, 0), scored & (left >= last))


def unmarked(text: Piece, first: int, keep_first: bool = False) -> Piece:
    """Without the marks before each text; or before each but the first one."""
    own = jnp.cumsum(text.counts, axis=1) > first
    if keep_first:
        own |= (jnp.arange(len(own)) == 0)[:, None]
    return text._replace(counts=text.counts & own)


def joined(one: Piece, other: Piece) -> Piece:
    """Each text of the one and then that of the other."""
    return Piece(*(jnp.concatenate(parts, axis=-1) for parts in zip(one, other, strict=True)))


def packed(text: Piece) -> Piece:
    """The tokens that count, moved together at the beginning."""
    order = jnp.argsort(~text.counts, axis=-1, stable=True)
    return Piece(*(jnp.take_along_axis(x, order, axis=-1) for x in text))


def check_tokens_of(pair: Pair) -> None:
    """Raises ValueError unless the pair holds tokens, from the beginning of a text on."""
    if jnp.ndim(pair.inputs.x) != 2 or pair.inputs.positions is not None:
        raise ValueError(
            "in_context puts tokens before tokens: it needs the whole base, and was given what "
            "comes out of a part of it"
        )


@dataclass(frozen=True, kw_only=True)
class InContextOptions:
    """Options of editing in context."""

    after: str = ".\n"
    """What stands between the edit's text and the question; by default a full stop and a new
    line."""


def _choose(options: InContextOptions, ground: Ground) -> dict[str, Any]:
    return {"after": ground.tokens(options.after), "marks": list(ground.marks())}


METHOD = Method(in_context, InContextOptions, _choose, sites=lambda options, model, at: ())
