"""Pickled weights become safetensors with the same numbers, whole or not at all; no code runs."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import sentencepiece as spm
import torch
from compare import assert_close
from safetensors import safe_open
from transformers import T5Config, T5ForConditionalGeneration
from typed import typed

import mend_jax as mj
from mend_jax.commands.convert import Convert, convert
from mend_jax.models.stages import Inputs
from mend_jax.weights import WeightsError, read_folder

INDEX = "model.safetensors.index.json"
TENSORS = {
    "half": torch.randn(6, 4).to(torch.bfloat16),
    "flat": torch.randn(3, 5),
    "turned": torch.randn(5, 7).T,
    "part": torch.randn(9, 4)[2:5],
    "count": torch.arange(6),
    "switch": torch.tensor([True, False, True]),
    "single": torch.tensor(2.5, dtype=torch.float16),
    "empty": torch.zeros(0, 4),
}


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    """A folder with one tensor of many a kind; two names share one tensor."""
    folder = tmp_path / "pickled"
    folder.mkdir()
    torch.save(TENSORS | {"again": TENSORS["flat"]}, folder / "pytorch_model.bin")
    (folder / "config.json").write_text('{"model_type": "none"}')
    (folder / "merges.txt").write_text("a b\n")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def in_two(folder: Path) -> None:
    """The .bin as two shards and an index."""
    keys = list(TENSORS)
    parts = [{k: TENSORS[k] for k in half} for half in (keys[:3], keys[3:])]
    (folder / "pytorch_model.bin").unlink()
    weight_map = {}
    for i, part in enumerate(parts):
        name = f"pytorch_model-0000{i + 1}-of-00002.bin"
        torch.save(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    index = json.dumps({"weight_map": weight_map})
    (folder / "pytorch_model.bin.index.json").write_text(index)


def assert_same_tensors(folder: Path) -> None:
    """By the safetensors package, for PyTorch."""
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    assert set(weight_map) == set(TENSORS)
    for name, shard in weight_map.items():
        with safe_open(folder / shard, framework="pt") as file:
            found = file.get_tensor(name)
        assert found.dtype == TENSORS[name].dtype
        assert torch.equal(found, TENSORS[name]), name


@pytest.mark.parametrize("shard_gb, shards", [(5.0, 1), (200e-9, 3), (1e-9, 8)])
def test_every_tensor_once_in_its_own_dtype(
    pickled: Path, tmp_path: Path, shard_gb: float, shards: int
):
    out = tmp_path / "new" / "out"
    convert(Convert(pickled, out, shard_gb))
    files = [f"model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)]
    assert names(out) == sorted([*files, INDEX, "config.json", "merges.txt"])
    assert_same_tensors(out)
    metadata = json.loads((out / INDEX).read_text())["metadata"]
    assert metadata["shared"] == {"again": "flat"}
    assert metadata["total_size"] == sum(t.nbytes for t in TENSORS.values())
    weights = read_folder(out)
    assert weights.read("half").dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(weights.read("turned"), TENSORS["turned"].numpy())


def test_beside_the_pickle_and_from_shards(pickled: Path):
    in_two(pickled)
    before = names(pickled)
    convert(Convert(pickled))
    assert names(pickled) == sorted([*before, "model-00001-of-00001.safetensors", INDEX])
    assert_same_tensors(pickled)


@pytest.mark.parametrize("beside", [True, False])
def test_a_conversion_that_was_killed_anywhere_can_be_given_again(
    pickled: Path, tmp_path: Path, beside: bool
):
    """While it wrote, or with any number of its files at their places: it ends as it should."""
    out = pickled if beside else tmp_path / "out"
    given = Convert(pickled, None if beside else out, 200e-9)
    (out / "convert.draft").mkdir(parents=True)
    (out / "convert.draft" / "0.shard").write_bytes(b"half")
    convert(given)
    assert_same_tensors(out)
    before = names(out)
    moved = [x for x in before if "safetensors" in x or not beside]
    for left in range(len(moved) + 1):
        whole = out / "convert.whole"
        whole.mkdir()
        for name in sorted(moved, key=lambda name: name.endswith(".json"))[left:]:
            (out / name).rename(whole / name)
        convert(given)
        assert_same_tensors(out)
        assert names(out) == before
    with pytest.raises(ValueError, match="already: give another --out"):
        convert(given)


def test_a_file_from_before_pytorch_1_6(pickled: Path):
    torch.save(TENSORS, pickled / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    convert(Convert(pickled))
    assert_same_tensors(pickled)


class Bomb:
    """What unpickling it would do, a test can see."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused(pickled: Path, tmp_path: Path, zipped: bool):
    path, mark = pickled / "pytorch_model.bin", tmp_path / "mark"
    tensors = {"flat": TENSORS["flat"], "bomb": Bomb(mark)}
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="pytorch_model.bin is refused: .* would run code"):
        convert(Convert(pickled, tmp_path / "out"))
    assert not mark.exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("kept", [0, 40, 700, -300])
