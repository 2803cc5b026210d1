"""Cells of the report's tables: numbers with their intervals, the best of a column, and tables in parts."""

from math import nan

import pytest
from support.reports import DASH, MINUS

from pipeline.report.cells import Shown, as_shown, format_number, number_of, shown_column, shown_table
from pipeline.report.content import Column, Interval, Table


def test_numbers_are_written_with_their_intervals() -> None:
    cells = [Interval(0.8124, 0.7811, 0.8432), Interval(0.5, nan, nan), Interval(nan, 0.1, 0.2), None, nan, 7, "x"]
    shown = shown_column(Column("c"), cells)
    assert [(cell.text, cell.interval) for cell in shown] == [
        ("0.812", f"0.78{DASH}0.84"),
        ("0.500", ""),
        ("", ""),
        ("", ""),
        ("", ""),
        ("7", ""),
        ("x", ""),
    ]
    assert [cell.missing for cell in shown] == [False, False, True, True, True, False, False]


def test_intervals_get_all_digits_where_one_less_would_hide_them() -> None:
    narrow = [Interval(0.812, 0.808, 0.815), Interval(0.7, 0.6, 0.8)]
    assert [cell.interval for cell in shown_column(Column("c"), narrow)] == [f"0.808{DASH}0.815", f"0.600{DASH}0.800"]
    below = shown_column(Column("difference"), [Interval(-0.01, -0.05, 0.03)])[0]
    assert (below.text, below.interval) == (f"{MINUS}0.010", f"{MINUS}0.05 to 0.03")
    near = shown_column(Column("difference"), [Interval(-0.03, -0.05, -0.004)])[0]
    assert near.interval == f"{MINUS}0.050 to {MINUS}0.004"


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (1234.5678, 2, "1,234.57"),
        (0.0, 3, "0.000"),
        (-0.0, 3, "0.000"),
        (0.0002, 3, "0.000"),
        (-0.0002, 3, "0.000"),
        (-1e-17, 3, "0.000"),
        (-0.0006, 3, f"{MINUS}0.001"),
        (-1.5, 1, f"{MINUS}1.5"),
        (0.0006, 3, "0.001"),
        (1e9, 0, "1,000,000,000"),
    ],
)
def test_format_number(value: float, digits: int, text: str) -> None:
    assert format_number(value, digits) == text


def test_the_best_of_a_column_is_marked_with_all_that_look_like_it() -> None:
    cells = [Interval(0.9004, 0.8, 0.95), 0.9001, 0.4, None, nan]
    assert [cell.best for cell in shown_column(Column("c", better="higher"), cells)] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert [cell.best for cell in shown_column(Column("c", better="lower"), cells)] == [
        False,
        False,
        True,
        False,
        False,
    ]
    assert not any(cell.best for cell in shown_column(Column("c"), cells))
    assert not any(cell.best for cell in shown_column(Column("c", better="higher"), [0.9, None]))


def test_wide_tables_are_printed_in_parts_that_repeat_the_first_column() -> None:
    table = Table("t", [Column(str(i)) for i in range(20)], [list(range(20))])
    parts = [part["indices"] for part in shown_table(table)["parts"]]
    assert parts == [[0, *range(1, 9)], [0, *range(9, 17)], [0, 17, 18, 19]]
    assert shown_table(Table("t", [Column("a")], [["x"]]))["parts"] == []


def test_groups_span_their_columns_in_each_printed_part() -> None:
    columns = [Column(name) for name in "mabcd"]
    shown = as_shown("t", columns, [[Shown("x")]] * 5, groups=["", "A", "A", "A", "B"], print_columns=2)
    assert shown["whole"] == {"indices": [0, 1, 2, 3, 4], "groups": [("A", 3), ("B", 1)]}
    assert shown["parts"] == [
        {"indices": [0, 1, 2], "groups": [("A", 2)]},
        {"indices": [0, 3, 4], "groups": [("A", 1), ("B", 1)]},
    ]
    assert shown["under"] == [""] * 5


def test_a_column_of_dashes_is_not_numeric_and_bold_is_known() -> None:
    table = Table("t", [Column("m"), Column("x", better="higher"), Column("y")], [["a", 0.5, None], ["b", 0.6, nan]])
    shown = shown_table(table)
    assert shown["numeric"] == [False, True, False]
    assert shown["bold"]
    assert [[cell.text for cell in row] for row in shown["rows"]] == [["a", "0.500", ""], ["b", "0.600", ""]]


def test_what_is_a_number() -> None:
    assert [number_of(value) for value in (True, 3, 0.5, nan, "1", None)] == [1, 3, 0.5, None, None, None]
