"""Held-out figures against brute force, scikit-learn, and known answers."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import r2_score
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from pipeline.training import similarity as metrics
from pipeline.training.similarity import (
    correlations,
    debiased_linear_cka,
    explained_variance,
    fidelity,
    linear_cka,
    nearest_neighbours,
    neighbour_overlap,
    retrieval,
    scaled_r2,
    shuffled_cka,
)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cosines(a: Tensor, b: Tensor) -> NDArray[np.float64]:
    x, y = a.double().numpy(), b.double().numpy()
    return (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (y / np.linalg.norm(y, axis=1, keepdims=True)).T


def test_explained_variance_is_scikit_learns() -> None:
    target = draw(0, 40, 6) * torch.arange(1, 7) + 2
    predicted = target + draw(1, 40, 6)
    expected = r2_score(target.numpy(), predicted.numpy(), multioutput="variance_weighted")
    assert explained_variance(predicted, target) == pytest.approx(expected, abs=1e-6)
    assert explained_variance(target.mean(0).expand_as(target), target) == pytest.approx(0, abs=1e-6)
    assert explained_variance(target, target) == 1


@pytest.mark.parametrize("block", [7, 1024])
@pytest.mark.parametrize("top", [1, 5])
def test_retrieval_is_that_of_brute_force(top: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "BLOCK_ROWS", block)
    targets = draw(2, 50, 4)
    queries = targets + 0.7 * draw(3, 50, 4)
    similarity = cosines(queries, targets)
    hits = [i in np.argsort(-similarity[i])[:top] for i in range(50)]
    assert 0.1 < np.mean(hits) < 0.9  # the case is neither trivial nor hopeless
    assert retrieval(queries, targets, top) == pytest.approx(np.mean(hits))


def test_a_tie_counts_against_the_query() -> None:
    targets = torch.tensor([[1.0, 0], [0, 1], [1, 0], [-1, 0]])
    assert retrieval(targets, targets) == 0.5  # rows 0 and 2 cannot be told apart
    assert retrieval(targets, targets, top=2) == 1
    collapsed = torch.ones(6, 3)
    assert retrieval(collapsed, draw(4, 6, 3)) <= 1 / 6
    assert retrieval(draw(4, 6, 3), collapsed) == 0


@pytest.mark.parametrize("block", [2, 1024])
def test_nan_is_found_by_nobody(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "BLOCK_ROWS", block)
    targets = draw(4, 6, 3)
    nothing = torch.full((6, 3), torch.nan)
    assert retrieval(nothing, targets) == retrieval(targets, nothing) == retrieval(nothing, nothing) == 0
    one = targets.clone()
    one[3] = torch.nan
    assert retrieval(targets, targets) == 1
    assert retrieval(one, targets) == 5 / 6
    assert retrieval(targets, one) == 0  # a target that is NaN may be as near as the own one


@pytest.mark.parametrize("block", [7, 1024])
def test_neighbours_are_scikit_learns(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "BLOCK_ROWS", block)
    values = draw(5, 60, 5)
    found = NearestNeighbors(n_neighbors=11, metric="cosine").fit(values.numpy()).kneighbors(values.numpy())[1]
    assert np.array_equal(nearest_neighbours(values, 10).numpy(), found[:, 1:])


def test_neighbour_overlap_is_that_of_sets() -> None:
    first, second = draw(6, 60, 5), draw(6, 60, 5) + 0.5 * draw(7, 60, 5)
    a, b = nearest_neighbours(first, 10).tolist(), nearest_neighbours(second, 10).tolist()
    expected = np.mean([len(set(x) & set(y)) / 10 for x, y in zip(a, b, strict=True)])
    assert 0.2 < expected < 0.95
    assert neighbour_overlap(first, second) == pytest.approx(expected)
    assert neighbour_overlap(first[:4], first[:4]) == 1  # fewer rows than neighbours


def test_cka_is_that_of_the_kernels() -> None:
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with centred linear kernels (Kornblith et al., 2019, equation 1)."""
    x, y = draw(8, 30, 7).double().numpy(), draw(9, 30, 4).double().numpy()
    y[:, :2] += 2 * x[:, :2]
    centre = np.eye(30) - 1 / 30
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    expected = (k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum())
    assert linear_cka(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100))
