"""Plans by annotations: what is kept, recorded and hashed, what is refused, and that changed files are noticed."""

import errno
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import support.slides as sf
from PIL import Image, ImageDraw
from support.annotated import write_geojson
from support.failing import failing
from support.plans import SMALL, make_plan

from pipeline.base import console
from pipeline.base.errors import ConfigError, PlanError, SlideError
from pipeline.cohort import annotated
from pipeline.cohort.annotated import (
    changed_annotations,
    class_spelling_notes,
    file_hashes,
    require_known_classes,
    require_tissue_files,
    slide_annotations,
)
from pipeline.cohort.audit import ADDED_COLUMNS, write_audit
from pipeline.cohort.manifest.read import read_manifest, write_manifest
from pipeline.cohort.manifest.rows import Manifest, ManifestRow
from pipeline.cohort.plan import Plan
from pipeline.cohort.plan_hdf5 import read_plan, write_plan
from pipeline.config.class_rules import ClassRules
from pipeline.config.plan import PlanConfig
from pipeline.disk.files import sha256_file
from pipeline.slides.annotations.regions import Annotations
from pipeline.slides.reader import Slide
from pipeline.store.plan_arrays import read_stored_plan, write_stored_plan
from stages.plan import plan_slides
from stages.planning.to_extract import plan_beside
from stages.planning.write import write_new_plan


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("annotated")
    for number in range(3):
        sf.make_slide(folder / f"s{number}.svs", width=768, height=512, mpp=0.5, downsamples=(1,), seed=number)
    return folder


@pytest.fixture
def manifest(slides: Path) -> Path:
    """Three slides; the last has no annotations."""
    write_geojson(slides / "s0.geojson", tumour=(0, 0, 512, 512), necrosis=(0, 0, 100, 100))
    write_geojson(slides / "s1.geojson", stroma=(0, 0, 768, 384))
    files = ("s0.geojson", "s1.geojson", None)
    rows = [ManifestRow(f"s{i}", f"s{i}.svs", f"c{i}", annotations=name) for i, name in enumerate(files)]
    write_manifest(slides / "m.csv", rows)
    return slides / "m.csv"


def reasons(plan: Plan) -> dict[str, str]:
    return {row.slide_id: row.reason for row in plan.audit if row.status == "failed"}


def test_patches_of_included_classes(manifest: Path) -> None:
    plan = make_plan(manifest, min_tissue=0, include=["tumour"], exclude=["necrosis"], patches_per_slide=999)
    (slide,) = plan.slides
    assert slide.slide_id == "s0"
    assert slide.coords_l0_px[:, 0].max() == 448
    assert len(slide.coords_l0_px) == 8 * 8 - 4  # four patches touch the necrosis
    assert slide.classes is not None
    assert slide.classes.of(["tumour"]).min() == 1
    assert reasons(plan) == {
        "s1": "its annotations have no tumour (--include); they have stroma",
        "s2": "the manifest gives it no annotations, and --include asks for tumour",
    }
    first = plan.audit[0]
    assert json.loads(first.classes_mm2) == {"necrosis": 0.0025, "tumour": 0.0655}
    assert first.annotations_sha256 == sha256_file(manifest.with_name("s0.geojson"))
    assert (first.patches_available, first.tissue_sha256) == (60, "")


@pytest.mark.slow
def test_coordinates_count_from_the_scanned_part_where_qupath_wrote_them(tmp_path: Path) -> None:
    """QuPath opens only that part of a slide, and its coordinates begin there."""
    sf.make_leica_slide(tmp_path / "a.scn", scanned_l0_px=(512, 256, 768, 512))
    write_geojson(tmp_path / "a.geojson", tumour=(0, 0, 256, 192))
    write_manifest(tmp_path / "m.csv", [ManifestRow("a", "a.scn", "c", annotations="a.geojson")])

    def corners(**options: object) -> set[tuple[int, int]]:
        options = {"min_tissue": 0, "include": ["tumour"], "min_class": 1.0} | options
        plan = make_plan(tmp_path / "m.csv", patches_per_slide=999, **options)
        return {(x, y) for slide in plan.slides for x, y in slide.coords_l0_px.tolist()}

    first = {(x, y) for x in range(512, 768, 64) for y in range(256, 448, 64)}
    assert corners() == corners(annotation_origin="scan") == first
    with pytest.raises(PlanError, match=r"beyond the scanned area of slide a, .*--annotation-origin scan"):
        corners(annotation_origin="slide")


