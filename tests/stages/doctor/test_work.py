"""Manifests, stores and runs that a doctor looks at: sound ones, and what is wrong with others."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.annotated import write_geojson
from support.extraction import TEACHER
from support.slides import make_slide, not_a_slide
from support.stores import make_store, train_config
from support.training import train_once

from pipeline.base.errors import G2LError
from pipeline.cohort.manifest.read import read_manifest
from pipeline.config.plan import PlanConfig
from pipeline.store.create import open_round
from pipeline.store.ledger import Ledger
from pipeline.store.store import Store
from pipeline.student.weights_place import NOTED_WEIGHTS
from pipeline.training.run_folder import RunFolder
from stages.doctor import work
from stages.doctor.estimate import TriedSlides
from stages.doctor.findings import Finding

DEFAULTS = TriedSlides.by(PlanConfig())


def of_manifest(path: Path, seconds: float | None = None) -> list[Finding]:
    return list(work.look_at_manifest(path, path.parent, seconds, DEFAULTS))


def test_the_first_slides_are_read_and_the_whole_is_estimated(manifest: Path) -> None:
    found = of_manifest(manifest, 0.01)
    assert not [each for each in found if each.level == "trouble"]
    said = {each.subject: each.words for each in found}
    assert "ms a patch to read and encode" in said["a"]
    assert "for the teacher, beside it" in said["estimate"]
    (audited,) = [work.try_slide(read_manifest(manifest, None), "a", DEFAULTS)[1]]
    assert audited.slide is not None
    unnamed = {each.subject: each for each in of_manifest(manifest)}["estimate"]
    assert "the teacher's time is unknown" in unnamed.words
    assert "g2l doctor MANIFEST --teacher NAME" in unnamed.advice
    assert {each.subject: each for each in found}["estimate"].advice == ""
    assert "a second from" in said["reading"]


def test_what_is_wrong_with_a_cohort_is_told(manifest: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cohort"
    shutil.copytree(manifest.parent, folder)
    lines = (folder / "manifest.csv").read_text().splitlines()
    broken = not_a_slide(folder / "broken.tif")
    header = "slide_id,path"
    (folder / "m.csv").write_text(f"{header}\n{'x' * 3},{broken.name}\n")
    found = {each.subject: each for each in of_manifest(folder / "m.csv")}
    assert found["xxx"].level == "trouble"
    assert found["cases"].level == "note"
    assert "estimate" not in found
    other = not_a_slide(folder / "other.tif")
    other.write_bytes(other.read_bytes() + b"0")
    (folder / "p.csv").write_text(
        f"{header},case_id\nx,{broken.name},TCGA-3C-AALI-01A\ny,{other.name},TCGA-3C-AALI-11A\n"
    )
    parted = {each.subject: each for each in of_manifest(folder / "p.csv")}["cases"]
    assert "1 patient has slides of several cases" in parted.words
    (folder / "gone.csv").write_text(f"{header}\ngone,absent.tif\n")
    (gone,) = of_manifest(folder / "gone.csv")
    assert gone.level == "trouble"
    assert "absent.tif" in gone.words
    (folder / "n.csv").write_text("\n".join([lines[0], lines[1], lines[1]]))
    (twice,) = of_manifest(folder / "n.csv")
    assert twice.level == "trouble"
    assert "slide_id" in twice.words


def test_a_store_says_how_far_it_is_and_what_it_lacks(good_store: Path, tmp_path: Path) -> None:
    (whole,) = work.look_at_store(Store(good_store))
    assert (whole.subject, whole.level) == (TEACHER, "ok")
    assert "3 of 3 shards done" in whole.words
    place = Path(shutil.copytree(good_store, tmp_path / "store.zarr"))
    first = Store(place).first
    first.ledger.forget(1)
    found = {each.subject: each for each in work.look_at_store(Store(place))}
    assert found[TEACHER].level == "note"
    assert "to go at their rate" in found[TEACHER].words
    assert found["slides"].level == "ok"


def test_failed_rows_that_no_mending_brings_back_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slide with a damaged tile can be mended; where a scanner left pixels out, there are none."""
    store = make_store(tmp_path / "s.zarr", failed=[3, 17])
    unreadable = next(finding for finding in work.look_at_store(store) if finding.words == "2 rows failed")
    assert unreadable.advice.endswith("mend the slides, then `extract-teacher --retry-failures`")
    counts = store.first.ledger.status_counts()
    monkeypatch.setattr(Ledger, "status_counts", lambda *_: counts | {"UNREADABLE": 0, "EMPTY": 2})
    empty = next(finding for finding in work.look_at_store(store) if finding.words == "2 rows failed")
    assert empty.advice.endswith("nothing else: the slides' files have no pixels there")


