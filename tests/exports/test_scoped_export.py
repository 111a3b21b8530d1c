"""Scoped edits in transformers: what they say there is what they say here."""

import copy
import importlib.util
import json
import sys
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from configurations import raw_config, torch_model
from transformers import AutoModelForCausalLM, LlamaForCausalLM
from typed import typed

import mend_jax as mj
from mend_jax.editors.held import Slots
from mend_jax.editors.scoped import holding, scoped
from mend_jax.example import Example, Pair
from mend_jax.exports.card import Card
from mend_jax.exports.folder import ExportError
from mend_jax.exports.scoped import export_scoped
from mend_jax.models.generate import generate
from mend_jax.models.stages import sites_at_read
from mend_jax.saved.directory import SavedEditor
from mend_jax.scopes.network import two_keys

LENGTHS, NEW = (5, 3, 4, 5, 4, 2), 6
KINDS = {
    "llama": (
        {"num_hidden_layers": 3, "max_position_embeddings": 80},
        r"layers_2/mlp/(up|down).*",
        (1, 2, 3),
    ),
    "gpt2": ({"n_layer": 3, "n_positions": 80}, r"h_[12]/mlp/c_(fc|proj)", (1, 2)),
    "phi3": ({"num_hidden_layers": 3}, r"layers_2/mlp/(up|down).*", (1, 2)),
}
"""Changes of the config; the sites; the stages that the scope reads, all but the first late."""


class Made(NamedTuple):
    """saved: an editor. held: four edits, with targets of three tokens. texts: their prompts, and
    another two. theirs: transformers' model. folder: of the export. logits, words: ours, after the
    texts with their answers, and after the texts."""

    saved: SavedEditor
    held: Slots
    texts: np.ndarray
    answers: np.ndarray
    theirs: Any
    folder: Path
    logits: np.ndarray
    words: np.ndarray


def editor_of(base: Any, sites: tuple[str, ...], stages: tuple[int, ...]) -> SavedEditor:
    """With a scope that lets pass a prompt itself, and some of what is like it."""
    base = base._replace(model=base.model.clone(keep=stages))
    outputs = mj.outputs_of(base.model)
    late = len(stages) - 1
    scope = two_keys(stages, late, heads=2, width=4, subject=16, relation=16, hidden=8)
    inner = mj.gradient_editor(outputs.loss, sites, mj.chain(mj.rate(20.0)))
    editor = scoped(inner, scope, outputs.logits, sites_at_read(base.model, sites), rows=8)
    blank = Pair(mj.Inputs(np.zeros((1, 4), np.int32), np.zeros((1, 3), np.int32)),
                 np.zeros((1, 3), np.int32))  # fmt: skip
    state = jax.jit(editor.init)(jax.random.key(0), base.params, Example(blank, blank, blank))
    near = dict.fromkeys(state.phi.scope["threshold"], jnp.float32(0.8))
    phi = state.phi._replace(scope=state.phi.scope | {"threshold": near})
    config = editor.config | {"sites": list(sites)}
    return SavedEditor(editor, state._replace(phi=phi), base, sites, config)


def edits_of(saved: SavedEditor, texts: np.ndarray, answers: np.ndarray) -> Slots:
    """Of the first texts to the answers; the third of five slots is free."""

    def pair(i: int) -> Pair:
        n = LENGTHS[i]
        x = np.zeros((1, 8), np.int32)
        x[0, : n + 2] = [*texts[i, :n], *answers[i, :2]]
        return Pair(mj.Inputs(x, np.asarray([[n - 1, n, n + 1]], np.int32)), answers[i : i + 1])

    pairs = jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *map(pair, range(len(answers))))
    make = jax.jit(jax.vmap(saved.editor.edit, (None, None, 0)))
    made: Any = make(saved.state, saved.base.params, Example(pairs, pairs, pairs))
    kept = jax.tree.map(lambda x: x[:, 0], made.kept)
    held: Slots = jax.jit(lambda x: holding().remove(holding().hold(x, 5), 2))(kept)
    return held


