"""Stage one killed at random moments: what the next runs make of it equals a run that was never killed, to the byte.

The real command runs in processes of its own. Most of them are forked from a process that has torch and timm loaded
already (`support.forked`).
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from subprocess import Popen

import pytest
from support.commands import call_g2l, leftovers, run_g2l, start_g2l, stop_g2l
from support.extraction import TEACHER, array_files, plan_cohort, write_cohort, write_teacher
from support.forked import ForkedCommands, ForkedRun, forked_commands

from pipeline.cohort.plan_hdf5 import write_plan
from pipeline.store.store import Store

ROWS, ROWS_PER_SHARD = 160, 2
"""80 shards of 2 rows: dozens of runs are killed before the last one finds little to do."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan of `ROWS` patches and a teacher's weights."""
    folder = tmp_path_factory.mktemp("kill")
    manifest = write_cohort(folder / "slides", width=640, height=640)
    plan = plan_cohort(manifest, patches_per_slide=ROWS // 2)
    assert plan.num_rows == ROWS
    write_plan(plan, folder / "plan.h5")
    write_teacher(folder / "teacher.safetensors")
    return folder


def command(work: Path, out: Path, *more: object) -> list[object]:
    sizes = ["--rows-per-shard", ROWS_PER_SHARD, "--batch-size", 2, "--device", "cpu", "--workers", 2]
    teacher = ["--teacher", TEACHER, "--weights", work / "teacher.safetensors"]
    return ["extract-teacher", work / "plan.h5", "--out", out, *teacher, *sizes, *more]


@pytest.fixture(scope="module")
def undisturbed(work: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run that was never killed, with another number of workers."""
    out = tmp_path_factory.mktemp("undisturbed") / "store.zarr"
    code, _, said = call_g2l(*command(work, out, "--workers", 1))
    assert code == 0, said
    return array_files(out)


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedCommands]:
    with forked_commands(tmp_path_factory.mktemp("forks")) as started:
        yield started


def signs_of_life(out: Path) -> set[str]:
    """What a run at work makes: ledger entries and files aside, or the store itself while it is being made."""
    beside = {path.name for path in out.parent.glob("*.g2l-*")}
    return beside | {path.name for path in out.rglob("*") if path.suffix in (".json", ".g2l-part")}


def kill_at_a_random_moment(start: Callable[[], Popen[str] | ForkedRun], out: Path, rng: random.Random) -> int | None:
    """SIGKILL a little after the process made some files: the lock, the store itself, or those of the next shards.

    A process that ended by itself before that, because there was little left to do, is past being killed. Returns the
    exit code.
    """
    enough, before = rng.choice([0, 1, 2, 4, 7]), signs_of_life(out)
    process = start()
    try:
        while len(signs_of_life(out) - before) <= enough and process.poll() is None:
            time.sleep(0.01)  # to look through the store takes as long, of the cores that the process needs
        time.sleep(rng.uniform(0, 0.01))
    finally:
        process.kill()
    process.communicate()
    return process.returncode


def assert_whole_or_absent(out: Path) -> int:
    """Every shard in the ledger is as it was written; returns how many there are."""
    if not (out / "zarr.json").exists():
        return 0
    store = Store(out)
    done = [shard for shard, entry in store.first.ledger.entries() if entry is not None]
    assert [problem for shard in done for problem in store.first.check_files(shard)] == []
    return len(done)


def assert_as_undisturbed(out: Path, undisturbed: dict[str, bytes]) -> None:
    assert array_files(out) == undisturbed
    assert leftovers(out.parent) == []


def kill_runs(runs: Iterable[Callable[[], int | None]], out: Path, undisturbed: dict[str, bytes]) -> int:
    """Let runs go on with each other's store and be killed; returns how many of them were.

    After each, whatever the ledger holds is whole, and what was finished before is as it was. A run that came to its
    end before its kill must have left what an undisturbed one leaves; the next ones begin again without its store.
    """
    kills = 0
    finished: dict[Path, int] = {}
    for run in runs:
        code = run()
        assert code in (-signal.SIGKILL, 0)
        assert finished.items() <= finished_shards(out).items()  # finished work stays and is not redone
        finished = finished_shards(out)
        assert assert_whole_or_absent(out) == len(finished)
        kills += code != 0
        if code == 0:
            assert_as_undisturbed(out, undisturbed)
            shutil.rmtree(out)
            finished = {}
    return kills


def finished_shards(out: Path) -> dict[Path, int]:
    """The ledger's entries, and when they were written."""
    return {path: path.stat().st_mtime_ns for path in (out / "shards").glob("*.json")}


def assert_ends_as_undisturbed(work: Path, out: Path, undisturbed: dict[str, bytes]) -> None:
    """A last run finishes what is left, and only that."""
    finished = finished_shards(out)
    code, _, said = call_g2l(*command(work, out))
    assert code == 0, said
    assert_as_undisturbed(out, undisturbed)
    assert finished.items() <= finished_shards(out).items()


@pytest.mark.slow
def test_runs_killed_at_random_moments_end_as_one_that_was_not(
    work: Path, tmp_path: Path, undisturbed: dict[str, bytes], forks: ForkedCommands
) -> None:
    """Two of them are the installed command."""
    out, rng = tmp_path / "place" / "store.zarr", random.Random(1)
    out.parent.mkdir()
    words = command(work, out)
    runs = [lambda: kill_at_a_random_moment(lambda: forks.start(*words), out, rng)] * 12
    runs += [lambda: kill_at_a_random_moment(lambda: start_g2l(*words), out, rng)] * 2
    assert kill_runs(runs, out, undisturbed) >= 6
    assert_ends_as_undisturbed(work, out, undisturbed)


@pytest.mark.slow
def test_many_kills_with_another_number_of_workers_each_time(
    work: Path, tmp_path: Path, undisturbed: dict[str, bytes], forks: ForkedCommands
) -> None:
    out, rng = tmp_path / "place" / "store.zarr", random.Random(2)
    out.parent.mkdir()

    def run(workers: int) -> int | None:
        words = command(work, out, "--workers", workers)
        return kill_at_a_random_moment(lambda: forks.start(*words), out, rng)

    assert kill_runs([lambda i=i: run(1 + i % 3) for i in range(13)], out, undisturbed) >= 6
    assert_ends_as_undisturbed(work, out, undisturbed)


@pytest.mark.slow
def test_a_second_process_is_refused_by_name_and_the_first_goes_on(
    work: Path, tmp_path: Path, undisturbed: dict[str, bytes], forks: ForkedCommands
) -> None:
    out = tmp_path / "place" / "store.zarr"
    out.parent.mkdir()
    first = forks.start(*command(work, out))
    try:
        while not (out / "shards" / "0.json").exists():
            assert first.poll() is None, first.communicate()
            time.sleep(0.001)
        os.kill(first.pid, signal.SIGSTOP)
        second = run_g2l(*command(work, out))
        assert second.returncode == 1
        assert f"{out} is in use by g2l extract-teacher (process {first.pid} on " in second.stderr
        assert second.stdout == ""
    finally:
        os.kill(first.pid, signal.SIGCONT)
    first.communicate(60)
    assert first.returncode == 0
    assert_as_undisturbed(out, undisturbed)


@pytest.mark.slow
def test_an_interrupt_leaves_nothing_half_done(work: Path, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    """Ctrl-C: the shard in flight is discarded, the rest is kept, and the exit code is the shell's for it."""
    out = tmp_path / "place" / "store.zarr"
    out.parent.mkdir()
    ready = (out / "shards" / "0.json").exists
    stopped = stop_g2l(*command(work, out), out=out, ready=ready, stop=signal.SIGINT)
    assert stopped.returncode == 130
    assert "Traceback" not in stopped.stderr
    assert leftovers(out.parent) == []
    assert 0 < assert_whole_or_absent(out) < ROWS // ROWS_PER_SHARD
    assert call_g2l(*command(work, out))[0] == 0
    assert_as_undisturbed(out, undisturbed)