def test_why_annotations_hold_no_class_is_said(tmp_path: Path) -> None:
    sf.make_slide(tmp_path / "a.svs", width=768, height=512, mpp=0.5, downsamples=(1,))
    write_geojson(tmp_path / "a.geojson", tumour=(0, 0, 256, 192))
    text = (tmp_path / "a.geojson").read_text().replace('"annotation"', '"cell"')
    (tmp_path / "a.geojson").write_text(text)
    write_manifest(tmp_path / "m.csv", [ManifestRow("a", "a.svs", "c", annotations="a.geojson")])
    with pytest.raises(PlanError, match=r"no class at all\na: 1 region .*of kind cell, not an annotation: left out"):
        make_plan(tmp_path / "m.csv", include=["tumour"])


def test_a_plan_with_classes_is_read_back_from_its_file_and_from_a_store(manifest: Path, tmp_path: Path) -> None:
    plan = make_plan(manifest)
    write_plan(plan, tmp_path / "p.h5")
    write_stored_plan(tmp_path / "plan", plan)
    with h5py.File(tmp_path / "p.h5") as f:
        assert json.loads(f["slides/s0/class_fractions"].attrs["classes"]) == ["necrosis", "tumour"]
        assert f["slides/s0/class_fractions"].shape == (12, 2)
        assert "class_fractions" not in f["slides/s2"]
    for back in (read_plan(tmp_path / "p.h5"), read_stored_plan(tmp_path / "plan", plan.hash)):
        assert back.hash == plan.hash
        assert back.audit == plan.audit
        assert back.slides[2].classes is None
        for mine, other in zip(plan.slides[:2], back.slides[:2], strict=True):
            assert mine.classes is not None
            assert other.classes is not None
            assert mine.classes.names == other.classes.names
            np.testing.assert_array_equal(mine.classes.fractions, other.classes.fractions)
    first = plan.slides[0]
    assert first.classes is not None
    other = replace(first, classes=replace(first.classes, fractions=first.classes.fractions[::-1]))
    assert replace(plan, slides=(other, *plan.slides[1:])).hash != plan.hash


def test_a_damaged_dataset_of_classes_is_refused(manifest: Path, tmp_path: Path) -> None:
    write_plan(make_plan(manifest), tmp_path / "p.h5")
    with h5py.File(tmp_path / "p.h5", "r+") as f:
        values = f["slides/s0/class_fractions"]
        values[0, 0] += 0.5
    with pytest.raises(PlanError, match="its content does not match its hash"):
        read_plan(tmp_path / "p.h5")
    with h5py.File(tmp_path / "p.h5", "r+") as f:
        del f["slides/s0/class_fractions"]
    with pytest.raises(PlanError, match="not a readable plan"):
        read_plan(tmp_path / "p.h5")


def test_without_annotations_nothing_is_added(plan: Plan, tmp_path: Path) -> None:
    """The records are what earlier versions wrote, but for what rules of the tissue finder dropped."""
    of_annotations = set(ADDED_COLUMNS) - {"dropped_mm2"}
    assert all(not row.record().keys() & of_annotations for row in plan.audit)
    assert all("classes" not in slide.content() for slide in plan.slides)
    write_audit(plan.audit, tmp_path / "a.csv")
    header = (tmp_path / "a.csv").read_text().splitlines()[0].split(",")
    assert header == [name for name in asdict(plan.audit[0]) if name not in of_annotations]
    write_stored_plan(tmp_path / "plan", plan)
    assert not (tmp_path / "plan" / "class_fractions").exists()


@pytest.mark.slow
def test_the_sample_by_class(manifest: Path) -> None:
    options = {"min_tissue": 0, "sample": "class", "class_quota": ["tumour=3", "necrosis=1"], "min_class": 0.2}
    small, large = (make_plan(manifest, patches_per_slide=n, **options).slides[0] for n in (8, 24))
    assert small.classes is not None
    assert (small.classes.of(["necrosis"]) >= 0.2).sum() == 2  # a quarter of the patches
    assert {tuple(xy) for xy in small.coords_l0_px} < {tuple(xy) for xy in large.coords_l0_px}