def ours(saved: SavedEditor, held: Slots, whole: np.ndarray, texts: np.ndarray) -> Any:
    """Logits, and greedy words."""
    model = saved.base.model

    @jax.jit
    def run(held: Any, params: Any, whole: Any, tokens: Any, lengths: Any) -> Any:
        def logits(params: Any) -> Any:
            return model.apply({"params": params}, mj.Inputs(whole))

        def speak(params: Any) -> Any:
            return generate(model, params, tokens, lengths, NEW)

        return [saved.editor.apply(saved.state, f, held)(params) for f in (logits, speak)]

    lengths = jnp.asarray(LENGTHS, jnp.int32)
    tokens = jnp.asarray(texts * (np.arange(5) < np.asarray(LENGTHS)[:, None]), jnp.int32)
    found = run(held, saved.base.params, jnp.asarray(whole), tokens, lengths)
    return tuple(map(np.asarray, found))


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp(request.param)
    changes, at, stages = KINDS[request.param]
    raw = raw_config(request.param, changes)
    torch_model(request.param, raw).save_pretrained(folder / "base")
    base = mj.load(str(folder / "base"))
    saved = editor_of(base, mj.models.stages.sites_of(base.model, at), stages)
    rng = np.random.default_rng(0)
    texts = rng.integers(3, 61, (6, 5)).astype(np.int32)
    answers = rng.integers(3, 61, (4, 3)).astype(np.int32)
    held = edits_of(saved, texts, answers)
    export_scoped(saved, held, folder / "out", Card([("a", "b"), ("c", "d"), ("e", "f")]))
    theirs = AutoModelForCausalLM.from_pretrained(folder / "base").eval()
    theirs.generation_config.eos_token_id = None
    whole = whole_texts(texts, answers)
    said = ours(saved, held, whole, texts)
    return Made(saved, held, texts, answers, theirs, folder / "out", *said)


