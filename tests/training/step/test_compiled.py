"""A compiled student trains as an eager one, has the same state, and says in words where torch cannot compile."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from support.processes import finish_processes, forked, start_processes
from support.stores import flags, make_patches, make_store, run_files, student_folder, train_config

from pipeline.base.errors import CheckpointError
from pipeline.base.loader import Batch
from pipeline.config.model_names import SCRATCH
from pipeline.distillation import Distillation, Head, build_loss, build_projectors
from pipeline.encoders.build import build_encoder
from pipeline.store.store import Store
from pipeline.training.checkpoint import load_last_checkpoint
from pipeline.training.run_folder import RunFolder
from pipeline.training.step import compiled
from pipeline.training.step.train_step import train_step
from stages import train_student as stage
from stages.train_student import train_student

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread", "cache")]
SMALL = {"img_size": 32, "depth": 1, "embed_dim": 32, "num_heads": 2}
DROPPING = {**SMALL, "drop_path_rate": 0.3, "proj_drop_rate": 0.2}
ROWS = 8
"""Of a pass that is compiled, in one process and in each of two: of the same size, it is compiled once."""

NO_COMPILER = """
import sys
import torch
from pipeline.base.errors import ConfigError
from pipeline.training.step.compiled import require_compiler
try:
    require_compiler(torch.device("cpu"))
except ConfigError as error:
    sys.exit(str(error))
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled code lies in a folder that all processes of the tests share, and is made there by the process that needs
    it: torch would start others for it, each of which loads torch.
    """
    import torch._inductor.config  # seconds, which collecting the tests need not take

    folder = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        shared = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(shared / "compiled"))
        patch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
        patch.setattr(torch._inductor.config, "compile_threads", 1)
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("store") / "store.zarr")


def test_a_compiled_run_is_nearly_the_eager_one_and_has_its_names(store: Store, tmp_path: Path) -> None:
    student = student_folder(tmp_path / "s", "test_vit", **SMALL)
    for name, options in (("eager", {}), ("compiled", {"compile": True})):
        train_student(store, tmp_path / name, train_config(student, epochs=1, batch_size=ROWS, **options))
    eager, ours = (load_last_checkpoint(tmp_path / name / "checkpoints") for name in ("eager", "compiled"))
    assert eager is not None
    assert ours is not None
    assert list(ours["student"]) == list(eager["student"])
    exported = [
        safetensors.torch.load_file(tmp_path / name / "student" / "model.safetensors") for name in ("eager", "compiled")
    ]
    assert exported[0].keys() == exported[1].keys()
    losses = [[line["loss"] for line in RunFolder(tmp_path / name).metrics()] for name in ("eager", "compiled")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert losses[1] != losses[0]  # other digits: it was compiled
    with pytest.raises(CheckpointError, match=r"options\.compile: True -> False"):
        train_student(store, tmp_path / "compiled", train_config(student, epochs=1, batch_size=ROWS))


def test_a_compiled_run_in_parts_is_continued_to_the_same_bytes(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, whose random numbers the second pass must repeat. The last part is smaller. What is continued is
    what a kill after three steps would have left: the folder as it was then.
    """
    student = student_folder(tmp_path / "s", "test_vit", **DROPPING)
    config = train_config(student, epochs=1, compile=True, micro_batch=3, checkpoint_every=2)
    with monkeypatch.context() as patch:
        copy_after(patch, 3, tmp_path / "whole", tmp_path / "run")
        train_student(store, tmp_path / "whole", config)
    assert not (tmp_path / "run" / "student").exists()
    assert train_student(store, tmp_path / "run", config).num_new_steps == 4  # of 6, from the checkpoint of two
    assert run_files(tmp_path / "run") == run_files(tmp_path / "whole")


def copy_after(monkeypatch: pytest.MonkeyPatch, steps: int, run: Path, copy: Path) -> None:
    """Copy the folder of a run in front of step number `steps` + 1."""
    real, count = stage.train_step, [0]

    def counted(*arguments: Any) -> Any:
        count[0] += 1
        if count[0] == steps + 1:
            shutil.copytree(run, copy)
        return real(*arguments)

    monkeypatch.setattr(stage, "train_step", counted)


def test_two_processes_train_a_compiled_student(store: Store, tmp_path: Path) -> None:
    student = student_folder(tmp_path / "s", "test_vit", **SMALL)
    config = train_config(student, epochs=1, batch_size=2 * ROWS)
    train_student(store, tmp_path / "eager", config)
    compiled_config = config.model_copy(update={"compile": True})
    command = ["-m", "g2l", "train-student", store.folder, "--out", tmp_path / "run", *flags(compiled_config)]
    finish_processes(start_processes(2, command), timeout=500)
    losses = [[line["loss"] for line in RunFolder(tmp_path / name).metrics()] for name in ("eager", "run")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_both_passes_of_a_compiled_part_drop_the_same_units(tmp_path: Path) -> None:
    student = build_encoder(student_folder(tmp_path / "s", "test_vit", **DROPPING), SCRATCH, 32)
    projectors = build_projectors(student.spec.width, [5], 1)
    heads = (Head("a", projectors[0]),)
    distillation = Distillation(
        student, heads, torch.device("cpu"), "float32", compiled.compiled_pass(student.module), 3
    )
    distillation.train()
    seen: list[torch.Tensor] = []
    real = distillation.embed

    def noted(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(real(pixels))
        return seen[-1]

    distillation.embed = noted  # type: ignore[method-assign]
    pixels = torch.from_numpy(make_patches(6, 32))
    teachers = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).numpy()
    optimizer = torch.optim.SGD(distillation.parameters(), lr=0.0)
    train_step(distillation, Batch(range(6), pixels, list(teachers)), build_loss("log-sum", 4.0), optimizer, 0.0)
    first, second, first_again, second_again = (embedding.detach() for embedding in seen)
    assert torch.equal(first, first_again)
    assert torch.equal(second, second_again)
    assert not torch.equal(real(pixels[:3]).detach(), first)  # other numbers, other units


def test_without_a_compiler_the_error_says_what_to_do(tmp_path: Path) -> None:
    environment = {"CXX": str(tmp_path / "no-compiler"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    paths = {"PATH": str(tmp_path), "PYTHONPATH": ":".join(filter(None, sys.path))}
    done = forked(["-c", NO_COMPILER], paths | environment)  # which has looked for no compiler yet
    said, _ = done.communicate(timeout=300)
    assert done.returncode == 1, said
    last = said.strip().splitlines()[-1]
    assert "--compile: torch cannot compile this on cpu here (" in last
    assert last.endswith(compiled.ADVICE)
