"""The audit of a slide says what was found, what was dropped, and why a slide failed."""

import errno
import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import support.slides as sf
from support.plans import SMALL, cohort_of, make_plan

from pipeline.base.errors import PlanError
from pipeline.cohort.manifest.read import read_manifest, write_manifest
from pipeline.cohort.manifest.rows import ManifestRow
from pipeline.cohort.plan_hdf5 import read_plan, write_plan
from pipeline.config.plan import PlanConfig
from pipeline.disk import files
from pipeline.slides.artefacts.dropped import DROPPED_SHEET
from pipeline.slides.reader import NO_SLIDE
from pipeline.store.format import Status
from pipeline.store.patches import PlannedPatches
from stages.inspect import inspect_path
from stages.plan import plan_slides
from stages.reports.plan import audit_table, estimate
from stages.reports.plan_options import area_lines


@pytest.mark.slow
def test_failing_slides_are_reported(tmp_path: Path, cohort: Path) -> None:
    good = Path(shutil.copy(cohort.parent / "slide_1.svs", tmp_path / "good.svs"))
    side = {"width": 900, "height": 900}
    whole = tmp_path / "whole.svs"
    sf.make_slide(whole, width=2048, height=1536, mpp=0.5, compression="none", downsamples=(1,), ifds="front")
    slides = {
        "blank": sf.make_slide(tmp_path / "b.svs", mpp=0.5, pattern="blank", **side),
        "cut": sf.truncate(good),
        "cut-open": sf.truncate(whole),
        "damaged": sf.damage_tiles(good, [(0, 0)], level=1),
        "good": good,
        "no-mpp": sf.make_slide(tmp_path / "n.svs", mpp=None, vendor="aperio", **side),
        "no-slide": sf.not_a_slide(tmp_path / "t.svs"),
        "other-file": whole,
        "tiny": sf.make_slide(tmp_path / "y.svs", width=60, height=60, mpp=0.5),
    }
    sha256 = {"good": hashlib.sha256(good.read_bytes()).hexdigest(), "other-file": "ab" * 32}
    rows = [ManifestRow(name, path.name, name, sha256=sha256.get(name)) for name, path in slides.items()]
    write_manifest(tmp_path / "m.csv", rows)
    plan = make_plan(tmp_path / "m.csv", patches_per_slide=10**6)
    audit = {row.slide_id: row for row in plan.audit}
    assert {name: row.status for name, row in audit.items()} == {
        "blank": "failed",
        "cut": "failed",
        "cut-open": "damaged",
        "damaged": "damaged",
        "good": "ok",
        "no-mpp": "failed",
        "no-slide": "failed",
        "other-file": "failed",
        "tiny": "failed",
    }
    for name, reason in {
        "blank": "no patch has 50% of its area on tissue",
        "cut": f"good-truncated.svs: {NO_SLIDE}",
        "damaged": "part of it cannot be read",
        "no-mpp": "n.svs: it has no mpp (um/px). Give it in the manifest's column mpp",
        "no-slide": f"t.svs: {NO_SLIDE}",
        "other-file": "whole.svs: its SHA-256 is not the manifest's; the file is damaged or another one",
        "tiny": "it is smaller than a patch (64 pixels of level 0)",
    }.items():
        assert audit[name].reason.endswith(reason)
        assert (audit[name].patches_taken == 0) == (audit[name].status == "failed")
    assert [s.slide_id for s in plan.slides] == ["cut-open", "damaged", "good"]
    text = audit_table(plan)
    assert text.splitlines()[2].startswith("blank")  # what went wrong comes first
    assert "no-mpp: " in text
    unchecked = make_plan(tmp_path / "m.csv", check_files=False)
    assert {row.slide_id: row.status for row in unchecked.audit}["other-file"] == "ok"


