"""Paired robustness against plain loops, and known answers."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.base.errors import BenchmarkError
from pipeline.evaluate import directions
from pipeline.evaluate.robustness.pairs import KINDS, SAME, TOP, PairedRobustness, leaderboard_metric, paired_robustness

Floats = NDArray[np.floating]


def by_loops(first: Floats, second: Floats) -> tuple[float, tuple[float, ...]]:
    """plismbench's definition for patches (n, D) of two slides, a patch at a time; a tie counts as a rival."""
    both = np.concatenate([first, second]).astype(np.float64)
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    n = len(first)
    cosine = np.mean([both[i] @ both[n + i] for i in range(n)])
    directions_of = []
    for queries, shift in ((range(n), n), (range(n, 2 * n), -n)):
        ranks = []
        for query in queries:
            own = both[query] @ both[query + shift]
            others = [i for i in range(2 * n) if i not in (query, query + shift)]
            ranks.append(sum(both[query] @ both[i] >= own - 1e-12 for i in others))
        directions_of.append([np.mean([rank < k for rank in ranks]) for k in TOP])
    return float(cosine), tuple(np.mean(directions_of, axis=0).tolist())


def draw(seed: int, slides: list[str], num_places: int = 30, noise: float = 1.0, dim: int = 6):  # type: ignore[no-untyped-def]
    """Embeddings of the same places on slides named scanner-staining; arguments of `paired_robustness`."""
    rng = np.random.default_rng(seed)
    tissue = rng.standard_normal((num_places, dim))
    values = np.concatenate([tissue + noise * rng.standard_normal((num_places, dim)) for _ in slides])
    names = np.repeat(slides, num_places)
    places = np.tile([f"{i}_0" for i in range(num_places)], len(slides))
    scanners, stainings = (np.array([name.split("-")[i] for name in names]) for i in (0, 1))
    return [values.astype(np.float32), names, places, scanners, stainings]


