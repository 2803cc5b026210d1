"""TIGER's annotated regions: a miniature with the real folders and names."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import public_sets

from pipeline.base.errors import BenchmarkError

REGIONS = "wsirois/roi-level-annotations/tissue-bcss"


def test_tiles_have_the_class_that_covers_most_and_their_own_pixels(tmp_path: Path) -> None:
    root, images = public_sets.tiger(tmp_path / "tiger"), tmp_path / "images"
    members = public_sets.read("tiger", root, images)
    assert len(members.rows) == 12  # of four tiles a region, one has no class that covers more than half
    first = members.rows[:3]
    assert [row["biological_class"] for row in first] == ["invasive tumour", "stroma", "stroma"]
    assert {row["medical_center"] for row in first} == {"UCSF"}
    assert len({row["slide_id"] for row in members.rows}) == 4
    for row in first:
        left, top = map(int, row["patch_id"].split("_")[-2:])
        with Image.open(root / REGIONS / "images" / f"{row['path'].split(']')[0]}].png") as region:
            expected = np.asarray(region)[top : top + 224, left : left + 224]
        with Image.open(images / row["path"]) as tile:
            assert np.array_equal(np.asarray(tile), expected)


def change_mask(root: Path, mask: np.ndarray | None) -> str:
    """Replace the first region's mask, or remove it; returns the region's name."""
    path = sorted((root / REGIONS / "masks").iterdir())[0]
    path.unlink()
    if mask is not None:
        Image.fromarray(mask).save(path)
    return path.name


@pytest.mark.parametrize(
    ("mask", "why"),
    [
        (None, "not a readable image"),
        (np.zeros((100, 100), np.uint8), "mask of (100, 100) px"),
        (np.full((460, 460), 9, np.uint8), "the mask has the value 9"),
        (np.zeros((460, 460, 3), np.uint8), "a mask of RGB pixels"),
    ],
)
def test_a_region_with_a_damaged_mask_is_named(tmp_path: Path, mask: np.ndarray | None, why: str) -> None:
    root = public_sets.tiger(tmp_path / "tiger")
    name = change_mask(root, mask)
    members = public_sets.read("tiger", root)
    ((what, reason),) = public_sets.failed(members).items()
    assert (what, len(members.rows)) == (name, 9)
    assert why in reason


def test_a_changed_mask_cuts_the_tiles_anew(tmp_path: Path) -> None:
    root, images = public_sets.tiger(tmp_path / "tiger"), tmp_path / "images"
    public_sets.read("tiger", root, images)
    change_mask(root, np.ones((460, 460), np.uint8))
    members = public_sets.read("tiger", root, images)
    assert {path.name for path in images.glob("*.png")} == {row["path"] for row in members.rows}
    assert len(members.rows) == 13


def test_half_a_tile_is_not_enough(tmp_path: Path) -> None:
    root = public_sets.tiger(tmp_path / "tiger")
    mask = np.zeros((460, 460), np.uint8)
    mask[:224, :112] = 1
    mask[:224, 224:337] = 1
    change_mask(root, mask)
    members = public_sets.read("tiger", root)
    assert [row["patch_id"].split("_")[-2:] for row in members.rows[:1]] == [["224", "0"]]
    assert len(members.rows) == 10


def test_regions_of_other_names_are_named(tmp_path: Path) -> None:
    root = public_sets.tiger(tmp_path / "tiger")
    public_sets.picture(root / REGIONS / "images" / "100B_[1, 2, 3, 4].png", 1)
    assert list(public_sets.failed(public_sets.read("tiger", root))) == ["100B_[1, 2, 3, 4].png"]


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    (tmp_path / REGIONS / "images").mkdir(parents=True)
    with pytest.raises(BenchmarkError, match="holds no masks"):
        public_sets.read("tiger", tmp_path)