def test_a_round_that_is_not_finished_is_told(tmp_path: Path) -> None:
    """Of view 1 a shard of four took a minute: three are to come."""
    store = make_store(tmp_path / "store.zarr")
    first = store.first
    made, entry = open_round(first, first.plan, 1, {"views_seed": 0}, {}), first.ledger.read(0)
    assert entry is not None
    made.ledger.write(0, entry | {"seconds": 60.0})
    found = {each.subject: each for each in work.look_at_store(store)}
    assert found[first.name].level == "ok"
    unfinished = found[f"{first.name}, view 1"]
    assert (unfinished.level, unfinished.advice) == ("note", work.CONTINUE)
    assert unfinished.words == "1 of 4 shards done; about 3 min 00 s to go at their rate"


def test_a_store_whose_slides_have_gone_is_trouble(good_store: Path, tmp_path: Path) -> None:
    cohort = tmp_path / "store.zarr"
    shutil.copytree(good_store, cohort)
    store = Store(cohort)
    store.first.ledger.forget(0)
    store = Store(cohort)
    gone = SimpleNamespace(
        teachers=store.teachers,
        has_pixels=store.has_pixels,
        files=store.files,
        plan=SimpleNamespace(slides=store.plan.slides, slide_path=lambda slide, root: (root or tmp_path) / "gone.tif"),
    )
    found = {each.subject: each for each in work.look_at_store(gone)}  # type: ignore[arg-type]
    assert found["slides"].level == "trouble"
    assert "gone.tif" in found["slides"].words
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "gone.tif").touch()
    found = {each.subject: each for each in work.look_at_store(gone, tmp_path / "moved")}  # type: ignore[arg-type]
    assert found["slides"].level == "ok"


def test_weights_that_have_gone_are_trouble_until_all_is_done(good_store: Path, tmp_path: Path) -> None:
    def look(noted: str | None) -> list[str]:
        store = Store(place)
        if noted is not None:
            store.teachers[TEACHER].attributes[NOTED_WEIGHTS] = noted
        found = work.look_at_store(store)
        return [each.words for each in found if each.level == "trouble" and each.subject == TEACHER]

    place = Path(shutil.copytree(good_store, tmp_path / "store.zarr"))
    gone = str(tmp_path / "gone.safetensors")
    assert not look(gone)
    Store(place).first.ledger.forget(1)
    assert not look(None)
    (words,) = look(gone)
    assert f"no longer at {gone}" in words


def test_a_run_that_cannot_go_on_says_what_training_would(tmp_path: Path) -> None:
    """Its store has gone or is not finished, or the run whose student it starts from is not."""
    run, store = RunFolder(tmp_path / "run"), tmp_path / "store.zarr"
    run.folder.mkdir()
    assert not list(work.look_at_start(run))  # no options yet
    config = train_config("vit_tiny_patch16_224")
    run.write_config(str(store), config.absolute().record())
    (gone,) = work.look_at_start(run)
    with pytest.raises(G2LError) as refused:
        Store(work.store_of_run(run) or store)
    assert (gone.level, gone.words) == ("trouble", str(refused.value))
    make_store(store, shards=1)
    (begun,) = work.look_at_start(run)
    assert "is not finished" in begun.words
    shutil.rmtree(store)
    make_store(store)
    assert not list(work.look_at_start(run))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").touch()
    other = config.model_copy(update={"weights": str(tmp_path / "other")})
    run.write_config(str(store), other.absolute().record())
    (unfinished,) = work.look_at_start(run)
    assert "this run is not finished and has no student yet" in unfinished.words
    run.write_config(str(store), config.absolute().record())
    Store(store).first.shard_path("embedding", 1).unlink()
    (half,) = work.look_at_start(run)
    assert "1 file of" in half.words


@pytest.mark.parametrize(
    ("identity", "line"),
    [
        ({}, '{"kind": "step", "step": 1, "epoch": 0}'),
        ({"options": {"loss": "log-sum"}}, '{"kind": "step", "step": 1, "epoch": 0}'),
        ({"options": {"epochs": 2}}, '{"step": 1, "epoch": 0}'),
        ({"options": {"epochs": 2}}, '{"kind": "step", "step": "one", "epoch": 0}'),
        ({"options": {"epochs": 2}}, '{"kind": "step", "step": 1}'),
    ],
)
def test_a_run_with_damaged_records_is_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, identity: dict[str, Any], line: str
) -> None:
    monkeypatch.setattr(RunFolder, "read_identity", lambda run: identity)
    (tmp_path / "metrics.jsonl").write_text(f"{line}\n")
    (damaged,) = work.look_at_run(tmp_path)
    assert (damaged.level, damaged.subject) == ("trouble", "run")
    assert "damaged" in damaged.words


