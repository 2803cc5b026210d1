"""The plan's content and file: hashed by what decides, read back as written, whole or refused."""

import csv
import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import support.slides as sf
from PIL import Image
from support.extraction import made_up_plan
from support.failing import failing, os_error
from support.plans import SMALL, cohort_of, make_plan

from pipeline.base.errors import PlanError
from pipeline.cohort.manifest import parse_manifest
from pipeline.cohort.plan import (
    MOST_REASONS,
    AuditRow,
    Plan,
    SlidePlan,
    in_order,
    plan_from_records,
    plan_records,
    read_plan,
    slide_from_record,
    slide_record,
    write_audit,
    write_plan,
)
from pipeline.config.plan import PlanConfig
from pipeline.disk import files
from pipeline.sampling import TRAIN, VAL
from pipeline.slides.geometry import PatchGeometry
from pipeline.slides.reader import Slide
from stages.inspect import inspect_path
from stages.plan import plan_slides


def assert_same(a: Plan, b: Plan) -> None:
    assert (a.config, a.audit, a.slides_root, a.hash) == (b.config, b.audit, b.slides_root, b.hash)
    for mine, other in zip(a.slides, b.slides, strict=True):
        assert slide_record(mine) == slide_record(other)
        for x, y in ((mine.coords_l0_px, other.coords_l0_px), (mine.split, other.split)):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


def made_up(num_slides: int, num_labels: int = 3) -> Plan:
    """A plan without slides behind it."""
    geometry = PatchGeometry(224, 0.5, 0.25, 0, 1.0)
    coords = np.stack([np.arange(20) * 448, np.arange(20)], axis=1)
    labels = {f"label {i}": "é" * 40 for i in range(num_labels)}
    parts = [
        SlidePlan(
            f"slide {i:05d}",
            f"é{i}.svs",
            f"c{i}",
            None,
            None,
            None,
            (9999, 9999),
            geometry,
            coords + i,
            (np.arange(20) % 2).astype(np.uint8),
            labels,
        )
        for i in range(num_slides)
    ]
    audit = [AuditRow(part.slide_id, "ok", mpp=0.25) for part in parts]
    return Plan(tuple(parts), Path("/slides"), PlanConfig(), tuple(audit))


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


def test_plan_reads_back(plan: Plan, tmp_path: Path) -> None:
    write_plan(plan, tmp_path / "p.h5")
    assert_same(read_plan(tmp_path / "p.h5"), plan)
    records = json.loads(json.dumps(plan_records(plan)))
    slides = [slide_from_record(json.loads(json.dumps(slide_record(s))), s.coords_l0_px, s.split) for s in plan.slides]
    assert_same(plan_from_records(records, slides, tmp_path), plan)


@pytest.mark.parametrize(("num_slides", "num_labels"), [(1, 2000), pytest.param(600, 200, marks=pytest.mark.slow)])
def test_large_plan_reads_back(tmp_path: Path, num_slides: int, num_labels: int) -> None:
    """Labels beyond an HDF5 attribute's usual 64 kB; more of slides (34 MB) than HDF5 keeps in its cache while it
    writes, so that it reads back what it wrote: of slides with three labels, thousands.
    """
    plan = made_up(num_slides, num_labels)
    write_plan(plan, tmp_path / "p.h5")
    assert_same(read_plan(tmp_path / "p.h5"), plan)
    assert list(tmp_path.iterdir()) == [tmp_path / "p.h5"]


def test_attributes_that_trident_and_clam_readers_expect(cohort: Path, tmp_path: Path) -> None:
    plan = make_plan(cohort, mpp=1.0, stride_px=48)
    write_plan(plan, tmp_path / "p.h5")
    with h5py.File(tmp_path / "p.h5", "r") as f:
        group = f["slides/slide_1"]
        coords = group["coords"]
        assert (coords.dtype, coords.shape) == (np.int64, (12, 2))
        np.testing.assert_array_equal(coords[:], plan.slides[0].coords_l0_px)
        expected = {
            "patch_size": 64,
            "patch_size_level0": 128,
            "level0_magnification": 20,
            "target_magnification": 10,
            "overlap": 16,
            "name": "slide_1",
            "savetodir": "",
            "level0_width": 1500,
            "level0_height": 1200,
            "patch_level": 0,
            "downsample": 1.0,
        }
        assert dict(coords.attrs) == expected


