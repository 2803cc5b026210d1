"""A tiny teacher and a finished store of its embeddings, which tests of several stages share."""

from pathlib import Path

import pytest
from support.extraction import extract, plan_cohort, write_cohort, write_teacher

from pipeline.cohort.plan import write_plan


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors")


@pytest.fixture(scope="session")
def good_store(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    folder = tmp_path_factory.mktemp("good")
    plan = plan_cohort(write_cohort(folder / "slides"))
    write_plan(plan, folder / "plan.h5")
    extract(plan, folder / "store.zarr", weights)
    return folder / "store.zarr"
