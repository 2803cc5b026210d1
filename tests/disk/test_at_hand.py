"""Slides at hand: noted while they are read, looked at again after a crash, left out only if they crash again."""

import csv
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.aborts import aborting_at
from support.commands import leftovers
from support.extraction import TEACHER, plan_cohort, write_cohort, write_teacher
from support.warm import WarmCommands

from pipeline.base.errors import SlideError
from pipeline.cohort.plan_hdf5 import write_plan
from pipeline.disk import at_hand
from pipeline.disk.asides import AT_HAND, aside_name, remove_asides
from pipeline.disk.at_hand import CRASHING, note_slide, noted, remove_notes, watched
from pipeline.disk.first_look import require_sound_slide
from pipeline.disk.folders import empty_folder, is_free
from pipeline.disk.second_look import Work
from pipeline.store.store import Store

LEAVE = """
import os, sys
from pathlib import Path
from pipeline.disk import at_hand
from pipeline.disk.asides import aside_name
folder, name = at_hand._places(Path(sys.argv[1]))[0]
at_hand._notes = at_hand._Notes(folder / aside_name(name))
for path in sys.argv[3:]:
    at_hand.note_slide(Path(path))
os.kill(os.getpid(), int(sys.argv[2]))
"""
STOPPED = """
import os, signal, sys, time
from pathlib import Path
from pipeline.base import interrupts
from pipeline.disk.at_hand import note_slide, watched
interrupts.install()
with watched(Path(sys.argv[1]), [], None, tell=print):
    note_slide(Path(sys.argv[2]))
    assert list(Path(sys.argv[2]).parent.glob("*slides-at-hand*"))
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
"""


def slides_in(folder: Path, *names: str) -> list[Path]:
    """Files that stand for slides."""
    for name in names:
        (folder / name).write_text(name)
    return [folder / name for name in names]


def leave_notes(output: Path, *slides: Path, signal: int = 9) -> None:
    """What a process leaves that a signal ends while it reads the last of the slides."""
    command = [sys.executable, "-c", LEAVE, str(output), str(signal), *map(str, slides)]
    assert subprocess.run(command, check=False).returncode == -signal


def notes_of(output: Path) -> list[Path]:
    """The files of notes of an output."""
    return sorted(path for folder in {output, output.parent} if folder.is_dir() for path in folder.glob(f"*{AT_HAND}*"))


@contextmanager
def crashing(monkeypatch: pytest.MonkeyPatch, *names: str) -> Iterator[list[str]]:
    """Children that read files of these names crash; gives the names of what was read in children."""
    asked: list[str] = []

    def crash_of(work: Work) -> str:
        asked.append(work[1][0].name)
        return "reading it crashes the process (SIGABRT)" if work[1][0].name in names else ""

    with monkeypatch.context() as patch:
        patch.setattr(at_hand, "crash_of", crash_of)
        yield asked


def work_of(path: Path) -> Work:
    return os.fspath, (path,)


