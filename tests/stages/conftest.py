"""Finished stores of a tiny teacher and the features in them, which tests of several stages share."""

from pathlib import Path
from typing import Any

import pytest
from support.extraction import TEACHER, extract, plan_cohort, write_cohort
from support.features import FeatureSlide, slides_of
from support.training import plain_curves

from pipeline.cohort.plan_hdf5 import write_plan
from pipeline.store.store import Store
from stages import train_student


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training draws no curves, which is half a second a run; where they are looked at, it does."""
    monkeypatch.setattr(train_student, "draw_curves", plain_curves)


@pytest.fixture(scope="session")
def good_store(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    folder = tmp_path_factory.mktemp("good")
    plan = plan_cohort(write_cohort(folder / "slides"))
    write_plan(plan, folder / "plan.h5")
    extract(plan, folder / "store.zarr", weights)
    return folder / "store.zarr"


@pytest.fixture(scope="module")
def pyramids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides of two levels at 0.5 um/px, so that damage to level 0 leaves the quickhash; shared, not changed."""
    folder = tmp_path_factory.mktemp("slides")
    write_cohort(folder, downsamples=(1, 4))
    return folder


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory, pyramids: Path, weights: Path) -> Store:
    """What `extract-teacher` makes of the slides, in float32."""
    plan = plan_cohort(pyramids / "manifest.csv", resampling="lanczos-pillow")
    return extract(plan, tmp_path_factory.mktemp("extracted") / "s.zarr", weights, dtype="float32").store


@pytest.fixture(scope="module")
def slides(extracted: Store) -> list[FeatureSlide]:
    """The store's features, to be written as a tool would."""
    return slides_of(extracted)


@pytest.fixture(scope="module")
def options(pyramids: Path, weights: Path) -> dict[str, Any]:
    """Of `g2l import-features`, for these features."""
    return {
        "slides_root": pyramids,
        "manifest": pyramids / "manifest.csv",
        "teacher": TEACHER,
        "weights": weights,
        "dtype": "float32",
        "rows_per_shard": 8,
        "val_fraction": 0.5,
        "device": "cpu",
        "workers": 2,
    }
