"""GRACE: what an entry does where it is met, and entries to each other; the rules by hand."""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import assert_close, assert_equal
from conftest import Tiny

import mend_jax as mj
from mend_jax.data.batches import edit_examples, shapes_of_edits
from mend_jax.data.encoding import Tokens
from mend_jax.editors.base import Editor, EditorState
from mend_jax.editors.codebook import NO_ENTRY, Entry, codebook, looked_up, settled
from mend_jax.editors.grace import GRID, METHOD, GraceOptions, asked_at, grace, looks, parting
from mend_jax.editors.held import none_like
from mend_jax.models import bert, gpt2, t5
from mend_jax.models.generate import generate
from mend_jax.objectives import answered, outputs_of

SITE = "layers_2/mlp/down_proj"
EARLY = "layers_1/mlp/down_proj"
NOTHING = EditorState({}, {})


def toy(*entries: tuple[float, str]) -> Entry:
    """Entries on a line, each with the radius 1 and an answer of one letter."""
    places, answers = zip(*entries, strict=True)
    return Entry(
        jnp.asarray(places, jnp.float32)[:, None],
        jnp.arange(len(entries), dtype=jnp.float32)[:, None],
        jnp.ones(len(entries)),
        jnp.asarray([[ord(x), -100] for x in answers], jnp.int32),
    )


LINE = toy((0, "a"), (1.5, "a"), (10, "b"), (11, "a"), (3.4, "a"), (3.5, "b"), (1.2, "a"))
"""Added; expands the first to 1.5; added; splits the one before, .5 each; added, since 3.4 is more
than 1.5 + 1; splits that one, .05 each; is within the first already."""
RADII = (1.5, NO_ENTRY, 0.5, 0.5, 0.05, 0.05, NO_ENTRY)


def test_entries_are_added_expanded_and_split_in_their_order():
    used = jnp.ones(len(RADII), bool)
    np.testing.assert_allclose(settled(LINE, used), RADII, atol=1e-6)
    for n in range(1, len(RADII)):  # what an entry makes of those before it
        some = settled(LINE, jnp.arange(len(RADII)) < n)
        np.testing.assert_array_equal(some[n:], NO_ENTRY)
    np.testing.assert_allclose(some[:6], [1.5, NO_ENTRY, 0.5, 0.5, 0.05, 0.05], atol=1e-6)
    np.testing.assert_allclose(settled(LINE, jnp.arange(7) < 5)[:5], (1.5, -1, 0.5, 0.5, 1))
    back = jax.tree.map(lambda x: x[:2][::-1], LINE)
    np.testing.assert_array_equal(settled(back, used[:2]), [1.5, NO_ENTRY])


def test_a_held_codebook_is_what_its_entries_make_of_each_other():
    book, kept = codebook(), [jax.tree.map(lambda x, i=i: x[i], LINE) for i in range(7)]
    held = book.hold(none_like(kept[0]), 8)
    add = jax.jit(book.add)
    for one in kept:
        held = add(held, one)
    assert add._cache_size() == 1
    np.testing.assert_allclose(book.apply(held).radius[:7], RADII, atol=1e-6)
    at_once = book.hold(LINE, 8)
    assert_equal(book.apply(at_once), book.apply(held))
    without = jax.jit(book.remove)(held, 3)  # whom it split, has its radius again
    np.testing.assert_array_equal(book.list(without), [x not in (3, 7) for x in range(8)])
    np.testing.assert_allclose(book.apply(without).radius[2], 1.0)
    again = add(without, kept[3])  # the last now, though its slot is not
    assert float(book.apply(again).key[6, 0]) == 11.0
    radii = [*RADII, NO_ENTRY]
    np.testing.assert_allclose(sorted(book.apply(again).radius), sorted(radii), atol=1e-6)
    full = book.hold(LINE, 7)
    assert_equal(add(full, kept[0]), full)


class Setting(NamedTuple):
    """GRACE on the tiny model, its edits of four pairs, each alone, and other texts."""

    editor: Editor
    outputs: mj.Outputs
    pairs: mj.Example
    edits: Entry
    others: mj.Pair


