"""A saved editor is the editor, and a directory that does not fit is refused with the reason."""

import gc
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from compare import assert_close, assert_equal
from jax.extend.core import Jaxpr
from safetensors.numpy import load_file, save_file

import mend_jax as mj
from mend_jax.files import array_checksum, json_checksum
from mend_jax.links import Link
from mend_jax.models.registry import Base
from mend_jax.reports.before_after import edit_example
from mend_jax.saved.arrays import EditorError
from mend_jax.saved.directory import save_editor

pytest_plugins = ["finished_run"]


@pytest.fixture(scope="module")
def base(tiny_files: Any) -> Base:
    return mj.load(str(tiny_files.model))


@pytest.fixture
def copy(finished: Any, tmp_path: Path) -> Path:
    """The two files of the finished run's editor, to be damaged."""
    for name in ("editor.safetensors", "config.json"):
        shutil.copy(finished.config.out / name, tmp_path)
    return tmp_path


def change_config(directory: Path, **changes: Any) -> None:
    """As if it had been saved so: with the checksum of what it says then."""
    path = directory / "config.json"
    config = json.loads(path.read_text()) | changes
    config["checksum"] = json_checksum({k: v for k, v in config.items() if k != "checksum"})
    path.write_text(json.dumps(config))


def change_arrays(directory: Path, arrays: dict[str, Any]) -> None:
    """As if these had been saved, under their checksums."""
    save_file(arrays, directory / "editor.safetensors")
    change_config(directory, checksums={k: array_checksum(x) for k, x in arrays.items()})


def test_the_same_edits_from_nothing_but_the_directory(finished: Any):
    trained = finished.run.saved
    loaded = mj.load_editor(finished.config.out)
    assert_equal(loaded.state, trained.state)
    assert loaded.sites == trained.sites == ("layers_1/mlp/down_proj", "layers_1/mlp/up_proj")
    assert loaded.config["options"] == trained.editor.config["options"]
    example = edit_example(loaded.base, "Person 3 lives in", "Oslo")
    edits = [
        jax.jit(saved.editor.edit)(saved.state, saved.base.params, example)
        for saved in (trained, loaded)
    ]
    assert set(edits[0]) == set(trained.sites)
    assert all(mj.norm(part) > 0 for part in edits[0].values())
    assert_equal(edits[1], edits[0])


def test_loading_again_traces_nothing_that_stays(finished: Any, base: Base):
    def programs() -> int:
        gc.collect()
        return sum(type(thing) is Jaxpr for thing in gc.get_objects())

    mj.load_editor(finished.config.out, base)
    before = programs()
    for given in (base, None, base):
        mj.load_editor(finished.config.out, given)
    assert programs() == before


def test_what_is_saved(finished: Any):
    config = json.loads((finished.config.out / "config.json").read_text())
    arrays = load_file(finished.config.out / "editor.safetensors")
    assert {name: list(array.shape) for name, array in arrays.items()} == config["shapes"]
    counters = [name for name, array in arrays.items() if array.dtype != np.float32]
    assert all(arrays[name].dtype == np.int32 and arrays[name].ndim == 0 for name in counters)
    assert config["training"]["steps"] == 6 and config["base"] == finished.config.model
    assert config["options"] == finished.run.saved.editor.config["options"]


def test_whether_answers_end_their_turns_is_the_editors(finished: Any, base: Base, tmp_path: Path):
    saved = finished.run.saved
    taught = saved.base._replace(chat=saved.base.chat._replace(ends=True))
    for given, ends in ((taught, True), (saved.base, False)):
        mj.save_editor(tmp_path, saved.editor, saved.state, given, saved.sites)
        assert all(mj.load_editor(tmp_path, x).base.chat.ends is ends for x in (base, taught))


@pytest.mark.parametrize(
    "options",
    [{"shared": False}, {"on": "separate"}, {"identity": False}, {"normalized": False}],
    ids=str,
)
def test_the_chain_is_built_again_from_the_config(base: Base, tmp_path: Path, options: dict):
    sites = ("layers_1/mlp/up_proj",)
    editor = mj.mend(mj.sequence_loss(base.model), sites, rank=3, **options)
    example = edit_example(base, "Person 3 lives in", "Oslo")
    state = editor.init(jax.random.key(3), base.params, example)
    state = state._replace(stats=jax.tree.map(lambda x: x + 2.0, state.stats))
    mj.save_editor(tmp_path, editor, state, base, sites)
    loaded = mj.load_editor(tmp_path, base)
    assert loaded.editor.config == editor.config
    assert_equal(loaded.state, state)


