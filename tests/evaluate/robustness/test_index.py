"""The robustness index against plain loops, scikit-learn's accuracy, croma, and known answers."""

import json
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from croma import RI
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score
from support.places import ROOT
from support.robustness_patches import Patches, draw, draw_two_by_two, known

from pipeline.base.errors import BenchmarkError
from pipeline.evaluate import directions
from pipeline.evaluate.directions import GRID_BITS, grid_directions
from pipeline.evaluate.robustness import index as robustness_index
from pipeline.evaluate.robustness.index import RobustnessIndex, k_candidates


def by_loops(patches: Patches, k: int | None = None) -> dict[str, object]:
    """PathoROB's definition spelled out, a patch at a time."""
    subsets = np.full(len(patches.classes), "all") if patches.subsets is None else patches.subsets
    unit = patches.embeddings.astype(np.float64)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    neighbours: dict[int, list[int]] = {}
    for name in sorted(set(subsets.tolist())):
        rows = [i for i in range(len(unit)) if subsets[i] == name]
        width = k_candidates(len(rows))[-1] if k is None else len(rows)
        for query in rows:
            by_distance = sorted(rows, key=lambda other: float(np.linalg.norm(unit[query] - unit[other])))
            neighbours[query] = [i for i in by_distance[:width] if patches.slides[i] != patches.slides[query]]
    fewest = min(len(found) for found in neighbours.values())
    tried = [c for c in k_candidates(len(unit)) if c <= fewest] if k is None else [k]
    accuracy = {}
    for count in tried:
        of_subsets = []
        for name in sorted(set(subsets.tolist())):
            rows = [i for i in range(len(unit)) if subsets[i] == name]
            votes = []
            for query in rows:
                found = [patches.classes[i] for i in neighbours[query][:count]]
                most = max(found.count(label) for label in found)
                votes.append(min(label for label in found if found.count(label) == most))
            of_subsets.append(balanced_accuracy_score(patches.classes[rows], votes))
        accuracy[count] = float(np.mean(of_subsets))
    best = next(c for c in tried if accuracy[c] > max(accuracy.values()) - 1e-12)

    def counts(count: int) -> list[tuple[int, int]]:
        found = []
        for query in range(len(unit)):
            so = os = 0
            for i in neighbours[query][:count]:
                same_class = patches.classes[i] == patches.classes[query]
                same_center = patches.centers[i] == patches.centers[query]
                so += same_class and not same_center
                os += same_center and not same_class
            found.append((so, os))
        return found

    def ratio(pairs: list[tuple[int, int]]) -> float:
        so, os = np.sum(pairs, axis=0)
        return so / (so + os) if so + os else np.nan

    at_best = counts(best)
    return {
        "k": best,
        "value": ratio(at_best),
        "counts": at_best,
        "curve": {c: ratio(counts(c)) for c in tried},
        "accuracy": accuracy,
        "subsets": {
            name: ratio([pair for pair, own in zip(at_best, subsets, strict=True) if own == name])
            for name in sorted(set(subsets.tolist()))
        },
    }


def assert_as_loops(found: RobustnessIndex, expected: dict[str, object]) -> None:
    assert found.k == expected["k"]
    assert list(zip(found.same_class.tolist(), found.same_center.tolist(), strict=True)) == expected["counts"]
    assert found.value == pytest.approx(expected["value"], abs=1e-15, nan_ok=True)
    assert found.curve == pytest.approx(expected["curve"], abs=1e-15, nan_ok=True)
    assert found.accuracy == pytest.approx(expected["accuracy"], abs=1e-11)
    assert found.by_subset == pytest.approx(expected["subsets"], abs=1e-15, nan_ok=True)
    assert found.support == np.mean([so + os > 0 for so, os in expected["counts"]])  # type: ignore[attr-defined]


@pytest.mark.parametrize("block", [64, 1 << 23])
@pytest.mark.parametrize("seed", range(6))
def test_the_index_is_that_of_plain_loops(seed: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directions, "BLOCK_CELLS", block)
    patches = draw(seed, num_rows=40 + 7 * seed, num_classes=2 + seed % 3, biology=0.1 * seed)
    expected = by_loops(patches)
    assert_as_loops(patches.index(), expected)
    assert 0 < expected["value"] < 1  # type: ignore[operator]
    assert_as_loops(patches.index(k=7), by_loops(patches, k=7))


@pytest.mark.parametrize("seed", range(4))
def test_subsets_are_searched_apart_and_summed(seed: int) -> None:
    patches = draw_two_by_two(seed)
    found, expected = patches.index(), by_loops(patches)
    assert_as_loops(found, expected)
    assert found.subset_mean == pytest.approx(np.mean(list(expected["subsets"].values())))  # type: ignore[attr-defined]
    assert_as_loops(patches.index(k=3), by_loops(patches, k=3))


