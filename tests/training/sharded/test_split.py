"""A student that is split over two processes: loss, gradients, statistics and updated weights are those of a whole one,
and each process holds half.
"""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.processes import finish_processes, start_processes
from support.sharded import WIDTHS, build_distillation
from support.stores import make_patches, plain_vit, student_folder
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pipeline.base import distributed
from pipeline.base.distributed import GradientBuckets
from pipeline.base.errors import ConfigError
from pipeline.base.loader import Batch
from pipeline.distillation import build_loss
from pipeline.training.optim import build_optimizer
from pipeline.training.sharded.split import blocks_of, is_split, local, policy_of, require_shardable, take_part
from pipeline.training.sharded.update import ShardedAdamW
from pipeline.training.step.train_step import HowToStep, train_step

ROWS = 16
CASES = {
    "cnn": ("float32", None),
    "vit": ("float32", None),
    "vit in parts": ("float32", 3),
    "vit bf16": ("bfloat16", None),
}
"""Arithmetic, and rows of a part, by case."""
TOLERANCES = {"cnn": 5e-5, "vit": 1e-5, "vit in parts": 1e-5, "vit bf16": 2e-2}
"""Differences as a share of the largest value. That of the network with batch normalisation is its own rounding
(tests/training/step/test_processes.py).
"""
CLIP = 0.5


def whole(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value


def train(folder: Path, case: str, *, sharded: bool) -> dict[str, Any]:
    """A step with a clipped gradient, of the rows of this process: loss, norm, gradients, and state after it."""
    precision, part = CASES[case]
    world = distributed.world_size()
    share = ROWS // world
    distillation = build_distillation(
        folder / case.split()[0], HowToStep(share, world, part, sharded=sharded), precision
    )
    distillation.train()
    mine = slice(distributed.rank() * share, (distributed.rank() + 1) * share)
    pixels = torch.from_numpy(make_patches(ROWS, 32))
    teachers = torch.randn(ROWS, sum(WIDTHS), generator=torch.Generator().manual_seed(0))
    teachers[: ROWS // 2] += 2  # the halves differ: local statistics would show
    batch = Batch(range(share), pixels[mine], list(teachers[mine].numpy()))
    adamw = ShardedAdamW if sharded else torch.optim.AdamW
    optimizer = build_optimizer(distillation.modules(), 0.0, 0.1, adamw)
    buckets = GradientBuckets([p for p in distillation.parameters() if not is_split(p)])
    loss_of = build_loss("log-sum", 4.0)
    loss, norm = train_step(distillation, batch, loss_of, optimizer, CLIP, None, buckets)
    parameters = distillation.parameters()
    gradients = [whole(p.grad) for p in parameters if p.grad is not None]
    result = {"loss": loss, "norm": norm, "gradients": gradients}
    distillation.train(False)
    with torch.inference_mode():  # as a validation
        result["embedded"] = distillation.embed(pixels)
    for group in optimizer.param_groups:
        group["lr"] = 1e-3
    distillation.train()
    train_step(distillation, batch, loss_of, optimizer, CLIP, None, buckets)
    result["state"] = {k: whole(v) for values in distillation.state().values() for k, v in values.items()}
    student = list(distillation.student.module.parameters())
    result["numbers"] = {
        "parameters": sum(local(p).numel() for p in student),
        "gradients": sum(local(p.grad).numel() for p in student if p.grad is not None),
        "moments": sum(local(optimizer.state[p]["exp_avg"]).numel() for p in student),
    }
    return result


def main(folder: Path) -> None:
    """In a process of two."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    distributed.join_group(torch.device("cpu"))
    results = {case: train(folder, case, sharded=True) for case in CASES}
    torch.save(results, folder / f"rank{distributed.rank()}.pt")
    distributed.wait_for_all()
    distributed.leave_group()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The steps of one process with the whole student, then those of each of two."""
    folder = tmp_path_factory.mktemp("split")
    student_folder(folder / "cnn", "test_efficientnet")
    plain_vit(folder / "vit")
    finish_processes(start_processes(2, [__file__, folder]))
    parts = [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]
    return [{case: train(folder, case, sharded=False) for case in CASES}, *parts]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_step_is_that_of_a_whole_student(trained: list[dict[str, Any]], case: str) -> None:
    expected, tolerance = trained[0][case], TOLERANCES[case]
    assert float(expected["norm"]) > CLIP
    largest = max(float(gradient.abs().max()) for gradient in expected["gradients"])
    for process in trained[1:]:
        step = process[case]
        assert float(step["loss"]) == pytest.approx(float(expected["loss"]), rel=max(1e-6, tolerance / 10))
        assert float(step["norm"]) == pytest.approx(float(expected["norm"]), rel=tolerance)
        for a, b in zip(step["gradients"], expected["gradients"], strict=True):
            assert float((a - b).abs().max()) < tolerance * largest
        scale = float(expected["embedded"].abs().max())
        assert float((step["embedded"] - expected["embedded"]).abs().max()) < tolerance * scale


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if CASES[case][0] == "float32"])
def test_weights_after_an_update_are_those_of_a_whole_student(trained: list[dict[str, Any]], case: str) -> None:
    """Adam divides by the gradient: where that is rounding, so is the direction, and each step is 1e-3 at most."""
    expected = trained[0][case]["state"]
    for process in trained[1:]:
        state = process[case]["state"]
        assert state.keys() == expected.keys()
        differences = torch.cat([(state[name] - value).abs().float().flatten() for name, value in expected.items()])
        assert float(differences.median()) < 1e-6
        assert float((differences > 1e-4).float().mean()) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("what", ["parameters", "gradients", "moments"])
