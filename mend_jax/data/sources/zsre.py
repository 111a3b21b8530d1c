"""zsRE (Levy et al. 2017) as questions with edits, in both published forms.

The JSON list that was derived from MEND's data (ROME, EasyEdit and others use it):

    {"src", "alt", "rephrase", "loc", "loc_ans", "subject"}

And KnowledgeEditor's JSONL (`structured_zeroshot-*-new_annotated_final.jsonl`), see `kilt`. There,
the edit target is one of the alternatives, and what must stay is the answers to other lines.
"""

import random
from collections.abc import Iterable, Sequence

from mend_jax.data.records import Locality, Record
from mend_jax.data.sources.kilt import Line
from mend_jax.data.sources.reading import (
    Read,
    Reading,
    Row,
    distinct,
    draw_locality,
    left_out,
    record_by,
)

FIELDS = ("src", "alt")


def read_edits(rows: Iterable[Row], reading: Reading) -> Read:
    """Of the list; rows with no answer to edit towards are left out."""
    records, without = [], []
    for row in rows:
        if row.value.get("alt") == "":
            without.append(row.place)
        else:
            records.append(record_by(row, "src", "alt", "rephrase", "loc", "loc_ans", "far"))
    return Read(records, left_out(without, len(records), "have an empty 'alt'"))


def from_lines(lines: Sequence[Line], reading: Reading) -> list[Record]:
    """Of KnowledgeEditor's lines: target and locality are drawn."""
    rng = random.Random(f"zsre {reading.split} {reading.seed}")
    pool = distinct(Locality(line.prompt, line.answer, "far") for line in lines)
    return [
        Record(
            prompt=line.prompt,
            target=rng.choice(line.alternatives),
            rephrases=line.rephrases,
            locality=draw_locality(rng, pool, reading.localities, line.asked),
        )
        for line in lines
    ]
