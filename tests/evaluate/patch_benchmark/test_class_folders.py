"""Listing the patches of a folder of classes, sound and broken."""

import os
from pathlib import Path
from typing import Any

import pytest
from support.files import touch

from pipeline.base.errors import BenchmarkError
from pipeline.evaluate.images import scan_images
from pipeline.evaluate.patch_benchmark.data import read_patch_set


def test_a_folder_of_classes(tmp_path: Path) -> None:
    images = tmp_path / "CRC"
    touch(images, "tumour/b.PNG", "tumour/a.tif", "<normal>/deep/c.jpeg")
    touch(images, "tumour/notes.txt", ".hidden/d.png", "tumour/._a.tif")
    found = read_patch_set(images)
    assert [path.relative_to(images).as_posix() for path in found.paths] == [
        "<normal>/deep/c.jpeg",
        "tumour/a.tif",
        "tumour/b.PNG",
    ]
    assert found.labels.tolist() == ["<normal>", "tumour", "tumour"]
    assert (found.name, found.groups, found.centers, found.splits) == ("CRC", None, None, None)


def test_what_is_called_an_image_and_is_none_is_listed_as_a_table_would(tmp_path: Path) -> None:
    """Reading it then fails by name; a folder counts only if no image lies in it (tools name folders by slides)."""
    touch(tmp_path, "a/1.png", "b/s1.tif/2.png")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    for name in ("gone.png", "gone folder"):
        (tmp_path / "a" / name).symlink_to("nowhere")
    (tmp_path / "a" / "gone.txt").symlink_to("nowhere")
    (tmp_path / "b" / "folder.png" / "empty").mkdir(parents=True)
    found = [path.relative_to(tmp_path).as_posix() for path in read_patch_set(tmp_path).paths]
    assert found == ["a/1.png", "a/gone folder", "a/gone.png", "a/pipe.png", "b/folder.png", "b/s1.tif/2.png"]
    problems = scan_images([tmp_path / path for path in found[1:5]], 1).problems
    assert sorted(problems) == [0, 1, 2, 3]


def test_a_class_that_is_a_broken_link_or_cannot_be_listed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "c").symlink_to("nowhere")
    with pytest.raises(BenchmarkError, match=r"c is a broken link"):
        read_patch_set(tmp_path)
    (tmp_path / "c").unlink()
    listed = os.scandir

    def refuse(path: str) -> Any:
        if Path(path).name == "inner":
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    touch(tmp_path, "b/inner/2.png")
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(BenchmarkError, match=r"inner: the folder cannot be listed \(Permission denied\)"):
        read_patch_set(tmp_path)


def test_a_folder_of_splits(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{split}/{name}/1.png" for split in ("train", "val", "test") for name in ("a", "b")))
    found = read_patch_set(tmp_path)
    assert found.labels.tolist() == ["a", "b"] * 3
    assert found.splits is not None
    assert found.splits.tolist() == ["test", "test", "train", "train", "val", "val"]


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="holds no images"):
        read_patch_set(tmp_path)
    touch(tmp_path, "a/1.png", "b/readme.txt")
    with pytest.raises(BenchmarkError, match="b is a class without an image"):
        read_patch_set(tmp_path)
    touch(tmp_path, "b/1.png", "stray.png")
    with pytest.raises(BenchmarkError, match=r"stray\.png is an image outside"):
        read_patch_set(tmp_path)
    (tmp_path / "stray.png").unlink()
    touch(tmp_path, "train/a/1.png")
    with pytest.raises(BenchmarkError, match=r"folders of splits \(train\) beside others: a, b"):
        read_patch_set(tmp_path)


def test_folders_that_may_be_splits(tmp_path: Path) -> None:
    for split in ("NCT", "VAL-HE"):
        touch(tmp_path / split, "ADI/1.png", "TUM/1.png")
    note = "All classes (NCT, VAL-HE) hold folders of the same names (ADI, TUM)."
    assert [note in found for found in read_patch_set(tmp_path).notes()] == [False, True]
    touch(tmp_path, "NCT/STR/1.png")
    assert not any("same names" in found for found in read_patch_set(tmp_path).notes())
    (tmp_path / "VAL-HE").rename(tmp_path / "Validation")
    with pytest.raises(BenchmarkError, match="Validation would be taken for a class"):
        read_patch_set(tmp_path)


@pytest.mark.parametrize("place", ["c", "a/deep"])
@pytest.mark.parametrize("target", ["/proc/self", "/", ".."])
def test_links_without_an_end_are_refused(tmp_path: Path, place: str, target: str) -> None:
    folder = tmp_path / "set"
    touch(folder, "a/0.png", "b/0.png")
    (folder / place).symlink_to(tmp_path if target == ".." else target)
    with pytest.raises(BenchmarkError, match=rf"set/{place} leads to /.*, which is not looked through for images"):
        read_patch_set(folder)


def test_links_to_folders_of_images_are_followed_once(tmp_path: Path) -> None:
    """Also one that leads in a circle; an image has one name only."""
    folder = tmp_path / "set"
    touch(folder, "a/0.png", "a/1.png", "b/0.png", "b/1.png")
    touch(tmp_path / "elsewhere", "0.png", "1.png", "2.png")
    (folder / "a" / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "a" / "again").symlink_to(folder / "a")
    found = [str(Path(path).relative_to(folder)) for path in read_patch_set(folder).paths]
    assert sorted(found) == [
        "a/0.png",
        "a/1.png",
        "a/linked/0.png",
        "a/linked/1.png",
        "a/linked/2.png",
        "b/0.png",
        "b/1.png",
    ]