@pytest.fixture(params=["folder", "file", "new"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An output that is a folder, a file's name, or what becomes a folder."""
    path = tmp_path / "out"
    if request.param == "folder":
        path.mkdir()
    return path


def test_each_thread_notes_the_slide_that_it_turns_to_and_nothing_stays(output: Path, tmp_path: Path) -> None:
    a, b = slides_in(tmp_path, "a", "b")
    note_slide(a)  # nobody watches
    with watched(output, [a, b], work_of, tell=print):
        (path,) = notes_of(output)
        for slide in (a, a, b, b, a):
            note_slide(slide)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert lines == [[0, str(a)], [0, str(b)], [0, str(a)]]
        with ThreadPoolExecutor(1) as pool:
            pool.submit(note_slide, b).result()
        assert at_hand._read(path) == {str(a), str(b)}
        threading.Thread(target=note_slide, args=(a,)).start()  # takes the number of the thread that has ended
        while len(path.read_text().splitlines()) < 5:
            pass
        assert at_hand._read(path) == {str(a)}
        remove_asides(tmp_path)  # as outputs do that clear away what killed runs left
        empty_folder(path.parent)  # and a new folder in place of an empty one
        assert path.exists()
    assert notes_of(output) == []
    assert not (output / CRASHING).exists()


def test_what_was_at_hand_is_read_again_and_left_out_only_if_it_crashes(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad, other, unread = slides_in(tmp_path, "good", "bad", "other", "unread")
    leave_notes(output, other, good)
    leave_notes(output, other, bad, signal=6)
    with (
        crashing(monkeypatch, "bad") as asked,
        watched(output, [good, bad, other, unread], work_of, tell=print) as left_out,
    ):
        assert asked == ["bad", "good"]
        assert left_out == {str(bad): "reading it crashes the process (SIGABRT)"}
        with pytest.raises(SlideError, match=r"bad: reading it crashes the process \(SIGABRT\)\. The file is damaged"):
            require_sound_slide(bad)
        output.mkdir(exist_ok=True)
        (output / "zarr.json").touch()
    said = capsys.readouterr().out
    assert f"warning: {bad}: reading it crashes" in said
    assert f"an earlier call ended while reading: {bad}, {good}" in said
    assert notes_of(output) == []
    (listed,) = json.loads((output / CRASHING).read_text())["slides"]
    assert listed == {"path": str(bad), "reason": "reading it crashes the process (SIGABRT)"}
    with crashing(monkeypatch, "bad") as asked, watched(output, [good, unread], work_of, tell=print) as left_out:
        assert (asked, left_out) == ([], {})  # this call does not read it
    assert (output / CRASHING).exists()
    with crashing(monkeypatch) as asked, watched(output, [good, bad], work_of, tell=print) as left_out:
        assert (asked, left_out) == (["bad"], {})  # mended
    assert not (output / CRASHING).exists()


def test_a_process_that_helps_notes_its_slides_and_removes_nothing(tmp_path: Path) -> None:
    """What the leader has found to crash is refused here as well; notes of others stay theirs."""
    out = tmp_path / "out"
    out.mkdir()
    slides = slides_in(tmp_path, "a.svs", "b.svs")
    with watched(out, [], None, tell=print):  # type: ignore[arg-type]
        theirs = at_hand._notes
        before = sorted(out.iterdir())
        with noted(out, slides, {os.path.realpath(slides[1]): "it ends the process"}):
            note_slide(slides[0])
            (mine,) = set(out.iterdir()) - set(before)
            assert at_hand._read(mine) == {os.path.realpath(slides[0])}
            with pytest.raises(SlideError, match="it ends the process"):
                require_sound_slide(slides[1])
        assert sorted(out.iterdir()) == before
        at_hand._notes = theirs
    assert list(out.iterdir()) == []


def test_a_signal_of_the_user_leaves_no_notes(tmp_path: Path) -> None:
    (slide,) = slides_in(tmp_path, "a")
    command = [sys.executable, "-c", STOPPED, str(tmp_path / "out"), str(slide)]
    assert subprocess.run(command, check=False).returncode == 128 + 15
    assert notes_of(tmp_path / "out") == []


def test_a_call_that_is_killed_again_still_knows_what_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, slides = tmp_path / "out", slides_in(tmp_path, "a", "b")
    leave_notes(out, slides[0])
    with pytest.raises(KeyboardInterrupt), crashing(monkeypatch, "a"), watched(out, slides, work_of, tell=print):
        raise KeyboardInterrupt  # before the output is there
    with crashing(monkeypatch, "a") as asked, watched(out, slides, work_of, tell=print) as left_out:
        assert (asked, list(left_out)) == (["a"], [str(slides[0])])
        out.touch()
    assert notes_of(out) == []


def test_slides_that_the_block_refuses_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, slides = tmp_path / "out", slides_in(tmp_path, "later")
    leave_notes(out, *slides)
    with (
        crashing(monkeypatch, "later"),
        watched(out, slides, work_of, tell=print, refused_later=[str(slides[0])]) as left_out,
    ):
        assert list(left_out) == [str(slides[0])]
        require_sound_slide(slides[0])
        out.touch()


def test_notes_of_a_crash_are_removed_by_nothing_else(output: Path, tmp_path: Path) -> None:
    """A folder of pictures beside a plan, an empty folder by another name, another machine's folder are cleared."""
    leave_notes(output, *slides_in(tmp_path, "a"))
    (path,) = notes_of(output)
    elsewhere = path.with_name(re.sub(r"\.[0-9a-f]{8}-", ".00000000-", path.name))
    path.rename(elsewhere)
    half_written = elsewhere.with_name(elsewhere.name.replace(AT_HAND, "other"))
    half_written.touch()
    remove_asides(tmp_path)
    assert elsewhere.exists()
    assert not half_written.exists()
    half_written.touch()
    link = tmp_path / "link"
    link.symlink_to(elsewhere.parent)
    empty_folder(link)
    assert elsewhere.exists()
    assert not half_written.exists()
    remove_notes(output)
    assert not elsewhere.exists()


def test_an_empty_folder_stays_free_for_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block fails before there is an output: what crashes is still known, and the folder can be filled."""
    out, slides = tmp_path / "out", slides_in(tmp_path, "a")
    out.mkdir()
    leave_notes(out, *slides)
    with pytest.raises(OSError, match="full"), crashing(monkeypatch, "a"), watched(out, slides, work_of, tell=print):
        raise OSError("full")
    assert is_free(out)
    with crashing(monkeypatch, "a"), watched(out, slides, work_of, tell=print) as left_out:
        assert list(left_out) == [str(slides[0])]
        (out / "zarr.json").touch()
    assert sorted(path.name for path in out.iterdir()) == [CRASHING, "zarr.json"]


def test_long_names_with_one_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outs, slides = [tmp_path / ("n" * 200 + end) for end in "ab"], slides_in(tmp_path, "a")
    leave_notes(outs[0], *slides)
    half_written = tmp_path / aside_name(outs[1].name)
    half_written.touch()
    for out in reversed(outs):
        with crashing(monkeypatch) as asked, watched(out, slides, work_of, tell=print):
            assert asked == (["a"] if out is outs[0] else [])
    assert half_written.exists()
    assert notes_of(outs[0]) == []


def test_of_long_notes_the_end_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notes"
    path.write_text("".join(json.dumps([0, f"/slides/{i}"]) + "\n" for i in range(200)))
    monkeypatch.setattr(at_hand, "MOST_BYTES", 1000)
    assert at_hand._read(path) == {"/slides/199"}


@pytest.mark.parametrize(
    "content", [b"", b"x", b'[0, "a"', b"[]\n3\n{}\n[0]\n", b"\xff\xfe", b'[0, "cut', b"[" * 99999]
)
def test_notes_that_are_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "notes").write_bytes(content)
    (tmp_path / CRASHING).write_bytes(content)
    assert at_hand._read(tmp_path / "notes") == set()
    assert at_hand._listed(tmp_path) == {}
    assert at_hand._read(tmp_path / "none") == at_hand._read(tmp_path) == set()


def test_a_list_that_is_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / CRASHING)
    assert at_hand._listed(tmp_path) == {}


def test_links_laid_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes are made new and never read through a link."""
    victim, out = tmp_path / "victim", tmp_path / "out"
    victim.write_text(f'[0, "{tmp_path / "a"}"]\n')
    out.mkdir()
    (out / (AT_HAND + ".g2l-part")).symlink_to(victim)
    with crashing(monkeypatch, "a") as asked, watched(out, slides_in(tmp_path, "a"), work_of, tell=print):
        note_slide(tmp_path / "a")
    assert asked == []
    assert victim.read_text() == f'[0, "{tmp_path / "a"}"]\n'


# --- the commands, in processes of their own ----------------------------------------------------------------


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, warm: WarmCommands) -> Path:
    """Three slides that OpenSlide reads, their manifest and plan, a teacher's weights; a hook that aborts at a planned
    patch of `s1`.
    """
    folder = tmp_path_factory.mktemp("aborts")
    plan = plan_cohort(write_cohort(folder / "slides", 3, downsamples=(1, 4), compression="deflate"))
    write_plan(plan, folder / "plan.h5")
    write_teacher(folder / "w.safetensors")
    looked_at = {(0, 0), *((x, y) for x in (256, 320) for y in (192, 256))}  # by a first look, which finds no fault
    done = warm.run(command(folder, "embed", folder / "features"), quick_end=True)
    assert done.code == 0, done.err
    corner = next(tuple(c) for c in plan.slides[1].coords_l0_px[5:].tolist() if tuple(c) not in looked_at)
    aborting_at(folder / "hook", "s1.svs", corner[0] + 9, corner[1] + 9)
    return folder


def command(work: Path, name: str, out: Path) -> list[object]:
    """A command line that reads the patches of all slides."""
    small = ["--patch-px", 64, "--min-tissue", 0]
    sampled = ["--patches-per-slide", 12, "--val-fraction", 0.5]
    shards = ["--rows-per-shard", 8, "--batch-size", 4]
    teacher = ["--teacher", TEACHER, "--weights", work / "w.safetensors", "--device", "cpu"]
    slides = work / "slides"
    return {
        "plan": ["plan", slides / "manifest.csv", "--out", out, *sampled, *small],
        "extract": ["extract-teacher", work / "plan.h5", "--out", out, *shards, *teacher],
        "embed": [
            "embed",
            f"{TEACHER}@{work / 'w.safetensors'}",
            slides,
            "--out",
            out,
            "--layout",
            "trident",
            "--device",
            "cpu",
            "--mpp",
            0.5,
            *small,
        ],
        "import": ["import-features", work / "features", "--out", out, "--slides-root", slides, *teacher],
    }[name]


def hooked(work: Path) -> dict[str, Any]:
    """What makes a command, and the processes that it starts, abort at the place of `s1`."""
    folder = str(work / "hook")
    variables = {"PYTHONPATH": os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))}
    return {"hook": Path(folder, "sitecustomize.py"), "variables": variables, "quick_end": True}


