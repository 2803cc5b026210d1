"""Order, augmentation, teacher statistics, and where pixels come from."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from support.first_augment import as_first_written
from support.stores import WIDTH, embed_patches, make_patches, make_store

from pipeline.base.draws import RunDraws
from pipeline.base.errors import ConfigError, StoreError
from pipeline.base.versions import versions
from pipeline.cohort.manifest import read_manifest
from pipeline.cohort.views.views import Views, dihedral
from pipeline.config.plan import PlanConfig
from pipeline.sampling import TRAIN, VAL
from pipeline.store.create import create_store
from pipeline.store.format import Status, StoreSpec
from pipeline.store.patches import PatchRead, PlannedPatches
from pipeline.store.store import Store
from pipeline.store.writer import StoreWriter
from pipeline.training.augment import jitter_whole
from pipeline.training.rows import (
    ROWS_AT_ONCE,
    KeptStatistics,
    RowChoice,
    StoredRows,
    batches_of,
    choose_rows,
    epoch_order,
    row_keys,
    row_numbers,
    row_views,
    teacher_statistics,
)
from pipeline.training.subset import RowSubset
from stages.plan import plan_slides


@settings(max_examples=40, deadline=None)
@given(count=st.integers(2, 12), seed=st.integers(0, 2**31), rounds=st.integers(1, 3), plain=st.booleans())
def test_each_view_of_a_row_is_shown_once_in_as_many_epochs(count: int, seed: int, rounds: int, plain: bool) -> None:
    rows, views = np.arange(0, 60, 3), Views(count)
    wanted = range(0 if plain else 1, count)
    num = len(wanted)
    shown = np.stack([row_views(rows, views, RunDraws(seed), e, plain=plain) for e in range(rounds * num)])
    for start in range(0, rounds * num, num):
        assert (np.sort(shown[start : start + num], axis=0) == np.array(wanted)[:, None]).all()
    alone = [int(row_views(rows[7:8], views, RunDraws(seed), e, plain=plain)[0]) for e in range(rounds * num)]
    assert shown[:, 7].tolist() == alone  # a row's views depend on no other row


def test_every_order_of_views_is_as_likely_and_rounds_are_independent() -> None:
    rows, views = np.arange(6000), Views(3)
    shown = np.stack([row_views(rows, views, RunDraws(1), epoch) for epoch in range(6)])
    first, second = (shown[start] * 9 + shown[start + 1] * 3 + shown[start + 2] for start in (0, 3))
    orders = np.unique(first)
    assert len(orders) == 6
    pairs = np.searchsorted(orders, first) * 6 + np.searchsorted(orders, second)
    assert chisquare(np.bincount(pairs, minlength=36)).pvalue > 1e-5


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


@settings(max_examples=30, deadline=None)
@given(count=st.integers(2, 300), seed=st.integers(0, 2**31), epoch=st.integers(0, 1000))
def test_an_epochs_order_is_a_permutation_of_its_own(count: int, seed: int, epoch: int) -> None:
    rows = np.arange(0, 3 * count, 3)
    order = epoch_order(rows, seed, epoch)
    assert np.array_equal(np.sort(order), rows)
    assert np.array_equal(order, epoch_order(rows, seed, epoch))
    if count > 20:
        assert not np.array_equal(order, rows)
        assert not np.array_equal(order, epoch_order(rows, seed, epoch + 1))
        assert not np.array_equal(order, epoch_order(rows, seed + 1, epoch))


@pytest.mark.parametrize("count", [0, 1, 7, 200, 3000])
def test_an_order_sorted_in_shares_is_that_of_all_keys_at_once(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.arange(0, 2 * count, 2)
    expected = rows[np.argsort(row_keys(rows, 3, 5, "order"), kind="stable")]
    for at_once in (ROWS_AT_ONCE, 100, 8):
        monkeypatch.setattr("pipeline.training.rows.ROWS_AT_ONCE", at_once)
        for kind in (np.int32, np.int64):
            order = epoch_order(rows.astype(kind), 3, 5)
            assert order.dtype == kind
            assert np.array_equal(order, expected)
        assert np.array_equal(row_numbers(np.arange(2 * count) % 2 == 0), rows)


def test_orders_of_two_epochs_are_unrelated() -> None:
    rows = np.arange(2000)
    first, second = epoch_order(rows, 0, 0), epoch_order(rows, 0, 1)
    assert abs(np.corrcoef(np.argsort(first), np.argsort(second))[0, 1]) < 0.1
    assert abs(np.corrcoef(rows, np.argsort(first))[0, 1]) < 0.1


def test_batches_are_full_and_continue_anywhere() -> None:
    order = epoch_order(np.arange(23), 0, 0)
    batches = list(batches_of(order, 5))
    assert [len(batch) for batch in batches] == [5] * 4
    assert [row for batch in batches for row in batch] == order[:20].tolist()
    assert [list(batches_of(order, 5, first)) for first in range(6)] == [batches[first:] for first in range(6)]


def test_every_symmetry_is_drawn() -> None:
    keys = row_keys(np.arange(4000), 0, 0, "augment")
    counts = np.bincount((keys & np.uint64(7)).astype(int), minlength=8)
    assert counts.min() > 400  # 500 expected, deviation 21


def test_rows_are_read_as_written_and_augmented_alike_whatever_was_read_before(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", train=(10, 7), val=(4,), rows_per_shard=8, dtype="float32")
    rows = StoredRows([store.first], tell=print)
    patches = make_patches(21)
    out = np.empty((32, 32, 3), np.uint8)
    for row in (20, 3, 12):
        assert np.array_equal(rows.read(row, out), embed_patches(patches)[row])
        assert np.array_equal(out, patches[row])
    first = [rows.reader(RunDraws(1), 2, "flips+jitter").read(row, out).tobytes() + out.tobytes() for row in range(21)]
    together = np.empty((21, 32, 32, 3), np.uint8)
    embeddings = rows.reader(RunDraws(1), 2, "flips+jitter").read_some(range(21), together)
    assert [a.tobytes() + b.tobytes() for a, b in zip(embeddings, together, strict=True)] == first
    again = [
        rows.reader(RunDraws(1), 2, "flips+jitter").read(row, out).tobytes() + out.tobytes()
        for row in range(20, -1, -1)
    ]
    assert first == again[::-1]
    other = [rows.reader(RunDraws(1), 3, "flips+jitter").read(row, out).tobytes() + out.tobytes() for row in range(21)]
    assert all(a != b for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("version", [1, 4, 5])
def test_runs_up_to_version_4_go_on_with_their_colours(tmp_path: Path, version: int) -> None:
    store = make_store(tmp_path / "s.zarr", train=(16,), rows_per_shard=8)
    rows, patches, out = StoredRows([store.first], tell=print), make_patches(16), np.empty((32, 32, 3), np.uint8)
    reader = rows.reader(RunDraws(1, version), 2, "flips+jitter")
    for row, key in enumerate(row_keys(np.arange(16), 1, 2, "augment").tolist()):
        read = reader.read(row, out)
        assert (read.dtype, rows.read(row, np.empty_like(out)).dtype) == (np.float16, np.float32)
        assert np.array_equal(read, store.first.read_embedding(row))
        if version < 5:
            assert np.array_equal(out, as_first_written(patches[row], key, "flips+jitter"))
        else:
            expected = np.empty_like(out)
            jitter_whole(dihedral(patches[row], key & 7), key, expected)
            assert np.array_equal(out, expected)


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

    monkeypatch.setattr("pipeline.training.rows.teacher_statistics", counted)
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


def rows_of(store: Store, *, batch_size: int = 8, val_rows: int = 4, seed: int = 0, world: int = 1) -> RowChoice:
    """The rows that a student of the store's first teacher learns from."""
    return choose_rows([store.first], batch_size=batch_size, val_rows=val_rows, seed=seed, world=world)


