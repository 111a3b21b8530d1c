"""Sharded is single: run by test_parallel.py in a process of its own with eight CPU devices.

A tiny T5 and a tiny Llama, whose vocabulary of 61 divides by nothing, on meshes of eight: the
losses, the gradient of phi, the edits and the state after two steps, against one device.
"""

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from compare import assert_close, assert_equal
from conftest import Tiny
from jax.sharding import Mesh
from safetensors.numpy import save_file
from scoped_setting import answers, make_setting, program_of

import mend_jax as mj
from mend_jax.cost.benchmark import random_examples, random_params
from mend_jax.cost.small_families import SIZES, SMALL
from mend_jax.cost.workload import make_workload
from mend_jax.editors.base import Editor
from mend_jax.editors.scoped import spread
from mend_jax.evaluation.teacher_forced import make_scorer
from mend_jax.models import llama, t5
from mend_jax.models.family import Family
from mend_jax.objectives import after_trunk
from mend_jax.parallel import ParallelError, fetch, put, replicated, shard_examples, shard_params
from mend_jax.training.step import make_calibrator

VOCABULARY, EDITS, PAIRS, LENGTH, ANSWERS = 61, 8, 2, 6, 3
LLAMA = dict(
    vocab_size=VOCABULARY, hidden_size=24, intermediate_size=48, num_hidden_layers=1,
    num_attention_heads=4, num_key_value_heads=2, head_dim=8,
)  # fmt: skip
T5 = dict(
    vocab_size=VOCABULARY, d_model=24, d_kv=8, d_ff=48, num_layers=1, num_decoder_layers=1,
    num_heads=4, gated=True, activation="gelu_new", tied=False, scale_decoder_outputs=False,
)  # fmt: skip
KINDS: dict[str, tuple[Family, Any, str]] = {
    "t5": (t5.FAMILY, t5.T5Config(**T5), r"decoder/block_0/mlp/(wi_0|wo)"),
    "llama": (llama.FAMILY, llama.LlamaConfig(**LLAMA), r"layers_0/mlp/down_proj"),
}
SPLIT = {"wi_0": 1, "wo": 0, "q": 1, "o": 0, "up_proj": 1, "down_proj": 0, "q_proj": 1, "o_proj": 0}
"""The dimension of a kernel that is split over "model"."""


class Setting(NamedTuple):
    """A base, cut before its sites, and an editor of the tail."""

    family: Family
    params: Any
    trunk: Any
    editor: Editor
    loss: Any
    logits: Any
    examples: mj.Example


def some_examples(seq2seq: bool) -> mj.Example:
    rng = np.random.default_rng(0)

    def pair() -> mj.Pair:
        lead = (EDITS, PAIRS)
        x = rng.integers(VOCABULARY, size=(*lead, LENGTH), dtype=np.int32)
        labels, target = rng.integers(VOCABULARY, size=(2, *lead, ANSWERS), dtype=np.int32)
        labels[::3, :, -1] = -100
        mask = np.arange(LENGTH) < rng.integers(ANSWERS, LENGTH + 1, size=lead)[..., None]
        if seq2seq:
            return mj.Pair(mj.Inputs(x, mask=mask, target=target), labels)
        read = np.broadcast_to(np.arange(ANSWERS, dtype=np.int32), labels.shape)
        return mj.Pair(mj.Inputs(x, read, mask=mask), labels)

    return mj.Example(pair(), pair(), pair())


@pytest.fixture(scope="module", params=list(KINDS))
def setting(request: Any) -> Setting:
    family, config, sites = KINDS[request.param]
    model = family.model(config)
    made = jax.jit(lambda: model.init(jax.random.key(0), model.example_inputs()))()["params"]
    trunk, tail = mj.split(model, sites)
    assert trunk is not None
    loss, logits = mj.sequence_loss(tail), mj.sequence_logits(tail)
    chain = mj.chain(mj.normalize(), mj.residual_mlp(16, blocks=1), mj.rate(0.03))
    editor = mj.gradient_editor(loss, sites, chain)
    examples = some_examples(model.kind == "seq2seq")
    return Setting(family, shaken(made), trunk, editor, loss, logits, examples)


def shaken(tree: Any) -> Any:
    """No parameter is 0: there Adam's first steps are the signs of rounding errors.

    More noise, or a larger alpha, and rounding errors of one device alone grow beyond 1e-5.
    """
    rng = np.random.default_rng(2)

    def shake(x: jax.Array) -> jax.Array:
        return put(np.asarray(x) + 0.03 * rng.standard_normal(x.shape, np.float32), x.sharding)

    return jax.tree.map(shake, tree)


