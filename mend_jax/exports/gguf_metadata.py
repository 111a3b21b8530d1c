"""What a GGUF file has to say of a Llama-like model beside its tensors, from its Hugging Face
folder.

The way back of `weights/gguf_keys.py` and `weights/gguf_tokenizer.py`; what is written is read
again and compared with the base (`exports/gguf.py`), so that nothing is told wrongly.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mend_jax.exports.folder import ExportError
from mend_jax.weights.chat_template import template_of_folder
from mend_jax.weights.gguf_kinds import REQUIRED
from mend_jax.weights.gguf_tokenizer import known_cut
from mend_jax.weights.hf_folder import read_config

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""{model_type of config.json: architecture of a file}."""
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Kinds of tokens."""
OTHERWISE = (
    "Export it as huggingface, and make a GGUF file of that folder with llama.cpp's "
    "convert_hf_to_gguf.py"
)
"""What to do with what is not written here."""
WHOLE, REAL = ("add_uint32", int), ("add_float32", float)


def architecture_of(source: Path) -> str:
    """The architecture of a folder's model.

    Raises:
      ExportError: it is none of those that are written.
    """
    kind = read_config(source).get("model_type")
    if kind not in ARCHITECTURES:
        raise ExportError(
            f"a model of type {kind!r} is not written as gguf ({', '.join(ARCHITECTURES)} are). "
            f"{OTHERWISE}"
        )
    return ARCHITECTURES[kind]


def add_settings(writer: Any, source: Path, dimensions: Any) -> None:
    """The model's own settings.

    Args:
      writer: a `gguf.GGUFWriter`. dimensions: of the base.
    """
    config, name = read_config(source), writer.arch
    width = dimensions.head_dim
    numbers = {field: config[key] for key, field in REQUIRED.items()}
    numbers |= {
        ".attention.head_count_kv": dimensions.num_key_value_heads,
        ".attention.key_length": width,
        ".attention.value_length": width,
        ".rope.dimension_count": width,
        ".rope.freq_base": dimensions.rotary(0).theta,
        ".vocab_size": dimensions.vocab_size,
    }
    for key, value in numbers.items():
        real = key.endswith(("epsilon", "freq_base"))
        method, kind = REAL if real else WHOLE
        getattr(writer, method)(f"{name}{key}", kind(value))
    said: Mapping[str, Any] = config.get("rope_scaling") or config.get("rope_parameters") or {}
    kind_of = said.get("rope_type", said.get("type", "default"))
    if kind_of in ("linear", "yarn"):
        writer.add_string(f"{name}.rope.scaling.type", kind_of)
        writer.add_float32(f"{name}.rope.scaling.factor", float(said["factor"]))
        if first := said.get("original_max_position_embeddings"):
            writer.add_uint32(f"{name}.rope.scaling.original_context_length", int(first))


def add_tokens(writer: Any, source: Path, tokenizer: Any, size: int) -> None:
    """The tokenizer: a byte-level BPE that cuts text in a way that has a name.

    Args:
      tokenizer: a `tokenizers.Tokenizer`. size: rows of the embedding; what has no token is unused.

    Raises:
      ExportError: it is of another kind.
    """
    told = json.loads(tokenizer.to_str())
    cut = known_cut(tokenizer)
    if told["model"]["type"] != "BPE" or cut is None:
        raise ExportError(
            "the tokenizer is no byte-level BPE that cuts text as GPT-2, SmolLM, Llama 3 or Qwen "
            f"2 do. {OTHERWISE}"
        )
    tokens = [f"[UNUSED{i}]" for i in range(size)]
    kinds = [UNUSED] * size
    for token, i in tokenizer.get_vocab(with_added_tokens=True).items():
        tokens[i], kinds[i] = token, NORMAL
    for added in told["added_tokens"]:
        kinds[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    merges = (x if isinstance(x, str) else " ".join(x) for x in told["model"]["merges"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cut)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(list(merges))
    for name, value in _ends(source, tokenizer):
        add = writer.add_bool if isinstance(value, bool) else writer.add_uint32
        add(f"tokenizer.ggml.{name}", value)
    if template := template_of_folder(source).source:
        writer.add_chat_template(template)


def _ends(source: Path, tokenizer: Any) -> Iterator[tuple[str, int | bool]]:
    """Tokens that begin and end texts, and whether the tokenizer puts them there."""
    config, ids = read_config(source), tokenizer.encode("a").ids
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    for name in ("bos", "eos"):
        if isinstance(token := config.get(f"{name}_token_id"), int):
            yield f"{name}_token_id", token
    yield "add_bos_token", ids[: len(bare)] != bare
    yield "add_eos_token", ids[-len(bare) :] != bare
    if isinstance(token := config.get("pad_token_id"), int) and token >= 0:
        yield "padding_token_id", token
