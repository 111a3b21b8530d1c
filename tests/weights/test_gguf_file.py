"""GGUF: the same tensors as transformers reads from the same file, and one error per bad file."""

import struct
import sys

import gguf
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from mend_jax.models.llama import LlamaConfig as Dimensions
from mend_jax.models.rotary_scaling import rotary_frequencies
from mend_jax.weights import WeightsError, read_gguf
from mend_jax.weights.gguf_reading import open_gguf

KEYS = {
    "block_count": 1,
    "context_length": 32,
    "embedding_length": 8,
    "feed_forward_length": 16,
    "attention.head_count": 2,
    "attention.layer_norm_rms_epsilon": 1e-5,
}


def write_gguf(path, architecture="llama", keys=KEYS, tensors=("blk.0.attn_q.weight",), **texts):
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in keys.items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(f"{architecture}.{key}", value)
    for key, value in texts.items():
        writer.add_string(key.replace("__", "."), value)
    for name in tensors:
        writer.add_tensor(name, np.arange(64, dtype=np.float32).reshape(8, 8))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def oracle(smollm2):
    """What AutoModelForCausalLM.from_pretrained(gguf_file=...) calls, which needs accelerate."""
    with torch.device("meta"):  # only for the names of its tensors
        model = LlamaForCausalLM(LlamaConfig(**smollm2.config))
    loaded = load_gguf_checkpoint(smollm2.origin, return_tensors=True, model_to_load=model)
    return loaded["config"], loaded["tensors"]


def test_tensors_are_those_of_transformers(smollm2, oracle):
    _, tensors = oracle
    assert set(smollm2.names) == set(tensors)
    assert smollm2.shapes == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    checked = [n for n in smollm2.names if ".layers." not in n or ".layers.0." in n or ".29." in n]
    assert len(checked) == 2 + 2 * 9  # the embedding, the last norm, two blocks
    for name in checked:
        array = smollm2.read(name)
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, tensors[name].numpy(), err_msg=name)


def test_config_is_that_of_transformers(smollm2, oracle):
    theirs, _ = oracle
    ours = smollm2.config
    same = theirs.keys() & ours.keys() - {"rms_norm_eps"}
    assert len(same) >= 12
    assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}
    assert ours["rms_norm_eps"] == 1e-5  # theirs is the float32, widened: 9.999999747e-06
    assert ours["architectures"] == ["LlamaForCausalLM"]


def test_the_header_is_that_of_the_gguf_package(smollm2):
    fields, tensors = open_gguf(smollm2.files[0])
    theirs = gguf.GGUFReader(smollm2.files[0])
    said = {k: v.contents() for k, v in theirs.fields.items() if not k.startswith("GGUF.")}
    assert repr(fields) == repr(said)  # a checksum is made of how they are written
    for ours, tensor in zip(tensors, theirs.tensors, strict=True):
        assert (ours.name, ours.kind) == (tensor.name, tensor.tensor_type)
        assert list(ours.shape) == tensor.shape.tolist()
        assert ours.begin == tensor.data_offset and ours.data.nbytes == tensor.n_bytes


def test_values_of_every_kind(tmp_path):
    path = write_gguf(tmp_path / "x.gguf")
    writer = gguf.GGUFWriter(path, "llama")
    kinds = [k.name.lower() for k in gguf.GGUFValueType if k.name not in ("ARRAY", "STRING")]
    for kind in kinds:
        getattr(writer, f"add_{kind}")(f"a.{kind}", 1)
        array = writer.add_key_value
        array(f"a.{kind}s", [1, 0, 1], gguf.GGUFValueType.ARRAY, gguf.GGUFValueType[kind.upper()])
    writer.add_array("a.none", [])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    fields, _ = open_gguf(path)
    theirs = {k: v.contents() for k, v in gguf.GGUFReader(path).fields.items() if "GGUF" not in k}
    assert len(kinds) == 11 and repr(fields) == repr(theirs)


def test_a_file_of_big_endian_numbers(tmp_path):
    path = write_gguf(tmp_path / "x.gguf")
    path.write_bytes(b"GGUF" + (3).to_bytes(4, "big") + path.read_bytes()[8:])
    with pytest.raises(WeightsError, match="x.gguf .*its numbers are big-endian"):
        read_gguf(path)


def test_a_small_file_without_a_vocabulary(tmp_path):
    weights = read_gguf(write_gguf(tmp_path / "tiny.gguf", tensors=["token_embd.weight"]))
    assert weights.tokenizer is None
    assert weights.names == ("model.embed_tokens.weight",)
    assert weights.config["num_key_value_heads"] == 2 and weights.config["head_dim"] == 4
    assert weights.config["rope_theta"] == 10000.0 and weights.config["tie_word_embeddings"]


