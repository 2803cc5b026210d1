"""The early stop against a plain count over all losses; continued at any step; its line of the metrics."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.training.early_stop import EarlyStop, Reading, Stop

READINGS: tuple[Reading, ...] = ("consecutive", "total")
ROUNDED = st.lists(st.integers(-5, 5), max_size=80)
"""Losses with many ties, which do not exceed a mean."""


def stops_at(losses: list[float], reading: str, window: int, patience: int) -> int | None:
    """The step that a run of these losses ends after, counted anew from the start for every step."""
    above = [step for step in range(window, len(losses)) if losses[step] > sum(losses[step - window : step]) / window]
    for step in range(len(losses)):
        row = 0
        while reading == "consecutive" and step - row in above:
            row += 1
        times = row if reading == "consecutive" else sum(each <= step for each in above)
        if times > patience:
            return step + 1
    return None


def watch(stop: EarlyStop, losses: list[float], first: int = 0) -> int | None:
    """Show the losses from the step `first` on; returns the step that the run ends after."""
    for step in range(first, len(losses)):
        if stop.see(step + 1, 0, losses[step]):
            return step + 1
    return None


@settings(max_examples=150, deadline=None)
@given(losses=ROUNDED, reading=st.sampled_from(READINGS), window=st.integers(1, 12), patience=st.integers(0, 6))
def test_it_ends_where_a_plain_count_ends(losses: list[int], reading: Reading, window: int, patience: int) -> None:
    values = [float(loss) for loss in losses]
    assert watch(EarlyStop(reading, window, patience), values) == stops_at(values, reading, window, patience)


@settings(max_examples=60, deadline=None)
@given(losses=ROUNDED, reading=st.sampled_from(READINGS), at=st.integers(0, 80))
def test_continued_from_a_state_it_ends_after_the_same_step(losses: list[int], reading: Reading, at: int) -> None:
    values = [loss / 3 for loss in losses]
    whole = EarlyStop(reading, 7, 3)
    expected = watch(whole, values)
    first = min(at, len(values), expected or len(values))
    begun, continued = EarlyStop(reading, 7, 3), EarlyStop(reading, 7, 3)
    watch(begun, values[:first])
    continued.load_state(begun.state())
    ended = continued.stop.step if continued.stop else watch(continued, values, first)
    assert ended == expected
    assert continued.state() == whole.state()


def test_the_papers_numbers() -> None:
    """The first 100 steps are not compared; 10 above the mean pass, the 11th ends the run."""
    losses = [1.0] * 100 + [2.0] * 11
    for reading in READINGS:
        stop = EarlyStop(reading, 100, 10)
        assert watch(stop, losses[:110]) is None
        assert stop.see(111, 3, 2.0)
        assert stop.stop == Stop(111, 3, 2.0, pytest.approx(1.1), 11)
    broken = [1.0] * 100 + [2.0] * 10 + [0.5] + [2.0] * 10
    assert watch(EarlyStop("consecutive", 100, 10), broken) is None
    assert watch(EarlyStop("total", 100, 10), broken) == 112
    assert watch(EarlyStop("total", 100, 0), [5.0] * 100 + [5.0] * 50) is None  # equal is not above


def test_a_noisy_loss_ends_at_once_if_all_steps_count() -> None:
    """Why the recipe takes consecutive steps (decision 0044): it falls by a tenth of its noise in 100 steps."""
    draws = np.random.default_rng(0)
    losses = (10 - 0.001 * np.arange(2000) + draws.normal(0, 1, 2000)).tolist()
    ended = watch(EarlyStop("total", 100, 10), losses)
    assert ended is not None
    assert ended < 150
    assert watch(EarlyStop("consecutive", 100, 10), losses[:500]) is None


def test_its_line_is_read_again() -> None:
    stop = Stop(111, 3, 2.5, 1.25, 11)
    assert stop.line() == {"kind": "stop", "step": 111, "epoch": 3, "loss": 2.5, "mean": 1.25, "times": 11}
    assert Stop.from_line(stop.line()) == stop
    for words in (stop.words(), stop.words(1000)):
        assert "11 losses" in words
    assert "after step 111 of 1,000:" in stop.words(1000)


@pytest.mark.parametrize("change", [{"step": None}, {"loss": "much"}, {"times": []}])
def test_a_damaged_line_is_an_error(change: dict[str, object]) -> None:
    line = Stop(1, 0, 2.0, 1.0, 1).line()
    with pytest.raises((KeyError, TypeError, ValueError)):
        Stop.from_line(line | change)
    with pytest.raises(KeyError):
        Stop.from_line({name: value for name, value in line.items() if name not in change})
