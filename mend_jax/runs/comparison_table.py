"""The rows of a comparison, in a line each or as one table."""

from typing import Any

from mend_jax.evaluation.metrics import METRICS, columns

Row = dict[str, Any]


def line_of(row: Row) -> str:
    """One line about a row."""
    if "error" in row:
        return f"{row['editor']}: not done: {row['error']}"
    shown = {k: f"{row['metrics'][k]['value']:.3f}" for k in SHOWN if k in row["metrics"]}
    return f"{row['editor']}: {shown}, {row['steps']} steps, {row['train_seconds']:.0f} s"


SHOWN = tuple(metric.name for metric in columns() if metric.kind == "edit" or metric.headline)


def markdown(rows: list[Row], drawdown: str = "drawdown") -> str:
    """The rows as one table; scores with their 95 % intervals.

    Args:
      drawdown: the metric that stands for it, "drawdown" (accuracy) or "perplexity_drawdown".
    """
    head = [
        "editor", "edits at once", *(METRICS[x].title for x in (*SHOWN, drawdown)),
        "steps", "seconds to train", "seconds per edit", "editor parameters", "memory (GB)",
    ]  # fmt: skip
    lines = []
    for row in rows:
        if "error" in row:
            lines.append([row["editor"], row["error"].replace("|", "/"), *[""] * (len(head) - 2)])
            continue
        found = [row["metrics"].get(k) for k in (*SHOWN, drawdown)]
        scores = [
            f"{m['value']:.3f} [{m['low']:.3f}, {m['high']:.3f}]" if m else "-" for m in found
        ]
        lines.append(
            [
                row["editor"], str(row["config"]["k"]), *scores, str(row["steps"]),
                f"{row['train_seconds']:.0f}", f"{row['edit_seconds']:.4f}",
                f"{row['parameters']:,}", f"{row['memory_bytes'] / 1e9:.2f}",
            ]
        )  # fmt: skip
    return "\n".join(
        f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)
    )
