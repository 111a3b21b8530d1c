"""Tables in Markdown from results.json files, one for each protocol, beside the paper's numbers;
and the page around them, report.md.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from mend_jax.evaluation.metrics import Metric, columns
from mend_jax.files import read_json
from mend_jax.reports.paper import paper_numbers
from mend_jax.reports.results import suspicion
from mend_jax.typed import checked

Results = dict[str, Any]


class ResultsError(ValueError):
    """A file that is not the results of an evaluation; says what is wrong with it."""


class StoredResults(TypedDict):
    """What is read of a results.json."""

    editor: str
    model: str
    dataset: str
    protocol: str
    n: int
    metrics: dict[str, Any]
    config: NotRequired[dict[str, Any]]


def read_results(path: str | Path) -> list[Results]:
    """Of a results.json, or the rows of a compare.json, from the file or its directory; rows of
    editors that failed are left out.

    Raises:
      ResultsError: not the results of an evaluation; says what is missing.
    """
    path = Path(path)
    if path.is_dir():
        path = path / ("compare.json" if (path / "compare.json").exists() else "results.json")
    found = read_json(path, ResultsError)
    rows = found if isinstance(found, list) else [found]
    kept = [row for row in rows if not (isinstance(row, dict) and "error" in row)]
    for row in kept or [{}]:
        checked(StoredResults, row, f"{path}: not the results of an evaluation", ResultsError)
    return kept


def by_protocol(results: Sequence[Results]) -> dict[str, list[Results]]:
    """Numbers under different protocols never share a column."""
    groups: dict[str, list[Results]] = {}
    for one in results:
        groups.setdefault(one["protocol"], []).append(one)
    return groups


def name_of(results: Results) -> str:
    """The editor, the base (its dtype, unless float32), how many edits are made at once, and in
    which way, or one after another."""
    config = results.get("config", {})
    how = [config["dtype"]] if config.get("dtype") not in (None, "float32") else []
    way = config.get("at_once") or ""
    how += [f"k = {config['k']} {way}".strip()] if config.get("k", 1) > 1 else []
    how += [f"{results['n']} in sequence"] if config.get("sequential") else []
    base = Path(results["model"]).name
    return ", ".join([f"{results['editor']} on {base}", *how])


def data_of(results: Results) -> str:
    """The name of the data that was scored; of a file, with its folder's."""
    return "/".join(Path(str(results["dataset"]).split(", scored on ")[-1]).parts[-2:])


def report(results: Sequence[Results], figures: Sequence[tuple[str, str]] = ()) -> str:
    """The whole page: for each protocol a table, then texts before and after.

    Args:
      figures: (title, file) of each.
    """
    parts = ["# Results", "Means over edits, bootstrap 95 % intervals in brackets."]
    for protocol, group in by_protocol(results).items():
        parts += [f"## {protocol[0].upper()}{protocol[1:]}", _table(group)]
    parts += [f"**{name_of(one)}: {why}**" for one in results if (why := suspicion(one))]
    for title, file in figures:
        parts += [f"## {title}", f"![{title}]({file})"]
    parts += [_texts(one) for one in results if one.get("texts")]
    return "\n\n".join(parts) + "\n"


def _table(group: Sequence[Results]) -> str:
    shown = [m for m in columns() if any(m.name in one["metrics"] for one in group)]
    paper = any(paper_numbers(one) for one in group)
    head = ["", "data", "edits", *(m.title for m in shown), *(["paper"] if paper else [])]
    rows = []
    for one in group:
        about = [data_of(one), str(one["n"])]
        last = [[""], [paper_numbers(one)]] if paper else [[], []]
        rows.append(
            [f"no edit, {Path(one['model']).name}", *about, *(_unedited(one, m) for m in shown)]
            + last[0]
        )
        rows.append([name_of(one), *about, *(_value(one, m.name) for m in shown)] + last[1])
    distinct = list(dict.fromkeys(map(tuple, rows)))
    return "\n".join(_line(row) for row in (head, ["---"] * len(head), *distinct))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _value(results: Results, name: str) -> str:
    metric = results["metrics"].get(name)
    if metric is None:
        return "-"
    return f"{metric['value']:.3f} [{metric['low']:.3f}, {metric['high']:.3f}]"


def _unedited(results: Results, metric: Metric) -> str:
    if metric.name not in results["metrics"] or metric.unedited is None:
        return "-"
    if isinstance(metric.unedited, float):
        return f"{metric.unedited:.3f}"
    return _value(results, metric.unedited)


def _texts(results: Results) -> str:
    head = ["asked", "wanted", "before", "after"]
    rows = [
        [_cell(heard[k]) for k in ("prompt", "answer", "before", "after")]
        for entry in results["texts"]
        for part in ("outer", "locality")
        for heard in entry[part][:2]
    ]
    table = "\n".join(_line(row) for row in (head, ["---"] * 4, *rows))
    return f"## In its own words: {name_of(results)}\n\n{table}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