def start(setting: Setting, place: mj.Placement) -> tuple[mj.TrainState, Any, mj.Example, Any]:
    """A state, the parameters and the examples, where they belong; and the optimiser."""
    params, examples, mesh = setting.params, setting.examples, place.mesh
    optimiser = mj.editor_optimiser(1e-3, 1e-3)
    one = jax.tree.map(lambda x: x[0], after_trunk(setting.trunk, params, examples))
    if mesh is not None:
        params = shard_params(params, setting.family.partition, mesh)
        examples = shard_examples(examples, mesh)
    state = mj.init_state(setting.editor, optimiser, jax.random.key(1), params, one, place)
    phi = shaken(state.editor.phi)
    return state._replace(editor=state.editor._replace(phi=phi)), params, examples, optimiser


def two_steps(
    setting: Setting, place: mj.Placement = mj.Placement()
) -> tuple[dict[str, Any], mj.TrainState, Any]:
    """What two steps show; the state after them, and the parameters."""
    trunk = setting.trunk
    state, params, examples, optimiser = start(setting, place)
    objective = mj.Objective(setting.loss, setting.logits)
    step = mj.make_step(setting.editor, objective, optimiser, trunk, place)
    state, first = step(state, params, examples)
    gradient = fetch([adam.mu for adam in adams(state)])  # a tenth of the first one
    state, second = step(state, params, examples)
    if place.mesh is not None:  # the state stays where it was: no second program
        assert step._cache_size() == 1

    def edit(state: mj.EditorState, params: Any, examples: mj.Example) -> Any:
        examples = after_trunk(trunk, params, examples)
        return jax.vmap(setting.editor.edit, (None, None, 0))(state, params, examples)

    edits = jax.jit(edit)(state.editor, params, examples)
    shown = {"losses": (first, second), "gradient": gradient, "state": state, "edits": edits}
    return fetch(shown), state, params


def adams(state: mj.TrainState) -> list[Any]:
    """The states of the optimiser's Adams, which have a `mu` and a `nu`."""
    nodes = jax.tree.leaves(state.optimiser, is_leaf=lambda x: hasattr(x, "mu"))
    return [node for node in nodes if hasattr(node, "mu")]


@pytest.fixture(scope="module")
def single(setting: Setting) -> dict[str, Any]:
    shown = two_steps(setting)[0]
    assert shown["losses"][0].gradient_norm > 0.1 and shown["losses"][1].locality_loss > 0.01
    return shown


@pytest.mark.parametrize(
    "setting, data, model, shard_editor",
    [
        ("llama", 1, 8, False),
        ("llama", 8, 1, False),
        ("llama", 2, 4, False),
        ("t5", 2, 4, True),  # what a family adds is its partition, which both axes show
    ],
    indirect=["setting"],
    scope="module",  # as the setting is: it is made once
)
def test_sharded_is_single(
    setting: Setting, single: dict[str, Any], data: int, model: int, shard_editor: bool
):
    mesh = mj.make_mesh(data, model)
    shown, state, params = two_steps(setting, mj.Placement(mesh, shard_editor))
    check_base(params, model)
    check_editor(state, model if shard_editor else 1)
    assert_close(shown, single, 1e-5)


def check_base(params: Any, model: int) -> None:
    """Every kernel in `SPLIT` is split so many ways along its dimension; embeddings are not."""
    seen = set()
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        names = [key.key for key in path]
        wanted = list(x.shape)
        if names[-1] == "kernel" and names[-2] in SPLIT:
            seen.add(names[-2])
            wanted[SPLIT[names[-2]]] //= model
        elif names[-1] == "kernel":
            continue
        assert [shard.data.shape for shard in x.addressable_shards] == 8 * [tuple(wanted)], names
    assert len(seen) == 4


def check_editor(state: mj.TrainState, ways: int) -> None:
    """phi's matrices and their moments are split so many ways; the rest is whole."""
    moments = [(adam.mu, adam.nu) for adam in adams(state)]
    for x in jax.tree.leaves((state.editor.phi, moments)):
        assert x.addressable_shards[0].data.size * (ways if x.ndim > 1 else 1) == x.size
    for x in jax.tree.leaves(state.editor.stats):
        assert x.is_fully_replicated


