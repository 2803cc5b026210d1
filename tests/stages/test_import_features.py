"""Import: what tools wrote of a store's embeddings becomes that store again; what does not fit is refused by name."""

import csv
import json
import random
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from support.commands import call_g2l, leftovers, stop_g2l
from support.extraction import PATCH_PX, TEACHER, array_files, extract, plan_cohort, write_cohort, write_teacher
from support.features import (
    WRITERS,
    FeatureSlide,
    changed,
    slides_of,
    write_clam,
    write_slide2vec,
    write_stamp,
    write_trident,
)
from support.slides import damage_tiles, make_slide
from support.stores import student_folder

from pipeline.base.errors import BenchmarkError, ConfigError, PlanError, StoreError
from pipeline.config.model_names import PRETRAINED
from pipeline.config.tools import ImportConfig
from pipeline.encoders.build import BuiltEncoder, build_encoder
from pipeline.encoders.table import EncoderSpec
from pipeline.features.importing import FeatureRows
from pipeline.sampling import TRAIN, VAL
from pipeline.store.store import Store
from stages import import_features as stage
from stages.import_features import import_features
from stages.reports.extract import Extracted

Rows = dict[tuple[str, int, int], tuple[NDArray[Any], NDArray[np.uint8]]]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides of two levels at 0.5 um/px; shared, not changed."""
    folder = tmp_path_factory.mktemp("slides")
    write_cohort(folder, downsamples=(1, 4))
    return folder


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory, cohort: Path, weights: Path) -> Store:
    """What `extract-teacher` makes of the slides, in float32."""
    plan = plan_cohort(cohort / "manifest.csv")
    return extract(plan, tmp_path_factory.mktemp("extracted") / "s.zarr", weights, dtype="float32").store


@pytest.fixture(scope="module")
def slides(extracted: Store) -> list[FeatureSlide]:
    return slides_of(extracted)


@pytest.fixture(scope="module")
def options(cohort: Path, weights: Path) -> dict[str, Any]:
    return {
        "slides_root": cohort,
        "manifest": cohort / "manifest.csv",
        "teacher": TEACHER,
        "weights": weights,
        "dtype": "float32",
        "rows_per_shard": 8,
        "val_fraction": 0.5,
        "device": "cpu",
        "workers": 2,
    }


def run(features: Path, out: Path, options: dict[str, Any], **more: Any) -> Extracted:
    return import_features(features, out, ImportConfig.build(options | more))


def rows_of(store: Store) -> Rows:
    """Embedding and pixels of every row, by slide and corner."""
    plan = store.plan
    features = np.concatenate([store.first.read_embeddings(shard) for shard in range(store.first.num_shards)])
    names = [plan.slides[i].slide_id for i in plan.slide_of_row()]
    corners = plan.coords().tolist()
    return {
        (n, x, y): (features[i], store.read_pixels(i)) for i, (n, (x, y)) in enumerate(zip(names, corners, strict=True))
    }


def assert_same_rows(found: Rows, expected: Rows, type_: type[Any] = np.float32) -> None:
    assert found.keys() == expected.keys()
    for key, (embedding, pixels) in expected.items():
        np.testing.assert_array_equal(found[key][0], embedding.astype(type_).astype(np.float32), err_msg=str(key))
        np.testing.assert_array_equal(found[key][1], pixels, err_msg=str(key))


def audit_of(store: Store) -> dict[str, str]:
    return {row.slide_id: row.reason for row in store.plan.audit if row.status != "ok"}


# --- a further teacher ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_imported_store_takes_a_further_teacher(
    tmp_path: Path, extracted: Store, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    """By the commands: there is no plan file, for the store holds its plan; a student then learns from both."""
    out, further = tmp_path / "s.zarr", "test_efficientnet"
    run(write_trident(tmp_path / "features", slides), out, options)
    other = write_teacher(tmp_path / "further.safetensors", further, seed=3)
    of_first = array_files(out)
    code, _, said = call_g2l(
        "extract-teacher",
        out,
        "--out",
        out,
        "--teacher",
        further,
        "--weights",
        other,
        "--device",
        "cpu",
        "--dtype",
        "float32",
        "--batch-size",
        4,
    )
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


# --- without loss -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", WRITERS)
def test_each_layout_comes_back_without_loss(
    tmp_path: Path, layout: str, extracted: Store, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    features = WRITERS[layout](tmp_path / "features", slides)
    done = run(features, tmp_path / "s.zarr", options)
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
    store = extract(plan_cohort(manifest), tmp_path / "e.zarr", weights, dtype="float32").store
    more = {"slides_root": manifest.parent, "manifest": manifest}
    for layout in ("trident", "stamp", "slide2vec"):
        features = WRITERS[layout](tmp_path / layout, slides_of(store))
        found = run(features, tmp_path / f"{layout}.zarr", options | more).store
        half = layout == "stamp"
        assert_same_rows(rows_of(found), rows_of(store), np.float16 if half else np.float32)


def test_half_precision_and_samples(
    tmp_path: Path, extracted: Store, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    features = write_trident(tmp_path, slides)
    half = run(features, tmp_path / "h.zarr", options, dtype="float16", pixels="none").store
    assert not half.has_pixels
    stored = np.concatenate([half.first.read_embeddings(shard) for shard in range(half.first.num_shards)])
    assert stored.dtype == np.float16
    expected = np.concatenate([extracted.first.read_embeddings(shard) for shard in range(extracted.first.num_shards)])
    np.testing.assert_array_equal(stored, expected.astype(np.float16))
    few = run(features, tmp_path / "f.zarr", options, patches_per_slide=5).store
    assert [len(s.coords_l0_px) for s in few.plan.slides] == [5, 5]
    every = rows_of(extracted)
    assert_same_rows(rows_of(few), {key: every[key] for key in rows_of(few)})


def test_splits_and_cases_are_those_of_a_plan(
    tmp_path: Path, cohort: Path, slides: list[FeatureSlide], options: dict[str, Any], extracted: Store
) -> None:
    features = write_trident(tmp_path, slides)
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(
        "slide_id,path,case_id,center,split,grade\ns0,s0.svs,a,north,val,2\ns1,s1.svs,b,south,train,3\n"
    )
    plan = run(features, tmp_path / "a.zarr", options, manifest=manifest).store.plan
    assert [(s.case_id, s.center, set(s.split), s.labels) for s in plan.slides] == [
        ("a", "north", {VAL}, {"grade": "2"}),
        ("b", "south", {TRAIN}, {"grade": "3"}),
    ]
    barcoded = tmp_path / "tcga"
    barcoded.mkdir()
    names = ["TCGA-A2-A0T2-01Z-00-DX1.AB", "TCGA-E2-A14N-01Z-00-DX1.CD"]
    for i, name in enumerate(names):
        shutil.copy(cohort / f"s{i}.svs", barcoded / f"{name}.svs")
    renamed = [s for i in range(2) for s in changed(slides, f"s{i}", name=names[i]) if s.name == names[i]]
    features = write_trident(tmp_path / "renamed", renamed)
    plan = run(features, tmp_path / "b.zarr", options, manifest=None, slides_root=barcoded).store.plan
    assert [s.case_id for s in plan.slides] == ["TCGA-A2-A0T2", "TCGA-E2-A14N"]
    assert all(s.center for s in plan.slides)


@pytest.mark.slow
def test_patches_that_the_encoder_shrank_are_read_at_what_it_saw(
    tmp_path: Path, cohort: Path, weights: Path, options: dict[str, Any]
) -> None:
    """The tool cut 80 pixels at 0.5 um, the encoder took them as 64: 0.625 um a pixel, as `plan --mpp 0.625` has it."""
    plan = plan_cohort(cohort / "manifest.csv", mpp=0.625)
    store = extract(plan, tmp_path / "e.zarr", weights, dtype="float32").store
    cut = [replace(s, patch_px=80, mpp=0.5) for s in slides_of(store)]
    for layout in ("trident", "stamp", "slide2vec"):
        features = WRITERS[layout](tmp_path / layout, cut)
        found = run(features, tmp_path / f"{layout}.zarr", options, patch_px=PATCH_PX).store
        assert_same_rows(rows_of(found), rows_of(store), np.float16 if layout == "stamp" else np.float32)
        assert found.plan.config.mpp == 0.625


# --- options where files do not say -------------------------------------------------------------------------


def test_files_that_do_not_say_the_size_take_it_from_the_options(
    tmp_path: Path, extracted: Store, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    for s in slides:  # as Patho-Bench wants it: no attributes at all
        with h5py.File(tmp_path / f"{s.name}.h5", "w") as f:
            f["features"], f["coords"] = s.features, s.coords
    with pytest.raises(
        ConfigError, match=r"any size, and .*s0\.h5 does not say which, nor does any other .*--patch-px"
    ):
        run(tmp_path, tmp_path / "s.zarr", options)
    with pytest.raises(PlanError, match=r"s0\.h5: it does not say how large its patches are. Say it with --mpp"):
        run(tmp_path, tmp_path / "s.zarr", options, patch_px=PATCH_PX)
    done = run(tmp_path, tmp_path / "s.zarr", options, patch_px=PATCH_PX, mpp=0.5)
    assert_same_rows(rows_of(done.store), rows_of(extracted))


def test_coordinates_in_a_folder_of_their_own(
    tmp_path: Path, extracted: Store, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    features = write_clam(tmp_path / "features", slides)
    shutil.move(features / "patches", tmp_path / "coords")
    with pytest.raises(ConfigError, match="give --patch-px"):
        run(features, tmp_path / "s.zarr", options)
    done = run(features, tmp_path / "s.zarr", options, coords=tmp_path / "coords")
    assert_same_rows(rows_of(done.store), rows_of(extracted))
    shutil.rmtree(features / "h5_files")
    with pytest.raises(PlanError, match=r"s0\.pt: no coordinates in it nor beside it; --coords names the folder"):
        run(features, tmp_path / "t.zarr", options, patch_px=PATCH_PX, mpp=0.5)


# --- refused, or listed by name -----------------------------------------------------------------------------


def spoilt(slides: list[FeatureSlide], **values: Any) -> list[FeatureSlide]:
    return changed(slides, "s1", **values)


def one(slides: list[FeatureSlide]) -> FeatureSlide:
    return next(s for s in slides if s.name == "s1")


def with_coords(slides: list[FeatureSlide], *corners: tuple[int, int]) -> list[FeatureSlide]:
    coords = one(slides).coords.copy()
    coords[: len(corners)] = corners
    return spoilt(slides, coords=coords)


def nan_features(slides: list[FeatureSlide]) -> list[FeatureSlide]:
    features = one(slides).features.copy()
    features[3, 5] = np.nan
    return spoilt(slides, features=features)


BAD: dict[str, tuple[Any, str]] = {
    "wrong width": (lambda s: spoilt(s, features=one(s).features[:, :95]), "95 dimensions; test_resnet has 96"),
    "not finite": (nan_features, "1 of 12 rows have NaN or infinite values"),
    "outside": (lambda s: with_coords(s, (512, 0)), r"1 of 12 coordinates lie outside the slide of 512 x 448 pixels"),
    "negative": (lambda s: with_coords(s, (-1, 0)), r"outside the slide .*\(the first: \(-1, 0\)\)"),
    "twice": (lambda s: with_coords(s, *[tuple(one(s).coords[5])] * 2), "2 of 12 coordinates occur twice"),
    "wrong level": (lambda s: spoilt(s, mpp=1.0, coords=one(s).coords // 2), "have 1 um/px at 64 px; --mpp says 0.5"),
    "another slide": (lambda s: spoilt(s, size=(500, 448)), r"made of a slide of \(500, 448\) pixels; this one has"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_slide_that_does_not_fit_is_listed_by_name_and_the_others_go_on(
    tmp_path: Path, what: str, extracted: Store, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    change, words = BAD[what]
    features = write_trident(tmp_path / "features", change(slides))
    more = {"mpp": 0.5} if what == "wrong level" else {}
    code, _, err = call_g2l("import-features", features, "--out", tmp_path / "s.zarr", *flags(options | more))
    assert code == 3, err
    store = Store(tmp_path / "s.zarr")
    assert audit_of(store).keys() == {"s1"}
    with pytest.raises(ValueError, match=words):
        raise ValueError(audit_of(store)["s1"])
    assert "s1.h5" in audit_of(store)["s1"]
    assert audit_of(store)["s1"] in err
    with open(store.folder / "audit.csv", newline="") as f:
        assert {row["slide_id"]: row["status"] for row in csv.DictReader(f)} == {"s0": "ok", "s1": "failed"}
    expected = rows_of(extracted)
    assert_same_rows(rows_of(store), {key: value for key, value in expected.items() if key[0] == "s0"})


def flags(options: dict[str, Any]) -> list[object]:
    """Options as flags of the command."""
    return [
        word for name, value in options.items() if value is not None for word in ("--" + name.replace("_", "-"), value)
    ]


def test_slides_of_another_magnification_than_the_others(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], cohort: Path
) -> None:
    """Without --mpp, the median of the slides is what the others are held against. `s0` and `s2` have the same pixels,
    which is warned of in one case.
    """
    more, manifest = tmp_path / "slides", tmp_path / "m.csv"
    manifest.write_text("slide_id,path,case_id\ns0,s0.svs,k\ns1,s1.svs,l\ns2,s2.svs,k\n")
    shutil.copytree(cohort, more)
    (more / "s2.svs").write_bytes((cohort / "s0.svs").read_bytes() + b"the same pixels, but no copy")
    three = [*slides, changed(slides, "s0", name="s2")[0]]
    features = write_trident(tmp_path / "features", BAD["wrong level"][0](three))
    done = run(features, tmp_path / "s.zarr", options, manifest=manifest, slides_root=more)
    assert list(audit_of(done.store)) == ["s1"]
    assert "its patches have 1 um/px, those of the other slides 0.5. A wrong level?" in audit_of(done.store)["s1"]


def test_files_without_a_slide_and_slides_without_a_file(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    features = write_trident(tmp_path / "features", changed(slides, "s1", name="other"))
    code, _, err = call_g2l("import-features", features, "--out", tmp_path / "s.zarr", *flags(options))
    assert code == 3
    found = audit_of(Store(tmp_path / "s.zarr"))
    assert "no slide other in" in found["other"]
    assert "no file of features for this slide" in found["s1"]
    assert "other.h5: no slide other in" in err
    assert [s.slide_id for s in Store(tmp_path / "s.zarr").plan.slides] == ["s0"]


def test_patches_over_the_edge_are_left_out_and_counted(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    features = write_trident(tmp_path / "features", with_coords(slides, (449, 0), (450, 1)))
    done = run(features, tmp_path / "s.zarr", options)
    rows = {row.slide_id: row for row in done.store.plan.audit}
    assert (rows["s1"].patches_available, rows["s1"].patches_taken, rows["s1"].status) == (12, 11, "ok")
    assert rows["s1"].reason == "patches over the edge, left out: 1"


def test_clam_of_a_level_that_the_slide_does_not_have(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    for level, downsample, fine in ((1, 4.0, True), (1, 2.0, False), (2, 16.0, False)):
        folder = write_clam(tmp_path / f"{level}-{downsample}", [one(slides)])
        with h5py.File(folder / "patches" / "s1.h5", "r+") as f:
            f["coords"].attrs.update({"patch_level": level, "downsample": (downsample, downsample), "patch_size": 16})
            f["coords"].attrs["patch_size"] = int(64 / downsample)
        values = options | {"check_rows": 0, "patch_px": PATCH_PX}
        if fine:
            assert run(folder, tmp_path / f"{level}.zarr", values).num_failed == 0
        else:
            with pytest.raises(
                PlanError, match=r"cut from level \d at downsample .*; the slide's levels have \[1.0, 4"
            ):
                run(folder, tmp_path / "x.zarr", values)


def test_what_stops_before_anything_is_written(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    folder = write_trident(tmp_path / "features", slides[:1])
    write_trident(tmp_path / "features", slides[1:], encoder="other")
    for path in (folder / "features_other").iterdir():
        shutil.move(path, folder / "features_tiny")
    (folder / "features_other").rmdir()
    out = tmp_path / "s.zarr"
    with pytest.raises(ConfigError, match="the files name different encoders: other, tiny"):
        run(folder, out, options)
    with pytest.raises(BenchmarkError, match=r"^\S*nowhere: no such folder"):
        run(tmp_path / "nowhere", out, options)
    stamp = write_stamp(tmp_path / "stamp", slides)
    for path in stamp.iterdir():
        with h5py.File(path, "r+") as f:
            del f.attrs["unit"]
    with pytest.raises(BenchmarkError, match="attribute unit is None, not 'um'"):
        run(stamp, out, options)
    with pytest.raises(ConfigError, match="--patch-px 64: uni takes patches of 224 px"):
        run(folder, out, options, teacher="uni", patch_px=64)
    assert not out.exists()
    assert leftovers(tmp_path) == []


def test_a_name_that_two_slides_could_have_fails_both_and_the_others_go_on(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], cohort: Path
) -> None:
    """Without weights, too, where nothing else would tell."""
    root = tmp_path / "slides"
    for path, source in (("a/s0.svs", "s0.svs"), ("b/s0.svs", "s1.svs"), ("s1.svs", "s1.svs")):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(cohort / source, root / path)
    features = write_trident(tmp_path / "f", slides)
    more = options | {"slides_root": root, "manifest": None, "weights": None}
    code, _, err = call_g2l("import-features", features, "--out", tmp_path / "s.zarr", *flags(more))
    assert code == 3, err
    store = Store(tmp_path / "s.zarr")
    assert [s.slide_id for s in store.plan.slides] == ["s1"]
    assert audit_of(store).keys() == {"a__s0.svs", "b__s0.svs"}
    for reason in audit_of(store).values():
        assert f"s0.h5: is it of {root}/a/s0.svs or {root}/b/s0.svs? Name the slides' files apart, or give" in reason
        assert reason in err
    manifest = tmp_path / "m.csv"
    manifest.write_text("slide_id,path\ns0,a/s0.svs\nother,b/s0.svs\ns1,s1.svs\n")
    more |= {"manifest": manifest, "weights": options["weights"]}  # as the message says, and proven
    done = run(features, tmp_path / "t.zarr", more)
    assert ([s.slide_id for s in done.store.plan.slides], audit_of(done.store).keys()) == (["s0", "s1"], {"other"})


def test_what_cannot_be_read_does_not_decide_the_patch_size(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    """The first file by name is damaged, the next says nothing, a stray one says another size: the fourth says it."""
    features = write_trident(tmp_path / "f", slides)
    folder = features / "features_tiny"
    with h5py.File(shutil.copy(folder / "s0.h5", folder / "stray.h5"), "r+") as f:
        f["coords"].attrs["patch_size"] = 32
    shutil.move(folder / "stray.h5", folder / "0.h5")
    (folder / "s0.h5").write_bytes(b"cut short")
    done = run(features, tmp_path / "s.zarr", options)
    assert done.store.plan.config.patch_px == PATCH_PX
    assert audit_of(done.store).keys() == {"0", "s0"}
    write_trident(tmp_path / "f", slides)
    with h5py.File(folder / "s0.h5", "r+") as f:  # as TRIDENT writes a slide without tissue
        del f["features"], f["coords"]
        f["features"], f["coords"] = np.zeros((0, 96), np.float32), np.zeros((0, 2), np.int64)
    done = run(features, tmp_path / "t.zarr", options)
    assert done.store.plan.config.patch_px == PATCH_PX
    assert "no patches" in audit_of(done.store)["s0"]


def test_stamp_s_subfolders_are_read(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], extracted: Store
) -> None:
    run_folder = write_stamp(tmp_path / "f" / "tiny-00000000", slides)
    for s in slides:
        (run_folder / f"u-{s.name}").mkdir()
        shutil.move(run_folder / f"{s.name}.h5", run_folder / f"u-{s.name}")
    for number, named in enumerate((tmp_path / "f", run_folder)):
        done = run(named, tmp_path / f"{number}.zarr", options)
        assert_same_rows(rows_of(done.store), rows_of(extracted), np.float16)


@pytest.mark.slow
def test_stamp_s_files_of_one_name_in_several_subfolders_are_of_the_slides_there(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], extracted: Store, cohort: Path
) -> None:
    """Proven with the weights; where nothing lies at their places, these fail and the others go on. `s2` has the pixels
    of `a/s0`, so that it counts only where that one does not.
    """
    root, tree = tmp_path / "slides", tmp_path / "f" / "tiny-00000000"
    for path, source, name in (("b", "s0", "s0"), ("a", "s1", "s0"), (".", "s1", "s2")):
        (root / path).mkdir(parents=True, exist_ok=True)
        shutil.copy(cohort / f"{source}.svs", root / path / f"{name}.svs")
        with open(root / path / f"{name}.svs", "ab") as f:
            f.write(name.encode() + path.encode())  # the same pixels, but no copy
        write_stamp(tree / path, [replace(s, name=name) for s in slides if s.name == source])
    more = options | {"slides_root": root, "manifest": None}
    done = run(tmp_path / "f", tmp_path / "s.zarr", more)
    assert [s.path for s in done.store.plan.slides] == ["a/s0.svs", "b/s0.svs"]
    assert done.teacher.attributes["proof"]["max_nearer"] == 0.0
    assert [reason.endswith("taken once, as a__s0.svs") for reason in audit_of(done.store).values()] == [True]
    shutil.rmtree(root / "a")
    (root / "b").rename(root / "c")
    code, _, err = call_g2l("import-features", tmp_path / "f", "--out", tmp_path / "t.zarr", *flags(more))
    store = Store(tmp_path / "t.zarr")
    assert (code, [s.path for s in store.plan.slides]) == (3, ["s2.svs"]), err
    assert audit_of(store).keys() == {"s0", "b/s0"}
    assert all("no slide of this name lies below" in reason for reason in audit_of(store).values())


@pytest.mark.parametrize(
    ("cases", "failed", "words"),
    [
        ("k,k", {"s2"}, "taken once, as s1"),
        (",", {"s2"}, "taken once, as s1"),
        ("k,l", {"s1", "s2"}, "of several cases (k, l)"),
    ],
)
def test_copies_of_a_slide_are_not_imported_twice(
    tmp_path: Path,
    slides: list[FeatureSlide],
    options: dict[str, Any],
    cohort: Path,
    cases: str,
    failed: set[str],
    words: str,
) -> None:
    root, manifest = shutil.copytree(cohort, tmp_path / "slides"), tmp_path / "m.csv"
    shutil.copy(root / "s1.svs", root / "s2.svs")
    features = write_trident(tmp_path / "f", [*slides, *(replace(s, name="s2") for s in slides if s.name == "s1")])
    first, second = cases.split(",")
    manifest.write_text(f"slide_id,path,case_id\ns0,s0.svs,j\ns1,s1.svs,{first}\ns2,s2.svs,{second}\n")
    done = run(features, tmp_path / "s.zarr", options | {"slides_root": root, "manifest": manifest, "weights": None})
    assert audit_of(done.store).keys() == failed
    assert all(words in reason for reason in audit_of(done.store).values())


@pytest.mark.parametrize(
    ("cases", "failed", "words"),
    [
        ("k,k", set(), ""),
        (",", {"s2"}, "though their files differ, taken once, as s1"),
        ("k,l", {"s1", "s2"}, "though their files differ, of several cases (k, l)"),
    ],
)
def test_near_copies_of_a_slide_are_told_as_a_plan_tells_them(
    tmp_path: Path,
    slides: list[FeatureSlide],
    options: dict[str, Any],
    cohort: Path,
    cases: str,
    failed: set[str],
    words: str,
) -> None:
    """The same pixels under another name, in a file with other bytes: OpenSlide's quickhash shows it."""
    root, manifest = shutil.copytree(cohort, tmp_path / "slides"), tmp_path / "m.csv"
    (root / "s2.svs").write_bytes((root / "s1.svs").read_bytes() + b"x")
    features = write_trident(tmp_path / "f", [*slides, *(replace(s, name="s2") for s in slides if s.name == "s1")])
    first, second = cases.split(",")
    manifest.write_text(f"slide_id,path,case_id\ns0,s0.svs,j\ns1,s1.svs,{first}\ns2,s2.svs,{second}\n")
    done = run(features, tmp_path / "s.zarr", options | {"slides_root": root, "manifest": manifest, "weights": None})
    assert audit_of(done.store).keys() == failed
    assert all(words in reason for reason in audit_of(done.store).values())
    warned = {row.slide_id for row in done.store.plan.audit if "by OpenSlide's quickhash" in row.warnings}
    assert warned == ({"s1", "s2"} if not failed else set())


