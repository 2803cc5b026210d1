"""The tables of a patch benchmark, of probes whose scores are known."""

from dataclasses import replace

import numpy as np
import pytest
from support.patch_sets import make_set, options

from pipeline.evaluate.bootstrap import Draws
from pipeline.evaluate.patch_benchmark.data import PatchSet
from pipeline.evaluate.patch_benchmark.score import (
    KNN,
    LINEAR,
    PATCH_METRICS,
    PatchBench,
    ScoredModel,
    center_tables,
    composition_table,
    count_names,
    few_shot_tables,
    probe_differences,
    probe_tables,
)
from pipeline.evaluate.patch_benchmark.section import patch_bench
from pipeline.evaluate.probes.few_shot import FewShot
from pipeline.evaluate.probes.linear_probe import Probed
from pipeline.report.content import Interval


def bench_of(patch_set: PatchSet) -> PatchBench:
    return patch_bench(patch_set, options(resamples=100))


def model_of(bench: PatchBench, label: str, share: float, value: float) -> ScoredModel:
    """A model whose every score is `value`; its probes are right for that `share` of each class and centre."""
    truth, num_classes = bench.task.truth, len(bench.task.classes)
    centers = bench.patch_set.centers
    chosen = truth.copy()
    for name in np.unique(truth):
        for center in [""] if centers is None else np.unique(centers):
            inside = np.flatnonzero((truth == name) & (True if centers is None else centers == center))
            wrong = inside[round(share * len(inside)) :]
            chosen[wrong] = (name + 1) % num_classes
    draws = {key: Draws(value, np.full(100, value)) for key in PATCH_METRICS}
    shots = dict.fromkeys(bench.examples.shots, draws["auroc"])
    few: dict[int, FewShot] = {}
    probed = Probed(np.eye(num_classes)[chosen])
    return ScoredModel(label, {LINEAR: probed, KNN: probed}, {LINEAR: draws, KNN: draws}, few, shots)


@pytest.fixture(scope="module")
def bench() -> PatchBench:
    return bench_of(make_set())


def test_every_model_has_a_row_in_the_table_of_each_probe(bench: PatchBench) -> None:
    models = [model_of(bench, "a", 1, 0.9), model_of(bench, "b", 1, 0.7)]
    linear, knn = probe_tables(models, replace(bench, knn=7))
    assert (linear.title, knn.title) == ("Linear probe", "kNN, 7 neighbours")
    for table in (linear, knn):
        assert [row[0] for row in table.rows] == ["a", "b"]
        assert [row[1] for row in table.rows] == [Interval(0.9, 0.9, 0.9), Interval(0.7, 0.7, 0.7)]
        assert [column.better for column in table.columns[1:4]] == ["higher"] * 3
    assert all(column.what for column in linear.columns[1:])
    assert not any(column.what for column in knn.columns)  # said once


def test_differences_are_from_the_reference_wherever_it_stands(bench: PatchBench) -> None:
    models = [model_of(bench, label, 1, value) for label, value in (("a", 0.5), ("base", 0.75), ("b", 1.0))]
    (table,) = probe_differences(models, "base")
    assert table.title == "Difference from base"
    assert [row[:2] for row in table.rows] == [["a", LINEAR], ["a", KNN], ["b", LINEAR], ["b", KNN]]
    assert [row[2] for row in table.rows] == [Interval(d, d, d) for d in (-0.25, -0.25, 0.25, 0.25)]
    assert table.note.startswith("Value less that of base")
    assert probe_differences(models[1:2], "base") == []
    values, less = few_shot_tables(models, "base", bench)
    assert len(values.rows) == 3
    assert [row[0] for row in less.rows] == ["a", "b"]
    assert {cell for row in less.rows for cell in row[1:]} == {
        Interval(-0.25, -0.25, -0.25),
        Interval(0.25, 0.25, 0.25),
    }
    assert len(few_shot_tables(models[1:2], "base", bench)) == 1


def test_a_centre_is_scored_by_its_own_patches(bench: PatchBench) -> None:
    (table,) = center_tables([model_of(bench, "all", 1, 0), model_of(bench, "half", 0.5, 0)], bench)
    assert [row[:2] for row in table.rows] == [[c, m] for c in ("north", "south") for m in ("all", "half")]
    centers, groups = bench.patch_set.centers, bench.patch_set.groups
    assert centers is not None
    assert groups is not None
    for center, _, patches, cases, classes, accuracy in table.rows:
        assert patches == (centers == center).sum()
        assert cases == len(np.unique(groups[centers == center]))
        assert classes == 3
        assert isinstance(accuracy, Interval)
    assert [row[5].value for row in table.rows] == pytest.approx([1, 0.5, 1, 0.5], abs=0.02)


@pytest.mark.parametrize("centers", [None, ["north"] * 240, ["north"] * 200 + [""] * 40])
def test_fewer_than_two_centres_are_no_table(centers: list[str] | None) -> None:
    bench = bench_of(make_set(centers=None if centers is None else np.array(centers)))
    assert center_tables([model_of(bench, "a", 1, 0)], bench) == []


def test_the_composition_counts_patches_groups_centres_and_sides() -> None:
    patch_set = make_set()
    assert patch_set.groups is not None
    splits = np.where(np.char.endswith(patch_set.groups, "3"), "test", "train")
    whole = replace(patch_set, splits=splits)
    table = composition_table(bench_of(whole))
    assert [column.name for column in table.columns] == [
        "class",
        "patches",
        "cases",
        "centres",
        "of train",
        "of val",
        "of test",
    ]
    for name, patches, cases, centers, train, val, test in table.rows:
        own = whole.labels == name
        assert patches == own.sum() == train + test
        assert cases == len(set(patch_set.groups[own].tolist()))
        assert (centers, val, test) == (2, 0, (own & (splits == "test")).sum())
    plain = composition_table(bench_of(make_set(groups=None, group_column="", centers=None)))
    assert [column.name for column in plain.columns] == ["class", "patches"]


def test_names_are_counted_without_the_missing_one() -> None:
    assert count_names(np.array(["a", "", "b", "a"])) == 2
    assert count_names(np.array(["", ""])) == 0
