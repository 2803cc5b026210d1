"""Statistics of teachers: numpy's, over the rows that are there, and kept only for the same rows."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support.stores import WIDTH, embed_patches, make_patches, make_store

from pipeline.base.errors import StoreError
from pipeline.sampling import TRAIN, VAL
from pipeline.store.format import Status
from pipeline.training.rows.statistics import KeptStatistics, teacher_statistics


def test_without_the_plain_view_statistics_are_of_the_others() -> None:
    """Against numpy, on a teacher that is not there."""

    class Teacher:
        num_rows, num_shards, width, folder = 8, 1, 3, Path("none")
        values = np.random.default_rng(0).normal(size=(8, 4, 3)).astype(np.float32)
        plan = SimpleNamespace(split=lambda: np.zeros(8, np.uint8))
        ledger = SimpleNamespace(rows=lambda _: range(8), entries=lambda: [(0, {})])

        def read_status(self, _: int) -> np.ndarray:
            return np.full(8, Status.OK, np.uint8)

        def read_views(self, _: int) -> np.ndarray:
            return self.values

    mean, var = teacher_statistics(Teacher(), TRAIN, None, 4, 1)  # type: ignore[arg-type]
    rest = Teacher.values[:, 1:].reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(mean, rest.mean(0), atol=1e-12)
    np.testing.assert_allclose(var, rest.var(0, ddof=1))


def test_teacher_statistics_are_numpys_over_all_good_rows_of_a_split(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", train=(10, 13, 2), val=(9,), rows_per_shard=7, failed=(0, 11, 30))
    for split in (TRAIN, VAL):
        rows = store.first.ok_rows(split)
        assert len(rows) == {TRAIN: 23, VAL: 8}[split]
        values = embed_patches(make_patches(34))[rows].astype(np.float16).astype(np.float64)
        mean, var = teacher_statistics(store.first, split)
        np.testing.assert_allclose(mean, values.mean(0), rtol=1e-12)
        np.testing.assert_allclose(var, values.var(0, ddof=1), rtol=1e-12)
        assert mean.shape == (WIDTH,)


def test_teacher_statistics_of_an_unfinished_store_are_of_the_rows_that_are_there(tmp_path: Path) -> None:
    """As `evaluate --store` asks for; a file that is there without an entry in the ledger does not count."""
    store = make_store(tmp_path / "s.zarr", train=(10, 13, 2), val=(9,), rows_per_shard=7)
    store.first.ledger.forget(1)
    store.first.ledger.forget(2)
    for path in store.first.shard_files(2):
        path.unlink()
    rows = store.first.ok_rows(TRAIN)
    assert set(rows) == {*range(7), *range(21, 25)}
    values = embed_patches(make_patches(34))[rows].astype(np.float16).astype(np.float64)
    mean, var = teacher_statistics(store.first, TRAIN)
    np.testing.assert_allclose(mean, values.mean(0), rtol=1e-12)
    np.testing.assert_allclose(var, values.var(0, ddof=1), rtol=1e-12)


def test_too_few_rows_have_no_statistics(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="fewer than two rows"):
        teacher_statistics(make_store(tmp_path / "s.zarr", train=(8,), val=(1,), rows_per_shard=9).first, VAL)


def test_statistics_are_kept_and_computed_again_only_for_other_rows_or_if_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = make_store(tmp_path / "s.zarr", train=(10, 13), val=(9,), rows_per_shard=7).first
    path, rows, computed = tmp_path / "statistics.json", teacher.ok_rows(TRAIN), []

    def counted(*given: object) -> object:
        computed.append(given)
        return teacher_statistics(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("pipeline.training.rows.statistics.teacher_statistics", counted)
    expected = [part.tobytes() for part in teacher_statistics(teacher, TRAIN, rows)]

    def of(chosen: np.ndarray = rows, *, writes: bool = True) -> list[bytes]:
        return [part.tobytes() for part in KeptStatistics(path, writes=writes).of(teacher, chosen, 1, 0)]

    assert of(writes=False) == expected
    assert not path.exists()
    assert of() == of() == of(rows.astype(np.int32)) == expected
    assert len(computed) == 2
    assert of(rows[1:]) != expected
    assert of() == expected
    assert len(computed) == 4
    whole = path.read_text()
    kept = json.loads(whole)
    kept[teacher.name]["mean"][0] += 1
    for damaged in (json.dumps(kept), whole[:-20], "[]", json.dumps({teacher.name: 3}), ""):
        path.write_text(damaged)
        assert of() == expected
        assert path.read_text() == whole
    assert len(computed) == 9


def test_statistics_are_not_kept_without_a_place(tmp_path: Path) -> None:
    teacher = make_store(tmp_path / "s.zarr").first
    mean, var = KeptStatistics(None).of(teacher, teacher.ok_rows(TRAIN), 1, 0)
    assert mean.shape == var.shape == (WIDTH,)


def test_a_teacher_that_hardly_varies_is_told_at_each_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As embeddings that somebody scaled to length 1 and more, or dead dimensions."""
    said: list[str] = []
    path = tmp_path / "statistics.json"
    scales = (1.0, 1.0, 1e-3, 1e-3, 0.0)
    for number, num_flat in enumerate((0, 1, 2, WIDTH)):
        factors = np.array([scales[number + 1]] * num_flat + [1.0] * (WIDTH - num_flat), np.float32)
        monkeypatch.setattr("support.stores.embed_patches", lambda p, by=factors: embed_patches(p) * by)
        teacher = make_store(tmp_path / f"{number}.zarr", dtype="float32").first
        said.clear()
        for _ in range(2):
            KeptStatistics(path, tell=said.append).of(teacher, teacher.ok_rows(TRAIN), 1, 0)
        told = num_flat >= 2
        assert len(said) == 2 * told
        words = f"warning: {num_flat} of {WIDTH} dimensions of {teacher.name} hardly vary"
        assert all(each.startswith(words) for each in said)


def test_embeddings_whose_sums_do_not_fit_into_float32_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training said that it had diverged, at a learning rate that was too large."""
    path = tmp_path / "statistics.json"
    monkeypatch.setattr("support.stores.embed_patches", lambda p: embed_patches(p) * np.float32(1e20))
    teacher = make_store(tmp_path / "s.zarr", dtype="float32").first
    for _ in range(2):
        with pytest.raises(StoreError, match=f"{teacher.name} are too large to train on"):
            KeptStatistics(path).of(teacher, teacher.ok_rows(TRAIN), 1, 0)
