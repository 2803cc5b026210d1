"""The robustness section: what it says for models of known robustness, and that it says the same again."""

import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from support.robustness_sets import models_of, rows_of, section_of, write
from support.sweep_sets import planned

from pipeline.base.errors import BenchmarkError
from pipeline.evaluate.robustness.data import RobustnessSet
from pipeline.evaluate.robustness.section import Sweep
from pipeline.report.content import Exclusion


@pytest.fixture
def subsets(tmp_path: Path) -> RobustnessSet:
    """Three subsets of two classes by two centres, out of three of each, and patches out of domain."""
    rows = [
        {
            "subset": f"{a}{b}",
            "slide_id": f"{center}{slide}",
            "patch_id": f"{label}{patch}",
            "biological_class": label,
            "medical_center": center,
            "path": f"{center}{slide}_{label}{patch}.png",
        }
        for a, b in ("xy", "xz", "yz")
        for center in (a, b)
        for label in (a, b)
        for slide in range(3)
        for patch in range(4)
    ]
    return write(tmp_path / "subsets.csv", [*rows, rows[0] | {"subset": "OOD", "slide_id": "o", "path": "o.png"}])


def test_models_are_told_apart(index_set: RobustnessSet) -> None:
    section = section_of(index_set, models_of(index_set), "centre", [Exclusion("bad.png", "damaged")])
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


def test_k_is_chosen_for_each_model_and_said(index_set: RobustnessSet) -> None:
    section = section_of(index_set, models_of(index_set), "none")
    chosen = {row["model"]: row["k"] for row in rows_of(section, "Robustness index")}
    assert len(set(chosen.values())) > 1
    assert any(all(f"{label}: {k}" in note for label, k in chosen.items()) for note in section.notes)
    same = rows_of(section, "Robustness index at the same k")
    assert list(same[0])[:4] == ["model", "k = 1", "k = 3", "k = 5"]


def test_without_margins_nothing_of_croma_is_there(index_set: RobustnessSet) -> None:
    models = models_of(index_set)
    with mock.patch("pipeline.evaluate.robustness.section.robustness_margins") as asked:
        section = section_of(index_set, models, "none", with_margins=False)
    asked.assert_not_called()
    whole = section_of(index_set, models, "none")
    titles = [table.title for table in whole.tables]
    titles.remove("Margins")
    assert [table.title for table in section.tables] == titles
    assert not any("croma" in note for note in section.notes)
    assert "croma" not in section.settings
    assert section.scores == whole.scores


@pytest.mark.slow
def test_the_same_again_is_the_same(
    index_set: RobustnessSet, subsets: RobustnessSet, paired_set: RobustnessSet
) -> None:
    for data in (index_set, subsets):
        first, second = (section_of(data, models_of(data), "none", seed=3).record() for _ in range(2))
        assert first == second
        assert first != section_of(data, models_of(data), "none", seed=4).record()
    values = {"A": np.random.default_rng(0).standard_normal((len(paired_set.paths), 6)).astype(np.float32)}
    runs = [section_of(paired_set, values, "A").record() for _ in range(2)]
    assert runs[0] == runs[1]


@pytest.mark.slow
def test_subsets_are_pooled_and_their_mean_is_beside(subsets: RobustnessSet) -> None:
    section = section_of(subsets, models_of(subsets), "none", k=3)
    of_class, of_centre, _ = rows_of(section, "Robustness index")
    assert of_class["index"]["value"] > 0.9 > 0.1 > of_centre["index"]["value"]
    assert of_class["mean of subsets"] == pytest.approx(of_class["index"]["value"], abs=0.1)
    assert (section.basis["subsets"], section.basis["patches"], section.basis["patches counted"]) == (3, 108, 144)
    assert section.notes[0] == "1 row of subset OOD does not count for the index, as in PathoROB."


def test_numbers_that_are_none_name_the_model(index_set: RobustnessSet, paired_set: RobustnessSet) -> None:
    models = models_of(index_set)
    models["centre"][3, 2] = np.nan
    with pytest.raises(BenchmarkError, match="centre: 1 of 144 embeddings hold NaN or infinity"):
        section_of(index_set, models, "none")
    values = {"A": np.zeros((len(paired_set.paths), 6), np.float32)}
    with pytest.raises(BenchmarkError, match="A: 71 of 71 embeddings are zero"):
        section_of(paired_set, values, "A")
    with pytest.raises(BenchmarkError, match=r"class: k = 1000: some patch has only 136 patches of other slides"):
        section_of(index_set, models_of(index_set), "none", k=1000)