def test_one_subset_is_no_subset() -> None:
    patches = draw(3)
    named = replace(patches, subsets=np.full(60, "ID"))
    assert named.index().curve == patches.index().curve
    assert named.index().by_subset == {"ID": patches.index().value}


@pytest.mark.parametrize(("of", "value"), [("biology", 1.0), ("centre", 0.0)])
def test_embeddings_of_biology_alone_give_1_and_of_the_centre_alone_0(of: str, value: float) -> None:
    patches = known(of)
    for k in (None, 1, 5, 21):
        index = patches.index(k)
        assert index.value == value
        assert index.accuracy[index.k] == 1 if of == "biology" else index.accuracy[index.k] < 0.7
    margins = patches.margins(k=5)
    assert (index_by_croma(patches, 5), margins.mari) == (value, value)
    assert (margins.croma.value > 0.9) == (of == "biology")
    assert margins.croma_f0 == 1 - value


@pytest.mark.parametrize(("of", "value"), [("biology", 1.0), ("centre", 0.0)])
def test_exact_embeddings_of_biology_or_centre_give_1_or_0(of: str, value: float) -> None:
    """All patches of a class or centre are equally near: which of them are taken does not matter."""
    patches = known(of, noise=0.0)
    for k in (None, 1, 5, 20):
        index = patches.index(k)
        assert index.value == value
        assert index.ties.bounds == (value, value)
        assert index.ties.num_tied == 160
        assert not index.is_undecided
    assert set(patches.index(20).by_subset.values()) == {value}
    assert index_by_croma(patches, 5) == value
    one_apart = patches.embeddings.copy()
    one_apart[3] = [0.6, 0.7]
    low, high = replace(patches, embeddings=one_apart).index(5).ties.bounds
    assert low <= replace(patches, embeddings=one_apart).index(5).value <= high
    assert (low, high) == pytest.approx((value, value), abs=0.05)


def test_random_embeddings_give_what_random_neighbours_do() -> None:
    patches = draw(5, num_rows=600, num_classes=2, num_centers=2, biology=0, center=0)
    columns = (patches.classes, patches.centers, patches.slides)
    chance = robustness_index.index_of_random_neighbours(*columns)
    assert chance == pytest.approx(4 / 7, abs=0.02)  # 4 slides a centre: a quarter of OS is of the own slide
    assert patches.index(k=21).value == pytest.approx(chance, abs=0.03)
    assert np.isnan(robustness_index.index_of_random_neighbours(*np.array([["a", "a"], ["x", "x"], ["1", "2"]])))


@pytest.mark.parametrize("patches", [draw(0), draw_two_by_two(0)])
def test_what_random_neighbours_give_is_that_of_plain_loops(patches: Patches) -> None:
    so = os = 0.0
    names = patches.classes.copy() if patches.subsets is None else patches.subsets
    for query in range(len(names)):
        others = [i for i in range(len(names)) if patches.subsets is None or names[i] == names[query]]
        others = [i for i in others if patches.slides[i] != patches.slides[query]]
        pairs = [
            (patches.classes[i] == patches.classes[query], patches.centers[i] == patches.centers[query]) for i in others
        ]
        so += pairs.count((True, False)) / len(others)
        os += pairs.count((False, True)) / len(others)
    columns = (patches.classes, patches.centers, patches.slides, patches.subsets)
    assert robustness_index.index_of_random_neighbours(*columns) == pytest.approx(so / (so + os))


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), coarse=st.booleans(), two_by_two=st.booleans())
def test_the_order_of_rows_does_not_matter(seed: int, coarse: bool, two_by_two: bool) -> None:
    patches = draw_two_by_two(seed) if two_by_two else draw(seed)
    if coarse:  # many patches are equally near, some are the same
        patches = replace(patches, embeddings=np.rint(patches.embeddings[:, :2]) + 0.25)
    rows = np.random.default_rng(seed).permutation(len(patches.classes))
    first, second = patches.index(), patches.take(rows).index()
    said = [
        repr((r.k, r.curve, r.accuracy, r.by_subset, r.ties.num_tied, r.ties.bounds))  # NaN is NaN in words
        for r in (first, second)
    ]
    assert said[0] == said[1]
    if not coarse:
        assert first.same_class[rows].tolist() == second.same_class.tolist()
        assert first.same_center[rows].tolist() == second.same_center.tolist()


