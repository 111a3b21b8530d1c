"""Model folders as transformers writes them: every tensor equal, and one error per bad folder."""

import json

import ml_dtypes
import numpy as np
import pytest
import sentencepiece as spm
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

from mend_jax.weights import WeightsError, open_weights, read_folder

PIECES = {"shards": "20KB", "single": "1GB"}


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16, torch.float16], ids=str)
def model(request):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        rope_theta=50000.0,
    )
    return LlamaForCausalLM(config).to(request.param)


@pytest.fixture
def sharded(tmp_path):
    """Three shards of one tensor each, and their index."""
    names = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    for i, name in enumerate(names):
        save_file({f"tensor_{i}": np.ones((8, 8), np.float32)}, tmp_path / name)
    index = {"weight_map": {f"tensor_{i}": name for i, name in enumerate(names)}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize("piece", PIECES)
def test_every_tensor_is_what_was_saved(tmp_path, model, piece):
    model.save_pretrained(tmp_path, max_shard_size=PIECES[piece])
    assert (tmp_path / "model.safetensors").exists() == (piece == "single")
    weights = open_weights(tmp_path)
    saved = model.state_dict()
    assert set(weights.names) == set(saved)
    assert weights.config["hidden_size"] == 32 and weights.tokenizer is None
    dtype = {torch.bfloat16: ml_dtypes.bfloat16, torch.float16: np.float16}.get(model.dtype)
    for name, tensor in saved.items():
        array = weights.read(name)
        assert array.dtype == (dtype or np.float32)
        assert weights.shapes[name] == array.shape
        np.testing.assert_array_equal(array.astype(np.float32), tensor.float().numpy())


def test_missing_shards_are_all_named(sharded):
    shards = sorted(sharded.glob("*.safetensors"))
    shards[0].unlink()
    shards[2].unlink()
    with pytest.raises(WeightsError, match=rf"lacks 2 of .*{shards[0].name}, {shards[2].name}"):
        read_folder(sharded)


def test_tensors_that_the_index_places_where_they_are_not(sharded):
    index = sharded / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    first, last = weight_map["tensor_0"], weight_map["tensor_2"]
    index.write_text(json.dumps({"weight_map": weight_map | {"more": first, "tensor_0": last}}))
    with pytest.raises(WeightsError, match=rf"2 tensors .* more in {first}, tensor_0 in {last}\. "):
        read_folder(sharded)
    index.write_text("{}")
    with pytest.raises(WeightsError, match="index.json: weight_map is missing"):
        read_folder(sharded)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn], ids=str)
def test_weights_in_a_dtype_of_a_quantised_checkpoint(bare, dtype):
    """Refused when they are read: what else the file holds is no obstacle."""
    tensors = {"flat": torch.ones(3), "packed": torch.ones(2).to(dtype)}
    save_torch(tensors, bare / "model.safetensors")
    weights = read_folder(bare)
    np.testing.assert_array_equal(weights.read("flat"), np.ones(3, np.float32))
    with pytest.raises(WeightsError, match=r"packed is stored as (I8|F8_E4M3); .* before it was"):
        weights.read("packed")


@pytest.mark.parametrize("kept", [4, 100, -8])
def test_a_shard_cut_short_is_named(sharded, kept):
    shard = sorted(sharded.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=f"{shard.name} is cut short or not a safetensors file"):
        read_folder(sharded)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 a zip archive",
        b"\x02" + bytes(7) + b"[]",
        b"\x08" + bytes(7) + b'{"a":{}}',
    ],
    ids=["empty", "zip", "list", "entry"],
)
def test_what_is_no_safetensors_file(bare, content):
    (bare / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="model.safetensors is cut short or not a safetensors"):
        read_folder(bare)


def test_an_entry_whose_bytes_do_not_fit_its_shape(bare):
    path = bare / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"shape":[2]', b'"shape":[3]'))
    with pytest.raises(WeightsError, match="tensor has 8 bytes, which do not fit its shape"):
        read_folder(bare)


