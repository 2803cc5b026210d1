"""Slides are staged ahead, in order, within the bound; whoever waits for a copy gets one or reads in place; no kill
leaves anything that stays.
"""

import errno
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from support.commands import leftovers
from support.mounts import mounted, needs_mounts
from support.staging import BLOCK_BYTES, copies_of, held_within, slow_source, staged_files, start_staging, watching

from pipeline.base.errors import G2LError, SlideError
from pipeline.config.staging import StageFolder
from pipeline.disk.files import sha256_file
from pipeline.disk.objects.bucket import AwayError
from pipeline.disk.objects.places import ObjectPath
from pipeline.slides.staging import ahead, copies
from pipeline.slides.staging.ahead import KnownCopy, Staging
from pipeline.slides.staging.copies import ExpectedSlide
from pipeline.slides.staging.room import STAGED, StageRoom
from pipeline.slides.staging.slide_files import SlidePart

SIZE = 40_000


@pytest.fixture
def slides(tmp_path: Path) -> list[Path]:
    """Six files of one size that differ."""
    paths = [tmp_path / f"{i}.svs" for i in range(6)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes((i + k) % 251 for k in range(SIZE)))
    return paths


def ignore(path: Path) -> None:
    """Nothing has to be closed."""


class Told(list[str]):
    """What a user is told."""

    def one(self, words: str) -> str:
        assert len(self) == 1, self
        assert re.search(words, self[0]), self
        return self[0]


def stage_in(tmp_path: Path, most_bytes: int, told: list[str] | None = None) -> Staging:
    return Staging(StageFolder(tmp_path / "stage", most_bytes), tell=(told if told is not None else []).append)


def test_copies_are_there_ahead_and_go_after_use(tmp_path: Path, slides: list[Path]) -> None:
    told: list[str] = []
    with stage_in(tmp_path, 10 * SIZE, told) as staging:
        staging.expect([ExpectedSlide(path, uses=2) for path in slides])
        assert held_within(5, lambda: len(staged_files(tmp_path / "stage")) == len(slides))
        for path in slides:
            closed: list[Path] = []
            with staging.use(path, closed.append) as first:
                assert first is not None
                assert first.read_bytes() == path.read_bytes()
            assert (first.is_file(), closed) == (True, [])
            with staging.use(path, closed.append) as again:
                assert again == first
            assert (first.exists(), closed) == (False, [path])
            assert staging.copy_of(path) is None
    assert told == []
    assert list((tmp_path / "stage").iterdir()) == []


def test_a_block_may_use_a_slide_several_times(tmp_path: Path, slides: list[Path]) -> None:
    with stage_in(tmp_path, 10 * SIZE) as staging:
        staging.expect([ExpectedSlide(slides[0], uses=7)])
        for times, is_there in ((4, True), (2, True), (1, False)):
            with staging.use(slides[0], ignore, times) as copy:
                assert copy is not None
                assert copy.is_file()
            assert copy.exists() == is_there


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("fit", [1, 2, 5])
def test_the_bound_holds_at_every_moment(tmp_path: Path, slides: list[Path], fit: int, threads: int) -> None:
    """However many slides fit, all are read from copies, and by several readers that take them in order."""
    most_bytes = fit * SIZE + SIZE // 2
    with (
        ThreadPoolExecutor(threads) as pool,  # joined last: a thread may wait for a copy
        slow_source(0.001),
        watching(tmp_path / "stage") as seen,
        stage_in(tmp_path, most_bytes) as staging,
    ):
        staging.expect([ExpectedSlide(path, uses=4) for path in slides])
        assert held_within(5, lambda: seen[-1:] == [fit * SIZE])

        def read(path: Path) -> bool:
            with staging.use(path, ignore) as copy:
                return copy is not None and copy.read_bytes() == path.read_bytes()

        assert all(pool.map(read, [path for path in slides for _ in range(4)]))
    assert max(seen) == fit * SIZE
    assert seen[-1] == 0


def test_a_slide_larger_than_the_bound_is_read_in_place_and_said_once(tmp_path: Path, slides: list[Path]) -> None:
    told = Told()
    slides[2].write_bytes(b"s")
    with stage_in(tmp_path, SIZE - 1, told) as staging:
        staging.expect(map(ExpectedSlide, slides))
        copied = [path.name for path in slides if staging.copy_of(path) is not None]
    assert copied == ["2.svs"]
    told.one(r"0\.svs is read in place, not staged, as are others .*: it has 40\.0 kB, and --stage-gb allows 40\.0 kB")


