"""The plot of a run: drawn whatever the run holds and its teachers are called."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.training.curves import FIGURES, draw_curves


@pytest.mark.parametrize("name", ["$\\frac{1}{0}$", "$x", "a\nb", "x" * 5000, "\x1b[31mred"])
def test_teachers_of_any_name_are_drawn(tmp_path: Path, name: str) -> None:
    lines: list[dict[str, Any]] = [{"kind": "step", "step": 1, "loss": 1.0, "lr": 0.1, "grad_norm": 1.0}]
    for teacher in (name, "other"):
        val = {"kind": "val", "step": 1, "loss": 1.0, "rows": 3, "teacher": teacher}
        lines.append(val | dict.fromkeys(FIGURES, 0.5))
    draw_curves(lines, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000
