"""Stage one under `torchrun`: a killed process is replaced, its shards come back; a second run beside is refused."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.commands import leftovers, run_g2l
from support.extraction import TEACHER, array_files, extract, plan_cohort, write_cohort, write_teacher
from support.launched import ended, free_port, kill_worker, start_torchrun
from support.slides import not_a_slide
from support.staging import watching

from pipeline.cohort.plan import Plan
from pipeline.cohort.plan_hdf5 import write_plan

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


@pytest.fixture(scope="module")
def small(made: Path) -> Plan:
    """A plan of the same slides that is done sooner: 50 shards."""
    plan = plan_cohort(made / "slides" / "manifest.csv", patches_per_slide=200, stride_px=16)
    write_plan(plan, made / "small.h5")
    return plan


def alone(made: Path, plan: Plan, out: Path, **options: Any) -> Path:
    """The store of one process."""
    options |= {"rows_per_shard": SHARD_ROWS, "batch_size": 8, "preflight": False}
    extract(plan, out, made / "t.safetensors", **options)
    return out


def words(made: Path, out: Path, *more: object, plan: str = "plan.h5") -> list[object]:
    options = ["--teacher", TEACHER, "--weights", made / "t.safetensors", "--device", "cpu", "--batch-size", 8]
    return ["extract-teacher", made / plan, "--out", out, *options, "--rows-per-shard", SHARD_ROWS, *more]


def has_shards(out: Path, count: int = 8) -> Callable[[], bool]:
    return lambda: len(list((out / "shards").glob("*.json"))) >= count


def has_new_shards(out: Path, count: int) -> Callable[[], bool]:
    """Once shards have been withdrawn, and so many were done again."""
    start, least = len(list((out / "shards").glob("*.json"))), [10**9]

    def ready() -> bool:
        now = len(list((out / "shards").glob("*.json")))
        least[0] = min(least[0], now)
        return least[0] < start and now >= least[0] + count

    return ready


@pytest.mark.slow
def test_a_killed_leader_is_replaced(made: Path, tmp_path: Path) -> None:
    """Of a helper: below, amid retries and staged slides."""
    out = tmp_path / "s"
    launcher = start_torchrun(*words(made, out), launcher=("--standalone", "--max-restarts", 2))
    kill_worker(launcher, 0, has_shards(out))
    code, said, err = ended(launcher)
    assert code == 0, said + err
    assert array_files(out) == array_files(made / "one")
    assert "exitcode: -9" in err  # it was killed
    assert leftovers(tmp_path) == []


@pytest.mark.slow
def test_on_two_nodes(made: Path, tmp_path: Path) -> None:
    """With c10d all processes are started again; with the static form, below amid rounds, the killed one only."""
    out, port, launchers = tmp_path / "s", free_port(), []
    meet = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "job"]
    launcher = ["--nnodes", 2, "--max-restarts", 2, *meet]
    for _ in range(2):
        launchers.append(start_torchrun(*words(made, out), processes=1, launcher=launcher))
    kill_worker(launchers[1], None, has_shards(out))
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


@pytest.mark.slow
def test_failures_are_retried_and_slides_staged(made: Path, small: Plan, tmp_path: Path) -> None:
    """A slide was not there, another has changed since. A process is killed amid the second try, with a copy in its
    folder; the bound holds at every moment.
    """
    slides, out, stage = shutil.copytree(made / "slides", tmp_path / "slides"), tmp_path / "s", tmp_path / "stage"
    gone, bytes_before = slides / "s1.svs", (slides / "s2.svs").read_bytes()
    gone.rename(tmp_path / "gone.svs")
    not_a_slide(slides / "s2.svs")
    alone(made, small, out, slides_root=slides)
    (tmp_path / "gone.svs").rename(gone)
    (slides / "s2.svs").write_bytes(bytes_before + b"appended")  # the same pixels in another file
    one = shutil.copytree(out, tmp_path / "one")
    alone(made, small, one, slides_root=slides, retry_failures=True)

    most_bytes = 3 * max(path.stat().st_size for path in slides.glob("*.svs"))
    staging = ("--stage-dir", stage, "--stage-gb", most_bytes / 1e9)
    call = words(made, out, "--slides-root", slides, "--retry-failures", *staging, plan="small.h5")
    ready = has_new_shards(out, 6)
    with watching(stage) as seen:
        launcher = start_torchrun(*call, launcher=("--standalone", "--max-restarts", 2))
        kill_worker(launcher, 1, ready)
        code, said, err = ended(launcher)
    assert code == 0, said + err
    assert "exitcode: -9" in err
    assert array_files(out) == array_files(one)
    assert not (out / "failures.csv").exists()
    assert (out / "changed-slides.json").read_bytes() == (one / "changed-slides.json").read_bytes()
    assert 0 < max(seen) <= most_bytes
    assert list(stage.iterdir()) == []
    assert leftovers(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("node", [0, 1])
def test_rounds_of_views_on_two_nodes(made: Path, small: Plan, tmp_path: Path, node: int) -> None:
    """One process is killed amid a round, the leader or its helper; the other one, whom nobody starts again, goes on to
    the next round with its successor.
    """
    out, port, launchers = tmp_path / "s", free_port(), []
    one = alone(made, small, tmp_path / "one", views=3, views_per_epoch="fresh")
    call = words(made, out, "--views", 3, "--views-per-epoch", "fresh", plan="small.h5")
    for number in (0, 1):
        static = ["--node-rank", number, "--master-addr", "127.0.0.1", "--master-port", port]
        launcher = ["--nnodes", 2, "--max-restarts", 2, *static]
        launchers.append(start_torchrun(*call, processes=1, launcher=launcher))
    kill_worker(launchers[node], None, has_shards(out / "rounds" / "1", 3))
    ends = [ended(launcher) for launcher in launchers]
    assert [end[0] for end in ends] == [0, 0], ends
    assert array_files(out) == array_files(one)
    for view in ("1", "2"):
        assert array_files(out / "rounds" / view) == array_files(one / "rounds" / view) != {}
    assert leftovers(tmp_path) == []
