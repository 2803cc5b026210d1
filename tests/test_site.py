"""The documentation as a site: built strictly, a page a command; pages open at both widths without a network."""

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

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


CUT = "[...document.querySelectorAll('pre code')].map(code => code.scrollWidth - code.clientWidth)"
"""By how many pixels the widest line of each of the page's blocks is wider than the block."""


def pages_to_open(site: Path, *, phone: bool) -> list[str]:
    """Pages by name: a few at a desktop's width; all at a phone's, where tables and commands do not fit, but for the
    decisions, which are alike (two of them), and for the page of a server that finds nothing.
    """
    if not phone:
        return ["index", "guide", "api", "commands/plan", "commands/_all", "gallery", "shown"]
    names = sorted(path.relative_to(site).with_suffix("").as_posix() for path in site.rglob("*.html"))
    decisions = [name for name in names if name.startswith("decisions/")]
    return [name for name in names if name not in (*decisions[1:-1], "404")]


@pytest.mark.parametrize(("width", "height", "phone"), [(1280, 900, False), (390, 844, True)])
def test_pages_open_without_a_network(site: Path, width: int, height: int, phone: bool) -> None:
    with running_browser() as browser:
        page = browser.open("about:blank", width, height, phone=phone)
        for name in pages_to_open(site, phone=phone):
            page.go((site / f"{name}.html").as_uri())
            assert page.requests[0] == (site / f"{name}.html").as_uri()
            assert page.problems == [], name
            assert all(address.startswith("file:") for address in page.requests), name
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            if name.startswith("commands/") and not phone:  # lines of the help are not cut
                assert not any(page.evaluate(CUT)), name
            if name == "index" and not phone:  # how to begin, and what the demo shows
                assert page.evaluate(CUT)[:2] == [0, 0]


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and prints nothing."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server on this machine that hands out a folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


SEARCH = """
(async () => {
  const field = document.querySelector(".md-search__input")
  field.focus()
  for (const [words, answered] of [["", false], [WORDS, true]]) { // what was found before is gone first
    for (let tries = 0; tries < 1200; tries++) {
      field.value = words
      field.dispatchEvent(new Event("keyup", {bubbles: true}))
      field.dispatchEvent(new Event("input", {bubbles: true}))
      await new Promise(done => setTimeout(done, 50))
      const said = document.querySelector(".md-search-result__meta").textContent.trim()
      if (/match|document/.test(said) === answered) break
    }
  }
  return [...document.querySelectorAll(".md-search-result__link")].map(link => link.href)
})()
"""


@pytest.mark.parametrize("by", ["folder", "server"])
def test_search_finds_a_page(site: Path, by: str) -> None:
    """From a folder a hidden frame stands in for the worker; with a server the browser's own worker is kept."""
    with running_browser() as browser, served(site) as address:
        start = site.as_uri() if by == "folder" else address
        for name in ("index", "decisions/0001-rows-in-slide-order"):  # links are right from a page below, too
            page = browser.open(f"{start}/{name}.html", 1280, 900)
            found = page.evaluate(SEARCH.replace("WORDS", "'log_sum_loss'"))
            assert any(link.split("?")[0] == f"{start}/api.html" for link in found), (name, found)
            assert page.evaluate(SEARCH.replace("WORDS", "'qwxzvk'")) == []
            found = page.evaluate(SEARCH.replace("WORDS", "'plan --stage-dir'"))  # an option by its name
            assert found[0].split("?")[0] == f"{start}/commands/plan.html", (name, found)
            assert page.problems == []
            assert {urlsplit(request)[:2] for request in page.requests} == {urlsplit(start)[:2]}
            assert ("native" in page.evaluate("String(Worker)")) == (by == "server")


FIRST_PAGES = {
    "--slides-terms": "commands/publish",
    "--i-may-share": "commands/publish",
    "--no-i-may-share": "commands/publish",
    "--stage-dir": "commands/plan",
    "--patch-qc": "commands/extract-teacher",
    "--rows-per-shard": "commands/extract-teacher",
    "--hub-card": "commands/export",
    "--hub-c": "commands/export",
    "--weights=FILE": "commands/train-student",
    '"--all"': "commands/models",
    "--Probe-C": "commands/evaluate",
    "evaluate --batch-size 64": "commands/evaluate",
    "--slides": "commands/curve",
    "--train-patches-per-slide": "commands/curve",
    "patch sampling": "cluster-sampling",
    "log-sum loss": "decisions/0010-loss-floor",
    "tissue mask": "tissue",
}
"""What is asked for, and a page that is among the first three of those found: options, also begun, and plain words."""


def test_search_finds_the_command_of_an_option(site: Path) -> None:
    with running_browser() as browser:
        page = browser.open((site / "index.html").as_uri(), 1280, 900)
        for words, wanted in FIRST_PAGES.items():
            found = page.evaluate(SEARCH.replace("WORDS", repr(words)))
            names = list(dict.fromkeys(re.split("[?#]", link)[0] for link in found))
            assert (site / f"{wanted}.html").as_uri() in names[:3], (words, names)
        assert page.evaluate(SEARCH.replace("WORDS", "'--no-such-option'")) == []
        assert page.problems == []


PROJECT_WITH_ONE_PAGE = """
site_name: one page
docs_dir: pages
use_directory_urls: false
hooks: [hook.py]
validation: {links: {not_found: warn, unrecognized_links: warn}}
"""
HOOK = """
import importlib.util
spec = importlib.util.spec_from_file_location("hooks", HOOKS)
hooks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hooks)
on_page_markdown = hooks.on_page_markdown
"""


BUILDS = """
import os, sys
import mkdocs.commands.build, mkdocs.theme  # once for all of them
from mkdocs.__main__ import cli

for folder in sys.argv[1:]:
    child = os.fork()
    if not child:
        os.chdir(folder)
        said = os.open("said.txt", os.O_WRONLY | os.O_CREAT)
        os.dup2(said, 1)
        os.dup2(said, 2)
        cli(["build", "--strict"])
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
"""Runs `mkdocs build --strict` in each of some folders, and prints what each ends with."""
LINKS = {"../pipeline/loss.py": 0, "../pipeline/nosuch.py": 1, "nosuch.md": 1, "../nosuch": 1}
"""Where a page's link leads, and the exit code of the build."""


def test_a_link_to_code_that_is_not_there_fails_the_build(tmp_path: Path) -> None:
    """The page stands for one in docs/; links to code become plain names, those that lead nowhere stay."""
    pytest.importorskip("mkdocs")
    folders = [tmp_path / str(number) for number in range(len(LINKS))]
    for folder, link in zip(folders, LINKS, strict=True):
        (folder / "pages").mkdir(parents=True)
        (folder / "pages" / "index.md").write_text("# Start\n")
        (folder / "pages" / "guide.md").write_text(f"# Guide\n\nSee [the code]({link}).\n")
        (folder / "mkdocs.yml").write_text(PROJECT_WITH_ONE_PAGE)
        (folder / "hook.py").write_text(HOOK.replace("HOOKS", repr(str(ROOT / "docs" / "site" / "hooks.py"))))
    command = [sys.executable, "-c", BUILDS, *folders]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})
    assert done.returncode == 0, done.stderr
    for folder, (link, expected), code in zip(folders, LINKS.items(), done.stdout.split(), strict=True):
        said = (folder / "said.txt").read_text()
        assert int(code) == expected, (link, said)
        if expected:
            assert link in said
        else:
            assert "See the code." in (folder / "site" / "guide.html").read_text()