def test_a_slide_that_is_not_expected_is_read_in_place(tmp_path: Path, slides: list[Path]) -> None:
    with stage_in(tmp_path, SIZE) as staging:
        assert staging.copy_of(slides[0]) is None
        staging.done(slides[0], ignore)
    with Staging(None, tell=[].append) as off:
        off.expect(map(ExpectedSlide, slides))
        assert off.copy_of(slides[0]) is None
    with KnownCopy(slides[1]).use(slides[0], ignore) as copy:
        assert copy == slides[1]


def test_more_may_be_expected_later(tmp_path: Path, slides: list[Path]) -> None:
    with stage_in(tmp_path, 10 * SIZE) as staging:
        for _ in range(2):
            staging.expect([ExpectedSlide(slides[0]), ExpectedSlide(slides[0])])
            for expected in (True, True, False):
                with staging.use(slides[0], ignore) as copy:
                    assert (copy is not None) == expected


def test_a_damaged_copy_is_read_in_place_and_said(tmp_path: Path, slides: list[Path]) -> None:
    """The others are staged; nothing of the damaged one stays."""
    told, read_back = Told(), copies.read_back

    def damage(path: Path, go_on: Callable[[], object]) -> str:
        if path.name == "1.svs":
            path.write_bytes(path.read_bytes()[:-1] + b"x")
        return read_back(path, go_on)

    with mock.patch.object(copies, "read_back", damage), stage_in(tmp_path, 2 * SIZE, told) as staging:
        staging.expect(map(ExpectedSlide, slides))
        for path in slides:
            with staging.use(path, ignore) as copy:
                assert (copy is None) == (path.name == "1.svs")
                assert not list((tmp_path / "stage").rglob("1.svs")) or path.name == "0.svs"
    told.one(r"1\.svs is read in place, not staged: the copy differs from what was read; is the local disk sound\?")


def test_who_ends_while_readers_wait_wakes_them(tmp_path: Path, slides: list[Path]) -> None:
    """A run that fails leaves the block while a thread waits for room that nobody will give back."""
    found: list[Path | None] = []
    with stage_in(tmp_path, SIZE) as staging:
        staging.expect(map(ExpectedSlide, slides))
        assert staging.copy_of(slides[0]) is not None
        waiting = threading.Thread(target=lambda: found.append(staging.copy_of(slides[1])))
        waiting.start()
        time.sleep(0.3)
        assert waiting.is_alive()
    waiting.join(5)
    assert found == [None]
    assert list((tmp_path / "stage").iterdir()) == []


def test_who_ends_amid_a_copy_leaves_nothing(tmp_path: Path, slides: list[Path]) -> None:
    started = time.monotonic()
    with slow_source(0.05), stage_in(tmp_path, SIZE) as staging:
        staging.expect(map(ExpectedSlide, slides))
        assert held_within(5, lambda: staged_files(tmp_path / "stage"))
    assert time.monotonic() - started < 1
    assert list((tmp_path / "stage").iterdir()) == []


def test_room_that_others_hold_is_not_waited_for(tmp_path: Path, slides: list[Path]) -> None:
    """A slide that is needed is read in place; those after it are staged once there is room."""
    told = Told()
    other = StageRoom(StageFolder(tmp_path / "stage", 2 * SIZE))
    taken = other.take([SlidePart("f", Path("nowhere"), SIZE + 1)])
    assert taken is not None
    with stage_in(tmp_path, 2 * SIZE, told) as staging:
        staging.expect(map(ExpectedSlide, slides))
        with staging.use(slides[0], ignore) as copy:
            assert copy is None
        other.give_back(taken)
        with staging.use(slides[1], ignore) as copy:
            assert copy is not None
    told.one(r"0\.svs is read in place, .* has no room for its 40\.0 kB")
    other.close()


