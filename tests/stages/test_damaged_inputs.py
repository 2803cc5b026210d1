"""Damaged and hostile feature files and images, through what the commands call: each is named, and the others go on."""

import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from support.damage import claim_32_tib, damaged
from support.features import FeatureSlide, write_clam, write_slide2vec, write_stamp, write_trident
from support.pixels import noise

from pipeline.base.errors import BenchmarkError, G2LError
from pipeline.cohort.manifest.read import parse_manifest
from pipeline.disk import first_look
from pipeline.evaluate.images import FORMATS, MOST_PIXELS, require_images_root, scan_images
from pipeline.evaluate.slide_benchmark.benchmark import named_folders
from pipeline.evaluate.slide_benchmark.data import read_slide_set
from pipeline.evaluate.slide_benchmark.score import survey
from pipeline.features.cache import cached
from pipeline.features.find import find_feature_tree
from pipeline.features.read import read_placed

ROWS, WIDTH = 12, 8
FEATURES = np.random.default_rng(0).standard_normal((ROWS, WIDTH), dtype=np.float32)
TOO_LONG = "x" * 300
"""A name that no file system takes: asking for it is an error, as below a folder that the user may not search."""
COORDS = np.stack([np.arange(ROWS) * 256, np.zeros(ROWS, np.int64)], axis=1)
MOST_SECONDS = 20
"""A damaged file may take, on a busy machine; the sound ones take milliseconds. HDF5 goes round in circles in a few
(TRIDENT's at seed 1021): those are ended and refused by the limit of the first look.
"""
LOOK_SECONDS = 10.0
"""That limit here, where a sound file takes a look of milliseconds: it is a minute, all of which such a file takes."""


@pytest.mark.parametrize(
    ("option", "look"),
    [
        ("--images-root", lambda folder: require_images_root(folder)),
        ("--slides-root", lambda folder: parse_manifest(folder.parent / "m.csv", folder)),
        ("--features", lambda folder: named_folders([f"label={folder}"])),
        ("--features", lambda folder: named_folders([str(folder)])),
        ("FEATURES: ", lambda folder: find_feature_tree(folder, "FEATURES: ")),
    ],
)
def test_a_folder_that_cannot_be_asked_for_is_named_with_its_option(
    tmp_path: Path, option: str, look: Callable[[Path], object]
) -> None:
    with pytest.raises(G2LError, match=TOO_LONG) as refused:
        look(tmp_path / TOO_LONG)
    assert option in str(refused.value)


SLIDES = [FeatureSlide("s1", FEATURES, COORDS, slide_mpp=0.25, patch_px=256, mpp=0.25, size=(ROWS * 256, 256))]


def trident_file(folder: Path) -> Path:
    return write_trident(folder, SLIDES, compression="gzip") / "features_tiny" / "s1.h5"


def clam_file(folder: Path) -> Path:
    """Without the tensors, which are not read beside an HDF5 file."""
    shutil.rmtree(write_clam(folder, SLIDES) / "pt_files")
    return folder / "h5_files" / "s1.h5"


def slide2vec_file(folder: Path, suffix: str = ".pt") -> Path:
    return write_slide2vec(folder, SLIDES, suffix) / "tile_embeddings" / f"s1{suffix}"


def old_tensor_file(folder: Path) -> Path:
    path = slide2vec_file(folder)
    torch.save(torch.from_numpy(FEATURES), path, _use_new_zipfile_serialization=False)
    return path


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "trident": trident_file,
    "clam": clam_file,
    "stamp": lambda folder: write_stamp(folder, SLIDES) / "s1.h5",
    "slide2vec": slide2vec_file,
    "slide2vec, torch before 1.6": old_tensor_file,
    "slide2vec, npz": lambda folder: slide2vec_file(folder, ".npz"),
}
"""Each writes the files of a slide, and returns the one of its features."""


