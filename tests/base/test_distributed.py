"""Two processes, one batch: loss, gradients, statistics and a whole training equal those of one process."""

import json
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from support.commands import child_environment
from support.processes import finish_processes, forked, free_port, start_processes
from support.stores import flags, make_store, plain_vit, train_config

from pipeline.base import distributed
from pipeline.base.distributed import fill_buckets
from pipeline.base.draws import RUN_VERSION
from pipeline.base.errors import EXIT_ERROR, CheckpointError, ConfigError
from pipeline.base.launched.group import GroupError
from pipeline.config.model_names import SCRATCH
from pipeline.config.stages import TrainConfig
from pipeline.distillation import build_loss
from pipeline.encoders.build import build_encoder
from pipeline.projector import Projector
from pipeline.store.store import Store
from pipeline.training.checkpoint import load_last_checkpoint
from pipeline.training.run_folder import RunFolder
from stages.train_student import train_student

LOSSES = {"log-sum": 4.0, "log-sum 2": 2.0, "mse": 4.0, "cosine": 4.0, "l1": 4.0, "smooth-l1": 4.0}
ROWS, STUDENT, TEACHER = 12, 5, 7

WORKER = """
import os, sys
from pathlib import Path
import torch
from pipeline.base import distributed
from pipeline.base.console import say
from pipeline.base.distributed import fill_buckets
from pipeline.config.stages import TrainConfig
from pipeline.distillation import build_loss
from pipeline.projector import Projector
from pipeline.store.store import Store
from stages.train_student import train_student

folder, port, another_port, third_port = Path(sys.argv[1]), *sys.argv[2:]
torch.set_num_threads(1)
config = TrainConfig.model_validate_json((folder / "config.json").read_text())
train_student(Store(folder / "store.zarr"), folder / "run", config)
say("of both")
assert distributed.world_size() == 1, "the group was not left"
assert distributed.is_leader() == (os.environ["RANK"] == "0"), "who is the leader is known afterwards"

os.environ["MASTER_PORT"] = another_port
stop = {"early_stop": "total", "early_stop_window": 2, "early_stop_patience": 0}
train_student(Store(folder / "store.zarr"), folder / "stopped", config.model_copy(update=stop))

os.environ["MASTER_PORT"] = third_port
larger = {"batch_size": 1000, "epochs": 1}
train_student(Store(folder / "store.zarr"), folder / "larger", config.model_copy(update=larger))

os.environ["MASTER_PORT"] = port
distributed.join_group(torch.device("cpu"))
assert distributed.gather(os.environ["RANK"]) == ["0", "1"]
given, results = torch.load(folder / "given.pt"), {}
share = len(given["student"]) // 2
mine = slice(distributed.rank() * share, (distributed.rank() + 1) * share)
for name, alpha in given["losses"].items():
    projector = Projector(given["student"].shape[1], given["teacher"].shape[1]).train()
    projector.load_state_dict(given["projector"])
    student = given["student"][mine].clone().requires_grad_()
    loss = build_loss(name.split()[0], alpha)(*projector(student, given["teacher"][mine]))
    with distributed.GradientBuckets(list(projector.parameters())).averaged():
        loss.backward()
    results[name] = {
        "loss": loss.detach(), "student": student.grad / 2, "weight": projector.linear.weight.grad,
        "bias": projector.linear.bias.grad, "mean": projector.student_norm.mean, "var": projector.student_norm.var,
    }
rank = distributed.rank()
first, unused, second = (torch.nn.Parameter(torch.ones(3)) for _ in range(3))
buckets = distributed.GradientBuckets([first, unused, second], bucket_bytes=1)
for _ in range(3):
    first.grad = second.grad = None
    with buckets.averaged():
        with buckets.more_to_come():
            (first * (rank + 1)).sum().backward()
        (first * 10 + second * rank).sum().backward()
    assert first.grad.tolist() == [11.5] * 3, first.grad
    assert second.grad.tolist() == [0.5] * 3, second.grad
    assert unused.grad is None
with distributed.alone():
    assert distributed.world_size() == 1
    assert float(distributed.global_sum(torch.tensor(3.0))) == 3
assert float(distributed.leader_value(torch.tensor(5.0 + distributed.rank()))) == 5
assert float(distributed.global_max(torch.tensor(float(distributed.rank())))) == 1
torch.save(results, folder / f"rank{distributed.rank()}.pt")
distributed.wait_for_all()
distributed.leave_group()
"""