def test_a_slides_own_patches_are_no_neighbours() -> None:
    """Two slides of each centre. Nearest to every patch is one of its own slide, which would count as OS."""
    places = {("1", "a"): 0.0, ("1", "b"): 0.1, ("3", "a"): -0.5, ("3", "b"): 0.6}
    places |= {("2", label): 3.0 + at for (slide, label), at in places.items() if slide == "1"}
    places |= {("4", label): 3.0 + at for (slide, label), at in places.items() if slide == "3"}
    slides, classes = (np.array(column) for column in zip(*places, strict=True))
    at = np.array(list(places.values()))
    centers = np.where(np.isin(slides, ["1", "2"]), "x", "y")
    patches = Patches(np.stack([np.cos(at), np.sin(at)], axis=1), classes, centers, slides)
    assert patches.index(k=1).value == 1
    apart = replace(patches, slides=np.array([f"{slide}{label}" for slide, label in places]))
    assert apart.index(k=1).same_center[:2].tolist() == [1, 1]  # as slides of their own, they are neighbours


def test_candidates_for_k() -> None:
    assert k_candidates(40) == [1, 3, 5, 7, 9, 11, 21, 31]
    assert k_candidates(11) == [1, 3, 5, 7, 9, 11]
    assert k_candidates(1) == [1]
    assert k_candidates(10**6)[-2:] == [981, 991]
    assert len(k_candidates(10**6)) == 104


def test_the_first_of_the_best_k_is_taken() -> None:
    index = known("biology").index()
    assert list(index.accuracy.values())[:5] == [1.0] * 5
    assert index.k == 1


def test_k_goes_as_far_as_the_patch_with_the_fewest_neighbours_left() -> None:
    """31 nearest of 40 patches are looked at; those of the own slide are dropped from them, and nothing fills up."""
    patches = draw(8, num_rows=40, slides_a_center=1, num_centers=3, center=3.0)
    index = patches.index()
    unit = patches.embeddings / np.linalg.norm(patches.embeddings, axis=1, keepdims=True)
    order = np.argsort(-(unit @ unit.T), axis=1)[:, :31]
    fewest = (patches.slides[order] != patches.slides[:, None]).sum(1).min()
    assert list(index.curve) == [k for k in k_candidates(40) if k <= fewest]
    assert fewest < 40 - np.unique(patches.slides, return_counts=True)[1].max()  # the rule is stricter than there are


def test_a_given_k_may_use_all_other_slides_and_no_more() -> None:
    patches = draw(8, num_rows=40, slides_a_center=1, center=3.0)
    most = 40 - int(np.unique(patches.slides, return_counts=True)[1].max())
    assert_as_loops(patches.index(k=most), by_loops(patches, k=most))
    with pytest.raises(BenchmarkError, match=f"k = {most + 1}: some patch has only {most} patches of other slides"):
        patches.index(k=most + 1)


