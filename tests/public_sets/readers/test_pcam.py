"""PCam: a miniature in HDF5 with the real names, datasets and tables."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from support import public_sets

from pipeline.base.errors import BenchmarkError
from pipeline.public_sets.readers import pcam

STEM = "camelyonpatch_level_2_split_"


def test_label_slide_split_and_pixels(tmp_path: Path) -> None:
    root, images = public_sets.pcam(tmp_path / "pcam"), tmp_path / "images"
    members = public_sets.read("pcam", root, images)
    assert len(members.rows) == 24
    assert members.rows[13] == {
        "path": "val/000001.png",
        "label": "tumour",
        "slide_id": "camelyon16_valid_d",
        "split": "val",
    }
    assert members.images_root == images
    for split, word in (("train", "train"), ("val", "valid"), ("test", "test")):
        with h5py.File(root / f"{STEM}{word}_x.h5") as file:
            for place, pixels in enumerate(file["x"]):
                with Image.open(images / split / f"{place:06d}.png") as image:
                    assert np.array_equal(np.asarray(image), pixels)


def test_patches_that_are_written_already_stay(tmp_path: Path) -> None:
    root, images = public_sets.pcam(tmp_path / "pcam"), tmp_path / "images"
    public_sets.read("pcam", root, images)
    before = {path: path.stat().st_mtime_ns for path in images.rglob("*.png")}
    public_sets.read("pcam", root, images)
    assert before == {path: path.stat().st_mtime_ns for path in images.rglob("*.png")}


def test_patches_that_are_others_now_are_written_anew(tmp_path: Path) -> None:
    root, images = public_sets.pcam(tmp_path / "pcam"), tmp_path / "images"
    public_sets.read("pcam", root, images)
    with h5py.File(root / f"{STEM}valid_x.h5", "a") as file:
        file["x"][...] = file["x"][()][::-1]
        expected = file["x"][1]
    public_sets.read("pcam", root, images)
    with Image.open(images / "val/000001.png") as image:
        assert np.array_equal(np.asarray(image), expected)
    public_sets.pcam(tmp_path / "smaller", each=2)
    public_sets.read("pcam", tmp_path / "smaller", images)
    assert len(list(images.rglob("*.png"))) == 12


def test_an_unknown_label_is_named(tmp_path: Path) -> None:
    root = public_sets.pcam(tmp_path / "pcam")
    with h5py.File(root / f"{STEM}test_y.h5", "a") as file:
        file["y"][3] = 7
    members = public_sets.read("pcam", root)
    assert (len(members.rows), list(public_sets.failed(members))) == (23, ["test/000003.png"])


@pytest.mark.parametrize("part", ["train_x.h5", "valid_y.h5", "test_meta.csv"])
def test_a_missing_or_damaged_file_is_named_and_leaves_no_images(tmp_path: Path, part: str) -> None:
    root, images = public_sets.pcam(tmp_path / "pcam"), tmp_path / "images"
    whole = (root / f"{STEM}{part}").read_bytes()
    (root / f"{STEM}{part}").write_bytes(whole[: len(whole) // 2] if part.endswith("h5") else b"\xff\xfe")
    with pytest.raises(BenchmarkError, match=f"{STEM}{part}"):
        public_sets.read("pcam", root, images)
    (root / f"{STEM}{part}").unlink()
    with pytest.raises(BenchmarkError, match=f"{STEM}{part}"):
        public_sets.read("pcam", root, images)
    assert not images.exists()


def test_files_that_disagree_are_named(tmp_path: Path) -> None:
    root = public_sets.pcam(tmp_path / "pcam")
    with (root / f"{STEM}test_meta.csv").open("a") as file:
        file.write("8,0,0,True,True,camelyon16_test_f\n")
    with pytest.raises(BenchmarkError, match="has 8 patches and camelyonpatch_level_2_split_test_meta"):
        public_sets.read("pcam", root)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((8, 96, 96, 4), "uint8"), ((8, 1 << 20, 1 << 20, 3), "uint8"), ((8, 96, 96, 3), "float32"), ((), "uint8")],
)
def test_pixels_of_another_shape_or_type_are_refused_before_anything_is_read(
    tmp_path: Path, shape: tuple[int, ...], kind: str
) -> None:
    root, images = public_sets.pcam(tmp_path / "pcam"), tmp_path / "images"
    with h5py.File(root / f"{STEM}test_x.h5", "w") as file:
        file.create_dataset("x", shape, kind, chunks=(1, 96, 96, 1) if shape else None)
    (root / f"{STEM}train_y.h5").unlink()  # would be named, if it were read first
    with pytest.raises(BenchmarkError, match=rf"{STEM}test_x.h5: x is {kind} .*uint8 \(N, 96, 96, 3\)"):
        public_sets.read("pcam", root, images)
    assert not images.exists()


def test_patches_are_read_a_part_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pcam, "PART_BYTES", 3 * 96 * 96 * 3 + 1)
    root, images = public_sets.pcam(tmp_path / "pcam"), tmp_path / "images"
    public_sets.read("pcam", root, images)
    with h5py.File(root / f"{STEM}train_x.h5") as file, Image.open(images / "train/000011.png") as image:
        assert np.array_equal(np.asarray(image), file["x"][11])
