"""Linear CKA by matrices of patches, its resamples by loops over pairs, and what it must be for known embeddings."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.evaluate import cka as module
from pipeline.evaluate.bootstrap import GroupResamples, interval
from pipeline.evaluate.cka import Cka, cka_table, cka_with, resampled_groups
from pipeline.training.similarity import debiased_linear_cka, linear_cka

Floats = NDArray[np.float64]


def make(
    seed: int = 0, num_rows: int = 60, num_groups: int = 8
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.str_]]:
    """A reference, a model that shares some of it, and cases that patches of one case are alike in."""
    rng = np.random.default_rng(seed)
    case = rng.integers(num_groups, size=num_rows)
    base = rng.normal(size=(num_rows, 7)) + rng.normal(size=(num_groups, 7))[case] + 5
    like = base[:, :4] @ rng.normal(size=(4, 5)) + rng.normal(size=(num_rows, 5)) * 2
    groups = np.array([f"case {c}" for c in case])
    return {"t": base.astype(np.float32), "s": like.astype(np.float32)}, groups


def hsic_of_copies(first: Floats, second: Floats, original: NDArray[np.int64]) -> float:
    """Song's estimator up to its factor, where rows that are copies of one original make no pair."""
    kernels = []
    for side in (first, second):
        kernel = side @ side.T
        kernel[original[:, None] == original] = 0
        kernels.append(kernel)
    k, m = kernels
    n = len(first)
    total = k.sum() * m.sum() / ((n - 1) * (n - 2))
    return float(((k * m).sum() + total - 2 / (n - 2) * (k @ m).sum()) / (n * (n - 3)))


def test_both_estimates_are_those_of_training() -> None:
    embeddings, groups = make()
    found = cka_with(embeddings, "t", groups, 100, 0)["s"]
    sides = [torch.from_numpy(embeddings[name]) for name in ("s", "t")]
    assert found.debiased.value == pytest.approx(debiased_linear_cka(*sides), abs=1e-5)
    assert found.plain == pytest.approx(linear_cka(*sides), abs=1e-5)
    assert 0.2 < found.debiased.value < found.plain < 0.98


@pytest.mark.parametrize("cells", [1, 1 << 22])
def test_resamples_are_those_of_repeated_rows_that_make_no_pair_with_copies(
    cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_CELLS", cells)
    monkeypatch.setattr(module, "BLOCK_RESAMPLES", 7)
    embeddings, groups = make(1)
    found = cka_with(embeddings, "t", groups, 20, 3)["s"].debiased
    drawn = GroupResamples(groups, 20, 3)
    x, y = (embeddings[name].astype(np.float64) - embeddings[name].mean(0) for name in ("s", "t"))
    for b in range(20):
        rows = np.repeat(np.arange(len(x)), drawn.counts[b][drawn.group_of_row])
        both, of_x, of_y = (hsic_of_copies(p[rows], q[rows], rows) for p, q in ((x, y), (x, x), (y, y)))
        assert found.draws[b] == pytest.approx(both / np.sqrt(of_x * of_y), abs=1e-5)


def test_turning_moving_and_scaling_change_nothing_and_give_1() -> None:
    embeddings, groups = make(2)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(7, 7)))[0]
    turned = (embeddings["t"] @ turn * 30 - 4).astype(np.float32)
    found = cka_with({"t": embeddings["t"], "turned": turned, "s": embeddings["s"]}, "t", groups, 100, 0)
    assert found["turned"].debiased.value == pytest.approx(1, abs=1e-5)
    assert interval(found["turned"].debiased).low == pytest.approx(1, abs=1e-5)
    assert list(found) == ["turned", "s"]
    again = cka_with({"s": embeddings["s"], "turned": turned}, "turned", groups, 100, 0)["s"]
    assert again.debiased.value == pytest.approx(found["s"].debiased.value, abs=1e-5)


def test_embeddings_that_share_nothing_cover_0_where_the_plain_estimate_does_not() -> None:
    covered = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        embeddings = {name: rng.normal(size=(80, 60)).astype(np.float32) for name in "ts"}
        found = cka_with(embeddings, "t", np.repeat(np.arange(20), 4).astype(np.str_), 200, seed)["s"]
        ends = interval(found.debiased)
        covered.append(ends.low <= 0 <= ends.high)
        assert found.plain > 0.3
    assert sum(covered) >= 16


def test_more_groups_than_are_resampled_go_into_bins_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_RESAMPLED", 10)
    groups = np.repeat(np.arange(35), 3).astype(np.str_)
    bins = resampled_groups(groups, 0)
    assert len(np.unique(bins)) == 10
    assert all(len(np.unique(bins[groups == group])) == 1 for group in groups)
    assert set(np.unique(bins, return_counts=True)[1] // 3) == {3, 4}
    assert np.array_equal(bins, resampled_groups(groups, 0))
    assert not np.array_equal(bins, resampled_groups(groups, 1))
    few = np.array(["b", "a"])
    assert resampled_groups(few, 0) is few


def test_a_model_that_embeds_all_alike_has_none() -> None:
    embeddings, groups = make(3)
    flat = np.ones((60, 4), np.float32)
    found = cka_with(embeddings | {"flat": flat}, "t", groups, 100, 0)
    assert np.isnan([found["flat"].debiased.value, found["flat"].plain]).all()
    assert np.isfinite(found["s"].debiased.value)
    assert np.isnan(cka_with({"t": flat, "s": embeddings["s"]}, "t", groups, 100, 0)["s"].debiased.value)
    (table,) = cka_table(found, "t", "cases")
    assert [row[0] for row in table.rows] == ["s", "flat"]
    assert table.rows[1][2] is None


def test_few_groups_give_no_interval_and_one_model_no_table() -> None:
    embeddings, _ = make(4)
    found: Cka = cka_with(embeddings, "t", np.array(["a", "b"] * 30), 100, 0)["s"]
    assert np.isfinite(found.debiased.value)
    assert np.isnan(interval(found.debiased).low)
    assert cka_with({"t": embeddings["t"]}, "t", np.array(["a", "b"] * 30), 100, 0) == {}
    assert cka_table({}, "t", "cases") == []