def test_exact_embeddings_have_an_index_whatever_is_tied(index_set: RobustnessSet) -> None:
    rows = index_set.index
    assert rows is not None
    models = {}
    for name, of in (("class", rows.classes), ("centre", rows.centers)):
        values = np.zeros((len(index_set.paths), 3), np.float32)
        values[rows.images] = np.eye(3)[np.unique(of, return_inverse=True)[1]]
        models[name] = values
    section = section_of(index_set, models, "class", k=5)
    found = [(row["index"]["value"], row["support"]) for row in rows_of(section, "Robustness index")]
    assert [value for value, _ in found] == [1, 0]
    assert all(0 < support <= 1 for _, support in found)
    for label in models:
        (note,) = [note for note in section.notes if note.startswith(f"{label}: 144 of 144 patches have several")]
        assert note.endswith("any order gives the same index.")


def test_both_from_one_file(tmp_path: Path) -> None:
    rows = [
        {
            "slide_id": f"{center}{slide}",
            "patch_id": str(patch),
            "biological_class": "ab"[patch % 2],
            "path": f"{center}{slide}_{patch}.png",
            "medical_center": center,
            "scanner": f"{center}{slide}",
            "x": "1",
        }
        for center in "xy"
        for slide in range(3)
        for patch in range(6)
    ]
    data = write(tmp_path / "both.csv", rows)
    values = {"A": np.random.default_rng(0).standard_normal((36, 5)).astype(np.float32)}
    section = section_of(data, values, "A")
    assert [score.name for score in section.scores] == ["robustness index", "paired robustness, top-10 accuracy"]
    assert section.basis["places"] == 6
    assert section.notes[-1] == "Unused columns of the CSV: 'x'."


@pytest.fixture
def sweepable(tmp_path: Path) -> RobustnessSet:
    """Two classes by two centres, eight slides a cell of three patches."""
    rows = [
        {
            "slide_id": f"{center}{label}{slide}",
            "patch_id": str(patch),
            "biological_class": label,
            "medical_center": center,
            "path": f"{center}{label}{slide}_{patch}.png",
        }
        for center in ("north", "south")
        for label in ("tumour", "stroma")
        for slide in range(8)
        for patch in range(3)
    ]
    return write(tmp_path / "sweep.csv", rows)


@pytest.mark.slow
def test_a_sweep_adds_its_part_and_nothing_else(sweepable: RobustnessSet) -> None:
    assert sweepable.index is not None
    models = {name: values for name, values in models_of(sweepable).items() if name != "centre"}
    models["both"] = models["class"] / 2 + 2 * np.roll(models_of(sweepable)["centre"], 3, axis=1)  # other dimensions
    sweep = Sweep(planned(sweepable.index), 5)
    plain, swept = (
        section_of(sweepable, models, "class", with_margins=False, sweep=each).record() for each in (None, sweep)
    )
    assert plain["data"] == {}
    titles = [table["title"] for table in swept["tables"]]
    added = [title for title in titles if title.startswith("Sweep")]
    assert len(added) == 2
    assert [table for table in swept["tables"] if table["title"] not in added] == plain["tables"]
    assert swept["what"].startswith(plain["what"])
    assert swept["settings"]["sweep"] == "own"
    assert swept["settings"]["repetitions of the sweep"] == 5
    (table,) = [table for table in swept["tables"] if table["title"] == added[0]]
    of_class, of_none, of_both = table["rows"]
    assert of_class["APD"]["value"] > -0.02
    assert of_both["APD"]["high"] < of_class["APD"]["low"]
    assert of_both["difference"]["high"] < 0
    assert of_none["model"] == "none"
    assert set(swept["data"]["sweep"]["balanced accuracy (step, repetition)"]) == set(models)
    again = section_of(sweepable, models, "class", with_margins=False, sweep=sweep).record()
    assert again == swept
