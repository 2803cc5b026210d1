"""`g2l embed`: files that other tools read, embeddings that are the model's, and a folder that is continued."""

import csv
import json
import shutil
import signal
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
import openslide
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray
from PIL import Image
from support.commands import call_g2l, leftovers, stop_g2l
from support.extraction import TEACHER, reference_model, write_teacher
from support.forked import ForkedCommands, forked_commands
from support.slides import damage_tiles, make_slide, not_a_slide

from pipeline.cohort.manifest.read import read_manifest
from pipeline.config.plan import PlanConfig
from pipeline.disk.locks import exclusive
from pipeline.encoders.build import build_encoder
from pipeline.features.find import find_feature_tree
from pipeline.features.read import read_features
from pipeline.features.tools import stamp
from stages.plan import plan_slides

PATCH_PX = 64
LAYOUTS = ("trident", "clam", "stamp", "pt")
SIZE = ["--patch-px", PATCH_PX, "--mpp", 0.5, "--device", "cpu", "--workers", 2]
FEATURES = {
    "trident": "20x_64px_0px_overlap/features_tiny/{}.h5",
    "clam": "h5_files/{}.h5",
    "stamp": "{}.h5",
    "pt": "tile_embeddings/{}.pt",
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights and slides: `a` and `b` of one level at 0.5 um/px, `fine` at 0.25."""
    folder = tmp_path_factory.mktemp("embed")
    (folder / "slides").mkdir()
    for seed, name in enumerate(("a", "b")):
        make_slide(folder / "slides" / f"{name}.svs", width=1024, height=900, mpp=0.5, downsamples=(1,), seed=seed)
    make_slide(folder / "slides" / "fine.svs", width=1500, height=1200, mpp=0.25, downsamples=(1, 4), seed=2)
    write_teacher(folder / "tiny.safetensors")
    return folder


def arguments(work: Path, out: Path, layout: str, *more: object, slides: Path | None = None) -> list[object]:
    model = f"tiny={TEACHER}@{work / 'tiny.safetensors'}"
    return ["embed", model, slides or work / "slides", "--out", out, "--layout", layout, *SIZE, *more]


def embed(work: Path, out: Path, layout: str, *more: object, slides: Path | None = None) -> tuple[int, str, str]:
    return call_g2l(*arguments(work, out, layout, *more, slides=slides))


@pytest.fixture(scope="module")
def made(work: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of each layout."""
    root = tmp_path_factory.mktemp("made")
    for layout in LAYOUTS:
        code, _, said = embed(work, root / layout, layout)
        assert code == 0, said
    return {layout: root / layout for layout in LAYOUTS}


def read_elsewhere(out: Path, layout: str, slide_id: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Features as they stand in a file, and level-0 coordinates, read without this project."""
    path = out / FEATURES[layout].format(slide_id)
    if layout == "pt":
        tensor = torch.load(path, weights_only=True)
        with np.load(out / "tiles" / f"{slide_id}.coordinates.npz") as tiles:
            assert tiles["tile_index"].tolist() == list(range(len(tensor)))
            assert (tiles["tissue_fractions"] >= 0.5).all()
            return tensor.numpy(), np.stack([tiles["x"], tiles["y"]], axis=1)
    with h5py.File(path, "r") as f:
        if layout == "stamp":
            mpp = 0.25 if slide_id == "fine" else 0.5
            return f["feats"][()], np.rint(f["coords"][()] / mpp).astype(np.int64)
        return f["features"][()], f["coords"][()].astype(np.int64)


def reference(work: Path, slide_id: str, coords: NDArray[np.int64]) -> NDArray[np.float32]:
    """The embeddings by timm's model alone, of pixels that OpenSlide alone gives."""
    slide = openslide.OpenSlide(work / "slides" / f"{slide_id}.svs")
    side = 2 * PATCH_PX if slide_id == "fine" else PATCH_PX
    patches = []
    for x, y in coords.tolist():
        patch = slide.read_region((x, y), 0, (side, side)).convert("RGB")
        patches.append(np.asarray(patch.resize((PATCH_PX, PATCH_PX), Image.Resampling.LANCZOS)))
    images = (torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    with torch.inference_mode():
        found: NDArray[np.float32] = reference_model(TEACHER, work / "tiny.safetensors")(images).numpy()
    return found


@pytest.mark.parametrize("slide_id", ["a", "fine"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_hold_the_model_s_embeddings_of_the_pixels_at_their_coordinates(
    work: Path, made: dict[str, Path], layout: str, slide_id: str
) -> None:
    features, coords = read_elsewhere(made[layout], layout, slide_id)
    assert features.dtype == (np.float16 if layout == "stamp" else np.float32)
    expected = reference(work, slide_id, coords)
    rtol = 1e-3 if layout == "stamp" else 1e-4  # float16 has 11 bits
    np.testing.assert_allclose(features.astype(np.float32), expected, rtol=rtol, atol=1e-4)
    assert (expected.std(0) > 1e-3).sum() > 30  # patches differ: agreement means something


@pytest.mark.slow
def test_tiles_decoded_at_half_their_size_give_nearly_the_same(
    work: Path, made: dict[str, Path], tmp_path: Path
) -> None:
    """Of the one slide whose patches are reduced by two; the others are decoded in full, as is said."""
    code, out, said = embed(work, tmp_path / "half", "trident", "--decode", "half")
    assert code == 0, said
    told = [line for line in (out + said).splitlines() if "its tiles are decoded in full" in line]
    assert [line.split(": ")[1] for line in told] == ["a", "b"]
    assert json.loads((tmp_path / "half" / "embed.json").read_text())["made_by"]["settings"]["decode"] == "half"
    for slide_id in ("a", "fine"):
        ours, coords = read_elsewhere(tmp_path / "half", "trident", slide_id)
        theirs, of_full = read_elsewhere(made["trident"], "trident", slide_id)
        assert np.array_equal(coords, of_full)  # of whole numbers of two pixels
        assert np.array_equal(ours, theirs) == (slide_id == "a")
        assert ((ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)).min() > 0.95
    assert embed(work, tmp_path / "half", "trident")[0] == 0  # goes on as it was begun
    code, _, said = embed(work, tmp_path / "half", "trident", "--decode", "full")
    assert code != 0
    assert "settings.decode: 'half' -> 'full'" in said


@pytest.mark.parametrize("layout", LAYOUTS)
def test_our_own_reader_gives_them_back_without_loss(made: dict[str, Path], layout: str) -> None:
    files = find_feature_tree(made[layout]).files
    assert sorted(files) == ["a", "b", "fine"]
    for slide_id, path in files.items():
        features, coords = read_elsewhere(made[layout], layout, slide_id)
        found = read_features(path)
        assert np.array_equal(found.features, features.astype(np.float32))
        assert found.coords is not None
        assert found.encoder == "tiny"
        um = (0.25 if slide_id == "fine" else 0.5) if layout == "stamp" else 1.0
        assert np.array_equal(np.rint(found.coords / um), coords)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_tissue_patches_are_there(work: Path, made: dict[str, Path], layout: str) -> None:
    rows = [f"{name},{name}.svs" for name in ("a", "b", "fine")]
    (work / "manifest.csv").write_text("\n".join(["slide_id,path", *rows]) + "\n")
    config = PlanConfig(patch_px=PATCH_PX, mpp=0.5, patches_per_slide=10**9)
    plan = plan_slides(read_manifest(work / "manifest.csv", work / "slides"), config, workers=1)
    for slide in plan.slides:
        assert len(slide.coords_l0_px) > 20
        assert np.array_equal(read_elsewhere(made[layout], layout, slide.slide_id)[1], slide.coords_l0_px)


def test_trident_s_attributes(made: dict[str, Path]) -> None:
    folder = made["trident"] / "20x_64px_0px_overlap"
    of_coords = {
        "patch_size": 64,
        "patch_size_level0": 128,
        "level0_magnification": 40,
        "target_magnification": 20,
        "overlap": 0,
        "name": "fine",
        "savetodir": "",
        "level0_width": 1500,
        "level0_height": 1200,
    }
    with h5py.File(folder / "patches" / "fine_patches.h5") as f:
        assert dict(f["coords"].attrs) == of_coords
        coords = f["coords"][()]
        assert coords.dtype == np.int64
    with h5py.File(folder / "features_tiny" / "fine.h5") as f:
        assert sorted(f) == ["coords", "features"]
        assert np.array_equal(f["coords"][()], coords)
        assert dict(f["coords"].attrs) == of_coords
        assert dict(f["features"].attrs) == {"name": "fine", "savetodir": "", "encoder": "tiny"}
        assert f["features"].chunks == (1, 96)
        assert f["features"].maxshape == (None, 96)


def test_clam_s_files_and_attributes(work: Path, made: dict[str, Path]) -> None:
    with h5py.File(made["clam"] / "patches" / "fine.h5") as f:
        attributes, coords = dict(f["coords"].attrs), f["coords"][()]
    assert (attributes["patch_size"], attributes["patch_level"], attributes["name"]) == (128, 0, "fine")
    assert attributes["downsample"].tolist() == [1, 1]
    assert attributes["level_dim"].tolist() == attributes["downsampled_level_dim"].tolist() == [1500, 1200]
    assert "save_path" in attributes
    with h5py.File(made["clam"] / "h5_files" / "fine.h5") as f:
        assert (f["features"].dtype, f["coords"].dtype) == (np.float32, np.int32)
        assert np.array_equal(f["coords"][()], coords)
        features = f["features"][()]
    tensor = torch.load(made["clam"] / "pt_files" / "fine.pt", weights_only=True)
    assert np.array_equal(tensor.numpy(), features)


def test_stamp_s_attributes(made: dict[str, Path]) -> None:
    with h5py.File(made["stamp"] / "fine.h5") as f:
        attributes = dict(f.attrs)
        assert sorted(f) == ["coords", "feats"]
    assert attributes.pop("g2l")
    assert len(attributes.pop("code_hash")) == 8
    assert attributes == {
        "stamp_version": "2.1.0",
        "extractor": "tiny",
        "unit": "um",
        "tile_size_um": 32.0,
        "tile_size_px": 64,
        "feat_type": "tile",
    }


def test_the_folder_says_what_made_it_and_its_options_feed_the_command(work: Path, made: dict[str, Path]) -> None:
    out = made["pt"]
    record = json.loads((out / "embed.json").read_text())
    weights = reference_model(TEACHER, work / "tiny.safetensors")
    expected = build_encoder(TEACHER, work / "tiny.safetensors", PATCH_PX).weights_sha256
    assert record["model"]["weights_sha256"] == record["made_by"]["model"]["weights_sha256"] == expected
    assert record["model"]["num_params"] == sum(p.numel() for p in weights.parameters())
    assert tomllib.loads((out / "embed.toml").read_text())["embed"]["layout"] == "pt"
    code, said, _ = call_g2l("embed", "--config", out / "embed.toml")
    assert (code, "nothing was left to do" in said, "finished before: 3" in said) == (0, True, True)
    assert not (out / "failures.csv").exists()


def test_a_stride_makes_patches_overlap(work: Path, tmp_path: Path) -> None:
    code, _, said = embed(work, tmp_path / "out", "trident", "--stride-px", 48, slides=work / "slides" / "a.svs")
    assert code == 0, said
    with h5py.File(tmp_path / "out" / "20x_64px_16px_overlap" / "features_tiny" / "a.h5") as f:
        assert f["coords"].attrs["overlap"] == 16
        assert (f["coords"][()] % 48 == 0).all()


def test_relative_paths_and_slides_of_a_manifest(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(work / "slides", "here")
    Path("m.csv").write_text("slide_id,path\none,a.svs\n")
    code, _, said = embed(work, Path("out"), "pt", "--slides-root", "here", slides=Path("m.csv"))
    assert code == 0, said
    assert torch.load("out/tile_embeddings/one.pt", weights_only=True).shape[1] == 96
    assert embed(work, Path("out2"), "pt", slides=Path("here/a.svs"))[0] == 0


# --- students -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_student_in_its_teacher_s_stead_is_the_projector_applied_by_hand(
    work: Path, run: Path, tmp_path: Path
) -> None:
    slide = work / "slides" / "a.svs"
    for name, more in (("own", []), ("teacher", ["--as-teacher"])):
        command = ["embed", f"s={run}", slide, "--out", tmp_path / name, "--layout", "pt", "--device", "cpu", *more]
        code, _, said = call_g2l(*command)  # patch size and resolution are the student's
        assert code == 0, said
    own, found = (torch.load(tmp_path / n / "tile_embeddings" / "a.pt", weights_only=True) for n in ("own", "teacher"))
    t = {
        k: v.double()
        for k, v in safetensors.torch.load_file(run / "student" / "projector" / "projector.safetensors").items()
    }
    z = own.double() @ t["linear.weight"].T + t["linear.bias"]
    z = (z - t["student_norm.mean"]) / (t["student_norm.var"] + 1e-5).sqrt()
    z = z * (t["teacher_norm.var"] + 1e-5).sqrt() + t["teacher_norm.mean"]
    assert found.shape == (len(own), 12)
    torch.testing.assert_close(found.double(), z, rtol=1e-4, atol=1e-4)
    meta = json.loads((tmp_path / "teacher" / "tile_embeddings" / "a.meta.json").read_text())
    assert meta["encoder_name"] == "s-as-teacher"


def test_a_student_knows_its_resolution(work: Path, run: Path, tmp_path: Path) -> None:
    config = json.loads((run / "student" / "config.json").read_text())
    assert config["mpp"] == 0.5
    student = shutil.copytree(run / "student", tmp_path / "student")
    (student / "config.json").write_text(json.dumps(config | {"mpp": 1.0}))
    slide = work / "slides" / "fine.svs"
    command = ["embed", student, slide, "--layout", "trident", "--device", "cpu"]
    assert call_g2l(*command, "--out", tmp_path / "out")[0] == 0
    assert (tmp_path / "out" / "10x_32px_0px_overlap" / "features_student" / "fine.h5").exists()
    code, _, said = call_g2l(*command, "--out", tmp_path / "other", "--mpp", 0.5)
    assert (code, "was trained at 1 um/px, --mpp is 0.5" in said) == (0, True)
    del config["mpp"]
    (student / "config.json").write_text(json.dumps(config))
    code, _, said = call_g2l(*command, "--out", tmp_path / "none")
    assert (code, "nothing says at which resolution student was trained" in said) == (1, True)


def test_a_model_without_a_projector_cannot_stand_in(work: Path, run: Path, tmp_path: Path) -> None:
    code, _, said = embed(work, tmp_path / "out", "pt", "--as-teacher")
    assert (code, "has no projector into a teacher's space" in said) == (1, True)
    code, _, said = call_g2l(
        "embed", f"{run}@before", work / "slides", "--out", tmp_path / "out", "--layout", "pt", "--as-teacher"
    )
    assert (code, "has no projector" in said) == (1, True)
    slide = work / "slides" / "a.svs"
    for more, words in (
        (["--teacher", "uni"], "--teacher uni goes with --as-teacher"),
        (["--as-teacher", "--teacher", "uni"], "learnt from one teacher only; leave out --teacher"),
    ):
        code, _, said = call_g2l("embed", run, slide, "--out", tmp_path / "out", "--layout", "pt", *more)
        assert (code, words in said) == (1, True), said
    assert not (tmp_path / "out").exists()


# --- continuing ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedCommands]:
    with forked_commands(tmp_path_factory.mktemp("forks")) as started:
        yield started


def contents(out: Path) -> dict[str, bytes]:
    """The bytes of all files of slides."""
    files = [path for path in sorted(out.rglob("*")) if path.is_file()]
    return {str(p.relative_to(out)): p.read_bytes() for p in files if p.parent != out or p.suffix == ".h5"}


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_finished_slides_stay_and_broken_ones_are_done_again(work: Path, made: dict[str, Path], layout: str) -> None:
    out = made[layout]
    expected = contents(out)
    assert len(expected) in (3, 6, 9, 12)
    victims = [out / name for name in expected if "fine" in name]
    others = {p: p.stat().st_mtime_ns for p in (out / name for name in expected) if p not in victims}
    for victim in victims:
        victim.write_bytes(victim.read_bytes()[:-100])
        code, said, _ = embed(work, out, layout)
        assert (code, "finished before: 2" in said) == (0, True)
        assert contents(out) == expected
    assert {path: path.stat().st_mtime_ns for path in others} == others


def test_a_slide_that_was_replaced_is_not_listed_for_slide2vec(work: Path, tmp_path: Path) -> None:
    slides = Path(shutil.copytree(work / "slides", tmp_path / "slides"))
    out = tmp_path / "out"
    assert embed(work, out, "pt", slides=slides)[0] == 0
    shutil.copyfile(slides / "b.svs", slides / "a.svs")
    code, said, _ = embed(work, out, "pt", slides=slides)
    assert (code, "a.svs: not the slide that" in said) == (3, True)
    with (out / "process_list.csv").open(newline="") as file:
        assert [row["sample_id"] for row in csv.DictReader(file)] == ["b", "fine"]


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["trident", "clam", "pt"])
def test_a_killed_run_leaves_nothing_half_done_and_ends_as_one_that_was_not(
    work: Path, tmp_path: Path, forks: ForkedCommands, layout: str
) -> None:
    slides = tmp_path / "slides"
    slides.mkdir()
    for i in range(6):
        shutil.copy(work / "slides" / f"{'ab'[i % 2]}.svs", slides / f"s{i:02d}.svs")
    small = ["--stride-px", 36, "--batch-size", 4]  # a slide takes long enough to be met at work
    out, finished = (
        tmp_path / "out",
        {"trident": "*/features_tiny/*.h5", "clam": "h5_files/*.h5", "pt": "tile_embeddings/*.meta.json"},
    )
    stopped = stop_g2l(
        *arguments(work, out, layout, *small, slides=slides),
        out=out,
        ready=lambda: len(list(out.glob(finished[layout]))) >= 2,
        start=forks.start,
    )
    assert stopped.returncode == -signal.SIGKILL, stopped.stdout
    done = {path: path.stat().st_mtime_ns for path in out.glob(finished[layout])}
    assert 2 <= len(done) <= 6
    for path in find_feature_tree(out).files.values():
        assert len(read_features(path).features) > 20
    code, said, _ = embed(work, out, layout, "--stride-px", 36, slides=slides)  # the batch size is kept
    assert (code, f"finished before: {len(done)}" in said) == (0, True)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert embed(work, tmp_path / "unbroken", layout, *small, slides=slides)[0] == 0
    assert contents(out) == contents(tmp_path / "unbroken")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--mpp", 1], "settings.mpp: 0.5 -> 1.0"),
        (["--stride-px", 32], "settings.stride_px: 64 -> 32"),
        (["--min-tissue", 0.1], "settings.min_tissue: 0.5 -> 0.1"),
        (["--dtype", "float16"], "settings.dtype: 'float32' -> 'float16'"),
        (["--precision", "bfloat16"], "model.precision: 'float32' -> 'bfloat16'"),
        (["--layout", "clam"], "settings.layout: 'trident' -> 'clam'"),
    ],
)
def test_other_settings_are_refused_and_said(work: Path, made: dict[str, Path], more: list[object], words: str) -> None:
    before = contents(made["trident"])
    code, _, said = embed(work, made["trident"], "trident", *more)
    assert (code, words in said) == (1, True), said
    assert contents(made["trident"]) == before


def test_another_model_is_refused(work: Path, made: dict[str, Path], tmp_path: Path) -> None:
    other = f"tiny={TEACHER}@{write_teacher(tmp_path / 'other.safetensors', seed=1)}"
    code, _, said = call_g2l("embed", other, work / "slides", "--out", made["pt"], "--layout", "pt", *SIZE)
    assert (code, "model.weights_sha256: " in said) == (1, True)


def test_files_of_other_makers_are_never_overwritten(work: Path, made: dict[str, Path], tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").touch()
    code, _, said = embed(work, foreign, "stamp")
    assert (code, "holds something else than embeddings" in said) == (1, True)
    assert [path.name for path in foreign.iterdir()] == ["notes.txt"]
    out = shutil.copytree(made["stamp"], tmp_path / "out")
    with h5py.File(out / "a.h5", "w") as f:
        f["feats"] = np.zeros((3, 4))
    code, _, said = embed(work, out, "stamp")
    assert (code, f"{out / 'a.h5'} was not made by g2l embed" in said) == (1, True)
    shutil.copy(made["stamp"] / "a.h5", out / "a.h5")
    with h5py.File(out / "a.h5", "a") as f:
        mark = json.loads(f.attrs["g2l"])
        mark["made_by"]["settings"]["mpp"] = 1.0
        f.attrs["g2l"] = json.dumps(mark)
    code, _, said = embed(work, out, "stamp")
    assert (code, "settings.mpp: 1.0 -> 0.5" in said) == (1, True)


def test_one_run_at_a_time(work: Path, tmp_path: Path) -> None:
    with exclusive(tmp_path / "out", "another"):
        code, _, said = embed(work, tmp_path / "out", "stamp")
    assert (code, "is in use by another" in said) == (1, True)


# --- what fails ---------------------------------------------------------------------------------------------


def failures_of(out: Path) -> list[dict[str, str]]:
    with open(out / "failures.csv", newline="") as f:
        return list(csv.DictReader(f))


@pytest.mark.slow
def test_bad_slides_are_listed_and_the_rest_goes_on(work: Path, tmp_path: Path) -> None:
    slides, out = tmp_path / "slides", tmp_path / "out"
    shutil.copytree(work / "slides", slides)
    not_a_slide(slides / "bad.svs")
    make_slide(slides / "blank.svs", pattern="blank", width=512, height=448, mpp=0.5, downsamples=(1,))
    damage_tiles(work / "slides" / "a.svs", [(1, 1)], how="garbage", out=slides / "a.svs")
    for _ in range(2):  # the second call finds nothing better to say
        code, said, _ = embed(work, out, "clam", slides=slides)
        assert code == 3
        assert "bad: " in said
        failures = failures_of(out)
        whole = {line["slide_id"]: line["reason"] for line in failures if line["status"] == "SLIDE"}
        assert sorted(whole) == ["bad", "blank"]
        assert "not a slide that OpenSlide can read" in whole["bad"]
        assert "no patch has 50% of its area on tissue" in whole["blank"]
        lost = {(int(line["x"]), int(line["y"])) for line in failures if line["slide_id"] == "a"}
        assert {line["status"] for line in failures if line["slide_id"] == "a"} == {"UNREADABLE"}
    features, coords = read_elsewhere(out, "clam", "a")
    assert 0 < len(lost) < len(coords)
    assert not lost & set(map(tuple, coords.tolist()))
    np.testing.assert_allclose(features, reference(work, "a", coords), rtol=1e-4, atol=1e-4)  # the slide undamaged
    assert find_feature_tree(out).files.keys() == {"a", "b", "fine"}
    assert leftovers(tmp_path) == []


@pytest.mark.slow
def test_a_slide_that_is_called_otherwise_than_before_is_not_embedded_twice(work: Path, tmp_path: Path) -> None:
    """A second file of the same name changes the first one's id, and back."""
    slides, out = tmp_path / "slides", tmp_path / "out"
    (slides / "x").mkdir(parents=True)
    (slides / "y").mkdir()
    shutil.copy(work / "slides" / "a.svs", slides / "x" / "s.svs")
    assert embed(work, out, "clam", slides=slides)[0] == 0
    shutil.copy(work / "slides" / "b.svs", slides / "y" / "s.svs")
    code, said, err = embed(work, out, "clam", slides=slides)
    assert code == 3, err
    reason = failures_of(out)[0]["reason"]
    assert (failures_of(out)[0]["slide_id"], reason in said) == ("x__s.svs", True)
    assert reason.startswith(f"{slides / 'x/s.svs'}: embedded already as ")
    assert all(str(path) in reason for path in (out / "h5_files/s.h5", out / "pt_files/s.pt", out / "patches/s.h5"))
    assert find_feature_tree(out).files.keys() == {"s", "y__s.svs"}  # the other one goes on
    for folder, ending in (("h5_files", "h5"), ("pt_files", "pt"), ("patches", "h5")):
        (out / folder / f"s.{ending}").unlink()
    assert embed(work, out, "clam", slides=slides)[0] == 0
    assert find_feature_tree(out).files.keys() == {"x__s.svs", "y__s.svs"}
    assert read_elsewhere(out, "clam", "x__s.svs")[0].shape[0] > 0
    shutil.rmtree(slides / "y")
    code, said, _ = embed(work, out, "clam", slides=slides)
    assert (code, "embedded already as" in said, "x__s.svs.h5" in said) == (3, True, True)
    assert not (out / "h5_files" / "s.h5").exists()


@pytest.mark.slow
def test_a_mended_slide_is_done_again_when_asked_for(work: Path, tmp_path: Path) -> None:
    slide, out = tmp_path / "x.svs", tmp_path / "out"
    whole = make_slide(tmp_path / "whole.svs", width=1024, height=1024, mpp=0.5, downsamples=(1, 4), seed=1)
    damage_tiles(whole, [(1, 1)], how="garbage", out=slide)  # same size, same coarsest level
    assert embed(work, out, "stamp", slides=slide)[0] == 3
    with h5py.File(out / "x.h5") as f:
        few = len(f["feats"])
    code, said, _ = embed(work, out, "stamp", "--retry-failures", slides=slide)  # nothing to gain
    assert (code, f"{few} patches" in said) == (3, True)
    (out / "failures.csv").unlink()
    assert embed(work, out, "stamp", slides=slide)[0] == 3
    assert failures_of(out)[0]["reason"].endswith("patches were left out")
    shutil.copy(whole, slide)
    code, _, err = embed(work, out, "stamp", slides=slide)
    assert (code, err.count("x.svs: its file has changed since ")) == (3, 1)  # said, but not done unasked
    assert embed(work, out, "stamp", "--retry-failures", slides=slide)[0] == 0
    with h5py.File(out / "x.h5") as f:
        assert len(f["feats"]) > few
    assert not (out / "failures.csv").exists()


def test_a_finished_slide_that_was_away_for_one_call_keeps_the_list_of_its_patches(work: Path, tmp_path: Path) -> None:
    slides, out = tmp_path / "slides", tmp_path / "out"
    slides.mkdir()
    make_slide(slides / "b.svs", width=256, height=256, mpp=0.5, downsamples=(1,))
    whole = make_slide(tmp_path / "whole.svs", width=1024, height=1024, mpp=0.5, downsamples=(1,), seed=1)
    damage_tiles(whole, [(1, 1)], how="garbage", out=slides / "x.svs")
    manifest = tmp_path / "m.csv"
    manifest.write_text("slide_id,path\nb,b.svs\nx,x.svs\n")
    root = ["--slides-root", slides]
    assert embed(work, out, "stamp", *root, slides=manifest)[0] == 3
    before, patches = (out / "failures.csv").read_bytes(), failures_of(out)
    (slides / "x.svs").rename(tmp_path / "x.svs")
    assert embed(work, out, "stamp", *root, slides=manifest)[0] == 3
    assert failures_of(out)[:-1] == patches
    assert failures_of(out)[-1]["status"] == "SLIDE"
    (tmp_path / "x.svs").rename(slides / "x.svs")
    assert embed(work, out, "stamp", *root, slides=manifest)[0] == 3
    assert (out / "failures.csv").read_bytes() == before


def test_another_slide_under_the_same_name_is_not_taken_for_the_old_one(work: Path, tmp_path: Path) -> None:
    slide, out = tmp_path / "x.svs", tmp_path / "out"
    shutil.copy(work / "slides" / "a.svs", slide)
    assert embed(work, out, "stamp", slides=slide)[0] == 0
    before = (out / "x.h5").read_bytes()
    shutil.copy(work / "slides" / "b.svs", slide)
    code, _, _ = embed(work, out, "stamp", slides=slide)
    assert code == 3
    assert "not the slide that" in failures_of(out)[0]["reason"]
    assert (out / "x.h5").read_bytes() == before
    (out / "x.h5").unlink()
    assert embed(work, out, "stamp", slides=slide)[0] == 0


def test_the_manifest_s_sha256_is_compared(work: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"slide_id,path,sha256\nx,a.svs,{'0' * 64}\ny,gone.svs,\n")
    root = ["--slides-root", work / "slides"]
    assert embed(work, tmp_path / "out", "stamp", *root, slides=manifest)[0] == 3
    reasons = {line["slide_id"]: line["reason"] for line in failures_of(tmp_path / "out")}
    assert "its SHA-256 is not the manifest's" in reasons["x"]
    assert "no such slide" in reasons["y"]
    assert embed(work, tmp_path / "out", "stamp", *root, "--no-check-files", slides=manifest)[0] == 3
    assert [line["slide_id"] for line in failures_of(tmp_path / "out")] == ["y"]


def test_what_is_no_number_in_the_stored_type_is_left_out(work: Path, tmp_path: Path) -> None:
    weights = safetensors.torch.load_file(work / "tiny.safetensors")
    for name in ("layer4.0.bn2.weight", "layer4.0.bn2.bias", "layer4.0.downsample.1.weight"):
        weights[name] = weights[name] * 1e8
    safetensors.torch.save_file(weights, tmp_path / "huge.safetensors")
    command = ["embed", f"{TEACHER}@{tmp_path / 'huge.safetensors'}", work / "slides" / "a.svs", *SIZE]
    assert call_g2l(*command, "--layout", "stamp", "--out", tmp_path / "half")[0] == 3
    assert "more than float16 holds" in failures_of(tmp_path / "half")[0]["reason"]
    assert not (tmp_path / "half" / "a.h5").exists()
    assert call_g2l(*command, "--layout", "clam", "--out", tmp_path / "single")[0] == 0


@pytest.mark.slow
def test_a_full_disk_is_said_and_finished_slides_are_safe(work: Path, tmp_path: Path) -> None:
    real, calls = stamp.write_features, 0

    def full(*args: Any, **kwargs: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise OSError(28, "No space left on device")
        real(*args, **kwargs)

    with mock.patch.object(stamp, "write_features", full):
        code, _, said = embed(work, tmp_path / "out", "stamp")
    assert (code, "No space left on device" in said, "Finished slides are safe" in said) == (1, True, True)
    assert [path.name for path in (tmp_path / "out").glob("*.h5")] == ["a.h5"]
    code, said, _ = embed(work, tmp_path / "out", "stamp")
    assert (code, "finished before: 1" in said) == (0, True)


def test_a_slide_s_file_that_finds_no_room_is_named(work: Path, tmp_path: Path) -> None:
    full = mock.Mock(side_effect=OSError(28, "No space left on device"))
    with mock.patch.object(stamp, "write_features", full):
        code, _, said = embed(work, tmp_path / "out", "stamp")
    assert (code, f"cannot write {tmp_path / 'out' / 'a.h5'}: No space left on device" in said) == (1, True), said


@pytest.mark.parametrize(("layout", "dtype"), [("clam", "float16"), ("stamp", "float32")])
def test_a_layout_s_type_is_kept(work: Path, tmp_path: Path, layout: str, dtype: str) -> None:
    code, _, said = embed(work, tmp_path / "out", layout, "--dtype", dtype)
    assert (code, f"--dtype {dtype}: features of --layout {layout} are" in said) == (1, True)


@pytest.mark.parametrize(
    ("slides", "more", "words"),
    [
        ("nowhere", [], "no such manifest (CSV), folder of slides, or slide"),
        ("slides", ["--slides-root", "."], "--slides-root goes with a manifest"),
        ("gone.csv", [], "none of the 1 slides of"),
    ],
)
def test_wrong_slides_are_said(work: Path, tmp_path: Path, slides: str, more: list[str], words: str) -> None:
    (work / "gone.csv").write_text("slide_id,path\nx,gone.svs\n")
    code, _, said = embed(work, tmp_path / "out", "stamp", *more, slides=work / slides)
    assert (code, words in said) == (1, True), said
    assert not (tmp_path / "out").exists()