@pytest.mark.slow
def test_a_class_drawn_within_another_has_its_quota_whatever_its_name(manifest: Path) -> None:
    """In QuPath a focus is mostly drawn within a region without being cut out of it. Plans of earlier versions keep
    their samples.
    """
    for outer, inner in (("Invasive", "Necrosis"), ("Tumour", "Necrosis")):
        write_geojson(manifest.with_name("s0.geojson"), **{outer: (0, 0, 768, 512), inner: (0, 0, 256, 256)})
        options = {"sample": "class", "min_tissue": 0, "patches_per_slide": 8, "include": [outer]}
        slide = make_plan(manifest, **options).slides[0]
        assert slide.classes is not None
        assert (slide.classes.of([inner]) == 1).sum() == 4
    old = PlanConfig.from_record(PlanConfig.build(options).record() | {"class_overlap": "most"})
    lacking = PlanConfig.from_record({name: v for name, v in old.record().items() if name != "class_overlap"})
    assert lacking.sampling == old.sampling
    assert PlanConfig.build(options).continuing(lacking).deciding() == lacking.deciding()


@pytest.mark.slow
def test_a_budget_keeps_quotas_and_classes(manifest: Path) -> None:
    options = {"sample": "class", "class_quota": ["tumour=3", "necrosis=1"], "min_class": 0.2, "min_tissue": 0}
    budgeted, by_slide = (
        plan_slides(read_manifest(manifest), PlanConfig.build({"patch_px": 64} | options | number), workers=2)
        for number in ({"budget": "24"}, {"patches_per_slide": 8})
    )
    for mine, other in zip(budgeted.slides, by_slide.slides, strict=True):
        np.testing.assert_array_equal(mine.coords_l0_px, other.coords_l0_px)
        assert (mine.classes is None) == (other.classes is None)
        if mine.classes is not None and other.classes is not None:
            np.testing.assert_array_equal(mine.classes.fractions, other.classes.fractions)


@pytest.mark.slow
def test_a_slide_without_annotations_is_sampled_uniformly(manifest: Path) -> None:
    uniform, by_class = (make_plan(manifest, patches_per_slide=8, sample=sample) for sample in ("uniform", "class"))
    np.testing.assert_array_equal(uniform.slides[2].coords_l0_px, by_class.slides[2].coords_l0_px)
    assert "its sample is uniform" in by_class.audit[2].warnings
    assert by_class.hash != uniform.hash


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"tiling": "level0"}, {"tile_px": 80}, {"val_strip": 0.3}], ids=str)
def test_classes_go_with_other_grids(manifest: Path, options: dict[str, object]) -> None:
    plan = make_plan(manifest, min_tissue=0, include=["tumour"], patches_per_slide=999, **options)
    (slide,) = plan.slides
    assert slide.classes is not None
    assert slide.classes.of(["tumour"]).min() >= 0.5
    assert len(slide.classes.fractions) == len(slide.coords_l0_px) == len(slide.split)