def test_slides_larger_than_the_search_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A patch whose nearest are all of its own slide leaves PathoROB without a k."""
    monkeypatch.setattr(robustness_index, "MAX_K", 12)
    patches = draw(2, num_rows=80, slides_a_center=1, num_centers=2, center=9.0)
    index = patches.index()
    assert index.notes == (
        "some patch has only patches of its own slide near it; k went as far as every patch has others",
    )
    assert index.curve == pytest.approx({k: patches.index(k).value for k in k_candidates(80)})
    assert draw(2).index().notes == ()


def test_embeddings_without_any_difference_have_no_index() -> None:
    patches = replace(draw(0), embeddings=np.ones((60, 4)))
    index = patches.index(k=5)
    assert np.isnan(index.value)
    assert index.ties.num_tied == index.num_queries == 60
    assert index.is_undecided
    low, high = index.ties.bounds
    assert low < 0.2 < 0.8 < high
    assert draw(0).index().ties.num_tied == 0
    one_apart = patches.embeddings.copy()
    one_apart[7, 0] = 2
    assert np.isnan(replace(patches, embeddings=one_apart).index(k=5).value)
    alone = replace(patches, slides=np.arange(60).astype(str))
    assert alone.index(k=59).ties.num_tied == 0  # all others count, in whatever order
    assert alone.index(k=59).value == replace(draw(0), slides=alone.slides).index(k=59).value


def test_an_index_without_neighbours_that_count_is_none() -> None:
    """Nearest is always the same class of the same centre."""
    rng = np.random.default_rng(0)
    cell = np.repeat(np.arange(4), 10)
    patches = Patches(
        np.eye(4)[cell] + 1e-3 * rng.standard_normal((40, 4)),
        np.array(list("aabb"))[cell],
        np.array(list("xyxy"))[cell],
        np.array([f"{c}{i % 5}" for i, c in enumerate(cell)]),
    )
    index = patches.index(k=3)
    assert np.isnan(index.value)
    assert index.support == 0
    assert RI.compute_curve(patches.embeddings, table(patches), confounder_column="center", k_values=[3]) == {3: 0.5}


@pytest.mark.parametrize(("value", "words"), [(np.nan, "NaN or infinity"), (np.inf, "NaN"), (0.0, "zero and point")])
def test_embeddings_that_are_none_are_refused(value: float, words: str) -> None:
    values = draw(0).embeddings.copy()
    values[[7, 9]] = value
    with pytest.raises(BenchmarkError, match=rf"2 of 60 embeddings .*{words}.* number 8"):
        replace(draw(0), embeddings=values).index()


def test_a_single_slide_is_refused() -> None:
    with pytest.raises(BenchmarkError, match="'b' has patches of one slide only"):
        replace(draw(0), slides=np.repeat(["1", "2", "1"], 20), subsets=np.repeat(["a", "a", "b"], 20)).index()


def table(patches: Patches) -> pd.DataFrame:
    columns = {"label": patches.classes, "center": patches.centers, "group_id": patches.slides}
    if patches.subsets is not None:
        columns["subset"] = patches.subsets
    rows = [str(i) for i in range(len(patches.classes))]
    return pd.DataFrame({"sample_id": rows, "image_path": rows, **columns})


def index_by_croma(patches: Patches, k: int) -> float:
    """The index as the package croma counts it, on the same grid of directions."""
    design = "all" if patches.subsets is None else "paired_2x2"
    values = grid_directions(patches.embeddings) / 2.0**GRID_BITS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of support, which is not asked about
        curve = RI.compute_curve(
            values, table(patches), confounder_column="center", evaluation_design=design, k_values=[k]
        )
    return float(curve[k])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("two_by_two", [False, True])
def test_croma_counts_the_same(two_by_two: bool, seed: int) -> None:
    patches = draw_two_by_two(seed) if two_by_two else draw(seed, num_rows=150)
    index = patches.index()
    margins = patches.margins(index.k)
    assert index_by_croma(patches, index.k) == pytest.approx(index.value, abs=1e-12)
    assert 0 < margins.mari < 1
    assert margins.mari_median.low <= margins.mari_median.value <= margins.mari_median.high


def test_the_k_of_croma_depends_on_the_order_of_rows() -> None:
    """Why k is chosen here: in croma a tied vote goes to the class that comes first in the table."""
    patches = draw(12, num_rows=40, num_classes=4, biology=1.0)
    found = []
    for rows in (np.arange(40), np.arange(40)[::-1]):
        moved = patches.take(rows)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of support, which is not asked about
            of_croma = RI.compute(moved.embeddings, table(moved), confounder_column="center", k_candidates=[1, 3, 5, 7])
        found.append((of_croma.k, moved.index().k))
    assert found[0][0] != found[1][0]
    assert found[0][1] == found[1][1] == by_loops(patches)["k"]


def test_croma_leaves_the_farthest_patch_out() -> None:
    """Why the index is counted here: croma asks for one neighbour too few where all are wanted."""
    patches = replace(draw(3, num_rows=21), slides=np.array([f"{i:02d}" for i in range(21)]))
    values = {k: patches.index(k).value for k in (5, 20)}
    assert values == {k: by_loops(patches, k)["value"] for k in (5, 20)}
    of_croma = RI.compute_curve(patches.embeddings, table(patches), confounder_column="center", k_values=[5, 20])
    assert of_croma[5] == pytest.approx(values[5])
    assert of_croma[20] != pytest.approx(values[20])


LARGE = """
import json, resource, time
import numpy as np
from pipeline.evaluate.robustness.index import robustness_index
rng = np.random.default_rng(0)
label, center = rng.integers(4, size=20_000), rng.integers(5, size=20_000)
slide = center * 40 + rng.integers(40, size=20_000)
values = rng.standard_normal((20_000, 1024)) + 0.3 * rng.standard_normal((4, 1024))[label]
values = values.astype(np.float32)
started = time.monotonic()
index = robustness_index(values, label.astype(str), center.astype(str), slide.astype(str))
print(json.dumps({"seconds": time.monotonic() - started, "value": index.value,
                  "gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}))
"""


@pytest.mark.slow
@pytest.mark.alone
def test_20000_patches_take_little_time_and_memory() -> None:
    root = ROOT
    run = subprocess.run([sys.executable, "-c", LARGE], cwd=root, capture_output=True, text=True, check=True)
    found = json.loads(run.stdout)
    assert found["gb"] < 2.5
    assert found["seconds"] < 80  # 25 s on two cores
    assert found["value"] > 0.5
