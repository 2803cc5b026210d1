"""The sets that the tests of the section and of its tables share."""

from pathlib import Path

import pytest
from support.robustness_sets import write

from pipeline.evaluate.robustness.data import RobustnessSet


@pytest.fixture
def index_set(tmp_path: Path) -> RobustnessSet:
    """Two classes by three centres, six slides each of eight patches."""
    return write(
        tmp_path / "index.csv",
        [
            {
                "slide_id": f"{center}{slide}",
                "patch_id": str(patch),
                "medical_center": center,
                "biological_class": ("tumour", "stroma <1>")[patch % 2],
                "path": f"{center}{slide}_{patch}.png",
            }
            for center in ("north", "south", "west")
            for slide in range(6)
            for patch in range(8)
        ],
    )


@pytest.fixture
def paired_set(tmp_path: Path) -> RobustnessSet:
    """Two scanners by three stainings of the same twelve places, one of them missing on one slide."""
    rows = [
        {"slide_id": f"{a}{b}", "patch_id": f"{i}", "scanner": a, "staining": b, "path": f"{a}{b}_{i:02d}.png"}
        for a in "PQ"
        for b in "HMR"
        for i in range(12)
    ]
    return write(tmp_path / "paired.csv", rows[1:])
