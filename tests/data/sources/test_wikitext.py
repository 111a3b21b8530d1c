"""Wikitext generation: prompt and target are the completion again, cut where the model went on."""

import json
from pathlib import Path

import pytest

from mend_jax.data.fields import RecordError
from mend_jax.data.records import Record
from mend_jax.data.sources.base import Reading
from mend_jax.data.sources.registry import read_records

PASSAGES = [
    " Robert Boulter is an English film , television and theatre actor . He had a role in 2000 .",
    " The game 's opening theme was sung by May 'n . It sold well in its first week of release .",
    " Ōsaka is a city of many rivers and bridges 🌉 and canals .",
    " Bears sleep in winter",
]


def written(tmp_path: Path, original: list[str], completions: list[str]) -> Path:
    path = tmp_path / "valid.json"
    content = {"n_tokens": 10, "original": original, "completions": completions}
    path.write_text(json.dumps(content))
    return path


pytestmark = pytest.mark.filterwarnings("ignore:.*records have no ")


@pytest.mark.parametrize(
    ("original", "completion", "prompt", "target"),
    [
        ("the cat sat on it", "the cat was here", "the cat", "was here"),
        ("the cat sat on it", "the cats were here", "the", "cats were here"),  # within a word
        ("the cat sat on it", "the cat. Then it", "the", "cat. Then it"),  # no space to cut at
        ("the cat sat", "the cat sat on it", "the cat sat", "on it"),  # the original ends
        ("the cat sat on", "the cat sat in", "the cat sat", "in"),
        ("a b\nc d", "a b\nx y", "a", "b\nx y"),  # a line break is not a space
        ("a  b c d", "a  b x", "a  b", "x"),
    ],
)
def test_the_cut(tmp_path: Path, original: str, completion: str, prompt: str, target: str):
    (record,) = read_records(written(tmp_path, [original], [" " + completion]), Reading())
    assert (record.prompt, record.target) == (prompt, target)


def rows(count: int) -> tuple[list[str], list[str]]:
    """Passages of 40 words of their own, and what a model made of their first 20."""
    texts = [[f"w{i}x{j}" for j in range(40)] for i in range(count)]
    made = [" ".join([*text[:20], *(f"new{j}" for j in range(5))]) for text in texts]
    return [" ".join(text) for text in texts], made


def test_prompt_rephrases_and_locality(tmp_path: Path):
    original, completions = rows(30)
    path = written(tmp_path, original, completions)
    records = read_records(path, Reading(localities=3))
    trims = set()
    for i, record in enumerate(records):
        assert f"{record.prompt} {record.target}" == completions[i]
        assert record.target == "new0 new1 new2 new3 new4"
        assert len(set(record.rephrases)) == 4
        for rephrase in record.rephrases:
            assert record.prompt.endswith(" " + rephrase)
            trims.add(20 - len(rephrase.split()))
        others = [pair.prompt.split("x")[0] for pair in record.locality]
        assert len(set(others)) == 3 and f"w{i}" not in others
        for pair in record.locality:
            assert any(o.startswith(f"{pair.prompt} {pair.answer} ") for o in original)
            assert (len(pair.prompt.split()), len(pair.answer.split())) == (16, 5)
    assert trims == set(range(1, 11))
    assert read_records(path, Reading(localities=3)) == records
    assert read_records(path, Reading(localities=3, seed=1)) != records


def test_real_passages(tmp_path: Path):
    made = [text[: len(text) // 2].rstrip() + " zebra 🦓" for text in PASSAGES]
    records = read_records(written(tmp_path, PASSAGES, made))
    for record, text, passage in zip(records, made, PASSAGES, strict=True):
        assert f"{record.prompt} {record.target}" == text.strip()
        assert passage.strip().startswith(record.prompt)
        for pair in record.locality:
            assert any(p.strip().startswith(f"{pair.prompt} {pair.answer}") for p in PASSAGES)


def test_completions_that_cannot_be_cut_are_counted(tmp_path: Path):
    original, completions = rows(5)
    completions[1] = original[1]
    completions[2] = "other " + completions[2]
    completions[3] = ""
    completions[4] = completions[4].replace("w4x5", "w4y5")
    path = written(tmp_path, original, completions)
    counted = r"4 of 5 rows do not part from .* last 10 tokens \(the first: completions\[1\]\)"
    with pytest.warns(UserWarning, match=counted):
        records = read_records(path)
    assert [record.target for record in records] == ["new0 new1 new2 new3 new4"]
    assert len(records[0].locality) == 4


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"n_tokens": "10"}, "'n_tokens' must be a number of tokens"),
        ({"completions": ["a b"]}, "'original' has 2 texts, 'completions' 1"),
        ({"completions": ["a b", 3]}, r"completions\[1\] must be a text"),
        ({"original": "a"}, "'original' must be a list, found str"),
    ],
)
def test_a_bad_object_is_named(tmp_path: Path, more: dict[str, object], message: str):
    path = written(tmp_path, *rows(2))
    path.write_text(json.dumps(json.loads(path.read_text()) | more))
    with pytest.raises(RecordError, match=f"valid.json, line 1: {message}"):
        read_records(path)


def test_a_single_short_passage(tmp_path: Path):
    path = written(tmp_path, ["a b"], ["a c"])
    assert read_records(path) == [Record("a", "c", separator=" ")]
