"""What a report says of the regularisation of linear probes."""

import numpy as np
import pytest

from pipeline.evaluate.probes.probe_choice import Choice, ProbeProtocol
from pipeline.evaluate.probes.probe_report import (
    PROBE_DATA,
    Curves,
    curve_data,
    curve_tables,
    curves_to_draw,
    mean_curve,
    strength_column,
)

PROTOCOL = ProbeProtocol((0.1, 1.0), "balanced_accuracy")
CHOSEN = (Choice(1.0, np.array([0.2, 0.4])), Choice(0.1, np.array([0.6, 0.5])))
UNCHOSEN = (Choice(0.01, np.full(2, np.nan)), Choice(0.01, np.full(2, np.nan)))


def test_the_table_has_the_mean_curve_and_what_was_chosen() -> None:
    (table,) = curve_tables({"teacher": CHOSEN, "student": UNCHOSEN}, PROTOCOL)
    assert [column.name for column in table.columns] == ["model", "C = 0.1", "C = 1", "chosen"]
    (row,) = table.rows
    assert row[0] == "teacher"
    assert row[1:3] == pytest.approx([0.4, 0.45])
    assert row[3] == "1, 0.1"
    assert table.note.startswith("Balanced accuracy on the rows that C is chosen by")


def test_folds_without_a_choice_are_not_averaged() -> None:
    assert mean_curve((*CHOSEN[:1], *UNCHOSEN)) == pytest.approx([0.2, 0.4])


def test_where_nothing_was_chosen_there_is_no_curve() -> None:
    assert curve_tables({"teacher": UNCHOSEN}, PROTOCOL) == []
    fixed = ProbeProtocol((0.3,))
    data = curve_data({"teacher": (Choice(0.3, np.full(1, np.nan)),)}, fixed)
    assert data["chosen_by"] == "fixed"
    assert data["models"]["teacher"] == {"chosen": [0.3], "curve": [None], "curve_by_fold": [[None]]}
    assert curves_to_draw({PROBE_DATA: data}) is None
    assert curves_to_draw({}) is None
    assert "fixed" in strength_column(fixed).what


def test_the_data_have_every_fold_and_can_be_drawn() -> None:
    data = curve_data({"teacher": CHOSEN}, PROTOCOL)
    assert data["models"]["teacher"]["curve_by_fold"] == [[0.2, 0.4], [0.6, 0.5]]
    line = {0.1: pytest.approx(0.4), 1.0: pytest.approx(0.45)}
    assert curves_to_draw({PROBE_DATA: data}) == Curves({"teacher": line}, "balanced accuracy")
