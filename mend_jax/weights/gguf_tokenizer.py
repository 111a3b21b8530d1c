"""Build a `tokenizers.Tokenizer` from the metadata of a GGUF file.

Two kinds of vocabulary occur in Llama-family files. `gpt2` is byte-level BPE with its merges; how
text is cut before merging is not stored but named (`tokenizer.ggml.pre`), so the known names are
listed here, as the models' own tokenizer.json have them. `llama` is a SentencePiece BPE that stores
scores in place of merges; the merges follow from the scores.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, TypedDict

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers as pre
from tokenizers.processors import TemplateProcessing

from mend_jax.typed import checked
from mend_jax.weights.errors import WeightsError

_CONTROL, _USER_DEFINED = 3, 4
_NEEDED = {
    "gpt2": ("tokenizer.ggml.tokens", "tokenizer.ggml.merges"),
    "llama": ("tokenizer.ggml.tokens", "tokenizer.ggml.scores"),
}


class Vocabulary(TypedDict, total=False):
    """The types of what is read of a file's metadata, by the keys without `tokenizer.ggml.`."""

    model: str
    pre: str
    tokens: list[str]
    merges: list[str]
    scores: list[float]
    token_type: list[int]
    bos_token_id: int
    eos_token_id: int
    unknown_token_id: int
    add_bos_token: bool
    add_eos_token: bool
    add_space_prefix: bool


_ADVICE = "Use the folder of the same model with its tokenizer.json."


class _Cut(NamedTuple):
    """How one family of byte-level tokenizers cuts text, and what follows from its name."""

    split: pre.PreTokenizer
    normalizer: normalizers.Normalizer | None = None
    whole_words: bool = False  # a word in the vocabulary is taken whole, without merging
    add_bos: bool = False


def _regex(digits: str) -> pre.PreTokenizer:
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits + "|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    split = pre.Split(Regex(pattern), behavior="isolated")
    return pre.Sequence([split, pre.ByteLevel(add_prefix_space=False, use_regex=False)])


_GPT2 = pre.ByteLevel(add_prefix_space=False, use_regex=True)
_CUTS = {
    "gpt-2": _Cut(_GPT2),
    "smollm": _Cut(pre.Sequence([pre.Digits(individual_digits=True), _GPT2])),
    "llama-bpe": _Cut(_regex(r"\p{N}{1,3}"), whole_words=True, add_bos=True),
    "qwen2": _Cut(_regex(r"\p{N}"), normalizer=normalizers.NFC()),
}


def known_cut(tokenizer: Tokenizer) -> str | None:
    """The name of the way in which a byte-level tokenizer cuts text; None if it has none here."""
    found = _way(tokenizer)
    for name, cut in _CUTS.items():
        known = Tokenizer(models.BPE(ignore_merges=cut.whole_words))
        known.pre_tokenizer = cut.split
        if cut.normalizer is not None:
            known.normalizer = cut.normalizer
        if _way(known) == found:
            return name
    return None


def _way(tokenizer: Tokenizer) -> tuple[Any, ...]:
    """What of a tokenizer decides how it cuts; where tokens begin and end does not."""
    told = json.loads(tokenizer.to_str())
    text = json.dumps([told["pre_tokenizer"], told["normalizer"]], sort_keys=True)
    text = text.replace('"trim_offsets": false', '"trim_offsets": true')
    return text, bool(told["model"].get("ignore_merges"))


def tokenizer_from_gguf(fields: Mapping[str, Any], origin: str) -> Tokenizer | None:
    """Build the tokenizer that a GGUF file describes.

    Args:
        fields: the metadata, as plain Python values.
        origin: the file, for messages.

    Returns:
        The tokenizer, or None if the file holds no vocabulary.

    Raises:
        WeightsError: a kind of vocabulary, or a way to cut text, that is not known here.
    """
    _check(fields, origin)
    kind = fields.get("tokenizer.ggml.model", "none")
    if kind in ("none", "no_vocab"):
        return None
    if kind not in _NEEDED:
        raise WeightsError(
            f"{origin} has a tokenizer of kind {kind!r}; known are {', '.join(_NEEDED)}. {_ADVICE}"
        )
    if absent := [key for key in _NEEDED[kind] if key not in fields]:
        raise WeightsError(f"{origin} lacks the metadata {', '.join(absent)}. {_ADVICE}")
    if kind == "gpt2":
        tokenizer, add_bos = _byte_level(fields, origin)
    else:
        tokenizer, add_bos = _sentencepiece(fields), True

    tokens, types = fields["tokenizer.ggml.tokens"], fields.get("tokenizer.ggml.token_type", ())
    tokenizer.add_tokens(
        [
            AddedToken(token, normalized=False, special=token_type == _CONTROL)
            for token, token_type in zip(tokens, types, strict=False)
            if token_type in (_CONTROL, _USER_DEFINED)
        ]
    )
    first = _end(fields, "bos", add_bos, origin)
    last = _end(fields, "eos", False, origin)
    if first or last:
        # by names of their own: a token with a colon in it is no name of a template
        named = {"first": first, "last": last}
        tokenizer.post_processor = TemplateProcessing(
            single=[*(["first"] if first else []), "$A", *(["last"] if last else [])],
            special_tokens=[
                {"id": name, "ids": [i for _, i in part], "tokens": [text for text, _ in part]}
                for name, part in named.items()
                if part
            ],
        )
    return tokenizer


