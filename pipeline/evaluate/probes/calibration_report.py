"""Columns, cells and words of the tables of calibration, the same for patches and slides. Pure."""

from pipeline.evaluate.bootstrap import interval
from pipeline.evaluate.probes.calibration import NUM_BINS, Calibration, temperatures_in_words
from pipeline.evaluate.probes.linear_probe import ProbeTask
from pipeline.report.content import Cell, Column


def calibration_columns() -> list[Column]:
    """The columns beside those that say whose predictions they are."""
    return [
        Column(
            "ECE",
            "Top-label calibration error: how far the probability of the predicted class is from the share that is "
            f"right, in {NUM_BINS} bins of equal width, weighted by their rows; 0 is calibrated.",
        ),
        Column("ECE, with temperature", "The same after temperature scaling."),
        Column("temperature", "Of each fold; above 1 the probe is too sure, below 1 not sure enough."),
    ]


def calibration_cells(calibration: Calibration) -> list[Cell]:
    """A line's cells, by `calibration_columns`; a dash where there is no temperature."""
    after = None if calibration.after is None else interval(calibration.after)
    return [interval(calibration.before), after, temperatures_in_words(calibration.temperatures)]


def calibration_note(task: ProbeTask) -> str:
    """What a reader must know of the errors and of where temperatures come from."""
    several = "what the other folds predicted" if len(task.folds) > 1 else "nothing, and there is no temperature"
    text = (
        "A fold's temperature is never fitted on rows that it scores: it is fitted on the rows of the training part "
        f"that the probe's settings were chosen by, else on {several}. Votes of kNN have no temperature. The error is "
        "never below 0, so that chance alone makes it positive, and larger in resamples: where rows are few, an "
        "interval may lie above its value."
    )
    if task.protocol.regression_is_balanced:
        text += (
            " The regression counts all classes the same, so its probabilities are those of a set with as many of "
            "each; on a set of unequal classes it is the less calibrated."
        )
    return text