@pytest.mark.parametrize("block", [40, 1 << 23])
@pytest.mark.parametrize(("noise", "num_places"), [(0.2, 30), (1.0, 30), (3.0, 30), (1.0, 3), (1.0, 1)])
def test_a_pair_is_scored_as_by_plain_loops(
    noise: float, num_places: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directions, "BLOCK_CELLS", block)
    data = draw(0, ["A-H", "B-H", "A-M"], num_places, noise)
    found = paired_robustness(*data)
    assert [(pair.first, pair.second) for pair in found.pairs] == [("A-H", "A-M"), ("A-H", "B-H"), ("A-M", "B-H")]
    for pair in found.pairs:
        cosine, top = by_loops(data[0][data[1] == pair.first], data[0][data[1] == pair.second])
        assert pair.cosine == pytest.approx(cosine, abs=1e-7)
        assert pair.top == pytest.approx(top, abs=1e-12)
        assert (pair.num_places, pair.num_missing) == (num_places, 0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_ties_count_against_the_model_and_rows_may_come_in_any_order(seed: int) -> None:
    data = draw(seed, ["A-H", "B-M"], num_places=14, dim=2)
    rng = np.random.default_rng(seed)
    data[0] = np.array([[3, 4], [4, 3], [-3, 4], [4, -3]])[rng.integers(4, size=28)]  # four directions: mostly ties
    (pair,) = paired_robustness(*data).pairs
    cosine, top = by_loops(data[0][:14], data[0][14:])
    assert (pair.cosine, pair.top) == (pytest.approx(cosine, abs=1e-7), pytest.approx(top))
    order = rng.permutation(28)
    assert paired_robustness(*(column[order] for column in data)).pairs == (pair,)


def test_a_slide_is_recognised_in_its_copy() -> None:
    data = draw(3, ["A-H", "B-H"], noise=0)
    (pair,) = paired_robustness(*data).pairs
    assert pair.cosine == pytest.approx(1, abs=1e-15)
    assert pair.top == (1.0,) * 4


def test_embeddings_that_are_all_the_same_recognise_nothing() -> None:
    data = draw(0, ["A-H", "B-H"])
    data[0] = np.ones_like(data[0])
    (pair,) = paired_robustness(*data).pairs
    assert pair.cosine == pytest.approx(1)
    assert pair.top == (0.0,) * 4


def test_embeddings_of_the_slide_alone_recognise_nothing() -> None:
    data = draw(0, ["A-H", "B-H"], noise=0.01)
    data[0] += 100 * np.where(data[1] == "A-H", 1, -1)[:, None]
    (pair,) = paired_robustness(*data).pairs
    assert pair.cosine < -0.9
    assert pair.top == (0.0,) * 4


def test_pairs_are_sorted_by_what_differs() -> None:
    slides = [f"{scanner}-{staining}" for scanner in "ABC" for staining in "HM"]
    found = paired_robustness(*draw(1, slides))
    expected = {kind: [] for kind in (*KINDS, SAME)}  # type: ignore[var-annotated]
    for a, b in combinations(slides, 2):
        differs = (a[0] != b[0], a[2] != b[2])
        kind = {(True, False): KINDS[1], (False, True): KINDS[2], (True, True): KINDS[3]}[differs]
        pair = next(pair for pair in found.pairs if (pair.first, pair.second) == (a, b))
        assert pair.kind == kind
        expected[kind].append(pair)
        expected["all"].append(pair)
    for kind in KINDS:
        summary = found.summary(kind)
        assert summary is not None
        cosines, tops = [p.cosine for p in expected[kind]], [p.top for p in expected[kind]]
        assert summary.num_pairs == {"all": 15, KINDS[1]: 6, KINDS[2]: 3, KINDS[3]: 6}[kind]
        assert (summary.mean_cosine, summary.median_cosine) == pytest.approx((np.mean(cosines), np.median(cosines)))
        assert summary.mean_top == pytest.approx(np.mean(tops, axis=0))
        assert summary.median_top == pytest.approx(np.median(tops, axis=0))
    medians = [np.median([p.cosine for p in found.pairs])]
    medians += [np.median([p.top[3] for p in expected[kind]]) for kind in KINDS[1:]]
    assert found.leaderboard == pytest.approx(np.mean(medians))


def test_the_leaderboard_metric_is_plismbenchs() -> None:
    assert round(leaderboard_metric(0.800, 0.864, 0.318, 0.183), 3) == 0.541  # H0-mini
    assert round(leaderboard_metric(0.777, 0.609, 0.306, 0.163), 3) == 0.464  # Virchow2


def test_where_only_the_scanner_varies() -> None:
    data = draw(1, ["A-H", "B-H", "C-H"])
    data[4] = np.full(len(data[0]), "")
    found = paired_robustness(*data)
    assert {pair.kind for pair in found.pairs} == {KINDS[1]}
    assert found.summary(KINDS[2]) is None
    assert found.leaderboard is None


def test_a_scan_of_the_same_kind_counts_among_all() -> None:
    data = draw(1, ["A-H", "B-H"])
    data[3][:] = "A"
    found = paired_robustness(*data)
    assert [pair.kind for pair in found.pairs] == [SAME]
    assert found.overall.num_pairs == 1
    assert [found.summary(kind) for kind in KINDS[1:]] == [None, None, None]


def test_places_on_one_slide_only_are_left_out() -> None:
    values, slides, places, *rest = draw(2, ["A-H", "B-H", "C-H"], num_places=20)
    places = np.where((slides == "A-H") & np.isin(places, ["0_0", "7_0"]), "elsewhere " + places, places)
    places = np.where(slides == "C-H", "other tissue " + places, places)
    (pair,) = paired_robustness(values, slides, places, *rest).pairs
    keep = np.array([i not in (0, 7) for i in range(20)])
    cosine, top = by_loops(values[:20][keep], values[20:40][keep])
    assert (pair.first, pair.second, pair.num_places, pair.num_missing) == ("A-H", "B-H", 18, 4)
    assert (pair.cosine, pair.top) == (pytest.approx(cosine, abs=1e-7), pytest.approx(top))
    with pytest.raises(BenchmarkError, match="no two slides share a patch_id"):
        paired_robustness(values, slides, np.arange(60).astype(str), *rest)


def test_numbers_that_are_none_are_refused() -> None:
    data = draw(0, ["A-H", "B-H"])
    data[0][4, 1] = np.nan
    with pytest.raises(BenchmarkError, match="1 of 60 embeddings hold NaN or infinity, the first is number 5"):
        paired_robustness(*data)


def test_every_pair_is_a_step() -> None:
    steps: list[int] = []
    found = paired_robustness(*draw(0, ["A-H", "B-H", "C-H", "D-H"]), step=lambda: steps.append(1))
    assert len(steps) == len(found.pairs) == 6
    assert isinstance(found, PairedRobustness)