def _check(fields: Mapping[str, Any], origin: str) -> None:
    """Refuses metadata of other types, and ids that are no token's."""
    ours = {k.removeprefix("tokenizer.ggml."): v for k, v in fields.items() if "tokenizer." in k}
    said = checked(Vocabulary, ours, f"{origin}: tokenizer.ggml", WeightsError)
    size = len(said.get("tokens", ()))
    ids = {k: v for k, v in ours.items() if k in ("bos_token_id", "eos_token_id",
                                                  "unknown_token_id")}  # fmt: skip
    if wrong := [f"{key} is {i}" for key, i in ids.items() if size and not 0 <= i < size]:
        raise WeightsError(f"{origin}: {', '.join(wrong)}, but there are {size} tokens. {_ADVICE}")
    for key in ("scores", "token_type"):
        if key in ours and len(ours[key]) != size:
            raise WeightsError(
                f"{origin}: {len(ours[key])} of tokenizer.ggml.{key} for {size} tokens. {_ADVICE}"
            )
    if twice := size - len(set(said.get("tokens", ()))):
        raise WeightsError(f"{origin}: {twice} tokens are there twice. {_ADVICE}")


def _end(
    fields: Mapping[str, Any], name: str, default: bool, origin: str
) -> list[tuple[str, int]]:
    if not fields.get(f"tokenizer.ggml.add_{name}_token", default):
        return []
    token_id = fields.get(f"tokenizer.ggml.{name}_token_id")
    if token_id is None:
        raise WeightsError(
            f"{origin}: texts get a token of kind {name}, but tokenizer.ggml.{name}_token_id is "
            f"missing. {_ADVICE}"
        )
    return [(fields["tokenizer.ggml.tokens"][token_id], token_id)]


def _byte_level(fields: Mapping[str, Any], origin: str) -> tuple[Tokenizer, bool]:
    name = fields.get("tokenizer.ggml.pre", "gpt-2")
    if name not in _CUTS:
        raise WeightsError(
            f"{origin} cuts text in the way named {name!r} (tokenizer.ggml.pre); known are "
            f"{', '.join(_CUTS)}. {_ADVICE}"
        )
    cut = _CUTS[name]
    vocab = {token: i for i, token in enumerate(fields["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=cut.whole_words))
    if cut.normalizer is not None:
        tokenizer.normalizer = cut.normalizer
    tokenizer.pre_tokenizer = cut.split
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, cut.add_bos


def _sentencepiece(fields: Mapping[str, Any]) -> Tokenizer:
    tokens = fields["tokenizer.ggml.tokens"]
    vocab = {token: i for i, token in enumerate(tokens)}
    unknown = tokens[fields.get("tokenizer.ggml.unknown_token_id", 0)]
    merges = _merges(vocab, fields["tokenizer.ggml.scores"])
    tokenizer = Tokenizer(
        models.BPE(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    prefix = fields.get("tokenizer.ggml.add_space_prefix", True)
    spaces = [normalizers.Prepend("▁")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*spaces, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return tokenizer


def _merges(vocab: Mapping[str, int], scores: list[float]) -> list[tuple[str, str]]:
    """Every way to make a token of two others, the highest-scored token first."""
    pairs = [
        (-scores[i], vocab[token[:at]], vocab[token[at:]], token[:at], token[at:])
        for token, i in vocab.items()
        for at in range(1, len(token))
        if token[:at] in vocab and token[at:] in vocab
    ]
    return [(left, right) for *_, left, right in sorted(pairs)]
