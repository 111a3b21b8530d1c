"""results.json: one evaluation, with its protocol, intervals and how to repeat it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mend_jax.files import write_text
from mend_jax.scores import Metric

ORDER = (
    "reliability",
    "generality",
    "edit_success",
    "edit_success_before",
    "locality_agreement",
    "locality_agreement_near",
    "locality_agreement_far",
    "locality_kl",
    "accuracy_before",
    "accuracy_after",
    "drawdown",
    "perplexity_before",
    "perplexity_after",
    "perplexity_drawdown",
)


def make_results(
    editor: str,
    model: str,
    dataset: str,
    protocol: str,
    n: int,
    metrics: Mapping[str, Metric],
    seconds: float,
    config: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of results.json.

    Args:
      protocol: its name in full (`scores.PROTOCOLS`). n: number of edits.
      seconds: wall time of the whole command after downloads.
      config: the command's options, and counts of what was left out.
    """
    ordered = {name: metrics[name]._asdict() for name in ORDER if name in metrics}
    return {
        "editor": editor,
        "model": model,
        "dataset": dataset,
        "n": n,
        "protocol": protocol,
        "metrics": ordered,
        "seconds": round(seconds, 1),
        "config": dict(config),
    }


def write_results(path: str | Path, results: Mapping[str, Any]) -> None:
    """Writes results.json whole."""
    write_text(path, json.dumps(results, indent=1, ensure_ascii=False, default=str) + "\n")


def table(results: Mapping[str, Any]) -> str:
    """The metrics as lines of text: name, value, 95 % interval."""
    lines = [f"{results['n']} edits, {results['protocol']}, mean and bootstrap 95 % interval"]
    for name, metric in results["metrics"].items():
        lines.append(
            f"  {name:<26} {metric['value']:7.3f}   [{metric['low']:.3f}, {metric['high']:.3f}]"
        )
    return "\n".join(lines)
