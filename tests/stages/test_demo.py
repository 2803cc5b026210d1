"""The demo's figures and pictures; .ci/run runs the demo itself, which fails when its figures do not improve."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.training.held_out import ONLY
from stages.demo import MUST_GAIN, Stopwatch, missed_gains, neighbours, overlaps, spread_out

BEFORE = dict.fromkeys(MUST_GAIN, 0.0)


@pytest.mark.parametrize("short", sorted(MUST_GAIN))
def test_the_demo_fails_for_each_figure_that_gains_too_little(short: str) -> None:
    enough = {name: gain + 0.01 for name, gain in MUST_GAIN.items()}
    good = SimpleNamespace(held_out={ONLY: (BEFORE, enough)})
    assert missed_gains(good) == []  # type: ignore[arg-type]
    for value in (0.0, float("nan"), MUST_GAIN[short] - 0.001):
        bad = SimpleNamespace(held_out={ONLY: (BEFORE, enough | {short: value})})
        assert [line.split()[0] for line in missed_gains(bad)] == [short]  # type: ignore[arg-type]


def test_the_demo_fails_when_nothing_is_held_out() -> None:
    assert missed_gains(SimpleNamespace(held_out={}))  # type: ignore[arg-type]


def test_neighbours_overlap_neither_the_query_nor_each_other() -> None:
    rng = np.random.default_rng(1)
    coords = rng.integers(0, 2000, (300, 2))
    chosen = neighbours(rng.normal(size=(300, 16)).astype(np.float32), coords, 224.0, 7)
    assert len(chosen) == 4
    together = [7, *chosen]
    for i in together:
        assert [j for j in together if overlaps(coords, 224.0, i)[j]] == [i]


def test_queries_are_spread_out() -> None:
    coords = np.array([[0, 0], [1, 0], [2, 1], [1000, 0], [0, 1000]])
    assert set(spread_out(coords, 10.0, 3)) == {0, 3, 4}


def test_stopwatch_keeps_what_an_earlier_run_took(tmp_path: Path) -> None:
    Stopwatch(tmp_path / "s.json").run("plan", lambda: 1)
    again = Stopwatch(tmp_path / "s.json")
    before = again.seconds["plan"]
    again.run("plan", lambda: 0, lambda result: result > 0)
    assert Stopwatch(tmp_path / "s.json").seconds == {"plan": before}