@pytest.mark.parametrize("setting", ["llama"], indirect=True)
def test_calibration_and_scores(setting: Setting):
    """What goes before and after the steps: on a mesh, with a sharded editor, as without."""

    def results(mesh: Mesh | None) -> Any:
        place = mj.Placement(mesh, mesh is not None)
        state, params, examples, _ = start(setting, place)
        state = make_calibrator(setting.editor, setting.trunk, place)(state, params, examples)
        scorer = make_scorer(setting.editor, setting.logits, setting.trunk, mesh)
        return fetch((state.editor, scorer(state.editor, params, setting.examples)))

    # a KL of .02 is a difference of logits of 2, which are known to 1e-7
    assert_close(results(mj.make_mesh(2, 4)), results(None), 3e-5)


def test_edits_are_held_over_all_devices(tiny: Tiny):
    """An eighth of the slots is on each, and of rows only those that act are sent."""
    setting, mesh = make_setting(tiny), mj.make_mesh(8, 1)
    held, params = spread(setting.held, mesh), jax.device_put(setting.params, replicated(mesh))
    rows = jax.tree.leaves(held.kept.rows)
    assert {len(x) for x in rows} == {8}
    assert {piece.data.shape[0] for x in rows for piece in x.addressable_shards} == {1}
    for texts in (setting.edits, setting.others):
        flat = jax.tree.map(lambda x: x[:, 0], texts)
        arguments = (setting.state, params, held, flat)
        compiled = program_of(setting).lower(*arguments).compile()
        wanted = answers(setting, setting.held, texts)
        assert_close(fetch(compiled(*arguments)), fetch(wanted), 1e-6)
        gathered = re.findall(r"\[([\d,]+)\]\S* all-gather\(", compiled.as_text())
        near = 8 * math.prod(flat.inputs.x.shape[:2])
        assert gathered and all(math.prod(map(int, x.split(","))) <= near for x in gathered)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_family_is_edited_alike(name: str):
    """Four edits by plain gradients, and the logits after each."""
    work = make_workload(SMALL[name], SIZES)
    params, examples = random_params(work.params, "float32"), random_examples(work, 4)
    loss, logits = mj.sequence_loss(work.model), mj.sequence_logits(work.model)
    editor = mj.gradient_editor(loss, work.sites, mj.chain(mj.rate(-0.1)))
    state = editor.init(jax.random.key(0), params, jax.tree.map(lambda x: x[0], examples))

    def one(params: Any, example: mj.Example) -> tuple[Any, jax.Array]:
        edit = editor.edit(state, params, example)
        return edit, editor.apply(state, logits, edit)(params, example.edit)

    edited = jax.jit(jax.vmap(one, (None, 0)))
    wanted, mesh = fetch(edited(params, examples)), mj.make_mesh(2, 4)
    sharded = shard_params(params, work.family.partition, mesh)
    found = fetch(edited(sharded, shard_examples(examples, mesh)))
    assert np.max(np.abs(wanted[1])) > 0
    assert_close(found, wanted, 1e-4)


def test_each_tensor_of_a_file_goes_to_its_devices(tmp_path: Path):
    """load(mesh=) is shard_params of load()."""
    rng = np.random.default_rng(0)
    expected = llama.expected_weights(llama.LlamaConfig(**LLAMA))
    shapes = {k: e.shape[::-1] if e.transpose else e.shape for k, e in expected.items()}
    arrays = {k: rng.standard_normal(shape, np.float32) for k, shape in shapes.items()}
    save_file(arrays, tmp_path / "model.safetensors")
    config = {"model_type": "llama", "tie_word_embeddings": False} | LLAMA
    (tmp_path / "config.json").write_text(str(config).replace("'", '"').replace("False", "false"))
    mesh = mj.make_mesh(1, 8)
    loaded, whole = mj.load(str(tmp_path), mesh=mesh), mj.load(str(tmp_path))
    check_base(loaded.params, 8)
    assert_equal(loaded.params, whole.params)
    moved = shard_params(whole.params, whole.family.partition, mesh)
    assert jax.tree.map(lambda x: x.sharding, moved) == jax.tree.map(
        lambda x: x.sharding, loaded.params
    )


def test_what_does_not_fit_is_refused():
    with pytest.raises(ParallelError, match="mesh 2x8 needs 16 devices, there are 8"):
        mj.make_mesh(2, 8)
    assert mj.make_mesh(1, 2).devices.size == 2
    with pytest.raises(ParallelError, match="8 edits do not divide over the 3 parts"):
        shard_examples(some_examples(False), mj.make_mesh(3, 1))
