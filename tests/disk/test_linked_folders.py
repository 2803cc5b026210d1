"""Links to folders that would be read without end."""

import os
from pathlib import Path

import pytest
from support.files import put
from support.limits import unlisted

from pipeline.disk.linked_folders import leads_out, walk_once


def test_links_to_a_tree_that_holds_the_link_lead_out(tmp_path: Path) -> None:
    top, beside = tmp_path / "top", tmp_path / "beside"
    (top / "a").mkdir(parents=True)
    beside.mkdir()
    for name, target in {"up": "..", "top": "../../top", "self": ".", "beside": "../../beside"}.items():
        (top / "a" / name).symlink_to(target)
    leading_out = [name for name in ("up", "top", "self", "beside") if leads_out(top / "a" / name, top)]
    assert leading_out == ["up", "top"]


@pytest.mark.parametrize(
    ("folder", "out"), [("/", True), ("/proc/self", True), ("/sys", True), ("/dev", True), ("/dev/shm", False)]
)
def test_links_into_the_system_lead_out(tmp_path: Path, folder: str, out: bool) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert leads_out(tmp_path / "link", tmp_path) == out


def test_a_tree_is_walked_once_and_not_out_of(tmp_path: Path) -> None:
    """A link to a sibling is followed, one that leads back or out is not, and no folder is seen twice."""
    for name in ("top/a/x", "top/b/y", "elsewhere/z"):
        put(tmp_path / name, b"")
    (tmp_path / "top" / "c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "top" / "a" / "again").symlink_to(tmp_path / "top" / "b")
    (tmp_path / "top" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "top" / "system").symlink_to("/proc")
    files = [name for _, names in walk_once(tmp_path / "top") for name in names]
    assert sorted(files) == ["x", "y", "z"]


def test_a_folder_that_may_not_be_listed_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for what a new volume comes with."""
    for name in ("a/x", "lost+found/y", "b/z"):
        put(tmp_path / name, b"")
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", unlisted(tmp_path / "a"))
        with pytest.raises(PermissionError):
            list(walk_once(tmp_path))
    monkeypatch.setattr(os, "scandir", unlisted(tmp_path / "lost+found"))
    assert sorted(name for _, names in walk_once(tmp_path) for name in names) == ["x", "z"]