def test_a_manifest_s_id_that_is_another_slide_s_file_name_fails_both(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], cohort: Path
) -> None:
    """Without weights, too: TRIDENT's files are named by the slides' files."""
    root, manifest = shutil.copytree(cohort, tmp_path / "slides"), tmp_path / "m.csv"
    shutil.copy(root / "s1.svs", root / "s2.svs")
    features = write_trident(tmp_path / "f", [*slides, *(replace(s, name="s2") for s in slides if s.name == "s1")])
    manifest.write_text("slide_id,path\ns1,s0.svs\ns0,s1.svs\ns2,s2.svs\n")
    more = options | {"slides_root": root, "manifest": manifest, "weights": None}
    code, _, err = call_g2l("import-features", features, "--out", tmp_path / "s.zarr", *flags(more))
    store = Store(tmp_path / "s.zarr")
    assert (code, [s.path for s in store.plan.slides]) == (3, ["s2.svs"]), err
    assert audit_of(store).keys() == {"s0", "s1"}
    assert all("one's slide_id and the other's file" in reason for reason in audit_of(store).values())


def test_a_tile_index_that_the_coordinates_do_not_have(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    """Beyond the last, or one in the middle that is gone: no traceback, and no neighbour's place."""
    for name, index in (("beyond", np.arange(1, 13)), ("hole", np.delete(np.arange(13), 5)), ("twice", np.zeros(12))):
        features = write_slide2vec(tmp_path / name, slides, ".npz")
        path = features / "tiles" / "s1.coordinates.npz"
        with np.load(path) as arrays:
            tiles = dict(arrays)
        np.savez(path, **tiles | {"tile_index": index.astype(np.int32)})
        done = run(features, tmp_path / f"{name}.zarr", options, weights=None)
        assert [s.slide_id for s in done.store.plan.slides] == ["s0"]
        reason = audit_of(done.store)["s1"]
        assert "s1.npz: " in reason
        assert str(path) in reason
        first = {"beyond": "(the first: 0)", "hole": "(the first: 5)", "twice": "not one tile_index a tile"}
        assert first[name] in reason


@pytest.mark.parametrize(
    ("teacher", "encoder", "words"),
    [
        ("h-optimus-0", "hoptimus1", "name the encoder hoptimus1, which is h-optimus-1; --teacher says h-optimus-0"),
        ("uni", "uni_v1", ""),
        (
            "hf-hub:MahmoodLab/UNI@main",
            "uni_v2",
            "name the encoder uni_v2, which is uni2-h; --teacher says hf-hub:Mahmood",
        ),
        ("uni", "run-as-uni", "name the encoder run-as-uni: `g2l embed --as-teacher` calls"),
        ("uni", "mine", "note: the files name the encoder mine, --teacher says uni; it is not known whether"),
    ],
)
def test_the_encoder_s_name_in_the_files(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], teacher: str, encoder: str, words: str
) -> None:
    """Without weights, the name is all that can tell."""
    width = 1536 if teacher == "h-optimus-0" else 1024
    rng = np.random.default_rng(0)
    wide = [replace(s, features=rng.random((len(s.features), width), np.float32)) for s in slides]
    features, out = write_trident(tmp_path / "f", wide, encoder), tmp_path / "s.zarr"
    more = options | {"teacher": teacher, "weights": None, "rows_per_shard": 8}
    code, _, err = call_g2l("import-features", features, "--out", out, *flags(more), "--allow-upsampling")
    refused = encoder not in ("uni_v1", "mine")
    assert (code, out.exists()) == ((1, False) if refused else (0, True)), err
    assert words in err
    assert ("the files name" in err) == bool(words)


