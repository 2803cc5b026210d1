"""Patches of rows: the planned ones of the slides, the stored ones of a store, and why one cannot be had."""

import os
from pathlib import Path

import numpy as np
import pytest
import support.slides as sf
from support.extraction import as_earlier_version, big_slide, cohort_of, plan_cohort

from pipeline.store.format import Status
from pipeline.store.patches import PlannedPatches


def test_a_slide_swapped_after_the_plan_is_not_read(tmp_path: Path) -> None:
    """Two slides of one size, mpp and file length, and no quickhash of either."""
    path, other = big_slide(tmp_path / "a.svs", 1), big_slide(tmp_path / "other.svs", 2)
    assert path.stat().st_size == other.stat().st_size
    plan = plan_cohort(cohort_of(tmp_path, a=path))
    assert plan.slides[0].quickhash is None
    patch = np.empty((64, 64, 3), np.uint8)
    assert PlannedPatches(plan, None).read(0, patch).status is Status.OK
    hash_before = plan.hash
    os.replace(other, path)
    read = PlannedPatches(plan, None).read(0, patch)
    assert read.status is Status.NO_SLIDE
    assert "a.svs: not the slide that was planned (its content has changed: sha256: " in read.reason
    assert plan_cohort(cohort_of(tmp_path, a=path)).hash != hash_before


def test_a_plan_that_knows_little_of_a_slide_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_cohort(cohort_of(tmp_path, a=big_slide(tmp_path / "a.svs", 1)))
    PlannedPatches(plan, None)
    assert capsys.readouterr().err == ""
    PlannedPatches(as_earlier_version(plan), None)
    assert "note: of 1 slide the plan holds no hash (a)" in capsys.readouterr().err


def test_patches_of_one_colour_are_noted(tmp_path: Path) -> None:
    flat = sf.make_pixels("tissue", 1024, 1024, mpp=0.5)
    flat[:, 512:] = (224, 158, 192)
    path = sf.write_slide(tmp_path / "a.svs", flat, mpp=0.5, downsamples=(1,))
    plan = plan_cohort(cohort_of(tmp_path, a=path), patches_per_slide=1000, min_tissue=0.0)
    patches, out = PlannedPatches(plan, None), np.empty((64, 64, 3), np.uint8)
    assert patches.plain_note() == ""
    for row in range(plan.num_rows):
        patches.read(row, out)
    assert patches.plain_note().startswith("note: 128 patches are of one colour throughout, in 1 slide (a): ")