def tokens(rng: np.random.Generator, prompt: int, answers: int) -> Tokens:
    whole = rng.integers(61, size=prompt + answers).astype(np.int32)
    read = np.arange(prompt - 1, prompt + answers - 1, dtype=np.int32)
    return Tokens(whole[:-1], read, whole[prompt:])


def examples_of(pairs: list[Tokens]) -> mj.Example:
    return jax.tree.map(jnp.asarray, edit_examples([[p] for p in pairs], shapes_of_edits(pairs)))


@pytest.fixture(scope="module")
def setting(tiny: Tiny) -> Setting:
    rng = np.random.default_rng(0)
    outputs = outputs_of(tiny.model)
    editor = grace(outputs, (SITE,), radius=0.5)
    pairs = examples_of([tokens(rng, 3 + i, 1) for i in range(4)])
    edits = jax.jit(jax.vmap(editor.edit, (None, None, 0)))(NOTHING, tiny.params, pairs)
    others = examples_of([tokens(rng, 6, 1) for _ in range(4)]).edit
    return Setting(editor, outputs, pairs, edits, jax.tree.map(lambda x: x[:, 0], others))


def test_an_edit_is_the_same_alone_and_is_answered(setting: Setting, tiny: Tiny):
    editor, outputs, pairs, edits, _ = setting
    assert edits.key.shape == (4, 1, 46) and edits.value.shape == (4, 1, 24)
    make = jax.jit(editor.edit)

    @jax.jit
    def said(params: Any, edit: Entry, pair: mj.Pair) -> Any:
        before, after = outputs.logits, editor.apply(NOTHING, outputs.logits, edit)
        return [answered(logits(params, pair), pair.labels) for logits in (before, after)]

    for i in range(4):
        example, edit = (jax.tree.map(lambda x, i=i: x[i], x) for x in (pairs, edits))
        assert_close(make(NOTHING, tiny.params, example), edit, 1e-4)
        before, after = said(tiny.params, edit, example.edit)
        assert before[0] == 0 and after[0] == 1


def test_its_own_words_are_those_with_the_answer_fed_in(tiny: Tiny):
    """A wide radius, so that the codebook acts on what is said, too; in a cache, token by token."""
    outputs, rng, new = outputs_of(tiny.model), np.random.default_rng(1), 4
    editor = grace(outputs, (EARLY,), radius=6.5, steps=3)
    pair = tokens(rng, 4, 1)
    example = jax.tree.map(lambda x: x[0], examples_of([pair]))
    edit = jax.jit(editor.edit)(NOTHING, tiny.params, example)
    speak = editor.apply(NOTHING, partial(generate, tiny.model, new=new), edit)
    said = jax.jit(speak)(tiny.params, pair.tokens[None], np.asarray([4], np.int32))
    text = np.concatenate([pair.tokens[None], said], axis=1)
    fed = mj.Pair(mj.Inputs(text), np.zeros((1, 8), np.int32))
    logits = jax.jit(editor.apply(NOTHING, outputs.logits, edit))(tiny.params, fed)
    np.testing.assert_array_equal(jnp.argmax(logits[0, 3:-1], axis=-1), said[0])
    everywhere = mj.Pair(mj.Inputs(np.repeat(text, 8, 0), np.arange(8)[:, None]), fed.labels)
    keys, _ = jax.jit(looks(outputs, (EARLY,)))(tiny.params, everywhere)
    gaps = jnp.linalg.norm(keys - edit.key, axis=-1)
    assert gaps[3] < 1e-4 and np.any(gaps[4:] < 6.5) and np.any(gaps[4:] > 6.5), gaps


def test_outside_of_all_radii_the_base_answers_bit_for_bit(setting: Setting, tiny: Tiny):
    outputs, book = setting.outputs, jax.tree.map(lambda x: x[:, 0], setting.edits)

    @jax.jit
    def said(params: Any, book: Entry, pair: mj.Pair) -> Any:
        return looked_up(outputs.logits, SITE, book)(params, pair)

    none = book._replace(radius=jnp.full(4, NO_ENTRY))
    base = said(tiny.params, none, setting.others)
    assert_equal(said(tiny.params, book, setting.others), base)
    assert_close(base, jax.jit(outputs.logits)(tiny.params, setting.others), 1e-6)
    wide = book._replace(radius=jnp.full(4, 1e3))
    assert np.max(np.abs(said(tiny.params, wide, setting.others) - base)) > 1e-2
    own = jax.tree.map(lambda x: x[:, 0], setting.pairs.edit)
    assert np.max(np.abs(said(tiny.params, book, own) - said(tiny.params, none, own))) > 1e-2


