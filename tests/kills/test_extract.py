"""Stage one killed at random moments: what the next runs make of it equals a run that was never killed, to the byte.

The real command runs in processes of its own. Half of them are forked from a process that has torch and timm loaded
already, which saves seconds for each: the command's code, arguments and files are the same.
"""

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import Popen

import pytest
from support.commands import call_g2l, child_environment, leftovers, run_g2l, start_g2l, stop_g2l
from support.extraction import TEACHER, array_files, plan_cohort, write_cohort, write_teacher

from pipeline.cohort.plan import write_plan
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


def call(arguments: list[str], log: Path) -> None:
    """The command in a forked process; what it says goes to `log`."""
    with open(log, "w") as f, contextlib.redirect_stdout(f), contextlib.redirect_stderr(f):
        from stages import cli

        sys.argv = ["g2l", *arguments]
        cli.main()


@pytest.fixture(scope="module")
def warm() -> Iterator[multiprocessing.context.ForkServerContext]:
    """Starts processes in which everything is imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_extract_kill", "stages.extract_teacher", "stages.plan"])
    old = dict(os.environ)
    os.environ.update(child_environment())
    yield context
    os.environ.clear()
    os.environ.update(old)


def signs_of_life(out: Path) -> set[str]:
    """What a run at work makes: ledger entries and files aside, or the store itself while it is being made."""
    beside = {path.name for path in out.parent.glob("*.g2l-*")}
    return beside | {path.name for path in out.rglob("*") if path.suffix in (".json", ".g2l-part")}


def kill_at_a_random_moment(process: Popen[str] | BaseProcess, out: Path, before: set[str], rng: random.Random) -> None:
    """SIGKILL a little after the process made some files: the lock, the store itself, or those of the next shards.

    A process that ended by itself before that, because there was little left to do, is past being killed.
    """
    enough = rng.choice([0, 1, 2, 4, 7])
    try:
        while len(signs_of_life(out) - before) <= enough and is_running(process):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.01))
    finally:
        process.kill()


def is_running(process: Popen[str] | BaseProcess) -> bool:
    return process.poll() is None if isinstance(process, Popen) else process.is_alive()


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


def run_warm(
    warm: multiprocessing.context.ForkServerContext, arguments: list[str], out: Path, rng: random.Random
) -> int | None:
    """Start the command in a fork and kill it; returns the exit code."""
    before = signs_of_life(out)
    process: BaseProcess = warm.Process(target=call, args=(arguments, out.parent.parent / "log"))
    process.start()
    kill_at_a_random_moment(process, out, before, rng)
    process.join()
    return process.exitcode


def run_cold(arguments: list[object], out: Path, rng: random.Random) -> int:
    """Start the installed command in a process of its own and kill it; returns the exit code."""
    before = signs_of_life(out)
    process = start_g2l(*arguments)
    kill_at_a_random_moment(process, out, before, rng)
    process.communicate()
    return process.returncode


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
    work: Path, tmp_path: Path, undisturbed: dict[str, bytes], warm: multiprocessing.context.ForkServerContext
) -> None:
    out, rng = tmp_path / "place" / "store.zarr", random.Random(1)
    out.parent.mkdir()
    arguments = [str(word) for word in command(work, out)]
    forks = [lambda: run_warm(warm, arguments, out, rng)] * 12
    assert kill_runs([*forks, *[lambda: run_cold(command(work, out), out, rng)] * 2], out, undisturbed) >= 6
    assert_ends_as_undisturbed(work, out, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_many_kills_of_the_installed_command(
    work: Path, tmp_path: Path, undisturbed: dict[str, bytes], seed: int
) -> None:
    out, rng = tmp_path / "place" / "store.zarr", random.Random(seed)
    out.parent.mkdir()
    runs = [lambda i=i: run_cold(command(work, out, "--workers", 1 + i % 3), out, rng) for i in range(13)]
    assert kill_runs(runs, out, undisturbed) >= 6
    assert_ends_as_undisturbed(work, out, undisturbed)


@pytest.mark.slow
def test_a_second_process_is_refused_by_name_and_the_first_goes_on(
    work: Path, tmp_path: Path, undisturbed: dict[str, bytes], warm: multiprocessing.context.ForkServerContext
) -> None:
    out = tmp_path / "place" / "store.zarr"
    out.parent.mkdir()
    first: BaseProcess = warm.Process(target=call, args=([str(w) for w in command(work, out)], tmp_path / "log"))
    first.start()
    assert first.pid is not None
    try:
        while not (out / "shards" / "0.json").exists():
            assert first.is_alive(), (tmp_path / "log").read_text()
            time.sleep(0.001)
        os.kill(first.pid, signal.SIGSTOP)
        second = run_g2l(*command(work, out))
        assert second.returncode == 1
        assert f"{out} is in use by g2l extract-teacher (process {first.pid} on " in second.stderr
        assert second.stdout == ""
    finally:
        os.kill(first.pid, signal.SIGCONT)
    first.join(60)
    assert first.exitcode == 0
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