def test_one_encoder_in_two_spellings_is_one(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    features = write_trident(tmp_path / "f", slides, "uni_v1")
    with h5py.File(features / "features_uni_v1" / "s1.h5", "r+") as f:
        f["features"].attrs["encoder"] = "Mahmood-UNI"
    done = run(features, tmp_path / "s.zarr", options)
    assert done.teacher.spec.settings["imported"]["encoders"] == ["Mahmood-UNI", "uni_v1"]
    with h5py.File(features / "features_uni_v1" / "s1.h5", "r+") as f:
        f["features"].attrs["encoder"] = "uni_v2"
    with pytest.raises(ConfigError, match="the files name different encoders: uni_v1, uni_v2"):
        run(features, tmp_path / "t.zarr", options)


@pytest.mark.slow
def test_an_encoder_s_name_that_is_no_text_is_none(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    for number, value in enumerate((h5py.Empty("S1"), np.bytes_(b"tiny"), b"t\xff", np.array([1, 2]), "")):
        features = write_trident(tmp_path / str(number), slides)
        with h5py.File(features / "features_tiny" / "s1.h5", "r+") as f:
            f["features"].attrs["encoder"] = value
            f["coords"].attrs["level0_width"] = h5py.Empty("i8")
        if isinstance(value, bytes) and value == b"t\xff":
            with pytest.raises(ConfigError, match=r"name different encoders: t\?, tiny"):
                run(features, tmp_path / f"{number}.zarr", options)
            continue
        assert run(features, tmp_path / f"{number}.zarr", options).num_failed == 0


def test_coordinates_that_are_no_places(tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any]) -> None:
    """Refused by name, without NumPy's word on a cast."""
    for number, coords in enumerate((np.full((12, 2), 1e300), np.full((12, 2), np.nan), np.full((12, 2), b"1"))):
        features = write_trident(tmp_path / str(number), slides)
        with h5py.File(features / "features_tiny" / "s1.h5", "r+") as f:
            attributes = dict(f["coords"].attrs)
            del f["coords"]
            f["coords"] = coords
            f["coords"].attrs.update(attributes)
        done = run(features, tmp_path / f"{number}.zarr", options)
        assert audit_of(done.store).keys() == {"s1"}
        reason = audit_of(done.store)["s1"]
        assert "s1.h5: " in reason
        assert "coords " in reason


def test_a_folder_of_coordinates_that_is_not_there(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    features = write_clam(tmp_path / "f", slides)
    with pytest.raises(ConfigError, match=r"^--coords \S*gone: no such folder$"):
        run(features, tmp_path / "s.zarr", options, coords=tmp_path / "gone")
    assert not (tmp_path / "s.zarr").exists()


# --- proof --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_features_of_another_slide_or_place_are_caught(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], extracted: Store
) -> None:
    """All of the slides, or most, refuse the import; a few fail by name, and the others are imported."""
    a, b = slides
    swapped = [*changed([a], "s0", features=b.features), *changed([b], "s1", features=a.features)]
    features = write_trident(tmp_path / "swapped", swapped)
    with pytest.raises(
        StoreError, match=r"(?s)2 of 2 slides are not those that test_resnet gives .*  s0: cosine.*  s1: cosine"
    ):
        run(features, tmp_path / "s.zarr", options)
    assert not (tmp_path / "s.zarr").exists()
    features = moved_features(tmp_path / "moved", slides)
    code, said, err = call_g2l("import-features", features, "--out", tmp_path / "s.zarr", *flags(options))
    assert code == 3, err
    store = Store(tmp_path / "s.zarr")
    reason = audit_of(store)["s1"]
    assert re.fullmatch(
        r"\S*/s1\.h5: not the features that test_resnet gives at these places: cosine \S+, \d+% of "
        r"the other rows nearer \(medians; needed are a cosine of 0\.9 and at most 5%\)",
        reason,
    )
    assert (audit_of(store).keys(), reason in err, "refused: s1" in err) == ({"s1"}, True, True)
    expected = rows_of(extracted)
    assert_same_rows(rows_of(store), {key: value for key, value in expected.items() if key[0] == "s0"})
    assert (store.first.attributes["proof"]["rows"], store.first.attributes["proof"]["max_nearer"]) == (4, 0)
    assert [r["slide_id"] for r in store.first.attributes["refused"]] == ["s1"]
    assert store.first.spec.settings["imported"]["features_sha256"].keys() == {"s0"}
    assert "proven on 4 patches" in said
    code, said, _ = call_g2l("verify", store.folder, "--weights", options["weights"], "--device", "cpu")
    assert (code, "12 rows embedded again" in said) == (0, True), said
    done = run(features, tmp_path / "t.zarr", options, check_rows=0)  # who does not ask is not told
    assert not {"proof", "refused"} & done.teacher.attributes.keys()
    assert len(done.store.plan.slides) == 2


def interrupt_after_a_shard(
    features: Path, out: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Import, and press Ctrl-C when features are read for the fourth time: after two slides' proofs and a shard."""
    real, calls = FeatureRows.read, []

    def interrupted(self: FeatureRows, rows: Any) -> NDArray[np.float32]:
        calls.append(rows)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return real(self, rows)

    with monkeypatch.context() as stop:
        stop.setattr(FeatureRows, "read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(features, out, options, workers=1)


def moved_features(folder: Path, slides: list[FeatureSlide]) -> Path:
    """The features of s1 by a row, those of s0 as they are."""
    return write_trident(folder, changed(slides, "s1", features=np.roll(one(slides).features, 1, axis=0)))


@pytest.mark.slow
def test_a_refused_slide_stays_refused_when_continued_and_is_not_forgotten_when_mended(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    features, whole, out = moved_features(tmp_path / "f", slides), tmp_path / "w.zarr", tmp_path / "k.zarr"
    run(features, whole, options)
    interrupt_after_a_shard(features, out, options, monkeypatch)
    assert Store(out).first.ledger.pending()
    with monkeypatch.context() as stop:  # the proof is not made anew
        stop.setattr(stage, "embed_sample", lambda *_, **__: pytest.fail("proven twice"))
        assert run(features, out, options).num_new_rows > 0
    assert audit_of(Store(out)).keys() == {"s1"}
    assert array_files(out) == array_files(whole)
    for name in ("zarr.json", "audit.csv"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    mended = write_trident(tmp_path / "mended", slides)
    with pytest.raises(StoreError, match=r"(?s)made with other inputs .*features_sha256\.s1: None -> "):
        run(mended, out, options)


def test_features_of_another_model_are_caught(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    features = write_trident(tmp_path / "features", slides)
    other = write_teacher(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(StoreError, match="the features of 2 of 2 slides are not those that test_resnet gives"):
        run(features, tmp_path / "s.zarr", options, weights=other)
    assert not (tmp_path / "s.zarr").exists()


def test_without_weights_it_is_said_and_verify_says_so_too(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], weights: Path
) -> None:
    features = write_slide2vec(tmp_path / "features", slides)
    out = tmp_path / "s.zarr"
    code, said, err = call_g2l("import-features", features, "--out", out, *flags(options | {"weights": None}))
    assert code == 0, err
    assert "note: not proven that features and slides belong together (the teacher's weights are not here" in err
    assert "not proven: see --weights" in said
    assert Store(out).first.spec.teacher["weights_sha256"] == ""
    code, said, _ = call_g2l("verify", out, "--device", "cpu")
    assert (code, "the teacher's weights are not known; give --weights" in said) == (0, True)
    assert "features of slide2vec; not proven to belong to these slides" in call_g2l("inspect", out)[1]
    code, said, _ = call_g2l("verify", out, "--device", "cpu", "--weights", weights)
    assert (code, "24 rows embedded again" in said) == (0, True)


def test_weights_in_the_hubs_cache_prove_it_unasked(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(name: str, source: object, patch_px: int) -> BuiltEncoder:
        assert source == PRETRAINED
        return build_encoder(name, weights, patch_px)

    monkeypatch.setattr(stage, "cached_weights", lambda spec: weights)
    monkeypatch.setattr(stage, "build_encoder", build)
    done = run(write_trident(tmp_path, slides), tmp_path / "s.zarr", options, weights=None)
    assert done.teacher.attributes["proof"]["rows"] == 8


def test_a_teacher_of_the_table_is_described_without_being_built(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = EncoderSpec("made", "timm:x", "no_such", embedding="cls", width=96, patch_px=PATCH_PX, mpp=0.5, params_m=0.4)
    monkeypatch.setattr("pipeline.encoders.table.ENCODERS", {"made": spec})
    features = write_clam(tmp_path / "f", slides)
    store = run(features, tmp_path / "s.zarr", options, teacher="made", weights=None).store
    assert store.first.spec.teacher == spec.record() | {
        "weights": "unknown",
        "weights_sha256": "",
        "num_params": 400_000,
    }
    monkeypatch.setattr("pipeline.encoders.table.ENCODERS", {"made": replace(spec, width=95)})
    with pytest.raises(PlanError, match=r"s0\.h5: 96 dimensions; made has 95"):
        run(features, tmp_path / "t.zarr", options, teacher="made", weights=None)
    with pytest.raises(ConfigError, match="--patch-px 32: made takes patches of 64 px"):
        run(features, tmp_path / "t.zarr", options, teacher="made", weights=None, patch_px=32)


# --- an ordinary store --------------------------------------------------------------------------------------


def test_the_store_is_as_any_other(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], weights: Path
) -> None:
    features, out = write_trident(tmp_path / "features", slides), tmp_path / "s.zarr"
    code, said, _ = call_g2l("import-features", features, "--out", out, *flags(options))
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
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], cohort: Path
) -> None:
    spoilt_slides = Path(shutil.copytree(cohort, tmp_path / "slides"))
    features, out = write_trident(tmp_path / "features", slides), tmp_path / "s.zarr"
    x, y = one(slides).coords[0].tolist()
    damage_tiles(cohort / "s1.svs", [(x // 64, y // 64)], out=spoilt_slides / "s1.svs")
    more = flags(options | {"slides_root": spoilt_slides, "check_rows": 0})
    code, said, _ = call_g2l("import-features", features, "--out", out, *more)
    assert code == 3
    assert "unreadable" in said
    shutil.copy(cohort / "s1.svs", spoilt_slides / "s1.svs")
    code, _, err = call_g2l("import-features", features, "--out", out, *more, "--retry-failures")
    assert code == 0, err
    assert Store(out).first.ledger.status_counts()["OK"] == 24


# --- continuing ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> list[object]:
    """A command that imports 98 patches in 49 shards; without --out."""
    folder = tmp_path_factory.mktemp("many")
    manifest = write_cohort(folder / "slides")
    store = extract(plan_cohort(manifest, patches_per_slide=49), folder / "e.zarr", weights, dtype="float32").store
    features = write_trident(folder / "features", slides_of(store))
    return [
        "import-features",
        features,
        "--slides-root",
        manifest.parent,
        "--manifest",
        manifest,
        "--teacher",
        TEACHER,
        "--weights",
        weights,
        "--rows-per-shard",
        2,
        "--device",
        "cpu",
        "--workers",
        2,
    ]


@pytest.mark.slow
def test_stopped_in_a_shard_and_continued_is_as_if_it_never_stopped(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    features, whole, out = write_trident(tmp_path / "features", slides), tmp_path / "w.zarr", tmp_path / "k.zarr"
    run(features, whole, options)
    interrupt_after_a_shard(features, out, options, monkeypatch)
    assert Store(out).first.ledger.pending() in ([1, 2], [0, 1, 2])
    assert run(features, out, options).num_new_rows >= 16
    assert array_files(out) == array_files(whole)
    assert (out / "zarr.json").read_bytes() == (whole / "zarr.json").read_bytes()


@pytest.mark.slow
def test_killed_and_continued_is_as_if_it_never_stopped(tmp_path: Path, many: list[object]) -> None:
    whole, out, rng = tmp_path / "w" / "s.zarr", tmp_path / "k" / "s.zarr", random.Random(3)
    assert call_g2l(*many, "--out", whole)[0] == 0
    done = 0
    for _ in range(2):
        stopped = stop_g2l(
            *many,
            "--out",
            out,
            out=out,
            wait=rng.uniform(0, 0.02),
            ready=lambda enough=done + 3: len(list((out / "shards").glob("*.json"))) >= enough,
        )
        assert stopped.returncode == -signal.SIGKILL, stopped.stderr
        finished = [i for i, entry in Store(out).first.ledger.entries() if entry]
        assert all(Store(out).first.check_files(i) == [] for i in finished)
        assert done < len(finished) < 49
        done = len(finished)
    assert call_g2l(*many, "--out", out)[0] == 0
    assert array_files(out) == array_files(whole)
    assert (out / "zarr.json").read_bytes() == (whole / "zarr.json").read_bytes()
    assert leftovers(tmp_path) == []


@pytest.mark.slow
def test_other_inputs_are_refused_with_what_differs(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    features, out = write_trident(tmp_path / "features", slides), tmp_path / "s.zarr"
    run(features, out, options)
    Store(out).first.ledger.path(1).unlink()
    before = array_files(out)
    scaled = write_trident(tmp_path / "scaled", changed(slides, "s1", features=one(slides).features * 1.01))
    for folder, more, words in (
        (features, {"dtype": "float16"}, "settings.dtype: 'float32' -> 'float16'"),
        (features, {"val_fraction": 0.2}, "settings.imported.options.val_fraction: 0.5 -> 0.2"),
        (features, {"weights": None}, "teacher.weights_sha256: "),
        (scaled, {}, "settings.imported.features_sha256.s1: "),
    ):
        with pytest.raises(StoreError, match="was made with other inputs and is not continued") as caught:
            run(folder, out, options | more)
        assert words in str(caught.value)
        assert "features_sha256.s0" not in str(caught.value)
    assert array_files(out) == before
    done = run(features, out, options)
    assert done.num_new_rows == 8
    assert Store(out).first.ledger.pending() == []
    moved = Path(shutil.move(features.parent, tmp_path / "elsewhere"))
    assert run(moved / features.name, out, options).num_new_rows == 0  # where files lie decides nothing


def test_the_record_feeds_back(tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any]) -> None:
    features, out = write_trident(tmp_path / "features", slides), tmp_path / "s.zarr"
    assert call_g2l("import-features", features, "--out", out, *flags(options))[0] == 0
    code, said, err = call_g2l("import-features", "--config", out / "config.toml")
    assert (code, "nothing was left to do" in said) == (0, True), err


def test_an_output_that_is_something_else_is_left_alone(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], extracted: Store
) -> None:
    features = write_trident(tmp_path / "features", slides)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("work")
    with pytest.raises(StoreError, match="exists and is not a store; nothing is overwritten"):
        run(features, tmp_path / "thesis", options)
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]
    out = Path(shutil.copytree(extracted.folder, tmp_path / "s.zarr"))
    with pytest.raises(StoreError, match=r"s\.zarr was not made by import-features and is not continued"):
        run(features, out, options)
    assert array_files(out) == array_files(extracted.folder)


@pytest.mark.slow
def test_a_file_that_says_nonsense_of_its_patches(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    features = write_slide2vec(tmp_path, slides)
    path = features / "tile_embeddings" / "s1.meta.json"
    for text, words in ((json.dumps({"tile_size_lv0": -3}), "side of its patches is -3"), ("{", "not a readable")):
        path.write_text(text)
        done = run(features, tmp_path / f"{len(text)}.zarr", options)
        assert words in audit_of(done.store)["s1"]


@pytest.mark.slow
def test_slides_that_are_too_coarse_need_leave(tmp_path: Path, weights: Path, options: dict[str, Any]) -> None:
    (tmp_path / "s").mkdir()
    make_slide(tmp_path / "s" / "a.svs", width=512, height=448, mpp=1.0, downsamples=(1,), tile=64)
    slide = FeatureSlide("a", np.ones((2, 96), np.float32), np.array([[0, 0], [32, 0]]), 1.0, 64, 0.5, (512, 448))
    features = write_trident(tmp_path / "f", [slide])
    more = {"slides_root": tmp_path / "s", "manifest": None, "check_rows": 0}
    with pytest.raises(PlanError, match=r"coarser than the target of 0\.5.*--allow-upsampling"):
        run(features, tmp_path / "o.zarr", options | more)
    assert run(features, tmp_path / "o.zarr", options | more, allow_upsampling=True).num_failed == 0