def test_a_pickle_cut_short(pickled: Path, kept: int):
    path = pickled / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:kept])
    before = names(pickled)
    with pytest.raises(WeightsError, match="pytorch_model.bin is (cut short|refused: it is dam)"):
        convert(Convert(pickled))
    assert names(pickled) == before


@pytest.mark.parametrize(
    "content, message",
    [
        ([torch.ones(2)], "holds a list, not a dict of tensors"),
        ({"model": {"flat": torch.ones(2)}}, "'model' is a dict, and only tensors of float64, fl"),
        ({"z": torch.ones(2, dtype=torch.complex64)}, "'z' is a torch.complex64, and only tensor"),
    ],
    ids=["list", "nested", "complex"],
)
def test_what_is_no_dict_of_tensors(pickled: Path, content: Any, message: str):
    torch.save(content, pickled / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=message):
        convert(Convert(pickled))


def test_shards_that_are_missing_or_lack_a_tensor(pickled: Path):
    in_two(pickled)
    before = names(pickled)
    second = pickled / "pytorch_model-00002-of-00002.bin"
    torch.save({k: TENSORS[k] for k in list(TENSORS)[4:]}, second)
    with pytest.raises(WeightsError, match=f"{second.name} lacks 1 tensors .* such as part"):
        convert(Convert(pickled))
    assert names(pickled) == before
    second.unlink()
    with pytest.raises(WeightsError, match=f"lacks 1 of the 2 shards .*: {second.name}"):
        convert(Convert(pickled))
    for file in pickled.glob("pytorch_model*"):
        file.unlink()
    with pytest.raises(WeightsError, match="has no pytorch_model.bin and no pytorch_model.bin.i"):
        convert(Convert(pickled))


def test_nothing_is_overwritten(pickled: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="holds .* already: give another --out"):
        convert(Convert(pickled, tmp_path))
    convert(Convert(pickled))
    with pytest.raises(ValueError, match=r"holds model.*safetensors.* already: give another --out"):
        convert(Convert(pickled))
    with pytest.raises(ValueError, match="--shard-gb 0: from 1e-09 to"):
        convert(Convert(pickled, tmp_path / "out", 0))


def test_a_t5_with_only_bin_and_spiece_model(tmp_path: Path):
    """As the oldest repositories are: refused with the command; the command; PyTorch's logits."""
    torch.manual_seed(0)
    shape = dict(vocab_size=19, d_model=12, d_kv=5, d_ff=22, num_layers=1, num_heads=2)
    theirs = T5ForConditionalGeneration(T5Config(**shape, decoder_start_token_id=0)).eval()
    theirs.config.save_pretrained(tmp_path)
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    with (tmp_path / "spiece.model").open("wb") as file:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(["one fish two fish", "red fish blue fish"] * 20),
            model_writer=file, vocab_size=19, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
            minloglevel=2,
        )  # fmt: skip
    with pytest.raises(WeightsError) as error:
        mj.load(str(tmp_path))
    command = str(error.value).rpartition("mend-jax ")[2].split()
    code, out, problems = typed(*command)
    assert code == 0, problems
    assert "of safetensors" in out
    base = mj.load(str(tmp_path))
    assert base.config.tied  # its lm_head is the embedding, and was written once
    tokens = np.array([base.tokenizer.encode("blue fish one").ids])
    target = np.array([[0, 7, 9, 4]])
    ours = base.model.apply({"params": base.params}, Inputs(tokens, target=target))
    with torch.no_grad():
        wanted = theirs(input_ids=torch.tensor(tokens), decoder_input_ids=torch.tensor(target))
    assert_close(ours, wanted.logits.numpy(), 1e-5)
