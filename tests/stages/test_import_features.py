"""Import: what tools wrote of a store's embeddings becomes that store again, and a store like any other."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import call_g2l
from support.extraction import PATCH_PX, TEACHER, array_files, extract, plan_cohort, write_cohort, write_teacher
from support.features import WRITERS, FeatureSlide, slides_of, write_trident
from support.importing import assert_same_rows, import_flags, one_slide, rows_of, run_import
from support.slides import damage_tiles
from support.stores import student_folder

from pipeline.store.store import Store


@pytest.mark.slow
def test_an_imported_store_takes_a_further_teacher(
    tmp_path: Path, extracted: Store, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    """By the commands: there is no plan file, for the store holds its plan; a student then learns from both."""
    out, further = tmp_path / "s.zarr", "test_efficientnet"
    run_import(write_trident(tmp_path / "features", slides), out, options)
    other = write_teacher(tmp_path / "further.safetensors", further, seed=3)
    of_first = array_files(out)
    of_further = ("--teacher", further, "--weights", other, "--device", "cpu")
    code, _, said = call_g2l("extract-teacher", out, "--out", out, *of_further, "--dtype", "float32", "--batch-size", 4)
    assert code == 0, said
    assert array_files(out) == of_first
    expected = Path(shutil.copytree(extracted.folder, tmp_path / "e.zarr"))
    same = extract(extracted.plan, expected, other, teacher=further, dtype="float32").teacher
    found = Store(out).teacher(further)
    for shard in range(same.num_shards):
        np.testing.assert_array_equal(found.read_embeddings(shard), same.read_embeddings(shard))
    assert found.attributes["preflight"] == same.attributes["preflight"]
    assert call_g2l("verify", out, "--weights", other, "--teacher", further, "--device", "cpu")[0] == 0
    student = student_folder(tmp_path / "student", "test_efficientnet", PATCH_PX)
    code, _, said = call_g2l(
        "train-student",
        out,
        "--out",
        tmp_path / "run",
        "--student",
        student,
        "--weights",
        "scratch",
        "--teacher",
        TEACHER,
        "--teacher",
        further,
        "--epochs",
        1,
        "--batch-size",
        8,
        "--device",
        "cpu",
        "--workers",
        1,
    )
    assert code == 0, said
    assert (tmp_path / "run" / "student" / "projector" / f"projector-{further}.safetensors").is_file()
    code, _, said = call_g2l(
        "extract-teacher", out, "--out", out, "--teacher", TEACHER, "--weights", options["weights"], "--device", "cpu"
    )
    assert (code, "settings.imported" in said) == (1, True), said


@pytest.mark.parametrize("layout", WRITERS)
def test_each_layout_comes_back_without_loss(
    tmp_path: Path, layout: str, extracted: Store, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    features = WRITERS[layout](tmp_path / "features", slides)
    done = run_import(features, tmp_path / "s.zarr", options)
    assert done.num_failed == 0
    half = layout == "stamp"
    assert_same_rows(rows_of(done.store), rows_of(extracted), np.float16 if half else np.float32)
    assert done.teacher.attributes["proof"]["min_slide_cosine"] > (0.999 if half else 0.999999)
    assert done.teacher.spec.settings["imported"]["layouts"] == [layout.split()[0]]
    assert done.teacher.spec.teacher == extracted.first.spec.teacher
    assert [s.content() for s in done.store.plan.slides] == [s.content() for s in extracted.plan.slides]
    assert done.store.plan.config.mpp == 0.5


@pytest.mark.slow
def test_a_whole_number_of_level_0_pixels_is_the_rounding_of_what_was_asked_for(
    tmp_path: Path, weights: Path, options: dict[str, Any]
) -> None:
    """64 px at 0.5 are 126.63 pixels of 0.2527 um: 127 in the files, and yet the same pixels as extracted."""
    manifest = write_cohort(tmp_path / "slides", 1, mpp=0.2527)
    store = extract(
        plan_cohort(manifest, resampling="lanczos-pillow"), tmp_path / "e.zarr", weights, dtype="float32"
    ).store
    more = {"slides_root": manifest.parent, "manifest": manifest}
    for layout in ("trident", "stamp", "slide2vec"):
        features = WRITERS[layout](tmp_path / layout, slides_of(store))
        found = run_import(features, tmp_path / f"{layout}.zarr", options | more).store
        half = layout == "stamp"
        assert_same_rows(rows_of(found), rows_of(store), np.float16 if half else np.float32)


@pytest.mark.slow
def test_patches_that_the_encoder_shrank_are_read_at_what_it_saw(
    tmp_path: Path, pyramids: Path, weights: Path, options: dict[str, Any]
) -> None:
    """The tool cut 80 pixels at 0.5 um, the encoder took them as 64: 0.625 um a pixel, as `plan --mpp 0.625` has it."""
    plan = plan_cohort(pyramids / "manifest.csv", mpp=0.625, resampling="lanczos-pillow")
    store = extract(plan, tmp_path / "e.zarr", weights, dtype="float32").store
    cut = [replace(s, patch_px=80, mpp=0.5) for s in slides_of(store)]
    for layout in ("trident", "stamp", "slide2vec"):
        features = WRITERS[layout](tmp_path / layout, cut)
        found = run_import(features, tmp_path / f"{layout}.zarr", options, patch_px=PATCH_PX).store
        assert_same_rows(rows_of(found), rows_of(store), np.float16 if layout == "stamp" else np.float32)
        assert found.plan.config.mpp == 0.625


@pytest.mark.slow
def test_the_store_is_as_any_other(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], weights: Path
) -> None:
    features, out = write_trident(tmp_path / "features", slides), tmp_path / "s.zarr"
    code, said, _ = call_g2l("import-features", features, "--out", out, *import_flags(options))
    assert code == 0
    assert "24 rows of 96 dimensions in 3 shards" in said
    assert "proven on 8 patches that were embedded again" in said
    code, said, _ = call_g2l("inspect", out)
    assert (code, "24 ok" in said) == (0, True)
    assert "features of trident; proven on 8 patches" in said
    code, said, _ = call_g2l("verify", out, "--weights", weights, "--device", "cpu")
    assert (code, "3 of 3 shards: all files are as written" in said) == (0, True)
    code, said, err = call_g2l(
        "train-student",
        out,
        "--out",
        tmp_path / "run",
        "--student",
        TEACHER,
        "--weights",
        "scratch",
        "--device",
        "cpu",
        "--epochs",
        1,
        "--batch-size",
        4,
        "--workers",
        1,
    )
    assert code == 0, err
    assert (tmp_path / "run" / "student" / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_slide_that_cannot_be_read_fails_its_rows(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], pyramids: Path
) -> None:
    spoilt_slides = Path(shutil.copytree(pyramids, tmp_path / "slides"))
    features, out = write_trident(tmp_path / "features", slides), tmp_path / "s.zarr"
    x, y = one_slide(slides).coords[0].tolist()
    damage_tiles(pyramids / "s1.svs", [(x // 64, y // 64)], out=spoilt_slides / "s1.svs")
    more = import_flags(options | {"slides_root": spoilt_slides, "check_rows": 0})
    code, said, _ = call_g2l("import-features", features, "--out", out, *more)
    assert code == 3
    assert "unreadable" in said
    shutil.copy(pyramids / "s1.svs", spoilt_slides / "s1.svs")
    code, _, err = call_g2l("import-features", features, "--out", out, *more, "--retry-failures")
    assert code == 0, err
    assert Store(out).first.ledger.status_counts()["OK"] == 24
