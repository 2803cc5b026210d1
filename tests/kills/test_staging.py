"""Stage one that stages its slides, killed at random moments, and two that share a folder: the stores are whole, the
folder is within its bound and empty at the end.
"""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import call_g2l, leftovers
from support.extraction import TEACHER, array_files, plan_cohort, write_cohort, write_teacher
from support.forked import ForkedCommands, forked_commands
from support.staging import kill_soon_after_a_copy, watching

from pipeline.cohort.plan_hdf5 import write_plan

NUM_SLIDES, PATCHES, KILLS = 8, 16, 8


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan of eight slides and a teacher's weights."""
    folder = tmp_path_factory.mktemp("staging")
    write_plan(plan_cohort(write_cohort(folder / "slides", NUM_SLIDES), patches_per_slide=PATCHES), folder / "plan.h5")
    write_teacher(folder / "teacher.safetensors")
    return folder


@pytest.fixture(scope="module")
def bound(work: Path) -> int:
    """Room for two slides and a half."""
    return max(path.stat().st_size for path in (work / "slides").glob("*.svs")) * 5 // 2


def command(work: Path, out: Path, *more: object) -> list[object]:
    sizes = ["--rows-per-shard", 4, "--batch-size", 4, "--device", "cpu", "--workers", 2, "--no-preflight"]
    teacher = ["--teacher", TEACHER, "--weights", work / "teacher.safetensors"]
    return ["extract-teacher", work / "plan.h5", "--out", out, *teacher, *sizes, *more]


@pytest.fixture(scope="module")
def unstaged(work: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run that stages nothing."""
    out = tmp_path_factory.mktemp("unstaged") / "store.zarr"
    assert call_g2l(*command(work, out))[0] == 0
    return array_files(out)


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedCommands]:
    with forked_commands(tmp_path_factory.mktemp("forks")) as started:
        yield started


@pytest.mark.slow
def test_killed_at_random_moments(
    work: Path, tmp_path: Path, bound: int, unstaged: dict[str, bytes], forks: ForkedCommands
) -> None:
    rng, out, stage = random.Random(0), tmp_path / "store.zarr", tmp_path / "stage"
    staged = command(work, out, "--stage-dir", stage, "--stage-gb", bound / 1e9)
    kills = 0
    with watching(stage) as seen:
        for _ in range(KILLS):
            if kill_soon_after_a_copy(lambda: forks.start(*staged), stage, rng):
                kills += 1
            else:
                shutil.rmtree(out)
        assert call_g2l(*staged)[0] == 0
    assert kills >= KILLS // 2
    assert array_files(out) == unstaged
    assert max(seen) <= bound
    assert leftovers(tmp_path) == list(stage.iterdir()) == []


@pytest.mark.slow
def test_two_at_once(work: Path, tmp_path: Path, bound: int, unstaged: dict[str, bytes], forks: ForkedCommands) -> None:
    stage, outs = tmp_path / "stage", [tmp_path / f"{i}.zarr" for i in range(2)]
    with watching(stage) as seen:
        both = [forks.start(*command(work, out, "--stage-dir", stage, "--stage-gb", bound / 1e9)) for out in outs]
        said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert [array_files(out) == unstaged for out in outs] == [True, True]
    assert 0 < max(seen) <= bound
    assert leftovers(tmp_path) == list(stage.iterdir()) == []
