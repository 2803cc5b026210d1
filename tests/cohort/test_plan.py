"""The plan's content: hashed by what decides, with its slides in order and where they lie now."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import support.slides as sf
from support.extraction import made_up_plan
from support.plans import SMALL, cohort_of, make_plan

from pipeline.base.errors import PlanError
from pipeline.cohort.audit import AuditRow
from pipeline.cohort.manifest.read import parse_manifest
from pipeline.cohort.plan import MOST_REASONS, Plan, in_order
from pipeline.cohort.plan_hdf5 import read_plan, write_plan
from pipeline.config.plan import PlanConfig
from pipeline.sampling import TRAIN, VAL
from stages.plan import plan_slides


@pytest.mark.slow
def test_hash_covers_what_decides(cohort: Path, plan: Plan, tmp_path: Path) -> None:
    seen = {plan.hash}
    for options in ({"seed": 1}, {"min_tissue": 0.8}, {"patch_px": 65}, {"patches_per_slide": 11}, {"stride_px": 32}):
        seen.add(make_plan(cohort, **options).hash)
    first = plan.slides[0]
    moved = first.coords_l0_px.copy()
    moved[0, 0] += 1
    parts = [
        replace(first, coords_l0_px=moved),
        replace(first, split=1 - first.split),
        replace(first, quickhash="x"),
        replace(first, case_id="x"),
        replace(first, center=None),
    ]
    for part in parts:
        seen.add(replace(plan, slides=(part, *plan.slides[1:])).hash)
    assert len(seen) == 11
    elsewhere = shutil.copytree(cohort.parent, tmp_path / "elsewhere")
    moved_plan = plan_slides(
        parse_manifest(elsewhere / "manifest.csv"), PlanConfig.build(SMALL | {"slides_root": elsewhere}), workers=1
    )
    assert moved_plan.hash == plan.hash  # where the files lie decides nothing
    labelled = replace(plan, slides=(replace(first, path="x", labels={"a": "b"}), *plan.slides[1:]))
    assert labelled.hash == plan.hash


def test_plan_goes_where_the_slides_are(plan: Plan) -> None:
    planned = plan.slides[0]
    assert plan.slide_path(planned).is_file()
    assert plan.slide_path(planned, Path("/mnt")) == Path("/mnt/slide_1.svs")
    absolute = replace(planned, path="/data/a.svs")
    assert plan.slide_path(absolute, Path("/mnt")) == Path("/data/a.svs")


def test_places_of_an_equal_plan_are_taken_over_and_change_nothing_else(tmp_path: Path) -> None:
    began = made_up_plan()
    first, second = began.slides
    now = replace(began, slides_root=tmp_path / "now", slides=(first, replace(second, path="/full/b.svs")))
    places = now.places_beside(began)
    assert places == {"slides_root": str(tmp_path / "now"), "paths": {"1": "/full/b.svs"}}
    moved = began.at_places(places)
    assert [moved.slide_path(slide) for slide in moved.slides] == [now.slide_path(slide) for slide in now.slides]
    assert moved.hash == began.hash
    bucket = began.at_places({"slides_root": "s3://bucket/of us", "paths": {}})
    assert str(bucket.slide_path(first)) == "s3://bucket/of us/a.svs"


def test_a_plan_is_its_slides_with_patches_by_id() -> None:
    first, second = made_up_plan().slides
    empty = replace(first, slide_id="0", coords_l0_px=first.coords_l0_px[:0], split=first.split[:0])
    audit = [AuditRow(name, "ok") for name in ("b", "0", "a")]
    slides, audited = in_order([second, empty, first], audit)
    assert [slide.slide_id for slide in slides] == ["a", "b"]
    assert [row.slide_id for row in audited] == ["0", "a", "b"]
    plan = Plan(slides, Path("/nowhere"), PlanConfig(), audited)
    assert plan.num_rows == len(first.split) + len(second.split) == plan.count(TRAIN) + plan.count(VAL)
    assert plan.case_of_row().tolist() == [first.case_id] * len(first.split) + [second.case_id] * len(second.split)


def test_a_plan_without_patches_gives_the_first_reasons() -> None:
    audit = [AuditRow(f"s{i:02d}", "failed", f"reason {i}") for i in range(MOST_REASONS + 3)]
    with pytest.raises(PlanError, match=r"no slide has a patch to sample") as caught:
        in_order([], audit)
    lines = str(caught.value).splitlines()
    assert lines[1] == "  s00: reason 0"
    assert (len(lines), lines[-1]) == (MOST_REASONS + 2, "  and 3 more")


def test_a_plan_takes_the_identities_that_an_earlier_one_knew() -> None:
    """Of slides that are the same; what an earlier version did not keep, or another slide, is no reason for a hash."""
    old = made_up_plan()
    _, second = old.slides
    facts = {"level_sizes_px": [[9999, 99]], "sha256": "1" * 64}
    now = replace(old, slides=tuple(replace(s, identity_facts=facts) for s in old.slides))
    assert now.hash != old.hash
    assert now.as_known_to(old).hash == old.hash
    assert now.as_known_to(now).hash == now.hash
    other = replace(now, slides=(now.slides[0], replace(now.slides[1], size_l0_px=(1, 1))))
    known = other.as_known_to(old)
    assert known.slides[0].identity_facts is None
    assert known.slides[1].identity_facts == facts
    assert replace(now, slides=now.slides[:1]).as_known_to(replace(old, slides=(second,))).slides == now.slides[:1]


def test_a_plan_takes_no_identity_by_a_quickhash_that_says_nothing_of_pixels() -> None:
    """Of Zeiss slides, by the audit: other bytes are another slide."""
    old = made_up_plan()
    facts = {"level_sizes_px": [[9999, 99]], "sha256": "1" * 64}
    of_old, of_now = (
        replace(old, slides=tuple(replace(s, quickhash="q", identity_facts=facts | {"sha256": d}) for s in old.slides))
        for d in ("1" * 64, "2" * 64)
    )
    ids = [slide.slide_id for slide in old.slides]
    for vendor, same in (("aperio", True), ("zeiss", False)):
        now = replace(of_now, audit=tuple(AuditRow(name, "ok", vendor=vendor) for name in ids))
        assert (now.as_known_to(of_old).hash == of_old.hash) is same


@pytest.mark.slow
def test_the_reducing_program_is_in_the_plan_only_where_it_is_not_pillow(cohort: Path, tmp_path: Path) -> None:
    """Pillow's plans are those of earlier versions, to the byte of their hash."""
    plain, torch = make_plan(cohort, resampling="lanczos-pillow"), make_plan(cohort)
    assert make_plan(cohort, resampling="lanczos-torch").hash == torch.hash != plain.hash
    assert plain.audit == torch.audit  # sizes are measured by Pillow for both
    assert "resampling" not in plain.slides[0].content()["geometry"]
    assert "resampling" not in plain.config.record()
    write_plan(plain, tmp_path / "plain.h5")
    assert read_plan(tmp_path / "plain.h5").config.resampling == "lanczos-pillow"
    write_plan(torch, tmp_path / "torch.h5")
    again = read_plan(tmp_path / "torch.h5")
    assert [slide.geometry for slide in again.slides] == [slide.geometry for slide in torch.slides]
    by = {slide.geometry.resampling: slide.geometry.downsample for slide in again.slides}
    assert by.get("lanczos-torch", 1) == 1