def fuzz_features(folder: Path, layout: str, seeds: range) -> int:
    """Damage the files of a slide one after the other and read it as `import-features` and `evaluate` do; how often it
    was refused. Anything but an error of G2L that names a file of the slide, or sound numbers, fails.
    """
    path = LAYOUTS[layout](folder)
    whole = {file: file.read_bytes() for file in sorted(folder.rglob("*.*")) if file.is_file()}
    num_refused = 0
    for seed in seeds:
        file = list(whole)[seed % len(whole)]
        file.write_bytes(damaged(whole[file], seed))
        started, refusal, placed = time.monotonic(), "", None
        try:
            find_feature_tree(path.parent)
            placed = read_placed(path)
        except G2LError as error:
            num_refused, refusal = num_refused + 1, str(error)
        if placed is None:
            assert "s1" in refusal, f"seed {seed}: {refusal}"
            assert len(refusal.splitlines()) == 1, f"seed {seed}: {refusal}"
        else:
            assert placed.features.ndim == 2, f"seed {seed}"
            assert np.isfinite(placed.features).all(), f"seed {seed}"
            assert placed.coords.shape == (len(placed.features), 2), f"seed {seed}"
        is_quick = time.monotonic() - started < MOST_SECONDS
        assert is_quick or "opening it took more than" in refusal, f"seed {seed}: {file}"
        file.write_bytes(whole[file])
    return num_refused


@pytest.mark.parametrize("layout", LAYOUTS)
def test_damaged_feature_files(tmp_path: Path, layout: str) -> None:
    assert fuzz_features(tmp_path / "f", layout, range(8)) > 0


@pytest.mark.parametrize("name", ["tile_embeddings/s1.meta.json", "tiles/s1.coordinates.npz"])
@pytest.mark.parametrize("target", ["itself", "nowhere"])
def test_a_link_that_leads_nowhere_is_not_taken_for_no_file(tmp_path: Path, name: str, target: str) -> None:
    """What describes the patches is optional: without it they are taken as something else."""
    path = slide2vec_file(tmp_path)
    file = tmp_path / name
    file.unlink()
    file.symlink_to(file.name if target == "itself" else "nowhere")
    with pytest.raises(G2LError, match=file.name + ": not a readable"):
        read_placed(path)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_many_damaged_feature_files(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_look, "SECONDS", LOOK_SECONDS)
    print(f"{layout}: seeds 1000 to 1079")
    assert fuzz_features(tmp_path / "f", layout, range(1000, 1080)) > 16


def fuzz_images(folder: Path, seeds: range) -> int:
    """Damage images of every format and look through them as `evaluate` does; how many were refused."""
    pixels = noise(24, 24, 3)
    wholes = {}
    for kind in FORMATS:
        Image.fromarray(pixels).save(folder / "whole", kind, **({"compression": "tiff_lzw"} if kind == "TIFF" else {}))
        wholes[kind] = (folder / "whole").read_bytes()
    paths = []
    for seed in seeds:
        paths.append(folder / f"{seed}.png")
        paths[-1].write_bytes(damaged(wholes[FORMATS[seed % len(FORMATS)]], seed))
    good = folder / "good.png"
    Image.fromarray(pixels).save(good)
    started = time.monotonic()
    scanned = scan_images([*paths, good], workers=2)
    assert time.monotonic() - started < MOST_SECONDS + len(paths)
    assert len(paths) in scanned.usable()  # the good one
    assert all(words.strip() and "\n" not in words for words in scanned.problems.values())
    return len(scanned.problems)


def test_damaged_images(tmp_path: Path) -> None:
    assert fuzz_images(tmp_path, range(30)) > 5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_damaged_images(tmp_path: Path) -> None:
    print("seeds 1000 to 1399")
    assert fuzz_images(tmp_path, range(1000, 1400)) > 100


# --- hostile ones among good ones, as a benchmark of slides reads them ---


def claims_too_much(path: Path) -> None:
    with h5py.File(path, "w") as f:
        claim_32_tib(f, "features")


def damaged_tensor(path: Path) -> None:
    path.with_suffix(".pt").write_bytes(b"\x80\x02X")  # struct.error in torch's unpickler


def empty_pickle(path: Path) -> None:
    path.with_suffix(".pt").write_bytes(b"\x80\x02.")  # IndexError


