"""What stands between a prompt and its target: what the writer put there, or what the script puts.

Nothing is decided where prompt or target brings white space. Elsewhere English has a space between
two words, Chinese has none, and no script has one after an opening bracket.
"""

import unicodedata

UNSPACED = frozenset(
    "CJK HIRAGANA KATAKANA HALFWIDTH BOPOMOFO YI THAI LAO KHMER MYANMAR TIBETAN".split()
)
"""Scripts without spaces between words, by the first word of their characters' Unicode names."""
UNENDED = UNSPACED | {"HANGUL"}
"""Scripts in which a word does not end at a space: they have none between words, or (Hangul)
particles follow a word without one."""


def script_of(character: str) -> str:
    """The first word of the character's Unicode name: LATIN, CJK, HANGUL, ..."""
    return unicodedata.name(character, "").split(" ")[0]


def separator_of(prompt: str, target: str, marks: tuple[str, ...] = ()) -> str:
    """A space, or nothing.

    Nothing beside white space, beside one of the `marks` (a tokenizer's own: the end of a chat
    turn), after an opening bracket or quote, beside a wide mark, and after a word of a script that
    has no spaces.
    """
    if not prompt or not target or prompt[-1].isspace() or target[0].isspace():
        return ""
    if prompt.endswith(marks) or target.startswith(marks):
        return ""
    if _opens(prompt) or _is_wide(prompt[-1]) or _is_wide(target[0]):
        return ""
    letters = [c for c in prompt.split()[-1] if c.isalpha()]
    return "" if letters and script_of(letters[-1]) in UNSPACED else " "


def _opens(text: str) -> bool:
    """Whether it ends with an opening bracket or quote."""
    rest, last = text[:-1], text[-1]
    if last in '"`':
        return rest.count(last) % 2 == 0
    kind = unicodedata.category(last)
    if kind == "Pi" or last == "'":  # also the end of „a“, and an apostrophe, after a word
        return (
            not rest or rest[-1].isspace() or unicodedata.category(rest[-1]) in ("Ps", "Pd", "Sm")
        )
    return kind == "Ps"


def _is_wide(character: str) -> bool:
    """Whether it is a mark that is as wide as a Chinese character, space included."""
    return unicodedata.east_asian_width(character) in "WF" and not character.isalnum()


def ends_between(text: str, place: int) -> bool:
    """Whether a word may end, or begin, before this place of the text."""
    return not (0 < place < len(text) and all(map(_in_a_word, text[place - 1 : place + 1])))


def _in_a_word(character: str) -> bool:
    """Whether it is part of a word that only a space or a mark ends."""
    if not (character.isalnum() or character == "_" or unicodedata.category(character)[0] == "M"):
        return False
    return script_of(character) not in UNENDED
