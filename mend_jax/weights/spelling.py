"""A tokenizer of one character a token, for a model that spells words as sounds.

Such a model's config.json holds its two alphabets, `grapheme_chars` and `phoneme_chars`. A token is
a character's place in its alphabet, and a character of both has the same place in both, so one
vocabulary serves source and answer: a letter is replaced by the sound that shares its token.
"""

from collections.abc import Mapping
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from mend_jax.weights.errors import WeightsError

_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
"""The first places of both alphabets."""


def spelling_tokenizer(config: Mapping[str, Any], origin: str) -> Tokenizer:
    """The tokenizer that a config.json with two alphabets describes.

    Source and answer begin with `<s>`, which the model says itself; a source ends with `</s>`.

    Args:
      origin: the folder, for messages.

    Raises:
      WeightsError: a character has one place among the letters and another among the sounds.
    """
    letters, sounds = config["grapheme_chars"], config["phoneme_chars"]
    n = len(_SPECIAL)
    alphabet = (*sounds[n:], *letters[len(sounds) :])
    vocabulary = {token: i for i, token in enumerate((*_SPECIAL, *alphabet))}
    moved = [x for i, x in enumerate(letters) if i >= n and vocabulary.get(x, i) != i]
    if moved:
        raise WeightsError(f"{origin}: {', '.join(moved)} stand elsewhere among the sounds")
    pairs = zip(letters[n:], sounds[n:], strict=False)
    same_token = [normalizers.Replace(x, sound) for x, sound in pairs if x != sound]
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.add_special_tokens(list(_SPECIAL))
    tokenizer.normalizer = normalizers.Sequence([*same_token, normalizers.Prepend("<s>")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("<s>|."), "isolated")
    tokenizer.post_processor = TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", vocabulary["</s>"])]
    )
    tokenizer.decoder = decoders.Fuse()
    return tokenizer
