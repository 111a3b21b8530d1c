"""Scoped edits of every architecture: felt by their own text alone, whatever stands beside it.

Encoder-decoders and classifiers read a text as a whole: an edit acts at all positions of source and
answer, or at none.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import assert_close, assert_equal

import mend_jax as mj
from mend_jax.cost.small_families import SMALL, VOCABULARY
from mend_jax.editors.base import EditorState
from mend_jax.editors.scoped import acting, holding, scoped
from mend_jax.example import Example, Pair
from mend_jax.models.generate import generate
from mend_jax.models.registry import family_of
from mend_jax.models.stages import run_trunk, sites_of
from mend_jax.objectives import kind_of
from mend_jax.runs.scoping import check_can_scope, late_sites, reads_whole, sites_to_scope
from mend_jax.scopes.network import two_keys
from mend_jax.scopes.whole_text import two_keys_of_text

LENGTH, ANSWERS, N = 7, 3, 3
WHOLE = ("t5", "bart", "bert")
APART = (*WHOLE, "gpt2", "gptj", "gpt_neo", "gpt_neox", "opt", "phi3", "gemma2", "mixtral")
"""Those with blocks of their own; the others differ from these in little, and take as long."""


class Held:
    """N edits of a small model, and texts: those of the edits, then one of its own tokens."""

    def __init__(self, name: str) -> None:
        family = family_of(SMALL[name])
        config = family.dimensions(SMALL[name], ())
        model = family.model(config)
        at = sites_of(model, family.default_sites(config))
        last = tuple(s for s in at if s.startswith(f"{model.stages[-2]}/"))
        sites = sites_to_scope(model, at) if reads_whole(model) else last
        stages, late = check_can_scope(model, sites)
        self.model = model.clone(keep=stages)
        self.params = random_params(self.model)
        self.outputs = mj.outputs_of(self.model)
        sizes: Any = {"heads": 2, "width": 4, "subject": 16, "relation": 16, "hidden": 8}
        keys = two_keys_of_text if reads_whole(model) else two_keys
        self.scope = keys(stages, late, **sizes)
        inner = mj.gradient_editor(self.outputs.loss, sites, mj.chain(mj.rate(3.0)))
        late = late_sites(model, sites)
        self.editor = scoped(inner, self.scope, self.outputs.logits, late, rows=16)
        self.texts = texts_of(self.model)
        edits = jax.tree.map(lambda x: x[:N, None], self.texts)
        one = jax.tree.map(lambda x: x[0], edits)
        state = self.editor.init(jax.random.key(0), self.params, Example(one, one, one))
        near = dict.fromkeys(state.phi.scope["threshold"], jnp.float32(0.999))
        self.state = EditorState(
            state.phi._replace(scope=state.phi.scope | {"threshold": near}), state.stats
        )
        make = jax.jit(jax.vmap(self.editor.edit, (None, None, 0)))
        made: Any = make(self.state, self.params, Example(edits, edits, edits))
        self.held = holding().hold(jax.tree.map(lambda x: x[:, 0], made.kept), N + 1)
        self.answers = jax.jit(
            lambda held, texts: self.editor.apply(self.state, self.outputs.logits, held)(
                self.params, texts
            )
        )


def random_params(model: Any) -> Any:
    """Larger than at initialisation, so that what is edited is felt."""
    params = model.init(jax.random.key(0), model.example_inputs())["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: x + 0.1 * rng.standard_normal(x.shape).astype(np.float32), params
    )


def texts_of(model: Any) -> Pair:
    """N + 1 texts of two lengths, padded to the right; each of tokens of its own."""
    rng = np.random.default_rng(1)
    kind, n = kind_of(model), N + 1
    x = 3 + 60 * np.arange(n)[:, None] + rng.integers(0, 60, (n, LENGTH))
    lengths = np.where(np.arange(n) % 2, LENGTH, LENGTH - 2)
    mask = np.arange(LENGTH)[None] < lengths[:, None]
    answers, classes = (1, 2) if kind == "classifier" else (ANSWERS, VOCABULARY)
    labels = rng.integers(0, classes, (n, answers))
    read = lengths[:, None] - ANSWERS + np.arange(ANSWERS) if kind == "causal" else 0 * labels
    begun = getattr(model.config, "decoder_start_token_id", 0)
    target = np.concatenate([np.full((n, 1), begun), labels[:, :-1]], axis=1)
    x, read, target, labels = (y.astype(np.int32) for y in (x * mask, read, target, labels))
    inputs = mj.Inputs(x, read, mask=mask, target=target)
    return jax.tree.map(jnp.asarray, Pair(inputs, labels))


def where(held: Held) -> np.ndarray:
    """The edit that acts at each position that has keys."""
    below = held.model.clone(stop=held.scope.stages[-1])
    seen: Any = run_trunk(below, held.params, held.texts.inputs).seen
    return np.asarray(acting(held.scope, held.state.phi.scope, held.held, seen))


ALIKE = [pytest.param(name, marks=pytest.mark.slow) for name in SMALL if name not in APART]


@pytest.mark.parametrize("name", [*APART, *ALIKE])
def test_an_edit_is_felt_by_its_own_text_alone(name: str):
    held = Held(name)
    which = where(held)
    ends = np.asarray(held.texts.inputs.read[:, :1])
    found = np.take_along_axis(which, ends, axis=1)[:, 0]
    np.testing.assert_array_equal(found, [*range(N), -1])
    assert which.shape[1] == (1 if held.scope.whole else LENGTH)
    empty = holding().hold(jax.tree.map(lambda x: x[:0], held.held.kept), N + 1)
    base, after = (held.answers(x, held.texts) for x in (empty, held.held))
    assert_equal(after[N], base[N])
    assert np.all(np.any(np.asarray(after[:N] != base[:N]), axis=(1, 2)))
    without = held.answers(holding().remove(held.held, 1), held.texts)
    assert_equal(without[1], base[1])
    assert_equal(without[jnp.asarray([0, 2])], after[jnp.asarray([0, 2])])


@pytest.mark.parametrize("name", WHOLE)
def test_of_a_whole_text_it_acts_everywhere(name: str):
    """As the edit without a scope does; and when the model speaks, as under teacher forcing."""
    held = Held(name)
    after = held.answers(held.held, held.texts)
    for i in range(N):
        one = jax.tree.map(lambda x, i=i: x[i : i + 1], held.texts)
        rows = held.held.kept.rows
        edit = jax.tree.map(lambda x, i=i: x[i].astype(jnp.float32), rows)
        wanted = mj.edited(held.outputs.logits, edit)(held.params, one)
        assert_close(after[i], wanted[0], 1e-5)
    if kind_of(held.model) != "seq2seq":
        return

    def speak(params: Any, inputs: mj.Inputs) -> jax.Array:
        lengths = jnp.sum(inputs.mask, axis=1)
        return generate(held.model, params, inputs.x, lengths, ANSWERS)

    said = held.editor.apply(held.state, speak, held.held)(held.params, held.texts.inputs)
    begun = held.texts.inputs.target[:, :1]
    target = jnp.concatenate([begun, said[:, :-1]], axis=1)
    texts = held.texts._replace(inputs=held.texts.inputs._replace(target=target))
    forced = jnp.argmax(held.answers(held.held, texts), axis=-1)
    np.testing.assert_array_equal(said[:, :-1], forced[:, :-1])  # BART's last one is a given
