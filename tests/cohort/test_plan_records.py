"""Records of a plan and its slides: what is none is refused, and what a later version wrote is told from damage."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.extraction import made_up_plan
from support.plans import plan_with_labels

from pipeline.base.errors import PlanError
from pipeline.cohort.plan_records import plan_from_records, plan_records, slide_from_record, slide_record


@pytest.mark.parametrize(
    ("coords", "split", "words"),
    [
        (np.zeros((3, 3), np.int64), np.zeros(3, np.uint8), "coords of shape"),
        (np.zeros(3, np.int64), np.zeros(3, np.uint8), "coords of shape"),
        (np.zeros((3, 2)), np.zeros(3, np.uint8), "coords of shape"),
        (np.zeros((3, 2), np.int64), np.zeros(2, np.uint8), "split of shape"),
        (np.zeros((0, 2), np.int64), np.zeros(0, np.uint8), "without patches"),
        (np.zeros((3, 2), np.int64), np.full(3, 9, np.uint8), "unknown split"),
    ],
)
def test_arrays_that_are_no_slide_s_are_refused(coords: Any, split: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        slide_from_record(slide_record(made_up_plan().slides[0]), coords, split)


@pytest.mark.parametrize(
    "change", [{"size_l0_px": [1]}, {"geometry": {"patch_px": 1}}, {"geometry": None}, {"more": 1}]
)
def test_records_that_are_no_slide_s_are_refused(change: dict[str, Any]) -> None:
    slide = made_up_plan().slides[0]
    with pytest.raises((KeyError, TypeError, ValueError)):
        slide_from_record(slide_record(slide) | change, slide.coords_l0_px, slide.split)


def test_a_plan_of_a_later_version_is_told_from_a_damaged_one() -> None:
    plan, words = plan_with_labels(1), "a later version of G2L made it: later is not known here"
    records = plan_records(plan)
    unknown = records | {"config": records["config"] | {"later": 1}}
    with pytest.raises(PlanError, match=rf"^p\.h5: {words}\. Use that one, or plan again$"):
        plan_from_records(unknown, plan.slides, Path("p.h5"))
    value = records | {"config": records["config"] | {"skip_rule": ["later"]}}
    with pytest.raises(PlanError, match=r"p\.h5: the plan is damaged, or a later version of G2L made it \("):
        plan_from_records(value, plan.slides, Path("p.h5"))
    slide = plan.slides[0]
    record = slide_record(slide)
    for changed in (record | {"later": 1}, record | {"geometry": record["geometry"] | {"later": 1}}):
        with pytest.raises(ValueError, match=words):
            slide_from_record(changed, slide.coords_l0_px, slide.split)
