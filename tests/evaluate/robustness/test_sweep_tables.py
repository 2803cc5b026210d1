"""Tables and notes of a sweep."""

import json

import numpy as np
import pytest
from support.sweep_sets import grid, index_rows, planned, published_cases

from pipeline.evaluate.bootstrap import GroupResamples
from pipeline.evaluate.robustness.sweep import SweptModel, reduced
from pipeline.evaluate.robustness.sweep_plan import PATHOROB_SCHEDULE, SweepPlan
from pipeline.evaluate.robustness.sweep_tables import sweep_data, sweep_notes, sweep_tables
from pipeline.report.content import Interval

RESAMPLES = GroupResamples(np.array([f"{i:03}" for i in range(20)]), 200, 0)


@pytest.fixture(scope="module")
def plan() -> SweepPlan:
    return planned(index_rows(grid(9, 5)))


def model(label: str, plan: SweepPlan, lost: float) -> SweptModel:
    """Accuracy of about 0.9 when balanced, and so much less at V = 1."""
    noise = np.random.default_rng(0).uniform(-0.02, 0.02, size=(len(plan.splits), 20))
    return reduced(label, 0.9 + noise - lost * np.array(plan.strengths)[:, None], plan, RESAMPLES, ("a warning.",))


def test_apd_and_nipd_with_differences_from_the_reference(plan: SweepPlan) -> None:
    models = [model("robust", plan, 0), model("fragile", plan, 0.3)]
    sweep, accuracies = sweep_tables(plan, models, "robust")
    assert sweep.title == "Sweep of class and centre, G2L's own schedule, a, b from n, s"
    robust, fragile = sweep.rows
    assert [robust[2], robust[4]] == [None, None]
    for cell in fragile[1:]:
        assert isinstance(cell, Interval)
        assert cell.low <= cell.value <= cell.high < 0
    drop, less = fragile[1], fragile[2]
    assert isinstance(drop, Interval)
    assert isinstance(less, Interval)
    assert isinstance(robust[1], Interval)
    assert less.value == pytest.approx(drop.value - robust[1].value)
    assert "They are no sampling error" in sweep.note
    assert [column.name for column in accuracies.columns] == ["model", "V = 0.00", "V = 0.33", "V = 0.67", "V = 1.00"]
    assert accuracies.rows[1][1] == pytest.approx(0.9, abs=0.01)
    assert accuracies.rows[1][4] == pytest.approx(0.6, abs=0.01)


def test_what_does_not_exist_is_a_dash(plan: SweepPlan) -> None:
    chance = reduced("chance", np.full((len(plan.splits), 20), 0.5), plan, RESAMPLES)
    rows = sweep_tables(plan, [model("m", plan, 0), chance], "m")[0].rows
    assert rows[1][3:] == [None, None]
    assert sweep_tables(plan, [chance], "elsewhere")[0].rows[0][2] is None


def test_the_schedule_and_what_can_be_compared_are_said(plan: SweepPlan) -> None:
    first, second, *more = sweep_notes(plan, [model("m", plan, 0)], 20)
    assert "4 steps with V = 0.00, 0.33, 0.67, 1.00; 20 repetitions; 5 patches of a case" in first
    assert "At V = 1: n, a: 6; n, b: 0; s, a: 0; s, b: 6." in first
    assert "compare APD and nIPD within this report only" in second
    assert more == ["m: a warning."]
    published = planned(index_rows(published_cases("pathorob-tcga")), PATHOROB_SCHEDULE)
    notes = sweep_notes(published, [], 4)
    assert "PathoROB's schedule of pathorob-tcga" in notes[0]
    assert "its draws are others" in notes[1]
    assert not any("within this report only" in note for note in notes)
    assert notes[2] == "Intervals need at least 5 repetitions; with 4 none is given."


def test_every_accuracy_is_in_the_json(plan: SweepPlan) -> None:
    one = model("m", plan, 0.1)
    data = json.loads(json.dumps(sweep_data(plan, [one]), allow_nan=False))
    assert np.array_equal(data["balanced accuracy (step, repetition)"]["m"], one.accuracies)
    assert data["cramers_v"] == list(plan.strengths)
    assert data["training patches (centre, class, patches)"][-1] == [[0, 0, 30], [0, 1, 0], [1, 0, 0], [1, 1, 30]]
