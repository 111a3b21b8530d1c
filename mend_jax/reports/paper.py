"""The numbers of MEND's paper (Tables 3 and 4), to stand beside those of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mend_jax.evaluation.metrics import PROTOCOLS

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


def paper_numbers(results: Mapping[str, Any]) -> str:
    """Those for an evaluation, if its protocol, its single edits and its data are the paper's; else
    an empty text."""
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
