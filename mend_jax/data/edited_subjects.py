"""Locality prompts about subjects that are edited themselves.

With many edits held, what is said of a subject that one of them is about may well be another than
before: that is obedience, and no damage. Such prompts are left out of the score, and counted.
"""

from collections.abc import Iterable, Sequence

from mend_jax.data.spacing import ends_between
from mend_jax.data.token_records import TokenRecord, grouped

BEGINNING = 3
"""Characters by which names are looked up."""


class Names:
    """Finds which of many names stand in a text, as whole words, whatever their case."""

    def __init__(self, names: Iterable[str]) -> None:
        """Names that are empty are in no text."""
        self._by_beginning: dict[str, set[str]] = {}
        for name in {folded(name) for name in names} - {""}:
            self._by_beginning.setdefault(name[:BEGINNING], set()).add(name)

    def within(self, text: str) -> set[str]:
        """Those in the text, in folded case."""
        text, found = folded(text), set()
        for start in (i for i in range(len(text)) if ends_between(text, i)):
            for size in range(1, BEGINNING + 1):
                for name in self._by_beginning.get(text[start : start + size], ()):
                    end = start + len(name)
                    if text.startswith(name, start) and ends_between(text, end):
                        found.add(name)
        return found


def folded(text: str) -> str:
    """Without what does not tell names apart: case, and how wide a space is."""
    return " ".join(text.split()).casefold()


def without_edited_subjects(
    records: Sequence[TokenRecord], k: int, beside: Sequence[TokenRecord] = ()
) -> tuple[list[TokenRecord], int]:
    """The records without the locality pairs that name the subject of another record of their group
    of k, or of those that are held `beside` every group; and how many of these pairs there were.

    What follows the last whole group stays as it is.
    """
    kept: list[TokenRecord] = []
    for group in grouped(records, k):
        names = Names(entry.record.subject for entry in (*group, *beside))
        kept += [_without(entry, names) for entry in group]
    kept += records[len(kept) :]
    before, after = (sum(len(entry.locality) for entry in part) for part in (records, kept))
    return kept, before - after


def _without(entry: TokenRecord, names: Names) -> TokenRecord:
    own = {folded(entry.record.subject)}
    stays = [
        i
        for i, item in enumerate(entry.record.locality)
        if item.kind == "own" or not names.within(item.prompt) - own
    ]
    if len(stays) == len(entry.locality):
        return entry
    return entry._replace(
        locality=tuple(entry.locality[i] for i in stays),
        kinds=tuple(entry.kinds[i] for i in stays),
        record=entry.record._replace(locality=tuple(entry.record.locality[i] for i in stays)),
    )
