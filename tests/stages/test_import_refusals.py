"""Import: slides and files that do not fit are refused, or listed by name."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support.commands import call_g2l, leftovers
from support.extraction import PATCH_PX
from support.features import FeatureSlide, changed, write_clam, write_slide2vec, write_stamp, write_trident
from support.importing import assert_same_rows, audit_of, import_flags, one_slide, rows_of, run_import
from support.slides import make_slide

from pipeline.base.errors import BenchmarkError, ConfigError, PlanError
from pipeline.store.store import Store


def spoilt(slides: list[FeatureSlide], **values: Any) -> list[FeatureSlide]:
    return changed(slides, "s1", **values)


def with_coords(slides: list[FeatureSlide], *corners: tuple[int, int]) -> list[FeatureSlide]:
    coords = one_slide(slides).coords.copy()
    coords[: len(corners)] = corners
    return spoilt(slides, coords=coords)


def nan_features(slides: list[FeatureSlide]) -> list[FeatureSlide]:
    features = one_slide(slides).features.copy()
    features[3, 5] = np.nan
    return spoilt(slides, features=features)


BAD: dict[str, tuple[Any, str]] = {
    "wrong width": (lambda s: spoilt(s, features=one_slide(s).features[:, :95]), "95 dimensions; test_resnet has 96"),
    "not finite": (nan_features, "1 of 12 rows have NaN or infinite values"),
    "outside": (lambda s: with_coords(s, (512, 0)), r"1 of 12 coordinates lie outside the slide of 512 x 448 pixels"),
    "negative": (lambda s: with_coords(s, (-1, 0)), r"outside the slide .*\(the first: \(-1, 0\)\)"),
    "twice": (lambda s: with_coords(s, *[tuple(one_slide(s).coords[5])] * 2), "2 of 12 coordinates occur twice"),
    "wrong level": (
        lambda s: spoilt(s, mpp=1.0, coords=one_slide(s).coords // 2),
        "have 1 um/px at 64 px; --mpp says 0.5",
    ),
    "another slide": (lambda s: spoilt(s, size=(500, 448)), r"made of a slide of \(500, 448\) pixels; this one has"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_slide_that_does_not_fit_is_listed_by_name_and_the_others_go_on(
    tmp_path: Path, what: str, extracted: Store, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    change, words = BAD[what]
    features = write_trident(tmp_path / "features", change(slides))
    more = {"mpp": 0.5} if what == "wrong level" else {}
    code, _, err = call_g2l("import-features", features, "--out", tmp_path / "s.zarr", *import_flags(options | more))
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


def test_slides_of_another_magnification_than_the_others(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], pyramids: Path
) -> None:
    """Without --mpp, the median of the slides is what the others are held against."""
    more = tmp_path / "slides"
    shutil.copytree(pyramids, more)
    make_slide(more / "s2.svs", width=512, height=448, mpp=0.5, downsamples=(1, 4), tile=64, seed=2)
    three = [*slides, changed(slides, "s0", name="s2")[0]]
    features = write_trident(tmp_path / "features", BAD["wrong level"][0](three))
    done = run_import(features, tmp_path / "s.zarr", options, manifest=None, slides_root=more, weights=None)
    assert list(audit_of(done.store)) == ["s1"]
    assert "its patches have 1 um/px, those of the other slides 0.5. A wrong level?" in audit_of(done.store)["s1"]


def test_files_without_a_slide_and_slides_without_a_file(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    features = write_trident(tmp_path / "features", changed(slides, "s1", name="other"))
    code, _, err = call_g2l("import-features", features, "--out", tmp_path / "s.zarr", *import_flags(options))
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
    done = run_import(features, tmp_path / "s.zarr", options)
    rows = {row.slide_id: row for row in done.store.plan.audit}
    assert (rows["s1"].patches_available, rows["s1"].patches_taken, rows["s1"].status) == (12, 11, "ok")
    assert rows["s1"].reason == "patches over the edge, left out: 1"


def test_clam_of_a_level_that_the_slide_does_not_have(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    for level, downsample, fine in ((1, 4.0, True), (1, 2.0, False), (2, 16.0, False)):
        folder = write_clam(tmp_path / f"{level}-{downsample}", [one_slide(slides)])
        with h5py.File(folder / "patches" / "s1.h5", "r+") as f:
            f["coords"].attrs.update({"patch_level": level, "downsample": (downsample, downsample), "patch_size": 16})
            f["coords"].attrs["patch_size"] = int(64 / downsample)
        values = options | {"check_rows": 0, "patch_px": PATCH_PX}
        if fine:
            assert run_import(folder, tmp_path / f"{level}.zarr", values).num_failed == 0
        else:
            with pytest.raises(
                PlanError, match=r"cut from level \d at downsample .*; the slide's levels have \[1.0, 4"
            ):
                run_import(folder, tmp_path / "x.zarr", values)


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
        run_import(folder, out, options)
    with pytest.raises(BenchmarkError, match=r"^\S*nowhere: no such folder"):
        run_import(tmp_path / "nowhere", out, options)
    stamp = write_stamp(tmp_path / "stamp", slides)
    for path in stamp.iterdir():
        with h5py.File(path, "r+") as f:
            del f.attrs["unit"]
    with pytest.raises(BenchmarkError, match="attribute unit is None, not 'um'"):
        run_import(stamp, out, options)
    with pytest.raises(ConfigError, match="--patch-px 64: uni takes patches of 224 px"):
        run_import(folder, out, options, teacher="uni", patch_px=64)
    assert not out.exists()
    assert leftovers(tmp_path) == []


def test_a_name_that_two_slides_could_have_fails_both_and_the_others_go_on(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], pyramids: Path
) -> None:
    """Without weights, too, where nothing else would tell."""
    root = tmp_path / "slides"
    for path, source in (("a/s0.svs", "s0.svs"), ("b/s0.svs", "s1.svs"), ("s1.svs", "s1.svs")):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pyramids / source, root / path)
    features = write_trident(tmp_path / "f", slides)
    more = options | {"slides_root": root, "manifest": None, "weights": None}
    code, _, err = call_g2l("import-features", features, "--out", tmp_path / "s.zarr", *import_flags(more))
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
    done = run_import(features, tmp_path / "t.zarr", more)
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
    done = run_import(features, tmp_path / "s.zarr", options)
    assert done.store.plan.config.patch_px == PATCH_PX
    assert audit_of(done.store).keys() == {"0", "s0"}
    write_trident(tmp_path / "f", slides)
    with h5py.File(folder / "s0.h5", "r+") as f:  # as TRIDENT writes a slide without tissue
        del f["features"], f["coords"]
        f["features"], f["coords"] = np.zeros((0, 96), np.float32), np.zeros((0, 2), np.int64)
    done = run_import(features, tmp_path / "t.zarr", options)
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
        done = run_import(named, tmp_path / f"{number}.zarr", options)
        assert_same_rows(rows_of(done.store), rows_of(extracted), np.float16)


@pytest.mark.slow
def test_stamp_s_files_of_one_name_in_several_subfolders_are_of_the_slides_there(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], extracted: Store, pyramids: Path
) -> None:
    """Proven with the weights; where nothing lies at their places, these fail and the others go on. `s2` has the pixels
    of `a/s0`, so that it counts only where that one does not.
    """
    root, tree = tmp_path / "slides", tmp_path / "f" / "tiny-00000000"
    for path, source, name in (("b", "s0", "s0"), ("a", "s1", "s0"), (".", "s1", "s2")):
        (root / path).mkdir(parents=True, exist_ok=True)
        shutil.copy(pyramids / f"{source}.svs", root / path / f"{name}.svs")
        with open(root / path / f"{name}.svs", "ab") as f:
            f.write(name.encode() + path.encode())  # the same pixels, but no copy
        write_stamp(tree / path, [replace(s, name=name) for s in slides if s.name == source])
    more = options | {"slides_root": root, "manifest": None}
    done = run_import(tmp_path / "f", tmp_path / "s.zarr", more)
    assert [s.path for s in done.store.plan.slides] == ["a/s0.svs", "b/s0.svs"]
    assert done.teacher.attributes["proof"]["max_nearer"] == 0.0
    assert [reason.endswith("taken once, as a__s0.svs") for reason in audit_of(done.store).values()] == [True]
    shutil.rmtree(root / "a")
    (root / "b").rename(root / "c")
    code, _, err = call_g2l("import-features", tmp_path / "f", "--out", tmp_path / "t.zarr", *import_flags(more))
    store = Store(tmp_path / "t.zarr")
    assert (code, [s.path for s in store.plan.slides]) == (3, ["s2.svs"]), err
    assert audit_of(store).keys() == {"s0", "b/s0"}
    assert all("no slide of this name lies below" in reason for reason in audit_of(store).values())


@pytest.mark.parametrize(
    ("cases", "failed", "words"),
    [
        ("k,k", {"s2"}, "taken once, as s1"),
        (",", {"s2"}, "taken once, as s1"),
        ("k,", {"s2"}, "taken once, as s1"),
        (",k", {"s1"}, "taken once, as s2"),
        ("k,l", {"s1", "s2"}, "of several cases (k, l)"),
    ],
)
def test_copies_of_a_slide_are_not_imported_twice(
    tmp_path: Path,
    slides: list[FeatureSlide],
    options: dict[str, Any],
    pyramids: Path,
    cases: str,
    failed: set[str],
    words: str,
) -> None:
    root, manifest = shutil.copytree(pyramids, tmp_path / "slides"), tmp_path / "m.csv"
    shutil.copy(root / "s1.svs", root / "s2.svs")
    features = write_trident(tmp_path / "f", [*slides, *(replace(s, name="s2") for s in slides if s.name == "s1")])
    first, second = cases.split(",")
    manifest.write_text(f"slide_id,path,case_id\ns0,s0.svs,j\ns1,s1.svs,{first}\ns2,s2.svs,{second}\n")
    done = run_import(
        features, tmp_path / "s.zarr", options | {"slides_root": root, "manifest": manifest, "weights": None}
    )
    assert audit_of(done.store).keys() == failed
    assert all(words in reason for reason in audit_of(done.store).values())


@pytest.mark.parametrize(
    ("cases", "failed", "words"),
    [
        ("k,k", set(), ""),
        (",", {"s2"}, "though their files differ, taken once, as s1"),
        ("k,", {"s2"}, "though their files differ, taken once, as s1"),
        (",k", {"s1"}, "though their files differ, taken once, as s2"),
        ("k,l", {"s1", "s2"}, "though their files differ, of several cases (k, l)"),
    ],
)
def test_near_copies_of_a_slide_are_told_as_a_plan_tells_them(
    tmp_path: Path,
    slides: list[FeatureSlide],
    options: dict[str, Any],
    pyramids: Path,
    cases: str,
    failed: set[str],
    words: str,
) -> None:
    """The same pixels under another name, in a file with other bytes: OpenSlide's quickhash shows it."""
    root, manifest = shutil.copytree(pyramids, tmp_path / "slides"), tmp_path / "m.csv"
    (root / "s2.svs").write_bytes((root / "s1.svs").read_bytes() + b"x")
    features = write_trident(tmp_path / "f", [*slides, *(replace(s, name="s2") for s in slides if s.name == "s1")])
    first, second = cases.split(",")
    manifest.write_text(f"slide_id,path,case_id\ns0,s0.svs,j\ns1,s1.svs,{first}\ns2,s2.svs,{second}\n")
    done = run_import(
        features, tmp_path / "s.zarr", options | {"slides_root": root, "manifest": manifest, "weights": None}
    )
    assert audit_of(done.store).keys() == failed
    assert all(words in reason for reason in audit_of(done.store).values())
    warned = {row.slide_id for row in done.store.plan.audit if "by OpenSlide's quickhash" in row.warnings}
    assert warned == ({"s1", "s2"} if not failed else set())


