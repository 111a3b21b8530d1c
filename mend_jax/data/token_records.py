"""Records as tokens: each pair once, and what had to be left out, counted."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from mend_jax.data.bucketing import ANSWERS, LENGTHS
from mend_jax.data.encoding import Tokens
from mend_jax.data.records import Record, rephrases_of
from mend_jax.data.writable import UnwritableError

Item = TypeVar("Item")


class TokenRecord(NamedTuple):
    """A record's pairs as tokens; `record` has the texts of these locality pairs, in this order."""

    edit: Tokens
    rephrases: tuple[Tokens, ...]
    locality: tuple[Tokens, ...]
    kinds: tuple[str, ...]
    record: Record

    @property
    def outer(self) -> tuple[Tokens, ...]:
        """What scores the edit (Eq. 1): its input, and its neighbourhood."""
        return (self.edit, *self.rephrases)


class Counts(NamedTuple):
    """Records (their edit pair), single rephrases, single locality pairs."""

    records: int = 0
    rephrases: int = 0
    locality: int = 0


class Skipped(NamedTuple):
    """What was left out, and what was kept although something of it is lost.

    too_long: did not fit the buckets. unwritable: the tokenizer has no tokens for the target, or
    for all of the prompt. lossy: pairs that are kept, although their prompt has characters that
    the tokenizer has no tokens for: the question is still asked, as a name without an accent is,
    and published scores of such bases count these questions.
    """

    too_long: Counts = Counts()
    unwritable: Counts = Counts()
    lossy: Counts = Counts()

    def in_words(self) -> dict[str, dict[str, int]]:
        """The counts, but for `too_long`, that are not all zero; few files have any."""
        counted = {
            "not in the tokenizer": self.unwritable,
            "kept, a part of the prompt not in the tokenizer": self.lossy,
        }
        return {name: counts._asdict() for name, counts in counted.items() if any(counts)}


def sum_of(*skipped: Skipped) -> Skipped:
    """The sums of all counts."""
    together = (zip(*parts, strict=True) for parts in zip(*skipped, strict=True))
    return Skipped(*(Counts(*map(sum, columns)) for columns in together))


def encode_records(
    records: Sequence[Record],
    encode: Callable[..., Tokens],
    longest: int = LENGTHS[-1],
    longest_answer: int = ANSWERS[-1],
) -> tuple[list[TokenRecord], Skipped]:
    """Tokenises, and leaves out what is longer than `longest` tokens or `longest_answer` answers,
    and what the tokenizer cannot write.

    A record goes if its edit pair does; a rephrase or locality pair goes alone.

    Args:
      encode: (prompt, target, separator) -> tokens; `codec_of(base).pair`.

    Returns:
      (records, counts of what was left out).
    """
    count: Counter[tuple[str, str]] = Counter()

    def tokens(what: str, pair: tuple[str, str], separator: str | None) -> Tokens | None:
        """None, and counted, for what is left out."""
        try:
            found = encode(*pair) if separator is None else encode(*pair, separator)
        except UnwritableError:
            count["unwritable", what] += 1
            return None
        if len(found.tokens) > longest or len(found.labels) > longest_answer:
            count["too_long", what] += 1
            return None
        count["lossy", what] += bool(found.lost)
        return found

    kept = []
    for record in records:
        edit = tokens("records", (record.prompt, record.target), record.separator)
        if edit is None:
            continue
        rephrases = [tokens("rephrases", r, record.separator) for r in rephrases_of(record)]
        locality = [
            (tokens("locality", (x.prompt, x.answer), x.separator), x) for x in record.locality
        ]
        stays = [(pair, text) for pair, text in locality if pair is not None]
        kept.append(
            TokenRecord(
                edit,
                tuple(pair for pair in rephrases if pair is not None),
                tuple(pair for pair, _ in stays),
                tuple(text.kind for _, text in stays),
                record._replace(locality=tuple(text for _, text in stays)),
            )
        )
    skipped = (Counts(*(count[why, what] for what in Counts._fields)) for why in Skipped._fields)
    return kept, Skipped(*skipped)


def grouped(items: Sequence[Item], k: int) -> list[Sequence[Item]]:
    """The items in groups of k, in order; a rest of fewer is left out."""
    return [items[i : i + k] for i in range(0, len(items) // k * k, k)]


def check_enough(records: Sequence[TokenRecord], k: int) -> None:
    """Raises ValueError for fewer than k records."""
    if len(records) < k:
        raise ValueError(f"{len(records)} records are too few to edit {k} at once")