def test_folders_without_what_is_needed(tmp_path):
    with pytest.raises(WeightsError, match="config.json does not exist"):
        read_folder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="config.json, line 1: not valid JSON"):
        read_folder(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="has no model.safetensors and no model.safetensors.ind"):
        read_folder(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    command = f"mend-jax convert {tmp_path}"
    with pytest.raises(WeightsError, match=rf"\(pytorch_model.bin\) are not read.*{command}"):
        read_folder(tmp_path)


@pytest.mark.parametrize("name", ["../out.safetensors", "/out.safetensors", "sub/x.safetensors"])
def test_an_index_that_leaves_the_folder(sharded, name):
    save_file({"tensor_0": np.zeros((8, 8), np.float32)}, sharded.parent / "out.safetensors")
    index = sharded / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": weight_map | {"tensor_0": name}}))
    with pytest.raises(WeightsError, match=f"names '{name}', which is not a file of this folder"):
        read_folder(sharded)


@pytest.mark.parametrize("value", [[], {"tensor_0": 3}, {"tensor_0": ["a"]}, None], ids=str)
def test_an_index_of_other_types(sharded, value):
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": value}))
    with pytest.raises(WeightsError, match=r"index.json: weight_map.* must be (an object|a text)"):
        read_folder(sharded)


def test_a_tensor_in_two_shards(sharded):
    first, second, _ = sorted(sharded.glob("*.safetensors"))
    save_file({f"tensor_{i}": np.zeros((8, 8), np.float32) for i in (0, 1)}, second)
    with pytest.raises(WeightsError, match=f"{second.name} holds 1 tensors that another shard"):
        read_folder(sharded)


def test_a_folder_of_an_adapter(tmp_path):
    said = {"peft_type": "LORA", "base_model_name_or_path": "some/base"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(said))
    save_file({"x.lora_A.weight": np.ones(2, np.float32)}, tmp_path / "adapter_model.safetensors")
    for _ in range(2):
        with pytest.raises(WeightsError, match="holds a LORA adapter for some/base, not a model"):
            read_folder(tmp_path)
        (tmp_path / "config.json").write_text("{}")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 98362432\n"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_pointer_of_git_lfs(bare, name):
    (bare / name).write_bytes(POINTER)
    with pytest.raises(WeightsError, match=rf"{name} is a Git LFS pointer to the file of 98,362,4"):
        read_folder(bare)


@pytest.mark.parametrize(
    "around",
    ["_orig_mod.{}", "module.{}", "module._orig_mod.{}", "base_model.model.{}", "a._orig_mod.{}"],
)
def test_names_with_what_training_code_puts_around_them(bare, around):
    save_file({around.format(n): np.full(2, i, np.float32) for i, n in enumerate("xy")},
              bare / "model.safetensors")  # fmt: skip
    weights = read_folder(bare)
    inner = "a." * around.startswith("a.")
    assert weights.names == (f"{inner}x", f"{inner}y")
    assert weights.read(f"{inner}y").tolist() == [1, 1]


def test_names_of_an_adapter_that_is_not_merged(bare):
    names = ("q_proj.base_layer.weight", "q_proj.lora_A.weight")
    save_file({f"base_model.model.{n}": np.ones(2, np.float32) for n in names},
              bare / "model.safetensors")  # fmt: skip
    with pytest.raises(WeightsError, match="holds an adapter that is not merged"):
        read_folder(bare)


@pytest.fixture
def bare(tmp_path):
    """A folder with weights and no tokenizer."""
    save_file({"tensor": np.ones(2, np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_texts_are_neither_padded_nor_cut(bare):
    """Whatever the tokenizer was saved with: what is long is counted, not cut."""
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "[PAD]": 2}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_padding(length=4, pad_id=2)
    tokenizer.enable_truncation(4)
    tokenizer.save(str(bare / "tokenizer.json"))
    found = open_weights(bare).tokenizer
    assert found.encode("b").ids == [1]
    assert found.encode("a b a b a b").ids == [0, 1] * 3


def test_tokenizer_json(bare):
    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    tokenizer.save(str(bare / "tokenizer.json"))
    assert read_folder(bare).tokenizer.encode("aba").ids == [2, 0]
    (bare / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match="tokenizer.json cannot be read"):
        read_folder(bare)


def test_a_tokenizer_that_makes_the_library_panic(bare):
    """A prefix longer than a merged part, which its Rust code cuts off unasked."""
    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    said = json.loads(tokenizer.to_str())
    said["model"]["continuing_subword_prefix"] = "#" * 8
    (bare / "tokenizer.json").write_text(json.dumps(said))
    with pytest.raises(WeightsError, match="tokenizer.json cannot be read"):
        read_folder(bare)


def test_vocab_and_merges(bare):
    (bare / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    words = ["Ġ", "a", "b", "ab", "Ġab", "<|endoftext|>"]
    (bare / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (bare / "merges.txt").write_text("#version: 0.2\na b\nĠ ab\n")
    tokenizer = read_folder(bare).tokenizer
    assert tokenizer.encode("ab ab<|endoftext|>").ids == [3, 4, 5]


def test_vocabulary_of_word_pieces(bare):
    (bare / "config.json").write_text(json.dumps({"model_type": "bert"}))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "fish", "##es", "two"]
    (bare / "vocab.txt").write_text("\n".join(words) + "\n")
    assert read_folder(bare).tokenizer.encode("Two fishes").ids == [2, 7, 5, 6, 3]


def test_sentencepiece_model(bare):
    (bare / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with (bare / "spiece.model").open("wb") as file:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(["one fish two fish", "red fish blue fish"] * 20),
            model_writer=file,
            vocab_size=19,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            minloglevel=2,
        )
    expected = spm.SentencePieceProcessor(model_file=str(bare / "spiece.model")).encode("blue fish")
    assert read_folder(bare).tokenizer.encode("blue fish").ids == [*expected, 1]
