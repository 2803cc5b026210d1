"""The pictures of a run: loss, learning rate and held-out figures over the steps."""

from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline.files import write_bytes

FIGURES = {
    "retrieval_top1": "retrieval top-1",
    "neighbour_overlap": "neighbour overlap at 10",
    "cka": "CKA",
    "explained_variance": "explained variance",
    "cosine": "cosine",
}


def draw_curves(lines: list[dict[str, Any]], path: Path) -> None:
    """Write the picture (PNG) of a run's metrics: training on the left, held-out figures on the right."""
    steps = [line for line in lines if line["kind"] == "step"]
    vals = [line for line in lines if line["kind"] == "val"]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _draw_training(left, steps, vals)
    _draw_held_out(right, vals)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    write_bytes(path, buffer.getvalue())


def _draw_training(axes: Axes, steps: list[dict[str, Any]], vals: list[dict[str, Any]]) -> None:
    axes.plot([s["step"] for s in steps], [s["loss"] for s in steps], color="#1f5fbf", lw=1.2, label="train loss")
    axes.plot([v["step"] for v in vals], [v["loss"] for v in vals], color="#e06c00", marker="o", ms=3, lw=1.2,
              label="held-out loss")  # fmt: skip
    axes.set(xlabel="step", ylabel="loss", title="Training")
    rate = axes.twinx()
    rate.plot(
        [s["step"] for s in steps], [s["lr"] for s in steps], color="#999999", lw=1, ls=":", label="learning rate"
    )
    rate.set_ylabel("learning rate", color="#777777")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    handles = [*axes.get_lines(), *rate.get_lines()]
    axes.legend(handles, [str(h.get_label()) for h in handles], frameon=False, fontsize=9)


def _draw_held_out(axes: Axes, vals: list[dict[str, Any]]) -> None:
    if not vals:
        axes.text(0.5, 0.5, "no rows are held out", ha="center", va="center", transform=axes.transAxes)
        axes.set(title="Held-out patches", xticks=[], yticks=[])
        return
    for name, label in FIGURES.items():
        axes.plot([v["step"] for v in vals], [v[name] for v in vals], marker="o", ms=3, lw=1.4, label=label)
    lowest = min(0.0, *(v[name] for v in vals for name in FIGURES))
    axes.set(xlabel="step", title=f"Held-out patches ({vals[-1]['rows']:,})", ylim=(max(lowest, -0.5) - 0.03, 1.03))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9)
