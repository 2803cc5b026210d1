"""The tables of robustness: the index, its parts, differences at the same k, and pairs of slides."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.robustness_patches import draw
from support.robustness_sets import models_of, rows_of, section_of, write

from pipeline.evaluate.bootstrap import GroupResamples
from pipeline.evaluate.robustness.data import IndexRows, RobustnessSet
from pipeline.evaluate.robustness.margins import NOT_COUNTED
from pipeline.evaluate.robustness.pairs import KINDS, PairedRobustness, SlidePair
from pipeline.evaluate.robustness.tables import (
    ScoredIndex,
    index_draws,
    index_notes,
    index_score,
    paired_notes,
    paired_score,
    paired_tables,
)


def test_few_slides_give_no_intervals(tmp_path: Path) -> None:
    rows = [
        {
            "slide_id": f"{center}{slide}",
            "patch_id": str(patch),
            "medical_center": center,
            "biological_class": "ab"[patch % 2],
            "path": f"{center}{slide}_{patch}.png",
        }
        for center in "xy"
        for slide in range(3)
        for patch in range(6)
    ]
    for chosen, given in ((rows, True), ([row for row in rows if row["slide_id"] not in ("x2", "y2")], False)):
        data = write(tmp_path / "few.csv", chosen)
        section = section_of(data, models_of(data), "none", k=3)
        for title, column in (
            ("Robustness index", "index"),
            ("Robustness index by class", "none"),
            ("Margins", "MaRI, median patch"),
        ):
            assert (rows_of(section, title)[0][column]["low"] is not None) == given
        by_centre = rows_of(section, "Robustness index by centre")[0]["none"]  # three slides, or two
        assert by_centre["value"] is not None
        assert by_centre["low"] is None
        assert ("Intervals need at least 5 slides; with 4 none is given." in section.notes) == (not given)
        assert not any("resamples of slides have no index" in note for note in section.notes)


def test_parts_add_up(index_set: RobustnessSet) -> None:
    section = section_of(index_set, models_of(index_set), "none", k=5)
    for title, count in (("class", 2), ("centre", 3)):
        parts = rows_of(section, f"Robustness index by {title}")
        assert len(parts) == count
        assert sum(part["number of patches"] for part in parts) == 144
        values = [part["none"]["value"] for part in parts]
        assert min(values) <= rows_of(section, "Robustness index")[2]["index"]["value"] <= max(values)
    assert [row["k"] for row in rows_of(section, "Robustness index")] == [5, 5, 5]
    assert section.settings["k"] == 5
    assert not any("k is chosen" in note for note in section.notes)


def test_differences_at_the_same_k_are_those_of_that_k(index_set: RobustnessSet) -> None:
    """At each k the table has what the headline has when that k is asked for."""
    table = rows_of(section_of(index_set, models_of(index_set), "none"), "Difference from none at the same k")
    assert [row["k"] for row in table] == [1, 3, 5, 11, 21, 51, 101]
    assert list(table[0]) == ["k", "class", "centre"]
    for row in (table[1], table[3]):
        section = section_of(index_set, models_of(index_set), "none", k=row["k"], with_margins=False)
        headline = rows_of(section, "Robustness index")
        assert [line["difference"] for line in headline] == [row["class"], row["centre"], None]


@pytest.mark.parametrize("named", ["{center}{label}{slide}", "{label}{center}{slide}"])
def test_where_names_would_decide_there_is_a_dash_at_that_k(tmp_path: Path, named: str) -> None:
    """Embeddings of class and centre only: all patches of a class and centre are the same, and so are all distances
    between two such cells. How slides are called decides at k = 21 and 51; at 101 a place is left for no choice.
    """
    rows = [
        {
            "slide_id": named.format(center=center, label=label, slide=slide),
            "patch_id": f"{label}{patch}",
            "biological_class": label,
            "medical_center": center,
            "path": f"{label}{center}{slide}{patch}.png",
        }
        for label in "abc"
        for center in "xy"
        for slide in range(4)
        for patch in range(5)
    ]
    data = write(tmp_path / "tied.csv", rows)
    assert data.index is not None
    codes = [np.unique(of, return_inverse=True)[1] for of in (data.index.classes, data.index.centers)]
    values = np.zeros((len(data.paths), 5), np.float32)
    values[data.index.images] = np.concatenate([np.eye(3)[codes[0]], np.eye(2)[codes[1]]], axis=1)
    section = section_of(data, {"T": values, "S": values.copy()}, "T", with_margins=False)
    for row in rows_of(section, "Robustness index at the same k"):
        assert [row[f"k = {k}"] for k in (1, 21, 51)] == [None, None, None]
        assert row["k = 101"] == pytest.approx(1 / 3)
    differences = {row["k"]: row["S"] for row in rows_of(section, "Difference from T at the same k")}
    assert differences[51] is None
    assert differences[101]["value"] == 0


def test_identical_models_differ_by_nothing(index_set: RobustnessSet) -> None:
    values = models_of(index_set)["class"]
    section = section_of(index_set, {"T": values, "S": values.copy()}, "T")
    assert rows_of(section, "Robustness index")[1]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}


@pytest.mark.slow
def test_a_model_without_an_index_has_none_and_says_why(index_set: RobustnessSet) -> None:
    models = models_of(index_set) | {"flat": np.ones((144, 4), np.float32)}
    section = section_of(index_set, models, "flat", k=3)
    flat = rows_of(section, "Robustness index")[3]
    assert flat["index"] is None
    assert rows_of(section, "Robustness index")[0]["difference"] is None
    assert rows_of(section, "Margins")[3]["CRoMa"] is None
    assert "flat" not in section.scores[0].values
    (note,) = [note for note in section.notes if note.startswith("flat: ")]
    assert note.startswith("flat: no index: around every patch others are equally near, and nothing but the order of")
    chosen = section_of(index_set, models, "flat")
    assert set(rows_of(chosen, "Robustness index at the same k")[3].values()) == {"flat", None}
    assert not any(table.title == "Difference from flat at the same k" for table in chosen.tables)


def test_pairs_of_slides(paired_set: RobustnessSet) -> None:
    rows = paired_set.paired
    assert rows is not None
    rng = np.random.default_rng(0)
    tissue = rng.standard_normal((12, 8))
    place = np.empty((len(paired_set.paths), 8))
    place[rows.images] = tissue[rows.places.astype(int)]
    stain = np.empty_like(place)
    stain[rows.images] = rng.standard_normal((3, 8))[np.unique(rows.stainings, return_inverse=True)[1]]
    models = {"tissue": place, "stain": place + 30 * stain}
    section = section_of(paired_set, {k: v.astype(np.float32) for k, v in models.items()}, "tissue")
    table = rows_of(section, "Same tissue, scanned and stained anew")
    assert list(table[0].values())[1:] == pytest.approx([1, 1, 1, 1, 1])
    assert table[1]["top-10, cross-scanner"] == 1
    assert table[1]["leaderboard"] < 0.6
    details = rows_of(section, "All figures of the pairs of slides")
    numbers = {(row["model"], row["pairs"]): row["number"] for row in details}
    assert numbers["stain", "all"] == 15
    assert numbers["stain", "cross-scanner"] == 3
    assert numbers["stain", "cross-staining"] == numbers["stain", "cross both"] == 6
    assert section.basis == {
        "images": 71,
        "slides of the same tissue": 6,
        "scanners": 2,
        "stainings": 3,
        "places": 12,
        "pairs of slides": 15,
    }
    assert section.scores[0].values["tissue"].value == pytest.approx(1)
    assert list(section.scores[0].differences) == ["stain"]
    assert section.scores[0].differences["stain"].value == pytest.approx(table[1]["leaderboard"] - 1)
    assert np.isnan(section.scores[0].differences["stain"].low)
    assert section.notes == [
        "Pairs of slides share at least 11 places; of so few, chance alone finds 10 of 21 patches.",
        "In 5 pairs of slides a place is on one of them only; 5 such were left out.",
    ]
    json.dumps(section.record(), allow_nan=False)


def scored_index(label: str, **changes: Any) -> tuple[IndexRows, ScoredIndex]:
    """The index of drawn patches at k = 5, without margins."""
    patches = replace(draw(0, num_rows=90), **changes)
    rows = IndexRows(np.arange(90), patches.slides, patches.classes, patches.centers, None)
    index = patches.index(5)
    draws = None
    if not np.isnan(index.value):
        draws = index_draws(index.same_class, index.same_center, GroupResamples(patches.slides, 100, 0))
    return rows, ScoredIndex(label, index, NOT_COUNTED, draws)


def test_a_resample_of_the_index_sums_before_it_divides() -> None:
    so, os, slides = np.array([1, 0, 4, 2, 3, 1]), np.array([0, 3, 1, 2, 1, 5]), np.array(list("aabcde"))
    resamples = GroupResamples(slides, 50, 1)
    found = index_draws(so, os, resamples)
    assert found.value == 11 / 23
    for drawn, counts in zip(found.draws, resamples.counts, strict=True):
        weights = counts[resamples.group_of_row]
        assert drawn == pytest.approx((weights * so).sum() / (weights * (so + os)).sum())


def test_the_score_leaves_models_without_an_index_out() -> None:
    rows, sound = scored_index("sound")
    _, flat = scored_index("flat", embeddings=np.ones((90, 4)))
    assert index_score(rows, [flat], "flat") is None
    score = index_score(rows, [sound, flat], "flat")
    assert score is not None
    assert (list(score.values), score.differences) == (["sound"], {})
    assert score.values["sound"].value == sound.index.value
    both = index_score(rows, [sound, replace(sound, label="again")], "sound")
    assert both is not None
    assert [(d.value, d.low, d.high) for d in both.differences.values()] == [(0, 0, 0)]
    notes = index_notes(0, [sound, flat], 12)
    assert [note.split(":")[0] for note in notes if note.startswith("flat")] == ["flat"]
    assert index_notes(1234, [sound], 40) == ["1,234 rows of subset OOD do not count for the index, as in PathoROB."]


def pair(kind: str, cosine: float, top: float, places: int = 500, missing: int = 0) -> SlidePair:
    return SlidePair("a", "b", kind, places, missing, cosine, (top,) * 4)


def test_the_metric_of_pairs_is_the_leaderboards_where_all_models_have_it() -> None:
    whole = PairedRobustness(tuple(pair(kind, 0.8, 0.1 * i) for i, kind in enumerate(KINDS[1:], start=1)))
    worse = PairedRobustness(tuple(pair(kind, 0.4, 0.1 * i) for i, kind in enumerate(KINDS[1:], start=1)))
    score = paired_score({"a": whole, "b": worse}, "a")
    assert score.name == "paired robustness, plismbench's metric"
    assert score.values["a"].value == pytest.approx((0.8 + 0.1 + 0.2 + 0.3) / 4)
    assert score.differences["b"].value == pytest.approx(-0.1)
    assert np.isnan([score.values["a"].low, score.differences["b"].high]).all()
    scanners = PairedRobustness((pair(KINDS[1], 0.8, 0.6),))
    by_top = paired_score({"a": scanners}, "a")
    assert (by_top.name, by_top.values["a"].value) == ("paired robustness, top-10 accuracy", 0.6)


def test_kinds_of_pairs_that_a_set_lacks_are_dashes() -> None:
    medians, figures = paired_tables({"m": PairedRobustness((pair(KINDS[1], 0.8, 0.6), pair(KINDS[1], 0.4, 0.2)))})
    assert medians.rows[0] == ["m", pytest.approx(0.6), pytest.approx(0.4), None, None, None]
    assert [row[1:3] for row in figures.rows] == [["all", 2], [KINDS[1], 2]]


def test_pairs_of_few_places_are_told() -> None:
    few = PairedRobustness((pair(KINDS[1], 0.8, 0.6, places=20, missing=3), pair(KINDS[1], 0.8, 0.6)))
    assert paired_notes(few) == [
        "Pairs of slides share at least 20 places; of so few, chance alone finds 10 of 39 patches.",
        "In 1 pairs of slides a place is on one of them only; 3 such were left out.",
    ]
    assert paired_notes(PairedRobustness((pair(KINDS[1], 0.8, 0.6),))) == []