RESTARTED = """
import os, signal, sys, time
from pathlib import Path
import torch
from pipeline.base import distributed

died, rank = Path(sys.argv[1]), os.environ["RANK"]
replaced = died.exists()
if replaced and rank == "0":
    time.sleep(1)  # the other one could read what the dead one wrote
distributed.join_group(torch.device("cpu"))
assert distributed.gather(rank) == ["0", "1"]
if not replaced and rank == "0":
    died.touch()
    os.kill(os.getpid(), signal.SIGKILL)
distributed.gather(rank)
distributed.leave_group()
"""
"""The first process dies in its first start, while the other one waits for it."""


def given() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(ROWS, STUDENT, generator=generator)
    student[: ROWS // 2] += 2  # the halves differ: local statistics would show
    teacher = torch.randn(ROWS, TEACHER, generator=generator) * 3 - 1
    with torch.random.fork_rng():
        torch.manual_seed(1)
        projector = Projector(STUDENT, TEACHER)
    return {"student": student, "teacher": teacher, "projector": projector.state_dict(), "losses": LOSSES}


def config_for(folder: Path) -> TrainConfig:
    return train_config(f"local-dir:{folder / 'source'}", loss="log-sum", batch_size=8, epochs=2, weight_decay=0.1)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which two processes trained together and computed each loss together."""
    folder = tmp_path_factory.mktemp("two")
    make_store(folder / "store.zarr")
    plain_vit(folder / "source")
    (folder / "config.json").write_text(config_for(folder).model_dump_json())
    torch.save(given(), folder / "given.pt")
    said = finish_processes(start_processes(2, ["-c", WORKER, folder, *(free_port() for _ in range(3))]))
    (folder / "said.json").write_text(json.dumps(said))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_loss_gradients_and_statistics_are_those_of_the_whole_batch(two: Path, name: str) -> None:
    whole = given()
    projector = Projector(STUDENT, TEACHER).train()
    projector.load_state_dict(whole["projector"])
    student = whole["student"].clone().requires_grad_()
    loss = build_loss(name.split()[0], LOSSES[name])(*projector(student, whole["teacher"]))
    loss.backward()
    parts = [torch.load(two / f"rank{rank}.pt")[name] for rank in range(2)]
    for part in parts:
        torch.testing.assert_close(part["loss"], loss.detach())
        torch.testing.assert_close(part["weight"], projector.linear.weight.grad, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(part["bias"], projector.linear.bias.grad, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(part["mean"], projector.student_norm.mean)
        torch.testing.assert_close(part["var"], projector.student_norm.var)
    torch.testing.assert_close(torch.cat([p["student"] for p in parts]), student.grad, rtol=1e-4, atol=1e-6)
    assert student.grad is not None
    assert student.grad.abs().max() > 1e-3


@pytest.mark.slow
def test_two_processes_train_the_student_of_one(two: Path, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store.zarr")
    alone = train_student(store, tmp_path / "run", config_for(two))
    runs = [two / "run", tmp_path / "run"]
    lines = [RunFolder(run).metrics() for run in runs]
    assert [line["kind"] for line in lines[0]] == [line["kind"] for line in lines[1]]
    assert len(lines[0]) == alone.num_steps + 3
    for together, single in zip(*lines, strict=True):
        assert together["loss"] == pytest.approx(single["loss"], rel=1e-3)
    together, single = (safetensors.torch.load_file(run / "student" / "model.safetensors") for run in runs)
    for name, value in single.items():
        if value.ndim > 1:  # biases that the normalisation cancels have no gradient but noise, which Adam scales up
            torch.testing.assert_close(together[name], value, rtol=0, atol=2e-4)
    start = build_encoder(config_for(two).student, SCRATCH, 32).module.model.state_dict()
    moved = [name for name, value in single.items() if (value - start[name]).abs().max() > 2e-3]
    assert len(moved) > len(single) / 2


@pytest.mark.slow
def test_the_first_process_speaks_for_all(two: Path) -> None:
    """Nobody reads a note twice; afterwards each process speaks for itself again."""
    first, second = json.loads((two / "said.json").read_text())
    assert first.count("note: batches of ") == 1
    assert first.count("estimate: ") == 3
    assert first.count("of both") == 1
    assert second == "of both\n"


@pytest.mark.slow
def test_each_process_keeps_random_states_of_its_own(two: Path) -> None:
    checkpoint = load_last_checkpoint(two / "run" / "checkpoints")
    assert checkpoint is not None
    first, second = checkpoint["random"]
    assert not torch.equal(first["cpu"], second["cpu"])


@pytest.mark.slow
def test_another_number_of_processes_continues_the_run_unless_an_earlier_version_began_it(two: Path) -> None:
    """Then a student's own batch normalisation was over the rows of one process, so that their number counts. (That a
    killed run goes on is in kills/test_processes.py.)
    """
    run = RunFolder(Path(shutil.copytree(two / "run", two / "copy")))
    done = train_student(Store(two / "store.zarr"), run.folder, config_for(two))
    assert done.num_new_steps == 0
    identity = run.identity_path.read_text()
    assert f'"version": {RUN_VERSION}' in identity
    run.identity_path.write_text(identity.replace(f'"version": {RUN_VERSION}', '"version": 3'))
    with pytest.raises(CheckpointError, match="world_size: 2 -> 1"):
        train_student(Store(two / "store.zarr"), run.folder, config_for(two))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["one node", "two nodes, c10d", "two nodes, static"])
def test_who_is_started_again_meets_the_living_only(tmp_path: Path, form: str) -> None:
    """torch alone meets the dead one's address, which the launcher's store still has. The launchers are forks of a
    process that has torch loaded; what they start, and start again, is not.
    """
    launchers, port = [], free_port()
    for node in range(1 if form == "one node" else 2):
        nodes: dict[str, list[object]] = {
            "one node": ["--standalone"],
            "two nodes, c10d": ["--nnodes", 2, "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}"],
            "two nodes, static": ["--nnodes", 2, "--node-rank", node, "--master-addr", "127.0.0.1"],
        }
        more = {"two nodes, c10d": ["--rdzv-id", "job"], "two nodes, static": ["--master-port", port]}.get(form, [])
        launcher = [*nodes[form], *more, "--max-restarts", 3]
        launcher += ["--nproc-per-node", 2 if form == "one node" else 1, "--no-python"]
        program = [sys.executable, "-c", RESTARTED, tmp_path / "died"]
        launchers.append(forked(["-m", "torch.distributed.run", *launcher, *program], child_environment()))
    try:
        for launched in launchers:
            said, _ = launched.communicate(500)
            assert launched.returncode == 0, said
    finally:
        for launched in launchers:
            launched.send_signal(signal.SIGTERM)  # one that is still there ends what it started
    assert (tmp_path / "died").exists()


def test_buckets_hold_all_parameters_the_last_ones_first() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in (3, 1, 2, 4)]
    parameters.insert(2, torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)))
    order = list(reversed(parameters))
    for num_bytes, sizes in ((1, [1] * 5), (20, [2, 1, 2]), (10**9, [2, 1, 2])):
        buckets = fill_buckets(parameters, num_bytes)
        assert [len(bucket) for bucket in buckets] == sizes, num_bytes
        assert all(a is b for a, b in zip((p for bucket in buckets for p in bucket), order, strict=True))
    assert [len(bucket) for bucket in fill_buckets(parameters[:2] + parameters[3:], 17)] == [2, 2]
    assert fill_buckets([], 1) == []


def test_each_launched_process_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    gpu, cpu, second = (torch.device(name) for name in ("cuda", "cpu", "cuda:1"))
    assert distributed.own_device(gpu) == gpu  # not launched
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert [distributed.own_device(device) for device in (gpu, cpu, second)] == [second, cpu, second]
    assert chosen == [1]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match=r"process 2 of this machine \(LOCAL_RANK\) has no GPU: there are 2"):
        distributed.own_device(gpu)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mps", "--device mps: several processes train together on GPUs of CUDA or on CPUs only"),
        ("cuda:1", "--device cuda:1: the 2 processes of this machine would share one card"),
    ],
)
def test_a_device_that_processes_cannot_share_is_refused_before_they_meet(
    monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    """gloo has no MPS, which `auto` takes on a Mac, and NCCL no two processes on one card."""
    monkeypatch.setattr(distributed, "launcher_store", lambda: pytest.fail("they meet"))
    for variable in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(variable, "2")
    with pytest.raises(ConfigError, match=words):
        distributed.join_group(torch.device(name))


def test_a_named_card_is_each_machines_where_it_has_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    for name in ("cuda:1", "cuda", "cpu"):
        distributed.require_for_several(torch.device(name))


def test_one_process_is_the_identity() -> None:
    value = torch.tensor([1.0, 2.0], requires_grad=True)
    assert distributed.global_sum(value) is value
    assert distributed.gather("x") == ["x"]
    assert torch.equal(distributed.global_max(value), value)
    gradient = torch.nn.Parameter(value.detach().clone())
    gradient.grad = torch.ones(2)
    with distributed.GradientBuckets([gradient]).averaged():
        pass
    assert np.array_equal(gradient.grad.numpy(), np.ones(2))


@pytest.mark.slow
def test_two_processes_stop_early_after_one_and_the_same_step(two: Path) -> None:
    """Neither waits for the other; the step is that of a plain count over the losses."""
    run = RunFolder(two / "stopped")
    stop, losses = run.stop(), [line["loss"] for line in run.metrics() if line["kind"] == "step"]
    above = [step for step in range(2, len(losses)) if losses[step] > sum(losses[step - 2 : step]) / 2]
    assert stop is not None
    assert stop.step == len(losses) == above[0] + 1 < 12
    assert (run.student / "config.json").is_file()
    assert losses == [line["loss"] for line in RunFolder(two / "run").metrics() if line["kind"] == "step"][: stop.step]


@pytest.mark.slow
def test_where_the_first_process_fails_the_others_say_so_in_one_line(tmp_path: Path) -> None:
    config = train_config(plain_vit(tmp_path / "vit"), epochs=1)
    store, run = make_store(tmp_path / "store.zarr"), tmp_path / "run"
    train_student(store, run, config, estimate=False)
    another = flags(config.model_copy(update={"lr": 5e-4}))
    processes = start_processes(2, ["-m", "g2l", "train-student", store.folder, "--out", run, *another])
    first, second = (process.communicate(timeout=120)[0] for process in processes)
    assert [process.returncode for process in processes] == [EXIT_ERROR, EXIT_ERROR], (first, second)
    assert f"error: {run} was started from other inputs" in first
    (line,) = second.splitlines()
    assert line.startswith("error: another process of this run has ended, and says why")
    assert "Traceback" not in first + second


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer [::1]:80"),
        torch.distributed.DistBackendError("NCCL error: remote process exited\nLast error:"),
        torch.distributed.DistNetworkError("Connection reset by peer"),
    ],
)
def test_errors_of_calls_that_processes_make_together_are_told(error: RuntimeError) -> None:
    cause = re.escape(str(error).splitlines()[0])
    with (
        pytest.raises(GroupError, match=rf"another process .* says why; .* alone \({cause}\)"),
        distributed.lost_processes_told(),
    ):
        raise error


@pytest.mark.parametrize(
    "error", [RuntimeError("shape '[2, 3]' is invalid for input of size 5"), torch.OutOfMemoryError("out of memory")]
)
def test_errors_of_the_computation_stay_what_they_are(error: RuntimeError) -> None:
    with pytest.raises(RuntimeError) as caught, distributed.lost_processes_told():
        raise error
    assert caught.value is error