@pytest.mark.slow
def test_unreadable_places_are_planned(tmp_path: Path) -> None:
    """Damage on glass: rows are planned there, to fail by name later, and the area is told."""
    whole = sf.make_slide(tmp_path / "a.svs", width=3072, height=2048, mpp=0.5, downsamples=(1,), pattern="blank")
    plan = make_plan(cohort_of(tmp_path, a=sf.damage_tiles(whole, [(2, 1), (3, 1)])))
    (planned,), (audit,) = plan.slides, plan.audit
    assert audit.status == "damaged"
    assert audit.unreadable_mm2 == audit.tissue_mm2 == pytest.approx(512 * 256 * 0.25e-6, abs=5e-4)
    assert audit.pixel_bytes is None
    assert audit.warnings.startswith("none of the 12 patches looked at could be read: the slide is damaged there (")
    assert (planned.coords_l0_px >= (512, 256)).all()
    assert (planned.coords_l0_px + 64 <= (1024, 512)).all()
    assert len(planned.coords_l0_px) == 12
    assert "an unknown amount of lossless pixels" in estimate(plan)


def test_patches_that_cannot_be_read_are_warned_of(tmp_path: Path) -> None:
    """Tissue is found on a coarser level, which is sound: the audit still tells, and so does the plan that is read."""
    whole = sf.make_slide(tmp_path / "a.svs", width=512, height=512, mpp=0.5, pattern="tissue")
    bad = sf.damage_tiles(whole, [(x, y) for x in range(2) for y in range(2)], out=tmp_path / "b.svs")
    write_plan(make_plan(cohort_of(tmp_path, a=bad), patches_per_slide=10), tmp_path / "p.h5")
    (audit,) = read_plan(tmp_path / "p.h5").audit
    assert (audit.status, audit.patches_measured) == ("ok", 0)
    assert "none of the 10 patches looked at could be read: the slide is damaged there (" in audit.warnings


@pytest.mark.slow
def test_a_slide_that_cannot_be_read_for_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cohort: Path
) -> None:
    """Rights do not bind root: the error is simulated."""
    real = files.sha256_file

    def refuse(path: Path) -> str:
        if path.name == "slide_2.svs":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path)

    monkeypatch.setattr("pipeline.slides.identity.sha256_file", refuse)
    rows = [replace(row, path=str(cohort.parent / row.path)) for row in read_manifest(cohort).rows]
    hashes = {row.slide_id: real(Path(row.path)) for row in rows}
    write_manifest(tmp_path / "m.csv", [replace(row, sha256=hashes[row.slide_id]) for row in rows])
    plan = make_plan(tmp_path / "m.csv")
    assert [row.status for row in plan.audit] == ["ok", "failed", "ok", "ok"]
    assert plan.audit[1].reason.endswith("slide_2.svs: the slide cannot be read (Permission denied)")


def test_rules_that_take_all_patches_are_named_and_seen(tmp_path: Path) -> None:
    """Pink all over, without texture: the rule `blank` takes it. There is no plan; the sheet shows what was taken."""
    pink = sf.write_slide(tmp_path / "a.svs", np.full((600, 600, 3), (220, 150, 190), np.uint8), mpp=0.5)
    config, folder = PlanConfig.build(SMALL), tmp_path / "overlays"
    with pytest.raises(PlanError, match=r"  a: no patch .*; 81 patches would be taken without rules .*: blank 81\)"):
        plan_slides(read_manifest(cohort_of(tmp_path, a=pink)), config, workers=1, overlays=folder)
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "dropped-patches.jpg"]


def test_mpp_of_the_manifest_against_the_slides_own(cohort: Path, tmp_path: Path) -> None:
    header, *lines = cohort.read_text().splitlines()
    mpp = ("", "1.0", "1.0", "0.505")
    rows = [f"{line},{value},{yes}" for line, value, yes in zip(lines, mpp, ("", "", "yes", ""), strict=True)]
    (tmp_path / "m.csv").write_text("\n".join([f"{header},mpp,mpp_overrides", *rows]) + "\n")
    manifest = read_manifest(tmp_path / "m.csv", cohort.parent)
    plan = plan_slides(manifest, PlanConfig.build(SMALL | {"mpp": 1.0}), workers=1)
    assert [row.status for row in plan.audit] == ["ok", "failed", "ok", "ok"]
    assert "the manifest says 1 um/px, the slide itself 0.5" in plan.audit[1].reason
    facts = [(row.mpp, row.mpp_source, row.own_mpp, row.manifest_mpp) for row in plan.audit]
    assert facts[0] == (0.5, "slide", 0.5, None)
    assert facts[1] == (None, "", 0.5, 1.0)  # of a slide that was refused as well
    assert facts[2:] == [(1.0, "manifest", 0.5, 1.0), (0.505, "manifest", 0.5, 0.505)]
    assert "overrides the slide's own of 0.5" in plan.audit[2].warnings
    assert plan.audit[3].warnings == ""
    patch = np.empty((64, 64, 3), np.uint8)  # what is planned is read, whatever the slide says of itself
    for row in np.unique(plan.slide_of_row(), return_index=True)[1].tolist():
        assert PlannedPatches(plan, None, cohort.parent, tell=print).read(row, patch).status is Status.OK


