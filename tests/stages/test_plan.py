"""The plan of a cohort: the same however it is made; every patch is good; failing slides are reported."""

import errno
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import openslide
import pytest
import support.slides as sf
from support.commands import call_g2l, leftovers
from support.extraction import as_earlier_version, big_slide
from support.plans import SMALL, cohort_of, make_plan

from pipeline.base.errors import PlanError
from pipeline.cohort.manifest.read import read_manifest, write_manifest
from pipeline.cohort.manifest.rows import ManifestRow, row_split
from pipeline.cohort.plan import Plan
from pipeline.cohort.plan_hdf5 import read_plan, write_plan
from pipeline.config.plan import PlanConfig
from pipeline.sampling import TRAIN, VAL
from pipeline.slides.patch_sample import PatchSample
from pipeline.slides.reader import Slide
from pipeline.slides.tissue import find_tissue
from pipeline.store.format import Status
from pipeline.store.patches import PlannedPatches
from stages.plan import plan_slides, say_reading_time
from stages.reports.plan import estimate

# The same however it is made


@pytest.mark.slow
def test_order_and_workers_do_not_matter(cohort: Path, plan: Plan, tmp_path: Path) -> None:
    write_plan(plan, tmp_path / "first.h5")
    header, *lines = cohort.read_text().splitlines()
    for seed, workers in enumerate((1, 2, 5)):
        shuffled = random.Random(seed).sample(lines, len(lines))
        assert shuffled != lines
        (tmp_path / "m.csv").write_text("\n".join([header, *shuffled]) + "\n")
        manifest = read_manifest(tmp_path / "m.csv", cohort.parent)
        again = plan_slides(manifest, PlanConfig.build(SMALL), workers=workers)
        assert again.hash == plan.hash
        assert again.audit == plan.audit
        write_plan(again, tmp_path / "again.h5")
        assert (tmp_path / "again.h5").read_bytes() == (tmp_path / "first.h5").read_bytes()


def test_other_slides_do_not_change_a_sample(cohort: Path, plan: Plan, tmp_path: Path) -> None:
    manifest = read_manifest(cohort)
    for row, planned in zip(manifest.rows, plan.slides, strict=True):
        alone = plan_slides(replace(manifest, rows=(row,)), PlanConfig.build(SMALL), workers=1).slides[0]
        assert alone.slide_id == planned.slide_id
        np.testing.assert_array_equal(alone.coords_l0_px, planned.coords_l0_px)
        np.testing.assert_array_equal(alone.split, planned.split)


@pytest.mark.slow
def test_larger_samples_contain_smaller_ones(cohort: Path, plan: Plan) -> None:
    larger, everything = make_plan(cohort, patches_per_slide=30), make_plan(cohort, patches_per_slide=10**6)
    for slides in zip(plan.slides, larger.slides, everything.slides, strict=True):
        small, large, whole = ({tuple(xy) for xy in s.coords_l0_px} for s in slides)
        assert (len(small), len(large)) == (12, 30)
        assert small < large < whole


@pytest.mark.slow
def test_patches_are_spread_if_asked(cohort: Path, plan: Plan, tmp_path: Path) -> None:
    """Other patches of the same ones, nested, by any number of workers; the plan and its hash say so."""
    spread, larger = (make_plan(cohort, sample="spread", patches_per_slide=n, workers=w) for n, w in ((12, 1), (30, 3)))
    write_plan(spread, tmp_path / "p.h5")
    assert read_plan(tmp_path / "p.h5").config.sample == "spread"
    assert read_plan(tmp_path / "p.h5").hash == spread.hash != plan.hash
    for uniform, few, many in zip(plan.slides, spread.slides, larger.slides, strict=True):
        assert {tuple(xy) for xy in few.coords_l0_px} < {tuple(xy) for xy in many.coords_l0_px}
        assert least_distance(few.coords_l0_px) > least_distance(uniform.coords_l0_px)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"sample": "spread"}, {"sample": "spread", "budget": "48"}], ids=str)
