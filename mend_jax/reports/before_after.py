"""The model's own words before and after an edit: greedy answers to chosen prompts."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from mend_jax.data.batches import edit_examples, shapes_of_edits
from mend_jax.data.bucketing import LENGTHS, bucket
from mend_jax.data.codec import codec_of
from mend_jax.data.decoding import pad_prompts
from mend_jax.data.records import KINDS, Record, rephrases_of
from mend_jax.data.writable import warn_of
from mend_jax.editors.held import Slots
from mend_jax.evaluation.generation import speak_of
from mend_jax.example import Example
from mend_jax.models.registry import Base
from mend_jax.programs import jit_quickly
from mend_jax.reports.saying import sayer
from mend_jax.saved.directory import SavedEditor
from mend_jax.saved.parts import entered, trunk_of

SIDE_BY_SIDE = 16
"""Prompts that are asked at a time."""


class Answer(NamedTuple):
    """One prompt and what the model goes on with, unedited and edited."""

    prompt: str
    before: str
    after: str


def edit_example(base: Base, prompt: str, target: str, separator: str | None = None) -> Example:
    """An example that holds one edit pair, padded to a bucket, and nothing to score it with.

    Args:
      separator: what stands between prompt and target; None leaves it to `data.spacing`.

    Raises:
      UnwritableError: the tokenizer has no tokens for the target, or for all of the prompt; of what
        is lost of a prompt otherwise, a warning is given.
    """
    pair = codec_of(base).pair(prompt, target, separator)
    warn_of(pair.lost, prompt)
    one: Example = jax.tree.map(lambda x: x[0], edit_examples([[pair]], shapes_of_edits([pair])))
    return one


class BeforeAfter(NamedTuple):
    """A saved editor made ready to edit and to speak; what it takes is compiled once per padded
    shape.

    edit(prompt, target, separator=None) -> edit. ask(edit, prompts, lines=1) -> answers of so many
    lines, before and after; say(edit, prompts, lines=1) -> those after alone, as texts.
    """

    edit: Callable[..., Any]
    ask: Callable[..., list[Answer]]
    say: Callable[..., list[str]]


def before_after_of(saved: SavedEditor, new_tokens: int = 8) -> BeforeAfter:
    """Compiles the editor and the decoder of `saved`, as they are called.

    Args:
      new_tokens: how many tokens an answer has at most; it ends with its lines.
    """
    codec, params, model = codec_of(saved.base), saved.base.params, saved.base.model
    speak, after = speak_of(model, new_tokens), sayer(saved, new_tokens)
    make_edit, trunk, before = jit_quickly(saved.editor.edit), trunk_of(saved), jit_quickly(speak)

    def edit(prompt: str, target: str, separator: str | None = None) -> Any:
        example = edit_example(saved.base, prompt, target, separator)
        return make_edit(saved.state, params, entered(trunk, params, example))

    def spoken(speaking: Callable[..., Any], prompts: Sequence[str], lines: int) -> list[str]:
        ids = [codec.prompt(prompt) for prompt in prompts]
        rows = min(len(ids), SIDE_BY_SIDE)
        length = bucket(max(map(len, ids), default=1), LENGTHS)
        found: list[str] = []
        for i in range(0, len(ids), SIDE_BY_SIDE):
            chosen = ids[i : i + rows]
            padded = pad_prompts(chosen, rows, length)

            def enough(said: Int[np.ndarray, "k said"], rows: int = len(chosen)) -> bool:
                return all(codec.ended(one, lines) for one in said[:rows])

            said = jax.device_get(speaking(*padded, enough=enough))
            found += [codec.text(one, lines) for one in said[: len(chosen)]]
        return found

    def say(edit: Any, prompts: Sequence[str], lines: int = 1) -> list[str]:
        for prompt in prompts:
            warn_of(codec.lost(prompt), prompt)
        return spoken(partial(after, saved.state, params, edit), prompts, lines)

    def ask(edit: Any, prompts: Sequence[str], lines: int = 1) -> list[Answer]:
        edited = say(edit, prompts, lines)
        if isinstance(edit, Slots):  # by the same program, with none of them in use
            none = edit._replace(used=jnp.zeros_like(edit.used))
            plain = spoken(partial(after, saved.state, params, none), prompts, lines)
        else:
            plain = spoken(lambda *asked, enough: before(params, *asked), prompts, lines)
        return [Answer(*one) for one in zip(prompts, plain, edited, strict=True)]

    return BeforeAfter(edit, ask, say)


def prompts_of(record: Record) -> list[tuple[str, str]]:
    """(kind, prompt) of an edit prompt, a rephrase, and a locality prompt of each kind."""
    chosen = [("edit", record.prompt)]
    chosen += [("rephrase", rephrase.prompt) for rephrase in rephrases_of(record)[:1]]
    for kind in KINDS:
        chosen += [(kind, x.prompt) for x in record.locality if (x.kind or KINDS[0]) == kind][:1]
    return chosen
