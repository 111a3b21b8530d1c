"""Figures, as PNG.

    training_curve            of a run: losses over steps                     training.png
    score_bars                of a run: its scores                            scores.png
    success_and_locality      several runs beside each other                  of report.md
    success_against_drawdown  a comparison of editors, a point for each       compare.png
    over_edits                curves over the number of edits                 of report.md
    found_against_fired       a scope's thresholds, from high to low          of report.md

A metric's title and colour are those of `evaluation.metrics.METRICS` and of its kind.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mend_jax.evaluation.metrics import METRICS

COLOURS = {"edit": "#c1440e", "locality": "#1f6f8b", "unedited": "#9aa0a6"}
"""By the kind of a metric."""
_EDIT, _LOCALITY, _GREY = COLOURS.values()


def training_curve(path: str | Path, history: Sequence[Mapping[str, float]]) -> None:
    """Losses over steps (log scale), training and development, as a PNG."""
    figure, axes = _figure(width=7.2, height=3.6)
    for name, label, colour in (
        ("edit_loss", "edit loss (nats)", _EDIT),
        ("locality_loss", "locality KL (nats)", _LOCALITY),
    ):
        rows = [row for row in history if name in row]
        axes.plot([r["step"] for r in rows], [r[name] for r in rows], color=colour, label=label)
    development = [row for row in history if "dev_edit_loss" in row]
    for name, label, colour in (
        ("dev_edit_loss", "edit loss, development", _EDIT),
        ("dev_locality_kl", "locality KL, development", _LOCALITY),
    ):
        rows = [row for row in development if name in row]
        axes.plot(
            [r["step"] for r in rows],
            [r[name] for r in rows],
            "o--",
            color=colour,
            markersize=4,
            label=label,
        )
    axes.set_yscale("log")
    axes.set_xlabel("step")
    _legend(axes, 2)
    figure.savefig(path, dpi=150)


def score_bars(path: str | Path, results: Mapping[str, Any]) -> None:
    """The scores between 0 and 1 as bars with 95 % intervals, before and after, as a PNG."""
    bars = [m for m in METRICS.values() if m.bar and m.name in results["metrics"]]
    figure, axes = _figure(width=7.2, height=0.42 * len(bars) + 1.1)
    for place, metric in enumerate(reversed(bars)):
        _bar(axes, place, results["metrics"][metric.name], COLOURS[metric.kind])
    axes.set_yticks(range(len(bars)), [metric.title for metric in reversed(bars)])
    axes.set_xlim(0, 1.02)
    axes.set_title(
        f"{results['editor']} on {_end(results['model'])}, {_end(results['dataset'])}: "
        f"{results['n']} edits\n{results['protocol']}, 95 % intervals",
        fontsize=9,
        loc="left",
    )
    figure.savefig(path, dpi=150)


def success_and_locality(path: str | Path, names: Sequence[str], results: Sequence[Any]) -> None:
    """The headlines (edit success, locality agreement) of several runs, with 95 % intervals; a grey
    tick is the unedited model."""
    headlines = [metric for metric in METRICS.values() if metric.headline]
    figure, panels = _figure(8.0, 0.45 * len(results) + 1.0, len(headlines))
    for axes, metric in zip(panels, headlines, strict=True):
        for place, one in enumerate(reversed(results)):
            if metric.name not in one["metrics"]:
                continue
            _bar(axes, place, one["metrics"][metric.name], COLOURS[metric.kind])
            if metric.unedited in one["metrics"]:
                unedited = one["metrics"][metric.unedited]["value"]
                axes.plot([unedited] * 2, [place - 0.4, place + 0.4], color=_GREY, linewidth=2)
        axes.set_xlim(0, 1.02)
        axes.set_ylim(-0.6, len(results) - 0.4)  # of both the same, though one alone has ticks
        axes.set_title(metric.title, fontsize=9, loc="left")
        shown = list(reversed(names)) if axes is panels[0] else [""] * len(names)
        axes.set_yticks(range(len(names)), shown)
    figure.savefig(path, dpi=150)


def success_against_drawdown(
    path: str | Path, rows: Sequence[Mapping[str, Any]], drawdown: str
) -> None:
    """One point for each row of a comparison, with 95 % intervals; up and left is better. A number
    at a point is of edits made at once.

    Args:
      drawdown: the metric that stands for it, "drawdown" (accuracy) or "perplexity_drawdown".
    """
    figure, axes = _figure(width=7.2, height=4.4)
    colours: dict[str, str] = {}
    many: dict[tuple[str, float, float], list[str]] = {}
    for row in rows:
        name, across, up = row["editor"], *map(row["metrics"].get, (drawdown, "edit_success"))
        if across is None or up is None:
            continue
        (x, x_spread), (y, y_spread) = _spread(across), _spread(up)
        label = None if name in colours else name
        colour = colours.setdefault(name, _EDIT if name == "mend" else f"C{len(colours)}")
        axes.errorbar(
            x, y, xerr=x_spread, yerr=y_spread, fmt="o", color=colour, capsize=2, linewidth=1,
            label=label,
        )  # fmt: skip
        if row["config"]["k"] > 1:
            here = many.setdefault((colour, round(x, 3), round(y, 2)), [])
            here.append(str(row["config"]["k"]))
    for (colour, *at), numbers in many.items():
        axes.annotate(", ".join(numbers), at, (4, 4), textcoords="offset points", color=colour)
    axes.set_xscale("symlog", linthresh=0.01)
    low, high = axes.get_xlim()
    ticks = symlog_ticks(low, high, 0.01)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel(f"{METRICS[drawdown].title} (0.01 and more: log scale)")
    axes.set_ylabel(METRICS["edit_success"].title)
    _legend(axes, 5)
    figure.savefig(path, dpi=150)


def symlog_ticks(low: float, high: float, straight: float) -> list[float]:
    """At least two numbers, round if there are any, between the limits of an axis that is straight
    from -`straight` to `straight` and logarithmic beyond."""
    place = [math.copysign(math.log10(max(abs(x) / straight, 1)), x) for x in (low, high)]
    apart = max(1, math.ceil((place[1] - place[0]) / 8))
    found: list[float] = []
    for few in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        sizes = [n * straight * 10.0**e for e in range(0, 40, apart) for n in few]
        found = sorted(t for t in (0.0, *sizes, *(-x for x in sizes)) if low <= t <= high)
        if len(found) >= 4 or apart > 1:
            break
    return found if len(found) > 1 else [low, (low + high) / 2, high]


def _spread(estimate: Mapping[str, float]) -> tuple[float, list[list[float]]]:
    """The value, and how far its interval goes below and above it."""
    value = estimate["value"]
    return value, [[max(value - estimate["low"], 0.0)], [max(estimate["high"] - value, 0.0)]]


def over_edits(
    path: str | Path, label: str, edits: Sequence[int], lines: Mapping[str, Sequence[float]]
) -> None:
    """Scores over the number of edits (log scale); a line `norm`, of any size, gets an axis of its
    own."""
    figure, axes = _figure(width=7.2, height=3.6)
    colours = {metric.title: COLOURS[metric.kind] for metric in METRICS.values() if metric.headline}
    colours["newest"] = "#e0a458"
    for name, values in lines.items():
        if name == "norm":
            other = axes.twinx()
            other.plot(edits, values, ":", color=_GREY)
            other.set_ylabel("norm of all edits", color=_GREY)
            other.set_ylim(bottom=0)
            other.spines["top"].set_visible(False)
        else:
            axes.plot(edits, values, "o-", markersize=4, color=colours.get(name), label=name)
    axes.set_xscale("log")
    axes.set_xticks(edits, [str(n) for n in edits])
    axes.minorticks_off()
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel(label)
    _legend(axes, 3)
    figure.savefig(path, dpi=150)


def found_against_fired(path: str | Path, points: Sequence[Mapping[str, float | None]]) -> None:
    """Rephrases that find their edit against prompts at which any edit fires, as both thresholds
    of a scope sink; a ring is where they are."""
    figure, axes = _figure(width=5.4, height=4.0)
    kinds = (("fired", "neighbours and others", _LOCALITY), ("fired_own", "own subject", _EDIT))
    for name, label, colour in kinds:
        line = [p for p in points if p[name] is not None and p["found"] is not None]
        if not line:
            continue
        across, up = ([p[key] for p in line] for key in (name, "found"))
        axes.plot(across, up, ".-", color=colour, label=label, linewidth=1)
        here = [p for p in line if p["lower"] == 0]
        ring = {"marker": "o", "fillstyle": "none", "markersize": 11, "color": colour}
        axes.plot([p[name] for p in here], [p["found"] for p in here], **ring)
    axes.set_xlim(-0.01, 0.5)
    axes.set_ylim(0.4, 1.01)
    axes.set_xlabel("an edit acts where none should")
    axes.set_ylabel("a rephrase finds its edit")
    _legend(axes, 2)
    figure.savefig(path, dpi=150)


def _end(name: str, longest: int = 32) -> str:
    """A name, or the end of a long path, which would push the bars out of the figure."""
    return name if len(name) <= longest else f"...{name[-longest:]}"


def _bar(axes: Any, place: int, estimate: Mapping[str, float], colour: str) -> None:
    """A score between 0 and 1 with its interval, and its number at the right."""
    value, spread = _spread(estimate)
    axes.barh(place, value, xerr=spread, color=colour, height=0.65, ecolor="#333333", capsize=3)
    axes.text(1.04, place, f"{value:.3f}", va="center", fontsize=9)


def _legend(axes: Any, columns: int) -> None:
    axes.legend(
        frameon=False, fontsize=8, ncols=columns, loc="lower left", bbox_to_anchor=(0.0, 1.0)
    )


def _figure(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    found = figure.subplots(1, columns, squeeze=False)[0]
    for axes in found:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, found[0] if columns == 1 else found
