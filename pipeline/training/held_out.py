"""Held-out figures of a run: what each is called everywhere, and which epoch was best. Pure.

One table of names for the terminal, the plot, the card and `g2l inspect`. Lines are those of `metrics.jsonl`; a run
that an earlier version began has fewer figures, and shows those that it has.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.base.console import table

FIGURES = {
    "loss": "loss",
    "retrieval_top1": "top-1",
    "neighbour_overlap": "overlap at 10",
    "cka": "CKA, plain",
    "correlation_mean": "correlation",
    "correlation_median": "median correlation",
    "r2_scaled": "R2 scaled",
    "r2_linear": "R2 linear map",
    "cosine": "cosine",
    "explained_variance": "explained variance, unscaled",
}
"""Figures of a validation by their key in `metrics.jsonl`, in the order in which they are shown, and what each is
called. The last is of runs that version 0.1.0 began.
"""
MEANINGS = {
    "loss": "as that of a training batch",
    "retrieval_top1": "share of patches whose projection is nearest to the teacher's embedding of the same patch",
    "neighbour_overlap": "share of a patch's 10 nearest patches that student and teacher have in common",
    "cka": "linear CKA of student and teacher, not debiased: well above 0 by chance where patches are few",
    "correlation_mean": "of projection and teacher in a dimension, the mean over dimensions",
    "correlation_median": "the same, the median over dimensions",
    "r2_scaled": "share of the teacher's variance that the projection explains after the best scale of each dimension",
    "r2_linear": "share of the teacher's variance that the best linear map of the embedding explains, fitted on "
    "training patches",
    "cosine": "of projection and teacher in the standardised space, the mean over patches",
    "explained_variance": "R2 of the standardised projection as it is: 2 r - 1 for a correlation of r in every "
    "dimension, so that below r = 0.5 it is below 0 whatever was learnt",
}
"""What each figure is, in a line."""
VERSION_1 = ("rows", "explained_variance", "cosine", "retrieval_top1", "neighbour_overlap", "cka")
"""Figures, and their order, in the lines of runs of version 1 (`draws.RUN_VERSION`)."""


@dataclass(frozen=True)
class Best:
    """The validation of the smallest held-out loss, after at least one epoch."""

    step: int
    epoch: int
    loss: float


def figures_of(line: Mapping[str, Any]) -> list[str]:
    """Keys of the figures that a line has, in the order of `FIGURES`."""
    return [key for key in FIGURES if key in line]


def vals_by_teacher(lines: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The lines of validations, by the teacher's name in the order of teachers; "" where a run has only one."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        if line["kind"] == "val":
            found.setdefault(line.get("teacher", ""), []).append(line)
    return found


def teacher_weights(identity: Mapping[str, Any]) -> dict[str, float]:
    """Weights of the teachers' losses by the name that lines have, of a run's record."""
    further = {each["teacher"]["name"]: float(each["weight"]) for each in identity.get("further_teachers", [])}
    if not further:
        return {"": 1.0}
    return {identity["teacher"]["name"]: 1.0 - sum(further.values())} | further


def losses_by_step(lines: Iterable[dict[str, Any]], weights: Mapping[str, float]) -> list[Best]:
    """The held-out loss of each validation, the sum over teachers by their weights, in the order of steps."""
    found: dict[int, list[Any]] = {}
    for line in lines:
        if line["kind"] == "val":
            parts = found.setdefault(line["step"], [line["epoch"], 0.0])
            parts[1] += weights.get(line.get("teacher", ""), 0.0) * line["loss"]
    return [Best(step, epoch, loss) for step, (epoch, loss) in found.items()]


def best_validation(lines: Iterable[dict[str, Any]], weights: Mapping[str, float]) -> Best | None:
    """The validation of the smallest held-out loss, the first of equal ones; `None` before the first epoch's end."""
    trained = [each for each in losses_by_step(lines, weights) if each.step > 0]
    return min(trained, key=lambda each: each.loss, default=None)


def best_words(lines: Sequence[dict[str, Any]], weights: Mapping[str, float], kept: int | None = None) -> str:
    """Which epoch was best by the held-out loss, in a sentence; "" where nothing was held out.

    Args:
        kept: step of the exported student; `None` for the last one.
    """
    losses, best = losses_by_step(lines, weights), best_validation(lines, weights)
    if best is None:
        return ""
    start, last = losses[0], losses[-1]
    said = f"The held-out loss was smallest after epoch {best.epoch} ({best.loss:.4f}"
    said += ")" if best == last else f"; after the last, epoch {last.epoch}, {last.loss:.4f})"
    if best.step != last.step:
        said += f": exported is that of epoch {best.epoch}" if kept == best.step else ": exported is the last"
    if start.step == 0 and start.loss <= best.loss:
        said += f". It never fell below that of the start, {start.loss:.4f}"
    return said + "."


def gains_table(before: dict[str, float], after: dict[str, float], of: str = "") -> str:
    """Held-out figures before and after, for the terminal; `of` says which teacher's."""
    rows = [(FIGURES[key], f"{before[key]:.4f}", f"{after[key]:.4f}") for key in figures_of(after) if key in before]
    return table(rows, (f"on {after['rows']:,} held-out patches{of}", "before", "after"), right=(1, 2))


def history_table(vals: Sequence[dict[str, Any]], most: int = 12) -> str:
    """Figures of validations, a row each: the first, and the last of them if there are more than `most`."""
    shown = vals if len(vals) <= most else [vals[0], *vals[1 - most :]]
    keys = figures_of(vals[-1])
    cells = [(v["epoch"], v["step"], *(f"{v[key]:.4f}" if key in v else "" for key in keys)) for v in shown]
    return table(cells, ("epoch", "step", *(FIGURES[key] for key in keys)), right=range(len(keys) + 2))