def test_a_manifest_s_id_that_is_another_slide_s_file_name_fails_both(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], pyramids: Path
) -> None:
    """Without weights, too: TRIDENT's files are named by the slides' files."""
    root, manifest = shutil.copytree(pyramids, tmp_path / "slides"), tmp_path / "m.csv"
    shutil.copy(root / "s1.svs", root / "s2.svs")
    features = write_trident(tmp_path / "f", [*slides, *(replace(s, name="s2") for s in slides if s.name == "s1")])
    manifest.write_text("slide_id,path\ns1,s0.svs\ns0,s1.svs\ns2,s2.svs\n")
    more = options | {"slides_root": root, "manifest": manifest, "weights": None}
    code, _, err = call_g2l("import-features", features, "--out", tmp_path / "s.zarr", *import_flags(more))
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
        done = run_import(features, tmp_path / f"{name}.zarr", options, weights=None)
        assert [s.slide_id for s in done.store.plan.slides] == ["s0"]
        reason = audit_of(done.store)["s1"]
        assert "s1.npz: " in reason
        assert str(path) in reason
        first = {"beyond": "(the first: 0)", "hole": "(the first: 5)", "twice": "lacks a tile_index for each tile"}
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
    code, _, err = call_g2l("import-features", features, "--out", out, *import_flags(more), "--allow-upsampling")
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
    done = run_import(features, tmp_path / "s.zarr", options)
    assert done.teacher.spec.settings["imported"]["encoders"] == ["Mahmood-UNI", "uni_v1"]
    with h5py.File(features / "features_uni_v1" / "s1.h5", "r+") as f:
        f["features"].attrs["encoder"] = "uni_v2"
    with pytest.raises(ConfigError, match="the files name different encoders: uni_v1, uni_v2"):
        run_import(features, tmp_path / "t.zarr", options)


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
                run_import(features, tmp_path / f"{number}.zarr", options)
            continue
        assert run_import(features, tmp_path / f"{number}.zarr", options).num_failed == 0


def test_coordinates_that_are_no_places(tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any]) -> None:
    """Refused by name, without NumPy's word on a cast."""
    for number, coords in enumerate((np.full((12, 2), 1e300), np.full((12, 2), np.nan), np.full((12, 2), b"1"))):
        features = write_trident(tmp_path / str(number), slides)
        with h5py.File(features / "features_tiny" / "s1.h5", "r+") as f:
            attributes = dict(f["coords"].attrs)
            del f["coords"]
            f["coords"] = coords
            f["coords"].attrs.update(attributes)
        done = run_import(features, tmp_path / f"{number}.zarr", options)
        assert audit_of(done.store).keys() == {"s1"}
        reason = audit_of(done.store)["s1"]
        assert "s1.h5: " in reason
        assert "coords " in reason


@pytest.mark.parametrize("name", ["gone", "x" * 300])  # the second one is an error to ask for
def test_a_folder_of_coordinates_that_is_not_there(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], name: str
) -> None:
    features = write_clam(tmp_path / "f", slides)
    with pytest.raises(ConfigError, match=rf"^--coords \S*{name}: no such folder$"):
        run_import(features, tmp_path / "s.zarr", options, coords=tmp_path / name)
    assert not (tmp_path / "s.zarr").exists()
