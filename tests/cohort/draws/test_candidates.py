"""Candidates are described as they are read; those that cannot be read are passed over."""

from pathlib import Path

import numpy as np
import pytest
from support.plans import make_plan

from pipeline.base.errors import PatchError
from pipeline.cohort.draws.candidates import describe_candidates
from pipeline.cohort.draws.descriptors import describe_patch
from pipeline.slides.reader import Slide


def test_candidates_that_cannot_be_read_are_passed_over(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(cohort, resampling="lanczos-pillow")
    part = plan.slides[0]
    slide, whole = Slide(plan.slide_path(part), part.manifest_mpp), Slide.read_patch
    bad = {tuple(xy) for xy in part.coords_l0_px[[0, 5]].tolist()}

    def read_patch(self: Slide, x: int, y: int, geometry: object) -> object:
        if (x, y) in bad:
            raise PatchError("damaged")
        return whole(self, x, y, geometry)

    monkeypatch.setattr(Slide, "read_patch", read_patch)
    kept, facts, words = describe_candidates(slide, part)
    assert words == "2 of 12 candidate patches cannot be read"
    np.testing.assert_array_equal(kept.coords_l0_px, np.delete(part.coords_l0_px, [0, 5], axis=0))
    assert len(facts) == len(kept.split) == 10
    x, y = kept.coords_l0_px[3].tolist()
    np.testing.assert_array_equal(facts[3], describe_patch(whole(slide, x, y, part.geometry)))
    bad |= {tuple(xy) for xy in part.coords_l0_px.tolist()}
    kept, facts, words = describe_candidates(slide, part)
    assert len(kept.split) == len(facts) == 0