class Lost(nn.Module):
    """One layer."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(1, name="layer")(x)


def test_within_a_radius_the_output_is_the_value_of_the_nearest_key():
    """Of a layer whose own output is NaN: where two keys are near, the nearer one and its radius
    count, however wide the other's is; what is no entry is not near."""
    params = {"layer": {"kernel": jnp.full((1, 1), jnp.nan), "bias": jnp.zeros(1)}}
    book = toy((0, "a"), (1.5, "b"), (1.7, "c"), (9, "d"))
    book = book._replace(radius=jnp.asarray([1.0, 0.1, NO_ENTRY, 3.0]))
    layer = looked_up(lambda x: Lost().apply({"params": params}, x), "layer", book)
    x = jnp.asarray([0.0, -0.9, 0.7, 0.8, 1.45, 1.7, 6.5, -1.1])[:, None]
    np.testing.assert_array_equal(
        layer(x)[:, 0], [0, 0, 0, np.nan, 1, np.nan, 3, np.nan]
    )
    nested = layer(x.reshape(2, 4, 1))  # whatever the leading axes
    np.testing.assert_array_equal(nested.reshape(8, 1), layer(x))
    with pytest.raises(mj.SiteError, match="called none of the 1 linear layers"):
        looked_up(jnp.sum, "layer", book)(x)


def test_edits_made_at_once_are_one_codebook_in_their_order(setting: Setting, tiny: Tiny):
    """Two pairs of one prompt contradict each other, and are split; of one answer, one is left."""
    make = jax.jit(setting.editor.edit)
    same = jax.tree.map(lambda x: x[jnp.asarray([1, 1, 3]), 0], setting.pairs.edit)
    edit = make(NOTHING, tiny.params, mj.Example(same, same, same))
    np.testing.assert_allclose(edit.radius, [0.5, NO_ENTRY, 0.5], atol=1e-4)
    assert_close(edit.value[2], setting.edits.value[3, 0], 1e-4)
    other = same._replace(labels=same.labels.at[1, 0].add(1))
    edit = make(NOTHING, tiny.params, mj.Example(other, other, other))
    np.testing.assert_allclose(edit.radius, [0.0, 0.0, 0.5], atol=1e-4)


def test_the_radius_that_is_best_for_training_records():
    """Of 4 rephrases 3 and of 10 locality prompts 1 are within it: (1 + 3/4) (1 - 1/10)."""

    def counted(*places: float) -> Any:
        return jnp.asarray((np.asarray(places)[None] <= GRID[:, None]).sum(1), jnp.float32)

    locality, one = counted(2.5, *range(9, 18)), jnp.ones(())
    widest = {n: GRID[GRID < n][-1] for n in (2.5, 9)}
    assert parting(counted(1, 2, 3, 50), locality, one) == widest[9]
    assert parting(counted(1, 2, 30, 50), locality, one) == widest[2.5]
    assert parting(counted(30, 40, 50, 60), locality, one) == widest[2.5]  # none: but nothing else
    assert np.isnan(parting(counted(1), locality, jnp.zeros(())))


def test_radii_are_counted_from_the_edit_to_its_pairs(setting: Setting, tiny: Tiny):
    editor = grace(setting.outputs, (SITE,))
    state = editor.init(jax.random.key(0), tiny.params, jax.tree.map(lambda x: x[0], setting.pairs))
    asked = jax.tree.map(lambda x: x[:, None], setting.others)
    both = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), setting.pairs.edit, asked)
    nothing = asked._replace(labels=jnp.full_like(asked.labels, -100))
    examples = setting.pairs._replace(outer=both, locality=nothing)
    stats = jax.jit(editor.calibrate)(state, tiny.params, examples)
    look = jax.jit(looks(setting.outputs, (SITE,)))
    edits = jax.tree.map(lambda x: x[:, 0], setting.pairs.edit)
    own, others = (look(tiny.params, pair)[0] for pair in (edits, setting.others))
    gaps = np.linalg.norm(others - own, axis=-1)
    np.testing.assert_array_equal(stats["outer"], (gaps[None] <= GRID[:, None]).sum(1))
    assert not np.any(stats["locality"]) and stats["updates"] == 0  # nothing was asked


