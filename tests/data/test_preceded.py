"""Questions after other text: every one is asked so, and the edit itself is as it was."""

from typing import get_args

import pytest

from mend_jax.data.preceded import CHAT, SENTENCES, After, preceded
from mend_jax.data.records import Locality, Record, Rephrase

RECORDS = [
    Record(
        f"City {i} is in", f"Land {i}", ("Another way:", Rephrase("Or so:", "else")),
        (Locality("Who?", "nobody", "near"),), f"City {i}",
    )
    for i in range(6)
]  # fmt: skip


@pytest.mark.parametrize("after", [x for x in get_args(After) if x != "nothing"])
def test_every_question_stands_after_other_text(after: After):
    for record, made in zip(RECORDS, preceded(RECORDS, after, 3), strict=True):
        assert (made.prompt, made.target, made.subject) == record[:2] + (record.subject,)
        pairs = [(r.prompt, r.target) for r in made.rephrases if isinstance(r, Rephrase)]
        target = record.target
        wanted = [(record.prompt, target), ("Another way:", target), ("Or so:", "else")]
        assert [target for _, target in pairs] == [target for _, target in wanted]
        texts = [*(prompt for prompt, _ in pairs), made.locality[0].prompt]
        ends = [*(prompt for prompt, _ in wanted), "Who?"]
        assert all(a.endswith(b) and len(a) > len(b) for a, b in zip(texts, ends, strict=True))
        before = [a[: -len(b)] for a, b in zip(texts, ends, strict=True)]
        if after == "edit":  # another one's, never its own
            assert all("City" in x and x.endswith(". ") for x in before)
            assert not any(record.subject in x for x in before)
        elif after == "chat":
            assert set(before) == {CHAT}
        else:
            count = {"sentence": 1, "sentences": 5}[after]
            assert all(sum(s in x for s in SENTENCES) == count for x in before)


def test_the_same_seed_draws_the_same():
    assert preceded(RECORDS, "sentences", 1) == preceded(RECORDS, "sentences", 1)
    assert preceded(RECORDS, "sentences", 1) != preceded(RECORDS, "sentences", 2)
    assert preceded(RECORDS, "nothing") == RECORDS
