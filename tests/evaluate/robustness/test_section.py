"""The robustness section: what it says for models of known robustness, and that it says the same again."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.base.errors import BenchmarkError
from pipeline.config.tools import EvaluateConfig
from pipeline.evaluate.robustness.data import RobustnessSet, read_robustness_set
from pipeline.evaluate.robustness.section import robustness_section
from pipeline.report.content import Exclusion, Section

Embeddings = dict[str, NDArray[np.float32]]


def write(path: Path, rows: list[dict[str, str]]) -> RobustnessSet:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return read_robustness_set(path)


@pytest.fixture
def index_set(tmp_path: Path) -> RobustnessSet:
    """Two classes by three centres, six slides each of eight patches."""
    return write(tmp_path / "index.csv", [
        {"slide_id": f"{center}{slide}", "patch_id": str(patch), "medical_center": center,
         "biological_class": ("tumour", "stroma <1>")[patch % 2], "path": f"{center}{slide}_{patch}.png"}
        for center in ("north", "south", "west") for slide in range(6) for patch in range(8)
    ])  # fmt: skip


@pytest.fixture
def subsets(tmp_path: Path) -> RobustnessSet:
    """Three subsets of two classes by two centres, out of three of each, and patches out of domain."""
    rows = [
        {"subset": f"{a}{b}", "slide_id": f"{center}{slide}", "patch_id": f"{label}{patch}", "biological_class": label,
         "medical_center": center, "path": f"{center}{slide}_{label}{patch}.png"}
        for a, b in ("xy", "xz", "yz") for center in (a, b) for label in (a, b)
        for slide in range(3) for patch in range(4)
    ]  # fmt: skip
    return write(tmp_path / "subsets.csv", [*rows, rows[0] | {"subset": "OOD", "slide_id": "o", "path": "o.png"}])


@pytest.fixture
def paired_set(tmp_path: Path) -> RobustnessSet:
    """Two scanners by three stainings of the same twelve places, one of them missing on one slide."""
    rows = [
        {"slide_id": f"{a}{b}", "patch_id": f"{i}", "scanner": a, "staining": b, "path": f"{a}{b}_{i:02d}.png"}
        for a in "PQ" for b in "HMR" for i in range(12)
    ]  # fmt: skip
    return write(tmp_path / "paired.csv", rows[1:])


def models_of(data: RobustnessSet) -> Embeddings:
    """A model that sees the class, one that sees the centre, and one that sees nothing."""
    rows = data.index
    assert rows is not None
    rng = np.random.default_rng(0)
    label, center, nothing = rng.standard_normal((3, len(data.paths), 12))
    for values, names in ((label, rows.classes), (center, rows.centers)):
        codes = np.unique(names, return_inverse=True)[1]
        values[rows.images] += 6 * np.eye(12)[codes]
    return {
        name: values.astype(np.float32) for name, values in (("class", label), ("centre", center), ("none", nothing))
    }


def config(**options: Any) -> EvaluateConfig:
    return EvaluateConfig(models=["a"], resamples=200, **options)


def rows_of(section: Section, title: str) -> list[dict[str, Any]]:
    (table,) = [table for table in section.record()["tables"] if table["title"] == title]
    return table["rows"]  # type: ignore[no-any-return]


def test_models_are_told_apart(index_set: RobustnessSet) -> None:
    section = robustness_section(index_set, models_of(index_set), config(), "centre", [Exclusion("bad.png", "damaged")])
    of_class, of_centre, of_none = rows_of(section, "Robustness index")
    assert of_class["index"]["low"] > of_none["index"]["high"] > of_none["index"]["low"] > of_centre["index"]["high"]
    assert of_class["difference"]["low"] > 0.5
    assert of_centre["difference"] is None
    assert of_class["difference"]["value"] == pytest.approx(of_class["index"]["value"] - of_centre["index"]["value"])
    assert of_class["balanced accuracy"] > 0.95 > 0.6 > of_none["balanced accuracy"]
    margins = {row["model"]: row for row in rows_of(section, "Margins")}
    assert margins["class"]["CRoMa"]["low"] > 0 > margins["centre"]["CRoMa"]["high"]
    assert not any("by croma" in name for name in margins["class"])  # a check of ours: test_croma_counts_the_same
    assert section.basis == {"images": 144, "patches": 144, "slides": 18, "classes": 2, "centres": 3}
    (score,) = section.scores
    assert list(score.values) == ["class", "centre", "none"]
    assert list(score.differences) == ["class", "none"]
    assert score.differences["class"].record() == of_class["difference"]
    assert "Intervals rest on 18 slides only, and are rather too narrow." in section.notes
    assert "does not show that the two are equal either" in section.record()["tables"][0]["note"]
    assert score.chance == pytest.approx(48 / (48 + 20))  # of 24 OS patches 4 are of the own slide
    assert f"would give {score.chance:.3f} on this set" in section.record()["tables"][0]["note"]
    assert section.exclusions == [Exclusion("bad.png", "damaged")]
    assert len(section.source["sha256"]) == 64
    json.dumps(section.record(), allow_nan=False)


def test_few_slides_give_no_intervals(tmp_path: Path) -> None:
    rows = [
        {"slide_id": f"{center}{slide}", "patch_id": str(patch), "medical_center": center,
         "biological_class": "ab"[patch % 2], "path": f"{center}{slide}_{patch}.png"}
        for center in "xy" for slide in range(3) for patch in range(6)
    ]  # fmt: skip
    for chosen, given in ((rows, True), ([row for row in rows if row["slide_id"] not in ("x2", "y2")], False)):
        data = write(tmp_path / "few.csv", chosen)
        section = robustness_section(data, models_of(data), config(ri_k=3), "none")
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
    section = robustness_section(index_set, models_of(index_set), config(ri_k=5), "none")
    for title, count in (("class", 2), ("centre", 3)):
        parts = rows_of(section, f"Robustness index by {title}")
        assert len(parts) == count
        assert sum(part["number of patches"] for part in parts) == 144
        values = [part["none"]["value"] for part in parts]
        assert min(values) <= rows_of(section, "Robustness index")[2]["index"]["value"] <= max(values)
    assert [row["k"] for row in rows_of(section, "Robustness index")] == [5, 5, 5]
    assert section.settings["k"] == 5
    assert not any("k is chosen" in note for note in section.notes)


def test_k_is_chosen_for_each_model_and_said(index_set: RobustnessSet) -> None:
    section = robustness_section(index_set, models_of(index_set), config(), "none")
    chosen = {row["model"]: row["k"] for row in rows_of(section, "Robustness index")}
    assert len(set(chosen.values())) > 1
    assert any(all(f"{label}: {k}" in note for label, k in chosen.items()) for note in section.notes)
    same = rows_of(section, "Robustness index at the same k")
    assert list(same[0])[:4] == ["model", "k = 1", "k = 3", "k = 5"]


def test_differences_at_the_same_k_are_those_of_that_k(index_set: RobustnessSet) -> None:
    """At each k the table has what the headline has when that k is asked for."""
    table = rows_of(robustness_section(index_set, models_of(index_set), config(), "none"),
                    "Difference from none at the same k")  # fmt: skip
    assert [row["k"] for row in table] == [1, 3, 5, 11, 21, 51, 101]
    assert list(table[0]) == ["k", "class", "centre"]
    for row in (table[1], table[3]):
        asked = config(ri_k=row["k"], margins=False)
        headline = rows_of(robustness_section(index_set, models_of(index_set), asked, "none"), "Robustness index")
        assert [line["difference"] for line in headline] == [row["class"], row["centre"], None]


@pytest.mark.parametrize("named", ["{center}{label}{slide}", "{label}{center}{slide}"])
def test_where_names_would_decide_there_is_a_dash_at_that_k(tmp_path: Path, named: str) -> None:
    """Embeddings of class and centre only: all patches of a class and centre are the same, and so are all distances
    between two such cells. How slides are called decides at k = 21 and 51; at 101 a place is left for no choice.
    """
    rows = [
        {"slide_id": named.format(center=center, label=label, slide=slide), "patch_id": f"{label}{patch}",
         "biological_class": label, "medical_center": center, "path": f"{label}{center}{slide}{patch}.png"}
        for label in "abc" for center in "xy" for slide in range(4) for patch in range(5)
    ]  # fmt: skip
    data = write(tmp_path / "tied.csv", rows)
    assert data.index is not None
    codes = [np.unique(of, return_inverse=True)[1] for of in (data.index.classes, data.index.centers)]
    values = np.zeros((len(data.paths), 5), np.float32)
    values[data.index.images] = np.concatenate([np.eye(3)[codes[0]], np.eye(2)[codes[1]]], axis=1)
    section = robustness_section(data, {"T": values, "S": values.copy()}, config(margins=False), "T")
    for row in rows_of(section, "Robustness index at the same k"):
        assert [row[f"k = {k}"] for k in (1, 21, 51)] == [None, None, None]
        assert row["k = 101"] == pytest.approx(1 / 3)
    differences = {row["k"]: row["S"] for row in rows_of(section, "Difference from T at the same k")}
    assert differences[51] is None
    assert differences[101]["value"] == 0


def test_without_margins_nothing_of_croma_is_there(index_set: RobustnessSet) -> None:
    models = models_of(index_set)
    with mock.patch("pipeline.evaluate.robustness.section.robustness_margins") as asked:
        section = robustness_section(index_set, models, config(margins=False), "none")
    asked.assert_not_called()
    whole = robustness_section(index_set, models, config(), "none")
    titles = [table.title for table in whole.tables]
    titles.remove("Margins")
    assert [table.title for table in section.tables] == titles
    assert not any("croma" in note for note in section.notes)
    assert "croma" not in section.settings
    assert section.scores == whole.scores


def test_identical_models_differ_by_nothing(index_set: RobustnessSet) -> None:
    values = models_of(index_set)["class"]
    section = robustness_section(index_set, {"T": values, "S": values.copy()}, config(), "T")
    assert rows_of(section, "Robustness index")[1]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}


@pytest.mark.slow
def test_the_same_again_is_the_same(
    index_set: RobustnessSet, subsets: RobustnessSet, paired_set: RobustnessSet
) -> None:
    for data in (index_set, subsets):
        first, second = (
            robustness_section(data, models_of(data), config(seed=3), "none").record() for _ in range(2)
        )  # fmt: skip
        assert first == second
        assert first != robustness_section(data, models_of(data), config(seed=4), "none").record()
    values = {"A": np.random.default_rng(0).standard_normal((len(paired_set.paths), 6)).astype(np.float32)}
    runs = [robustness_section(paired_set, values, config(), "A").record() for _ in range(2)]
    assert runs[0] == runs[1]


def test_subsets_are_pooled_and_their_mean_is_beside(subsets: RobustnessSet) -> None:
    section = robustness_section(subsets, models_of(subsets), config(ri_k=3), "none")
    of_class, of_centre, _ = rows_of(section, "Robustness index")
    assert of_class["index"]["value"] > 0.9 > 0.1 > of_centre["index"]["value"]
    assert of_class["mean of subsets"] == pytest.approx(of_class["index"]["value"], abs=0.1)
    assert (section.basis["subsets"], section.basis["patches"], section.basis["patches counted"]) == (3, 108, 144)
    assert section.notes[0] == "1 rows of subset OOD do not count for the index, as in PathoROB."


def test_numbers_that_are_none_name_the_model(index_set: RobustnessSet, paired_set: RobustnessSet) -> None:
    models = models_of(index_set)
    models["centre"][3, 2] = np.nan
    with pytest.raises(BenchmarkError, match="centre: 1 of 144 embeddings hold NaN or infinity"):
        robustness_section(index_set, models, config(), "none")
    values = {"A": np.zeros((len(paired_set.paths), 6), np.float32)}
    with pytest.raises(BenchmarkError, match="A: 71 of 71 embeddings are zero"):
        robustness_section(paired_set, values, config(), "A")
    with pytest.raises(BenchmarkError, match=r"class: k = 1000: some patch has only 136 patches of other slides"):
        robustness_section(index_set, models_of(index_set), config(ri_k=1000), "none")


def test_a_model_without_an_index_has_none_and_says_why(index_set: RobustnessSet) -> None:
    models = models_of(index_set) | {"flat": np.ones((144, 4), np.float32)}
    section = robustness_section(index_set, models, config(ri_k=3), "flat")
    flat = rows_of(section, "Robustness index")[3]
    assert flat["index"] is None
    assert rows_of(section, "Robustness index")[0]["difference"] is None
    assert rows_of(section, "Margins")[3]["CRoMa"] is None
    assert "flat" not in section.scores[0].values
    (note,) = [note for note in section.notes if note.startswith("flat: ")]
    assert note.startswith("flat: no index: around every patch others are equally near, and nothing but the order of")
    chosen = robustness_section(index_set, models, config(), "flat")
    assert set(rows_of(chosen, "Robustness index at the same k")[3].values()) == {"flat", None}
    assert not any(table.title == "Difference from flat at the same k" for table in chosen.tables)


def test_exact_embeddings_have_an_index_whatever_is_tied(index_set: RobustnessSet) -> None:
    rows = index_set.index
    assert rows is not None
    models = {}
    for name, of in (("class", rows.classes), ("centre", rows.centers)):
        values = np.zeros((len(index_set.paths), 3), np.float32)
        values[rows.images] = np.eye(3)[np.unique(of, return_inverse=True)[1]]
        models[name] = values
    section = robustness_section(index_set, models, config(ri_k=5), "class")
    found = [(row["index"]["value"], row["support"]) for row in rows_of(section, "Robustness index")]
    assert [value for value, _ in found] == [1, 0]
    assert all(0 < support <= 1 for _, support in found)
    for label in models:
        (note,) = [note for note in section.notes if note.startswith(f"{label}: 144 of 144 patches have several")]
        assert note.endswith("any order gives the same index.")


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
    section = robustness_section(paired_set, {k: v.astype(np.float32) for k, v in models.items()}, config(), "tissue")
    table = rows_of(section, "Same tissue, scanned and stained anew")
    assert list(table[0].values())[1:] == pytest.approx([1, 1, 1, 1, 1])
    assert table[1]["top-10, cross-scanner"] == 1
    assert table[1]["leaderboard"] < 0.6
    details = rows_of(section, "All figures of the pairs of slides")
    numbers = {(row["model"], row["pairs"]): row["number"] for row in details}
    assert numbers["stain", "all"] == 15
    assert numbers["stain", "cross-scanner"] == 3
    assert numbers["stain", "cross-staining"] == numbers["stain", "cross both"] == 6
    assert section.basis == {"images": 71, "slides of the same tissue": 6, "scanners": 2, "stainings": 3, "places": 12,
                             "pairs of slides": 15}  # fmt: skip
    assert section.scores[0].values["tissue"].value == pytest.approx(1)
    assert list(section.scores[0].differences) == ["stain"]
    assert section.scores[0].differences["stain"].value == pytest.approx(table[1]["leaderboard"] - 1)
    assert np.isnan(section.scores[0].differences["stain"].low)
    assert section.notes == [
        "Pairs of slides share at least 11 places; of so few, chance alone finds 10 of 21 patches.",
        "In 5 pairs of slides a place is on one of them only; 5 such were left out.",
    ]
    json.dumps(section.record(), allow_nan=False)


def test_both_from_one_file(tmp_path: Path) -> None:
    rows = [
        {"slide_id": f"{center}{slide}", "patch_id": str(patch), "biological_class": "ab"[patch % 2], "path":
         f"{center}{slide}_{patch}.png", "medical_center": center, "scanner": f"{center}{slide}", "x": "1"}
        for center in "xy" for slide in range(3) for patch in range(6)
    ]  # fmt: skip
    data = write(tmp_path / "both.csv", rows)
    values = {"A": np.random.default_rng(0).standard_normal((36, 5)).astype(np.float32)}
    section = robustness_section(data, values, config(), "A")
    assert [score.name for score in section.scores] == [
        "robustness index", "paired robustness, top-10 accuracy",
    ]  # fmt: skip
    assert section.basis["places"] == 6
    assert section.notes[-1] == "Unused columns of the CSV: 'x'."


MARGINS = """
import sys
import numpy as np
from pipeline.evaluate.robustness.margins import robustness_margins
rng = np.random.default_rng(0)
rows = 1500
classes, centers = (rng.integers(2, size=rows).astype(str) for _ in range(2))
slides = np.array([f"{center}-{i % 9}" for i, center in enumerate(centers)])
values = rng.normal(size=(rows, 48)).astype(np.float32)
values[:, 0] += 2 * (classes == "1")
values[:, 1] += 2 * (centers == "1")
values[1::7] = values[::7][: len(values[1::7])]
print(robustness_margins(values, classes, centers, slides, None, 11, 100, 0))
"""


@pytest.mark.slow
def test_margins_have_the_same_digits_on_any_number_of_threads() -> None:
    said = []
    for threads in ("1", "4"):
        environment = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        result = subprocess.run([sys.executable, "-c", MARGINS], env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        said.append(result.stdout)
    assert "Margins(" in said[0]
    assert said[0] == said[1]
