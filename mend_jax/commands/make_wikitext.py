"""Makes edits of Wikitext generation from any text: towards sampled continuations of the base.

    mend-jax make_wikitext --model smollm2-135m --text FILE --out DIR

Writes train.jsonl and validation.jsonl. Passages are runs of 20 to 40 words between `<unk>` and
empty lines; what an edit is, mend_jax/data/sources/wikitext_sampling.py says. SmolLM2-135M made
1,475 edits of 1,500 passages of WikiText-2 in 7 minutes on two busy CPU cores.
"""

import time
from dataclasses import dataclass
from typing import Annotated

from mend_jax.commands.command import Command
from mend_jax.data.bucketing import LENGTHS
from mend_jax.data.records import write_records
from mend_jax.data.sources.wikitext_sampling import continuation_records
from mend_jax.models.registry import load
from mend_jax.option_checks import check_options
from mend_jax.option_types import Batch, Input, Model, OutFolder, Seed, Some, between


@dataclass(frozen=True)
class MakeWikitext:
    """Options of the records."""

    text: Input
    """A text file, UTF-8."""
    out: OutFolder
    """Directory for train.jsonl and validation.jsonl."""
    model: Model = "smollm2-135m"
    """The base that is to be edited: a name or folder of a causal language model."""
    edits: Some = 1500
    """Passages to take; the few without a usable continuation give no edit."""
    tokens: Annotated[int, between(1, LENGTHS[-1] - 1)] = 10
    """Length of an edit's target."""
    batch: Batch = 32
    """Prompts continued side by side."""
    seed: Seed = 0
    """Draws passages, cuts and continuations."""


def make(config: MakeWikitext) -> None:
    """Reads, samples, writes, and says how many edits there are."""
    check_options(config)
    text = config.text.read_text(encoding="utf-8-sig")
    base = load(config.model)
    began = time.perf_counter()
    dealt, without = continuation_records(
        base, text, config.edits, config.tokens, config.batch, config.seed
    )
    config.out.mkdir(parents=True, exist_ok=True)
    for split, records in dealt.items():
        write_records(config.out / f"{split}.jsonl", records)
        print(f"{config.out / split}.jsonl: {len(records):,} edits")
    print(
        f"{without} passages without a continuation of {config.tokens} tokens; "
        f"{time.perf_counter() - began:.0f} s"
    )


COMMAND = Command(MakeWikitext, make, __doc__)
