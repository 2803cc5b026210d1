"""The first look: a slide whose header makes OpenSlide's library end the process fails by name, in a real process."""

import csv
import os
import resource
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
import support.slides as sf
from support.commands import run_g2l
from support.extraction import write_cohort
from support.failing import failing
from support.limits import few_files_left

from pipeline.base.errors import BenchmarkError, LimitError, SlideError
from pipeline.base.outside import UnsafeError, reading
from pipeline.disk import first_look
from pipeline.disk.first_look import FirstLooks, is_told_within, nameless_file, require_sound_hdf5, require_sound_slide
from pipeline.disk.hdf5_input import open_hdf5
from pipeline.slides.reader import Slide

TILE_WIDTH, TILE_LENGTH = 322, 323
ABORTS = {TILE_LENGTH: 2**30 - 1}
"""The memory allocator gives up on a tile of 512 GB."""


def require(looks: FirstLooks, path: Path) -> None:
    """As `first_look.require_sound_slide`, with children of a test's own."""
    if trouble := looks.trouble(path):
        raise SlideError(f"{path}: {trouble}")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "good.svs"
    return sf.make_slide(path, width=600, height=400, mpp=0.5, downsamples=(1, 4), tile=128)


@pytest.mark.parametrize("level", [0, 1])
def test_a_header_that_aborts(good: Path, tmp_path: Path, level: int) -> None:
    bad = sf.damage_header(good, ABORTS, level=level, out=tmp_path / "bad.svs")
    looks = FirstLooks()
    with pytest.raises(SlideError, match=r"bad\.svs: reading it crashes the process \(SIGABRT: .*allocate") as caught:
        require(looks, bad)
    with pytest.raises(SlideError) as again:  # it is not looked at again
        require(looks, bad)
    assert str(again.value) == str(caught.value)
    require(looks, good)
    with pytest.raises(SlideError, match="crashes the process"):
        Slide(bad)
    looks.close()


@pytest.mark.slow
def test_the_command_goes_on(tmp_path: Path) -> None:
    """In a process of its own, which the library would end."""
    manifest = write_cohort(tmp_path, 3)
    os.replace(sf.damage_header(tmp_path / "s1.svs", ABORTS), tmp_path / "s1.svs")
    options = ("--patch-px", 64, "--min-tissue", 0)
    done = run_g2l("plan", manifest, "--out", tmp_path / "plan.h5", *options)
    assert done.returncode == 3, done.stderr
    assert "s1: " in done.stdout
    with open(tmp_path / "plan.audit.csv", newline="") as f:
        status = {row["slide_id"]: row["status"] for row in csv.DictReader(f)}
    assert status == {"s0": "ok", "s1": "failed", "s2": "ok"}


@pytest.mark.slow
def test_many_threads_and_replaced_children(good: Path, tmp_path: Path) -> None:
    data, looks = good.read_bytes(), FirstLooks()
    sound = [tmp_path / f"{i}.svs" for i in range(12)]
    for path in sound:
        path.write_bytes(data)
    bad = [sf.damage_header(good, ABORTS, level=i % 2, out=tmp_path / f"bad{i}.svs") for i in range(4)]

    def look(path: Path) -> bool:
        try:
            require(looks, path)
        except SlideError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(look, [*sound[:6], *bad, *sound[6:]]))
    assert found == [True] * 6 + [False] * 4 + [True] * 6
    looks.close()


