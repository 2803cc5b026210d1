"""A finished stage that is called again: seen without torch, and only where the call and its inputs are the same."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.commands import call_g2l, child_environment
from support.extraction import TEACHER, plan_cohort, write_cohort, write_teacher
from support.places import ROOT
from support.stores import make_store, student_folder

from pipeline.cohort.plan_hdf5 import read_plan, write_plan
from pipeline.config.base import read_options
from pipeline.config.stages import ExtractConfig, TrainConfig
from pipeline.disk.locks import LOCK_SUFFIX
from pipeline.store.store import Store
from stages.finished import finished_extract, finished_training, unchanged

TRAINING = ("--weights", "scratch", "--epochs", 1, "--batch-size", 8, "--device", "cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plan, teacher, a store made by the command, and a run of it."""
    folder = tmp_path_factory.mktemp("finished")
    plan = plan_cohort(write_cohort(folder / "slides"))
    write_plan(plan, folder / "plan.h5")
    write_teacher(folder / "t.safetensors")
    student_folder(folder / "vit", "test_vit", 64, img_size=64, depth=2, embed_dim=32, num_heads=2)
    assert call_g2l(*extracting(folder))[0] == 0
    assert call_g2l(*training(folder))[0] == 0
    return folder


def extracting(root: Path, out: str = "store.zarr", weights: str = "t.safetensors") -> list[object]:
    return [
        "extract-teacher",
        root / "plan.h5",
        "--out",
        root / out,
        "--teacher",
        TEACHER,
        "--weights",
        root / weights,
        "--rows-per-shard",
        8,
        "--batch-size",
        4,
        "--device",
        "cpu",
    ]


def training(root: Path) -> list[object]:
    return [
        "train-student",
        root / "store.zarr",
        "--out",
        root / "run",
        "--student",
        f"local-dir:{root / 'vit'}",
        *TRAINING,
    ]


