"""Records as a scope reads them beside as they are."""

from mend_jax.data.records import Locality, Record, Rephrase, rephrases_of
from mend_jax.runs.scope_passages import PIECES, after_text, stated

TEXTS = ("Once upon a time", "How to bake")
RECORDS = [
    Record(
        f"The capital of {name} is", "Rome", (f"{name} is ruled from", Rephrase("Over", "Pisa")),
        (Locality(f"The river of {name} is", "the Po", "own", ""), Locality("The sea of", "it")),
        name,
    )
    for name in ("France", "Spain", "Chad", "Peru", "Mali", "Laos")
]  # fmt: skip
STATED = {"The river of France isthe Po", "The sea of it"}


def pieces_of(prompt: str, asked: list[str]) -> list[str]:
    """The texts before the one of these prompts that it ends with."""
    (mine,) = {len(x) for x in asked if prompt.endswith(f". {x}")}
    return prompt[: -mine - 2].split(". ")


def test_each_record_gets_a_phrasing_and_a_locality_prompt_after_other_text():
    found, kinds = [], set()
    for seed in range(20):
        for was, now in zip(RECORDS, after_text(RECORDS, TEXTS, seed), strict=True):
            assert now._replace(rephrases=was.rephrases, locality=was.locality) == was
            assert now.rephrases[:2] == was.rephrases and now.locality[:2] == was.locality
            (again,), (stays,) = rephrases_of(now)[2:], now.locality[2:]
            found += [pieces_of(again.prompt, [was.prompt, *(r.prompt for r in rephrases_of(was))])]
            assert again.target == ("Pisa" if again.prompt.endswith(". Over") else "Rome")
            found += [pieces_of(stays.prompt, [item.prompt for item in was.locality])]
            kinds.add(stays.kind)
            assert stays._replace(prompt="") in [x._replace(prompt="") for x in was.locality]
    assert kinds == {"own", ""}
    assert {len(pieces) for pieces in found} == set(PIECES)
    said = {piece for pieces in found for piece in pieces}
    facts = {stated(item) for record in RECORDS for item in record.locality}
    assert STATED <= facts and said == {*TEXTS, *facts}
    written = [piece for pieces in found for piece in pieces if piece in TEXTS]
    assert 0.4 < len(written) / sum(map(len, found)) < 0.6


def test_that_text_is_drawn_from_the_seed_and_no_record_needs_locality():
    assert after_text(RECORDS, TEXTS, 1) == after_text(RECORDS, TEXTS, 1)
    assert after_text(RECORDS, TEXTS, 1) != after_text(RECORDS, TEXTS, 2)
    bare = [record._replace(locality=()) for record in RECORDS]
    for was, now in zip(bare, after_text(bare, TEXTS, 0), strict=True):
        assert now.locality == () and len(now.rephrases) == len(was.rephrases) + 1
