"""Stage two as a whole: what it writes, that it learns, and how it meets damage, misuse and its own leftovers."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from support.commands import call_g2l, without_leftovers
from support.stores import WIDTH, dropping_cnn, dropping_vit, flags, make_store, plain_vit, run_files, train_config
from support.training import stop_after

from pipeline.base.errors import BusyError, CheckpointError, ConfigError, G2LError, StoreError
from pipeline.config.base import read_options
from pipeline.config.stages import TrainConfig
from pipeline.disk.locks import exclusive
from pipeline.distillation import Distillation, Head
from pipeline.encoders.build import build_encoder
from pipeline.projector import Projector
from pipeline.store.store import Store
from pipeline.student.folder import load_projector, save_tensors
from pipeline.training.checkpoint import load_last_checkpoint, save_checkpoint
from pipeline.training.held_out import FIGURES, MEANINGS
from pipeline.training.rows.order import epoch_order
from pipeline.training.rows.reading import StoredRows
from pipeline.training.run_folder import RunFolder
from pipeline.training.scoring import score_teachers
from stages import train_student as stage
from stages.inspect import inspect_path
from stages.reports.train import Trained, train_report
from stages.train_student import train_student

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("store") / "store.zarr", failed=(5,))


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A config whose student has batch norm, drop-path and dropout; 5 steps an epoch, checkpoints within it."""
    source = dropping_cnn(tmp_path_factory.mktemp("source") / "cnn")
    return train_config(source, epochs=3, batch_size=9, checkpoint_every=2, augment="flips+jitter")


