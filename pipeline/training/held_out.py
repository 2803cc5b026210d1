"""Held-out figures of a run: their names, and which epoch was best. Pure.

Terminal, plot, card and `g2l inspect` share this table of names. Functions take lines of `metrics.jsonl`; those of runs
begun by an earlier version have fewer figures.
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
"""Display name of each figure by its key in `metrics.jsonl`, in display order; the last one is only in runs begun by
version 0.1.0.
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
"""One line on what each figure measures, for cards and reports."""
VERSION_1 = ("rows", "explained_variance", "cosine", "retrieval_top1", "neighbour_overlap", "cka")
"""Figures in the lines of runs of version 1 (`draws.RUN_VERSION`), in their order."""


@dataclass(frozen=True)
class Best:
    """The validation with the smallest held-out loss, after at least one epoch."""

    step: int
    epoch: int
    loss: float


def figures_of(line: Mapping[str, Any]) -> list[str]:
    """Keys of the figures in a line, in the order of `FIGURES`."""
    return [key for key in FIGURES if key in line]


ONLY = ""
"""Stands for the teacher of a run of one, whose lines do not name it (`identity`)."""


def vals_by_teacher(lines: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Group the validation lines by teacher, in the order of teachers; the key is `ONLY` if the run has one."""
    by_teacher: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        if line["kind"] == "val":
            by_teacher.setdefault(line.get("teacher", ONLY), []).append(line)
    return by_teacher


def losses_by_step(lines: Iterable[dict[str, Any]], weights: Mapping[str, float]) -> list[Best]:
    """Held-out loss of each validation, the weighted sum over teachers, in the order of steps.

    A step that lacks a teacher's line is left out: a kill came between the lines.
    """
    by_step: dict[int, dict[str, Any]] = {}
    for line in lines:
        if line["kind"] == "val":
            by_step.setdefault(line["step"], {})[line.get("teacher", ONLY)] = line
    sums = []
    for step, by_teacher in by_step.items():
        if weights.keys() <= by_teacher.keys():
            loss = sum(weights.get(teacher, 0.0) * line["loss"] for teacher, line in by_teacher.items())
            sums.append(Best(step, next(iter(by_teacher.values()))["epoch"], loss))
    return sums


def best_validation(lines: Iterable[dict[str, Any]], weights: Mapping[str, float]) -> Best | None:
    """The validation with the smallest held-out loss, the first of equals; `None` before the end of the first epoch."""
    trained = [val for val in losses_by_step(lines, weights) if val.step > 0]
    return min(trained, key=lambda val: val.loss, default=None)


def best_words(lines: Sequence[dict[str, Any]], weights: Mapping[str, float], kept: int | None = None) -> str:
    """Say which epoch has the smallest held-out loss, in a sentence; "" if nothing was held out.

    Args:
        kept: step of the exported student; `None` for the last step.
    """
    losses, best = losses_by_step(lines, weights), best_validation(lines, weights)
    if best is None:
        return ""
    start, last = losses[0], losses[-1]
    text = f"The held-out loss was smallest after epoch {best.epoch} ({best.loss:.4f}"
    text += ")" if best == last else f"; after the last, epoch {last.epoch}, {last.loss:.4f})"
    if best.step != last.step:
        text += f"; epoch {best.epoch} is exported" if kept == best.step else "; the last epoch is exported"
    if start.step == 0 and start.loss <= best.loss:
        text += f". It never fell below its value at the start, {start.loss:.4f}"
    return text + "."


def gains_table(before: dict[str, float], after: dict[str, float], suffix: str = "") -> str:
    """Table of the held-out figures before and after training, for the terminal; `suffix` ends its heading."""
    rows = [(FIGURES[key], f"{before[key]:z.4f}", f"{after[key]:z.4f}") for key in figures_of(after) if key in before]
    return table(rows, (f"on {after['rows']:,} held-out patches{suffix}", "before", "after"), right=(1, 2))


def history_table(vals: Sequence[dict[str, Any]], most: int = 12) -> str:
    """Table of validations, a row each; of more than `most`, the first and the latest ones."""
    shown = vals if len(vals) <= most else [vals[0], *vals[1 - most :]]
    keys = figures_of(vals[-1])
    cells = [(v["epoch"], v["step"], *(f"{v[key]:z.4f}" if key in v else "" for key in keys)) for v in shown]
    return table(cells, ("epoch", "step", *(FIGURES[key] for key in keys)), right=range(len(keys) + 2))
