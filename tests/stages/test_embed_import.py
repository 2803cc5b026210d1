"""From our own `embed` back into a store: the same as extracting with the teacher, whatever the layout."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from support.commands import call_g2l
from support.extraction import PATCH_PX, TEACHER, array_files, extract, plan_cohort, write_teacher
from support.importing import Place, places_of, rows_of
from support.slides import make_slide

from pipeline.base.errors import BenchmarkError, StoreError
from pipeline.encoders.names import other_encoders
from pipeline.features.read import read_facts
from pipeline.store.store import Store
from pipeline.store.teachers import choose_teachers

LAYOUTS = ("trident", "clam", "stamp", "pt")
SLIDES = {"even": (0.5, (1,)), "odd": (0.499, (1,)), "fine": (0.2527, (1, 4)), "level": (0.2309, (1, 2))}
"""um/px and levels. 64 px of 0.5 um are 64, 64.13, 126.63 and 138.59 level-0 pixels; of `level`, level 1 is read."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the slides, their manifest and the teacher's weights."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "slides").mkdir()
    lines = ["slide_id,path,case_id,split"]
    for seed, (name, (mpp, downsamples)) in enumerate(SLIDES.items()):
        width, height = (384, 320) if mpp > 0.3 else (800, 560)
        make_slide(
            folder / "slides" / f"{name}.svs",
            width=width,
            height=height,
            mpp=mpp,
            downsamples=downsamples,
            tile=64,
            seed=seed,
        )
        lines.append(f"{name},{name}.svs,c{seed},{'val' if name in ('odd', 'level') else 'train'}")
    (folder / "slides" / "manifest.csv").write_text("\n".join(lines) + "\n")
    write_teacher(folder / "teacher.safetensors")
    return folder


@pytest.fixture(scope="module")
def extracted(work: Path) -> Store:
    """What `extract-teacher` makes of all patches, in float32."""
    plan = plan_cohort(work / "slides" / "manifest.csv", patches_per_slide=10**6, resampling="lanczos-pillow")
    weights = work / "teacher.safetensors"
    return extract(plan, work / "extracted.zarr", weights, dtype="float32", rows_per_shard=64).store