def test_where_the_codebook_is():
    """By default as the authors have it for GPT-2 XL; whatever sites the run has."""
    gpt2_xl = gpt2.GPT2(gpt2.GPT2Config(64, 16, 4, 48, 2, 8))
    assert METHOD.sites(GraceOptions(), gpt2_xl, ("h_47/mlp/c_fc",)) == ("h_35/mlp/c_proj",)
    small = t5.T5(t5.T5Config(64, 16, 4, 32, 3, 1, 4))
    assert METHOD.sites(GraceOptions(), small, ()) == ("encoder/block_1/mlp/wo",)
    chosen = GraceOptions(site="decoder/block_0/.*/?wi.*")
    assert METHOD.sites(chosen, small, ()) == ("decoder/block_0/mlp/wi",)
    with pytest.raises(mj.SiteError, match="beside one layer; 3 sites are given"):
        METHOD.sites(GraceOptions(site="encoder/.*/wo"), small, ())


def test_a_site_that_is_not_there(setting: Setting, tiny: Tiny):
    example = jax.tree.map(lambda x: x[0], setting.pairs)
    for at, message in (
        (("layers_9/mlp/down_proj",), "no linear layer is called 'layers_9/mlp/down_proj'"),
        ((SITE, "layers_2/mlp/down_proj"), "beside one layer; 2 sites are given"),
    ):
        with pytest.raises(mj.SiteError, match=message):
            grace(setting.outputs, at).init(jax.random.key(0), tiny.params, example)


@pytest.mark.parametrize("site", ["encoder/block_0/mlp/wo", "decoder/block_0/mlp/wo"])
def test_encoder_decoders_are_edited_in_both(site: str):
    """Where the source has been read, or at the decoder's first token."""
    model = t5.T5(t5.T5Config(61, 12, 3, 16, 1, 1, 2))
    params = model.init(jax.random.key(0), model.example_inputs())["params"]
    params = {**params, "embedding": 30 * params["embedding"]}
    source = np.random.default_rng(0).integers(9, 61, 5).astype(np.int32)
    pair = Tokens(source, *(np.asarray([x], np.int32) for x in (0, 33, 0)))
    example = jax.tree.map(lambda x: x[0], examples_of([pair]))
    outputs = outputs_of(model)
    editor = grace(outputs, (site,), radius=1e-2)
    edit = jax.jit(editor.edit)(NOTHING, params, example)
    losses = [outputs.loss, editor.apply(NOTHING, outputs.loss, edit)]
    before, after = (float(jax.jit(loss)(params, example.edit)) for loss in losses)
    assert after < (0.8 if site.startswith("encoder") else 0.1) * before, (before, after)
    assert example.edit.inputs.mask.shape[1] > 5
    place = asked_at(example.edit.inputs, "seq2seq", site)[0]
    assert place == (4 if site.startswith("encoder") else 0)


def test_a_classifier_is_edited_where_it_is_read():
    config = bert.BertConfig(61, 12, 2, 2, 16, task="classification", num_labels=3)
    model = bert.Bert(config)
    params = model.init(jax.random.key(0), model.example_inputs())["params"]
    text = np.random.default_rng(0).integers(9, 61, 5).astype(np.int32)
    outputs = outputs_of(model)
    for label in range(3):
        pair = Tokens(text, np.zeros(1, np.int32), np.asarray([label], np.int32))
        example = jax.tree.map(lambda x: x[0], examples_of([pair]))
        editor = grace(outputs, ("block_0/mlp/output",), radius=1e-2)
        edit = jax.jit(editor.edit)(NOTHING, params, example)
        after = jax.jit(editor.apply(NOTHING, outputs.logits, edit))(params, example.edit)
        assert answered(after, example.edit.labels)[0] == 1
