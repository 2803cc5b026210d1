"""What a report says of calibration."""

from dataclasses import replace

import numpy as np
from support.probes import make_task

from pipeline.evaluate.bootstrap import Draws
from pipeline.evaluate.probes.calibration import Calibration
from pipeline.evaluate.probes.calibration_report import calibration_cells, calibration_columns, calibration_note
from pipeline.evaluate.probes.protocols import probe_protocol
from pipeline.report.content import Interval

FLAT = Draws(0.2, np.full(100, 0.2))


def test_cells_stand_below_their_columns() -> None:
    cells = calibration_cells(Calibration(FLAT, Draws(0.1, np.full(100, 0.1)), (1.5, 2.0)))
    assert cells == [Interval(0.2, 0.2, 0.2), Interval(0.1, 0.1, 0.1), "1.5, 2"]
    assert calibration_cells(Calibration(FLAT)) == [Interval(0.2, 0.2, 0.2), None, None]
    assert not any(column.better for column in calibration_columns())  # rows of several probes: bold would mislead
    assert all(column.what for column in calibration_columns())


def test_the_note_says_what_temperatures_rest_on() -> None:
    task = make_task()
    assert "else on what the other folds predicted" in calibration_note(task)
    assert "counts all classes the same" in calibration_note(task)
    alone = replace(task, folds=task.folds[:1], protocol=probe_protocol("plain", "auroc", None))
    assert "else on nothing, and there is no temperature" in calibration_note(alone)
    assert "counts all classes the same" not in calibration_note(alone)