@pytest.mark.slow
def test_half_decoding_is_in_the_plan_only_where_it_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"width": 400, "height": 300, "downsamples": (1,)}
    fine = sf.make_slide(tmp_path / "fine.svs", mpp=0.25, **options)
    manifest = cohort_of(tmp_path, coarse=sf.make_slide(tmp_path / "coarse.svs", mpp=0.3, **options), fine=fine)
    half = make_plan(manifest, decode="half", min_tissue=0)
    assert "note: --decode half: 1 of 2 slides are decoded in full; the audit says why" in capsys.readouterr().err
    write_plan(half, tmp_path / "half.h5")
    again = read_plan(tmp_path / "half.h5")
    assert (again.config.decode, again.hash) == ("half", half.hash)
    assert [slide.content()["geometry"].get("decode") for slide in again.slides] == [None, "half"]
    words = "its tiles are decoded in full: patches are reduced 1.67 times, less than twice"
    assert [words in row.warnings for row in half.audit] == [True, False]
    assert "decode" not in PlanConfig().record()


def test_cases_of_some_rows_are_those_of_all() -> None:
    plan = made_up_plan()
    rows = [plan.num_rows - 1, 0, 0, plan.num_rows // 2]
    assert plan.cases_of(rows).tolist() == plan.case_of_row()[rows].tolist()
    assert plan.cases_of([]).tolist() == []


def test_at_a_prompt_a_plan_and_a_manifest_are_one_line(tmp_path: Path) -> None:
    """Not all their rows, which are millions of characters for a cohort."""
    plan = made_up_plan()
    assert repr(plan) == "Plan(2 slides, 22 patches of 16 px)"
    (tmp_path / "m.csv").write_text("slide_id,path,case_id\na,a.svs,x\nb,b.svs,y\n")
    assert repr(parse_manifest(tmp_path / "m.csv")) == f"Manifest('{tmp_path / 'm.csv'}', 2 slides)"