def claiming_archive(path: Path) -> None:
    with zipfile.ZipFile(path.with_suffix(".npz"), "w") as archive, archive.open("features.npy", "w") as f:
        np.lib.format.write_array_header_1_0(f, {"descr": "<f4", "fortran_order": False, "shape": (2**42, WIDTH)})


def another_file(path: Path) -> None:
    secret = path.parent.parent / "passwd"
    secret.write_bytes(b"root:x:0:0" * 100)
    with h5py.File(path, "w") as f:
        f.create_dataset("features", (20, WIDTH), "uint8", external=[(str(secret), 0, 160)])


HOSTILE: tuple[Callable[[Path], None], ...] = (
    claims_too_much,
    damaged_tensor,
    empty_pickle,
    claiming_archive,
    another_file,
)


def test_hostile_feature_files_are_left_out_by_name_and_the_others_are_scored(tmp_path: Path) -> None:
    folder = tmp_path / "features"
    folder.mkdir()
    for i, write in enumerate(HOSTILE):
        write(folder / f"bad{i}.h5")
    for i in range(4):
        with h5py.File(folder / f"good{i}.h5", "w") as f:
            f["features"] = FEATURES + i
    names = [*(f"bad{i}" for i in range(len(HOSTILE))), *(f"good{i}" for i in range(4))]
    table = tmp_path / "labels.csv"
    rows = "".join(f"{name},{i % 2}\n" for i, name in enumerate(names))
    table.write_text(f"slide_id,label\n{rows}")
    found, surveys = survey(read_slide_set(table, "label", [("uni", folder)]))
    assert found.slides == [f"good{i}" for i in range(4)]
    left_out = {exclusion.what.split()[1]: exclusion for exclusion in found.exclusions}
    assert sorted(left_out) == [f"bad{i}" for i in range(len(HOSTILE))]
    assert all(f"{name}." in exclusion.why for name, exclusion in left_out.items())
    assert not any(exclusion.by_rule for exclusion in found.exclusions)  # so that the command ends with 3
    assert len(surveys["uni"].moments) == 4


def test_a_hostile_cache_is_made_anew(tmp_path: Path) -> None:
    model, data = {"model": 1}, {"data": 1}
    expected = cached(tmp_path, model, data, lambda: FEATURES)
    (path,) = tmp_path.glob("*.h5")
    with h5py.File(path, "r+") as f:
        del f["features"]
        f["features"] = h5py.ExternalLink("other.h5", "/features")
    np.testing.assert_array_equal(cached(tmp_path, model, data, lambda: FEATURES), expected)


# --- images of other formats and sizes ---

POSTSCRIPT = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 32 32
%%EndComments
(made) (w) file
"""


def test_postscript_in_a_png_starts_no_other_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: Any, **_: Any) -> None:
        raise AssertionError(f"started {arguments}")

    monkeypatch.setattr("subprocess.check_call", run)
    monkeypatch.setattr("subprocess.Popen", run)
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", run)
    path = tmp_path / "a.png"
    path.write_bytes(POSTSCRIPT)
    scanned = scan_images([path], workers=1)
    assert scanned.problems[0] == "not readable as an image (none of PNG, JPEG, TIFF, BMP, WEBP)"


@pytest.mark.parametrize("kind", ["GIF", "PPM", "ICO", "PCX", "TGA", "SGI", "JPEG2000", "PDF"])
def test_formats_that_no_patch_has_are_refused_whatever_they_are_called(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(path, kind)
    assert "not readable as an image" in scan_images([path], workers=1).problems[0]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # as a command has it
def test_pixels_are_bounded_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    side = int(MOST_PIXELS**0.5) + 1
    path = tmp_path / "a.png"
    Image.new("1", (side, side)).save(path)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decoded"))
    assert f"at most {MOST_PIXELS:,} are read" in scan_images([path], workers=1).problems[0]


def test_a_file_of_no_kind_in_a_folder_of_features_is_named(tmp_path: Path) -> None:
    (tmp_path / "s1.h5").symlink_to("/dev/zero")
    (tmp_path / "s2.h5").mkdir()
    for name in ("s1", "s2"):
        with pytest.raises(BenchmarkError, match=rf"{name}\.h5: not a readable feature file"):
            read_placed(tmp_path / f"{name}.h5")
