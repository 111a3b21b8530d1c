"""ParaRel (Elazar et al. 2021): facts of Wikidata with several patterns a relation, as relations.

A folder `facts/` of {"sub_label", "obj_label"} and `patterns/` of {"pattern": "[X] ... [Y]."}, both
JSONL, one file a relation. Only patterns that end with the object can be asked; only facts with
exactly one object can be learned by heart. A warning counts what is left out.
"""

import random
import warnings
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from mend_jax.data.fields import RecordError
from mend_jax.data.sources.base import counted
from mend_jax.data.sources.facts import Relation
from mend_jax.data.sources.json_file import rows_of


def pararel_relations(
    folder: str | Path, limit: int = 1000, known: Collection[str] = (), seed: int = 0
) -> tuple[Relation, ...]:
    """Relations with three or more phrasings; the last phrasing of each is held out.

    Args:
      limit: facts in all, drawn at random.
      known: subjects to leave out, because something else is known of them.

    Raises:
      RecordError: no such files, or one that is not as described.
    """
    folder = Path(folder)
    files = sorted((folder / "facts").glob("*.jsonl"))
    if not files:
        raise RecordError(f"{folder}: no facts/*.jsonl here; give the folder of ParaRel's data")
    facts = []
    left: Counter[str] = Counter()
    phrasings: dict[str, tuple[str, ...]] = {}
    taken = {subject.casefold() for subject in known}
    for file in files:
        patterns = [row["pattern"] for row in _rows(folder / "patterns" / file.name, "pattern")]
        asked = tuple(dict.fromkeys(p for p in map(_question, patterns) if p))
        left["patterns do not end with the object, or repeat another"] += len(patterns) - len(asked)
        if len(asked) < 3:
            left["relations have fewer than three patterns"] += 1
            continue
        objects: dict[str, set[str]] = {}
        for row in _rows(file, "sub_label", "obj_label"):
            objects.setdefault(row["sub_label"], set()).add(row["obj_label"])
        phrasings[file.stem] = asked
        for subject, found in objects.items():
            if len(found) > 1:
                left["subjects have several objects"] += 1
            elif subject.casefold() in taken:
                left["subjects are among those that something else is known of"] += 1
            else:
                facts.append((file.stem, subject, *found))
    for note in counted(*((n, f"{what}, and are left out") for what, n in left.items())):
        warnings.warn(f"{folder}: {note}", stacklevel=2)
    chosen = random.Random(seed).sample(facts, min(limit, len(facts)))
    return tuple(
        Relation(name, asked[:-1], asked[-1:], tuple((s, o) for r, s, o in chosen if r == name))
        for name, asked in phrasings.items()
    )


def _question(pattern: str) -> str:
    """The pattern up to the object, with {} for the subject; empty if more follows the object."""
    begin, _, end = pattern.partition("[Y]")
    if begin.count("[X]") != 1 or end.strip(" .") or "{" in begin:
        return ""
    return begin.strip().replace("[X]", "{}")


def _rows(path: Path, *fields: str) -> list[dict[str, str]]:
    try:
        found = list(rows_of(path))
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror})") from None
    for row in found:
        if not all(isinstance(row.value.get(field), str) for field in fields):
            raise RecordError(f"{row.where}: expected an object with the texts {fields}")
    return [{field: row.value[field] for field in fields} for row in found]
