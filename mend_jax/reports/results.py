"""results.json: one evaluation, with its protocol, intervals and how to repeat it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mend_jax.evaluation.metrics import Estimate
from mend_jax.files import write_text
from mend_jax.peak import peak_bytes


class About(NamedTuple):
    """What was scored, on what, and how.

    n: number of edits. protocol: its name in full, of `evaluation.metrics.PROTOCOLS`.
    """

    editor: str
    model: str
    dataset: str
    n: int
    protocol: str


def make_results(
    about: About, metrics: Mapping[str, Estimate], seconds: float, config: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of results.json, with the most memory that this process has held so far.

    Args:
      metrics: as `summarise` gives them, in its order.
      seconds: wall time of the whole command after downloads.
      config: the command's options, and counts of what was left out.
    """
    return {
        **about._asdict(),
        "metrics": {name: estimate._asdict() for name, estimate in metrics.items()},
        "seconds": round(seconds, 1),
        "peak_bytes": peak_bytes(),
        "config": dict(config),
    }


def write_results(path: str | Path, results: Mapping[str, Any]) -> None:
    """Writes results.json whole."""
    write_text(path, json.dumps(results, indent=1, ensure_ascii=False, default=str) + "\n")


def table(results: Mapping[str, Any]) -> str:
    """The metrics as lines of text: name, value, 95 % interval; and what is suspicious."""
    lines = [f"{results['n']} edits, {results['protocol']}, mean and bootstrap 95 % interval"]
    for name, metric in results["metrics"].items():
        lines.append(
            f"  {name:<26} {metric['value']:7.3f}   [{metric['low']:.3f}, {metric['high']:.3f}]"
        )
    if why := suspicion(results):
        lines.append(f"warning: {why}")
    return "\n".join(lines)


def suspicion(results: Mapping[str, Any]) -> str:
    """Why the numbers are not those of an editor that works; empty if they may be."""
    values = {name: metric["value"] for name, metric in results["metrics"].items()}
    if lost := values.get("failed"):
        return f"after {lost:.1%} of the edits the model's logits are not finite: these have failed"
    gain = values.get("edit_success", 1.0) - values.get("edit_success_before", 0.0)
    same = values.get("locality_agreement")
    if gain > 0.01 or same is None:
        return ""
    if same > 0.999:
        return "this editor does nothing: no answer differs from that of the unedited model"
    if same < 0.5:
        return "this editor writes noise: nothing is learned, and most other answers are lost"
    return "nothing is learned: edit success is that of the unedited model"