def test_same_plan_reads_the_same_patches(plan: Plan, tmp_path: Path) -> None:
    """What a reader of CLAM's attributes crops is what this project reads."""
    write_plan(plan, tmp_path / "p.h5")
    with h5py.File(tmp_path / "p.h5", "r") as f:
        attributes, (x, y) = dict(f["slides/slide_1/coords"].attrs), f["slides/slide_1/coords"][3]
    planned = plan.slides[0]
    slide = Slide(plan.slide_path(planned))
    side = int(attributes["patch_size_level0"] / attributes["downsample"])
    region = slide.read_region(int(attributes["patch_level"]), (int(x), int(y)), (side, side))
    expected = np.asarray(region.resize((64, 64), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(slide.read_patch(int(x), int(y), planned.geometry), expected)


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


def test_no_plan(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"none\.h5: no such plan\. `g2l plan` makes one"):
        read_plan(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("no plan")
    with pytest.raises(PlanError, match=r"text\.h5: not a readable plan \(.*signature not found"):
        read_plan(tmp_path / "text.h5")
    with pytest.raises(PlanError, match="not a readable plan"):
        read_plan(tmp_path)
    with h5py.File(tmp_path / "coords.h5", "w") as f:
        f["coords"] = np.zeros((3, 2), np.int64)  # as CLAM writes
    with pytest.raises(PlanError, match=r"coords\.h5: an HDF5 file, but not a plan of G2L"):
        read_plan(tmp_path / "coords.h5")
    for text in ("null", "[]", "{}", '{"format": "g2l-plan", "version": 2}', '{"format": "other", "version": 1}'):
        with h5py.File(tmp_path / "foreign.h5", "w") as f:
            f.attrs["plan"] = text
        with pytest.raises(PlanError, match=r"foreign\.h5: not a plan of format version 1"):
            read_plan(tmp_path / "foreign.h5")


@pytest.fixture
def written(plan: Plan, tmp_path: Path) -> Path:
    write_plan(plan, tmp_path / "p.h5")
    return tmp_path / "p.h5"


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f["slides/slide_1/coords"].__setitem__((0, 0), 7),
        lambda f: f["slides/slide_1/split"].__setitem__(0, 1 - f["slides/slide_1/split"][0]),
        lambda f: f.__delitem__("slides/slide_2"),
        lambda f: f.__delitem__("slides"),
        lambda f: f.__delitem__("audit"),
        lambda f: f["slides"].__setitem__("x", f["audit"][:]),
        lambda f: f["slides/slide_1"].attrs.__setitem__("slide", '{"slide_id": "slide_1"}'),
        lambda f: f["slides/slide_1"].attrs.__setitem__("slide", "[1]"),
        lambda f: f["slides/slide_1"].attrs.__setitem__("slide", "{"),
        lambda f: f["slides/slide_1"].attrs.__delitem__("slide"),
        lambda f: f.attrs.__setitem__("plan", f.attrs["plan"].replace('"seed": 0', '"seed": 1')),
        lambda f: f.attrs.__setitem__("plan", f.attrs["plan"].replace('"seed": 0', '"seed": -1')),
        lambda f: f.attrs.__setitem__("plan", f.attrs["plan"].replace('"config"', '"configs"')),
        lambda f: f["audit"].__setitem__(2, 0),
    ],
)
def test_changed_plan_is_refused(written: Path, change: Any) -> None:
    with h5py.File(written, "r+") as f:
        change(f)
    with pytest.raises(PlanError, match=r"p\.h5: (the plan is damaged|not a readable plan)"):
        read_plan(written)


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.5, 0.99])
def test_truncated_plan_is_refused(written: Path, fraction: float) -> None:
    data = written.read_bytes()
    written.write_bytes(data[: int(len(data) * fraction)])
    with pytest.raises(PlanError, match="not a readable plan"):
        read_plan(written)


@pytest.mark.slow
def test_flipped_bytes_are_refused_or_do_not_matter(plan: Plan, written: Path) -> None:
    """Wherever the damage is, the plan is refused by name or decides the same."""
    data = written.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for position in rng.integers(0, len(data), 100):
        written.write_bytes(data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :])
        try:
            found = read_plan(written).hash
        except PlanError as error:
            found = str(error)
            refused += 1
        assert found == plan.hash or str(written) in found
    assert refused > 10


def test_plan_is_complete_or_absent(plan: Plan, written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = written.read_bytes()
    monkeypatch.setattr(files.os, "fsync", failing(os_error(errno.ENOSPC)))
    with pytest.raises(
        PlanError, match=r"cannot write the plan .*p\.h5: No space left on device\. Choose another --out"
    ):
        write_plan(replace(plan, slides=plan.slides[:1]), written)
    assert written.read_bytes() == before
    assert list(written.parent.iterdir()) == [written]


def test_folder_that_cannot_be_written(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PlanError, match=r"cannot write the plan .*file/p\.h5: Not a directory"):
        write_plan(plan, tmp_path / "file" / "p.h5")
    with pytest.raises(PlanError, match="No such file or directory"):
        write_plan(plan, tmp_path / "none" / "p.h5")


def test_old_plans_open_and_keep_their_hash(tmp_path: Path) -> None:
    plan = made_up_plan()
    assert "has_case" not in slide_record(plan.slides[0])  # so that old stores are found as they were written
    recorded = replace(plan, slides=tuple(replace(s, has_case=False) for s in plan.slides), audit=())
    assert recorded.hash == plan.hash
    for number, made in enumerate((plan, recorded)):
        write_plan(made, tmp_path / f"{number}.h5")
    assert [s.has_case for s in read_plan(tmp_path / "0.h5").slides] == [None, None]
    assert [s.has_case for s in read_plan(tmp_path / "1.h5").slides] == [False, False]
    assert "2 of unknown cases" in inspect_path(tmp_path / "1.h5")


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


def test_audit_csv(plan: Plan, tmp_path: Path) -> None:
    write_audit(plan.audit, tmp_path / "audit.csv")
    with open(tmp_path / "audit.csv", newline="") as f:
        lines = list(csv.DictReader(f))
    assert [line["slide_id"] for line in lines] == ["slide_1", "slide_2", "slide_3", "slide_4"]
    for line, row in zip(lines, plan.audit, strict=True):
        assert line == {name: "" if value is None else str(value) for name, value in row.record().items()}
    assert (lines[0]["vendor"], lines[0]["width"], lines[0]["levels"]) == ("aperio", "1500", "2")
    assert int(lines[0]["pixel_bytes"]) > 1000


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


def test_columns_of_a_later_audit_are_left_out() -> None:
    """They decide nothing and are not in the hash; a plan with one was called damaged."""
    plan = made_up(2)
    records = plan_records(plan)
    records["audit"] = [row | {"later": 1} for row in records["audit"]]
    assert_same(plan_from_records(records, plan.slides, Path("p.h5")), plan)


def test_a_plan_of_a_later_version_is_told_from_a_damaged_one() -> None:
    plan, words = made_up(1), "a later version of G2L made it: later is not known here"
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
