"""Draw the cells of the report's tables: round numbers and intervals, mark the best, and choose the columns that fit a
printed page. `report.json` has every digit. Pure.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from numbers import Integral, Real
from typing import Any

from pipeline.report.content import Cell, Column, Interval, Table

PRINT_COLUMNS, PRINT_COMPARED = 8, 4
"""Columns beside the first that fit the width of a printed page, plain ones and those with differences; wider tables
are printed in parts. Our choice.
"""
MINUS, EN_DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
COARSE_WIDTH = 2
"""Intervals are shown with a digit less than their values, if each of a column is this many such steps wide and none
ends so close to 0 that it would seem to end there.
"""


@dataclass(frozen=True)
class Shown:
    """A cell as it is drawn: text; in smaller type its interval and its difference from the reference; and whether it
    is a number, missing or the best.
    """

    text: str = ""
    interval: str = ""
    difference: str = ""
    number: bool = False
    missing: bool = False
    best: bool = False


def shown_table(table: Table) -> dict[str, Any]:
    """A table as the template takes it: title, columns, rows of `Shown`, and the parts that it is printed in."""
    cells = [shown_column(column, [row[i] for row in table.rows]) for i, column in enumerate(table.columns)]
    return as_shown(table.title, table.columns, cells) | {"note": table.note}


def as_shown(
    title: str,
    columns: Sequence[Column],
    cells: Sequence[Sequence[Shown]],
    *,
    groups: Sequence[str] = (),
    under: Sequence[str] = (),
    print_columns: int = PRINT_COLUMNS,
) -> dict[str, Any]:
    """A table of cells by column, as the template takes it.

    Args:
        groups: a title above each column, the same for neighbours that belong together.
        under: words in smaller type below the name of each column.
    """
    count = len(columns)
    starts = range(1, max(count, 2), print_columns)
    parts = [[0, *range(start, min(start + print_columns, count))] for start in starts]
    return {
        "title": title,
        "columns": columns,
        "under": under or [""] * count,
        "bold": any(cell.best for column in cells for cell in column),
        "numeric": [any(cell.number and not cell.missing for cell in column) for column in cells],
        "rows": [list(row) for row in zip(*cells, strict=True)],
        "whole": _part(range(count), groups),
        "parts": [_part(part, groups) for part in parts] if len(parts) > 1 else [],
        "note": "",
    }


def _part(indices: Sequence[int], groups: Sequence[str]) -> dict[str, Any]:
    """Columns that stand beside each other, and the titles above all but the first, with how many they span."""
    runs = [(title, len(list(run))) for title, run in groupby(groups[i] for i in indices[1:])] if groups else []
    return {"indices": list(indices), "groups": runs}


def shown_column(column: Column, cells: Sequence[Cell]) -> list[Shown]:
    """The cells of a column as they are drawn. The best ones are marked, where there is something to compare."""
    digits = _interval_digits([cell for cell in cells if isinstance(cell, Interval)], column.digits)
    shown = [_shown(cell, column.digits, digits) for cell in cells]
    numbers = [_rounded(cell, column.digits) for cell in cells]
    finite = [number for number in numbers if number is not None]
    if column.better not in ("higher", "lower") or len(finite) < 2:
        return shown
    best = max(finite) if column.better == "higher" else min(finite)
    return [replace(cell, best=number == best) for cell, number in zip(shown, numbers, strict=True)]


def _interval_digits(intervals: Sequence[Interval], digits: int) -> int:
    """Digits of a column's intervals, whose values have `digits`: one less, where that says enough (`COARSE_WIDTH`)."""
    coarse = max(digits - 1, 0)
    widths = [each.high - each.low for each in intervals if math.isfinite(each.high - each.low)]
    ends = [end for each in intervals for end in (each.low, each.high) if math.isfinite(end)]
    hidden = any(round(end, coarse) == 0 != round(end, digits) for end in ends)
    return digits if hidden or any(width < COARSE_WIDTH * 10.0**-coarse for width in widths) else coarse


def _rounded(cell: Cell, digits: int) -> float | None:
    """The number of a cell as it is shown; `None` if it has none."""
    number = number_of(cell.value if isinstance(cell, Interval) else cell)
    return None if number is None else round(number, digits)


def number_of(value: object) -> int | float | None:
    """A number of any library as Python's; `None` for what is not a finite number."""
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and math.isfinite(value):
        return float(value)
    return None


def _shown(cell: Cell, digits: int, interval_digits: int) -> Shown:
    if isinstance(cell, str):
        return Shown(cell)
    if isinstance(cell, Interval):
        value = _shown(cell.value, digits, digits)
        if value.missing or not (math.isfinite(cell.low) and math.isfinite(cell.high)):
            return value
        low, high = (format_number(end, interval_digits) for end in (cell.low, cell.high))
        dash = " to " if low.startswith(MINUS) or high.startswith(MINUS) else EN_DASH
        return Shown(value.text, f"{low}{dash}{high}", number=True)
    number = number_of(cell)
    if number is None:
        return Shown(number=True, missing=True)
    return Shown(f"{number:,}" if isinstance(number, int) else format_number(number, digits), number=True)


def format_number(value: float, digits: int) -> str:
    """A rounded number with a true minus sign, and none before what is rounded to zero."""
    value = round(value, digits)
    return f"{MINUS if value < 0 else ''}{abs(value):,.{digits}f}"