@pytest.fixture(scope="module")
def made(work: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder that `embed` makes of each layout; shared, not changed."""
    return {layout: embed(work, tmp_path_factory.mktemp("made") / layout, layout) for layout in LAYOUTS}


@pytest.fixture(scope="module")
def imported(work: Path, made: dict[str, Path]) -> Path:
    """The store of TRIDENT's files; shared, not changed."""
    assert call_g2l(*command(work, made["trident"], work / "imported.zarr"))[0] == 0
    return work / "imported.zarr"


def embed(work: Path, out: Path, layout: str, model: str = TEACHER, resampling: str = "lanczos-pillow") -> Path:
    """The files of `g2l embed` with the same teacher, patches and arithmetic."""
    code, _, err = call_g2l(
        "embed",
        f"{model}@{work / 'teacher.safetensors'}",
        work / "slides" / "manifest.csv",
        "--out",
        out,
        "--layout",
        layout,
        "--patch-px",
        PATCH_PX,
        "--mpp",
        0.5,
        "--resampling",
        resampling,
        "--min-tissue",
        0,
        "--batch-size",
        4,
        "--device",
        "cpu",
        "--precision",
        "float32",
        "--workers",
        2,
    )
    assert code == 0, err
    return out


def command(work: Path, features: Path, out: Path, *more: object) -> list[object]:
    return [
        "import-features",
        features,
        "--slides-root",
        work / "slides",
        "--manifest",
        work / "slides" / "manifest.csv",
        "--teacher",
        TEACHER,
        "--weights",
        work / "teacher.safetensors",
        "--out",
        out,
        "--dtype",
        "float32",
        "--rows-per-shard",
        64,
        "--device",
        "cpu",
        "--workers",
        2,
        *more,
    ]


def splits_of(store: Store) -> dict[Place, int]:
    """The split of every row, by slide and corner."""
    splits = np.concatenate([slide.split for slide in store.plan.slides]).tolist()
    return dict(zip(places_of(store), splits, strict=True))


def assert_same_store(found: Store, expected: Store, rtol: float = 1e-5) -> None:
    rows = rows_of(found)
    assert {slide.slide_id for slide in expected.plan.slides} == set(SLIDES)
    for key, (embedding, pixels) in rows_of(expected).items():
        other = rows.pop(key)
        np.testing.assert_allclose(other[0], embedding, rtol=rtol, atol=1e-6, err_msg=str(key))
        np.testing.assert_array_equal(other[1], pixels, err_msg=str(key))
    assert not rows
    assert splits_of(found) == splits_of(expected)
    assert [s.geometry for s in found.plan.slides] == [s.geometry for s in expected.plan.slides]
    assert found.first.spec.teacher == expected.first.spec.teacher


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_embedded_and_imported_is_as_extracted(
    tmp_path: Path, work: Path, made: dict[str, Path], extracted: Store, layout: str
) -> None:
    """Nothing has to be said of the patches: the files say it."""
    code, _, err = call_g2l(*command(work, made[layout], tmp_path / "s.zarr"))
    assert code == 0, err
    assert "the files name" not in err
    store = Store(tmp_path / "s.zarr")
    assert_same_store(store, extracted, 2**-10 if layout == "stamp" else 1e-5)  # STAMP's are float16: 11 bits
    assert store.first.attributes["proof"]["min_slide_cosine"] > 0.999
    assert {s.geometry.level for s in store.plan.slides} == {0, 1}


@pytest.mark.slow
def test_who_reduced_patches_is_taken_from_the_files(tmp_path: Path, work: Path) -> None:
    """The store's pixels are those that the encoder saw: byte for byte what torch gives, where torch reduced them."""
    features = embed(work, tmp_path / "f", "trident", resampling="lanczos-torch")
    plan = plan_cohort(work / "slides" / "manifest.csv", patches_per_slide=10**6, resampling="lanczos-torch")
    weights = work / "teacher.safetensors"
    expected = extract(plan, tmp_path / "e.zarr", weights, dtype="float32", rows_per_shard=64).store
    code, _, err = call_g2l(*command(work, features, tmp_path / "s.zarr"))
    assert code == 0, err
    store = Store(tmp_path / "s.zarr")
    assert_same_store(store, expected)
    assert {s.slide_id: s.geometry.resampling for s in store.plan.slides} == dict.fromkeys(SLIDES, "lanczos-torch") | {
        "level": "lanczos-pillow"
    }
    assert store.plan.config.resampling == "lanczos-torch"
    arrays = array_files(tmp_path / "s.zarr")
    (tmp_path / "s.zarr/shards/0.json").unlink()
    assert call_g2l(*command(work, features, tmp_path / "s.zarr"))[0] == 0
    assert array_files(tmp_path / "s.zarr") == arrays


@pytest.mark.slow
def test_a_store_of_an_earlier_version_goes_on_by_pillow(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reduced by Pillow what torch had reduced before, and cannot be continued otherwise."""
    features, out = embed(work, tmp_path / "f", "trident", resampling="lanczos-torch"), tmp_path / "s.zarr"
    with monkeypatch.context() as earlier:
        earlier.setattr("pipeline.features.tools.trident.marked_resampling", lambda _: "lanczos-pillow")
        assert call_g2l(*command(work, features, out))[0] == 0
    arrays = array_files(out)
    (out / "shards/0.json").unlink()
    code, _, err = call_g2l(*command(work, features, out))
    assert code == 0, err
    assert array_files(out) == arrays
    assert Store(out).plan.config.resampling == "lanczos-pillow"


def test_a_torch_without_lanczos_is_told_before_anything_is_read(
    tmp_path: Path, work: Path, made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    features = Path(shutil.copytree(made["trident"], tmp_path / "f"))
    for path in features.glob("*/features_*/*.h5"):
        with h5py.File(path, "r+") as f:
            mark = json.loads(f.attrs["g2l"])
            mark["made_by"]["settings"]["resampling"] = "lanczos-torch"
            f.attrs["g2l"] = json.dumps(mark)
    monkeypatch.setattr("pipeline.base.images.TORCH_WITH_LANCZOS", (99, 1))
    code, _, err = call_g2l(*command(work, features, tmp_path / "s.zarr"))
    assert code == 1
    assert "torch reduced the patches of these features: torch" in err
    assert "embed with --resampling lanczos-pillow" in err
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.slow
def test_clam_s_whole_pixels_and_the_resolution_that_was_asked_for(
    tmp_path: Path, work: Path, made: dict[str, Path], extracted: Store
) -> None:
    """CLAM's own files have no mark: --mpp says what `patch_size` is the rounding of, within half a pixel of its level.

    Without it, the whole number stands; where --mpp implies another number, too.
    """
    features = Path(shutil.copytree(made["clam"], tmp_path / "clam"))
    shutil.move(features / "patches", tmp_path / "coords")
    apart = ("--coords", tmp_path / "coords")
    assert call_g2l(*command(work, features, tmp_path / "marked.zarr", *apart))[0] == 0
    assert_same_store(Store(tmp_path / "marked.zarr"), extracted)
    for path in (features / "h5_files").iterdir():
        with h5py.File(path, "r+") as f:
            del f.attrs["g2l"]
    sides = {}
    for mpp in (0.5, None, 0.51):
        out, more = tmp_path / f"{mpp}.zarr", () if mpp is None else ("--mpp", mpp)
        code, _, err = call_g2l(*command(work, features, out, *apart, "--patch-px", PATCH_PX, *more))
        assert code == 0, err
        sides[mpp] = {s.slide_id: s.geometry.patch_l0_px for s in Store(out).plan.slides}
    assert_same_store(Store(tmp_path / "0.5.zarr"), extracted)
    assert sides[None] == pytest.approx({"even": 64, "odd": 64, "fine": 127, "level": 138}, rel=1e-8)
    assert sides[0.51] == pytest.approx(sides[None], rel=1e-8)  # 65.3, 65.4, 129.2 and 141.4 are other numbers


def test_a_damaged_mark_is_named(tmp_path: Path, made: dict[str, Path]) -> None:
    features = Path(shutil.copytree(made["clam"], tmp_path / "clam"))
    path = features / "h5_files" / "fine.h5"
    for wrong in ("{", "{}", '{"made_by": {"settings": {"patch_px": null, "mpp": 0.5}}}'):
        with h5py.File(path, "r+") as f:
            f.attrs["g2l"] = wrong
        with pytest.raises(BenchmarkError, match=r"fine\.h5: what it says of its patches cannot be read"):
            read_facts(path)


def test_bare_tensors_say_their_size_as_slide2vec_does(made: dict[str, Path]) -> None:
    names = ("tile_size_lv0", "requested_tile_size_px", "requested_spacing_um")
    metas = {name: json.loads((made["pt"] / f"tile_embeddings/{name}.meta.json").read_text()) for name in SLIDES}
    said = {name: [meta[key] for key in names] for name, meta in metas.items()}
    assert said == {"even": [64, 64, 0.5], "odd": [64, 64, 0.5], "fine": [127, 64, 0.5], "level": [139, 64, 0.5]}


# --- what an imported store advises -------------------------------------------------------------------------


@pytest.mark.slow
def test_an_imported_store_is_mended_by_import_features(
    tmp_path: Path, work: Path, made: dict[str, Path], imported: Path
) -> None:
    """`verify` and what trains a student name the command that can do it, and it does."""
    out = Path(shutil.copytree(imported, tmp_path / "s.zarr"))
    whole, damaged = array_files(out), out / "embedding/c/1/0"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    code, said, _ = call_g2l("verify", out, "--sample", 0)
    assert code == 1
    assert "delete shards/<i>.json of the damaged shards and run import-features again: only they are done" in said
    assert "extract-teacher" not in said
    (out / "shards/1.json").unlink()
    code, said, _ = call_g2l("verify", out, "--sample", 0)
    assert (code, "1 shard pending: run import-features again to continue" in said) == (3, True)
    with pytest.raises(StoreError, match=r"is not finished: 1 of \d+ shards are missing\. Run import-features again"):
        choose_teachers(Store(out), None, None)
    assert call_g2l(*command(work, made["trident"], out))[0] == 0
    assert call_g2l("verify", out, "--sample", 0)[0] == 0
    assert array_files(out) == whole


def test_a_further_teacher_of_an_imported_store_is_mended_by_extract_teacher(tmp_path: Path, imported: Path) -> None:
    out = Path(shutil.copytree(imported, tmp_path / "s.zarr"))
    second = write_teacher(tmp_path / "second.safetensors", "test_efficientnet")
    extract(Store(out).plan, out, second, teacher="test_efficientnet", rows_per_shard=64)
    next((out / "teachers/test_efficientnet/shards").glob("*.json")).unlink()
    code, said, _ = call_g2l("verify", out, "--sample", 0)
    assert (code, "1 shard pending: run extract-teacher again to continue" in said) == (3, True)


# --- the encoder's name -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_another_encoder_s_name_is_said_and_kept(tmp_path: Path, work: Path) -> None:
    features, out = embed(work, tmp_path / "f", "stamp", f"other={TEACHER}"), tmp_path / "s.zarr"
    code, _, err = call_g2l(*command(work, features, out))
    assert code == 0
    assert f"note: the files name the encoder other, --teacher says {TEACHER}" in err
    assert "the files name the encoder other" in call_g2l("inspect", out)[1]
    record = (out / "zarr.json").read_text()
    (out / "zarr.json").write_text(record.replace('"other"', '"run-as-teacher"'))  # of a time when that was a note
    code, said, _ = call_g2l("inspect", out)
    assert (code, "run-as-teacher: `g2l embed --as-teacher` calls the embeddings of a student so" in said) == (0, True)


@pytest.mark.parametrize(
    ("name", "is_other"),
    [
        ("h-optimus-0", False),
        ("hoptimus0", False),
        ("H_Optimus_0", False),
        ("bioptimus/H-optimus-0", False),
        ("hf-hub:bioptimus/H-optimus-0", False),
        ("h-optimus-0-mine", True),
    ],
)
def test_names_that_are_the_teacher_s_in_another_spelling(name: str, is_other: bool) -> None:
    teacher = {"name": "h-optimus-0", "source": "hf-hub:bioptimus/H-optimus-0"}
    assert other_encoders([name], teacher) == ([name] if is_other else [])
