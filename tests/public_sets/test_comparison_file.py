"""`comparison.csv` reads back as it was written."""

from math import nan
from pathlib import Path

import pytest

from pipeline.base.errors import BenchmarkError
from pipeline.public_sets.compare import PASS, Comparison
from pipeline.public_sets.comparison_file import COMPARISON_FILE, read_comparisons, write_comparisons
from pipeline.public_sets.published import PublishedValue
from pipeline.report.content import Interval

PUBLISHED = PublishedValue("idc", "uni2-h", "kNN accuracy", 0.9165, None, None, "paper", "a, b", "table 1")
ROWS = [
    Comparison("idc", "kNN accuracy", "=1+1", Interval(0.9, 0.85, 0.95), PUBLISHED, 0.02, PASS),
    Comparison("idc", "kNN accuracy", "b", None, None, 0.02, "no published value", "1 of 2 images are there"),
    Comparison("idc", "kNN accuracy", "", None, PUBLISHED, 0.02, ""),
]


def test_it_reads_back(tmp_path: Path) -> None:
    write_comparisons(tmp_path / COMPARISON_FILE, ROWS)
    assert read_comparisons(tmp_path) == ROWS


def test_a_value_without_an_interval_reads_back(tmp_path: Path) -> None:
    row = Comparison("idc", "m", "a", Interval(0.1 + 0.2, nan, nan), None, 0.02, "")
    write_comparisons(tmp_path / COMPARISON_FILE, [row])
    (read,) = read_comparisons(tmp_path)
    assert read.measured is not None
    assert read.measured.record() == {"value": 0.1 + 0.2, "low": None, "high": None}


def test_one_without_reasons_reads_back(tmp_path: Path) -> None:
    """As it was before there were reasons."""
    write_comparisons(tmp_path / COMPARISON_FILE, [ROWS[0]])
    path = tmp_path / COMPARISON_FILE
    header, line = path.read_text().splitlines()
    assert header.endswith(",verdict,reason,protocol")
    path.write_text(f"{header.removesuffix(',reason,protocol')}\n{line.removesuffix(',,')}\n")
    assert read_comparisons(tmp_path) == [ROWS[0]]


def test_none_and_damaged_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="--beside takes the --out of another"):
        read_comparisons(tmp_path)
    write_comparisons(tmp_path / COMPARISON_FILE, ROWS)
    path = tmp_path / COMPARISON_FILE
    path.write_text(path.read_text().replace("0.9165", "much"))
    with pytest.raises(BenchmarkError, match=r"comparison.csv: damaged"):
        read_comparisons(tmp_path)
