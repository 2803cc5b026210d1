"""Stage one under `torchrun`: a killed process is replaced, its shards come back; a second run beside is refused."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import leftovers, run_g2l
from support.extraction import TEACHER, array_files, extract, plan_cohort, write_cohort, write_teacher
from support.launched import ended, free_port, kill_worker, start_torchrun

from pipeline.cohort.plan import write_plan

SHARD_ROWS = 16


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan of some seconds' work, a teacher and the store `one` of one process; shared, not changed."""
    folder = tmp_path_factory.mktemp("made")
    plan = plan_cohort(write_cohort(folder / "slides", 4), patches_per_slide=600, stride_px=16)
    write_plan(plan, folder / "plan.h5")
    write_teacher(folder / "t.safetensors")
    extract(plan, folder / "one", folder / "t.safetensors", rows_per_shard=SHARD_ROWS, batch_size=8)
    return folder


def words(made: Path, out: Path) -> list[object]:
    options = ["--teacher", TEACHER, "--weights", made / "t.safetensors", "--device", "cpu", "--batch-size", 8]
    return ["extract-teacher", made / "plan.h5", "--out", out, *options, "--rows-per-shard", SHARD_ROWS]


def has_shards(out: Path, count: int = 8) -> Callable[[], bool]:
    return lambda: len(list((out / "shards").glob("*.json"))) >= count


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_is_replaced(made: Path, tmp_path: Path, rank: int) -> None:
    out = tmp_path / "s"
    launcher = start_torchrun(*words(made, out), launcher=("--standalone", "--max-restarts", 2))
    kill_worker(launcher, rank, has_shards(out))
    code, said, err = ended(launcher)
    assert code == 0, said + err
    assert array_files(out) == array_files(made / "one")
    assert "exitcode: -9" in err  # it was killed
    assert leftovers(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize(("how", "node"), [("c10d", 1), ("static", 0), ("static", 1)])
def test_on_two_nodes(made: Path, tmp_path: Path, how: str, node: int) -> None:
    """With c10d all processes are started again, with static the killed one only."""
    out, port, launchers = tmp_path / "s", free_port(), []
    for number in (0, 1):
        meet = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "job"]
        static = ["--node-rank", number, "--master-addr", "127.0.0.1", "--master-port", port]
        launcher = ["--nnodes", 2, "--max-restarts", 2, *(meet if how == "c10d" else static)]
        launchers.append(start_torchrun(*words(made, out), processes=1, launcher=launcher))
    kill_worker(launchers[node], None, has_shards(out))
    ends = [ended(launcher) for launcher in launchers]
    assert [end[0] for end in ends] == [0, 0], ends
    assert array_files(out) == array_files(made / "one")
    assert leftovers(tmp_path) == []


@pytest.mark.slow
def test_a_second_run_beside_is_refused(made: Path, tmp_path: Path) -> None:
    """One process of the first run is held, so that it lasts."""
    out = tmp_path / "s"
    launcher = start_torchrun(*words(made, out))
    held = kill_worker(launcher, 0, has_shards(out, 1), signal.SIGSTOP)
    try:
        second = run_g2l(*words(made, out))
        together = ended(start_torchrun(*words(made, out)))
    finally:
        os.kill(held, signal.SIGCONT)
    assert (second.returncode, "is in use by g2l extract-teacher" in second.stderr) == (1, True), second.stderr
    assert (together[0], "is in use by g2l extract-teacher" in together[2]) == (1, True), together
    code, said, err = ended(launcher)
    assert code == 0, said + err
    assert array_files(out) == array_files(made / "one")