@pytest.fixture(scope="module")
def reference(store: Store, cnn: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run that was never stopped."""
    return train_student(store, tmp_path_factory.mktemp("reference") / "run", cnn)


def test_what_a_run_leaves(reference: Trained, store: Store, cnn: TrainConfig) -> None:
    run = reference.run
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "checkpoints",
        "config.toml",
        "curves.png",
        "metrics.jsonl",
        "run.json",
        "statistics.json",
        "student",
        "tensorboard",
    ]
    lines = run.metrics()
    steps, vals = ([line for line in lines if line["kind"] == kind] for kind in ("step", "val"))
    assert [line["step"] for line in steps] == list(range(1, 16))
    assert [line["epoch"] for line in steps] == [0] * 5 + [1] * 5 + [2] * 5
    assert [(line["step"], line["epoch"]) for line in vals] == [(0, 0), (5, 1), (10, 2), (15, 3)]
    assert all(np.isfinite([line[name] for name in line if name != "kind"]).all() for line in lines)
    assert (reference.num_steps, reference.num_new_steps) == (15, 15)
    identity = run.read_identity()
    assert identity["store"] == store.first.content_hash()
    assert identity["options"]["precision"] == "float32"
    assert (
        TrainConfig(
            **{k: v for k, v in read_options(run.config_path, "train-student").items() if k not in ("store", "out")}
        )
        == cnn
    )
    assert run.curves_path.read_bytes().startswith(b"\x89PNG")
    without_leftovers(run.folder)


def test_the_student_is_the_last_checkpoints(reference: Trained) -> None:
    run = reference.run
    checkpoint = load_last_checkpoint(run.checkpoints)
    assert checkpoint is not None
    assert checkpoint["step"] == 15
    weights = safetensors.torch.load_file(run.student / "model.safetensors")
    assert weights.keys() == checkpoint["student"].keys()
    assert all(torch.equal(weights[name], value) for name, value in checkpoint["student"].items())
    projector = load_projector(run.student)
    assert all(torch.equal(projector.state_dict()[name], value) for name, value in checkpoint["projector"].items())
    assert int(projector.student_norm.num_batches) == 15


def test_the_cards_figures_are_the_metrics(reference: Trained) -> None:
    vals = [line for line in reference.run.metrics() if line["kind"] == "val"]
    card = (reference.run.student / "README.md").read_text()
    words = train_report(reference)
    shown = FIGURES.keys() - {"explained_variance"}
    assert shown | {"kind", "step", "epoch", "rows"} == vals[-1].keys()
    for name in shown:
        assert f"| {FIGURES[name]} | {vals[0][name]:.4f} | {vals[-1][name]:.4f} |" in card
        assert f"- {FIGURES[name]}: {MEANINGS[name]}." in card
        assert f"{vals[-1][name]:.4f}" in words
    best = min(vals[1:], key=lambda line: line["loss"])
    said = f"The held-out loss was smallest after epoch {best['epoch']} ({best['loss']:.4f}"
    assert said in card
    assert said in words
    assert said in inspect_path(reference.run.folder)
    assert "47 patches (slides: 3, cases: 3). Held out: 16 patches (slides: 1, cases: 1)" in card


def test_the_exported_figures_are_those_of_the_exported_student(reference: Trained, store: Store) -> None:
    """The last line of the metrics, computed once more from nothing but the export and the store."""
    from pipeline.training.similarity import fidelity

    student = build_encoder(f"local-dir:{reference.run.student}", "pretrained", store.patch_px).module
    projector = load_projector(reference.run.student)
    rows = store.first.ok_rows(1)
    with torch.inference_mode():
        z = student(torch.from_numpy(np.stack([store.read_pixels(int(row)) for row in rows])))
        teacher = torch.from_numpy(np.stack([store.first.read_embedding(int(row)) for row in rows]))
        figures = fidelity(z, projector.standardised(z), teacher, projector.teacher_norm.standardise(teacher))
    last = [line for line in reference.run.metrics() if line["kind"] == "val"][-1]
    assert figures.record() == pytest.approx({name: last[name] for name in figures.record()}, abs=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("alpha", [2.0, 4.0])
def test_the_first_loss_is_the_formula_with_that_alpha(store: Store, tmp_path: Path, alpha: float) -> None:
    """log sum |BN(W z_s + b) - BN(z_t)|^alpha of the first batch in float64, from the weights before the first step."""
    config = train_config(plain_vit(tmp_path / "vit"), alpha=alpha, epochs=1, augment="none", precision="float32")
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 0)
        with pytest.raises(KeyboardInterrupt):
            train_student(store, tmp_path / "run", config)
    start = load_last_checkpoint(tmp_path / "run" / "checkpoints")
    assert start is not None
    assert start["step"] == 0
    run = train_student(store, tmp_path / "run", config).run
    logged = next(line["loss"] for line in run.metrics() if (line["kind"], line["step"]) == ("step", 1))

    rows = epoch_order(store.first.ok_rows(0), config.seed, 0)[: config.batch_size].tolist()
    student = build_encoder(config.student, "scratch", store.patch_px).module.model
    student.load_state_dict(start["student"])
    pixels = torch.from_numpy(np.stack([store.read_pixels(row) for row in rows])).double() / 255
    pixels = (pixels - torch.tensor([0.6, 0.5, 0.55])) / torch.tensor([0.25, 0.2, 0.3])  # as plain_vit's config says
    with torch.no_grad():
        z = student.double().train()(pixels.permute(0, 3, 1, 2)).numpy()
    weight, bias = (start["projector"][f"linear.{name}"].double().numpy() for name in ("weight", "bias"))
    teacher = np.stack([store.first.read_embedding(row) for row in rows]).astype(np.float64)
    p, t = ((x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) for x in (z @ weight.T + bias, teacher))
    assert logged == pytest.approx(np.log((np.abs(p - t) ** alpha).sum()), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["log-sum", "mse", "cosine"])
def test_a_student_learns(tmp_path: Path, loss: str) -> None:
    store = make_store(tmp_path / "store.zarr", train=(64, 64), val=(32,), rows_per_shard=64)
    config = train_config(plain_vit(tmp_path / "vit"), loss=loss, epochs=8, batch_size=16, lr=3e-3, checkpoint_every=99)
    trained = train_student(store, tmp_path / "run", config)
    ((before, after),) = trained.held_out.values()
    assert after["cosine"] > before["cosine"] + 0.2
    assert after["retrieval_top1"] > before["retrieval_top1"]
    losses = [line["loss"] for line in trained.run.metrics() if line["kind"] == "step"]
    assert np.mean(losses[-8:]) < np.mean(losses[:8])


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_another_number_of_workers_gives_the_same_bytes(
    reference: Trained, store: Store, cnn: TrainConfig, tmp_path: Path
) -> None:
    for workers in (1, 5):
        train_student(store, tmp_path / str(workers), cnn.model_copy(update={"workers": workers}))
        files = run_files(tmp_path / str(workers))
        expected = run_files(reference.run.folder)
        card, expected_card = (f.pop("student/README.md").decode() for f in (files, expected))
        assert files == expected
        assert card == expected_card.replace('"workers": 2', f'"workers": {workers}')


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_rate_of_training_counts_training_alone(
    store: Store, short: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of the progress starts after the student was measured as it comes, which may take minutes."""
    shown = list[str]()
    validate, progress = stage.validate, stage.Progress

    def noted_validation(*arguments: Any, step: int, epoch: int) -> None:
        shown.append(f"measured at step {step}")
        validate(*arguments, step=step, epoch=epoch)

    def noted_progress(what: str, *arguments: Any, **options: Any) -> Any:
        shown.append(what)
        return progress(what, *arguments, **options)

    monkeypatch.setattr(stage, "validate", noted_validation)
    monkeypatch.setattr(stage, "Progress", noted_progress)
    train_student(store, tmp_path / "run", short)
    assert shown[:2] == ["measured at step 0", "training"]


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("steps", [0, 6, *(pytest.param(i, marks=pytest.mark.slow) for i in (1, 2, 4, 5, 11, 14))])
def test_a_stopped_run_continues_to_the_same_bytes(
    reference: Trained, store: Store, cnn: TrainConfig, tmp_path: Path, steps: int
) -> None:
    """Stopped before the first step, within an epoch, at and beside a checkpoint, at and beside an epoch's end."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, steps)
        with pytest.raises(KeyboardInterrupt):
            train_student(store, tmp_path / "run", cnn)
    torch.manual_seed(12345)  # whatever the process did before does not matter
    np.random.seed(1)  # noqa: NPY002
    trained = train_student(store, tmp_path / "run", cnn)
    assert 15 - steps <= trained.num_new_steps <= 15 - steps + 2
    assert run_files(tmp_path / "run") == run_files(reference.run.folder)


def test_a_finished_run_called_again_changes_nothing(reference: Trained, store: Store, cnn: TrainConfig) -> None:
    before = run_files(reference.run.folder)
    again = train_student(store, reference.run.folder, cnn)
    assert again.num_new_steps == 0
    assert again.held_out == reference.held_out
    assert "nothing was left to do" in train_report(again)
    assert run_files(reference.run.folder) == before
    without_leftovers(reference.run.folder)


def test_an_export_that_is_lost_is_made_again(
    reference: Trained, store: Store, cnn: TrainConfig, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(reference.run.folder, run)
    shutil.rmtree(run / "student")
    (run / "curves.png").unlink()
    train_student(store, run, cnn)
    assert run_files(run) == run_files(reference.run.folder)
    assert (run / "curves.png").exists()


def fail_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """Let the call of that number to os.replace, os.rename or os.fsync fail, and all after it; returns the count."""
    count = [0]
    for name in ("replace", "rename", "fsync"):

        def counted(*arguments: Any, real: Any = getattr(os, name)) -> Any:
            count[0] += 1
            if count[0] >= number:
                raise OSError(28, "No space left on device")
            return real(*arguments)

        monkeypatch.setattr(os, name, counted)
    return count


@pytest.fixture
def short(tmp_path: Path, undrawn: None) -> TrainConfig:
    """The same writes in fewer steps: 3 an epoch, two epochs, a checkpoint within each and one at its end."""
    source = dropping_vit(tmp_path / "vit")
    return train_config(source, epochs=2, batch_size=16, checkpoint_every=2, augment="flips+jitter")


def check_failing_disk(
    whole: dict[str, bytes], store: Store, config: TrainConfig, run: Path, numbers: list[int]
) -> None:
    """The disk fails again and again, each time at another write, before the run gets through."""
    for number in numbers:
        with pytest.MonkeyPatch.context() as patch:
            fail_at(patch, number)
            with pytest.raises(G2LError, match="No space left"):
                train_student(store, run, config, estimate=False)
    train_student(store, run, config, estimate=False)
    assert run_files(run) == whole, numbers
    without_leftovers(run)


def count_writes(store: Store, config: TrainConfig, run: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        count = fail_at(patch, 10**9)
        train_student(store, run, config, estimate=False)
    return count[0]


@pytest.mark.slow
def test_a_failing_disk_loses_nothing(store: Store, short: TrainConfig, tmp_path: Path) -> None:
    """At the start, within the first epoch, and several in a row."""
    count_writes(store, short, tmp_path / "whole")
    check_failing_disk(run_files(tmp_path / "whole"), store, short, tmp_path / "run", [1, 4, 19])


@pytest.mark.slow
def test_a_disk_that_fails_at_any_write_loses_nothing(store: Store, short: TrainConfig, tmp_path: Path) -> None:
    total = count_writes(store, short, tmp_path / "whole")
    assert total > 40
    for number in range(1, total + 1):
        check_failing_disk(run_files(tmp_path / "whole"), store, short, tmp_path / str(number) / "run", [number])


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_checkpoint_costs_time_only(
    reference: Trained, store: Store, cnn: TrainConfig, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 9)
        with pytest.raises(KeyboardInterrupt):
            train_student(store, run, cnn)
    last = max((run / "checkpoints").glob("*.pt"))
    assert last.name == "step-000000008.pt"
    data = bytearray(last.read_bytes())
    if damage == "cut":
        del data[len(data) * 2 // 3 :]
    else:
        data[len(data) // 3] ^= 0x10
    last.write_bytes(data)
    capsys.readouterr()
    trained = train_student(store, run, cnn)
    assert f"warning: {last}: damaged" in capsys.readouterr().err
    assert trained.num_new_steps == 15 - 6
    assert run_files(run) == run_files(reference.run.folder)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_damage_to_all_checkpoints_is_an_error(
    reference: Trained, store: Store, cnn: TrainConfig, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(reference.run.folder, run)
    for path in (run / "checkpoints").glob("*.pt"):
        os.truncate(path, 1000)
    with pytest.raises(CheckpointError, match=r"checkpoints: all checkpoints are damaged. Delete the folder"):
        train_student(store, run, cnn)
    shutil.rmtree(run / "checkpoints")  # as the message says
    train_student(store, run, cnn)
    assert run_files(run) == run_files(reference.run.folder)


def test_metrics_that_are_lost_are_an_error(reference: Trained, store: Store, cnn: TrainConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(reference.run.folder, run)
    os.truncate(run / "metrics.jsonl", 100)
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: missing or truncated"):
        train_student(store, run, cnn)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": 5e-4}, "lr"),
        ({"loss": "mse"}, "loss"),
        ({"alpha": 2.0}, "alpha"),
        ({"seed": 1}, "seed"),
        ({"epochs": 4}, "epochs"),
        ({"precision": "bfloat16"}, "precision"),
        ({"augment": "none"}, "augment"),
    ],
)
def test_another_configuration_is_refused(
    reference: Trained, store: Store, cnn: TrainConfig, changes: dict[str, Any], words: str
) -> None:
    before = run_files(reference.run.folder)
    with pytest.raises(CheckpointError, match=f"started from other inputs(.|\n)*{words}(.|\n)*another --out"):
        train_student(store, reference.run.folder, cnn.model_copy(update=changes))
    assert run_files(reference.run.folder) == before


def test_what_changes_no_byte_may_change(reference: Trained, store: Store, cnn: TrainConfig) -> None:
    """ "auto" is float32 on a CPU, so that both are one configuration."""
    changes = {"precision": "float32", "workers": 1, "checkpoint_every": 7}
    assert train_student(store, reference.run.folder, cnn.model_copy(update=changes)).num_new_steps == 0


def test_another_store_is_refused(reference: Trained, cnn: TrainConfig, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other.zarr", seed=1)
    with pytest.raises(CheckpointError, match=r"started from other inputs(.|\n)*plan: (.|\n)*store: "):
        train_student(other, reference.run.folder, cnn)


def test_an_unfinished_store_is_refused(cnn: TrainConfig, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store.zarr", shards=3)
    with pytest.raises(StoreError, match=r"is not finished: 1 of 4 shards are missing\. Run extract-teacher again"):
        train_student(store, tmp_path / "run", cnn)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("array", ["pixels", "embedding"])
def test_a_damaged_shard_is_named(cnn: TrainConfig, tmp_path: Path, array: str) -> None:
    store = make_store(tmp_path / "store.zarr")
    path = store.first.shard_path(array, 1)
    good = path.read_bytes()
    data = bytearray(good)
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError) as caught:
        train_student(Store(store.folder), tmp_path / "run", cnn)
    assert str(path) in str(caught.value)
    assert "damaged" in str(caught.value)
    path.write_bytes(good)  # mended: the same command continues
    assert train_student(Store(store.folder), tmp_path / "run", cnn).num_steps == 15


def test_a_store_without_train_rows_is_refused_and_claims_no_run(cnn: TrainConfig, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store.zarr", train=(), val=(8,), rows_per_shard=8)
    with pytest.raises(ConfigError, match=r"store\.zarr: 0 rows to train on, at least 2 are needed"):
        train_student(store, tmp_path / "run", cnn)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_no_held_out_rows_are_said_and_exported_all_the_same(
    cnn: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store(tmp_path / "store.zarr", train=(18,), val=(), rows_per_shard=18)
    trained = train_student(store, tmp_path / "run", cnn)
    assert "warning: no rows are held out" in capsys.readouterr().err
    assert trained.held_out == {}
    assert {line["kind"] for line in trained.run.metrics()} == {"step"}
    assert "No rows were held out" in (trained.run.student / "README.md").read_text()
    assert "held-out" not in train_report(trained)
    assert train_student(store, tmp_path / "run", cnn).num_new_steps == 0


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_finished_run_whose_checkpoints_are_gone_begins_again_and_loses_nothing_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without held-out rows no line is written before the first checkpoint."""
    store, config = make_store(tmp_path / "store.zarr", val=()), train_config(plain_vit(tmp_path / "vit"), epochs=1)
    trained = train_student(store, tmp_path / "run", config, estimate=False)
    before = run_files(trained.run.folder)
    shutil.rmtree(trained.run.checkpoints)
    with monkeypatch.context() as failing:
        failing.setattr(stage, "score_teachers", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train_student(store, tmp_path / "run", config, estimate=False)
    assert run_files(trained.run.folder) == before
    assert train_student(store, tmp_path / "run", config, estimate=False).num_new_steps == trained.num_steps > 0
    assert run_files(trained.run.folder) == before


@pytest.mark.parametrize(("loss", "difference"), [("log-sum", np.log(4)), ("mse", 0), ("cosine", 0)])
def test_fewer_held_out_rows_than_a_batch_have_the_loss_of_a_batch(
    store: Store, cnn: TrainConfig, loss: str, difference: float
) -> None:
    """The log-sum of 4 rows is smaller by log(16 / 4) than that of 16 such rows: the curves must be comparable."""
    student = build_encoder(cnn.student, "scratch", store.patch_px)
    distillation = Distillation(
        student,
        (Head("test-teacher", Projector(student.spec.width, store.first.width)),),
        torch.device("cpu"),
        "float32",
    )
    rows, chosen = StoredRows([store.first], tell=print), [50, 51, 52, 53]
    small, large = (
        score_teachers(distillation, rows, chosen, batch_size=size, workers=1, loss=loss, alpha=4.0)[0]
        for size in (4, 16)
    )
    assert large[1] - small[1] == pytest.approx(difference, abs=1e-6)
    assert large[0] == small[0]


def test_an_output_that_cannot_be_written_is_named(store: Store, cnn: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(G2LError, match=r"cannot write to .*file"):
        train_student(store, tmp_path / "file" / "run", cnn)
    with pytest.raises(G2LError, match=r"cannot write to .*file"):
        train_student(store, tmp_path / "file", cnn)


def test_a_second_process_on_the_same_run_is_refused_by_name(store: Store, cnn: TrainConfig, tmp_path: Path) -> None:
    with exclusive(tmp_path / "run", "g2l train-student"), pytest.raises(BusyError) as caught:
        train_student(store, tmp_path / "run", cnn)
    assert f"in use by g2l train-student (process {os.getpid()}" in str(caught.value)


def test_divergence_is_an_error_that_spares_the_checkpoints(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages import train_student as stage

    real, count = stage.train_step, [0]

    def broken(*arguments: Any) -> Any:
        loss, norm = real(*arguments)
        count[0] += 1
        return (loss, norm * float("nan")) if count[0] == 7 else (loss, norm)

    monkeypatch.setattr(stage, "train_step", broken)
    config = train_config(plain_vit(tmp_path / "vit"), checkpoint_every=1)
    with pytest.raises(G2LError, match=r"diverged: at step 7 grad_norm is nan\. Choose a smaller --lr"):
        train_student(store, tmp_path / "run", config)
    checkpoint = load_last_checkpoint(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    assert checkpoint["step"] == 6
    assert [line["step"] for line in RunFolder(tmp_path / "run").metrics() if line["kind"] == "step"][-1] == 6


@pytest.mark.parametrize("val", [(16,), ()])
def test_divergence_at_the_last_update_exports_nothing(tmp_path: Path, val: tuple[int, ...]) -> None:
    """Its loss and gradient, taken before it, are fine; also where no rows are held out to show it."""
    store = make_store(tmp_path / "store.zarr", train=(16,), val=val, rows_per_shard=16)
    config = train_config(plain_vit(tmp_path / "vit"), epochs=1, batch_size=16, lr=1e9)
    run = RunFolder(tmp_path / "run")
    for _ in range(2):  # the same command again fares no better
        with pytest.raises(G2LError, match=r"training has diverged: at step 1 .*Choose a smaller --lr"):
            train_student(store, run.folder, config)
        assert not run.student.exists()
        assert all(np.isfinite([line[name] for name in line if name != "kind"]).all() for line in run.metrics())
        checkpoint = load_last_checkpoint(run.checkpoints)
        assert checkpoint is not None
        assert checkpoint["step"] == 0


def test_weights_that_are_not_finite_reach_no_checkpoint(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages import train_student as stage

    real, count = stage.train_step, [0]

    def broken(distillation: Distillation, *arguments: Any) -> Any:
        result = real(distillation, *arguments)
        count[0] += 1
        if count[0] == 4:
            distillation.parameters()[0].data.view(-1)[0] = float("inf")
        return result

    monkeypatch.setattr(stage, "train_step", broken)
    config = train_config(plain_vit(tmp_path / "vit"), checkpoint_every=2)
    with pytest.raises(G2LError, match=r"diverged: at step 4 the student's .* is not finite"):
        train_student(store, tmp_path / "run", config)
    checkpoint = load_last_checkpoint(tmp_path / "run" / "checkpoints")
    assert checkpoint is not None
    assert checkpoint["step"] == 2


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_finished_run_whose_weights_are_not_finite_is_not_exported(store: Store, tmp_path: Path) -> None:
    """A checkpoint of a version that did not look."""
    config = train_config(plain_vit(tmp_path / "vit"), epochs=1)
    run = train_student(store, tmp_path / "run", config).run
    shutil.rmtree(run.student)
    checkpoint = load_last_checkpoint(run.checkpoints)
    assert checkpoint is not None
    checkpoint["projector"]["linear.weight"][0, 0] = float("nan")
    save_checkpoint(run.checkpoints, checkpoint["step"], checkpoint)
    with pytest.raises(G2LError, match=r"diverged: at step 5 the projector's linear\.weight is not finite"):
        train_student(store, run.folder, config)
    assert not run.student.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_renamed_weights_continue_a_run(store: Store, tmp_path: Path) -> None:
    config = train_config(plain_vit(tmp_path / "vit"), epochs=1)
    model = build_encoder(config.student, "scratch", store.patch_px).module.model
    save_tensors(model, tmp_path / "a.safetensors")
    config = config.model_copy(update={"weights": str(tmp_path / "a.safetensors")})
    train_student(store, tmp_path / "run", config)
    (tmp_path / "a.safetensors").rename(tmp_path / "b.safetensors")
    config = config.model_copy(update={"weights": str(tmp_path / "b.safetensors")})
    assert train_student(store, tmp_path / "run", config).num_new_steps == 0


@pytest.mark.slow
def test_a_run_records_absolute_paths(
    store: Store, cnn: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Typed as relative ones, weights too; the record is read from other folders."""
    monkeypatch.chdir(tmp_path)
    save_tensors(build_encoder(cnn.student, "scratch", 32).module.model, Path("w.safetensors"))
    options = cnn.model_copy(update={"weights": "w.safetensors", "slides_root": Path("slides")})
    stop_after(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        train_student(store, Path("run"), options)
    record = read_options(tmp_path / "run" / "config.toml", "train-student")
    typed = {"out": "run", "weights": "w.safetensors", "slides_root": "slides"}
    assert {name: record[name] for name in typed} == {name: str(tmp_path / path) for name, path in typed.items()}
    assert record["store"] == str(store.folder)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_training_in_float32_is_full_float32(
    store: Store, cnn: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the backward passes, too, which no context of a forward pass covers."""
    allowed: list[bool] = []
    real = stage.train_step

    def step(*arguments: Any) -> Any:
        allowed.append(torch.backends.cudnn.allow_tf32)
        return real(*arguments)

    monkeypatch.setattr(stage, "train_step", step)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    train_student(store, tmp_path / "run", cnn.model_copy(update={"epochs": 1, "precision": "float32"}))
    assert allowed == [False] * 5


def test_half_precision_is_refused(store: Store, cnn: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="float16"):
        train_student(store, tmp_path / "run", cnn.model_copy(update={"precision": "float16"}))


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_bfloat16_trains(store: Store, tmp_path: Path) -> None:
    config = train_config(plain_vit(tmp_path / "vit"), precision="bfloat16", epochs=1)
    losses = [line["loss"] for line in train_student(store, tmp_path / "run", config).run.metrics()]
    assert np.isfinite(losses).all()


@pytest.mark.slow
def test_the_command_says_errors_in_a_line(store: Store, cnn: TrainConfig, reference: Trained) -> None:
    arguments = flags(cnn.model_copy(update={"lr": 0.5}))
    code, output, errors = call_g2l("train-student", store.folder, "--out", reference.run.folder, *arguments)
    assert (code, output) == (1, "")
    assert errors.startswith("error: ")
    assert "lr" in errors
    assert "Traceback" not in errors


def test_the_metrics_hold_nothing_of_the_clock(reference: Trained) -> None:
    names = {name for line in reference.run.metrics() for name in json.loads(json.dumps(line))}
    assert not {name for name in names if "second" in name or "time" in name}


@pytest.mark.slow
def test_a_teacher_that_is_the_same_for_all_patches_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("support.stores.embed_patches", lambda patches: np.full((len(patches), WIDTH), 1.3, np.float32))
    flat = make_store(tmp_path / "store.zarr")
    train_student(flat, tmp_path / "run", train_config(plain_vit(tmp_path / "vit"), epochs=1))
    assert f"warning: {WIDTH} of {WIDTH} dimensions of {flat.first.name} hardly vary" in capsys.readouterr().err