def test_strips_are_held_out_whatever_the_draw(cohort: Path, options: dict[str, Any]) -> None:
    """Each patch is in the split that it has in a plan of all patches; none is of the gap."""
    everything = make_plan(cohort, patches_per_slide=10**6, val_strip=0.3)
    manifest = read_manifest(cohort)
    number = {} if "budget" in options else {"patches_per_slide": 12}
    plan = plan_slides(manifest, PlanConfig.build({"patch_px": 64, "val_strip": 0.3} | options | number), workers=2)
    splits = set()
    for whole, slide in zip(everything.slides, plan.slides, strict=True):
        known = {tuple(xy): code for xy, code in zip(whole.coords_l0_px, whole.split, strict=True)}
        assert [known[tuple(xy)] for xy in slide.coords_l0_px] == slide.split.tolist()
        splits |= set(slide.split.tolist())
    assert splits == {TRAIN, VAL}


def least_distance(coords_l0_px: np.ndarray) -> float:
    """Between any two of the patches."""
    squared = ((coords_l0_px[:, None] - coords_l0_px[None]) ** 2).sum(-1)
    return float(np.sqrt(squared[~np.eye(len(squared), dtype=bool)].min()))


@pytest.mark.slow
def test_a_budget_of_a_plan_gives_that_plan(cohort: Path, plan: Plan, tmp_path: Path) -> None:
    """As many patches as the plan has, shared evenly, are the plan's, with its overlays; more contain them."""
    manifest = read_manifest(cohort)
    options: dict[str, Any] = {"patch_px": 64, "budget": "48"}
    bought = plan_slides(manifest, PlanConfig.build(options), workers=3, overlays=tmp_path, audit_csv=tmp_path / "a")
    plan_slides(manifest, PlanConfig.build(SMALL), workers=2, overlays=tmp_path / "plain")
    larger = plan_slides(manifest, PlanConfig.build(options | {"budget": "121"}), workers=1)
    assert (bought.num_rows, larger.num_rows) == (48, 121)
    available = sum(row.patches_available for row in bought.audit)
    assert bought.budget == {"budget": "48", "patches": 48, "of_patches": available, "most_of_a_slide": 12}
    for same, slide, more in zip(plan.slides, bought.slides, larger.slides, strict=True):
        np.testing.assert_array_equal(same.coords_l0_px, slide.coords_l0_px)
        assert {tuple(xy) for xy in slide.coords_l0_px} < {tuple(xy) for xy in more.coords_l0_px}
        picture = f"{slide.slide_id}.png"
        assert (tmp_path / picture).read_bytes() == (tmp_path / "plain" / picture).read_bytes()
    assert [row.patches_taken for row in bought.audit] == [row.patches_taken for row in plan.audit]
    write_plan(bought, tmp_path / "p.h5")
    assert read_plan(tmp_path / "p.h5").hash == bought.hash


@pytest.mark.slow
def test_level_0_is_cut_as_it_is(tmp_path: Path) -> None:
    """Two slides of one size at 40x and 20x: the same patches, each at its own resolution, pixel for pixel."""
    for name, mpp in (("fine", 0.25), ("coarse", 0.5)):
        sf.make_slide(tmp_path / f"{name}.svs", width=2400, height=1800, mpp=mpp, downsamples=(1,), seed=1)
    rows = [ManifestRow(name, f"{name}.svs", name) for name in ("coarse", "fine")]
    write_manifest(tmp_path / "m.csv", rows)
    options = {"patch_px": 64, "patches_per_slide": 1000, "min_tissue": 0.0, "tiling": "level0", "mpp": 4.0}
    plan = plan_slides(read_manifest(tmp_path / "m.csv"), PlanConfig.build(options), workers=1)
    coarse, fine = plan.slides
    assert (coarse.geometry.target_mpp, fine.geometry.target_mpp) == (0.5, 0.25)
    assert (plan.mpp, plan.resolution) == (0.375, "level 0 (0.25 to 0.5 um/px)")
    assert "warning: level 0, at which patches are cut, has 0.25 um/px on 1 of 2 slides." in estimate(plan)
    read = PlannedPatches(plan, None, tell=pytest.fail)
    patch = np.zeros((64, 64, 3), np.uint8)
    assert read.read(plan.num_rows - 1, patch).status is Status.OK
    x, y = fine.coords_l0_px[-1]
    with openslide.OpenSlide(tmp_path / "fine.svs") as slide:
        np.testing.assert_array_equal(patch, np.asarray(slide.read_region((x, y), 0, (64, 64)).convert("RGB")))
    write_plan(plan, tmp_path / "p.h5")
    assert read_plan(tmp_path / "p.h5").hash == plan.hash