def test_a_thread_that_fails_leaves_nobody_waiting(
    tmp_path: Path, slides: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    with mock.patch.object(ahead, "slide_parts", side_effect=AssertionError), stage_in(tmp_path, SIZE) as staging:
        staging.expect(map(ExpectedSlide, slides))
        assert staging.copy_of(slides[0]) is None
        assert staging.copy_of(slides[1]) is None
    assert len(seen) == 1


@needs_mounts
def test_a_disk_that_is_nearly_full_gives_what_it_has(tmp_path: Path, slides: list[Path]) -> None:
    """It has room for one slide at a time, whatever the bound says."""
    with mounted("-t", "tmpfs", "-o", "size=64k", "none", at=tmp_path / "stage"):
        told: list[str] = []
        with stage_in(tmp_path, 100 * SIZE, told) as staging:
            staging.expect(map(ExpectedSlide, slides))
            for path in slides:
                with staging.use(path, ignore) as copy:
                    assert copy is not None
                    assert copy.read_bytes() == path.read_bytes()
        assert told == []


@needs_mounts
def test_a_disk_that_fills_up_meanwhile(tmp_path: Path, slides: list[Path]) -> None:
    """Others write to it, too: from then on slides are read in place, which is said once."""
    told = Told()
    with mounted("-t", "tmpfs", "-o", "size=96k", "none", at=tmp_path / "stage") as small:
        with slow_source(0.05), stage_in(tmp_path, 100 * SIZE, told) as staging:
            staging.expect(map(ExpectedSlide, slides))
            with staging.use(slides[0], ignore) as copy:
                assert copy is not None
                assert held_within(5, lambda: copies_of("1.svs", small))
                with pytest.raises(OSError, match="No space left"):
                    (small / "fill").write_bytes(b"0" * 200_000)
                assert held_within(5, lambda: told)
            for path in slides[1:]:
                with staging.use(path, ignore) as copy:
                    assert copy is None
        assert [path.name for path in small.iterdir()] == ["fill"]
    told.one(r"--stage-dir .* cannot be used \(No space left on device\); from .*1\.svs on, slides are read in place")


# --- processes of their own ---


@pytest.fixture
def at_work(tmp_path: Path, slides: list[Path]) -> Iterator[subprocess.Popen[str]]:
    """A process amid its second copy."""
    process = start_staging(tmp_path / "stage", 2 * SIZE, slides, seconds_a_block=0.02)
    try:
        assert held_within(30, lambda: any(map(is_partial, copies_of("1.svs", tmp_path / "stage"))))
        yield process
    finally:
        process.kill()
        process.communicate()


def is_partial(path: Path) -> bool:
    """Whether some bytes of a copy are there, and not all."""
    try:
        data = path.read_bytes()
    except OSError:
        return False
    return len(data) == SIZE and data[BLOCK_BYTES - 1] != 0 and data[-1] == 0


def test_a_kill_amid_a_copy(tmp_path: Path, slides: list[Path], at_work: subprocess.Popen[str]) -> None:
    """What it leaves does not count as room, is read by nobody, and is removed by whoever comes next."""
    at_work.kill()
    at_work.wait()
    (left,) = (path for path in (tmp_path / "stage").iterdir() if path.name.startswith(f"{STAGED}."))
    assert list(left.rglob("1.svs"))
    with stage_in(tmp_path, 2 * SIZE) as staging:
        assert not left.exists()
        staging.expect(map(ExpectedSlide, slides))
        for path in slides:
            with staging.use(path, ignore) as copy:
                assert copy is not None
                assert copy.read_bytes() == path.read_bytes()
    assert list((tmp_path / "stage").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_amid_a_copy_leaves_nothing(
    tmp_path: Path, at_work: subprocess.Popen[str], number: signal.Signals
) -> None:
    at_work.send_signal(number)
    assert at_work.wait(10) == 128 + number
    assert leftovers(tmp_path / "stage") == []
    assert list((tmp_path / "stage").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("fit", [1, 3])
def test_two_commands_share_a_folder(tmp_path: Path, slides: list[Path], fit: int) -> None:
    """Both read every slide, right, from copies or in place; together they never hold more than the bound."""
    stage = tmp_path / "stage"
    with watching(stage) as seen:
        both = [
            start_staging(stage, fit * SIZE, order, seconds_a_block=0.002, seconds_a_slide=0.03)
            for order in (slides, slides[::-1])
        ]
        said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    lines = [line.split() for out, _ in said for line in out.splitlines()]
    assert all(digest == sha256_file(tmp_path / name) for name, digest, _ in lines)
    assert len(lines) == 2 * len(slides)
    assert sum(copied == "True" for *_, copied in lines) >= len(slides) // 2
    assert 0 < max(seen) <= fit * SIZE
    assert list(stage.iterdir()) == []


def address(path: Path) -> ObjectPath:
    """A slide as an object of a bucket, which is the folder here."""
    return ObjectPath(f"file://{path}")


def test_a_slide_in_a_bucket_waits_for_room_of_others(tmp_path: Path, slides: list[Path]) -> None:
    """There is no other place to read it from. It says once that it waits."""
    told, found = Told(), list[Path | None]()
    with stage_in(tmp_path, SIZE) as others, stage_in(tmp_path, SIZE, told) as staging:
        others.expect([ExpectedSlide(slides[0])])
        assert others.copy_of(slides[0]) is not None
        staging.expect([ExpectedSlide(address(slides[1]))])
        waiting = threading.Thread(target=lambda: found.append(staging.copy_of(address(slides[1]))))
        waiting.start()
        assert held_within(5, lambda: told)
        assert "1.svs waits for room in" in told.one("note: ")
        assert found == []
        others.done(slides[0], ignore)
        waiting.join(5)
        assert [copy and copy.read_bytes() for copy in found] == [slides[1].read_bytes()]


def test_room_that_others_hold_for_long_ends_the_run_where_slides_are_in_a_bucket(
    tmp_path: Path, slides: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no fault of the slide, which must not count as failed; nor of the slides after it, which wait for nothing
    any more. Each slide has the whole time, also after one that has waited for a part of it.
    """
    monkeypatch.setattr(ahead, "ROOM_SECONDS", 0.6)
    asked = [address(path) for path in slides[1:5]]
    with stage_in(tmp_path, SIZE) as others, stage_in(tmp_path, SIZE) as staging:
        for path in asked[:2]:
            others.expect([ExpectedSlide(slides[0])])
            assert others.copy_of(slides[0]) is not None
            leaving = threading.Timer(0.4, others.done, (slides[0], ignore))
            staging.expect([ExpectedSlide(path)])
            leaving.start()
            with staging.use(path, ignore) as copy:
                assert copy is not None
        others.expect([ExpectedSlide(slides[0])])
        assert others.copy_of(slides[0]) is not None
        staging.expect(map(ExpectedSlide, asked[2:]))
        for path in asked[2:]:
            with pytest.raises(G2LError, match=r"3\.svs: .* has no room .* other commands have held it for") as error:
                staging.copy_of(path)
            assert not isinstance(error.value, SlideError)
            staging.done(path, ignore)


def test_a_slide_in_a_bucket_that_is_larger_than_the_bound_or_gone_fails_and_the_others_go_on(
    tmp_path: Path, slides: list[Path]
) -> None:
    slides[0].write_bytes(bytes(2 * SIZE))
    slides[1].unlink()
    with stage_in(tmp_path, SIZE) as staging:
        staging.expect(ExpectedSlide(address(path)) for path in slides[:3])
        for number, words in ((0, "--stage-gb allows"), (1, "no such object")):
            with pytest.raises(SlideError, match=words), staging.use(address(slides[number]), ignore):
                pass
        with staging.use(address(slides[2]), ignore) as copy:
            assert copy is not None
            assert copy.read_bytes() == slides[2].read_bytes()


def test_a_full_disk_ends_the_run_where_slides_are_in_a_bucket(tmp_path: Path, slides: list[Path]) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with mock.patch.object(ahead, "copy_objects", side_effect=full), stage_in(tmp_path, SIZE) as staging:
        staging.expect([ExpectedSlide(address(slides[0]))])
        with pytest.raises(G2LError, match=r"0\.svs: --stage-dir .* cannot be used \(No space left") as error:
            staging.copy_of(address(slides[0]))
        assert not isinstance(error.value, SlideError)
        assert list((tmp_path / "stage").rglob("*.svs")) == []


def test_a_server_that_is_away_for_two_slides_in_turn_ends_the_run(tmp_path: Path, slides: list[Path]) -> None:
    """What would wait for its copy then is told at once."""
    away = AwayError("away")
    with (
        mock.patch.object(ahead, "copy_objects", side_effect=[away, mock.DEFAULT, away, away]) as copy,
        stage_in(tmp_path, 10 * SIZE) as staging,
    ):
        copy.return_value = Path("copy")
        staging.expect(ExpectedSlide(address(path)) for path in slides[:5])
        kinds = []
        for path in slides[:5]:
            try:
                staging.copy_of(address(path))
                kinds.append("copied")
            except G2LError as error:
                kinds.append(type(error).__name__)
    assert kinds == ["SlideError", "copied", "SlideError", "AwayError", "AwayError"]
    assert copy.call_count == 4


def test_nobody_waits_for_a_copy_from_a_bucket_when_the_block_ends(tmp_path: Path, slides: list[Path]) -> None:
    """The reader is told so, not that the slide has failed."""
    found: list[str] = []
    begun = threading.Event()

    def hang(*arguments: Any) -> Path:
        begun.set()
        while True:
            arguments[-1]()  # go_on
            time.sleep(0.002)

    def read() -> None:
        try:
            staging.copy_of(address(slides[0]))
        except G2LError as error:
            found.append(f"{type(error).__name__}: {error}")

    with mock.patch.object(ahead, "copy_objects", hang):
        with stage_in(tmp_path, SIZE) as staging:
            staging.expect([ExpectedSlide(address(slides[0]))])
            waiting = threading.Thread(target=read)
            waiting.start()
            begun.wait(5)
        waiting.join(5)
    assert found == [f"ObjectError: {address(slides[0])}: not copied, for the command ends"]
    assert list((tmp_path / "stage").rglob("*.svs")) == []
