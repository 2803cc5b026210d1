"""The plot of a run: drawn whatever the run holds and its teachers are called."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from pipeline.training.curves import FIGURES, draw_curves, moving_mean


@pytest.mark.slow
@pytest.mark.parametrize("name", ["$\\frac{1}{0}$", "$x", "a\nb", "x" * 5000, "\x1b[31mred"])
def test_teachers_of_any_name_are_drawn(tmp_path: Path, name: str) -> None:
    lines: list[dict[str, Any]] = [{"kind": "step", "step": 1, "loss": 1.0, "lr": 0.1, "grad_norm": 1.0}]
    for teacher in (name, "other"):
        val = {"kind": "val", "step": 1, "loss": 1.0, "rows": 3, "teacher": teacher}
        lines.append(val | dict.fromkeys(FIGURES, 0.5))
    draw_curves(lines, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40), st.integers(1, 50))
def test_the_moving_mean_is_that_of_the_values_before(values: list[float], count: int) -> None:
    expected = [np.mean(values[max(i + 1 - count, 0) : i + 1]) for i in range(len(values))]
    np.testing.assert_allclose(moving_mean(values, count), expected, rtol=1e-9, atol=1e-9)


def test_a_moving_mean_over_one_value_is_the_values() -> None:
    np.testing.assert_allclose(moving_mean([3.0, -1.0, 2.5], 1), [3.0, -1.0, 2.5])
    assert moving_mean([], 3).shape == (0,)


def run_lines(steps: int, *epochs: int, **figures: float) -> list[dict[str, Any]]:
    """Lines of a run, held out at these steps."""
    lines: list[dict[str, Any]] = [
        {"kind": "step", "step": i + 1, "loss": 5 - i / steps, "lr": 1e-3, "grad_norm": 1.0} for i in range(steps)
    ]
    return lines + [
        {"kind": "val", "step": step, "epoch": i, "loss": 4.0, "rows": 9, **figures} for i, step in enumerate(epochs)
    ]


def drawn(lines: list[dict[str, Any]], path: Path) -> np.ndarray:
    draw_curves(lines, path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def test_figures_are_called_as_in_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    real = Figure

    def figure(*arguments: Any, **options: Any) -> Any:
        made.append(real(*arguments, **options))
        return made[-1]

    monkeypatch.setattr("matplotlib.figure.Figure", figure)
    names = ("cka", "r2_scaled", "correlation_median")
    draw_curves(run_lines(4, 0, 4, **dict.fromkeys(names, 0.5)), tmp_path / "c.png")
    shown = [text.get_text() for text in made[0].axes[-1].get_legend().get_texts()]
    assert sorted(shown) == sorted(FIGURES[name] for name in names)


@pytest.mark.slow
def test_held_out_figures_change_the_right_half_only(tmp_path: Path) -> None:
    low, high = (drawn(run_lines(40, 0, 20, 40, cka=value), tmp_path / "c.png") for value in (0.2, 0.8))
    assert low.shape == high.shape
    differs = (low != high).any(axis=(0, 2))
    assert differs.any()
    assert differs.nonzero()[0].min() > low.shape[1] // 2


@pytest.mark.parametrize(
    "lines",
    [
        run_lines(3),  # nothing held out
        run_lines(3, 0, 3),  # held out, with no figure but the loss
        run_lines(1, 0, cosine=0.5),  # one figure, before the first epoch
        run_lines(0, 0, cka=0.5),  # before the first step
        run_lines(50, 0, 25, 50, r2_linear=-1e6, cosine=0.5),  # of a bad map
    ],
    ids=["no rows held out", "only the loss", "one point", "no step", "far below zero"],
)
def test_a_run_of_any_state_is_drawn(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    assert (drawn(lines, tmp_path / "c.png") < 128).any()


def test_a_plot_that_is_there_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    path.write_bytes(b"an earlier plot")
    drawn(run_lines(5, 0, 5, cka=0.5), path)
    assert list(tmp_path.iterdir()) == [path]
    before = path.read_bytes()
    with pytest.raises(KeyError, match="lr"):  # lines of no run
        draw_curves([{"kind": "step", "step": 1, "loss": 1.0}], path)
    assert path.read_bytes() == before
