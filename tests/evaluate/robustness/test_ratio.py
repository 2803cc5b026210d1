"""The ratio of same class to same centre, by plain loops, and for embeddings that hold only one of them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.evaluate.bootstrap import GroupResamples
from pipeline.evaluate.robustness.index import robustness_index
from pipeline.evaluate.robustness.ratio import RATIO_K, CenterRatio, RatioCounts, ratio_tables
from pipeline.report.content import Interval

Names = NDArray[np.str_]
Columns = tuple[NDArray[np.float32], Names, Names, Names]


def patches(seed: int, num_rows: int = 90) -> Columns:
    """Embeddings, classes, centres and slides; a slide is of one centre."""
    rng = np.random.default_rng(seed)
    slide = rng.integers(9, size=num_rows)
    label = rng.integers(3, size=num_rows)
    center = slide % 3
    values = rng.normal(size=(num_rows, 6)) + rng.normal(size=(3, 6))[label] + rng.normal(size=(3, 6))[center]
    names = (
        np.array([f"{word} {code}" for code in codes]) for word, codes in (("c", label), ("m", center), ("s", slide))
    )
    return values.astype(np.float32), *names  # type: ignore[return-value]


def by_loops(columns: Columns, k: int, subsets: Names, *, with_own_slide: bool) -> tuple[list[int], list[int]]:
    values, classes, centers, slides = columns
    unit = values.astype(np.float64) / np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
    of_class, of_center = [], []
    for i in range(len(values)):
        others = [
            j
            for j in range(len(values))
            if j != i and subsets[j] == subsets[i] and (with_own_slide or slides[j] != slides[i])
        ]
        near = sorted(others, key=lambda j: -float(unit[i] @ unit[j]))[:k]
        of_class.append(sum(classes[j] == classes[i] for j in near))
        of_center.append(sum(centers[j] == centers[i] for j in near))
    return of_class, of_center


def center_ratio(
    label: str, values: NDArray[np.float32], *columns: Names, subsets: Names | None = None, k: int | None = None
) -> CenterRatio:
    """Counted while the index is."""
    ratio = CenterRatio(label, *columns)
    robustness_index(values, *columns, subsets, k, ratio.see, RATIO_K[-1])
    return ratio


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("k", [None, 1, 7])
@pytest.mark.parametrize("with_subsets", [False, True])
def test_the_counts_are_those_of_plain_loops(seed: int, k: int | None, with_subsets: bool) -> None:
    columns = patches(seed)
    rng = np.random.default_rng(seed)
    subsets = np.array(["x", "y"])[rng.integers(2, size=90)] if with_subsets else np.full(90, "all")
    found = center_ratio("a", *columns, subsets=subsets if with_subsets else None, k=k)
    for at, count in enumerate(RATIO_K):
        for counts, own in ((found.elsewhere, False), (found.anywhere, True)):
            of_class, of_center = by_loops(columns, count, subsets, with_own_slide=own)
            assert counts.same_class[:, at].tolist() == of_class
            assert counts.same_center[:, at].tolist() == of_center


def test_the_ratio_and_its_resamples_are_quotients_of_sums() -> None:
    columns = patches(2)
    found = center_ratio("a", *columns).elsewhere
    resamples = GroupResamples(columns[3], 40, 0)
    for at in range(len(RATIO_K)):
        draws = found.draws(at, resamples)
        assert draws is not None
        assert draws.value == pytest.approx(found.same_class[:, at].sum() / found.same_center[:, at].sum())
        for b in range(40):
            rows = np.repeat(np.arange(90), resamples.counts[b][resamples.group_of_row])
            expected = found.same_class[rows, at].sum() / found.same_center[rows, at].sum()
            assert draws.draws[b] == pytest.approx(expected)


def test_the_order_of_rows_changes_nothing_even_where_embeddings_are_equal() -> None:
    values, *names = patches(3)
    values = np.round(values).astype(np.float32)
    values[:, 0] += 20
    shuffle = np.random.default_rng(0).permutation(90)
    found = center_ratio("a", values, *names)
    again = center_ratio("a", values[shuffle], *(column[shuffle] for column in names))
    assert np.array_equal(again.elsewhere.same_class, found.elsewhere.same_class[shuffle])
    assert np.array_equal(again.anywhere.same_center, found.anywhere.same_center[shuffle])


def test_biology_alone_is_above_1_and_the_centre_alone_below() -> None:
    _, classes, centers, slides = patches(4)
    resamples = GroupResamples(slides, 100, 0)
    rng = np.random.default_rng(0)
    for names, is_above in ((classes, True), (centers, False)):
        codes = np.unique(names, return_inverse=True)[1]
        values = (np.eye(3)[codes] * 20 + rng.normal(size=(90, 3))).astype(np.float32)
        found = center_ratio("a", values, classes, centers, slides)
        for at in range(3):
            draws = found.elsewhere.draws(at, resamples)
            assert draws is not None
            assert (draws.value > 1.5) if is_above else (draws.value < 0.7)


def test_more_neighbours_than_there_are_give_none() -> None:
    columns = tuple(column[:12] for column in patches(5))
    found = center_ratio("a", *columns)  # type: ignore[arg-type]
    resamples = GroupResamples(columns[3], 100, 0)
    assert found.anywhere.draws(2, resamples) is not None
    assert found.anywhere.draws(3, resamples) is None  # 20 of 11 others
    (table,) = ratio_tables([found], "a", resamples)
    assert [row[1] for row in table.rows] == ["left out", "counted"]
    assert table.rows[1][-1] is None
    nothing = RatioCounts(np.ones((12, 4), np.int64), np.zeros((12, 4), np.int64))
    assert nothing.draws(0, resamples) is None


def test_tables_have_both_ways_and_paired_differences() -> None:
    columns = patches(6)
    resamples = GroupResamples(columns[3], 100, 0)
    same = center_ratio("a", *columns)
    values, less = ratio_tables([same, center_ratio("b", *columns)], "a", resamples)
    assert [row[:2] for row in values.rows] == [
        ["a", "left out"],
        ["b", "left out"],
        ["a", "counted"],
        ["b", "counted"],
    ]
    assert [column.name for column in values.columns[2:]] == ["k = 3", "k = 5", "k = 10", "k = 20"]
    assert [row[:2] for row in less.rows] == [["b", "left out"], ["b", "counted"]]
    assert {cell for row in less.rows for cell in row[2:]} == {Interval(0, 0, 0)}
