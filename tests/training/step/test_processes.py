"""One step in 1, 2 and 4 processes: loss, gradients and statistics are those of one process, with a student's own batch
normalisation, several teachers, buckets of gradients, and parts.
"""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.processes import finish_processes, start_processes
from support.stores import make_patches, plain_vit, student_folder
from torch import Tensor

from pipeline.base import distributed
from pipeline.base.distributed import GradientBuckets
from pipeline.base.loader import Batch
from pipeline.config.losses import LOSSES
from pipeline.config.model_names import SCRATCH
from pipeline.distillation import Distillation, Head, build_loss, build_projectors
from pipeline.encoders.build import build_encoder
from pipeline.training.step.train_step import HowToStep, train_step

ROWS, WIDTHS = 16, (12, 5)
CASES = {"cnn": None, "vit": None, "vit in parts": 3}
"""Rows of a part by case."""


def one_step(folder: Path, case: str, loss: str) -> dict[str, Tensor]:
    """A step that changes no weight, of the rows of this process: its loss, gradients and statistics."""
    student = build_encoder(f"local-dir:{folder / case.split()[0]}", SCRATCH, 32)
    projectors = build_projectors(student.spec.width, WIDTHS, 1)
    world = distributed.world_size()
    share = ROWS // world
    how = HowToStep(share, world, CASES[case])
    distillation = Distillation(
        student,
        (Head("a", projectors[0], 0.75), Head("b", projectors[1], 0.25)),
        torch.device("cpu"),
        "float32",
        how.training_pass(student),
        how.part,
    )
    distillation.train()
    mine = slice(distributed.rank() * share, (distributed.rank() + 1) * share)
    pixels = torch.from_numpy(make_patches(ROWS, 32))
    teachers = torch.randn(ROWS, sum(WIDTHS), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    teachers[: ROWS // 2] += 2  # the halves differ: local statistics would show
    batch = Batch(range(share), pixels[mine], list(teachers[mine].float().numpy()))
    optimizer = torch.optim.SGD(distillation.parameters(), lr=0.0)
    buckets = GradientBuckets(distillation.parameters(), bucket_bytes=20_000)
    value, norm = train_step(distillation, batch, build_loss(loss, 4.0), optimizer, 0.0, None, buckets)
    gradients = {f"gradient {i}": p.grad for i, p in enumerate(distillation.parameters()) if p.grad is not None}
    state = {f"{part} {name}": v for part, values in distillation.state().items() for name, v in values.items()}
    return {"loss": value, "norm": norm} | gradients | state


def all_steps(folder: Path) -> dict[str, Any]:
    """A step of each case, in single and in double precision."""
    results: dict[str, Any] = {}
    for double in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            if double:
                patch.setattr(Tensor, "float", Tensor.double)
                torch.set_default_dtype(torch.float64)
            for case in CASES:
                for loss in LOSSES if case == "cnn" else ("log-sum",):
                    results[f"{case}, {loss}, {'double' if double else 'single'}"] = one_step(folder, case, loss)
            torch.set_default_dtype(torch.float32)
    return results


def main(folder: Path) -> None:
    """In a process of several."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    distributed.join_group(torch.device("cpu"))
    torch.save(all_steps(folder), folder / f"rank{distributed.rank()}.pt")
    distributed.wait_for_all()
    distributed.leave_group()


@pytest.fixture(scope="module", params=[2, 4])
def stepped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The steps of one process, then those of each of several."""
    folder = tmp_path_factory.mktemp("processes")
    student_folder(folder / "cnn", "test_efficientnet")
    plain_vit(folder / "vit")
    finish_processes(start_processes(request.param, [__file__, folder]))
    parts = [torch.load(folder / f"rank{rank}.pt") for rank in range(request.param)]
    return [all_steps(folder), *parts]


def tolerance(case: str) -> float:
    """In float32 the rows of a batch in reverse order, in one process, change the gradient of this network with batch
    normalisation by 1.3e-5 already; what the sums of several processes add is as much. Batch normalisation is what
    rounds so (decision 0055). In double precision nothing hides an error.
    """
    if case.endswith("double"):
        return 1e-12
    return 5e-5 if case.startswith("cnn") else 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["single", "double"])
def test_several_processes_make_the_step_of_one(stepped: list[dict[str, Any]], kind: str) -> None:
    alone, *processes = stepped
    cases = [case for case in alone if case.endswith(kind)]
    assert len(cases) == len(LOSSES) + 2
    for case in cases:
        whole = alone[case]
        largest = max(float(v.abs().max()) for name, v in whole.items() if name.startswith("gradient"))
        assert largest > 1e-3
        for part in processes:
            assert part[case].keys() == whole.keys()
            assert float(part[case]["loss"]) == pytest.approx(float(whole["loss"]), rel=min(tolerance(case), 1e-6))
            for name, value in whole.items():
                scale = largest if name.startswith("gradient") else max(1.0, float(value.abs().max()))
                difference = float((part[case][name] - value).abs().max())
                assert difference < tolerance(case) * scale, (case, name, difference / scale)


@pytest.mark.slow
def test_all_processes_have_the_same_bits(stepped: list[dict[str, Any]]) -> None:
    """So that their weights never part."""
    _, first, *others = stepped
    for case, values in first.items():
        for other in others:
            assert all(torch.equal(other[case][name], value) for name, value in values.items())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
