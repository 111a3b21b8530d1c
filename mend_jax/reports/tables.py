"""Tables in Markdown from results.json files, one for each protocol, beside the paper's numbers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mend_jax.evaluation.metrics import PROTOCOLS
from mend_jax.reports.results import suspicion

Results = dict[str, Any]


class Column(NamedTuple):
    """A metric, what it is called, and where its value without an edit stands (or is a number)."""

    metric: str
    title: str
    unedited: str | float | None


COLUMNS = (
    Column("edit_success", "edit success", "edit_success_before"),
    Column("reliability", "reliability", None),
    Column("generality", "generality", None),
    Column("locality_agreement", "locality agreement", 1.0),
    Column("accuracy_after", "locality accuracy", "accuracy_before"),
    Column("drawdown", "accuracy drawdown", 0.0),
    Column("perplexity_after", "perplexity", "perplexity_before"),
    Column("perplexity_drawdown", "perplexity drawdown", 0.0),
)

EDITORS = ("ft", "ft_kl", "enn", "ke", "mend")
PAPER = {
    ("t5-xxl-ssm-nq", "zsre"): (
        "0.87 / <0.001", "0.85 / <0.001", "", "0.04 / <0.001", "0.89 / <0.001"
    ),
    ("t5-xl-ssm-nq", "zsre"): (
        "0.58 / <0.001", "0.55 / <0.001", "", "0.03 / <0.001", "0.88 / 0.001"
    ),
    ("gpt-j-6b", "wikitext"): (
        "0.80 / 0.125", "0.36 / 0.109", "", "0.01 / 0.068", "0.88 / 0.031"
    ),
    ("gpt-neo-2.7b", "wikitext"): (
        "0.55 / 0.195", "0.40 / 0.026", "", "0.00 / 0.137", "0.81 / 0.057"
    ),
    ("bart-base", "zsre"): (
        "0.96 / <0.001", "0.89 / <0.001", "0.99 / <0.001", "0.98 / <0.001", "0.98 / 0.002"
    ),
    ("bert-base-uncased", "fever"): (
        "0.76 / <0.001", "0.64 / <0.001", "0.99 / 0.003", "0.95 / 0.004", ">0.99 / <0.001"
    ),
    ("distilgpt2", "wikitext"): (
        "0.29 / 0.938", "0.17 / 0.059", "0.93 / 0.094", "0.25 / 0.595", "0.86 / 0.225"
    ),
}  # fmt: skip
"""Edit success / drawdown (of accuracy; of perplexity on Wikitext) of EDITORS, paper Tables 3 and
4, by the last part of the model's name and a word of the data set's."""


def read_results(path: str | Path) -> list[Results]:
    """Of a results.json, or the rows of a compare.json, from the file or its directory; rows of
    editors that failed are left out.

    Raises:
      ValueError: not the results of an evaluation; says what is missing.
    """
    path = Path(path)
    if path.is_dir():
        path = path / ("compare.json" if (path / "compare.json").exists() else "results.json")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from None
    rows = found if isinstance(found, list) else [found]
    needed = ("editor", "model", "dataset", "protocol", "n", "metrics")
    kept = [row for row in rows if not (isinstance(row, dict) and "error" in row)]
    for row in kept or [{}]:
        missing = [k for k in needed if not isinstance(row, dict) or k not in row]
        if missing:
            raise ValueError(f"{path}: not the results of an evaluation: no {', '.join(missing)}")
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
    columns = [c for c in COLUMNS if any(c.metric in one["metrics"] for one in group)]
    paper = any(_paper(one) for one in group)
    head = ["", "data", "edits", *(c.title for c in columns), *(["paper"] if paper else [])]
    rows = []
    for one in group:
        about = [data_of(one), str(one["n"])]
        last = [[""], [_paper(one)]] if paper else [[], []]
        rows.append(
            [f"no edit, {Path(one['model']).name}", *about, *(_unedited(one, c) for c in columns)]
            + last[0]
        )
        rows.append([name_of(one), *about, *(_value(one, c.metric) for c in columns)] + last[1])
    distinct = list(dict.fromkeys(map(tuple, rows)))
    return "\n".join(_line(row) for row in (head, ["---"] * len(head), *distinct))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _value(results: Results, name: str) -> str:
    metric = results["metrics"].get(name)
    if metric is None:
        return "-"
    return f"{metric['value']:.3f} [{metric['low']:.3f}, {metric['high']:.3f}]"


def _unedited(results: Results, column: Column) -> str:
    if column.metric not in results["metrics"] or column.unedited is None:
        return "-"
    if isinstance(column.unedited, float):
        return f"{column.unedited:.3f}"
    return _value(results, column.unedited)


def _paper(results: Results) -> str:
    """The paper's numbers, where its protocol, its single edits and its data are the same."""
    config = results.get("config", {})
    flips = "fever" in str(results["dataset"]).casefold() and config.get("flip") != "half"
    if results["protocol"] != PROTOCOLS["sequence"] or config.get("k", 1) > 1 or flips:
        return ""
    if config.get("sequential"):
        return ""
    model = Path(results["model"]).name.casefold()
    dataset = str(results["dataset"]).casefold()
    found = [row for (name, word), row in PAPER.items() if name == model and word in dataset]
    known = found and results["editor"] in EDITORS
    return found[0][EDITORS.index(results["editor"])] if known else ""


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