def without_torch(*arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process in which importing torch or timm is an error."""
    blocked = "import sys; sys.modules['torch'] = sys.modules['timm'] = None; from stages.cli import main; main()"
    command = [sys.executable, "-c", blocked, *map(str, arguments)]
    environment = child_environment() | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, cwd=folder)


@pytest.mark.slow
def test_a_finished_store_and_run_are_seen_without_torch(root: Path) -> None:
    for arguments in (extracting(root), training(root)):
        slow = call_g2l(*arguments)
        fast = without_torch(*arguments)
        assert (fast.returncode, fast.stdout) == (0, slow[1]), fast.stderr
        assert "nothing was left to do" in fast.stdout


def locks_of(out: Path) -> list[Path]:
    return [out.with_name(out.name + LOCK_SUFFIX), out / LOCK_SUFFIX]


def clears_locks(command: list[object], out: Path) -> None:
    """Where a process was killed after its last file, before it let go of its lock."""
    for lock in locks_of(out):
        lock.write_text("")
    code, said, errors = call_g2l(*command)
    assert code == 0, errors
    assert "nothing was left to do" in said
    assert not any(lock.exists() for lock in locks_of(out))


@pytest.mark.slow
def test_the_lock_of_a_killed_process_is_cleared_away_also_where_all_is_done(root: Path) -> None:
    clears_locks(extracting(root), root / "store.zarr")
    clears_locks(training(root), root / "run")


@pytest.mark.slow
def test_paths_are_recorded_absolute_and_known_from_other_folders(root: Path) -> None:
    relative = ["extract-teacher", "plan.h5", "--out", "store.zarr", *map(str, extracting(root)[4:])]
    fast = without_torch(*relative, folder=root)
    assert fast.returncode == 0, fast.stderr
    record = read_options(root / "store.zarr" / "config.toml", "extract-teacher")
    assert all(Path(record[name]).is_absolute() for name in ("plan", "out", "weights"))
    record = read_options(root / "run" / "config.toml", "train-student")
    assert all(Path(record[name]).is_absolute() for name in ("store", "out"))


def config_of(root: Path, **more: object) -> ExtractConfig:
    values = {
        "teacher": TEACHER,
        "weights": root / "t.safetensors",
        "rows_per_shard": 8,
        "batch_size": 4,
        "device": "cpu",
    }
    return ExtractConfig.build(values | more)


def test_what_differs_goes_to_the_stage_itself(root: Path, tmp_path: Path) -> None:
    plan, store = read_plan(root / "plan.h5"), root / "store.zarr"

    def fast(**more: object) -> object:
        return finished_extract(plan, root / "plan.h5", store, config_of(root, **more))

    assert fast()
    assert fast(workers=3)
    for more in (
        {"dtype": "float32"},
        {"views": 2},
        {"teacher": "test_vit"},
        {"retry_failures": True},
        {"batch_size": 5},
    ):
        assert fast(**more) is None, more
    other = plan_cohort(root / "slides" / "manifest.csv", seed=3)
    assert finished_extract(other, root / "plan.h5", store, config_of(root)) is None
    half = Path(shutil.copytree(store, tmp_path / "half.zarr"))
    assert finished_extract(plan, root / "plan.h5", half, config_of(root)) is None  # its record is of another place
    code, _, said = call_g2l(*extracting(root)[:-6], "--rows-per-shard", 16, "--batch-size", 4, "--device", "cpu")
    assert (code, "settings.rows_per_shard: 8 -> 16" in said) == (1, True)


def test_an_unfinished_store_goes_on(root: Path) -> None:
    plan, store = read_plan(root / "plan.h5"), Store(root / "store.zarr")
    path = store.first.ledger.path(0)
    kept = path.read_bytes()
    path.unlink()
    assert finished_extract(plan, root / "plan.h5", store.folder, config_of(root)) is None
    path.write_bytes(kept)


def test_a_store_that_lacks_files_is_not_done(root: Path) -> None:
    """Such as half a copy, with the whole ledger: the stage names them."""
    store = Store(root / "store.zarr")
    path = store.first.shard_path("embedding", 0)
    kept = path.read_bytes()
    path.unlink()
    assert finished_extract(read_plan(root / "plan.h5"), root / "plan.h5", store.folder, config_of(root)) is None
    code, _, said = call_g2l(*extracting(root))
    path.write_bytes(kept)
    assert (code, "1 file that the ledger names (embedding/c/0/0). Was the store copied only in" in said) == (1, True)


def test_weights_that_have_changed_are_looked_at(root: Path) -> None:
    """Also where they were put in place with their old times, as `cp -p` does."""
    plan, weights = read_plan(root / "plan.h5"), root / "t.safetensors"
    kept, times = weights.read_bytes(), weights.stat()
    write_teacher(root / "new.safetensors", seed=1)
    os.utime(root / "new.safetensors", ns=(times.st_atime_ns, times.st_mtime_ns))
    os.replace(root / "new.safetensors", weights)
    assert finished_extract(plan, root / "plan.h5", root / "store.zarr", config_of(root)) is None
    code, _, said = call_g2l(*extracting(root))
    assert (code, "teacher.weights_sha256" in said) == (1, True)
    weights.write_bytes(kept)
    assert call_g2l(*extracting(root))[0] == 0  # the stage looks, and records the call anew
    assert finished_extract(plan, root / "plan.h5", root / "store.zarr", config_of(root))


def test_a_record_of_a_time_to_come_says_nothing_of_its_inputs(root: Path) -> None:
    """The clock was wrong when it was written: other weights were passed over without a word until that time came."""
    plan, weights, record = read_plan(root / "plan.h5"), root / "t.safetensors", root / "store.zarr" / "config.toml"
    kept = weights.read_bytes()
    os.utime(record, (4e9, 4e9))
    write_teacher(weights, seed=1)
    assert finished_extract(plan, root / "plan.h5", root / "store.zarr", config_of(root)) is None
    code, _, said = call_g2l(*extracting(root))
    assert (code, "teacher.weights_sha256" in said) == (1, True)
    weights.write_bytes(kept)
    assert call_g2l(*extracting(root))[0] == 0
    time.sleep(0.02)
    assert finished_extract(plan, root / "plan.h5", root / "store.zarr", config_of(root))  # its time is right now


def test_a_run_with_another_option_store_or_export_goes_to_the_stage(root: Path, tmp_path: Path) -> None:
    record = read_options(root / "run" / "config.toml", "train-student")
    options = {name: value for name, value in record.items() if name not in ("store", "out")}
    store, run = root / "store.zarr", root / "run"

    def fast(store: Path = store, **more: object) -> object:
        return finished_training(Store(store), run, TrainConfig.build(options | more))

    assert fast()
    assert fast(checkpoint_every=7)
    for more in ({"lr": 1.0}, {"epochs": 2}, {"seed": 1}, {"weights": "pretrained"}, {"keep": "best"}):
        assert (fast(**more) is None) or more == {"keep": "best"}, more
    assert fast(make_store(tmp_path / "other.zarr").folder) is None
    student = shutil.move(run / "student", tmp_path / "student")
    assert fast() is None
    shutil.move(student, run / "student")
    assert fast()


def test_a_file_is_unchanged_if_it_is_older_than_the_record(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "a").write_text("1")
    time.sleep(0.02)
    record = tmp_path / "record"
    record.write_text("")
    assert unchanged(record, tmp_path / "in", None, "pretrained", "scratch")
    assert not unchanged(record, tmp_path / "gone")
    time.sleep(0.02)
    (tmp_path / "in" / "deep" / "b").write_text("2")
    assert not unchanged(record, tmp_path / "in")


@pytest.mark.slow
def test_a_finished_import_is_seen_without_torch(root: Path, tmp_path: Path) -> None:
    model, manifest = f"{TEACHER}@{root / 't.safetensors'}", root / "slides" / "manifest.csv"
    small = ("--patch-px", 64, "--mpp", 0.5, "--min-tissue", 0, "--device", "cpu")
    features = ("embed", model, manifest, "--out", tmp_path / "features", "--layout", "trident", *small)
    assert call_g2l(*features)[0] == 0
    command = [
        "import-features",
        tmp_path / "features",
        "--slides-root",
        root / "slides",
        "--manifest",
        manifest,
        "--teacher",
        TEACHER,
        "--weights",
        root / "t.safetensors",
        "--out",
        tmp_path / "imported.zarr",
        "--device",
        "cpu",
    ]
    code, _, said = call_g2l(*command)
    assert code == 0, said
    slow, fast = call_g2l(*command), without_torch(*command)
    assert (fast.returncode, fast.stdout) == (0, slow[1]), fast.stderr
    assert "nothing was left to do" in fast.stdout


@pytest.mark.slow
def test_a_finished_folder_of_embeddings_is_seen_without_torch(root: Path) -> None:
    command = [
        "embed",
        f"{TEACHER}@{root / 't.safetensors'}",
        root / "slides" / "manifest.csv",
        "--slides-root",
        root / "slides",
        "--out",
        root / "embedded",
        "--layout",
        "trident",
        "--device",
        "cpu",
        "--patch-px",
        64,
        "--mpp",
        0.5,
        "--min-tissue",
        0,
    ]
    code, first, said = call_g2l(*command)
    assert code == 0, said
    fast = without_torch(*command)
    assert fast.returncode == 0, fast.stderr
    assert "nothing was left to do" in fast.stdout
    assert first.splitlines()[0] == fast.stdout.splitlines()[0]
    clears_locks(command, root / "embedded")
    assert without_torch(*command, "--dtype", "float16").returncode != 0  # the command itself, which needs torch, looks
    lost = next((root / "embedded").rglob("features_*/s1.h5"))
    kept = lost.read_bytes()
    lost.unlink()
    assert without_torch(*command).returncode != 0
    lost.write_bytes(kept)
    (root / "slides" / "s0.svs").touch()
    assert without_torch(*command).returncode != 0


def test_links_that_lead_back_are_walked_once(tmp_path: Path) -> None:
    """Two links to the folder itself are 2**40 ways through it."""
    folder = tmp_path / "slides"
    folder.mkdir()
    (folder / "a.svs").touch()
    for name in ("x", "y"):
        (folder / name).symlink_to(".")
    record = tmp_path / "record"
    time.sleep(0.02)
    record.touch()
    assert unchanged(record, folder)
