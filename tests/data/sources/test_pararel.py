"""ParaRel's files become relations to learn."""

import json
from pathlib import Path

import pytest
from tiny_run import ROOT

from mend_jax.data.fields import RecordError
from mend_jax.data.sources.pararel import pararel_relations

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # what is said of a file

SHARED = ROOT.parent / "shared" / "data" / "pararel"


def write(folder: Path, name: str, facts: list[tuple[str, str]], patterns: list[str]) -> None:
    for part, rows in (
        ("facts", [{"sub_label": s, "obj_label": o} for s, o in facts]),
        ("patterns", [{"pattern": p} for p in patterns]),
    ):
        (folder / part).mkdir(exist_ok=True)
        text = "\n".join(json.dumps(row) for row in rows)
        (folder / part / f"{name}.jsonl").write_text(text)


def test_what_can_be_asked_and_learned(tmp_path: Path):
    facts = [("Rome", "Italy"), ("Oslo", "Norway"), ("Lima", "Peru"), ("Lima", "Ohio")]
    patterns = ["[X] is in [Y].", "[X] lies in [Y] .", "[Y] holds [X].", "[X] belongs to [Y]"]
    write(tmp_path, "P1", facts, patterns)
    write(tmp_path, "P2", [("a", "b")], ["[X] or [Y]."])
    with pytest.warns(UserWarning) as seen:
        (relation,) = pararel_relations(tmp_path, known=["oslo"])
    assert [str(warning.message).removeprefix(f"{tmp_path}: ") for warning in seen] == [
        "1 patterns do not end with the object, or repeat another, and are left out",
        "1 subjects are among those that something else is known of, and are left out",
        "1 subjects have several objects, and are left out",
        "1 relations have fewer than three patterns, and are left out",
    ]
    assert relation.name == "P1"
    assert relation.phrasings == ("{} is in", "{} lies in")
    assert relation.held_out == ("{} belongs to",)
    assert relation.facts == (("Rome", "Italy"),)  # Lima has two objects


def test_what_is_no_pararel(tmp_path: Path):
    with pytest.raises(RecordError, match="no facts"):
        pararel_relations(tmp_path)
    write(tmp_path, "P1", [("a", "b")], ["[X] is [Y]."])
    (tmp_path / "facts" / "P1.jsonl").write_text('{"sub_label": "a"}')
    (tmp_path / "patterns" / "P1.jsonl").write_text('{"pattern": "[X] [Y]."}\nnonsense')
    with pytest.raises(RecordError, match=r"P1\.jsonl, line 2"):
        pararel_relations(tmp_path)


@pytest.mark.parametrize(
    "line", ['{"sub_label": ["a"], "obj_label": "b"}', "[3]", '"x"', "3", "[" * 9]
)
def test_a_line_of_other_types_is_named(tmp_path: Path, line: str):
    write(tmp_path, "P1", [("a", "b")], ["[X] is [Y].", "[X] a [Y].", "[X] b [Y]."])
    (tmp_path / "facts" / "P1.jsonl").write_text(f'{{"sub_label": "a", "obj_label": "b"}}\n{line}')
    with pytest.raises(RecordError, match=r"P1\.jsonl, line 2: "):
        pararel_relations(tmp_path)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data is not here")
def test_the_real_files():
    relations = pararel_relations(SHARED, limit=1000)
    assert sum(len(r.facts) for r in relations) == 1000
    for relation in relations:
        subjects = [s for s, _ in relation.facts]
        assert len(set(subjects)) == len(subjects)
        assert all(p.count("{}") == 1 for p in (*relation.phrasings, *relation.held_out))