def test_not_gguf(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\x08\x00\x00\x00{}")
    with pytest.raises(WeightsError, match="model.safetensors is not a GGUF file.*Pass a .gguf"):
        read_gguf(path)
    with pytest.raises(WeightsError, match="absent.gguf is not a file"):
        read_gguf(tmp_path / "absent.gguf")


@pytest.mark.parametrize("kept", [0.05, 0.5, 0.95])  # in the counts, the metadata, the tensor
def test_cut_short(tmp_path, kept):
    path = write_gguf(tmp_path / "short.gguf")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(WeightsError, match="short.gguf is cut short.*Download it again"):
        read_gguf(path)


def test_other_architecture(tmp_path):
    path = write_gguf(tmp_path / "other.gguf", architecture="rwkv7")
    wanted = "other.gguf holds a model of architecture 'rwkv7'; read from GGUF are llama, qwen2"
    with pytest.raises(WeightsError, match=wanted):
        read_gguf(path)


def test_missing_metadata(tmp_path):
    keys = {key: value for key, value in KEYS.items() if not key.startswith("attention")}
    path = write_gguf(tmp_path / "bare.gguf", keys=keys)
    with pytest.raises(WeightsError, match="llama.attention.head_count, llama.attention.layer_nor"):
        read_gguf(path)


def test_what_would_be_lost_is_refused(tmp_path):
    experts = write_gguf(tmp_path / "moe.gguf", tensors=["blk.0.ffn_up_exps.weight"])
    with pytest.raises(WeightsError, match="no place for: blk.0.ffn_up_exps.weight"):
        read_gguf(experts)
    scaled = write_gguf(tmp_path / "yarn.gguf", llama__rope__scaling__type="yarn")
    with pytest.raises(WeightsError, match="has not, .*: llama.rope.scaling.type = 'yarn'"):
        read_gguf(scaled)


PLAIN: dict[str, tuple[object, ...]] = {
    "vocab_size": (61,),
    "attention.head_count_kv": (2, 1),
    "attention.key_length": (4,),
    "attention.value_length": (4,),
    "attention.sliding_window": (0, 32, 4096),
    "attention.scale": (0.5,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "logit_scale": (1.0,),
    "residual_scale": (1.0,),
    "rope.dimension_count": (4,),
    "rope.freq_base": (500.0,),
    "rope.scale_linear": (1.0,),
    "rope.scaling.factor": (1.0,),
    "rope.scaling.original_context_length": (16,),
    "tensor_data_layout": ("Meta AI original pth",),
}
OTHER: dict[str, tuple[object, ...]] = {
    "attention.causal": (False,),
    "attention.clamp_kqv": (8.0,),
    "attention.head_count_kv": (0, 1.5, "2"),
    "attention.layer_norm_epsilon": (1e-5,),
    "attention.scale": (0.4,),
    "attention.sliding_window": (16,),
    "attention.value_length": (8,),
    "expert_count": (8,),
    "expert_used_count": (2,),
    "embedding_scale": (12.0,),
    "logit_scale": (0.25,),
    "pooling_type": (1,),
    "residual_scale": (0.5,),
    "rope.dimension_count": (2,),
    "rope.scale_linear": (0.25,),
    "rope.scaling.factor": (8.0,),
    "rope.scaling.type": ("linear",),
    "unheard_of": (0, 1, "x"),
    "use_parallel_residual": (True,),
}


def rows(table):
    return [(key, value) for key, values in table.items() for value in values]


def with_key(path, key, value):
    writer = gguf.GGUFWriter(path, "llama")
    for name, x in (KEYS | {key: value}).items():
        kinds = {bool: "add_bool", float: "add_float32", str: "add_string", int: "add_uint32"}
        getattr(writer, kinds[type(x)])(f"llama.{name}", x)
    writer.add_tensor("token_embd.weight", np.zeros((61, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("key, value", rows(PLAIN))
def test_keys_of_a_plain_model(tmp_path, key, value):
    assert read_gguf(with_key(tmp_path / "plain.gguf", key, value)).config["hidden_size"] == 8


@pytest.mark.parametrize("key, value", rows(OTHER))
def test_keys_of_another_model_are_refused_by_name(tmp_path, key, value):
    path = with_key(tmp_path / "other.gguf", key, value)
    with pytest.raises(WeightsError, match=rf"other.gguf has settings .*llama\.{key} = "):
        read_gguf(path)


@pytest.mark.parametrize("key", ["general.type", "adapter.lora.alpha"])
def test_what_is_no_whole_model_is_refused_by_name(tmp_path, key):
    path = write_gguf(tmp_path / "part.gguf", **{key.replace(".", "__"): "adapter"})
    with pytest.raises(WeightsError, match=f"{key} = 'adapter'"):
        read_gguf(path)


def test_the_divisors_of_llama_3(tmp_path):
    """What the converter to GGUF writes for Llama 3.1 turns as transformers' scaling does."""
    scaling = {
        "rope_type": "llama3",
        "rope_theta": 500.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    shape = dict(hidden_size=64, num_attention_heads=2, max_position_embeddings=512)
    theirs = LlamaRotaryEmbedding(LlamaConfig(**shape, rope_parameters=scaling)).inv_freq
    plain = 500.0 ** (-torch.arange(0, 32, 2) / 32)
    divisors = (plain / theirs).numpy().astype(np.float32)
    assert len(np.unique(divisors)) >= 4  # 1, 8, and those between

    def written(values):
        path = tmp_path / "llama3.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        sizes = {"embedding_length": 64, "rope.freq_base": 500.0, "vocab_size": 61}
        for name, x in (KEYS | sizes).items():
            add = writer.add_float32 if isinstance(x, float) else writer.add_uint32
            add(f"llama.{name}", x)
        writer.add_tensor("rope_freqs.weight", values)
        writer.add_tensor("token_embd.weight", np.zeros((61, 64), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return read_gguf(path)

    weights = written(divisors)
    assert "rope_freqs.weight" not in weights.names
    said = Dimensions.from_hf(weights.config)
    ours = rotary_frequencies(said.head_dim, said.rope_theta, said.rope_scaling)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-6)
    for wrong in (divisors[:-1], divisors * 0, divisors * np.nan):
        with pytest.raises(ValueError, match="divisors of the rotary .* 16 numbers above 0"):
            Dimensions.from_hf(written(wrong).config)


def test_without_the_gguf_package(tmp_path, monkeypatch):
    path = write_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match="pip install gguf"):
        read_gguf(path)


def test_a_part_by_another_name_is_said(tmp_path):
    keys = {"split.count": 3, "split.no": 1}
    path = write_gguf(tmp_path / "x.gguf", keys=KEYS)
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in keys.items():
        writer.add_uint16(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(WeightsError, match="x.gguf holds part 2 of 3 of a split model, which is"):
        read_gguf(path)


def test_a_pointer_of_git_lfs(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 98362432\n")
    with pytest.raises(WeightsError, match="x.gguf is a Git LFS pointer to the file of 98,362,432"):
        read_gguf(path)


@pytest.mark.parametrize("to", [0, 32, 2**40], ids=str)
def test_tensors_that_overlap_or_leave_holes(tmp_path, to):
    names = ("blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight")
    path = write_gguf(tmp_path / "x.gguf", tensors=names)
    reader = gguf.GGUFReader(path)
    place = reader.tensors[1].field.offset + 8 + len(names[1]) + 4 + 2 * 8 + 4
    raw = bytearray(path.read_bytes())
    assert int.from_bytes(raw[place : place + 8], "little") == 256
    raw[place : place + 8] = to.to_bytes(8, "little")
    path.write_bytes(raw)
    with pytest.raises(WeightsError, match=r"x.gguf is .*damaged.*Download it again"):
        read_gguf(path)


@pytest.mark.parametrize("count", [2**31, 2**62], ids=str)
@pytest.mark.parametrize("kind", [4, 8, 9])
def test_a_list_that_is_longer_than_the_file(tmp_path, kind, count):
    """It is not counted on past the end."""
    path = tmp_path / "x.gguf"
    key = b"general.tags"
    values = struct.pack("<IIQ", 9, kind, count) + bytes(40)
    path.write_bytes(struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, len(key)) + key + values)
    with pytest.raises(WeightsError, match="x.gguf is cut short, damaged"):
        read_gguf(path)


def test_a_file_that_goes_on_after_its_tensors(tmp_path):
    path = write_gguf(tmp_path / "x.gguf")
    path.write_bytes(path.read_bytes() + b"0" * 64)
    with pytest.raises(WeightsError, match=r"x.gguf is damaged \(its tensors end at byte"):
        read_gguf(path)


@pytest.mark.parametrize("key", ["tokens", "merges", "model", "bos_token_id", "add_bos_token"])
def test_a_vocabulary_of_another_type(tmp_path, key):
    path = write_gguf(tmp_path / "x.gguf", keys=KEYS | {})
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in KEYS.items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(f"llama.{name}", value)
    vocabulary = {"model": "gpt2", "pre": "gpt-2", "tokens": ["a", "b"], "merges": [],
                  "bos_token_id": 0, "add_bos_token": True} | {key: 3.5}  # fmt: skip
    for name, value in vocabulary.items():
        kinds = {str: writer.add_string, list: writer.add_array, int: writer.add_uint32,
                 bool: writer.add_bool, float: writer.add_float32}  # fmt: skip
        kinds[type(value)](f"tokenizer.ggml.{name}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(WeightsError, match=f"x.gguf: tokenizer.ggml: {key} must be .*found 3.5"):
        read_gguf(path)
