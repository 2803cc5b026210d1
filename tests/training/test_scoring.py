"""How a student is scored: batches for statistics, linear maps, and students that one row would crash."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import r2_score
from support.stores import dropping_cnn, make_store, plain_vit, train_config

from pipeline.encoders.build import build_encoder
from pipeline.projector import Projector
from pipeline.training.checkpoint import load_last_checkpoint
from pipeline.training.linear_map import fit_linear_map
from pipeline.training.scoring import batches_in_order, embed_for_scores, even_batches
from stages.train_student import train_student


@given(st.integers(2, 400), st.integers(2, 60))
def test_even_batches_have_the_same_rows_and_never_one_alone(num_rows: int, size: int) -> None:
    rows = list(range(num_rows))
    batches = even_batches(rows, size)
    assert [row for batch in batches for row in batch] == rows
    sizes = [len(batch) for batch in batches]
    assert min(sizes) >= 2
    assert max(sizes) <= size + (size == 2)
    assert max(sizes) - min(sizes) <= 1
    assert [row for batch in batches_in_order(rows, size) for row in batch] == rows


def test_passes_that_gather_statistics_take_turns() -> None:
    """On any number of cores: two at once would lose parts of the statistics, by chance."""
    turn, seen = threading.Lock(), []

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        assert turn.acquire(blocking=False), "another pass is on"
        time.sleep(0.002)
        seen.append(int(pixels.flatten()[0]))
        turn.release()
        return pixels.float().mean((1, 2))

    def read(row: int, out: NDArray[np.uint8]) -> NDArray[np.float32]:
        out[:] = row
        return np.zeros(2, np.float32)

    student = SimpleNamespace(spec=SimpleNamespace(width=3), module=torch.nn.Identity())
    distillation: Any = SimpleNamespace(embed=embed, device=torch.device("cpu"), student=student, micro_batch=None)
    rows: Any = SimpleNamespace(read=read, patch_px=2, read_ahead=None)
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        embeddings, _ = embed_for_scores(distillation, rows, range(40), batch_size=2, workers=2)
    finally:
        torch.set_num_threads(threads)
    assert seen == list(range(0, 40, 2))
    assert embeddings[:, 0].tolist() == list(range(40))


@pytest.mark.slow
@pytest.mark.parametrize(("train", "batch_size"), [((22,), 21), ((3,), 2)])
def test_a_remainder_of_one_row_crashes_no_student(tmp_path: Path, train: tuple[int, ...], batch_size: int) -> None:
    """Its last map is one pixel with batch normalisation: 22 rows by 21 ended in torch's "Expected more than 1 value
    per channel when training".
    """
    store = make_store(tmp_path / "store.zarr", train=train, val=(6,))
    trained = train_student(
        store, tmp_path / "run", train_config(dropping_cnn(tmp_path / "s"), epochs=1, batch_size=batch_size)
    )
    ((before, _),) = trained.held_out.values()
    assert np.isfinite(list(before.values())).all()


@pytest.mark.slow
def test_the_linear_maps_r2_is_that_of_a_map_fitted_on_training_rows(tmp_path: Path) -> None:
    """The last line of the metrics, computed once more from the checkpoint and the store."""
    store = make_store(tmp_path / "store.zarr", train=(40, 40), val=(30,))
    config = train_config(plain_vit(tmp_path / "vit"), epochs=2)
    trained = train_student(store, tmp_path / "run", config)
    ((_, after),) = trained.held_out.values()
    checkpoint = load_last_checkpoint(trained.run.checkpoints)
    assert checkpoint is not None
    student = build_encoder(config.student, "scratch", store.patch_px).module
    student.model.load_state_dict(checkpoint["student"])
    projector = Projector(student.spec.width, store.first.width)
    projector.load_state_dict(checkpoint["projector"])
    found = []
    for rows in (store.first.ok_rows(0), store.first.ok_rows(1)):
        with torch.inference_mode():
            z = student(torch.from_numpy(np.stack([store.read_pixels(int(row)) for row in rows]))).numpy()
        teacher = torch.from_numpy(np.stack([store.first.read_embedding(int(row)) for row in rows]))
        found.append((z, projector.teacher_norm.standardise(teacher).double().numpy()))
    (z_train, t_train), (z_val, t_val) = found
    cases = store.plan.case_of_row()[store.first.ok_rows(0)]
    expected = r2_score(t_val, fit_linear_map(z_train, t_train, cases).predict(z_val), multioutput="variance_weighted")
    assert after["r2_linear"] == pytest.approx(expected, abs=1e-5)
