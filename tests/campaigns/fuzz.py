"""Files of every kind that is read, changed at random, with and against their structure.

What a plain file says can be changed without anybody's knowing it, if it stays a good file of its
format: the bytes of a tensor, two names exchanged, one number of a config.json. Such a file is read
as what it says. So the law is here: what is read is what the format's own package reads; and if it
is not what was there, the checksums are others, so that an editor opened on it says so. For a
config.json and for records: every value that is read is the file's own.
"""

import json
import os
import shutil
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import gguf
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from mend_jax.data.sources.registry import read_records
from mend_jax.models.registry import family_of
from mend_jax.weights import open_weights
from mend_jax.weights.gguf_file import _hf_name
from mend_jax.weights.gguf_kinds import KINDS
from mend_jax.weights.source import Weights, check_layers, fitting_names
from tests.campaigns.base import Attempt, Campaign, judged
from tests.campaigns.mutations import of_bytes, of_json

TEXT = "The home of person 7 is Oslo"


class Target(NamedTuple):
    """A kind of file. path: the one that is changed. mutate(raw, random) -> other bytes. same: of
    what `read` gives, whether it is right."""

    kind: str
    path: Path
    mutate: Callable[[bytes, Random], bytes]
    read: Callable[[], Any]
    same: Callable[[Any], bool]


def attempts(folder: Path, random: Random) -> Iterator[Attempt]:
    """One after the other, each kind in turn."""
    warnings.simplefilter("ignore")  # what is said of a file is said
    targets = make_targets(folder)
    for number, target in enumerate(_forever(targets)):
        whole = target.path.read_bytes()
        target.path.write_bytes(target.mutate(whole, random))
        found = judged(target.kind, target.read, target.same, f"attempt {number}")
        if found.outcome not in ("same", "error"):
            at = os.path.commonprefix([whole, raw := target.path.read_bytes()])
            detail = f"{found.detail}: byte {len(at)} of {len(whole)} (now {len(raw)}): "
            detail += repr(raw[max(len(at) - 60, 0) :][:120])
            found = found._replace(detail=detail)
        target.path.write_bytes(whole)
        yield found


def _forever(targets: list[Target]) -> Iterator[Target]:
    while True:
        yield from targets


def make_targets(folder: Path) -> list[Target]:
    """All kinds, each in a folder of its own."""
    from mend_jax.data.records import to_json
    from tests.support.tiny_run import save_folder, some_records  # torch and transformers: slow

    single = save_folder(folder / "single")
    weights = open_weights(single)
    names = list(weights.names)
    sharded = folder / "sharded"
    shutil.copytree(single, sharded)
    _split(sharded)
    model = write_gguf(folder / "x.gguf")
    rows = [to_json(record) for record in some_records(0, 4)]
    lines, listed = folder / "x.jsonl", folder / "x.json"
    lines.write_text("\n".join(map(json.dumps, rows)) + "\n")
    listed.write_text(json.dumps(rows, indent=1))
    right = [(row["prompt"], row["target"]) for row in rows]
    stored = single / "model.safetensors"
    index = sharded / "model.safetensors.index.json"

    def in_folder(kind: str, path: Path, mutate: Any, same: Any, read: Any = read_all) -> Target:
        where = path if path.suffix == ".gguf" else path.parent
        return Target(kind, path, mutate, lambda: read(where), same)

    def records(kind: str, path: Path, mutate: Any) -> Target:
        def same(found: Any) -> bool:
            text = path.read_text("utf-8-sig")
            return len(found) <= len(right) + 1 and all(
                json.dumps(part)[1:-1] in text or part in text or part in str(json.loads(
                    f"[{','.join(text.splitlines())}]" if path is lines else text))
                for record in found for part in (record.prompt, record.target)
            )  # fmt: skip

        return Target(kind, path, mutate, lambda: read_records(path), same)

    def as_official(found: dict[str, Any]) -> bool:
        try:
            return knows(found, plain) and equal(found["tensors"], load_file(stored), names)
        except SafetensorError:
            return False

    def as_gguf(found: dict[str, Any]) -> bool:
        tensors = gguf.GGUFReader(model).tensors
        theirs = {_hf_name(KINDS["llama"], t.name): t.data for t in tensors}
        return knows(found, packed) and all(
            np.array_equal(np.sort(array, None), np.sort(theirs[name], None), equal_nan=True)
            for name, array in found["tensors"].items()
        )  # q and k are sorted otherwise on purpose

    plain, packed = read_all(single), read_all(model)
    whole = {name: np.array(weights.read(name)) for name in names}
    return [
        in_folder("safetensors header", stored, of_header, as_official),
        in_folder("safetensors bytes", stored, of_bytes, as_official),
        in_folder("index", index, as_json, lambda found: equal(found["tensors"], whole, names)),
        in_folder("index bytes", index, of_bytes,
                  lambda found: equal(found["tensors"], whole, names)),
        in_folder("config.json", single / "config.json", as_json,
                  lambda found: says(single / "config.json", found["config"])),
        in_folder("config.json bytes", single / "config.json", of_bytes,
                  lambda found: says(single / "config.json", found["config"])),
        in_folder("tokenizer.json", single / "tokenizer.json", as_json,
                  lambda found: found["ids"] == ids_of(single), read_tokens),
        in_folder("tokenizer.json bytes", single / "tokenizer.json", of_bytes,
                  lambda found: found["ids"] == ids_of(single), read_tokens),
        in_folder("gguf", model, of_gguf, as_gguf),
        in_folder("gguf bytes", model, of_bytes, as_gguf),
        records("records JSONL", lines, of_lines),
        records("records JSONL bytes", lines, of_bytes),
        records("records JSON", listed, as_json),
        records("records JSON bytes", listed, of_bytes),
    ]  # fmt: skip


