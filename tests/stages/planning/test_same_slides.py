"""Slides that are one slide, or one piece of glass, are named in the audit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import support.slides as sf
from support.extraction import made_up_plan
from support.plans import cohort_of, make_plan

from pipeline.cohort.audit import AuditRow
from stages.planning.audit_slide import Audited
from stages.planning.same_slides import note_near_copies


@pytest.mark.parametrize("vendor", ["aperio", "dicom"])
def test_a_dicom_slide_has_no_near_copies(vendor: str) -> None:
    """What OpenSlide calls its quickhash is its series' UID, and says nothing of its pixels."""
    slide = replace(made_up_plan().slides[0], quickhash="x")
    audited = [Audited(AuditRow(name, "ok", vendor=vendor, warnings="odd"), slide) for name in "ab"]
    noted, groups = note_near_copies([*audited, Audited(AuditRow("c", "failed", vendor=vendor), None)])
    assert groups == ([(["a", "b"], "OpenSlide's quickhash")] if vendor == "aperio" else [])
    assert [a.audit.warnings.startswith("odd; the same slide as ") for a in noted] == [bool(groups)] * 2 + [False]


@pytest.mark.slow
def test_a_slide_that_was_scanned_twice_is_named(tmp_path: Path) -> None:
    scan = sf.make_pixels("tissue", 3000, 2400, seed=5, mpp=1.0)
    sf.write_slide(tmp_path / "first.svs", scan, mpp=1.0)
    sf.write_slide(tmp_path / "second.svs", (scan[::-1, ::-1] * 0.95).astype(np.uint8), mpp=1.0)
    sf.make_slide(tmp_path / "third.svs", width=3000, height=2400, mpp=1.0, seed=6)
    manifest = cohort_of(tmp_path, **{name: tmp_path / f"{name}.svs" for name in ("first", "second", "third")})
    plan = make_plan(manifest, mpp=1.0)
    first, second, third = plan.audit
    assert "may be the same tissue as 'second' (of another case, correlation" in first.warnings
    assert "turned by 180 degrees" in second.warnings
    assert "same tissue" not in third.warnings
