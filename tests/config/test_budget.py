"""Budgets: what is written in the usual ways is understood exactly, and all else is refused in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.budget import BYTES, SECONDS, Budget, parse_budget


@pytest.mark.parametrize(
    ("text", "kind", "amount", "kept"),
    [
        ("500000", "patches", 500_000, "500000"),
        ("500,000", "patches", 500_000, "500000"),
        ("1_000_000", "patches", 1_000_000, "1000000"),
        ("200GB", "bytes", 200 * 10**9, "200GB"),
        (" 200 GB ", "bytes", 200 * 10**9, "200GB"),
        ("200gb", "bytes", 200 * 10**9, "200GB"),
        ("1.5TB", "bytes", 15 * 10**11, "1.5TB"),
        ("800GiB", "bytes", 800 * 2**30, "800GiB"),
        ("0.1GB", "bytes", 10**8, "0.1GB"),
        ("12h", "seconds", 43_200, "12h"),
        ("90 min", "seconds", 5_400, "90min"),
        ("2d", "seconds", 172_800, "2d"),
        ("1.5h", "seconds", 5_400, "1.5h"),
    ],
)
def test_budgets_are_understood(text: str, kind: str, amount: int, kept: str) -> None:
    assert parse_budget(text) == Budget(kept, kind, amount)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "should be a number of patches"),
        ("GB", "should be a number of patches"),
        ("-5", "should be a number of patches"),
        ("1e6", "should be a number of patches"),
        ("12h30", "should be a number of patches"),
        ("1,00", "should be a number of patches"),
        ("²GB", "should be a number of patches"),
        ("nan", "should be a number of patches"),
        ("200Gb", "has the unit 'Gb'"),
        ("200kB", "has the unit 'kB'"),
        ("5m", "has the unit 'm'"),
        ("500k", "has the unit 'k'"),
        ("0", "at least 1 patch: a number of patches"),
        ("0GB", "at least 1 byte: a number of patches .*200GB"),
        ("0h", "at least 1 second: a number of patches .*12h"),
        ("1.5", "whole number of patches"),
        ("9999999PB", "too much"),
    ],
)
def test_what_is_no_budget_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_budget(text)


@given(st.integers(1, 10**5), st.sampled_from(["", *BYTES, *SECONDS]))
def test_a_budget_that_is_kept_is_read_again(number: int, unit: str) -> None:
    budget = parse_budget(f"{number:,} {unit}")
    assert parse_budget(budget.text) == budget