def test_cka_ignores_rotation_shift_and_scale(seed: int, scale: float) -> None:
    x = draw(seed, 20, 6)
    rotation = torch.linalg.qr(draw(seed + 1, 6, 6)).Q
    assert linear_cka(x, (x @ rotation) * scale + 3) == pytest.approx(1, abs=1e-6)


def unbiased_hsic(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """HSIC_1 of Song et al. (2012), an entry of the kernels at a time."""
    n = len(x)
    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    trace = sum(k[i, j] * m[j, i] for i in range(n) for j in range(n))
    totals = sum(k[i, j] for i in range(n) for j in range(n)) * sum(m[i, j] for i in range(n) for j in range(n))
    middle = sum(k[i, j] * m[j, h] for i in range(n) for j in range(n) for h in range(n))
    return float((trace + totals / ((n - 1) * (n - 2)) - 2 * middle / (n - 2)) / (n * (n - 3)))


@pytest.mark.parametrize(("rows", "widths"), [(4, (3, 9)), (9, (5, 40)), (14, (30, 20)), (25, (7, 4))])
def test_debiased_cka_is_that_of_the_kernels(rows: int, widths: tuple[int, int]) -> None:
    x, y = draw(8, rows, widths[0]).double().numpy() + 3, draw(9, rows, widths[1]).double().numpy()
    y[:, :2] += 2 * x[:, :2]
    expected = unbiased_hsic(x, y) / np.sqrt(unbiased_hsic(x, x) * unbiased_hsic(y, y))
    assert debiased_linear_cka(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("rows", [5, 50, 225])
def test_debiased_cka_of_noise_is_0_at_any_number_of_rows(rows: int) -> None:
    draws = 40 if rows < 100 else 2
    noise = [(draw(2 * i, rows, 1280), draw(2 * i + 1, rows, 1024)) for i in range(draws)]
    found = [debiased_linear_cka(*pair) for pair in noise]
    assert np.mean(found) == pytest.approx(0, abs=4 * 1.4 / rows / np.sqrt(draws))
    assert linear_cka(*noise[0]) > 0.5  # which is what the plain one takes for much in common
    assert shuffled_cka(*noise[0]) == pytest.approx(linear_cka(*noise[0]), abs=0.02)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100), rows=st.integers(4, 30))
def test_debiased_cka_ignores_rotation_shift_and_scale(seed: int, scale: float, rows: int) -> None:
    x = draw(seed, rows, 6).double()
    rotation = torch.linalg.qr(draw(seed + 1, 6, 6).double()).Q
    assert debiased_linear_cka(x, (x @ rotation) * scale + 3) == pytest.approx(1, abs=1e-6)
    assert -1 - 1e-9 <= debiased_linear_cka(x, draw(seed + 2, rows, 3)) <= 1 + 1e-9


def test_debiased_cka_is_not_defined_without_structure() -> None:
    varied, one_row = draw(14, 20, 4), torch.full((20, 4), 0.1)
    assert np.isnan(debiased_linear_cka(varied, one_row))
    one_row[3] = 7
    assert np.isnan(debiased_linear_cka(one_row, varied))
    assert np.isnan(debiased_linear_cka(one_row, one_row))
    assert np.isnan(debiased_linear_cka(varied[:3], varied[:3]))
    assert debiased_linear_cka(varied[:4], varied[:4]) == pytest.approx(1)


def test_shuffled_cka_is_the_mean_over_all_orders() -> None:
    x, y = draw(15, 6, 3), draw(16, 6, 9)
    orders = [linear_cka(x, y[list(order)]) for order in permutations(range(6))]
    assert shuffled_cka(x, y) == pytest.approx(np.mean(orders), abs=1e-9)
    assert shuffled_cka(x, torch.ones(6, 2)) == 0


