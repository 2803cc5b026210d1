"""Links to folders that would be read without end."""

from pathlib import Path

import pytest

from pipeline.disk.linked_folders import leads_out


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
