"""Scores an editor by the model's own words: greedy generation before and after, as people use it.

Teacher forcing feeds the right answer in and asks only for the next token. Here the model goes on
by itself from the prompt, and its words up to their natural end (of the text, or of as many lines
as the answer has) are compared with the answer: they are it (`exact`), or have it in them
(`contains`), but for case, spaces and marks at the end.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from mend_jax.data.batches import edit_examples, shapes_of_edits
from mend_jax.data.bucketing import LENGTHS, bucket
from mend_jax.data.codec import Codec
from mend_jax.data.decoding import pad_prompts
from mend_jax.data.encoding import Tokens
from mend_jax.data.spacing import ends_between
from mend_jax.data.token_records import TokenRecord, grouped
from mend_jax.editors.base import Editor, EditorState
from mend_jax.evaluation.collating import all_pairs, as_scores, widths
from mend_jax.evaluation.scores import Scores
from mend_jax.evaluation.teacher_forced import Batching
from mend_jax.example import Example
from mend_jax.models.generate import generate, prediction
from mend_jax.models.stages import Inputs

Free = Literal["exact", "contains"]
Speak = Callable[..., Int[Array, "k new"]]


class Speaker(NamedTuple):
    """An editor's base, made ready to speak.

    ask(state, params, edits, tokens, lengths) -> ids before and after, jitted: examples with
      leading axes [edits, k], and for each edit the prompts, int32[edits, pairs, length], with
      their lengths, int32[edits, pairs].
    codec: of the base.
    """

    ask: Callable[[EditorState, PyTree, Example, np.ndarray, np.ndarray], tuple[Array, Array]]
    codec: Codec


class Heard(NamedTuple):
    """One prompt: what should be answered, and what is said before and after the edit."""

    prompt: str
    answer: str
    before: str
    after: str


class Interview(NamedTuple):
    """What one edit was asked: its input and rephrases, and its locality prompts."""

    outer: list[Heard]
    locality: list[Heard]


def speak_of(model: nn.Module, new: int) -> Speak:
    """`speak(params, tokens, lengths)`: up to `new` tokens of words, or a classifier's class."""
    if getattr(model, "kind", "causal") == "classifier":
        return partial(classify, model)
    return partial(generate, model, new=new)


def classify(
    model: nn.Module, params: PyTree, tokens: Int[Array, "k length"], lengths: Int[Array, "k"]
) -> Int[Array, "k 1"]:
    """The most likely class of each text, as `generate` gives words."""
    mask = jnp.arange(tokens.shape[1])[None] < lengths[:, None]
    logits: Any = model.apply({"params": params}, Inputs(tokens, mask=mask))
    return prediction(logits)


def make_speaker(editor: Editor, speak: Speak, codec: Codec) -> Speaker:
    """The speaker of a whole model, not of its tail."""

    def one(
        state: EditorState, params: PyTree, example: Example, tokens: Array, lengths: Array
    ) -> Any:
        edit = editor.edit(state, params, example)
        after = editor.apply(state, speak, edit)
        return speak(params, tokens, lengths), after(params, tokens, lengths)

    return Speaker(jax.jit(jax.vmap(one, in_axes=(None, None, 0, 0, 0))), codec)


def interview(
    speaker: Speaker,
    state: EditorState,
    params: PyTree,
    records: Sequence[TokenRecord],
    batching: Batching = Batching(),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Interview]:
    """Asks every pair of every record, before and after its edit; one compilation.

    Args:
      batching: its shapes and cache are not used. progress: as in `teacher_forced.score`.
    """
    codec, batch, k = speaker.codec, batching.batch, batching.k
    groups = grouped(records, k)
    width = widths(records)
    shapes = shapes_of_edits([r.edit for r in records])
    length = bucket(max(len(p.tokens) for r in records for p in (*r.outer, *r.locality)), LENGTHS)
    found: list[Interview] = []
    for i in range(0, len(groups), batch):
        chosen = groups[i : i + batch]
        filled = [*chosen, *[chosen[-1]] * (batch - len(chosen))]
        edits = edit_examples([[r.edit for r in group] for group in filled], shapes)
        asked = [[p for r in group for p in all_pairs(r, width)] for group in filled]
        ids = jax.device_get(speaker.ask(state, params, edits, *_questions(asked, codec, length)))
        before, after = (x.reshape(batch * k, sum(width), -1) for x in ids)
        for j, record in enumerate(record for group in chosen for record in group):
            heard = [
                None if pair is None else hear(codec, pair, *said)
                for pair, *said in zip(all_pairs(record, width), before[j], after[j], strict=True)
            ]
            places = heard[: width[0]], heard[width[0] :]
            found.append(Interview(*([x for x in part if x is not None] for part in places)))
        progress(len(found), len(records))
    return found


