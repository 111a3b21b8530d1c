"""Tables of results: protocols apart, the unedited model and the paper beside, and warnings."""

import json
from pathlib import Path
from typing import Any

import pytest
from typed import typed

from mend_jax.reports.results import suspicion, table
from mend_jax.reports.tables import read_results, report

RESULTS = Path(__file__).parents[2] / "results"


def made(protocol: str = "teacher-forced sequence", **values: float) -> dict[str, Any]:
    metrics = {"edit_success": 0.9, "edit_success_before": 0.1, "locality_agreement": 0.95} | values
    return {
        "editor": "mend",
        "model": "facebook/bart-base",
        "dataset": "data/zsre/dev.jsonl",
        "protocol": protocol,
        "n": 7,
        "metrics": {k: {"value": v, "low": v, "high": v} for k, v in metrics.items()},
        "seconds": 1.0,
        "config": {"k": 1},
    }


def rows(page: str, title: str) -> list[list[str]]:
    """Cells of the table under a heading."""
    part = page.split(f"## {title}\n\n")[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines()]


def test_protocols_never_share_a_column():
    page = report([made(), made("greedy generation, exact match", edit_success=0.29)])
    forced = rows(page, "Teacher-forced sequence")
    free = rows(page, "Greedy generation, exact match")
    column = forced[0].index("edit success")
    assert [row[column].split()[0] for row in forced[2:]] == ["0.100", "0.900"]
    assert [row[column].split()[0] for row in free[2:]] == ["0.100", "0.290"]


def test_the_unedited_model_and_the_paper_stand_beside():
    head, _, unedited, edited = rows(report([made()]), "Teacher-forced sequence")
    assert (unedited[0], edited[0]) == ("no edit, bart-base", "mend on bart-base")
    assert dict(zip(head, edited, strict=True))["paper"] == "0.98 / 0.002"
    assert dict(zip(head, unedited, strict=True))["locality agreement"] == "1.000"
    other = made() | {"model": "runs/bart"}  # not the paper's set-up
    assert "paper" not in rows(report([other]), "Teacher-forced sequence")[0]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({}, ""),
        ({"edit_success": 0.1, "locality_agreement": 1.0}, "does nothing"),
        ({"edit_success": 0.0, "locality_agreement": 0.1}, "writes noise"),
        ({"edit_success": 0.1, "locality_agreement": 0.9}, "nothing is learned"),
        ({"failed": 0.25, "perplexity_after": float("inf")}, "after 25.0% of the edits"),
    ],
)
def test_editors_that_do_nothing_or_write_noise_are_called_so(
    values: dict[str, float], wanted: str
):
    results = made(**values)
    assert (wanted in suspicion(results)) and bool(suspicion(results)) == bool(wanted)
    for text in (table(results), report([results])):
        assert wanted in text


def test_texts_cannot_break_the_table():
    heard = {"prompt": "a | b\nc", "answer": "x", "before": "y", "after": "x"}
    page = report([made() | {"texts": [{"outer": [heard], "locality": []}]}])
    assert page.splitlines()[-1] == "| a \\| b c | x | y | x |"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1: not valid JSON"),
        ('{"n": 3}', "editor is missing; model"),
        ("[]", "editor is missing"),
    ],
)
def test_files_that_are_no_results(tmp_path: Path, text: str, message: str):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ValueError, match=f"results.json.*{message}"):
        read_results(tmp_path)


def test_the_command_makes_the_page_and_its_figures(tmp_path: Path):
    """Of the project's own results, of one editor at several k, and of a sequence."""
    files = [RESULTS / "quickstart.json", RESULTS / "train_t5xxl_small_t5.json"]
    point = {"edits": 1, "newest": 1.0, "so_far": 1.0, "locality_agreement": 0.9, "norm": 0.1}
    curve = [point, point | {"edits": 10, "so_far": 0.5}]
    more = [
        made() | {"config": {"k": 25}},
        made() | {"config": {"k": 1}},
        made() | {"config": {"sequential": 10}, "curve": curve},
    ]
    for number, one in enumerate(more):
        files.append(tmp_path / f"{number}.json")
        files[-1].write_text(json.dumps(one))
    code, out, error = typed("report", *files, "--out", tmp_path / "out")
    assert code == 0, error
    page = (tmp_path / "out" / "report.md").read_text()
    assert page.strip() in out
    figures = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert figures == ["at_once_1.png", "scores_0.png", "sequence_2.png"]
    assert all(f"({name})" in page for name in figures)
    assert typed("report", "--out", tmp_path / "none").code != 0