def test_a_look_that_does_not_end(good: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The child is stopped: to its parent it looks as if it hung."""
    looks = FirstLooks()
    require(looks, good)
    (child,) = looks._idle
    os.kill(child._process.pid, signal.SIGSTOP)
    monkeypatch.setattr(first_look, "SECONDS", 0.2)
    other = tmp_path / "other.svs"
    other.write_bytes(good.read_bytes())
    started = time.monotonic()
    with pytest.raises(SlideError, match=r"other\.svs: opening it took more than 0.2 s"):
        require(looks, other)
    assert time.monotonic() - started < 20
    assert child._process.poll() is not None
    looks.close()


def test_a_killed_child_says_nothing_of_the_next_slide(good: Path, tmp_path: Path) -> None:
    """As the system kills a process where memory runs out."""
    looks, others = FirstLooks(), [tmp_path / f"{i}.svs" for i in range(2)]
    for path in others:
        path.write_bytes(good.read_bytes())
    require(looks, good)
    (child,) = looks._idle
    child._process.kill()
    child._process.wait()
    assert looks.trouble(others[0]) == ""
    (child,) = looks._idle
    os.kill(child._process.pid, signal.SIGSTOP)  # it is killed while it looks
    threading.Timer(0.5, child._process.kill).start()
    assert looks.trouble(others[1]) == ""
    looks.close()


def test_children_that_are_killed_at_one_slide_fail_it_until_the_next_look(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, look = FirstLooks(), first_look._Child.look

    def look_and_die(child: first_look._Child, path: Path) -> str:
        os.kill(child._process.pid, signal.SIGSTOP)  # or it may have answered before it is killed
        threading.Timer(0.2, child._process.kill).start()
        return look(child, path)

    with monkeypatch.context() as patch:
        patch.setattr(first_look._Child, "look", look_and_die)
        with pytest.raises(SlideError, match=r"good\.svs: reading it crashes the process \(SIGKILL\)"):
            require(looks, good)
    require(looks, good)
    looks.close()


def test_a_changed_file_is_looked_at_again(good: Path, tmp_path: Path) -> None:
    path, looks = tmp_path / "a.svs", FirstLooks()
    sf.damage_header(good, ABORTS, out=path)
    with pytest.raises(SlideError):
        require(looks, path)
    path.write_bytes(good.read_bytes())
    require(looks, path)
    looks.close()


def test_children_end_with_their_parent(good: Path) -> None:
    looks = FirstLooks()
    require(looks, good)
    (child,) = looks._idle
    assert child._process.stdin is not None
    child._process.stdin.close()  # what the end of the parent does
    assert child._process.wait(20) == 0
    looks.close()


def test_what_this_process_finds_for_itself_is_left_to_it(tmp_path: Path) -> None:
    looks = FirstLooks()
    assert looks.trouble(tmp_path / "none.svs") == ""
    assert looks.trouble(sf.not_a_slide(tmp_path / "text.svs")) == ""
    looks.close()


def test_an_hdf5_file_that_ends_the_process_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the test stands in for damage of which libhdf5 dies; test_damaged_inputs meets that by chance."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as f:
        f["features"] = np.zeros((4, 3), np.float32)
    require_sound_hdf5(path)
    (tmp_path / "dying.py").write_text("import os\ndef look_at(path):\n    os.kill(os.getpid(), 11)\n")
    monkeypatch.setattr("pipeline.disk.first_look.HDF5", "dying")
    monkeypatch.syspath_prepend(tmp_path)
    with (
        pytest.raises(
            BenchmarkError, match=r"a\.h5: not a readable feature file \(reading it crashes the process \(SIGSEGV"
        ),
        reading(path, "not a readable feature file", BenchmarkError),
        open_hdf5(path),
    ):
        pass


def test_a_look_at_one_attribute_is_no_look_at_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as f:
        f["features"] = np.zeros(3)
    (tmp_path / "saying.py").write_text("def look_at(path, only='all'):\n    return f'looked at {only}'\n")
    monkeypatch.setattr("pipeline.disk.first_look.HDF5", "saying")
    monkeypatch.syspath_prepend(tmp_path)
    for only, words in (("of slides", "looked at of slides"), (None, "looked at all")):
        with pytest.raises(UnsafeError, match=words):
            require_sound_hdf5(path, only)


def test_without_a_folder_for_temporary_files_children_have_files_in_memory(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = failing(FileNotFoundError("No usable temporary directory"))
    monkeypatch.setattr("tempfile.TemporaryFile", nowhere)
    with nameless_file() as file:
        file.write(b"words")
        file.seek(0)
        assert file.read() == b"words"
    looks = FirstLooks()
    require(looks, good)
    looks.close()
    monkeypatch.delattr("os.memfd_create")
    with pytest.raises(FileNotFoundError):
        nameless_file()


def test_a_large_hdf5_file_has_more_time_and_a_large_slide_has_not(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with open(path, "wb") as f:
        f.truncate(100 << 20)
    seconds = first_look.seconds_for(path, first_look.HDF5)
    assert seconds == first_look.SECONDS + 100 * first_look.SECONDS_PER_MIB
    assert first_look.seconds_for(path, first_look.SLIDE) == first_look.SECONDS
    assert first_look.seconds_for(tmp_path / "none", first_look.HDF5) == first_look.SECONDS


def test_where_no_process_can_be_started_no_slide_is_called_damaged(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_look, "_looks", {})
    with few_files_left(3), pytest.raises(LimitError, match=r"no process can be started .*ulimit -n"):
        require_sound_slide(good)
    require_sound_slide(good)


def test_a_child_is_heard_where_a_thousand_files_are_open(tmp_path: Path) -> None:
    """`select.select` takes no descriptor from 1,024 on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 1100
    if hard != resource.RLIM_INFINITY and hard < most:
        pytest.skip("this system lets a process have too few files open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1024)]
    read_end, write_end = os.pipe()
    try:
        with open(read_end, "rb") as stream:
            assert not is_told_within(stream, 0)
            os.write(write_end, b"x")
            assert is_told_within(stream, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in (*opened, write_end):
            os.close(descriptor)
