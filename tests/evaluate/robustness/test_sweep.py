"""A sweep: which rows are drawn, against probes fitted by hand, and what a planted shortcut costs."""

from pathlib import Path

import numpy as np
import pytest
from croma import apd, nipd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from support.processes import said_with_threads
from support.sweep_sets import grid, index_rows, planned, planted, published_cases

from pipeline.evaluate.bootstrap import GroupResamples, interval
from pipeline.evaluate.robustness.data import IndexRows
from pipeline.evaluate.robustness.sweep import DrawnRows, SweptModel, draw_rows, reduced, sweep_model, sweep_once
from pipeline.evaluate.robustness.sweep_plan import PATHOROB_SCHEDULE, SweepPlan

MIXED = [*grid(9, 5), *[(f"both{a}{i}", a, b, 6) for a in "ns" for i in range(6) for b in "ab"]]
"""Cases of one class, and of both."""


def resamples(repetitions: int, number: int = 200) -> GroupResamples:
    return GroupResamples(np.array([f"{i:03}" for i in range(repetitions)]), number, 0)


def swept(rows: IndexRows, plan: SweepPlan, of_class: float, of_center: float, repetitions: int = 6) -> SweptModel:
    values = planted(rows, of_class=of_class, of_center=of_center)
    return sweep_model("m", values, plan, resamples(repetitions), 0, lambda: None)


