"""Commands that copy slides from a bucket, killed at random moments: what they write is whole, and no copy stays."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import call_g2l, leftovers
from support.extraction import TEACHER, array_files, plan_cohort, write_cohort, write_teacher
from support.forked import ForkedCommands, forked_commands
from support.launched import ended, kill_worker, start_torchrun
from support.object_server import ObjectServer, object_server
from support.staging import kill_soon_after_a_copy, watching

from pipeline.cohort.plan_hdf5 import read_plan, write_plan

NUM_SLIDES, KILLS = 6, 6
PLAN = ("--patch-px", 64, "--min-tissue", 0, "--val-fraction", 0.5, "--patches-per-slide", 12)


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectServer]:
    with object_server() as server:
        yield server


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, server: ObjectServer) -> Path:
    """A folder with slides that lie in the bucket too, a plan, a teacher's weights, and the store of local slides."""
    folder = tmp_path_factory.mktemp("buckets")
    write_plan(plan_cohort(write_cohort(folder / "slides", NUM_SLIDES)), folder / "plan.h5")
    server.upload(folder / "slides", "slides")
    write_teacher(folder / "teacher.safetensors")
    assert call_g2l(*extract(folder, folder / "local.zarr"))[0] == 0
    return folder


@pytest.fixture(scope="module")
def forks(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedCommands]:
    with forked_commands(tmp_path_factory.mktemp("forks")) as started:  # which know the server, as it runs
        yield started


def extract(work: Path, out: Path, *more: object) -> list[object]:
    sizes = ["--rows-per-shard", 4, "--batch-size", 4, "--device", "cpu", "--workers", 2]
    teacher = ["--teacher", TEACHER, "--weights", work / "teacher.safetensors"]
    return ["extract-teacher", work / "plan.h5", "--out", out, *teacher, *sizes, *more]


def killed(forks: ForkedCommands, command: list[object], stage: Path, out: Path, rng: random.Random) -> bool:
    """Run a command and kill it soon after a copy began; whether it was."""
    was_killed = kill_soon_after_a_copy(lambda: forks.start(*command), stage, rng)
    if not was_killed:
        shutil.rmtree(out, ignore_errors=True)
        for path in out.parent.glob(f"{out.stem}.*"):
            path.unlink()
    return was_killed


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["plan", "extract"])
def test_killed_at_random_moments(work: Path, tmp_path: Path, forks: ForkedCommands, verb: str) -> None:
    rng, stage = random.Random(0), tmp_path / "stage"
    bound = max(path.stat().st_size for path in (work / "slides").glob("*.svs")) * 5 // 2
    more = ("--slides-root", "s3://bucket/slides", "--stage-dir", stage, "--stage-gb", bound / 1e9)
    out = tmp_path / ("out.h5" if verb == "plan" else "out.zarr")
    command = extract(work, out, *more)
    if verb == "plan":
        command = ["plan", work / "slides" / "manifest.csv", "--out", out, *PLAN, "--workers", 2, *more]
    with watching(stage) as seen:
        kills = sum(killed(forks, command, stage, out, rng) for _ in range(KILLS))
        code, printed, said = call_g2l(*command)
    assert code == 0, printed + said
    assert kills >= KILLS // 2
    if verb == "plan":
        assert read_plan(out).hash == read_plan(work / "plan.h5").hash
    else:
        assert array_files(out) == array_files(work / "local.zarr")
    assert max(seen) <= bound
    assert leftovers(tmp_path) == list(stage.iterdir()) == []


@pytest.mark.slow
def test_several_processes_of_which_one_is_killed(work: Path, tmp_path: Path) -> None:
    out, stage = tmp_path / "out.zarr", tmp_path / "stage"
    bound = max(path.stat().st_size for path in (work / "slides").glob("*.svs")) * 4
    more = ("--slides-root", "s3://bucket/slides", "--stage-dir", stage, "--stage-gb", bound / 1e9)
    with watching(stage) as seen:
        launcher = start_torchrun(*extract(work, out, *more), launcher=("--standalone", "--max-restarts", 2))
        kill_worker(launcher, 1, lambda: len(list((out / "shards").glob("*.json"))) >= 1)
        code, printed, said = ended(launcher)
    assert code == 0, printed + said
    assert "exitcode: -9" in said
    assert array_files(out) == array_files(work / "local.zarr")
    assert 0 < max(seen) <= bound
    assert leftovers(tmp_path) == list(stage.iterdir()) == []