@pytest.mark.slow
def test_a_run_says_how_far_it_is(tmp_path: Path) -> None:
    run = train_once(tmp_path) / "run"
    (finished,) = work.look_at_run(run)
    assert finished.level == "ok"
    assert "finished at step" in finished.words
    weights = run / "student" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    _, cut = work.look_at_run(run)
    assert (cut.level, cut.subject) == ("trouble", "student")
    assert str(weights) in cut.words
    weights.write_bytes(whole)
    shutil.rmtree(run / "student")
    (begun,) = work.look_at_run(run)
    assert begun.level == "note"
    assert begun.advice.endswith("it continues")
    identity = (run / "run.json").read_text()
    (run / "run.json").write_text(json.dumps(json.loads(identity) | {"version": 99}))
    (later,) = work.look_at_run(run)
    assert (later.level, "a run of version 99" in later.words) == ("trouble", True)
    (run / "run.json").write_text(identity)
    shutil.move(tmp_path / "store.zarr", tmp_path / "moved.zarr")
    assert [each.level for each in work.look_at_run(run)] == ["note", "trouble"]
    (run / "run.json").write_text("{")
    (damaged,) = work.look_at_run(run)
    assert damaged.level == "trouble"


def test_a_teacher_is_timed_with_random_weights() -> None:
    found, seconds = work.seconds_of_teacher(TEACHER, 64)
    assert found.level == "ok"
    assert seconds is not None
    assert 0 < seconds < 10
    assert work.seconds_of_teacher("no-such-encoder", 64)[0].level == "trouble"


def annotated(folder: Path, manifest: Path, classes: str) -> Path:
    """A manifest of the slide with a file of annotations of this text."""
    (folder / "a.geojson").write_text(classes)
    (folder / "m.csv").write_text(f"slide_id,path,case_id,annotations\na,{manifest.with_name('a.tif')},A,a.geojson\n")
    return folder / "m.csv"


def test_what_is_wrong_with_annotations_is_mended_there(manifest: Path, tmp_path: Path) -> None:
    """A damaged file, one of a slide without the class that another has, and one with a note."""
    (damaged,) = (f for f in of_manifest(annotated(tmp_path, manifest, "{")) if f.subject == "a")
    assert (damaged.level, damaged.advice) == ("trouble", work.HOW_TO_MEND["annotations"])
    path = annotated(tmp_path, manifest, "")
    write_geojson(tmp_path / "a.geojson", Tumor=(0, 0, 1600, 1280))
    write_geojson(tmp_path / "b.geojson", tumor=(0, 0, 1280, 1280))
    two = tmp_path / "two.csv"
    make_slide(tmp_path / "b.tif", width=1280, height=1280, mpp=0.5, downsamples=(1, 4))
    two.write_text(f"{path.read_text()}b,b.tif,A,b.geojson\n")
    asked = TriedSlides.by(PlanConfig(include=["tumor"]))
    found = {each.subject: each for each in work.look_at_manifest(two, tmp_path, None, asked)}
    assert (found["a"].level, found["a"].advice) == ("trouble", work.HOW_TO_MEND["annotations"])
    assert "they have Tumor, and capitals count" in found["a"].words
    assert found["b"].level == "ok"
    write_geojson(tmp_path / "a.geojson", Tumor=(0, 0, 1700, 1280))
    noted = {each.subject: each for each in of_manifest(path)}["a"]
    assert noted.level == "note"
    assert "beyond the slide" in noted.words
    assert noted.advice.endswith(work.HOW_TO_MEND["annotations"])


def test_what_is_wrong_with_corrected_tissue_is_mended_there(manifest: Path, tmp_path: Path) -> None:
    def look(folder: Path) -> dict[str, Finding]:
        planned = TriedSlides.by(PlanConfig(tissue_from=folder))
        return {each.subject: each for each in work.look_at_manifest(manifest, tmp_path, None, planned)}

    none = look(tmp_path / "nosuch")
    assert none["plan"].level == "trouble"
    assert "nosuch is not a folder" in none["plan"].words
    assert "a" not in none
    (tmp_path / "a.geojson").write_text("{")
    damaged = look(tmp_path)["a"]
    assert (damaged.level, damaged.advice) == ("trouble", work.HOW_TO_MEND["tissue"])


def test_a_misspelt_column_is_a_note(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(f"slide_id,path,cas\na,{manifest.with_name('a.tif')},A\n")
    found = {each.subject: each for each in of_manifest(tmp_path / "m.csv")}["columns"]
    assert found.level == "note"
    assert found.words.endswith("the column 'cas' is only kept as a label; rename it if case_id is meant")