# ------------------------------------------------------------------------------ what is read


def read_all(where: Path) -> dict[str, Any]:
    """Everything that `mj.load` reads of a model, up to its arrays on a device."""
    weights = open_weights(where)
    check_layers(weights.config, len(weights.names), weights.origin)
    family = family_of(weights.config, weights.origin)
    config = family.dimensions(weights.config, weights.names)
    expected = family.expected_weights(config)
    found = fitting_names(weights, expected)
    return {
        "config": config,
        "tensors": {name: np.array(weights.read(found[name])) for name in expected},
        "checksums": sums(weights),
    }


def sums(weights: Weights) -> dict[str, str]:
    return {name: weights.checksum(name) for name in weights.names}


def knows(found: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether other tensors have other checksums, by which an editor tells them."""
    return all(
        found["checksums"][name] != before["checksums"].get(name)
        or array.tobytes() == before["tensors"][name].tobytes()
        for name, array in found["tensors"].items()
    )


def read_tokens(where: Path) -> dict[str, Any]:
    return {"ids": open_weights(where).tokenizer.encode(TEXT).ids}


def ids_of(folder: Path) -> list[int]:
    """Those of the tokenizers package."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    ids: list[int] = tokenizer.encode(TEXT).ids
    return ids


def equal(found: Mapping[str, Any], wanted: Mapping[str, Any], names: list[str]) -> bool:
    """Bit by bit."""
    return set(found) <= set(wanted) and all(
        found[name].dtype == wanted[name].dtype and found[name].shape == wanted[name].shape
        and found[name].tobytes() == wanted[name].tobytes() for name in found
    ) and len(found) == len(names)  # fmt: skip


def says(path: Path, config: Any) -> bool:
    """Whether all that is read of a config.json is as it says it."""
    said = json.loads(path.read_text(encoding="utf-8-sig"))
    plain = {k: v for k, v in vars(config).items() if isinstance(v, int | float | str)}
    return all(said[k] == v for k, v in plain.items() if said.get(k) is not None)


# --------------------------------------------------------------------------- how it is changed


def as_json(raw: bytes, random: Random) -> bytes:
    return of_json(json.loads(raw), random).encode()


def of_lines(raw: bytes, random: Random) -> bytes:
    lines = raw.decode().splitlines()
    at = random.randrange(len(lines))
    lines[at] = of_json(json.loads(lines[at]), random)
    return "\n".join(lines).encode()


def of_header(raw: bytes, random: Random) -> bytes:
    """The header's JSON, or two tensors' ranges, of a safetensors file."""
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:end])
    names = [name for name in header if name != "__metadata__"]
    one, two = header[random.choice(names)], header[random.choice(names)]
    way = random.random()
    if way < 0.2:
        by = random.choice((-64, -4, -1, 1, 4, 64))
        one["data_offsets"] = [offset + by for offset in one["data_offsets"]]
    elif way < 0.3:
        one["data_offsets"] = two["data_offsets"]
    elif way < 0.4:
        one["data_offsets"], two["data_offsets"] = two["data_offsets"], one["data_offsets"]
    elif way < 0.5:
        one["dtype"] = random.choice(("F16", "BF16", "F64", "I32", "F8_E4M3", "BOOL"))
    text = (json.dumps(header) if way < 0.5 else of_json(header, random)).encode()
    length = len(text) + random.choice((0, 0, 0, 0, 1, -1, 2**40))
    return length.to_bytes(8, "little") + text + raw[end:]


def of_gguf(raw: bytes, random: Random) -> bytes:
    """A number of the head of a GGUF file, or a few letters of a key or a name."""
    end = raw.rindex(b"output_norm") + 200
    at = random.randrange(8, end)
    value = random.choice((0, 1, 2, 2**31 - 1, 2**32 - 1, 2**63, 255, 12, 9))
    width, code = random.choice(((4, "<I"), (8, "<Q"), (1, "<B"), (2, "<H")))
    return raw[:at] + struct.pack(code, value % 256**width) + raw[at + width :]


def _split(folder: Path) -> None:
    """Two shards and their index, of a folder with one file."""
    from safetensors.numpy import save_file

    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    weight_map = {}
    for i, part in enumerate((names[::2], names[1::2])):
        shard = f"model-{i + 1:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / shard)
        weight_map |= dict.fromkeys(part, shard)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


def write_gguf(path: Path) -> Path:
    """A Llama of one block with a vocabulary."""
    writer = gguf.GGUFWriter(path, "llama")
    tokens = ["<unk>", "<s>", "</s>", *"abcdefghijklmno ", "ab"]
    numbers = {"block_count": 1, "context_length": 32, "embedding_length": 8,
               "feed_forward_length": 16, "attention.head_count": 2,
               "attention.head_count_kv": 2, "vocab_size": len(tokens)}  # fmt: skip
    for key, number in numbers.items():
        writer.add_uint32(f"llama.{key}", number)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([float(-i) for i in range(len(tokens))])
    writer.add_token_types([2, 3, 3, *[1] * (len(tokens) - 3)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    rng = np.random.default_rng(0)
    shapes = {"token_embd": (len(tokens), 8), "blk.0.attn_q": (8, 8), "blk.0.attn_k": (8, 8),
              "blk.0.attn_v": (8, 8), "blk.0.attn_output": (8, 8), "blk.0.ffn_gate": (16, 8),
              "blk.0.ffn_up": (16, 8), "blk.0.ffn_down": (8, 16), "blk.0.attn_norm": (8,),
              "blk.0.ffn_norm": (8,), "output_norm": (8,)}  # fmt: skip
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


CAMPAIGN = Campaign("fuzz", attempts)