def doubled(times: float) -> Link:
    """A link that this library does not know."""

    def apply(phi: Any, stats: Any, factors: Any) -> Any:
        return {s: mj.Factors(f.u, f.delta * phi["times"]) for s, f in factors.items()}

    return Link(
        lambda key, factors: ({"times": jax.numpy.asarray(times)}, {}),
        lambda phi, stats, factors: stats,
        apply,
        {"link": "doubled", "times": times},
    )


def test_a_link_of_ones_own(base: Base, tmp_path: Path):
    sites = ("layers_1/mlp/up_proj",)
    loss = mj.sequence_loss(base.model)
    editor = mj.gradient_editor(loss, sites, mj.chain(doubled(2.0), mj.rate(0.1)))
    example = edit_example(base, "Person 3 lives in", "Oslo")
    state = editor.init(jax.random.key(0), base.params, example)
    mj.save_editor(tmp_path, editor, state, base, sites)
    with pytest.raises(EditorError, match=r"no link is called 'doubled'; known: discriminant,"):
        mj.load_editor(tmp_path, base)
    loaded = mj.load_editor(tmp_path, base, links={"doubled": doubled})
    edits = [jax.jit(e.edit)(state, base.params, example) for e in (editor, loaded.editor)]
    assert_equal(edits[1], edits[0])


def test_other_kernels_at_the_sites(finished: Any, base: Base):
    site = base.params["layers_1"]["mlp"]["up_proj"]["kernel"]
    moved = mj.merge(
        base.params, {"layers_1/mlp/up_proj": mj.Dense(jax.numpy.full(site.shape, 1e-3))}
    )
    with pytest.raises(EditorError, match="the kernel at 'layers_1/mlp/up_proj' is another"):
        mj.load_editor(finished.config.out, base._replace(params=moved))
    elsewhere = {"layers_0/mlp/up_proj": mj.Dense(jax.numpy.full(site.shape, 1e-3))}
    mj.load_editor(finished.config.out, base._replace(params=mj.merge(base.params, elsewhere)))


def test_another_base_that_lacks_the_sites(copy: Path, base: Base):
    smaller = {k: v for k, v in base.params.items() if k != "layers_1"}
    with pytest.raises(EditorError, match="made for the base .* no kernel at 'layers_1/mlp/down"):
        mj.load_editor(copy, base._replace(params=smaller))


def test_other_sites(copy: Path, base: Base):
    change_config(copy, sites=["layers_0/mlp/up_proj", "layers_0/mlp/down_proj"])
    with pytest.raises(EditorError, match="made for the base .*: the sites are others"):
        mj.load_editor(copy, base)


def test_the_base_comes_as_it_was_in_training(finished: Any, tiny_files: Any, tmp_path: Path):
    coarse = mj.load(str(tiny_files.model), dtype="int8")
    trained = finished.run.saved
    save_editor(tmp_path, trained.editor, trained.state, coarse, trained.sites)
    assert mj.load_editor(tmp_path).base.params["layers_0"]["mlp"]["up_proj"]["scale"].size
    loaded = mj.load_editor(tmp_path, mesh=mj.make_mesh(), dtype="bfloat16")
    kernel = loaded.base.params["layers_0"]["mlp"]["up_proj"]["kernel"]
    assert kernel.dtype == "bfloat16" and "data" in kernel.sharding.mesh.shape


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_the_same_base_in_another_dtype(finished: Any, tiny_files: Any, dtype: str):
    """It is recognised, and edits nearly as the float32 one does; another is still refused."""
    other = mj.load(str(tiny_files.model), dtype=dtype)
    loaded = mj.load_editor(finished.config.out, other)
    example = edit_example(other, "Person 3 lives in", "Oslo")
    edits = [
        jax.jit(saved.editor.edit)(saved.state, saved.base.params, example)
        for saved in (finished.run.saved, loaded)
    ]
    assert_close(*({k: mj.to_dense(v) for k, v in e.items()} for e in edits[::-1]), 0.3)
    kernel = other.params["layers_1"]["mlp"]["up_proj"]["kernel"]
    turned = {"up_proj": other.params["layers_1"]["mlp"]["up_proj"] | {"kernel": kernel[::-1]}}
    mlp = {"mlp": other.params["layers_1"]["mlp"] | turned}
    params = other.params | {"layers_1": other.params["layers_1"] | mlp}
    with pytest.raises(EditorError, match="the kernel at 'layers_1/mlp/up_proj' is another"):
        mj.load_editor(finished.config.out, other._replace(params=params))