@pytest.mark.slow
def test_the_audit_says_what_rules_dropped(tmp_path: Path) -> None:
    """By the names of the rules that ran, in the plan, its CSV and the line for the user; a picture shows patches."""
    pixels = sf.make_pixels("tissue", 1600, 1280, mpp=0.5)
    pixels[:160] = 30  # a scanner's border
    sf.write_slide(tmp_path / "a.svs", pixels, mpp=0.5)
    write_manifest(tmp_path / "m.csv", [ManifestRow("a", "a.svs", "a")])
    manifest, options = read_manifest(tmp_path / "m.csv"), {"patch_px": 64, "patches_per_slide": 5}
    plan = plan_slides(manifest, PlanConfig(**options), workers=1, overlays=tmp_path / "o")
    areas = plan.audit[0].dropped_areas()
    assert areas["border"] == pytest.approx(1600 * 208 * 0.25e-6, rel=0.1)  # with its rim of 24 um
    assert {"specks", "haze", "pen"} < areas.keys()
    assert "fat" not in areas  # did not run
    assert "dropped by rules, mm2: border 0.1" in audit_table(plan)
    assert (tmp_path / "o" / DROPPED_SHEET).exists()
    write_plan(plan, tmp_path / "p.h5")
    assert read_plan(tmp_path / "p.h5").audit == plan.audit
    without = plan_slides(manifest, PlanConfig(**options, skip_rule=["border"], use_rule=["fat"]), workers=1)
    areas = without.audit[0].dropped_areas()
    assert areas["dark"] > 0.05
    assert "border" not in areas
    assert "fat" in areas
    assert without.hash != plan.hash


@pytest.mark.slow
def test_patches_that_artefacts_cover_are_counted(tmp_path: Path) -> None:
    """Ink on stripes of the tissue, which leaves most of each patch."""
    pixels = sf.make_pixels("tissue", 1600, 1280, mpp=0.5)
    for start in range(100, 1280, 320):
        pixels[start : start + 80] = (20, 40, 160)
    sf.write_slide(tmp_path / "a.svs", pixels, mpp=0.5)
    write_manifest(tmp_path / "m.csv", [ManifestRow("a", "a.svs", "a")])
    manifest, options = read_manifest(tmp_path / "m.csv"), {"patch_px": 128, "patches_per_slide": 5}
    plan, all_taken = (plan_slides(manifest, PlanConfig(**options, max_artefact=most), workers=1) for most in (0.1, 1))
    (row,), (whole,) = plan.audit, all_taken.audit
    assert row.patches_covered > 9
    assert row.patches_available + row.patches_covered == whole.patches_available
    assert row.dropped_areas() == whole.dropped_areas()
    assert row.covering_rules() == {"pen": row.patches_covered}
    assert f"than --max-artefact allows (most of each: pen {row.patches_covered})" in audit_table(plan)
    assert f"{row.patches_covered} patches are on tissue but left out: artefacts cover" in audit_table(plan)
    assert not {"patches_covered", "covered_by"} & whole.record().keys()
    assert "left out" not in audit_table(all_taken)
    write_plan(plan, tmp_path / "p.h5")
    assert read_plan(tmp_path / "p.h5").audit == plan.audit
    assert len(area_lines(plan.audit)) == 2
    for line in area_lines(plan.audit):
        assert line in inspect_path(tmp_path / "p.h5")
