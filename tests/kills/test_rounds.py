"""Rounds of fresh views killed at random moments: what the next runs make of them equals a run that was not killed."""

import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from support.commands import leftovers
from support.extraction import TEACHER, plan_cohort, store_files, write_cohort, write_teacher
from support.forked import forked_commands

from pipeline.cohort.plan_hdf5 import write_plan
from pipeline.store.store import Store

KILLS = 12


@pytest.mark.slow
def test_killed_rounds_end_as_those_of_one_run(tmp_path: Path) -> None:
    plan = plan_cohort(write_cohort(tmp_path / "slides", width=640, height=640), patches_per_slide=30, tile_px=72)
    write_plan(plan, tmp_path / "plan.h5")
    out, rng = tmp_path / "place" / "store.zarr", random.Random(4)
    out.parent.mkdir()
    teacher = ["--teacher", TEACHER, "--weights", write_teacher(tmp_path / "teacher.safetensors")]
    sizes = ["--rows-per-shard", 4, "--batch-size", 4, "--device", "cpu", "--workers", 2]
    views = ["--views", 5, "--views-strength", "paper", "--views-per-epoch", "fresh"]
    words = ["extract-teacher", tmp_path / "plan.h5", "--out", out, *teacher, *sizes, *views]
    with forked_commands(tmp_path / "forks") as forks:
        process = forks.start(*words)
        process.communicate()
        assert process.returncode == 0
        undisturbed = store_files(out)
        shutil.rmtree(out)
        kills = 0
        while kills < KILLS:
            process = forks.start(*words)
            time.sleep(rng.uniform(0.1, 1.5))
            process.kill()
            process.communicate()
            if process.returncode != -signal.SIGKILL:
                assert store_files(out) == undisturbed
                shutil.rmtree(out)
                continue
            kills += 1
            if (out / "zarr.json").exists():
                first = Store(out).first
                for each in (first, *first.rounds):
                    done = [shard for shard, entry in each.ledger.entries() if entry is not None]
                    assert [problem for shard in done for problem in each.check_files(shard)] == []
        process = forks.start(*words)
        process.communicate()
        assert process.returncode == 0
    assert store_files(out) == undisturbed
    assert leftovers(out.parent) == []