def said_of(out: Path, name: str) -> dict[str, Any]:
    """What a command's output says of each slide that failed."""
    if name == "plan":
        with open(out.with_name("out.audit.csv"), newline="") as f:
            return {row["slide_id"]: row["reason"] for row in csv.DictReader(f) if row["status"] == "failed"}
    if name in ("extract", "import"):
        store = Store(out)
        failed = {row.slide_id: row.reason for row in store.plan.audit if row.status == "failed"}
        return failed | {failure["slide_id"]: failure["reason"] for failure in store.first.ledger.failures()}
    return {line.split(",")[0]: line for line in (out / "failures.csv").read_text().splitlines()[1:]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "is_staged"),
    [*((name, False) for name in ("plan", "extract", "embed", "import")), ("extract", True), ("embed", True)],
)
def test_a_tile_that_ends_the_process_fails_its_slide_by_name(
    work: Path, warm: WarmCommands, tmp_path: Path, name: str, is_staged: bool
) -> None:
    """The first call ends with it, the second names and skips the slide; once it is mended, it is done. A copy that was
    staged is of the slide's name: it is the slide that is noted, read again, named and listed. Of two workers each
    has a slide at hand, which is read again in a process of its own: once is enough.
    """
    out = tmp_path / ("out.h5" if name == "plan" else "out")
    workers = ["--workers", 2 if (name, is_staged) == ("extract", False) else 1]
    line = [*command(work, name, out), *workers, *(["--stage-dir", tmp_path / "stage"] if is_staged else [])]
    first = warm.run(line, **hooked(work))
    assert first.code == -6, first.err
    second = warm.run(line, **hooked(work))
    assert second.code == 3, second.err
    assert "s1.svs: reading it crashes the process (SIGABRT" in second.err
    failed = said_of(out, name)
    assert failed.keys() == {"s1"}
    assert "s1.svs: reading it crashes the process (SIGABRT" in failed["s1"]
    assert leftovers(tmp_path) == []
    if name == "plan":
        again = warm.run(line, **hooked(work))
        assert again.code == 1
        return
    finished = warm.run(line, **hooked(work))  # what is done is not read again
    assert ("read again" in finished.err + finished.out) == (name == "embed")
    (listed,) = json.loads((out / CRASHING).read_text())["slides"]
    assert listed["path"] == str(work / "slides" / "s1.svs")
    again = warm.run([*line, "--retry-failures"], **hooked(work))  # no crash, nothing gained
    assert again.code == 3, again.err
    mended = warm.run([*line, "--retry-failures"], quick_end=True)
    assert mended.code == 0, mended.err
    assert name == "embed" or said_of(out, name) == {}
    assert not (out / CRASHING).exists()


@pytest.mark.slow
def test_an_import_that_crashes_once_its_store_is_made_keeps_the_plan(
    work: Path, warm: WarmCommands, tmp_path: Path
) -> None:
    """The slide is in the store's plan, so that it stays there, and its rows fail."""
    out = tmp_path / "out"
    assert warm.run(command(work, "import", out), quick_end=True).code == 0
    plan, ledger = Store(out).plan.hash, Store(out).first.ledger
    for shard in range(ledger.num_shards):
        ledger.forget(shard)
    (out / f"{AT_HAND}.g2l-part").write_text(json.dumps([0, str(work / "slides" / "s1.svs")]) + "\n")
    done = warm.run(command(work, "import", out), **hooked(work))
    assert done.code == 3, done.err
    assert Store(out).plan.hash == plan
    assert said_of(out, "import").keys() == {"s1"}