def test_chosen_rows(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", train=(10,), val=(9,), rows_per_shard=19, failed=(2, 12))
    chosen = rows_of(store)
    assert chosen.train.tolist() == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    assert chosen.batch_size == 8
    assert (len(set(chosen.val.tolist())), len(set(chosen.fit.tolist()))) == (4, 4)
    assert set(chosen.val.tolist()) < set(store.first.ok_rows(VAL).tolist())
    assert set(chosen.fit.tolist()) < set(chosen.train.tolist())
    assert chosen.val.tolist() != rows_of(store, seed=1).val.tolist()
    assert chosen.notes == ()
    fewer = rows_of(store, batch_size=64)
    assert (fewer.batch_size, fewer.notes) == (9, ("note: batches of 9: there are no more rows to train on",))
    with pytest.raises(ConfigError, match="a batch of 8 does not divide among 3 processes"):
        rows_of(store, world=3)


def test_one_held_out_row_is_too_few_and_not_none(tmp_path: Path) -> None:
    one = rows_of(make_store(tmp_path / "one.zarr", train=(8,), val=(1,), rows_per_shard=9))
    assert len(one.val) == 0
    (said,) = one.notes
    assert said == ("warning: one row is held out, and 2 are needed to score, so the student will not be scored")


def test_held_out_rows_that_failed_are_the_reason_in_the_note(tmp_path: Path) -> None:
    (said,) = rows_of(make_store(tmp_path / "s.zarr", train=(8,), val=(3,), rows_per_shard=11, failed=(8, 9, 10))).notes
    assert said.startswith("warning: no rows are held out (3 of 3 planned rows failed in extract-teacher), so ")


def test_failed_rows_are_named_as_the_cause_of_too_few_rows(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", train=(3,), val=(5,), rows_per_shard=8, failed=(0, 2))
    with pytest.raises(ConfigError, match=r"1 rows to train on.* 2 planned rows failed .*--retry-failures"):
        rows_of(store)
    store = make_store(tmp_path / "t.zarr", train=(1,), val=(5,), rows_per_shard=8, failed=(2,))
    with pytest.raises(ConfigError, match=r"1 rows to train on.* Plan with more slides"):
        rows_of(store)


def test_failed_rows_are_those_of_the_teacher_that_they_failed_with(tmp_path: Path) -> None:
    sound, failing = (
        make_store(tmp_path / name, train=(3,), val=(3,), rows_per_shard=6, failed=failed).first
        for name, failed in (("a", ()), ("b", (0, 1, 4, 5)))
    )
    failing.name = "second"
    for teachers in ([sound, failing], [failing, sound]):
        with pytest.raises(ConfigError, match=r"1 rows to train on.* 2 planned rows failed in \S+ of second: fix"):
            choose_rows(teachers, batch_size=2, val_rows=4, seed=0)
    more = [
        make_store(tmp_path / name, train=(9,), val=(3,), rows_per_shard=12, failed=failed).first
        for name, failed in (("c", ()), ("d", (9, 10)))
    ]
    more[1].name = "second"
    (said,) = choose_rows(more, batch_size=2, val_rows=4, seed=0).notes
    assert "one row is held out, and 2 are needed to score (2 of 3 planned rows failed in extract-teacher of " in said
    assert "of second), so" in said


def test_rows_that_the_user_left_out_have_not_failed(tmp_path: Path) -> None:
    teacher = make_store(tmp_path / "s.zarr", train=(4, 4), val=(5,), rows_per_shard=13, failed=(0,)).first
    with pytest.raises(ConfigError) as caught:
        choose_rows([teacher], batch_size=2, val_rows=4, seed=0, subset=RowSubset(1, 1))
    assert str(caught.value) == (
        "--train-slides 1 and --train-patches-per-slide 1: 1 of 7 rows to train on, at least 2 are needed. Give "
        "larger numbers"
    )
    empty = make_store(tmp_path / "t.zarr", train=(2,), val=(5,), rows_per_shard=7, failed=(0, 1)).first
    with pytest.raises(ConfigError, match=r"0 rows to train on.* 2 planned rows failed"):
        choose_rows([empty], batch_size=2, val_rows=4, seed=0, subset=RowSubset(1))


@pytest.mark.slow
def test_a_store_without_pixels_reads_the_slides_again_to_the_same_pixels(cohort: Path, tmp_path: Path) -> None:
    config = PlanConfig(patch_px=64, patches_per_slide=4, val_fraction=0.0)
    plan = plan_slides(read_manifest(cohort, None), config, workers=2)
    stores = {}
    for pixels in ("jpegxl", "none"):
        teacher = {"width": 2, "name": "t"}
        settings = {"rows_per_shard": plan.num_rows, "pixels": pixels, "dtype": "float32"}
        create_store(tmp_path / pixels, plan, StoreSpec(teacher, settings), versions())
        store = Store(tmp_path / pixels)
        patches = PlannedPatches(plan, None if pixels == "none" else "jpegxl", tell=print)
        with StoreWriter(store.first, patches.describe, "test") as writer:
            seen, reads = np.empty((plan.num_rows, 64, 64, 3), np.uint8), list[PatchRead]()
            for row in range(plan.num_rows):
                reads.append(patches.read(row, seen[row]))
            writer.put(range(plan.num_rows), np.ones((plan.num_rows, 2), np.float32), reads)
        assert all(read.status is Status.OK for read in reads)
        stores[pixels] = StoredRows([Store(tmp_path / pixels).first], tell=print)
    kept, read_again = (np.empty((64, 64, 3), np.uint8) for _ in range(2))
    assert plan.num_rows == 16
    for row in range(plan.num_rows):
        stores["jpegxl"].read(row, kept)
        stores["none"].read(row, read_again)
        assert np.array_equal(kept, read_again)
    assert kept.std() > 5  # tissue, not glass
    gone = StoredRows([Store(tmp_path / "none").first], slides_root=tmp_path / "nowhere", tell=print)
    with pytest.raises(
        StoreError,
        match=r"row 3 could be read for the teacher, but not now: .*nowhere.*give the folder of .* --slides-root",
    ):
        gone.read(3, kept)
