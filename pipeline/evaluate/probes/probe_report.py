"""Report how linear probes were regularised: the score over C on the inner splits, and the C that was chosen.

The curve is of the rows that C was chosen by, never of rows that are scored. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.evaluate.probes.logistic import Floats
from pipeline.evaluate.probes.probe_choice import SCORE_WORDS, Choice, ProbeProtocol
from pipeline.report.content import Cell, Column, Interval, Table

Choices = Mapping[str, tuple[Choice, ...]]
"""Of each model, by label, in the order of the folds."""
MOST_LISTED = 12
"""Strengths that a cell lists. Our choice."""
PROBE_DATA = "linear_probe"
"""Where a section's data hold what `curve_data` gives."""


def mean_curve(choices: tuple[Choice, ...]) -> Floats:
    """The score at each strength, (S,), mean over the folds that had something to choose by; NaN where none had."""
    curves = [choice.curve for choice in choices if choice.is_chosen]
    return np.mean(curves, axis=0) if curves else np.full(len(choices[0].curve), np.nan)


def strengths_in_words(choices: tuple[Choice, ...]) -> str:
    """The strength of each fold; once if all agree, and the ends where there is one of each run as well."""
    strengths = [f"{choice.strength:g}" for choice in choices]
    if len(choices) > MOST_LISTED and len(set(strengths)) > 1:
        numbers = [choice.strength for choice in choices]
        return f"{min(numbers):g} to {max(numbers):g}"
    return strengths[0] if len(set(strengths)) == 1 else ", ".join(strengths)


def strength_column(protocol: ProbeProtocol) -> Column:
    """The column that says which C was taken, or, of eva, which checkpoint."""
    if protocol.name == "eva":
        return Column("steps", "Steps of the chosen checkpoints, fewest to most of all folds and runs.", digits=0)
    if protocol.is_fixed:
        return Column("C", "Inverse strength of the regularisation, fixed by --probe-c.")
    first, last = protocol.strengths[0], protocol.strengths[-1]
    return Column(
        "C",
        f"Inverse strength of the regularisation, of {len(protocol.strengths)} from {first:g} to {last:g} the one of "
        f"the best {SCORE_WORDS[protocol.score]} on inner splits of the training part: once if all folds agree, else "
        "of each fold.",
    )


def curve_tables(choices: Choices, protocol: ProbeProtocol) -> list[Table]:
    """The score at each C, a line a model; none where nothing was chosen."""
    rows: list[list[Cell]] = [
        [label, *map(float, mean_curve(of_model)), strengths_in_words(of_model)]
        for label, of_model in choices.items()
        if any(choice.is_chosen for choice in of_model)
    ]
    if not rows:
        return []
    score = SCORE_WORDS[protocol.score]
    columns = [Column("model"), *(Column(f"C = {one:g}") for one in protocol.strengths), Column("chosen")]
    note = (
        f"{score[0].upper()}{score[1:]} on the rows that C is chosen by (inner splits of each training part, cases "
        "kept together), mean over the folds. It is not the score of the model: none of these rows is in its fold's "
        "test part. Each fold takes its own best, of equal ones the smallest C. Where a line is flat, C hardly matters."
    )
    return [Table("Linear probe by C", columns, rows, note)]


def curve_data(choices: Choices, protocol: ProbeProtocol) -> dict[str, Any]:
    """The protocol, and of each model the curve of each fold and what was chosen, as JSON types."""
    return {
        **protocol.record(),
        "models": {
            label: {
                "chosen": [choice.strength for choice in of_model],
                "curve": _plain(mean_curve(of_model)),
                "curve_by_fold": [_plain(choice.curve) for choice in of_model],
            }
            for label, of_model in choices.items()
        },
    }


@dataclass(frozen=True)
class Curves:
    """Lines of a section's figure: by the model's label, the score by C. `score` says which one, in words."""

    lines: dict[str, dict[float, float | Interval]]
    score: str


def curves_to_draw(data: Mapping[str, Any]) -> Curves | None:
    """The curves in a section's `data`; `None` where there is no linear probe, or nothing was chosen."""
    if PROBE_DATA not in data:
        return None
    probe = data[PROBE_DATA]
    lines: dict[str, dict[float, float | Interval]] = {}
    for label, of_model in probe["models"].items():
        if line := {c: y for c, y in zip(probe["strengths"], of_model["curve"], strict=True) if y is not None}:
            lines[label] = line
    return Curves(lines, str(probe["chosen_by"])) if lines else None


def _plain(curve: Floats) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in curve]
