"""Members of a public set, and looking through its folder."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support import public_sets

from pipeline.base.errors import BenchmarkError
from pipeline.evaluate.images import scan_images
from pipeline.public_sets.members import Members, first_folder, images_below, require_members
from pipeline.public_sets.recipe import find_recipe, set_recipes
from pipeline.report.content import Exclusion


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def test_images_are_listed_in_the_order_of_their_names_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/10.png", "a/x/1.tif", "c.jpg", "b/._2.png", ".hidden/1.png", "README.txt", "Thumbs.db"):
        touch(tmp_path / name)
    assert [str(path) for path in images_below(tmp_path, [])] == ["c.jpg", "a/x/1.tif", "b/10.png", "b/2.PNG"]
    assert [str(path) for path in images_below(tmp_path, [], (".tif",))] == ["a/x/1.tif"]


def test_a_link_that_leads_back_is_not_followed_and_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "a/1.png")
    (tmp_path / "a/back").symlink_to(tmp_path)
    left_out: list[Exclusion] = []
    assert [str(path) for path in images_below(tmp_path, left_out)] == ["a/1.png"]
    assert [(each.what, each.by_rule) for each in left_out] == [("a/back", False)]
    assert "is not looked through" in left_out[0].why


def test_links_to_folders_are_followed_each_real_folder_once(tmp_path: Path) -> None:
    top = tmp_path / "set"
    touch(top / "b/1.png")
    touch(top / ".store/2.png")
    touch(tmp_path / "elsewhere/deep/3.png")
    for name, target in {
        "a": top / "b",
        "c": top / ".store",
        "d": tmp_path / "elsewhere",
        "e": tmp_path / "elsewhere",
        "f": tmp_path / "elsewhere/deep",
        "g": tmp_path / "nowhere",
    }.items():
        (top / name).symlink_to(target)
    (tmp_path / "elsewhere/deep/loop").symlink_to(tmp_path / "elsewhere")
    left_out: list[Exclusion] = []
    assert [str(path) for path in images_below(top, left_out)] == ["b/1.png", "c/2.png", "d/deep/3.png"]
    reasons = {each.what: each.why for each in left_out}
    assert list(reasons) == ["g", "a", "d/deep/loop", "e", "f"]
    assert reasons["g"] == "a broken link, which may have led to a folder of images"
    assert all("images are read under" in why for name, why in reasons.items() if name != "g")
    (tmp_path / "link").symlink_to(top)
    assert len(list(images_below(tmp_path / "link", []))) == 3


def test_a_link_to_itself_stops_no_other_file_and_an_empty_folder_is_no_image(tmp_path: Path) -> None:
    touch(tmp_path / "a/1.png")
    for name in ("a/2.png", "a/loop"):
        (tmp_path / name).symlink_to(Path(name).name)
    (tmp_path / "a/3.png").mkdir()
    touch(tmp_path / "b.png/4.png")
    (tmp_path / "empty").mkdir()
    left_out: list[Exclusion] = []
    paths = [str(path) for path in images_below(tmp_path, left_out)]
    assert paths == ["a/1.png", "a/2.png", "b.png/4.png"]  # that a/2.png cannot be read is found with the images
    assert {each.what: each.by_rule for each in left_out} == {"a/loop": False, "a/3.png": False}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "a/1.png")
    (tmp_path / "a").chmod(0)
    with pytest.raises(BenchmarkError, match="a cannot be listed"):
        list(images_below(tmp_path, []))


def test_the_first_folder_that_is_there_counts(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    assert first_folder(tmp_path, ("a", "b"), "the set") == tmp_path / "b"
    assert first_folder(tmp_path, (".",), "the set") == tmp_path
    with pytest.raises(BenchmarkError, match=r"holds no x or y. --root must be the folder of the set"):
        first_folder(tmp_path, ("x", "y"), "the set")


def test_a_set_without_members_names_the_first_that_failed(tmp_path: Path) -> None:
    some = Members(({"path": "a"},), tmp_path)
    assert require_members(some, tmp_path, "patch") is some
    left_out = (Exclusion("a", "by rule", by_rule=True), Exclusion("b", "odd"))
    with pytest.raises(BenchmarkError, match="has no patch that can be used; the first, b: odd"):
        require_members(Members((), tmp_path, left_out), tmp_path, "patch")
    with pytest.raises(BenchmarkError, match=r"has no patch that can be used$"):
        require_members(Members((), tmp_path), tmp_path, "patch")


SETS_OF_IMAGES: dict[str, Callable[[Path], Path]] = {
    "bach": public_sets.bach,
    "bracs": public_sets.bracs,
    "breakhis": public_sets.breakhis,
    "gleason": public_sets.gleason,
    "idc": public_sets.idc,
    "pathorob-camelyon": public_sets.pathorob,
    "tiger": public_sets.tiger,
    "tils": public_sets.tcga_tils,
}
"""Sets that are published as image files, and what makes a miniature of each."""
NOT_IMAGES = {"pcam", "chimera", "tp53"}
"""Sets of HDF5 files, and of slides: their readers' tests damage those."""
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda data: data[: len(data) // 2],
    "of another kind": lambda _: b"no image",
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("name", SETS_OF_IMAGES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_image_of_any_set_is_named_and_the_others_are_used(name: str, damage: str, tmp_path: Path) -> None:
    """By the reader, if it decodes images itself, or else when the images are looked through for `evaluate`."""
    root = SETS_OF_IMAGES[name](tmp_path / "set")
    whole = public_sets.read(name, root, tmp_path / "whole")
    assert whole.images_root is not None
    is_cut = whole.images_root == tmp_path / "whole"  # out of larger images
    of_reader = root / "wsirois/roi-level-annotations/tissue-bcss/images" if is_cut else whole.images_root
    place = sorted(os.listdir(of_reader))[0] if is_cut else whole.rows[-1]["path"]
    (of_reader / place).write_bytes(DAMAGES[damage]((of_reader / place).read_bytes()))
    members = public_sets.read(name, root, tmp_path / "images")
    assert members.images_root is not None
    scanned = scan_images([members.images_root / row["path"] for row in members.rows], 1)
    failures = public_sets.failed(members) | {members.rows[i]["path"]: why for i, why in scanned.problems.items()}
    assert list(failures) == [place]
    assert "image" in failures[place] or "empty" in failures[place]
    assert len(members.rows) - len(scanned.problems) == len(whole.rows) - (3 if is_cut else 1)


def test_no_set_of_images_is_left_out() -> None:
    """But for those that have a reader in common with one of them."""
    of_images = {find_recipe(name).reader for name in SETS_OF_IMAGES}
    assert {name for name, recipe in set_recipes().items() if recipe.reader not in of_images} == NOT_IMAGES
