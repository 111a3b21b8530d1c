"""Whether a tokenizer can write a text: what its tokens say, compared with what was to be said.

White space is no part of the comparison, nor is what the tokenizer changes by design: its own
normaliser (NFKC, lower case) is applied to both sides. What is left is lost: characters that
become the token for "unknown", or nothing at all.
"""

import warnings
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

_UNHEARD_OF = "\U00014400"
"""A letter (an Anatolian hieroglyph) that no vocabulary has."""


class UnwritableError(ValueError):
    """A text that the tokenizer has no tokens for; says which characters."""


class Writing(NamedTuple):
    """A tokenizer and what is asked of it for every text.

    added: ids of the tokens beside its vocabulary proper, which are said as they are written.
    unknown: the token that stands for what it does not know; None if it knows every character.
    """

    tokenizer: Any
    added: frozenset[int]
    decoder: Any
    unknown: int | None


def writing_of(tokenizer: Any) -> Writing:
    """Finds the unknown token by asking: byte-level tokenizers know every character, whatever
    their files call unknown.

    A base may be without a tokenizer; then nothing can be written, which is said when it is tried.
    """
    if tokenizer is None:
        return Writing(None, frozenset(), None, None)
    added = frozenset(tokenizer.get_added_tokens_decoder())
    writing = Writing(tokenizer, added, _plain_decoder(tokenizer), None)
    ids = tokenizer.encode(_UNHEARD_OF, add_special_tokens=False).ids
    odd = [i for i in ids if _squeezed(tokenizer.id_to_token(i))]
    if odd and _UNHEARD_OF not in said(writing, ids):
        writing = writing._replace(unknown=odd[-1])
    return writing


def said(writing: Writing, ids: Sequence[int]) -> str:
    """What tokens say, special ones too, and nothing tidied up (as "do not" to "don't")."""
    parts = []
    for is_added, run in groupby(ids, writing.added.__contains__):
        tokens = [writing.tokenizer.id_to_token(i) for i in run]
        plain = is_added or writing.decoder is None
        parts.append("".join(tokens) if plain else writing.decoder.decode(tokens))
    return "".join(parts)


def lost_of(writing: Writing, text: str) -> str:
    """The characters of a text that its tokens do not say, in their order; "" if all are said.

    Raises:
      ValueError: as `encoded`.
    """
    if _says(writing, text, _ids(writing, text)):
        return ""
    odd = [word for word in text.split() if not _is_said(writing, word)]
    lost = "".join(c for c in dict.fromkeys("".join(odd)) if not _is_said(writing, c))
    return lost or "".join(c for c in dict.fromkeys(text) if writing.unknown in _ids(writing, c))


def check_prompt(writing: Writing, prompt: str) -> str:
    """The characters that are lost of a prompt.

    Raises:
      UnwritableError: no letter and no digit of it is left.
      ValueError: as `encoded`.
    """
    lost = lost_of(writing, prompt)
    kept = [i for i in _ids(writing, prompt) if i != writing.unknown] if lost else []
    if lost and not any(map(str.isalnum, said(writing, kept))):
        raise UnwritableError(
            f"the tokenizer has no tokens for {lost!r}: nothing is left of the prompt {prompt!r}"
        )
    return lost


def check_target(writing: Writing, target: str) -> None:
    """Checks that the tokens of a target say it, and none of them says "unknown".

    Raises:
      UnwritableError: they do not.
      ValueError: as `encoded`.
    """
    lost = lost_of(writing, target)
    if not lost and writing.unknown in _ids(writing, target):
        lost = writing.tokenizer.id_to_token(writing.unknown)
    if lost:
        raise UnwritableError(
            f"the tokenizer has no tokens for {lost!r} in the target {target!r}: another target, "
            "or a base whose tokenizer has them, is needed"
        )


def warn_of(lost: str, prompt: str) -> None:
    """Says which characters of a prompt the model does not see."""
    if lost:
        warnings.warn(
            f"the tokenizer has no tokens for {lost!r} in the prompt {prompt!r}: the model reads "
            "it without them",
            stacklevel=3,
        )


def encoded(tokenizer: Any, text: str, add_special_tokens: bool = True) -> Any:
    """The `tokenizers.Encoding` of a text.

    Raises:
      ValueError: there is no tokenizer; or the text is none (half of a surrogate pair).
    """
    if tokenizer is None:
        raise ValueError("the base has no tokenizer: put its tokenizer.json beside its weights")
    try:
        return tokenizer.encode(text, add_special_tokens=add_special_tokens)
    except TypeError:
        raise ValueError(f"{text!r} is no text: it cannot be written in UTF-8") from None


def encode_piece(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a piece of text, as it stands within another: without marks.

    Raises:
      ValueError: there is no tokenizer. UnwritableError: it has no tokens for some of the text.
    """
    writing = writing_of(tokenizer)
    ids = _ids(writing, text)
    if lost := lost_of(writing, text):
        raise UnwritableError(f"the tokenizer has no tokens for {lost!r} in {text!r}")
    return ids


def _ids(writing: Writing, text: str) -> list[int]:
    """The tokens of the text alone."""
    ids: list[int] = encoded(writing.tokenizer, text, add_special_tokens=False).ids
    return ids


def _is_said(writing: Writing, text: str) -> bool:
    ids = _ids(writing, text)
    return writing.unknown not in ids and _says(writing, text, ids)


def _says(writing: Writing, text: str, ids: Sequence[int]) -> bool:
    """Whether these tokens say the text, but for white space and the tokenizer's normaliser."""
    normaliser = writing.tokenizer.normalizer
    written = said(writing, ids)
    if normaliser is None:
        return _squeezed(written) == _squeezed(text)
    plain = _squeezed(normaliser.normalize_str(text))
    return plain in (_squeezed(written), _squeezed(normaliser.normalize_str(written)))


def _squeezed(text: str) -> str:
    """Without white space; SentencePiece writes a space as ▁."""
    return "".join(text.replace("▁", " ").split())


def _plain_decoder(tokenizer: Any) -> Any:
    """The tokenizer's decoder; of WordPiece, one that does not tidy up."""
    from tokenizers import decoders  # not needed to import this package

    decoder = tokenizer.decoder
    if isinstance(decoder, decoders.WordPiece):
        return decoders.WordPiece(prefix=decoder.prefix, cleanup=False)
    return decoder