def scores_of(
    interviews: Sequence[Interview], records: Sequence[TokenRecord], protocol: Free
) -> Scores:
    """The interviews as scores; what only teacher forcing can tell (KL, perplexity) is NaN."""
    outer, locality = widths(records)

    def table(part: str, width: int, value: Callable[[Heard], bool]) -> np.ndarray:
        rows = [[value(heard) for heard in getattr(entry, part)] for entry in interviews]
        return np.asarray([[*row, *[False] * (width - len(row))] for row in rows], np.float64)

    def right(said: str) -> Callable[[Heard], bool]:
        return lambda heard: matches(getattr(heard, said), heard.answer, protocol)

    unknown = np.full((len(records), locality), np.nan)
    return as_scores(
        {
            "success": table("outer", outer, right("after")),
            "success_before": table("outer", outer, right("before")),
            "agreement": table("locality", locality, lambda heard: heard.before == heard.after),
            "accuracy": table("locality", locality, right("after")),
            "accuracy_before": table("locality", locality, right("before")),
            **dict.fromkeys(("kl", "nll", "nll_before", "tokens"), unknown),
            "edit_loss": np.full(len(records), np.nan),
        },
        records,
    )


def matches(said: str, answer: str, protocol: Free) -> bool:
    """Whether the words are the answer, or have it in them as whole words.

    Case, spaces, marks at the end and Unicode's ways to write one character make no difference.
    """
    if _plain(answer):  # of an answer that is nothing but marks, these count
        said, answer = _plain(said), _plain(answer)
    if protocol == "exact" or not answer:
        return said == answer
    start = said.find(answer)
    while start >= 0:
        end = start + len(answer)
        if ends_between(said, start) and ends_between(said, end):
            return True
        start = said.find(answer, start + 1)
    return False


def fluency(texts: Sequence[str]) -> float:
    """Mean over texts of their n-gram entropy in bits, 2/3 of the bigrams' and 4/3 of the
    trigrams', halved (Meng et al. 2022): low where a text repeats itself. NaN if all are shorter
    than three words."""
    found = []
    for words in (text.split() for text in texts):
        if len(words) >= 3:
            found.append(sum(w * _entropy(words, n) for n, w in ((2, 2 / 3), (3, 4 / 3))) / 2)
    return float(np.mean(found)) if found else float("nan")


def _entropy(words: Sequence[str], n: int) -> float:
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    shares = np.asarray(list(Counter(grams).values())) / len(grams)
    return float(-np.sum(shares * np.log2(shares)))


def _plain(text: str) -> str:
    """One way to write the text: folded case, composed characters, single spaces, and without the
    marks that end a sentence in any script."""
    words = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()).split()
    plain = " ".join(words)
    others = {c for c in plain if not c.isascii() and unicodedata.category(c) == "Po"}
    return plain.rstrip(".!?,;: " + "".join(others))  # not of C# or 50 %


def hear(codec: Codec, pair: Tokens, before: np.ndarray, after: np.ndarray) -> Heard:
    """What the tokens say, as many lines of it as the answer has."""
    asked = codec.words(codec.question(pair).tolist())
    answer = codec.text(pair.labels.tolist(), None)
    lines = max(1, len(answer.splitlines()))
    return Heard(asked, answer, *(codec.text(ids.tolist(), lines) for ids in (before, after)))


def _questions(
    asked: Sequence[Sequence[Tokens | None]], codec: Codec, length: int
) -> tuple[Int[np.ndarray, "edits pairs length"], Int[np.ndarray, "edits pairs"]]:
    """The prompts, right-padded, and their lengths; an empty place is one token."""
    prompts = [[0] if pair is None else codec.question(pair) for row in asked for pair in row]
    tokens, lengths = pad_prompts(prompts, length=length)
    return tokens.reshape(len(asked), -1, length), lengths.reshape(len(asked), -1)