# Refused


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (ClassRules(include=("tumor",)), r"--include tumor: no slide has this class \(did you mean tumour\?\)"),
        (
            ClassRules(include=("Tumour",)),
            "--include Tumour: no slide has this class; there is tumour, and capitals count\n",
        ),
        (ClassRules(exclude=("pen",)), "--exclude pen: .*\nThe annotations have necrosis, stroma, tumour$"),
        (ClassRules(quotas=(("fat", 1.0),)), "--class-quota fat: no slide has this class"),
    ],
)
def test_a_class_that_no_slide_has_is_refused(manifest: Path, rules: ClassRules, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        require_known_classes(read_manifest(manifest), rules, "uniform")


def test_annotations_are_read_only_until_all_classes_are_known(manifest: Path) -> None:
    manifest.with_name("s1.geojson").write_text("{")
    require_known_classes(read_manifest(manifest), ClassRules(include=("tumour",), exclude=("necrosis",)), "class")
    with pytest.raises(PlanError, match="--include stroma"):
        require_known_classes(read_manifest(manifest), ClassRules(include=("stroma",)), "class")


def count_readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files of annotations that are read from now on."""
    read, read_annotations = list[str](), annotated.read_annotations

    def noted(path: Path, **facts: object) -> Annotations:
        read.append(path.name)
        return read_annotations(path, **facts)  # type: ignore[arg-type]

    monkeypatch.setattr(annotated, "read_annotations", noted)
    return read


@pytest.mark.slow
def test_annotations_are_read_once(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = make_plan(manifest, include=["stroma"], min_tissue=0)
    read = count_readings(monkeypatch)
    assert make_plan(manifest, include=["stroma"], min_tissue=0).hash == before.hash
    assert sorted(read) == ["s0.geojson", "s1.geojson"]


@pytest.mark.slow
def test_annotations_that_there_is_no_room_for_are_read_again(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = make_plan(manifest, include=["stroma"], min_tissue=0)
    monkeypatch.setattr(annotated, "MOST_KEPT_BYTES", 0)
    read = count_readings(monkeypatch)
    assert make_plan(manifest, include=["stroma"], min_tissue=0).hash == before.hash
    assert sorted(read) == ["s0.geojson", "s0.geojson", "s1.geojson", "s1.geojson"]


def test_a_file_is_not_hashed_for_annotations_that_were_not_kept(
    manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan without options of classes keeps none; each file was read twice as often all the same."""
    rows = read_manifest(manifest)
    seen = require_known_classes(rows, ClassRules(), "uniform")
    monkeypatch.setattr(annotated, "sha256_file", failing(AssertionError("hashed")))
    row = rows.rows[0]
    assert slide_annotations(rows, row, Slide(rows.slide_path(row), row.mpp), "auto", seen) is not None


def test_annotations_that_have_changed_since_are_read_again(manifest: Path) -> None:
    rows = read_manifest(manifest)
    seen = require_known_classes(rows, ClassRules(include=("stroma",)), "uniform")
    write_geojson(manifest.with_name("s0.geojson"), other=(0, 0, 90, 90))
    classes = []
    for row in rows.rows[:2]:
        regions = slide_annotations(rows, row, Slide(rows.slide_path(row), row.mpp), "auto", seen)
        assert regions is not None
        classes.append(regions.classes)
    assert classes == [("other",), ("stroma",)]


def test_the_search_for_classes_says_how_far_it_is(
    manifest: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "QUIET_SECONDS", 0.0)
    require_known_classes(read_manifest(manifest), ClassRules(include=("stroma",)), "uniform")
    assert "looking for classes: 1 of 2 slides" in capsys.readouterr().err


def test_classes_without_any_annotations_are_refused(cohort: Path) -> None:
    with pytest.raises(PlanError, match=r"--include a: .*\nno row of the manifest has annotations"):
        make_plan(cohort, include=["a"])
    with pytest.raises(PlanError, match="--sample class: no row of the manifest has annotations"):
        make_plan(cohort, sample="class")


def test_a_missing_class_is_said_with_the_files_that_could_not_be_read(manifest: Path) -> None:
    manifest.with_name("s0.geojson").write_text("{")
    words = r"the annotations of 1 slide could not be read:\ns0: .*s0\.geojson: not readable"
    with pytest.raises(PlanError, match=rf"--include tumour: no slide .*\n.*other slides have stroma\. (?i:{words})"):
        require_known_classes(read_manifest(manifest), ClassRules(include=("tumour",)), "uniform")


@pytest.mark.slow
def test_a_slide_whose_annotations_cannot_be_read_fails_by_name(manifest: Path) -> None:
    manifest.with_name("s0.geojson").write_text("{")
    plan = make_plan(manifest)
    assert [slide.slide_id for slide in plan.slides] == ["s1", "s2"]
    assert "s0.geojson" in reasons(plan)["s0"]
    manifest_read = read_manifest(manifest)
    with pytest.raises(SlideError, match=r"s0\.geojson"):
        slide_annotations(manifest_read, manifest_read.rows[0], Slide(manifest.with_name("s0.svs")), "auto")


# Noticed


@pytest.mark.slow
def test_changed_files_are_noticed_beside_a_store(manifest: Path, tmp_path: Path) -> None:
    config, store = PlanConfig.build(SMALL | {"workers": 2}), tmp_path / "s.zarr"
    plan, path = plan_beside(manifest, config, store)
    assert plan_beside(manifest, config, store)[0].hash == plan.hash
    write_geojson(manifest.with_name("s1.geojson"), stroma=(0, 0, 768, 385))
    with pytest.raises(PlanError, match="s1: another content of its file of annotations, or none"):
        plan_beside(manifest, config, store)
    assert path.exists()


@pytest.mark.slow
def test_corrected_tissue_is_taken_recorded_and_noticed(manifest: Path, tmp_path: Path) -> None:
    written = PlanConfig.build(SMALL | {"workers": 2, "tissue_geojson": tmp_path / "tissue"})
    plan = write_new_plan(manifest, written, tmp_path / "p.h5")
    files = sorted((tmp_path / "tissue").iterdir())
    assert [path.name for path in files] == ["s0.geojson", "s1.geojson", "s2.geojson"]
    taken = PlanConfig.build(SMALL | {"workers": 2, "tissue_from": tmp_path / "tissue"})
    store = tmp_path / "s.zarr"
    again, _ = plan_beside(manifest, taken, store)
    assert again.hash == plan.hash
    assert [row.tissue_sha256 for row in again.audit] == [sha256_file(path) for path in files]
    read = read_manifest(manifest)
    assert changed_annotations(again, read, tmp_path / "tissue") == []
    assert len(changed_annotations(again, read, None)) == 3
    write_geojson(files[0], Tissue=(0, 0, 512, 512))
    files[1].unlink()
    with pytest.raises(PlanError, match="s0: another content of its file in --tissue-from, or none"):
        plan_beside(manifest, taken, store)
    corrected = make_plan(manifest, tissue_from=tmp_path / "tissue", patches_per_slide=999, min_tissue=1)
    assert corrected.slides[0].slide_id == "s0"
    assert len(corrected.slides[0].coords_l0_px) == 64
    assert "no such file, and --tissue-from takes" in reasons(corrected)["s1"]


@pytest.mark.slow
def test_untouched_files_of_a_slide_with_ink_give_the_same_plan(tmp_path: Path) -> None:
    """Beside ink, too: `--max-artefact` counts what the rules dropped, from the file as from the picture. Every bound
    counts, and a file of an earlier version, without artefacts, means what it meant.
    """
    pixels = sf.make_pixels("tissue", 4096, 3072, seed=1, mpp=0.5)
    picture = Image.fromarray(pixels)
    ImageDraw.Draw(picture).line([(300, 300), (3800, 2700)], fill=(20, 40, 160), width=200)
    sf.write_slide(tmp_path / "a.svs", np.asarray(picture), mpp=0.5)
    write_manifest(tmp_path / "m.csv", [ManifestRow("a", "a.svs", "c")])
    folder = tmp_path / "tissue"
    write_new_plan(tmp_path / "m.csv", PlanConfig.build({"tissue_geojson": folder, "workers": 1}), tmp_path / "p.h5")
    hashes = set()
    for bound in (0.0, 0.1, 1.0):
        options = {"patch_px": 64, "patches_per_slide": 10_000, "max_artefact": bound}
        found, taken = (
            make_plan(tmp_path / "m.csv", **options),
            make_plan(tmp_path / "m.csv", **options, tissue_from=folder),
        )
        assert taken.hash == found.hash
        assert taken.audit[0].patches_covered == found.audit[0].patches_covered
        assert taken.audit[0].covering_rules() == found.audit[0].covering_rules()
        assert taken.audit[0].dropped_areas() == {"pen": found.audit[0].dropped_areas()["pen"]}
        assert found.audit[0].warnings.startswith("the rule pen took 25% of what had been found as tissue")
        assert taken.audit[0].warnings == ""  # a person has looked at it
        hashes.add(found.hash)
    assert len(hashes) == 3
    path = folder / "a.geojson"
    collection = json.loads(path.read_text())
    of_tissue = [one for one in collection["features"] if one["properties"]["classification"]["name"] == "Tissue"]
    path.write_text(json.dumps(collection | {"features": of_tissue}))
    earlier = make_plan(tmp_path / "m.csv", **options | {"max_artefact": 0.0}, tissue_from=folder)
    np.testing.assert_array_equal(earlier.slides[0].coords_l0_px, found.slides[0].coords_l0_px)  # as with a bound of 1


def test_files_of_tissue_are_not_written_over(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "s1.geojson").write_text("mine")
    with pytest.raises(Exception, match=r"s1\.geojson exists and is not overwritten"):
        write_new_plan(manifest, PlanConfig.build(SMALL | {"tissue_geojson": tmp_path / "t"}), tmp_path / "p.h5")
    assert (tmp_path / "t" / "s1.geojson").read_text() == "mine"


def test_rows_of_no_plan_are_passed_over(plan: Plan, tmp_path: Path) -> None:
    assert changed_annotations(plan, Manifest((), tmp_path / "m.csv", tmp_path), None) == []


def test_a_file_that_may_not_be_read_is_named_once(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in for the system's answer: whoever may read everything gets no other."""

    def refuse(path: Path) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(annotated, "sha256_file", refuse)
    read = read_manifest(manifest)
    with pytest.raises(SlideError) as caught:
        file_hashes(read, read.rows[0], None)
    assert str(caught.value) == f"{manifest.with_name('s0.geojson')} cannot be read: Permission denied"
    assert caught.value.about == "annotations"


def test_a_folder_of_tissue_that_has_no_file_of_any_slide_is_refused_once(manifest: Path, tmp_path: Path) -> None:
    read = read_manifest(manifest)
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    words = {
        "gone": "gone is not a folder that can be read: no such file",
        "file": "file is not a folder that can be read: it is a file",
        "empty": r"empty has the file of no slide that is planned; that of the first would be s0\.geojson",
    }
    for name, why in words.items():
        with pytest.raises(ConfigError, match=rf"--tissue-from .*{why}"):
            require_tissue_files(tmp_path / name, read)
        with pytest.raises(ConfigError, match=rf"--tissue-from .*{why}"):
            make_plan(manifest, tissue_from=tmp_path / name)
    (tmp_path / "empty" / "s2.geojson").write_bytes(b"")
    require_tissue_files(tmp_path / "empty", read)


def test_a_folder_of_tissue_that_may_not_be_entered_is_not_called_empty(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a stand-in for the system's answer: whoever may read everything gets no other."""
    monkeypatch.setattr(annotated, "file_trouble", lambda path: "Permission denied")
    with pytest.raises(ConfigError, match=r"is not a folder that can be read: Permission denied$"):
        require_tissue_files(tmp_path, read_manifest(manifest))


# Spelled in several ways

NFC, NFD = "Tum\u00f6r", " Tumo\u0308r\u00a0"
"""One class in two spellings."""


def test_spellings_over_a_cohort_are_noted() -> None:
    notes = class_spelling_notes([{NFC: (NFC,)}, {NFC: (NFD,), "a": ("a",)}, {NFC: (NFD,), "A": ("A",)}, {}])
    assert notes == [
        rf"class {NFC} is spelled in 2 ways, taken as one: ' Tumo\u0308r\xa0' (2 slides), 'Tum\xf6r' (1 slide)",
        "These classes of annotations differ only in spelling (capitals, blanks, zeros, ...) and count as different: "
        "'A' and 'a'.",
    ]
    assert class_spelling_notes([{"a": ("a",)}, {"b": ("b",)}]) == []


@pytest.mark.slow
def test_slides_that_spell_a_class_differently_have_one_class(
    manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_geojson(manifest.with_name("s0.geojson"), **{NFC: (0, 0, 512, 512)})
    write_geojson(manifest.with_name("s1.geojson"), **{NFD: (0, 0, 768, 384)})
    plan = make_plan(manifest, include=["Tumo\u0308r"])
    assert [slide.classes and slide.classes.names for slide in plan.slides] == [(NFC,), (NFC,)]
    assert plan.config.include == [NFC]
    said = capsys.readouterr()
    assert f"note: class {NFC} is spelled in 2 ways, taken as one: " in said.out + said.err


@pytest.mark.slow
def test_a_plan_of_names_that_are_not_clean_opens_and_continues(manifest: Path, tmp_path: Path) -> None:
    """As earlier versions wrote it: its names stay as they are, and so does its hash."""
    now = PlanConfig.build(SMALL | {"workers": 2, "include": ["tumour"]})
    plan, path = plan_beside(manifest, now, tmp_path / "s.zarr")
    (slide,) = plan.slides
    assert slide.classes is not None
    old_names = ("necrosis ", "tumour\u00a0")
    old = replace(
        plan,
        config=plan.config.model_copy(update={"include": ["tumour\u00a0"]}),
        slides=(replace(slide, classes=replace(slide.classes, names=old_names)),),
    )
    assert old.hash != plan.hash
    path.unlink()
    write_plan(old, path)
    back = read_plan(path)
    assert (back.hash, back.config.include) == (old.hash, ["tumour\u00a0"])
    assert back.slides[0].classes is not None
    assert back.slides[0].classes.names == old_names
    for written in ("tumour", "tumour\u00a0"):
        config = PlanConfig.build(SMALL | {"workers": 2, "include": [written]})
        assert plan_beside(manifest, config, tmp_path / "s.zarr")[0].hash == old.hash
    with pytest.raises(PlanError, match="include: "):
        plan_beside(manifest, PlanConfig.build(SMALL | {"include": ["necrosis"]}), tmp_path / "s.zarr")