def test_identical_embeddings_are_perfect() -> None:
    teacher = draw(10, 64, 8)
    figures = fidelity(teacher, teacher, teacher, teacher)
    assert figures.rows == 64
    values = [value for name, value in figures.record().items() if name != "rows"]
    assert values == pytest.approx([1.0] * 7, abs=1e-6)


def test_independent_embeddings_are_at_chance() -> None:
    rows = 1000
    student, projected, teacher = draw(11, rows, 6), draw(12, rows, 8), draw(13, rows, 8)
    figures = fidelity(student, projected, teacher, teacher)
    assert figures.retrieval_top1 < 5 / rows
    assert figures.neighbour_overlap == pytest.approx(10 / (rows - 1), abs=0.01)
    assert figures.cka < 0.05
    assert figures.cosine == pytest.approx(0, abs=0.05)
    assert figures.correlation_mean == pytest.approx(0, abs=0.05)
    assert figures.correlation_median == pytest.approx(0, abs=0.08)
    assert figures.r2_scaled == pytest.approx(1 / (rows - 1), abs=5 / rows)
    assert figures.r2_linear is None
    assert "r2_linear" not in figures.record()


def test_what_does_not_vary_has_nothing_in_common() -> None:
    constant, varied = torch.full((20, 4), 0.1), draw(14, 20, 4)
    assert linear_cka(constant, varied) == 0
    assert linear_cka(varied, constant) == 0
    assert explained_variance(varied, constant) == 0


def test_one_patch_has_no_figures() -> None:
    with pytest.raises(ValueError, match="at least two"):
        fidelity(*(torch.ones(1, 3) for _ in range(4)))


def test_a_projection_of_correlation_r_is_not_worse_than_the_mean() -> None:
    """The fault: as wide as its target, it explains 2 r - 1 as it is; what it holds is r, and r squared once scaled."""
    rows, r = 5_000, 0.39
    target, noise = draw(21, rows, 12), draw(22, rows, 12)
    spread = torch.linspace(0.5, 3, 12)
    projected = (r * target + (1 - r * r) ** 0.5 * noise) * spread
    target = target * spread
    figures = fidelity(target, projected, target, target, mapped=r * r * target)
    assert explained_variance(projected, target) == pytest.approx(2 * r - 1, abs=0.02)
    assert figures.correlation_mean == pytest.approx(r, abs=0.01)
    assert figures.correlation_median == pytest.approx(r, abs=0.01)
    assert figures.r2_scaled == pytest.approx(r * r, abs=0.01)
    assert figures.r2_linear == pytest.approx(1 - (1 - r * r) ** 2, abs=0.01)


def test_r2_after_scaling_is_that_of_least_squares_in_each_dimension() -> None:
    projected, target = draw(23, 50, 5).double(), draw(24, 50, 5).double() * torch.arange(1, 6)
    projected = projected + target * 0.2
    fitted = [np.polyval(np.polyfit(x, y, 1), x) for x, y in zip(projected.T.numpy(), target.T.numpy(), strict=True)]
    expected = r2_score(target.numpy(), np.stack(fitted, 1), multioutput="variance_weighted")
    assert scaled_r2(projected, target) == pytest.approx(expected, abs=1e-9)
    assert scaled_r2(projected * 7 - 3, target) == pytest.approx(expected, abs=1e-9)
    found = correlations(projected, target).numpy()
    assert found == pytest.approx([np.corrcoef(projected[:, i], target[:, i])[0, 1] for i in range(5)], abs=1e-12)


def test_dimensions_that_do_not_vary_have_no_correlation() -> None:
    target = draw(25, 30, 4)
    flat = target.clone()
    flat[:, 1] = 0.3
    assert correlations(flat, target).tolist() == pytest.approx([1, 0, 1, 1])
    assert correlations(target, flat).tolist() == pytest.approx([1, 0, 1, 1])
    assert scaled_r2(target, torch.full((30, 4), 0.1)) == 0
