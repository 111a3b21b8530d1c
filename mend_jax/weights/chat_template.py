"""How a chat is written out as one text: a model's Jinja template, and the tokens that it names."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from mend_jax.files import read_json
from mend_jax.typed import checked
from mend_jax.weights.errors import WeightsError

TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")


class ChatTemplate(NamedTuple):
    """source: Jinja's; empty if the model has none. tokens: what it calls `bos_token` and so on.
    ends: whether what is told as an answer is all of the model's turn, whose end it then has."""

    source: str = ""
    tokens: Mapping[str, str] = MappingProxyType({})
    ends: bool = False


def template_of_folder(folder: Path) -> ChatTemplate:
    """That of chat_template.jinja or, as older folders have it, of tokenizer_config.json; of
    several there, the one called "default".

    Raises:
      WeightsError: it is neither a text nor a list of named ones.
    """
    alone, beside = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    config: dict[str, Any] = {}
    if beside.is_file():
        found = read_json(beside, WeightsError)
        config = checked(dict[str, Any], found, str(beside), WeightsError)
    source = alone.read_text(encoding="utf-8") if alone.is_file() else config.get("chat_template")
    if isinstance(source, list):
        named = [one for one in source if isinstance(one, dict) and one.get("name") == "default"]
        source = named[0].get("template") if named else None
    if not isinstance(source, str | None):
        raise WeightsError(f"{beside}: 'chat_template' must be a text, is {source!r:.40}")
    tokens = {}
    for name in TOKENS:
        token = config.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            tokens[name] = token
    return ChatTemplate(source or "", tokens)


def template_of_gguf(fields: Mapping[str, Any]) -> ChatTemplate:
    """That of a GGUF file's fields."""
    known = fields.get("tokenizer.ggml.tokens") or []
    names = ("bos", "eos", "unknown", "padding")
    numbers = (fields.get(f"tokenizer.ggml.{name}_token_id") for name in names)
    tokens = {
        name: str(known[number])
        for name, number in zip(TOKENS, numbers, strict=True)
        if isinstance(number, int) and 0 <= number < len(known)
    }
    return ChatTemplate(str(fields.get("tokenizer.chat_template") or ""), tokens)
