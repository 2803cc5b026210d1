"""The documentation as a site: built strictly, a page a command; pages open at both widths without a network."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.browser import running_browser
from support.places import ROOT

from pipeline.config.base import COMMANDS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_command_has_a_page_with_its_help(site: Path) -> None:
    for name in COMMANDS:
        page = (site / "commands" / f"{name}.html").read_text()
        assert f"Usage: g2l {name}" in page
    assert "Usage: g2l [OPTIONS]" in (site / "commands" / "_all.html").read_text()


def test_the_reference_has_what_the_library_has(site: Path) -> None:
    page = (site / "api.html").read_text()
    for name in (
        "extract_teacher",
        "train_student",
        "open_store",
        "load_student",
        "Projector",
        "log_sum_loss",
        "G2LError",
    ):
        assert re.search(rf'id="[\w.]*\.{name}"', page), name


def test_every_page_is_in_the_navigation_and_every_picture_in_the_gallery(site: Path) -> None:
    start = (site / "index.html").read_text()
    for page in ("guide", "paper", "tissue", "formats", "architecture", "contributing", "security", "results"):
        assert f'href="{page}.html"' in start, page
    gallery = (site / "gallery.html").read_text()
    shown = {
        name
        for path in (ROOT / "docs").glob("*.md")
        for name in re.findall(r"images/([\w-]+\.(?:png|jpg))", path.read_text())
    }
    assert len(shown) > 4
    assert all(name in gallery for name in shown)


def pages_to_open(site: Path, *, phone: bool) -> list[str]:
    """Pages by name: a few at a desktop's width; all at a phone's, where tables and commands do not fit, but for the
    decisions, which are alike (two of them), and for the page of a server that finds nothing.
    """
    if not phone:
        return ["index", "guide", "api", "commands/plan", "gallery", "shown"]
    names = sorted(path.relative_to(site).with_suffix("").as_posix() for path in site.rglob("*.html"))
    decisions = [name for name in names if name.startswith("decisions/")]
    return [name for name in names if name not in (*decisions[1:-1], "404")]


@pytest.mark.parametrize(("width", "height", "phone"), [(1280, 900, False), (390, 844, True)])
def test_pages_open_without_a_network(site: Path, width: int, height: int, phone: bool) -> None:
    with running_browser() as browser:
        for name in pages_to_open(site, phone=phone):
            page = browser.open((site / f"{name}.html").as_uri(), width, height, phone=phone)
            assert page.problems == [], name
            assert all(address.startswith("file:") for address in page.requests), name
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
