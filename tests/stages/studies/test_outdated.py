"""What an earlier reproduction left: out of the way while another is made, back if that fails, gone if it does not."""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.mounts import mounted, needs_mounts

from pipeline.base import interrupts
from pipeline.disk.asides import ASIDE_SUFFIX
from stages.studies.outdated import paper_tables_of, put_aside, put_back_left, results_of


@pytest.fixture
def out(tmp_path: Path) -> Path:
    for name in (
        *("reproduce.toml", "table.csv", "comparison.csv", "figure_1.png", "table_a.csv", "table_a.png"),
        *("images/1.png", "report/report.json", "report/evaluate.toml", "report/embeddings/x.npy", "notes.txt"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"first {name}")
    return tmp_path


def make_others(out: Path) -> None:
    """What another call makes, with all that the first had, and more."""
    (out / "images").mkdir()
    (out / "report").mkdir(exist_ok=True)
    (out / "report" / "embeddings").mkdir(exist_ok=True)
    for name in ("images/2.png", "table.csv", "table_b.csv", "report/report.json", "report/embeddings/y.npy"):
        (out / name).write_text("second")


def in_child(work: Callable[[], object]) -> int:
    """The exit code of a process that does this."""
    child = os.fork()
    if not child:
        try:
            interrupts.install()
            work()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_values_are_told_from_other_files(out: Path) -> None:
    assert [path.name for path in paper_tables_of(out)] == ["table_a.csv", "table_a.png"]
    assert {path.name for path in results_of(out)} == {"comparison.csv", "figure_1.png", "table_a.csv", "table_a.png"}


@pytest.mark.parametrize("with_images", [False, True])
def test_what_succeeds_replaces_it(out: Path, with_images: bool) -> None:
    with put_aside(out, with_images=with_images):
        left = {"notes.txt", "report/embeddings/x.npy", "report/evaluate.toml"}
        left |= set() if with_images else {"images/1.png"}
        assert {name for name in files(out) if "g2l-part" not in name} == left
        (out / "table.csv").write_text("second")
    assert files(out).keys() == left | {"table.csv"}
    assert files(out)["table.csv"] == "second"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("full")])
def test_what_fails_leaves_it_as_it_was(out: Path, error: BaseException) -> None:
    before = files(out)

    def fail() -> None:
        with put_aside(out, with_images=True):
            make_others(out)
            raise error

    with pytest.raises(type(error)):
        fail()
    assert files(out) == before | {"report/embeddings/y.npy": "second"}


def test_a_folder_without_any_of_it_is_no_fault(tmp_path: Path) -> None:
    with put_aside(tmp_path, with_images=True):
        (tmp_path / "table.csv").write_text("first")
    assert files(tmp_path) == {"table.csv": "first"}


@pytest.mark.parametrize("number", interrupts.ENDING)
def test_a_signal_leaves_it_as_it_was(out: Path, number: int) -> None:
    before = files(out)

    def work() -> None:
        with put_aside(out, with_images=True):
            make_others(out)
            os.kill(os.getpid(), number)
            time.sleep(20)

    assert in_child(work) == 128 + number
    assert files(out) == before | {"report/embeddings/y.npy": "second"}


@pytest.mark.parametrize("moment", range(24))
def test_after_a_kill_the_next_call_puts_it_back(out: Path, moment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kill strikes before any of the moves and removals: going, coming, and while a next call puts things back."""
    before = files(out)
    count = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*words: Any, **more: Any) -> Any:
            nonlocal count
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return real(*words, **more)

        return step

    def work() -> None:
        with put_aside(out, with_images=True):
            make_others(out)
            raise OSError("full")

    with monkeypatch.context() as patch:
        for place, name in ((os, "rename"), (os, "unlink"), (shutil, "rmtree")):
            patch.setattr(place, name, counted(getattr(place, name)))
        assert in_child(work) in (1, -signal.SIGKILL)
    put_back_left(out)
    after = files(out)
    assert after.pop("report/embeddings/y.npy", "second") == "second"
    assert after == before
    assert not [path for path in out.rglob("*") if path.name.endswith(ASIDE_SUFFIX)]


def test_what_another_process_has_put_aside_now_stays_there(out: Path) -> None:
    with put_aside(out, with_images=True):
        put_back_left(out)
        assert not (out / "table.csv").exists()
        make_others(out)
    assert files(out)["table.csv"] == "second"


@needs_mounts
@pytest.mark.parametrize("is_done", [True, False])
def test_in_a_folder_of_an_image_of_a_container(out: Path, is_done: bool) -> None:
    """Its folders lie in a lower layer, and cannot be renamed."""
    with mounted("-t", "tmpfs", "none", at=out.parent / "layers") as layers:
        (layers / "upper").mkdir()
        (layers / "work").mkdir()
        words = f"lowerdir={out},upperdir={layers / 'upper'},workdir={layers / 'work'}"
        with mounted("-t", "overlay", "overlay", "-o", words, at=out.parent / "seen") as seen:
            before = files(seen)
            with (
                contextlib.nullcontext() if is_done else pytest.raises(OSError, match="full"),
                put_aside(seen, with_images=True),
            ):
                make_others(seen)
                if not is_done:
                    raise OSError("full")
            if is_done:
                assert "report/embeddings/x.npy" in files(seen)
                assert {text for name, text in files(seen).items() if "embeddings" not in name} >= {"second"}
                assert "comparison.csv" not in files(seen)
            else:
                assert files(seen) == before | {"report/embeddings/y.npy": "second"}
