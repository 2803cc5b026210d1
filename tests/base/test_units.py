"""Units: what is plausible, and how figures are put into words."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.base.units import (
    MAX_MPP,
    MIN_MPP,
    check_mpp,
    format_area,
    format_bytes,
    format_digits,
    format_seconds,
    format_share,
    magnification,
    resolution_note,
)


@settings(deadline=None)  # other work on the machine must not fail a test
@given(st.floats())
def test_only_plausible_mpp_passes(mpp: float) -> None:
    if MIN_MPP <= mpp <= MAX_MPP:
        assert check_mpp(mpp, "x") == mpp
    else:
        with pytest.raises(ValueError, match=r"implausible mpp .* from the label: must be 0\.05 to 5 um/px"):
            check_mpp(mpp, "the label")


@pytest.mark.parametrize("trained_mpp", [None, 0.0, 0.5, 0.5049, 0.4951])
def test_a_model_at_its_own_resolution_needs_no_note(trained_mpp: float | None) -> None:
    assert resolution_note("uni", trained_mpp, 0.5, "the plan is at") == ""


@pytest.mark.parametrize("trained_mpp", [0.25, 0.51, 0.49])
def test_another_resolution_is_noted(trained_mpp: float) -> None:
    words = f"note: uni was trained at {trained_mpp:g} um/px, the plan is at 0.5"
    assert resolution_note("uni", trained_mpp, 0.5, "the plan is at") == words


def test_magnification_is_not_snapped() -> None:
    assert [magnification(mpp) for mpp in (0.25, 0.5, 1.0)] == [40, 20, 10]
    assert magnification(0.2325) == pytest.approx(43.0108, abs=1e-4)


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.5, "1.00 kB"),
        (1000, "1.00 kB"),
        (9_994, "9.99 kB"),
        (9_995, "10.0 kB"),
        (99_949, "99.9 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (1_160_190_101_109, "1.16 TB"),
        (5e18, "5000 PB"),
    ],
)
def test_bytes(num_bytes: float, text: str) -> None:
    assert format_bytes(num_bytes) == text


@settings(deadline=None)
@given(st.floats(1, 9e17))
def test_bytes_say_the_number_to_three_digits(num_bytes: float) -> None:
    number, unit = format_bytes(num_bytes).split()
    factor = 1000.0 ** ["B", "kB", "MB", "GB", "TB", "PB"].index(unit)
    assert abs(float(number) * factor - num_bytes) <= max(0.00501 * num_bytes, 0.5)
    assert len(number.replace(".", "")) <= 3


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (7620, "2 h 07 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("mm2", "text"),
    [(0, "0.0"), (0.0421, "0.042"), (0.94, "0.94"), (0.97, "1.0"), (12.34, "12.3"), (1203.5, "1,203.5")],
)
def test_areas(mm2: float, text: str) -> None:
    assert format_area(mm2) == text


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0, 3, "0"), (0.0421, 3, "0.0421"), (5.3, 3, "5.3"), (999.4, 3, "999"), (1234.6, 3, "1,235"), (120, 2, "120")],
)
def test_numbers_have_no_exponent(value: float, digits: int, text: str) -> None:
    assert format_digits(value, digits) == text


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [
        *((0.268, 0, "27%"), (1.0, 0, "100%"), (2.5, 0, "250%"), (0.0194, 0, "1.9%"), (0.00053, 0, "0.053%")),
        *((0.125, 1, "12.5%"), (0.0194, 1, "1.9%"), (0.00053, 1, "0.053%"), (0.0, 1, "0.0%")),
    ],
)
def test_shares(share: float, digits: int, text: str) -> None:
    assert format_share(share, digits) == text
