"""A store's further teacher and a run of two teachers, killed at ever later changes to the file system."""

import shutil
from pathlib import Path

import pytest
from support.commands import child_environment, leftovers
from support.extraction import FURTHER, TEACHER, extract, store_files, write_store_for_two
from support.processes import forked
from support.stores import run_files, student_folder, train_config

from pipeline.store.store import Store
from pipeline.student.folder import load_projector
from stages.export import export_student
from stages.train_student import train_student

KILLS = """
import signal, sys
from pathlib import Path
from support.extraction import extract
from support.killing import attempt
from support.training import plain_curves
from support.warm import import_all
from pipeline.config.stages import TrainConfig
from pipeline.store.store import Store
from stages import train_student as stage
import gc, torch
torch.set_num_threads(1)
stage.draw_curves = plain_curves
import_all()  # once, and not in each fork
gc.freeze()
root = Path(sys.argv[1])

def kill_through(work, step):
    kills, at = 0, 1
    while (code := attempt(work, at)) != 0:
        assert code == -signal.SIGKILL, code
        kills, at = kills + 1, at + step
    return kills

plan = Store(root / "s.zarr").plan
options = dict(teacher=sys.argv[2], views=int(sys.argv[3]))
kills = [kill_through(lambda: extract(plan, root / "s.zarr", root / "further.safetensors", **options), 3)]
config = TrainConfig.model_validate_json((root / "config.json").read_text())
config = TrainConfig(**config.model_dump(exclude={"augment"}))  # not asked for: by the store
kills.append(kill_through(lambda: stage.train_student(Store(root / "s.zarr"), root / "run", config), 5))
(root / "kills").write_text(" ".join(map(str, kills)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("views", [1, 4])
def test_killed_and_continued_equals_the_unbroken_one(tmp_path: Path, views: int) -> None:
    """Extraction of a further teacher, and training by two: killed again and again, ever later."""
    root = write_store_for_two(tmp_path / "root")
    plan = Store(root / "store.zarr").plan
    shutil.copy(root / "further.safetensors", tmp_path)
    extract(plan, tmp_path / "s.zarr", root / "first.safetensors", views=views, slides_root=root / "gone")
    shutil.copytree(tmp_path / "s.zarr", tmp_path / "unbroken.zarr")
    student = student_folder(tmp_path / "source", "test_efficientnet", 64, drop_path_rate=0.3, drop_rate=0.2)
    config = train_config(student, teacher=[FURTHER, TEACHER], batch_size=4, checkpoint_every=2)
    (tmp_path / "config.json").write_text(config.model_dump_json())
    done = forked(["-c", KILLS, tmp_path, FURTHER, views], child_environment())
    said, _ = done.communicate(timeout=300)
    assert done.returncode == 0, said[-2000:]
    assert min(map(int, (tmp_path / "kills").read_text().split())) >= 5
    extract(plan, tmp_path / "unbroken.zarr", tmp_path / "further.safetensors", teacher=FURTHER, views=views)
    found, expected = store_files(tmp_path / "s.zarr"), store_files(tmp_path / "unbroken.zarr")
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    assert (f"teachers/{FURTHER}/views/c/0/0/0" in found) == (views > 1)
    unbroken = train_student(Store(tmp_path / "unbroken.zarr"), tmp_path / "unbroken", config).run.folder
    assert run_files(tmp_path / "run") == run_files(unbroken)
    for name in ("projectors.json", f"projector/projector-{TEACHER}.safetensors"):
        assert (tmp_path / "run" / "student" / name).read_bytes() == (unbroken / "student" / name).read_bytes()
    export_student(unbroken, tmp_path / "student")
    assert load_projector(tmp_path / "student", TEACHER).linear.out_features == Store(tmp_path / "s.zarr").first.width
    assert leftovers(tmp_path) == []
    assert list(Store(tmp_path / "s.zarr").teachers) == [TEACHER, FURTHER]