def test_a_model_of_other_dimensions(copy: Path, tiny_files: Any, tmp_path: Path):
    folder = shutil.copytree(tiny_files.model, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {"rope_theta": 5000.0, "rope_parameters": {"rope_theta": 5000.0}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(EditorError, match="made for the base .*: its dimensions are others"):
        mj.load_editor(copy, mj.load(str(folder)))


def test_a_fingerprint_of_an_older_version(copy: Path, base: Base):
    change_config(copy, fingerprint="0123456789abcdef")
    with pytest.raises(EditorError, match="fingerprint is of an older version: train again"):
        mj.load_editor(copy, base)


def test_an_untrained_editor(base: Base, tmp_path: Path):
    sites = ("layers_1/mlp/up_proj",)
    editor = mj.mend(mj.sequence_loss(base.model), sites, rank=3)
    example = edit_example(base, "Person 3 lives in", "Oslo")
    state = editor.init(jax.random.key(0), base.params, example)
    mj.save_editor(tmp_path, editor, state, base, sites)
    with pytest.raises(EditorError, match="untrained"):
        mj.load_editor(tmp_path, base)


def test_values_that_are_not_finite(copy: Path, base: Base):
    arrays = load_file(copy / "editor.safetensors")
    name = next(name for name in arrays if name.endswith("/V"))
    arrays[name] = arrays[name] * np.nan
    change_arrays(copy, arrays)
    with pytest.raises(EditorError, match=f"not finite in {name}"):
        mj.load_editor(copy, base)


@pytest.mark.parametrize("kept", [0, 4, 200, -8])
def test_a_file_cut_short(copy: Path, base: Base, kept: int):
    path = copy / "editor.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(EditorError, match=r"editor.safetensors: not a whole safetensors file"):
        mj.load_editor(copy, base)


def test_all_arrays_that_do_not_fit_are_named_in_one_error(copy: Path, base: Base):
    arrays = load_file(copy / "editor.safetensors")
    first, second, third = list(arrays)[0], list(arrays)[3], list(arrays)[-1]
    del arrays[first], arrays[second]
    shape = (*arrays[third].shape, 2)
    arrays[third] = np.zeros(shape, np.float32)
    save_file(arrays, copy / "editor.safetensors")
    with pytest.raises(EditorError, match="3 arrays do not fit") as error:
        mj.load_editor(copy, base)
    assert f"{first} is missing" in str(error.value) and f"{second} is missing" in str(error.value)
    assert f"{third} has shape {shape}, expected" in str(error.value)


def test_what_is_no_editor(copy: Path, base: Base, tmp_path: Path):
    with pytest.raises(EditorError, match=r"nowhere: no editor here \(config.json is missing\)"):
        mj.load_editor(tmp_path / "nowhere", base)
    (copy / "editor.safetensors").unlink()
    with pytest.raises(EditorError, match=r"editor.safetensors: missing"):
        mj.load_editor(copy, base)
    for text, message in (
        ("{", "config.json, line 1: not valid JSON"),
        ("3", "config.json: not the config of an editor"),
        ('{"model_type": "llama"}', "config.json: not the config of an editor"),
        ('{"editor": "mend"}', "not the config of an editor: options is missing; sites is missing"),
    ):
        (copy / "config.json").write_text(text)
        with pytest.raises(EditorError, match=message):
            mj.load_editor(copy, base)


@pytest.mark.parametrize(
    "chain",
    [
        {"link": "rate", "steepness": 1},
        {"links": []},
        "rate",
        {"link": "chain", "links": []},
        {"link": "chain", "links": [{"link": "chain", "links": []}]},
        {"link": "residual_mlp", "rank": "5"},
    ],
    ids=str,
)
def test_a_chain_that_cannot_be_built(copy: Path, base: Base, chain: Any):
    change_config(copy, options={"chain": chain})
    with pytest.raises(EditorError, match=r"config.json: the editor cannot be built"):
        mj.load_editor(copy, base)


def test_saving_replaces_whole_files(finished: Any, copy: Path):
    """A save that fails leaves what was there, and no draft."""
    before = (copy / "editor.safetensors").read_bytes()
    saved = finished.run.saved
    broken = saved.state._replace(stats={"text": np.array(["not", "a", "number"])})
    with pytest.raises(Exception):  # noqa: B017 - whatever safetensors raises
        mj.save_editor(copy, saved.editor, broken, saved.base, saved.sites)
    assert (copy / "editor.safetensors").read_bytes() == before
    assert sorted(p.name for p in copy.iterdir()) == ["config.json", "editor.safetensors"]


def flip(path: Path, bit: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[bit // 8] ^= 1 << bit % 8
    path.write_bytes(raw)


@pytest.mark.parametrize("name", ["editor.safetensors", "config.json"])
def test_one_bit_anywhere(copy: Path, base: Base, finished: Any, name: str):
    """The same editor, or an error: in forty places of either file."""
    whole = (copy / name).read_bytes()
    refused = 0
    for bit in np.random.default_rng(0).integers(8 * len(whole), size=40):
        flip(copy / name, int(bit))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert_equal(mj.load_editor(copy, base).state, finished.run.saved.state)
        except EditorError:
            refused += 1
        (copy / name).write_bytes(whole)
    assert refused >= 25


def test_what_was_changed_by_hand_takes_a_word(copy: Path, base: Base):
    path = copy / "config.json"
    path.write_text(path.read_text().replace('"steps": 6', '"steps": 7'))
    with pytest.raises(EditorError, match=r"config.json: its checksum .*force=True\), --force in"):
        mj.load_editor(copy, base)
    with pytest.warns(UserWarning, match="config.json: its checksum is another"):
        loaded = mj.load_editor(copy, base, force=True)
    assert loaded.config["training"]["steps"] == 7
    arrays = load_file(copy / "editor.safetensors")
    name = next(name for name in arrays if name.endswith("/V"))
    save_file(arrays | {name: arrays[name] + 1}, copy / "editor.safetensors")
    with pytest.warns(UserWarning):
        mj.load_editor(copy, base, force=True)
    with pytest.raises(EditorError, match="checksum"):
        mj.load_editor(copy, base)


def test_arrays_of_another_checksum_dtype_or_no_use(copy: Path, base: Base):
    whole = load_file(copy / "editor.safetensors")
    name = next(name for name in whole if name.endswith("/V"))
    for changes, message in (
        ({name: whole[name] + 1}, f"{name} has another checksum than when it was saved"),
        ({name: whole[name].view(np.int32)}, f"{name} is of int32, expected float32"),
        ({"more": whole[name]}, "more belongs to no part of this editor"),
    ):
        save_file(whole | changes, copy / "editor.safetensors")
        with pytest.raises(EditorError, match=f"1 arrays do not fit: {message}"):
            mj.load_editor(copy, base)


@pytest.mark.parametrize(
    "changes", [{"sites": 3}, {"options": []}, {"base": None}, {"shapes": [3]}], ids=str
)
def test_a_config_of_other_types(copy: Path, base: Base, changes: dict):
    change_config(copy, **changes)
    (key,) = changes
    with pytest.raises(EditorError, match=f"config.json: not the config of an editor: {key} must"):
        mj.load_editor(copy, base)


def test_an_editor_that_was_saved_before_there_were_checksums(copy: Path, base: Base):
    path = copy / "config.json"
    config = json.loads(path.read_text())
    del config["checksum"], config["checksums"], config["fingerprint"]["checksums"]
    path.write_text(json.dumps(config))
    with pytest.warns(UserWarning, match="saved without checksums.*save it again"):
        mj.load_editor(copy, base)
    path.write_text(json.dumps(config | {"checksun": "0"}))
    with pytest.raises(EditorError, match="unknown keys: checksun"):
        mj.load_editor(copy, base)


def test_a_base_of_other_bytes(finished: Any, tiny_files: Any, tmp_path: Path):
    """One bit of any tensor, in whatever dtype it is loaded; and another tokenizer."""
    folder = shutil.copytree(tiny_files.model, tmp_path / "model")
    whole = (folder / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for name, (begin, _) in {
        name: entry["data_offsets"]
        for name, entry in json.loads(whole[8:start]).items()
        if name != "__metadata__"
    }.items():
        flip(folder / "model.safetensors", 8 * (start + begin))
        dtype = "int8" if "proj" in name else "float32"
        with pytest.raises(EditorError, match=f"another, or damaged.* otherwise: {name}. Load"):
            mj.load_editor(finished.config.out, mj.load(str(folder), dtype=dtype))
        (folder / "model.safetensors").write_bytes(whole)
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace('"id": 0', '"id":  0'))
    with pytest.raises(EditorError, match="1 of 22 are stored otherwise: tokenizer. Load"):
        mj.load_editor(finished.config.out, mj.load(str(folder)))
    with pytest.warns(UserWarning, match="1 of 22 are stored otherwise: tokenizer"):
        mj.load_editor(finished.config.out, mj.load(str(folder)), force=True)


def test_a_base_whose_bytes_nobody_looked_at(finished: Any, tiny_files: Any):
    base = mj.load(str(tiny_files.model), checksums=False)
    assert set(base.checksums) == {"tokenizer"}
    with pytest.warns(UserWarning, match="was not looked at, only its kernels at the sites"):
        mj.load_editor(finished.config.out, base)
