"""Cost against closed formulas and counted bytes, and ratios that a drifting machine does not move."""

import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.encoders.build import build_encoder
from pipeline.evaluate.cost import measure as cost

CPU = torch.device("cpu")


class Convolution(nn.Module):
    """One convolution without padding over the patch as it is."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, kernel, bias=False)

    def forward(self, patches: Tensor) -> Tensor:
        return torch.as_tensor(self.conv(patches.permute(0, 3, 1, 2).float()).mean((2, 3)))


class Failing(nn.Module):
    """A model that cannot run batches of more than `largest`."""

    def __init__(self, largest: int, message: str = "DefaultCPUAllocator: can't allocate memory") -> None:
        super().__init__()
        self.largest, self.message = largest, message

    def forward(self, patches: Tensor) -> Tensor:
        if len(patches) > self.largest:
            raise RuntimeError(self.message)
        return patches.float().mean((1, 2))


def test_parameters_that_are_used_twice_count_once() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = module[0].weight
    assert cost.num_params(module) == 16 + 4 + 4


def test_flops_of_a_convolution_are_twice_its_multiply_adds() -> None:
    kernel, channels, side = 5, 7, 20
    out = side - kernel + 1
    assert cost.flops_per_patch(Convolution(channels, kernel), side) == 2 * kernel * kernel * 3 * channels * out * out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "width", "depth"), [("vit_tiny_patch16_224", 192, 12), ("vit_small_patch32_224", 384, 12)]
)
def test_flops_of_a_transformer_are_those_of_its_matrices_attention_included(name: str, width: int, depth: int) -> None:
    module = build_encoder(name, "scratch", 224).module
    patch = int(name.split("patch")[1].split("_")[0])
    squares = (224 // patch) ** 2
    tokens = squares + 1
    embed = 2 * squares * width * 3 * patch**2
    attention = 2 * 2 * tokens * tokens * width
    matrices = 2 * tokens * width * (3 * width + width + 4 * width + 4 * width)
    assert cost.flops_per_patch(module, 224) == embed + depth * (matrices + attention)


def test_flops_do_not_depend_on_the_device_and_leave_the_model_as_it_was() -> None:
    module = build_encoder("test_resnet", "scratch", 64).module
    before = {name: t.clone() for name, t in module.state_dict().items()}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(torch.zeros((1, 64, 64, 3), dtype=torch.uint8))
    assert cost.flops_per_patch(module, 64) == counter.get_total_flops() > 0
    assert all(t.device.type == "cpu" and torch.equal(t, before[name]) for name, t in module.state_dict().items())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[tuple[nn.Module, int, int]]:
    """A machine that gets slower with each measurement; a pass takes one ms a patch for each parameter. Gives the
    calls: module, batch size and repeats."""
    calls: list[tuple[nn.Module, int, int]] = []

    def passes(module: nn.Module, patches: Tensor, precision: str, repeats: int) -> float:
        calls.append((module, len(patches), repeats))
        return 1e-3 * cost.num_params(module) * len(patches) * (1 + 0.002 * len(calls))

    monkeypatch.setattr(cost, "time_passes", passes)
    monkeypatch.setattr(cost, "peak_bytes", lambda module, patches, precision: 1)
    return calls


def sized(milliseconds: int) -> nn.Module:
    return nn.ParameterList([nn.Parameter(torch.zeros(milliseconds))])


def measure(
    models: dict[str, nn.Module], reference: str, batch_sizes: list[int], rounds: int = 6
) -> list[cost.CostRow]:
    return cost.measure_cost(models, dict.fromkeys(models, 4), reference, batch_sizes, ["float32"], rounds, CPU)


def test_drift_of_the_machine_cancels_in_the_ratios(clock: list[tuple[nn.Module, int, int]]) -> None:
    models = {"teacher": sized(80), "student": sized(20), "twin": sized(80)}
    rows = {row.label: row for row in measure(models, "teacher", [2], rounds=30)}
    teacher, student, twin = (rows[label].times_faster for label in models)
    assert teacher is not None
    assert student is not None
    assert twin is not None
    assert (teacher.value, teacher.low, teacher.high) == (1.0, 1.0, 1.0)
    assert student.value == pytest.approx(4, rel=0.005)
    assert twin.value == pytest.approx(1, abs=0.005)
    assert twin.low < 1 < twin.high
    assert len(clock) == 3 + 3 * 30  # one for the repeats of each, then each once a round
    assert rows["student"].patches_per_second == pytest.approx(1000 / rows["student"].ms_per_patch)
    assert rows["student"].rounds == 30


def test_every_round_starts_with_the_next_model(clock: list[tuple[nn.Module, int, int]]) -> None:
    models = {name: sized(5) for name in "abc"}
    names = {id(module): name for name, module in models.items()}
    measure(models, "a", [1], rounds=4)
    assert "".join(names[id(module)] for module, _, _ in clock[3:]) == "abcbcacababc"


def test_a_short_pass_is_repeated_and_a_long_one_is_not(clock: list[tuple[nn.Module, int, int]]) -> None:
    measure({"short": sized(2), "long": sized(900)}, "long", [1], rounds=1)
    short, long = (repeats for _, _, repeats in clock[2:])
    assert short * 0.002 == pytest.approx(cost.LEAST_SECONDS["cpu"], rel=0.05)
    assert long == 1


def test_a_batch_that_would_take_too_long_is_not_run_and_says_so(clock: list[tuple[nn.Module, int, int]]) -> None:
    rows = measure({"giga": sized(5000), "small": sized(5)}, "giga", [1, 2, 64])
    by_cell = {(row.label, row.batch_size): row for row in rows}
    assert by_cell["giga", 2].ms_per_patch is not None
    left_out = by_cell["giga", 64]
    assert (left_out.ms_per_patch, left_out.times_faster, left_out.rounds) == (None, None, 0)
    assert "a pass would take about" in left_out.note
    assert by_cell["small", 64].ms_per_patch is not None
    assert by_cell["small", 64].times_faster is None  # the reference was not run in these rounds
    assert max(batch for module, batch, _ in clock if cost.num_params(module) == 5000) == 2


def test_rounds_end_when_their_time_is_up(
    clock: list[tuple[nn.Module, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "CELL_SECONDS", -1.0)
    assert [row.rounds for row in measure({"a": sized(1)}, "a", [1], rounds=9)] == [cost.LEAST_ROUNDS]


@pytest.mark.parametrize("message", ["can't allocate memory: you tried to allocate", "MPS backend out of memory"])
def test_out_of_memory_is_a_note_and_the_rest_goes_on(message: str) -> None:
    models: dict[str, nn.Module] = {"large": Failing(1, message), "small": Failing(99)}
    rows = {(row.label, row.batch_size): row for row in measure(models, "small", [1, 4], rounds=1)}
    assert rows["large", 1].ms_per_patch is not None
    assert rows["large", 4] == cost.CostRow("large", "float32", 4, note="out of memory")
    assert rows["small", 4].ms_per_patch is not None


def test_another_error_of_a_model_is_not_taken_for_memory() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        measure({"broken": Failing(0, "mat1 and mat2 shapes cannot be multiplied")}, "broken", [1], rounds=1)


def test_a_precision_that_the_device_has_not_is_a_note() -> None:
    models: dict[str, nn.Module] = {"a": Failing(9)}
    rows = cost.measure_cost(models, {"a": 4}, "a", [1], ["float16", "float32"], 1, CPU)
    assert [(row.precision, row.ms_per_patch is None, bool(row.note)) for row in rows] == [
        ("float16", True, True),
        ("float32", False, False),
    ]


def test_a_gpu_without_bfloat16_is_not_timed_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert cost.unable(torch.device("cuda"), "bfloat16") == "this GPU has no bfloat16"
    assert cost.unable(torch.device("cuda"), "float16") == cost.unable(CPU, "bfloat16") == ""


@pytest.mark.slow
def test_a_real_measurement_is_of_the_order_of_a_clock_around_it() -> None:
    class Sleeping(nn.Module):
        def __init__(self, wait: Callable[[], None]) -> None:
            super().__init__()
            self.wait = wait

        def forward(self, patches: Tensor) -> Tensor:
            self.wait()
            return patches.float().mean((1, 2))

    models: dict[str, nn.Module] = {
        "slow": Sleeping(lambda: time.sleep(0.08)),
        "fast": Sleeping(lambda: time.sleep(0.02)),
    }
    slow, fast = measure(models, "slow", [2], rounds=3)
    assert slow.ms_per_patch is not None
    assert 40 <= slow.ms_per_patch < 120
    assert fast.times_faster is not None
    assert 1.5 < fast.times_faster.value < 4.5
