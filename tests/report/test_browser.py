"""The page in a real browser: no error, nothing fetched, nothing wider than a phone, no script that runs."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from support.browser import NAMES, Browser, find_browser, require_browser, running_browser
from support.reports import sample_report

from pipeline.report.page import write_report

pytestmark = pytest.mark.slow
PHONE, DESKTOP = (390, 844), (1280, 900)
WIDEST = """
[...document.querySelectorAll("body *")]
  .filter(e => !e.closest(".scroll"))
  .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(e => e.tagName + "." + e.className)
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as found:
        yield found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the sample report with hostile labels."""
    folder = tmp_path_factory.mktemp("page")
    made, figures = sample_report(folder)
    write_report(made, folder, figures)
    return folder / "report.html"


def write_page(path: Path, body: str, head: str = "") -> str:
    """A small page; returns its address."""
    path.write_text(
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">{head}</head><body>{body}</body></html>'
    )
    return path.as_uri()


VIEWPORT = '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("<script>console.error('a told error')</script>", "a told error"),
        ("<script>throw new Error('a thrown error')</script>", "a thrown error"),
        ("<script>Promise.reject(new Error('a broken promise'))</script>", "a broken promise"),
        ("<img src='absent.png'>", "ERR_FILE_NOT_FOUND"),
        ('<meta http-equiv="Content-Security-Policy" content="img-src data:"><img src="x.png">', "Content Security"),
    ],
)
def test_the_browser_sees_what_is_wrong(browser: Browser, tmp_path: Path, body: str, words: str) -> None:
    page = browser.open(write_page(tmp_path / "bad.html", body, VIEWPORT), *DESKTOP)
    assert any(words in problem for problem in page.problems), page.problems


def test_the_browser_lays_out_at_the_width_of_a_phone(browser: Browser, tmp_path: Path) -> None:
    wide = "<div style='width: 700px'>wide</div>"
    page = browser.open(write_page(tmp_path / "wide.html", wide, VIEWPORT), *PHONE, phone=True)
    assert page.evaluate("document.documentElement.clientWidth") == PHONE[0]
    assert page.evaluate("matchMedia('(max-width: 390px)').matches")
    assert page.evaluate("document.documentElement.scrollWidth") > 700
    assert page.evaluate(WIDEST) == ["DIV."]


@pytest.mark.parametrize(("width", "height", "phone"), [(*DESKTOP, False), (*PHONE, True), (360, 740, True)])
def test_the_page_has_no_error_and_is_no_wider_than_the_screen(
    browser: Browser, report: Path, tmp_path: Path, width: int, height: int, phone: bool
) -> None:
    page = browser.open(report.as_uri(), width, height, phone=phone)
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert page.problems == []
    assert page.requests == [report.as_uri()]
    assert page.evaluate("document.documentElement.clientWidth") == width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(WIDEST) == []
    with Image.open(page.picture(tmp_path / "page.png")) as image:
        assert image.size[0] == width
        assert image.size[1] > 3000
        assert len(image.convert("L").getcolors() or []) > 50


@pytest.mark.parametrize("kept", [slice(2, 4), slice(5)], ids=["a row a model", "a row a score"])
def test_the_glance_of_four_models_fits_a_desktop_and_scrolls_on_a_phone(
    browser: Browser, tmp_path: Path, kept: slice
) -> None:
    made, figures = sample_report(tmp_path, hostile=False)
    write_report(replace(made, sections=made.sections[kept]), tmp_path, figures)
    box = "document.querySelector('.scroll')"
    page = browser.open((tmp_path / "report.html").as_uri(), *DESKTOP)
    assert page.evaluate(f"{box}.querySelectorAll('.difference').length") >= 9
    assert page.evaluate(f"{box}.scrollWidth - {box}.clientWidth") <= 0
    page = browser.open((tmp_path / "report.html").as_uri(), *PHONE, phone=True)
    assert page.evaluate(f"{box}.scrollWidth - {box}.clientWidth") > 0
    assert page.evaluate(WIDEST) == []


def test_pictures_are_shown_and_hostile_text_does_nothing(browser: Browser, report: Path) -> None:
    page = browser.open(report.as_uri(), *DESKTOP)
    assert page.evaluate("[...document.images].map(i => i.complete && i.naturalWidth > 100)") == [True] * 3
    assert page.evaluate("document.scripts.length") == 0
    assert page.problems == []


def test_the_first_column_stays_in_sight_when_a_table_is_scrolled(browser: Browser, report: Path) -> None:
    page = browser.open(report.as_uri(), *PHONE, phone=True)
    script = """
        (() => {
            const box = [...document.querySelectorAll(".scroll")].find(e => e.querySelectorAll("thead th").length > 30);
            const left = () => box.querySelector("tbody th").getBoundingClientRect().left;
            const before = left();
            box.scrollLeft = 900;
            return [before, left(), box.scrollLeft, box.querySelectorAll("tbody td")[0].getBoundingClientRect().right];
        })()
    """
    before, after, scrolled, cell = page.evaluate(script)
    assert before == after
    assert scrolled == 900
    assert cell < 0


def test_the_print_is_black_and_complete(browser: Browser, report: Path, tmp_path: Path) -> None:
    page = browser.open(report.as_uri(), 720, 1000)
    page.call("Emulation.setEmulatedMedia", media="print")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.evaluate("getComputedStyle(document.querySelector('tbody th')).position") == "static"
    assert page.evaluate("document.documentElement.scrollWidth") <= 720
    shown = (
        "[...document.querySelectorAll('table')].filter(t => t.offsetParent).map(t => t.querySelector('tr:last-child')"
    )
    assert max(page.evaluate(f"{shown}.children.length)")) <= 9
    assert page.pdf(tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_the_policy_stops_a_script_that_slipped_in(browser: Browser, report: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed.html"
    changed.write_text(report.read_text().replace("</h1>", "</h1><script>document.title = 'run'</script>"))
    page = browser.open(changed.as_uri(), *DESKTOP)
    assert page.evaluate("document.title") != "run"
    assert any("Content Security Policy" in problem for problem in page.problems)


def test_without_a_browser_tests_skip_or_fail_by_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("G2L_BROWSER", raising=False)
    assert find_browser() is None
    monkeypatch.setenv("G2L_NEED_BROWSER", "0")
    with pytest.raises(pytest.skip.Exception, match=NAMES[0]):
        require_browser()
    monkeypatch.setenv("G2L_NEED_BROWSER", "1")
    with pytest.raises(pytest.fail.Exception, match=NAMES[0]):
        require_browser()