def test_each_process_holds_half(trained: list[dict[str, Any]], what: str) -> None:
    """But for parameters whose first dimension is odd."""
    for case in CASES:
        of_all, *of_each = (process[case]["numbers"][what] for process in trained)
        assert sum(of_each) == of_all
        assert max(of_each) < 0.65 * of_all


@pytest.mark.slow
def test_all_processes_have_the_same_bits(trained: list[dict[str, Any]]) -> None:
    _, first, second = trained
    for case in CASES:
        assert all(torch.equal(second[case]["state"][name], value) for name, value in first[case]["state"].items())


def test_blocks_are_the_members_of_the_lists_at_the_top() -> None:
    model = nn.Module()
    model.stem, model.norm_pre = nn.Linear(2, 2), nn.Identity()
    model.blocks = nn.Sequential(nn.Linear(2, 2), nn.Identity(), nn.Linear(2, 2))
    assert blocks_of(model) == [model.blocks[0], model.blocks[2]]


def test_without_lists_they_are_the_modules_at_the_top() -> None:
    model = nn.Module()
    model.stem, model.between, model.head = nn.Linear(2, 2), nn.Identity(), nn.Linear(2, 2)
    assert blocks_of(model) == [model.stem, model.head]


def test_on_a_gpu_bfloat16_gathers_in_it_and_sums_in_float32() -> None:
    cuda, linear = torch.device("cuda"), nn.Linear(2, 2)
    policy = policy_of(linear, cuda, "bfloat16")
    assert (policy.param_dtype, policy.reduce_dtype) == (torch.bfloat16, torch.float32)
    assert policy_of(linear, cuda, "float32").param_dtype is None
    assert policy_of(linear, torch.device("cpu"), "bfloat16").param_dtype is None
    assert policy_of(nn.Sequential(nn.BatchNorm2d(2)), cuda, "bfloat16").param_dtype is None


def test_a_whole_tensor_fills_a_whole_one() -> None:
    into = torch.empty(3)
    assert take_part(torch.arange(3.0), into) is into
    assert into.tolist() == [0, 1, 2]


def test_what_cannot_be_split_is_refused() -> None:
    require_shardable("vit", torch.device("cpu"), compiled=False)
    with pytest.raises(ConfigError, match=r"--compile: vit is split .*Leave out --compile or --shard-student"):
        require_shardable("vit", torch.device("cpu"), compiled=True)
    with pytest.raises(ConfigError, match=r"--shard-student: .* not on mps"):
        require_shardable("vit", torch.device("mps"), compiled=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