@pytest.mark.slow
def test_max_slides_nests(cohort: Path) -> None:
    plans = [make_plan(cohort, max_slides=n) for n in (1, 2, 3)]
    ids = [{s.slide_id for s in p.slides} for p in plans]
    assert [len(i) for i in ids] == [1, 2, 3]
    assert ids[0] < ids[1] < ids[2]
    assert [len(p.audit) for p in plans] == [1, 2, 3]


def test_reading_order(plan: Plan) -> None:
    assert [s.slide_id for s in plan.slides] == sorted(s.slide_id for s in plan.slides)
    for slide in plan.slides:
        keys = [(int(y), int(x)) for x, y in slide.coords_l0_px]
        assert keys == sorted(set(keys))
    np.testing.assert_array_equal(plan.coords(), np.concatenate([s.coords_l0_px for s in plan.slides]))
    assert plan.slide_of_row().tolist() == [i for i, s in enumerate(plan.slides) for _ in s.coords_l0_px]
    assert plan.num_rows == 48 == len(plan.split())


# Every planned patch is good


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{}, {"min_tissue": 0.9}, {"min_tissue": 1.0}, {"mpp": 1.13}, {"stride_px": 40}, {"patch_px": 224}],
    ids=str,
)
def test_patches_lie_in_bounds_and_on_tissue(cohort: Path, options: dict[str, Any]) -> None:
    """Tissue counted pixel by pixel in the mask, blown up to level 0."""
    plan = make_plan(cohort, patches_per_slide=10**6, **options)
    config = plan.config
    for planned in plan.slides:
        slide = Slide(plan.slide_path(planned))
        width, height = slide.info.size_l0_px
        side = planned.geometry.patch_l0_px
        assert side == pytest.approx(config.patch_px * config.mpp / 0.5)
        coords = planned.coords_l0_px
        assert (coords >= 0).all()
        assert (coords + side <= (width, height)).all()
        tissue = find_tissue(slide)
        px = int(tissue.pixel_l0_px)
        mask = tissue.mask.repeat(px, 0).repeat(px, 1)
        whole = int(side)
        slack = 1 - (whole / side) ** 2  # of the last, broken pixel
        fractions = [mask[y : y + whole, x : x + whole].mean() for x, y in coords]
        assert min(fractions) >= config.min_tissue - slack - 1e-9
        # and none was left out: count all of the grid
        stride = (config.stride_px or config.patch_px) * config.mpp / 0.5
        grid = [(round(i * stride), round(j * stride)) for j in range(400) for i in range(400)]
        grid = [(x, y) for x, y in grid if x + side <= width and y + side <= height]
        counted = [mask[y : y + whole, x : x + whole].mean() for x, y in grid]
        assert sum(f >= config.min_tissue + slack for f in counted) <= len(coords)
        assert len(coords) <= sum(f >= config.min_tissue - slack for f in counted)
        for x, y in coords[:: max(1, len(coords) // 4)]:
            patch = slide.read_patch(int(x), int(y), planned.geometry)
            assert patch.shape == (config.patch_px, config.patch_px, 3)
            assert np.ptp(patch.astype(int), axis=2).mean() > 10  # coloured


@pytest.mark.slow
def test_slides_of_other_resolutions(tmp_path: Path) -> None:
    """One field of 600 um seen at four resolutions; 1 um/px is refused unless upsampling is allowed."""
    slides = {
        f"s{i}": sf.make_slide(tmp_path / f"{i}.svs", width=round(600 / mpp), height=round(600 / mpp), mpp=mpp, seed=1)
        for i, mpp in enumerate((0.25, 0.499, 0.2325, 1.0))
    }
    manifest = cohort_of(tmp_path, **slides)
    plan = make_plan(manifest)
    assert [s.slide_id for s in plan.slides] == ["s0", "s1", "s2"]
    assert "enlarged 2.00 times. Use --allow-upsampling" in plan.audit[3].reason
    plan = make_plan(manifest, allow_upsampling=True)
    for planned, mpp in zip(plan.slides, (0.25, 0.499, 0.2325, 1.0), strict=True):
        assert planned.geometry.patch_l0_px * mpp / 64 == pytest.approx(0.5, rel=1e-9)
        assert planned.geometry.slide_mpp == mpp


@pytest.mark.slow
def test_slide_with_bounds(tmp_path: Path) -> None:
    path = sf.make_leica_slide(tmp_path / "a.scn", scanned_l0_px=(500, 300, 1000, 700), seed=1)
    (planned,) = make_plan(cohort_of(tmp_path, a=path), min_tissue=0.0, patches_per_slide=10**6).slides
    assert len(planned.coords_l0_px) == (1000 // 64) * (700 // 64)
    assert planned.coords_l0_px.min(axis=0).tolist() == [500, 300]
    assert (planned.coords_l0_px + 64 <= (1500, 1000)).all()


# Splits


@pytest.mark.slow
def test_split_by_case_is_stable(cohort: Path, tmp_path: Path) -> None:
    rows = [replace(row, case_id=f"case {i // 2}") for i, row in enumerate(read_manifest(cohort).rows)]
    rows = [replace(row, path=str(cohort.parent / row.path)) for row in rows]
    write_manifest(tmp_path / "m.csv", rows)
    plan = make_plan(tmp_path / "m.csv", val_fraction=0.5)
    parts = {s.slide_id: set(s.split.tolist()) for s in plan.slides}
    assert all(len(part) == 1 for part in parts.values())
    assert parts["slide_1"] == parts["slide_2"] != parts["slide_3"] == parts["slide_4"]
    for row in rows:
        assert parts[row.slide_id] == {VAL if row_split(row, 0.5) == "val" else TRAIN}
    write_manifest(tmp_path / "m.csv", rows[1:3])
    fewer = make_plan(tmp_path / "m.csv", val_fraction=0.5)
    assert {s.slide_id: set(s.split.tolist()) for s in fewer.slides} == {
        r.slide_id: parts[r.slide_id] for r in rows[1:3]
    }
    given = [replace(row, split="val") for row in rows]
    write_manifest(tmp_path / "m.csv", given)
    plan = make_plan(tmp_path / "m.csv")
    assert (plan.count(TRAIN), plan.count(VAL)) == (0, 48)


@pytest.mark.slow
@pytest.mark.parametrize("stride_px", [None, 32, 50])
def test_strip_is_a_patch_away(cohort: Path, stride_px: int | None) -> None:
    plan = make_plan(cohort, patches_per_slide=10**6, val_strip=0.3, stride_px=stride_px)
    for planned in plan.slides:
        side = planned.geometry.patch_l0_px
        train, val = (planned.coords_l0_px[planned.split == code] for code in (TRAIN, VAL))
        assert len(train)
        assert 0.15 < len(val) / len(planned.split) < 0.55
        gaps = np.abs(train[:, None] - val[None]).max(axis=2) - side  # from edge to edge, along the farther axis
        assert gaps.min() >= side
    assert {row.split for row in plan.audit} == {"train+val"}


# Slides that fail


def test_no_slide_gives_a_patch(tmp_path: Path) -> None:
    blank = sf.make_slide(tmp_path / "a.svs", width=900, height=900, mpp=0.5, pattern="blank")
    with pytest.raises(
        PlanError, match=r"no slide has a patch to sample:\n  a: no patch has 50% of its area on tissue"
    ):
        make_plan(cohort_of(tmp_path, a=blank))


# Which slide it is


@pytest.mark.slow
def test_a_plan_of_an_earlier_version(tmp_path: Path) -> None:
    """It opens, has the hash that it had, and is read; what it knows of a slide is compared."""
    path = big_slide(tmp_path / "a.svs", 1)
    new = make_plan(cohort_of(tmp_path, a=path))
    old = as_earlier_version(new)
    write_plan(old, tmp_path / "old.h5")
    with h5py.File(tmp_path / "old.h5", "r") as f:
        assert "identity_facts" not in f["slides/a"].attrs["slide"]  # byte for byte as it was written
    found = read_plan(tmp_path / "old.h5")
    assert found.hash == old.hash != new.hash
    assert new.as_known_to(found).hash == old.hash
    assert new.as_known_to(new).hash == new.hash
    patch = np.empty((64, 64, 3), np.uint8)
    assert PlannedPatches(found, None, tell=print).read(0, patch).status is Status.OK
    sf.make_slide(path, width=1601, height=1280, mpp=0.5, downsamples=(1,), compression="none")
    read = PlannedPatches(found, None, tell=print).read(0, patch)
    assert read.status is Status.NO_SLIDE
    assert "size_l0_px: (1600, 1280) -> (1601, 1280)" in read.reason


# Words


def test_estimate(plan: Plan) -> None:
    text = estimate(plan)
    assert "4 slides of 4 cases and 2 centres: 48 patches, " in text
    assert "1 shard of 48 rows: 147 kB of embeddings (1536-d float16)" in text  # 48 * 1536 * 2 bytes


@pytest.mark.slow
def test_a_disk_full_of_overlays_is_named(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the disk says it, without a path: at the sync of a picture."""
    pictures = tmp_path / "pictures"
    sync = os.fsync

    def full(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}").startswith(str(pictures)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(fd)

    monkeypatch.setattr(os, "fsync", full)
    options = ("--patch-px", "64", "--patches-per-slide", "12", "--overlays", pictures)
    code, _, said = call_g2l("plan", cohort, "--out", tmp_path / "plan.h5", *options)
    assert code == 1
    assert f"{pictures}/slide_" in said
    assert "No space left on device" in said
    assert "Traceback" not in said
    assert leftovers(tmp_path) == []


def test_the_time_of_reading_is_told_from_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    say_reading_time([PatchSample(10, 0, 1, 1, seconds=0.05), PatchSample(30, 0, 1, 1, seconds=0.15)], 1_440_000, 2)
    assert capsys.readouterr().err == (
        "estimate: reading and encoding 1,440,000 patches takes about 1 h 00 min with 2 threads (5 ms a patch, "
        "measured on 40); `g2l extract-teacher` measures the teacher before it starts\n"
    )
    say_reading_time([], 10, 1)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_earlier_rules_find_what_earlier_versions_found(tmp_path: Path) -> None:
    """Whose plans named no rules: the same tissue as without any of the new ones, and the same record."""
    sf.make_slide(tmp_path / "a.svs", width=1500, height=1200, mpp=0.5)
    write_manifest(tmp_path / "m.csv", [ManifestRow("a", "a.svs", "a")])
    manifest = read_manifest(tmp_path / "m.csv")
    earlier = PlanConfig.from_record({"patch_px": 64, "patches_per_slide": 9})
    plan = plan_slides(manifest, earlier, workers=1)
    assert not {"skip_rule", "use_rule"} & plan.config.deciding().keys()
    assert plan.audit[0].dropped_areas().keys() == {"dark", "specks"}


@pytest.mark.parametrize("column", ["dropped_mm2", "covered_by"])
def test_areas_and_counts_that_are_none_are_a_damaged_plan(plan: Plan, tmp_path: Path, column: str) -> None:
    for number, text in enumerate(("{", "[1]", '{"pen": "much"}', '{"pen": null}')):
        path = tmp_path / f"{number}.h5"
        write_plan(replace(plan, audit=(replace(plan.audit[0], **{column: text}),)), path)
        with pytest.raises(PlanError, match="the plan is damaged"):
            read_plan(path)
