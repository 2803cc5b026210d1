"""A step in parts is the step of the whole batch: loss, every gradient, statistics and random numbers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.stores import dropping_cnn, make_patches, make_store, plain_vit, run_files, student_folder, train_config
from support.training import stop_after
from torch import Tensor, nn

from pipeline.base.errors import ConfigError
from pipeline.base.loader import Batch
from pipeline.config.losses import LOSSES
from pipeline.config.model_names import SCRATCH
from pipeline.distillation import Distillation, Head, build_loss, build_projectors
from pipeline.encoders.build import BuiltEncoder, build_encoder
from pipeline.training.run_folder import RunFolder
from pipeline.training.step.train_step import HowToStep, train_step
from stages.train_student import train_student

CPU = torch.device("cpu")
ROWS, WIDTHS = 7, (12, 5)
VIT = {"img_size": 32, "depth": 2, "embed_dim": 32, "num_heads": 2}
DROPPING = VIT | {"drop_rate": 0.2, "proj_drop_rate": 0.2, "pos_drop_rate": 0.1, "drop_path_rate": 0.3}


@pytest.fixture
def double_precision() -> Iterator[None]:
    """Make float32 mean float64: for weights, and where the project asks for float32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "float", Tensor.double)
        torch.set_default_dtype(torch.float64)
        yield
        torch.set_default_dtype(torch.float32)


def build(folder: Path, micro_batch: int | None = None, **model_args: Any) -> Distillation:
    """A student and the projectors of two teachers of unequal weight, always the same ones."""
    name = f"local-dir:{folder}" if folder.exists() else student_folder(folder, "test_vit", **(model_args or VIT))
    student = build_encoder(name, SCRATCH, 32)
    projectors = build_projectors(student.spec.width, WIDTHS, 1)
    heads = (Head("a", projectors[0], 0.75), Head("b", projectors[1], 0.25))
    distillation = Distillation(student, heads, CPU, "float32", micro_batch=micro_batch)
    distillation.train()
    return distillation


def batch_of(rows: int = ROWS) -> Batch[NDArray[np.float32]]:
    teachers = np.random.default_rng(0).normal(2, 3, size=(rows, sum(WIDTHS)))
    return Batch(range(rows), torch.from_numpy(make_patches(rows, 32)), list(teachers.astype(np.float32)))


def in_one_graph(distillation: Distillation, batch: Batch[NDArray[np.float32]], loss: str) -> Tensor:
    """The reference: the parts joined with their graphs, and one backward pass through all of it."""
    torch.manual_seed(3)
    loss_of = build_loss(loss, 4.0)
    embedding = torch.cat([distillation.embed(part) for part in distillation.parts(batch.pixels)])
    teachers = torch.from_numpy(np.stack(batch.results))
    losses = [head.weight * loss_of(*head.projector(embedding, z)) for head, z in distillation.by_head(teachers)]
    total = torch.stack(losses).sum()
    total.backward()  # type: ignore[no-untyped-call]
    return total.detach()


def stepped(distillation: Distillation, batch: Batch[NDArray[np.float32]], loss: str) -> Tensor:
    """A step that changes no weight."""
    torch.manual_seed(3)
    optimizer = torch.optim.SGD(distillation.parameters(), lr=0.0)
    return train_step(distillation, batch, build_loss(loss, 4.0), optimizer, 0.0)[0]


def test_embeddings_of_float16_count_as_in_float32(tmp_path: Path) -> None:
    """The loader gives them as they are stored."""
    batch, losses = batch_of(), []
    for dtype in (np.float16, np.float32):
        results = [each.astype(np.float16).astype(dtype) for each in batch.results]
        losses.append(stepped(build(tmp_path / "student"), Batch(batch.rows, batch.pixels, results), "log-sum"))
    assert torch.equal(*losses)
    assert losses[0].dtype == torch.float32


def gradients(distillation: Distillation) -> dict[str, Tensor]:
    return {
        f"{number}.{name}": p.grad
        for number, module in enumerate(distillation.modules())
        for name, p in module.named_parameters()
        if p.grad is not None
    }


