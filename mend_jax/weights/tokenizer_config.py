"""Where tokenizer_config.json disagrees with tokenizer.json: what transformers does, or an error.

Of tokenizers of its own classes (GPT2Tokenizer, BertTokenizer, ...), transformers builds the parts
that follow from `add_prefix_space`, `do_lower_case`, `strip_accents` and `tokenize_chinese_chars`
anew, so these win over tokenizer.json; of others (PreTrainedTokenizerFast) it takes the file as it
is. Tokens of `added_tokens_decoder` that the file lacks are added to all.
"""

from collections.abc import Mapping
from typing import Any

from mend_jax.weights.errors import WeightsError

_AS_THEY_ARE = ("PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer")
_BERT = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}


def as_configured(tokenizer: Any, config: Mapping[str, Any], origin: str) -> Any:
    """The tokenizer of tokenizer.json as transformers gives it out, changed in place.

    Args:
      config: tokenizer_config.json; empty, if there is none.
      origin: that file, for messages.

    Raises:
      WeightsError: a value of another type; or the two disagree and what is meant is not known.
    """
    if config.get("tokenizer_class") not in _AS_THEY_ARE:
        _set_prefix_space(tokenizer, config, origin)
        _set_bert(tokenizer, config, origin)
    _add_tokens(tokenizer, config, origin)
    return tokenizer


def _switch(config: Mapping[str, Any], name: str, origin: str) -> bool | None:
    value = config.get(name)
    if value is not None and not isinstance(value, bool):
        raise WeightsError(f"{origin}: {name!r} must be true or false, is {value!r:.40}")
    return value


def _set_prefix_space(tokenizer: Any, config: Mapping[str, Any], origin: str) -> None:
    from tokenizers import pre_tokenizers  # not needed to import this package

    wanted = _switch(config, "add_prefix_space", origin)
    whole = tokenizer.pre_tokenizer
    several = type(whole) is pre_tokenizers.Sequence
    parts = list(whole) if several else [whole]
    for part in parts:
        if wanted is None or not isinstance(part, pre_tokenizers.ByteLevel):
            continue
        if part.add_prefix_space != wanted and part is not whole:
            raise WeightsError(
                f"{origin} says that 'add_prefix_space' is {wanted}, tokenizer.json that it is "
                f"{part.add_prefix_space}: correct the one that is wrong"
            )
        part.add_prefix_space = wanted


def _set_bert(tokenizer: Any, config: Mapping[str, Any], origin: str) -> None:
    from tokenizers import normalizers

    if isinstance(tokenizer.normalizer, normalizers.BertNormalizer):
        for name, ours in _BERT.items():
            if name in config:
                value = _switch(config, name, origin)
                if value is not None or name == "strip_accents":  # null: as the case is
                    setattr(tokenizer.normalizer, ours, value)


def _add_tokens(tokenizer: Any, config: Mapping[str, Any], origin: str) -> None:
    from tokenizers import AddedToken

    wanted = config.get("added_tokens_decoder")
    if wanted is None:
        return
    if not isinstance(wanted, Mapping) or not all(
        place.isdecimal()
        and len(place) < 10
        and isinstance(token, Mapping)
        and isinstance(token.get("content"), str)
        for place, token in wanted.items()
    ):
        raise WeightsError(
            f"{origin}: 'added_tokens_decoder' must be an object of token ids, each with an object "
            "that has a 'content'"
        )
    there = tokenizer.get_added_tokens_decoder()
    for place, token in sorted(
        ((int(place), token) for place, token in wanted.items()), key=lambda item: item[0]
    ):
        names = ("single_word", "lstrip", "rstrip", "normalized", "special")
        flags = {
            name: _switch(token, name, origin) for name in names if token.get(name) is not None
        }
        added = AddedToken(token["content"], **flags)
        if place in there and repr(there[place]) == repr(added):
            continue
        tokenizer.add_tokens([added])
        found = tokenizer.token_to_id(token["content"])
        if found != place:
            raise WeightsError(
                f"{origin} says that {token['content']!r} is token {place}, tokenizer.json that it "
                f"is {found}: the two are of different models"
            )
