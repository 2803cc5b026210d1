"""`--patch-qc` killed, continued, and done by several processes: the same bytes, though each process measures the
references of slides for itself.
"""

from pathlib import Path

import pytest
from support.commands import leftovers, run_g2l, stop_g2l
from support.extraction import TEACHER, array_files, extract, plan_cohort, write_teacher
from support.launched import ended, start_torchrun
from support.planted import planted_slide

from pipeline.cohort.plan_hdf5 import write_plan
from pipeline.store.store import Store

SHARD_ROWS = 4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan, a teacher and the store `one` of a run that nothing disturbed; shared, not changed."""
    folder = tmp_path_factory.mktemp("made")
    lines = ["slide_id,path,case_id"]
    for seed in range(3):
        planted_slide(folder / f"s{seed}.svs", seed=seed)
        lines.append(f"s{seed},s{seed}.svs,c{seed}")
    (folder / "m.csv").write_text("\n".join(lines) + "\n")
    plan = plan_cohort(folder / "m.csv", patches_per_slide=1000)
    write_plan(plan, folder / "plan.h5")
    write_teacher(folder / "t.safetensors")
    options = {"rows_per_shard": SHARD_ROWS, "batch_size": 2, "patch_qc": True, "workers": 1}
    extract(plan, folder / "one", folder / "t.safetensors", **options)
    return folder


def words(made: Path, out: Path) -> list[object]:
    options = ["--teacher", TEACHER, "--weights", made / "t.safetensors", "--device", "cpu", "--batch-size", 2]
    return ["extract-teacher", made / "plan.h5", "--out", out, *options, "--rows-per-shard", SHARD_ROWS, "--patch-qc"]


def assert_same(out: Path, made: Path) -> None:
    assert array_files(out) == array_files(made / "one")
    assert (out / "dropped.csv").read_bytes() == (made / "one" / "dropped.csv").read_bytes()
    assert Store(out).first.ledger.dropped() == Store(made / "one").first.ledger.dropped() != []


@pytest.mark.slow
def test_a_killed_run_is_continued_to_the_same_bytes(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    # within a slide, whose reference is measured again
    stop_g2l(*words(made, out), out=out, ready=lambda: len(list((out / "shards").glob("*.json"))) >= 3)
    assert run_g2l(*words(made, out)).returncode == 0
    assert_same(out, made)
    assert leftovers(tmp_path) == []


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(made: Path, tmp_path: Path) -> None:
    launcher = start_torchrun(*words(made, tmp_path / "s"), launcher=("--standalone",))
    code, said, errors = ended(launcher)
    assert code == 0, said + errors
    assert_same(tmp_path / "s", made)
