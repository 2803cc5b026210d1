"""Plot a run: loss, learning rate and held-out figures over the steps."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.disk.files import write_bytes
from pipeline.report.labels import shorten
from pipeline.training.held_out import FIGURES, vals_by_teacher

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DRAWN = tuple(key for key in FIGURES if key != "loss")
"""Figures in the right panel, if the run has them; one colour each."""
LINES, WORDS = ("-", "--", ":", "-."), ("solid:", "dashed:", "dotted:", "dash-dotted:")
"""Line styles of the first teacher, the second, ...; and their names in the title."""
LONGEST_NAME = 40
"""Characters of a teacher's name in the plot. Our choice: two names fit side by side."""
LOWEST = -2.0
"""Lower limit of the right panel: the R2 of a bad map has no lower bound."""
SMOOTHED_SHARE = 0.05
"""Share of the steps that the solid loss line averages over. Our choice."""


def draw_curves(lines: list[dict[str, Any]], path: Path) -> None:
    """Plot the lines of `metrics.jsonl` as a PNG: training on the left, held-out figures on the right."""
    import matplotlib as mpl  # here, so that a run begins before this is imported
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # as above
    from matplotlib.figure import Figure  # as above

    steps = [line for line in lines if line["kind"] == "step"]
    vals = vals_by_teacher(lines)
    with mpl.rc_context({"text.parse_math": False}):  # a teacher's name may contain a dollar sign
        figure = Figure(figsize=(11, 4.6), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(2, 2, height_ratios=(4, 1))
        loss = figure.add_subplot(grid[0, 0])
        _draw_loss(loss, steps, vals)
        _draw_learning_rate(figure.add_subplot(grid[1, 0], sharex=loss), steps)
        _draw_held_out(figure.add_subplot(grid[:, 1]), vals)
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=130)
    write_bytes(path, buffer.getvalue())


def moving_mean(values: Sequence[float], count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Mean of each value and up to `count` - 1 values before it; float64 (N,)."""
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, np.float64))])
    stops = np.arange(1, len(values) + 1)
    starts = np.maximum(stops - count, 0)
    return np.asarray((sums[stops] - sums[starts]) / (stops - starts))


def _draw_loss(axes: "Axes", steps: list[dict[str, Any]], vals: dict[str, list[dict[str, Any]]]) -> None:
    x, losses = [s["step"] for s in steps], [s["loss"] for s in steps]
    count = max(round(SMOOTHED_SHARE * len(steps)), 1)
    axes.plot(x, losses, color="#1f5fbf", alpha=0.25, lw=0.8)
    label = "train" if count == 1 else f"train, mean of {count} steps"
    axes.plot(x, moving_mean(losses, count), color="#1f5fbf", lw=1.5, label=label)
    for number, (teacher, history) in enumerate(vals.items()):
        label = f"held out, {shorten(teacher, LONGEST_NAME)}" if teacher else "held out"
        axes.plot(
            [v["step"] for v in history],
            [v["loss"] for v in history],
            color="#e06c00",
            marker="o",
            ms=3,
            lw=1.4,
            ls=LINES[number % len(LINES)],
            label=label,
        )
    axes.set(ylabel="loss", title="Training")
    axes.tick_params(labelbottom=False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9, loc="upper right")


def _draw_learning_rate(axes: "Axes", steps: list[dict[str, Any]]) -> None:
    axes.plot([s["step"] for s in steps], [s["lr"] for s in steps], color="#777777", lw=1.2)
    axes.set(xlabel="step", ylabel="learning\nrate")
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.grid(alpha=0.25)


def _draw_held_out(axes: "Axes", vals: dict[str, list[dict[str, Any]]]) -> None:
    values = [v[name] for history in vals.values() for v in history for name in DRAWN if name in v]
    if not values:
        axes.text(0.5, 0.5, "too few held-out rows to score", ha="center", va="center", transform=axes.transAxes)
        axes.set(title="Held-out patches", xticks=[], yticks=[])
        return
    for number, history in enumerate(vals.values()):
        _draw_history(axes, history, LINES[number % len(LINES)], in_legend=number == 0)
    title = f"{next(iter(vals.values()))[-1]['rows']:,} held-out patches"
    if len(vals) > 1:
        title += "\n" + ", ".join(
            f"{WORDS[n % len(LINES)]} {shorten(teacher, LONGEST_NAME)}" for n, teacher in enumerate(vals)
        )
    axes.set(xlabel="step", title=title, ylim=(max(min(0.0, *values), LOWEST) - 0.03, 1.03))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)


def _draw_history(axes: "Axes", history: list[dict[str, Any]], style: str, *, in_legend: bool) -> None:
    """A line a figure, over the validations of one teacher."""
    for color, name in enumerate(DRAWN):
        points = [(v["step"], v[name]) for v in history if name in v]
        if points:
            axes.plot(
                *zip(*points, strict=True),
                marker="o",
                ms=3,
                lw=1.4,
                color=f"C{color}",
                ls=style,
                label=FIGURES[name] if in_legend else None,
            )
