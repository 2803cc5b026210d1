"""The patch section of a report: what it says of known models, of broken data, and that it says it twice alike."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.patch_sets import ODD, embed, make_set, section_of
from support.processes import said_with_threads

from pipeline.base.errors import BenchmarkError
from pipeline.evaluate.probes import eva_probe
from pipeline.evaluate.probes.probe_choice import STRENGTHS
from pipeline.evaluate.probes.probe_report import curves_to_draw
from pipeline.report.content import Exclusion, Interval, Section, Table


def table(section: Section, title: str) -> Table:
    return next(found for found in section.tables if found.title.startswith(title))


def rows_of(section: Section, title: str) -> list[dict[str, Any]]:
    found = table(section, title)
    return [dict(zip([c.name for c in found.columns], row, strict=True)) for row in found.rows]


@pytest.mark.slow
def test_a_whole_section() -> None:
    patch_set = make_set()
    models = {"teacher": embed(patch_set, 30.0), "student": embed(patch_set, 0.5)}
    left_out = [Exclusion("x.png", "no image")]
    section = section_of(patch_set, models, "teacher", left_out)
    assert section.key == "patches"
    assert section.basis == {"patches": 240, "cases": 24, "centres": 2, "classes": 3}
    assert [found.title for found in section.tables] == [
        "Linear probe",
        "kNN, 5 neighbours",
        "Linear probe by C",
        "Difference from teacher",
        "Calibration of the probes",
        "Linear CKA with teacher",
        "Few-shot prototypes",
        "Few-shot prototypes, difference from teacher",
        "Linear probe by centre",
        "Patches by class",
    ]
    for title in ("Linear probe", "kNN"):
        teacher, student = rows_of(section, title)
        for name in ("balanced accuracy", "accuracy", "macro F1", "AUROC"):
            assert teacher[name] == Interval(1, 1, 1)
            assert student[name].low < student[name].value < student[name].high < 1
    assert {row["probe"] for row in rows_of(section, "Difference")} == {"linear probe", "kNN"}
    for row in rows_of(section, "Difference"):
        assert row["model"] == "student"
        assert row["AUROC"].high < 0
    few = rows_of(section, "Few-shot")
    assert list(few[0]) == ["model", "1 a class", "2 a class", "4 a class", "8 a class", "16 a class"]
    assert few[0]["16 a class"] == Interval(1, 1, 1)
    assert few[1]["1 a class"].value < few[1]["16 a class"].value < 1
    by_centre = rows_of(section, "Linear probe by centre")
    assert [(row["centre"], row["model"]) for row in by_centre] == [
        (centre, model) for centre in ("north", "south") for model in ("teacher", "student")
    ]
    assert by_centre[0]["scored patches"] + by_centre[2]["scored patches"] == 240
    assert by_centre[0]["resampled cases"] == 12
    composition = rows_of(section, "Patches by class")
    assert [row["class"] for row in composition] == [ODD, "stroma", "tumour"]
    assert sum(row["patches"] for row in composition) == 240
    score, *others = section.scores
    assert [other.name for other in others] == [
        "tiles, accuracy (kNN)",
        "tiles, AUROC (linear probe)",
        "tiles, CKA with teacher",
    ]
    assert others[0].values["student"] == rows_of(section, "kNN")[1]["accuracy"]
    assert score.name == "tiles, balanced accuracy (linear probe)"
    assert score.chance == pytest.approx(1 / 3)
    assert score.values["teacher"] == Interval(1, 1, 1)
    assert section.exclusions == left_out
    notes = [note for note in section.notes if "C was chosen" not in note]
    assert [note.split(" (")[0] for note in notes] == ["An estimate of 0 or 1 sits at the bound of its scale"]
    assert "(teacher, linear probe; teacher, kNN; teacher, few-shot)" in notes[0]
    (less,) = [row for row in rows_of(section, "Difference") if row["probe"] == "linear probe"]
    assert score.differences == {"student": less["balanced accuracy"]}
    assert len(section.settings["regularisation_by_fold"]["student"]) == 5
    json.dumps(section.record(), allow_nan=False)


def test_differences_are_neither_bold_nor_called_none() -> None:
    patch_set = make_set()
    models = {"teacher": embed(patch_set, 1.0), "student": embed(patch_set, 0.9)}
    section = section_of(patch_set, models, "teacher")
    differences = [found for found in section.tables if "ifference" in found.title]
    assert len(differences) == 2
    for found in differences:
        assert {column.better for column in found.columns} == {""}
        assert found.note.startswith("Value less that of teacher")
        assert "does not show that the two are equal either" in found.note
    said = [column.what for found in section.tables for column in found.columns if column.name == "balanced accuracy"]
    assert [bool(what) for what in said] == [True, False, False, False]


def test_patches_without_label_or_centre() -> None:
    unlabelled = Exclusion("y.png", "label is 'NA': no label (line 7)", by_rule=True)
    patch_set = make_set()
    centers = np.where(np.arange(240) % 10 == 0, "", patch_set.centers)
    patch_set = replace(patch_set, exclusions=(unlabelled,), centers=centers)
    section = section_of(patch_set, {"a": embed(patch_set, 0.5)}, "a", [Exclusion("x.png", "no image")])
    assert section.exclusions == [unlabelled, Exclusion("x.png", "no image")]
    assert section.basis["centres"] == 2
    assert section.notes[0] == "24 of 240 patches have no centre; no centre's numbers count them."
    by_centre = rows_of(section, "Linear probe by centre")
    assert [row["centre"] for row in by_centre] == ["north", "south"]
    assert sum(row["scored patches"] for row in by_centre) == 216
    assert {row["centres"] for row in rows_of(section, "Patches by class")} == {2}


def test_identical_models_differ_by_nothing() -> None:
    patch_set = make_set(1)
    embeddings = embed(patch_set, 0.5)
    section = section_of(patch_set, {"a": embeddings, "b": embeddings.copy()}, "a")
    differences = [*rows_of(section, "Difference"), *rows_of(section, "Few-shot prototypes, difference")]
    cells = [cell for row in differences for cell in row.values() if isinstance(cell, Interval)]
    assert len(cells) == 2 * 4 + 5
    assert set(cells) == {Interval(0, 0, 0)}
    assert section.scores[0].differences == {"b": Interval(0, 0, 0)}


@pytest.mark.slow
def test_random_labels_cover_one_half() -> None:
    covered = []
    for seed in range(4):
        patch_set = make_set(seed)
        section = section_of(patch_set, {"a": embed(patch_set, 0.0)}, "a", seed=seed)
        for title in ("Linear probe", "kNN"):
            area = rows_of(section, title)[0]["AUROC"]
            covered.append(area.low <= 0.5 <= area.high)
        assert not [found for found in section.tables if found.title.startswith("Difference")]
    assert sum(covered) >= 7


def test_without_groups_the_section_says_so() -> None:
    patch_set = make_set(groups=None, group_column="", centers=None)
    section = section_of(patch_set, {"a": embed(patch_set, 1.0)}, "a")
    assert section.basis == {"patches": 240, "classes": 3}
    assert "take every patch for independent" in section.notes[0]
    assert "bootstrap over patches" in section.what
    assert [column.name for column in table(section, "Patches by class").columns] == ["class", "patches"]
    assert not [found for found in section.tables if "centre" in found.title]


def test_a_given_split_is_told_by_side() -> None:
    patch_set = make_set()
    assert patch_set.groups is not None
    numbers = np.array([int(name.split()[1]) for name in patch_set.groups])
    splits = np.where(numbers < 14, "train", np.where(numbers < 18, "val", "test"))
    patch_set = replace(patch_set, splits=splits)
    section = section_of(patch_set, {"a": embed(patch_set, 0.8)}, "a")
    assert section.basis["cases to train on"] == 14
    assert section.basis["cases to choose settings by"] == 4
    assert section.basis["cases scored"] == 6
    assert section.basis["patches scored"] == (splits == "test").sum()
    assert section.settings["folds"] == "the given split"
    assert "test part of the given split" in section.what
    assert "Intervals rest on 6 cases only" in section.notes[0]
    composition = rows_of(section, "Patches by class")
    assert sum(row["of val"] for row in composition) == (splits == "val").sum()
    assert sum(row["scored patches"] for row in rows_of(section, "Linear probe by centre")) == (splits == "test").sum()


def test_how_c_was_chosen_is_in_the_page_and_the_data() -> None:
    patch_set = make_set()
    section = section_of(patch_set, {"a": embed(patch_set, 0.8)}, "a")
    (row,) = rows_of(section, "Linear probe by C")
    curve = [row[f"C = {strength:g}"] for strength in STRENGTHS]
    data = section.data["linear_probe"]
    assert data["chosen_by"] == "balanced accuracy"
    assert data["models"]["a"]["curve"] == pytest.approx(curve)
    assert len(data["models"]["a"]["curve_by_fold"]) == 5
    assert "counts all classes the same, its C chosen by balanced accuracy within the training part" in section.what


def test_a_fixed_c_and_the_plain_protocol_are_said() -> None:
    patch_set = make_set()
    models = {"a": embed(patch_set, 0.8)}
    fixed = section_of(patch_set, models, "a", probe_c=0.25)
    assert rows_of(fixed, "Linear probe")[0]["C"] == "0.25"
    assert not [found for found in fixed.tables if found.title == "Linear probe by C"]
    assert "with a fixed C of 0.25" in fixed.what
    plain = section_of(patch_set, models, "a", protocol="plain")
    assert "counts classes by their frequency, its C chosen by log likelihood" in plain.what


@pytest.mark.parametrize("protocol", ["eva", "pathorob"])
def test_the_protocols_of_others_are_said(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eva_probe, "MAX_STEPS", 20)
    patch_set = make_set(num_rows=120)
    models = {"a": embed(patch_set, 0.8), "b": embed(patch_set, 0.3)}
    section = section_of(patch_set, models, "a", protocol=protocol, folds=2, resamples=100)
    json.dumps(section.record(), allow_nan=False)
    assert f"Protocol of the linear probe: {protocol} (" in section.what
    assert "Numbers of two protocols are not compared." in section.what
    assert section.settings["linear_probe"]["protocol"] == protocol
    first = rows_of(section, "Linear probe")[0]
    assert ("steps" in first) == (protocol == "eva")
    titles = [found.title for found in section.tables]
    assert ("Linear probe by C" in titles) == (protocol == "pathorob")
    for row in rows_of(section, "Calibration"):
        assert (row["temperature"] is None) == (row["probe"] == "kNN")
    assert curves_to_draw(section.data) is None if protocol == "eva" else curves_to_draw(section.data)


def test_one_scored_case_gives_no_intervals() -> None:
    patch_set = make_set()
    splits = np.where(patch_set.groups == "case 1", "test", "train")
    section = section_of(replace(patch_set, splits=splits), {"a": embed(patch_set, 0.8)}, "a")
    row = rows_of(section, "Linear probe")[0]
    assert np.isfinite(row["AUROC"].value)
    assert np.isnan([row["AUROC"].low, row["AUROC"].high]).all()
    few, pairs = (note for note in section.notes if "C was chosen" not in note)
    assert few == "Intervals need at least 5 cases; with 1 none is given."
    assert "what the same fold scored, 1 pair of cases of different classes" in pairs
    assert section.record()["tables"][0]["rows"][0]["AUROC"]["low"] is None


def test_dropped_resamples_and_few_examples_are_said() -> None:
    patch_set = make_set(num_groups=12)
    labels = patch_set.labels.copy()
    rare = [np.flatnonzero(patch_set.groups == f"case {i}")[:3] for i in (1, 2)]
    labels[np.concatenate(rare)] = "rare"
    section = section_of(replace(patch_set, labels=labels), {"a": embed(patch_set, 0.8)}, "a")
    notes = " ".join(section.notes)
    assert "of 200 resamples lack a class" in notes
    assert "4, 8, 16 examples a class are left out" in notes
    assert [column.name for column in table(section, "Few-shot").columns] == ["model", "1 a class", "2 a class"]


def test_a_class_that_test_lacks_is_named() -> None:
    patch_set = make_set()
    numbers = np.array([int(str(name).split()[1]) for name in patch_set.groups_or_own()])
    splits = np.where(numbers < 14, "train", "test")
    labels = np.where((splits == "test") & (patch_set.labels == "stroma"), "tumour", patch_set.labels)
    changed = replace(patch_set, labels=labels, splits=splits)
    section = section_of(changed, {"a": embed(changed, 30.0)}, "a")
    assert "No scored patch is of 'stroma'; the means leave these out." in section.notes
    assert section.scores[0].chance == 0.5
    assert section.scores[0].values["a"] == Interval(1, 1, 1)


def test_broken_data_are_refused_by_name() -> None:
    patch_set = make_set()
    sound, broken = embed(patch_set, 1.0), embed(patch_set, 1.0)
    broken[[4, 9]] = np.nan
    with pytest.raises(BenchmarkError, match=r"student: 2 of 240 embeddings .* first is number 5"):
        section_of(patch_set, {"teacher": sound, "student": broken}, "teacher")
    broken[[4, 9]] = 0
    with pytest.raises(BenchmarkError, match="student: 2 of 240 embeddings are zero"):
        section_of(patch_set, {"teacher": sound, "student": broken}, "teacher")
    one = replace(patch_set, labels=np.full(240, "tumour"))
    with pytest.raises(BenchmarkError, match=r"tiles\.csv: all 240 examples are of one class, 'tumour'"):
        section_of(one, {"a": sound}, "a")
    lonely = patch_set.labels.copy()
    lonely[7] = "lonely"
    with pytest.raises(BenchmarkError, match=r"tiles\.csv: .*of 1 group only: 'lonely'"):
        section_of(replace(patch_set, labels=lonely), {"a": sound}, "a")


@pytest.mark.slow
def test_constant_embeddings_are_at_chance() -> None:
    patch_set = make_set()
    section = section_of(patch_set, {"a": np.full((240, 8), 0.3, np.float32)}, "a")
    for title in ("Linear probe", "kNN"):
        row = rows_of(section, title)[0]
        assert row["AUROC"] == Interval(0.5, 0.5, 0.5)
        assert row["balanced accuracy"].value == pytest.approx(1 / 3, abs=0.05)
    few = rows_of(section, "Few-shot")[0]
    assert [few[f"{count} a class"].value for count in (1, 16)] == pytest.approx([1 / 3] * 2)


def print_record() -> None:
    """The record of one section, for another process to compare with."""
    patch_set = make_set()
    models = {"a": embed(patch_set, 0.5), "b": embed(patch_set, 0.7)}
    print(json.dumps(section_of(patch_set, models, "a").record()))


@pytest.mark.slow
def test_two_processes_say_the_same_to_the_digit(capsys: pytest.CaptureFixture[str]) -> None:
    """This one, and another with other hashes of names and with more threads."""
    print_record()
    here = capsys.readouterr().out
    code = "import test_section as t; t.print_record()"
    assert said_with_threads(2, code, Path(__file__).parent, PYTHONHASHSEED="2") == here
    assert json.loads(here)["tables"]