def check_same_step(ours: Distillation, theirs: Distillation, tolerance: float) -> None:
    """Gradients and statistics are the same to a share of the largest."""
    found, expected = gradients(ours), gradients(theirs)
    assert found.keys() == expected.keys()
    assert len(found) > 20
    largest = max(float(g.abs().max()) for g in expected.values())
    assert largest > 1e-3
    for name, gradient in expected.items():
        assert float((found[name] - gradient).abs().max()) < tolerance * largest, name
    for part, values in theirs.state().items():
        for name, value in values.items():
            torch.testing.assert_close(ours.state()[part][name], value, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("micro_batch", [1, 3, 6])
def test_in_double_precision_the_gradient_is_that_of_the_batch(
    double_precision: None, tmp_path: Path, loss: str, micro_batch: int
) -> None:
    """Without random numbers the parts do not show at all; the last part is smaller, or a single row."""
    whole, parts = build(tmp_path / "s"), build(tmp_path / "s", micro_batch)
    assert float(stepped(parts, batch_of(), loss)) == pytest.approx(float(stepped(whole, batch_of(), loss)), rel=1e-12)
    check_same_step(parts, whole, 1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_with_dropout_it_is_that_of_one_graph_through_all_parts(
    double_precision: None, tmp_path: Path, loss: str
) -> None:
    one_graph, parts = build(tmp_path / "s", 3, **DROPPING), build(tmp_path / "s", 3)
    expected = in_one_graph(one_graph, batch_of(), loss)
    assert float(stepped(parts, batch_of(), loss)) == pytest.approx(float(expected), rel=1e-12)
    check_same_step(parts, one_graph, 1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dropout", [False, True])
def test_in_float32_it_is_to_1e_5(tmp_path: Path, loss: str, dropout: bool) -> None:
    one_graph, parts = build(tmp_path / "s", 3, **(DROPPING if dropout else VIT)), build(tmp_path / "s", 3)
    expected = in_one_graph(one_graph, batch_of(), loss)
    assert float(stepped(parts, batch_of(), loss)) == pytest.approx(float(expected), rel=1e-6)
    check_same_step(parts, one_graph, 1e-5)


def test_losses_of_parts_do_not_add_up_to_it(double_precision: None, tmp_path: Path) -> None:
    """Why all this is needed: plain accumulation gives another gradient."""
    whole, plain = build(tmp_path / "s"), build(tmp_path / "s")
    stepped(whole, batch_of(8), "log-sum")
    total: dict[str, Tensor] = {}
    for half in range(2):
        batch, rows = batch_of(8), slice(4 * half, 4 * half + 4)
        plain.train()
        stepped(plain, Batch(batch.rows[rows], batch.pixels[rows], batch.results[rows]), "log-sum")
        total = {name: total.get(name, 0) + gradient / 2 for name, gradient in gradients(plain).items()}
    difference = max(float((total[name] - g).abs().max()) for name, g in gradients(whole).items())
    assert difference > 0.1 * max(float(g.abs().max()) for g in gradients(whole).values())


def test_statistics_move_once_a_step_and_random_numbers_as_often_as_rows_are_embedded_once(tmp_path: Path) -> None:
    parts, one_graph = build(tmp_path / "s", 2, **DROPPING), build(tmp_path / "s", 2)
    stepped(parts, batch_of(), "log-sum")
    after = torch.get_rng_state()
    in_one_graph(one_graph, batch_of(), "log-sum")
    assert torch.equal(after, torch.get_rng_state())
    assert [int(projector.student_norm.num_batches) for projector in parts.projectors] == [1, 1]


def test_outside_of_training_a_batch_is_embedded_in_parts_too(tmp_path: Path) -> None:
    parts = build(tmp_path / "s", 2)
    parts.train(False)
    sizes: list[int] = []
    parts.student.module.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    with torch.inference_mode():
        embedding = parts.embed(batch_of().pixels)
        expected = parts.student.module(batch_of().pixels)
    assert sizes == [2, 2, 2, 1, ROWS]
    torch.testing.assert_close(embedding, expected)


def cnn(folder: Path) -> BuiltEncoder:
    return build_encoder(dropping_cnn(folder), SCRATCH, 32)


def test_batch_normalisation_is_not_split(tmp_path: Path) -> None:
    student = cnn(tmp_path / "s")
    with pytest.raises(ConfigError, match=r"--micro-batch 4: local-dir:.* has \d+ layers of batch normalisation"):
        HowToStep(8, micro_batch=4).require(student, CPU)
    whole = HowToStep(8, micro_batch=8)
    whole.require(student, CPU)  # a share that is one part
    assert whole.part is None
    HowToStep(8, micro_batch=4).require(build_encoder(plain_vit(tmp_path / "vit"), SCRATCH, 32), CPU)


def test_a_run_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store.zarr")
    config = train_config(dropping_cnn(tmp_path / "s"), micro_batch=3)
    with pytest.raises(ConfigError, match="--micro-batch 3"):
        train_student(store, tmp_path / "run", config)
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.slow
def test_a_run_in_parts_is_continued_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With dropout; and in other parts to other ones, for the masks are other ones."""
    store = make_store(tmp_path / "store.zarr")
    config = train_config(student_folder(tmp_path / "s", "test_vit", **DROPPING), epochs=1, micro_batch=3)
    train_student(store, tmp_path / "whole", config)
    for folder, micro_batch in (("same", 3), ("other", 2)):
        with monkeypatch.context() as patch:
            stop_after(patch, 5)
            with pytest.raises(KeyboardInterrupt):
                train_student(store, tmp_path / folder, config)
        train_student(store, tmp_path / folder, config.model_copy(update={"micro_batch": micro_batch}))
    assert run_files(tmp_path / "same") == run_files(tmp_path / "whole")
    lines = [RunFolder(tmp_path / folder).metrics() for folder in ("whole", "other")]
    assert lines[0][:5] == lines[1][:5]  # before the first step, and four of them
    assert lines[0] != lines[1]


def test_a_share_of_one_row_a_process_is_refused_where_each_has_statistics_of_its_own(tmp_path: Path) -> None:
    """Runs of earlier versions."""
    student = cnn(tmp_path / "cnn")
    with pytest.raises(ConfigError, match=r"a batch of 4 among 4 processes .* --batch-size of at least 8"):
        HowToStep(1, 4, synchronise=False).require(student, CPU)
    HowToStep(2, 4, synchronise=False).require(student, CPU)
    HowToStep(1, 4).require(student, CPU)
    vit = build_encoder(plain_vit(tmp_path / "vit"), SCRATCH, 32)
    HowToStep(1, 4, synchronise=False).require(vit, CPU)  # it has none


class OwnKind(nn.Module):
    """Normalises over the batch, and is none of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_var", torch.ones(3))


def test_what_cannot_be_synchronised_is_trained_in_one_process(tmp_path: Path) -> None:
    student = build_encoder(plain_vit(tmp_path / "vit"), SCRATCH, 32)
    student.module.model.own = OwnKind()
    HowToStep(4).require(student, CPU)
    with pytest.raises(ConfigError, match=r"cannot be synchronised over 2 processes; train it in one"):
        HowToStep(4, 2).require(student, CPU)
    with pytest.raises(ConfigError, match="1 layers of batch normalisation"):
        HowToStep(4, micro_batch=2).require(student, CPU)
