"""Find the values of a report that published ones are compared with: which table and column holds which metric."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.public_sets.whole import num_failures
from pipeline.report.content import Cell, Interval, Report, Table


@dataclass(frozen=True)
class ReportPlace:
    """Where a report has a metric.

    Attributes:
        section: key of the section.
        table: the table's title, as a regular expression.
        column: name of the column, in small letters.
        row: words that the row must have in its second cell, such as the predictor; "" for none.
        is_learnt: whether a classifier gives it, so that it depends on the protocol.
    """

    section: str
    table: str
    column: str
    row: str = ""
    is_learnt: bool = False


LEFT_OUT = "left out"
"""The line of the ratio without the patch's own slide. Which one de Jong et al. have is not known; their later index,
that of PathoROB, leaves it out.
"""

MEASURED: Mapping[str, ReportPlace] = {
    "kNN accuracy": ReportPlace("patches", "kNN, .*", "accuracy", is_learnt=True),
    "kNN balanced accuracy": ReportPlace("patches", "kNN, .*", "balanced accuracy", is_learnt=True),
    "linear probe AUROC": ReportPlace("patches", "Linear probe", "auroc", is_learnt=True),
    "linear probe balanced accuracy": ReportPlace("patches", "Linear probe", "balanced accuracy", is_learnt=True),
    "CKA with the teacher": ReportPlace("patches", "Linear CKA with .*", "cka, plain"),
    "robustness index": ReportPlace("robustness", "Robustness index", "index"),
    **{
        f"class to centre, k = {k}": ReportPlace("robustness", "Same class over same centre", f"k = {k}", LEFT_OUT)
        for k in (3, 5, 10, 20)
    },
    "slides, AUROC of the mean": ReportPlace("slides", ".*, predicted", "auroc", "mean embedding", is_learnt=True),
    "slides, kNN accuracy": ReportPlace("slides", ".*, predicted", "accuracy", "knn", is_learnt=True),
}
"""Metrics that a recipe and `published.csv` may name. A report that lacks one says so as "not measured"."""


def measured_values(report: Report, metric: str) -> dict[str, Interval]:
    """A metric's value of each model that the report has it for, by label."""
    place = MEASURED[metric]
    for section in report.sections:
        for table in section.tables if section.key == place.section else ():
            if values := _values(table, place):
                return values
    return {}


def feature_labels(report: Report) -> list[str]:
    """Labels of the feature sets of a slide benchmark, in their order."""
    tables = [table for section in report.sections if section.key == "slides" for table in section.tables]
    return [str(row[0]) for table in tables if table.title == "Feature sets" for row in table.rows]


def num_failed(report: Report) -> int:
    """How many things the report leaves out because they failed."""
    return sum(num_failures(section.exclusions) for section in report.sections)


def milliseconds(report: Report) -> dict[str, float] | None:
    """The time of a patch by label, milliseconds; `None` if it was not measured."""
    return next((section.ms_per_patch for section in report.sections if section.ms_per_patch), None)


def _values(table: Table, place: ReportPlace) -> dict[str, Interval]:
    """A column's values by the rows' first cells; empty if this is not the table."""
    names = [column.name.lower() for column in table.columns]
    if not re.fullmatch(place.table, table.title) or place.column not in names:
        return {}
    index = names.index(place.column)
    chosen = [row for row in table.rows if not place.row or place.row in str(row[1]).lower()]
    cells = {str(row[0]): _as_interval(row[index]) for row in chosen}
    return {label: cell for label, cell in cells.items() if cell is not None}


def _as_interval(cell: Cell) -> Interval | None:
    """A number of a table, with or without an interval; `None` for what is no number."""
    if isinstance(cell, Interval):
        return cell
    return Interval(float(cell), float("nan"), float("nan")) if isinstance(cell, int | float) else None