def parts(plan: SweepPlan, rows: DrawnRows, step: int) -> tuple[list[int], list[int], list[int]]:
    """Places of the training, validation and test rows, by PathoROB's rules."""
    train: list[int] = []
    validation: list[int] = []
    test: list[int] = []
    split, most = plan.splits[step]
    for i, j, number in split:
        cell = np.flatnonzero((rows.centers == i) & (rows.labels == j)).tolist()
        train += cell[:number]
        validation += cell[number : number + number // most]
        test += cell[(most + 1) * plan.patches :]
    return train, validation, test


@pytest.mark.parametrize("step", [0, 1, -1])
def test_no_case_is_trained_and_tested_on(step: int) -> None:
    rows = index_rows(MIXED)
    plan = planned(rows)
    tested_on = set()
    for repetition in range(30):
        drawn = draw_rows(plan, 0, repetition)
        train, validation, test = ({*rows.slides[drawn.images[part]].tolist()} for part in parts(plan, drawn, step))
        assert not test & (train | validation)
        tested_on |= test
        assert len(set(drawn.images.tolist())) == len(drawn.images)
        assert np.array_equal(rows.centers[drawn.images], np.array(plan.centers)[drawn.centers])
        assert np.array_equal(rows.classes[drawn.images], np.array(plan.classes)[drawn.labels])
    assert len(tested_on) > 20


@pytest.mark.parametrize("name", ["pathorob-tcga", "pathorob-tolkach-esca"])
def test_pathorobs_cases_are_all_used_and_kept_apart(name: str) -> None:
    rows = index_rows(published_cases(name))
    plan = planned(rows, PATHOROB_SCHEDULE)
    drawn = draw_rows(plan, 3, 1)
    assert sorted(drawn.images.tolist()) == rows.images.tolist()
    for step in range(len(plan.splits)):
        train, validation, test = ({*rows.slides[drawn.images[part]].tolist()} for part in parts(plan, drawn, step))
        assert not test & (train | validation)
        assert len(parts(plan, drawn, step)[2]) == len(plan.centers) * len(plan.classes) * plan.tested * plan.patches


def test_draws_depend_on_seed_and_repetition_only() -> None:
    rows = index_rows(MIXED)
    order = np.random.default_rng(1).permutation(len(rows.images))
    shuffled = IndexRows(*(column[order] for column in (rows.images, rows.slides, rows.classes, rows.centers)), None)
    first, second = draw_rows(planned(rows), 0, 4), draw_rows(planned(shuffled), 0, 4)
    assert np.array_equal(first.images, second.images)
    for other in (draw_rows(planned(rows), 1, 4), draw_rows(planned(rows), 0, 5)):
        assert not np.array_equal(first.images, other.images)


def by_hand(values: np.ndarray, plan: SweepPlan, rows: DrawnRows, step: int) -> float:
    """PathoROB's probe: C of 15 by balanced accuracy on validation, the first of the best; then fitted again."""
    features, (train, validation, test) = values[rows.images].astype(np.float64), parts(plan, rows, step)
    best, best_score = 0.0, -1.0
    for c in 10 ** np.linspace(-8, 4, 15):
        model = LogisticRegression(C=c, random_state=0).fit(features[train], rows.labels[train])
        score = balanced_accuracy_score(rows.labels[validation], model.predict(features[validation]))
        if score > best_score:
            best, best_score = c, score
    model = LogisticRegression(C=best).fit(features[train], rows.labels[train])
    return float(balanced_accuracy_score(rows.labels[test], model.predict(features[test])))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_accuracies_are_those_of_probes_fitted_by_hand() -> None:
    rows = index_rows(MIXED)
    plan = planned(rows)
    values = planted(rows, of_class=1, of_center=2)
    for repetition in range(2):
        drawn = draw_rows(plan, 0, repetition)
        expected = [by_hand(values, plan, drawn, step) for step in range(len(plan.splits))]
        assert sweep_once(values, plan, drawn).tolist() == expected


@pytest.mark.slow
def test_apd_and_nipd_are_cromas_of_the_accuracies() -> None:
    rows = index_rows(grid(9, 3))
    plan = planned(rows)
    model = swept(rows, plan, 2, 2)
    accuracies = model.accuracies
    assert model.apd is not None
    assert model.nipd is not None
    assert model.apd.value == pytest.approx(apd(accuracies), abs=1e-12)
    assert model.apd.value == pytest.approx((accuracies[1:] / accuracies[0]).mean() - 1, abs=1e-12)
    assert model.nipd.value == nipd(accuracies, plan.strengths, 0.5)
    mean = accuracies.mean(1)
    area = np.trapezoid((mean - mean[0]) / (mean[0] - 0.5), plan.strengths)
    assert model.nipd.value == pytest.approx(area, abs=1e-12)
    for draw in range(5):
        counts = resamples(6).counts[draw]
        drawn = np.repeat(accuracies, counts, axis=1)
        assert model.apd.draws[draw] == pytest.approx(apd(drawn), abs=1e-12)
        assert model.nipd.draws[draw] == pytest.approx(nipd(drawn, plan.strengths, 0.5), abs=1e-12)


@pytest.mark.slow
def test_a_planted_shortcut_is_found_and_none_is_not() -> None:
    rows = index_rows(grid(12, 8))
    plan = planned(rows)
    strong, none = swept(rows, plan, 2.5, 8, 8), swept(rows, plan, 2.5, 0, 8)
    for shortcut, clean in ((strong.apd, none.apd), (strong.nipd, none.nipd)):
        assert shortcut is not None
        assert clean is not None
        assert interval(shortcut).high < -0.05
        assert abs(clean.value) < 0.04
        assert interval(clean).low - 0.02 < 0 < interval(clean).high + 0.02
    assert strong.accuracies[-1].mean() < strong.accuracies[0].mean() - 0.2
    assert none.accuracies.mean(1).min() > 0.8


def test_accuracies_from_which_nothing_follows_are_notes() -> None:
    plan = planned(index_rows(grid(9, 3)))
    chance = np.full((len(plan.splits), 6), 0.5)
    model = reduced("m", chance, plan, resamples(6))
    assert model.apd is not None
    assert model.apd.value == 0
    assert model.nipd is None
    assert model.notes[0].startswith("no nIPD: the balanced baseline must score above chance")
    chance[0, 2] = 0
    model = reduced("m", chance, plan, resamples(6))
    assert (model.apd, [note[:7] for note in model.notes]) == (None, ["no APD:", "no nIPD"])


def test_few_repetitions_have_no_interval() -> None:
    plan = planned(index_rows(grid(9, 3)))
    accuracies = np.random.default_rng(0).uniform(0.6, 1, size=(len(plan.splits), 4))
    model = reduced("m", accuracies, plan, resamples(4))
    for draws in (model.apd, model.nipd):
        assert draws is not None
        assert np.isnan(interval(draws).low)


@pytest.mark.slow
def test_warnings_of_the_probes_become_notes() -> None:
    """Warnings are errors in these tests: that none escapes is tested as well."""
    rows = index_rows(grid(7, 20))
    plan = planned(rows)
    hard = planted(rows, of_class=0.5, of_center=0) * np.geomspace(1e-3, 1e4, 8)
    model = sweep_model("m", hard.astype(np.float32), plan, resamples(2), 0, lambda: None)
    assert any("fits stopped at scikit-learn's limit" in note and "of 96 fits" in note for note in model.notes)


@pytest.mark.slow
def test_it_is_the_same_for_any_order_of_the_table() -> None:
    rows = index_rows(MIXED)
    order = np.random.default_rng(1).permutation(len(rows.images))
    shuffled = IndexRows(*(column[order] for column in (rows.images, rows.slides, rows.classes, rows.centers)), None)
    values = planted(rows, of_class=1, of_center=1)
    one, other = (sweep_model("m", values, planned(of), resamples(2), 0, lambda: None) for of in (rows, shuffled))
    assert np.array_equal(one.accuracies, other.accuracies)
    assert one.apd is not None
    assert other.apd is not None
    assert one.apd.value == other.apd.value


def print_sweep() -> None:
    """Accuracies and both figures of one sweep, for another process to compare with."""
    rows = index_rows(grid(8, 30))
    values = planted(rows, of_class=1, of_center=3) @ np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    model = sweep_model("m", values, planned(rows), resamples(2, 100), 0, lambda: None)
    assert model.apd is not None
    assert model.nipd is not None
    print(model.accuracies.tolist(), model.apd.value, model.nipd.value)


@pytest.mark.slow
def test_it_has_the_same_digits_on_any_number_of_threads(capsys: pytest.CaptureFixture[str]) -> None:
    """On those of this process, and on four of another."""
    print_sweep()
    here = capsys.readouterr().out
    assert "[[" in here
    assert said_with_threads(4, "import test_sweep as t; t.print_sweep()", Path(__file__).parent) == here
