"""The parts of a fidelity score: chosen rows, the teacher's space, and what each row adds, against plain loops."""

from pathlib import Path

import numpy as np
import pytest
from support.fidelity import chosen_rows, scored, teacher_embeddings
from support.stores import make_store

from pipeline.base.errors import BenchmarkError
from pipeline.evaluate.fidelity.score import FITTED, IDENTITY, OWN, TeacherSpace, alignment, row_figures
from pipeline.projector import Projector
from pipeline.report.content import AFTER
from pipeline.store.store import Store
from pipeline.training.similarity import NUM_NEIGHBOURS


def test_the_rows_are_a_sample_by_hash(store: Store) -> None:
    few = chosen_rows(store, 10)
    assert len(few.train) == len(few.val) == 10
    assert set(few.val.tolist()) < set(chosen_rows(store).val.tolist())
    assert (few.val == np.sort(few.val)).all()
    other = chosen_rows(store, 10, seed=1)
    assert few.val.tolist() != other.val.tolist()


def test_a_store_without_held_out_rows_has_no_fidelity(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", train=(20,), val=())
    with pytest.raises(BenchmarkError, match=r"0 rows are held out.*--val-fraction"):
        chosen_rows(store)


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of all rows of both, (N, M)."""
    return (first / np.linalg.norm(first, axis=1, keepdims=True)) @ (
        second / np.linalg.norm(second, axis=1, keepdims=True)
    ).T


def test_what_each_row_adds_is_that_of_plain_loops(store: Store) -> None:
    rows, model = scored(store, "m", lambda z: np.tanh(z[:, :5]))
    space = TeacherSpace(store.first, rows)
    projected = space.project(model, space.fit_map(model))[FITTED]
    found = row_figures(space, model, projected)
    between = cosines(projected, space.val)
    own, teacher = cosines(model.val, model.val), cosines(space.plain, space.plain)
    mean = space.val.mean(0)
    for i in range(len(rows.val)):
        assert found.residual[i] == pytest.approx(((space.val[i] - projected[i]) ** 2).sum())
        assert found.total[i] == pytest.approx(((space.val[i] - mean) ** 2).sum())
        assert found.cosine[i] == pytest.approx(between[i, i])
        nearer = int((between[i] > between[i, i]).sum())
        assert (found.top1[i], found.top5[i]) == (nearer < 1, nearer < 5)
        near = [set([j for j in np.argsort(-side[i]).tolist() if j != i][:NUM_NEIGHBOURS]) for side in (own, teacher)]
        assert found.overlap[i] == pytest.approx(len(near[0] & near[1]) / NUM_NEIGHBOURS)


def test_a_space_is_standardised_by_all_training_rows(store: Store) -> None:
    """Also where few are chosen for maps."""
    few = chosen_rows(store, 4)
    space = TeacherSpace(store.first, few)
    whole = teacher_embeddings(store, np.arange(60)).astype(np.float64)
    assert space.mean == pytest.approx(whole.mean(0), abs=1e-5)
    assert space.standardise(whole).mean(0) == pytest.approx(np.zeros(12), abs=1e-4)
    assert space.standardise(whole).std(0) == pytest.approx(np.ones(12), abs=0.02)
    assert space.val.shape == space.plain.shape == (4, 12)
    assert set(space.train_cases.tolist()) <= {"case_0", "case_1", "case_2"}


def test_a_model_has_its_own_way_and_a_fitted_map(store: Store) -> None:
    rows, teacher = scored(store, "teacher", is_teacher=True)
    space = TeacherSpace(store.first, rows)
    ways = {"teacher": (teacher, [IDENTITY, FITTED])}
    options = {"named": {"role": AFTER}}
    ways["student"] = (scored(store, "s", projector=Projector(12, 12).eval(), **options)[1], [OWN, FITTED])
    ways["of another width"] = (scored(store, "w", projector=Projector(12, 7).eval(), **options)[1], [FITTED])
    ways["encoder"] = (scored(store, "e", lambda z: z[:, :5])[1], [FITTED])
    for name, (model, expected) in ways.items():
        made = space.project(model, space.fit_map(model))
        assert list(made) == expected, name
        assert all(projected.shape == space.val.shape for projected in made.values()), name
    assert np.array_equal(space.project(teacher, space.fit_map(teacher))[IDENTITY], space.val)


def test_alignment_of_the_teacher_is_1_and_of_noise_nothing_but_chance(store: Store) -> None:
    rows, teacher = scored(store, "teacher")
    rng = np.random.default_rng(0)
    _, noise = scored(store, "noise", lambda z: rng.normal(size=(len(z), 400)))
    space = TeacherSpace(store.first, rows)
    same, other = alignment(space, teacher), alignment(space, noise)
    assert (same.debiased, same.plain) == pytest.approx((1, 1), abs=1e-6)
    assert abs(other.debiased) < 0.1
    assert other.plain == pytest.approx(other.by_chance, abs=0.1)
    assert other.plain > 0.2
