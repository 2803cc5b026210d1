"""Words to the user."""

import io
import sys

import pytest

from pipeline.base import console as runlog
from pipeline.base.console import Progress, counted, table, without_bars


def test_table_aligns_and_right_aligns() -> None:
    text = table([("a", 1), ("long", 23)], ("name", "n"), right=(1,))
    assert text.splitlines() == ["name   n", "----  --", "a      1", "long  23"]


def test_table_of_nothing_is_nothing() -> None:
    assert table([]) == ""


def test_without_a_terminal_a_bar_is_a_line_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter(range(0, 1000, 25))  # seconds; every call of the clock is 25 s later
    monkeypatch.setattr(runlog.time, "monotonic", lambda: next(now))
    with Progress("extracting", 1000, "patches") as progress:
        for _ in range(6):
            progress.note(failed=2, loss=0.123456)
            progress.step(100)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2  # at 75 s and at 150 s
    assert lines[0].startswith("extracting: 300 of 1,000 patches, 4 a second, ")
    assert lines[0].endswith("left, failed 2, loss 0.1235")


def test_a_total_that_is_only_known_by_and_by(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter(range(0, 1000, 30))
    monkeypatch.setattr(runlog.time, "monotonic", lambda: next(now))
    with Progress("embedding", 0, "patches") as progress:
        progress.expect(400)
        progress.step(100)
        progress.expect(900, is_estimate=True)
        progress.step(100)
        progress.expect(800)
        progress.step(200)
        progress.step(200)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "embedding: 200 of about 900 patches, 3.33 a second, 3 min 30 s left"
    assert lines[1].startswith("embedding: 600 of 800 patches, ")


def test_a_short_work_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("planning", 2, "slides") as progress:
        progress.step(2)
    assert capsys.readouterr().err == ""


def test_bars_can_be_kept_silent(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runlog, "QUIET_SECONDS", 0.0)
    with without_bars():
        with Progress("planning", 2, "slides") as silent, without_bars():
            silent.step()
        Progress("drawing", 2, "slides").step()
    assert capsys.readouterr().err == ""
    Progress("planning", 2, "slides").step()
    assert capsys.readouterr().err.startswith("planning: 1 of 2 slides")


def test_on_a_terminal_the_bar_shows_count_rate_and_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("training", 4, "steps", done=1) as progress:
        progress.note(loss=1.5)
        progress.step(3)
    shown = terminal.getvalue()
    assert "training: 100%" in shown
    assert "4/4" in shown
    assert "loss 1.5" in shown


def test_things_are_counted_in_words() -> None:
    assert [counted(number, "patch", "patches") for number in (0, 1, 2)] == ["0 patches", "1 patch", "2 patches"]
    assert counted(12345, "slide") == "12,345 slides"
