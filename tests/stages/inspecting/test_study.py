"""Studies and reproductions in words: how far they have come, and what is damaged of them."""

import re
from pathlib import Path

import pytest
from support.inspected import begun_reproduction, begun_study

from pipeline.base.errors import ConfigError
from pipeline.public_sets.compare import Comparison
from pipeline.public_sets.comparison_file import write_comparisons
from pipeline.report.content import Interval
from stages.inspect import inspect_path


def test_a_study_says_how_far_it_has_come(tmp_path: Path) -> None:
    folder = begun_study(tmp_path / "study")
    shown = inspect_path(folder)
    for words in ("g2l ablate", "loss log-sum", "2 begun, 1 finished, 1 scored", "run g2l ablate again"):
        assert words in shown
    assert re.search(r"settings +2\n", shown)
    (folder / "table.csv").write_text("setting\n")
    assert re.search(r"tables +table\.csv$", inspect_path(folder), re.MULTILINE)
    (folder / "study.json").write_text('{"command": "ablate"}')
    with pytest.raises(ConfigError, match=r"study\.json: damaged"):
        inspect_path(folder)


def test_a_reproduction_says_what_came_out(tmp_path: Path) -> None:
    folder = begun_reproduction(tmp_path / "bach")
    assert "no: run g2l reproduce again" in inspect_path(folder)
    measured = Interval(0.5, 0.4, 0.6)
    write_comparisons(
        folder / "comparison.csv",
        [
            Comparison("bach", "accuracy", "ours", measured, None, 0.02, "not comparable", "no published value", ""),
            Comparison("bach", "accuracy", "", None, None, 0.02, "not comparable", "", ""),
        ],
    )
    shown = inspect_path(folder)
    assert re.search(r"set +bach\n", shown)
    assert "1 not comparable" in shown
    assert re.search(r"accuracy +ours +0\.5000 +- +not comparable", shown)
    (folder / "reproduce.toml").write_text("reproduce = 1")
    with pytest.raises(ConfigError, match=r"reproduce\.toml: damaged"):
        inspect_path(folder)