def attach_of(folder: Path) -> Any:
    """The function of the folder's own file."""
    spec = importlib.util.spec_from_file_location("scoped_edits", folder / "scoped_edits.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.attach


@pytest.fixture
def attached(made: Made) -> Iterator[Any]:
    edits = attach_of(made.folder)(made.theirs, made.folder)
    yield edits
    edits.remove()


def whole_texts(texts: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Each text, its answer (said to the end, or broken off), and the first text again."""
    rows = []
    for i, n in enumerate(LENGTHS):
        answer = answers[i % 4]
        rows.append([*texts[i, :n], *answer[: 3 - i % 2], *texts[0], *answer])
    longest = max(map(len, rows))
    return np.asarray([row + [0] * (longest - len(row)) for row in rows], np.int32)


CACHE = "cache" if "cache" in signature(LlamaForCausalLM.forward).parameters else "past_key_values"
"""What transformers calls it."""


def logits_of(model: Any, tokens: np.ndarray, **more: Any) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = model(torch.tensor(tokens).long(), **more).logits.numpy()
    return found


def test_logits_and_words_are_ours(made: Made, attached: Any):
    """In full passes and with a cache; where no edit acts, the model's own, bit for bit."""
    wanted, words = made.logits, made.words
    found = logits_of(made.theirs, whole_texts(made.texts, made.answers))
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
    acting = np.asarray(attached.acting)
    ends = np.asarray(LENGTHS) - 1
    assert list(acting[np.arange(6), ends][[0, 1, 3]]) == [0, 1, 2]
    assert np.sum(acting >= 0) >= 9 and np.sum(acting < 0) >= 12
    for i, n in enumerate(LENGTHS):
        said = made.theirs.generate(
            torch.tensor(made.texts[i : i + 1, :n]).long(), max_new_tokens=NEW, do_sample=False,
            attention_mask=torch.ones(1, n), pad_token_id=0,
        )  # fmt: skip
        np.testing.assert_array_equal(said[0, n:], words[i])
    attached.remove()
    bare = logits_of(made.theirs, whole_texts(made.texts, made.answers))
    before = np.cumsum(acting >= 0, axis=1) == 0
    np.testing.assert_array_equal(bare[before], found[before])
    assert np.max(np.abs(bare - found)) > 0.01 * np.abs(bare).max()


def test_a_batch_padded_on_the_left_is_one_by_one(made: Made, attached: Any):
    tokens, mask = np.zeros((6, 5), np.int64), np.zeros((6, 5), np.int64)
    for i, n in enumerate(LENGTHS):
        tokens[i, 5 - n :], mask[i, 5 - n :] = made.texts[i, :n], 1
    said = made.theirs.generate(
        torch.tensor(tokens), attention_mask=torch.tensor(mask), max_new_tokens=NEW,
        do_sample=False, pad_token_id=0,
    )  # fmt: skip
    np.testing.assert_array_equal(said[:, 5:], made.words)


@pytest.mark.parametrize("made", ["llama"], indirect=True)
def test_any_split_of_a_text_is_one_pass(made: Made, attached: Any):
    """Into steps, with a cache that is copied, cropped, and whose texts change places."""
    whole = whole_texts(made.texts, made.answers)
    wanted = logits_of(made.theirs, whole)
    scale = 1e-5 * np.abs(wanted).max()
    text = torch.tensor(whole).long()
    with torch.no_grad():
        for cuts in ((4,), (1, 2, 3, 4, 5, 6, 7), (6, 9)):
            cache, got = None, []
            for begin, end in zip((0, *cuts), (*cuts, whole.shape[1]), strict=True):
                out = made.theirs(text[:, begin:end], **{CACHE: cache}, use_cache=True)
                cache, got = getattr(out, CACHE), [*got, out.logits]
            np.testing.assert_allclose(torch.cat(got, 1), wanted, atol=scale)
        kept = copy.deepcopy(cache)
        cache.crop(-(whole.shape[1] - 6))
        again = made.theirs(text[:, 6:], **{CACHE: cache}, use_cache=True).logits
        np.testing.assert_allclose(again, wanted[:, 6:], atol=scale)
        kept.crop(-(whole.shape[1] - 6))
        order = torch.tensor([3, 0, 0, 5])
        kept.batch_select_indices(order)
        kept.reorder_cache(torch.tensor([1, 0, 2, 3]))
        kept.batch_repeat_interleave(2)
        order = order[[1, 0, 2, 3]].repeat_interleave(2)
        moved = made.theirs(text[order, 6:], **{CACHE: kept}, use_cache=True).logits
        np.testing.assert_allclose(moved, wanted[order, 6:], atol=scale)


@pytest.mark.parametrize("made", ["llama"], indirect=True)
def test_beams_keep_their_own_edits(made: Made, attached: Any):
    """With a cache as without."""
    args: dict[str, Any] = {"max_new_tokens": NEW, "num_beams": 3, "pad_token_id": 0}
    for i, n in enumerate(LENGTHS[:2]):
        text = torch.tensor(made.texts[i : i + 1, :n]).long()
        args |= {"attention_mask": torch.ones_like(text)}
        said = [made.theirs.generate(text, use_cache=cached, **args) for cached in (True, False)]
        np.testing.assert_array_equal(*said)


@pytest.mark.parametrize("made", ["llama"], indirect=True)
def test_what_does_not_fit_is_refused(made: Made, tmp_path: Path):
    attach = attach_of(made.folder)
    other = copy.deepcopy(made.theirs)
    torch.nn.init.normal_(other.model.layers[2].mlp.up_proj.weight)
    with pytest.raises(ValueError, match="weights of model.layers.2.mlp.up_proj are others"):
        attach(other, made.folder)
    gpt2 = torch_model("gpt2", raw_config("gpt2", {}))
    with pytest.raises(ValueError, match="no layer 'model.layers.2"):
        attach(gpt2, made.folder)
    full = logits_of(made.theirs, made.texts)
    with torch.no_grad():
        out = made.theirs(torch.tensor(made.texts).long(), use_cache=True)
        old = getattr(out, CACHE)
    edits = attach(made.theirs, made.folder)
    with pytest.raises(ValueError, match="filled without these edits: begin with a new one"):
        made.theirs(torch.tensor([[3]] * 6), **{CACHE: old})
    with pytest.raises(ValueError, match="give input_ids"):
        made.theirs(inputs_embeds=torch.zeros(1, 2, 24))
    edits.remove()
    np.testing.assert_array_equal(logits_of(made.theirs, made.texts), full)
    saved, held = made.saved, made.held
    with pytest.raises(ExportError, match="is not empty"):
        export_scoped(saved, held, made.folder)
    empty = held._replace(used=jnp.zeros_like(held.used))
    with pytest.raises(ExportError, match="no edits are held"):
        export_scoped(saved, empty, tmp_path / "out")
    plain = {k: v for k, v in saved.config.items() if k != "scoped"}
    with pytest.raises(ExportError, match="has no scope: export its edits as huggingface"):
        export_scoped(saved._replace(config=plain), held, tmp_path / "out")
    told = json.loads((made.folder / "scoped_edits.json").read_text())
    (made.folder / "scoped_edits.json").write_text(json.dumps(told | {"version": 1}))
    with pytest.raises(ValueError, match="is of version 1; this file reads 2"):
        attach(made.theirs, made.folder)
    (made.folder / "scoped_edits.json").write_text(json.dumps(told))


def test_the_file_stands_alone(made: Made):
    """A page or two, of what users have."""
    text = (made.folder / "scoped_edits.py").read_text()
    assert len(text.splitlines()) <= 250
    names = {line.split()[1].split(".")[0] for line in text.splitlines()
             if line.startswith(("import ", "from "))}  # fmt: skip
    assert names - set(sys.stdlib_module_names) <= {"torch", "transformers", "safetensors"}


def test_the_benchmark_measures(tmp_path: Path):
    config = {"model_type": "llama", "vocab_size": 61, "hidden_size": 24, "intermediate_size": 22,
              "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
              "max_position_embeddings": 80}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    ended = typed(
        "mend-jax", "edits", "benchmark_scoped", "--model", tmp_path, "--edits", 5, "--new", 4,
        "--rounds", 1, "--json", tmp_path / "x.json",
    )  # fmt: skip
    assert ended.code == 0, ended.error
    found = json.loads((tmp_path / "x.json").read_text())
    for kind in ("second", "cpu_second"):
        assert set(found[f"tokens_a_{kind}"]) == {"plain", "held", "acting"}
    assert found["edits"] == 5 and found["file_bytes"] > 5 * 4 * 3 * (24 + 22) * 4
    assert "of plain" in ended.out
