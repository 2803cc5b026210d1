"""The slide section of a report: from a CSV and folders of feature files to tables, exclusions and hashes."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from support.processes import said_with_threads
from support.slide_sets import NUM_CASES, WIDTH, edit, run, write_features, write_labelled_slides

from pipeline.base.errors import BenchmarkError
from pipeline.evaluate.slide_benchmark.section import MEAN, MIL, NEIGHBOURS
from pipeline.report.content import Exclusion, Interval, Section, Table


def table(section: Section, title: str) -> Table:
    (found,) = [table for table in section.tables if title in table.title]
    return found


def score(section: Section, model: str, predictor: str) -> Interval:
    """AUROC."""
    (found,) = [row[2] for row in table(section, "predicted").rows if row[:2] == [model, predictor]]
    assert isinstance(found, Interval)
    return found


# --- what it says ---


@pytest.mark.slow
def test_the_section_says_what_it_rests_on(tmp_path: Path) -> None:
    path, features = write_labelled_slides(tmp_path, shift=4.0)
    section = run(path, features, "noise", mil_epochs=8, knn=3)
    json.dumps(section.record(), allow_nan=False)
    assert section.basis == {"patches": 214, "slides": 24, "cases": 20, "centres": 2}
    assert score(section, "uni", MEAN).value > 0.95
    assert score(section, "uni", MIL).value > 0.9
    assert score(section, "uni", NEIGHBOURS).value > 0.7
    headline, accuracy = section.scores
    assert accuracy.name == "tp53, accuracy (attention MIL)"
    assert (headline.name, headline.chance) == ("tp53, AUROC (attention MIL)", 0.5)
    assert headline.values == {model: score(section, model, MIL) for model in ("uni", "noise")}
    differences = table(section, "Difference from noise").rows
    assert [row[:2] for row in differences] == [["uni", MIL], ["uni", MEAN], ["uni", NEIGHBOURS]]
    for row in differences:
        gain = score(section, "uni", row[1]).value - score(section, "noise", row[1]).value
        assert row[2].value == pytest.approx(gain)
        assert row[2].low > 0 or row[1] == NEIGHBOURS  # votes of three among few cases say less
    assert headline.differences == {"uni": differences[0][2]}
    assert {column.better for column in table(section, "Difference from noise").columns} == {""}
    assert "does not show that the two are equal either" in table(section, "Difference from noise").note
    assert not any("without some of their slides" in note or "cases only" in note for note in section.notes)
    assert [row[:2] for row in table(section, "by centre").rows[:3]] == [["north", "uni"]] * 3
    assert [list(row) for row in table(section, "Cases and slides").rows] == [
        ["mut", "north", 6, 7],
        ["mut", "south", 4, 5],
        ["wt", "north", 6, 8],
        ["wt", "south", 4, 4],
    ]
    assert [row[:4] for row in table(section, "Feature sets").rows] == [
        ["uni", "uni", WIDTH, 214],
        ["noise", None, WIDTH, 214],
    ]
    assert section.source["labels"] == "labels.csv"
    assert section.source["features uni sha256"] != section.source["features noise sha256"]
    assert str(tmp_path) not in json.dumps(section.record())


@pytest.mark.slow
def test_the_scores_are_those_of_the_predictions_by_scikit_learn(tmp_path: Path) -> None:
    section = run(*write_labelled_slides(tmp_path, shift=1.0))
    records = section.data["predictions"]
    truth = np.array([record["label"] == "wt" for record in records])  # the second of mut, wt
    folds = np.array([record["fold"] for record in records])
    pairs = [(i, j) for i in np.flatnonzero(truth) for j in np.flatnonzero(~truth) if folds[i] == folds[j]]
    for model in ("uni", "noise"):
        for predictor in (MIL, MEAN, NEIGHBOURS):
            found = np.array([record["probabilities"][f"{model}, {predictor}"] for record in records])
            (row,) = [row for row in table(section, "predicted").rows if row[:2] == [model, predictor]]
            chosen = found.argmax(1)
            within = np.mean([(found[i, 1] > found[j, 1]) + (found[i, 1] == found[j, 1]) / 2 for i, j in pairs])
            balanced, f1 = balanced_accuracy_score(truth, chosen), f1_score(truth, chosen, average="macro")
            expected = [within, balanced, accuracy_score(truth, chosen), f1]
            np.testing.assert_allclose([cell.value for cell in row[2:]], expected)


@pytest.mark.slow
def test_every_case_is_in_one_fold_and_predicted_once(tmp_path: Path) -> None:
    path, features = write_labelled_slides(tmp_path)
    edit(
        path, "case_05-DX2,case_05,mut", "case_05-DX2,case_05,wt"
    )  # slides of one case that differ: the unit is the slide
    section = run(path, features[:1], folds=3)
    records = section.data["predictions"]
    assert sorted(record["slide"] for record in records) == sorted(
        line.split(",")[0] for line in path.read_text().splitlines()[1:]
    )
    folds: dict[str, set[int]] = {}
    for record in records:
        folds.setdefault(record["case_id"], set()).add(record["fold"])
    assert all(len(of_case) == 1 for of_case in folds.values())
    assert set.union(*folds.values()) == {0, 1, 2}
    assert any("each slide is predicted by itself" in note for note in section.notes)


@pytest.mark.slow
def test_the_same_features_differ_by_nothing(tmp_path: Path) -> None:
    path, features = write_labelled_slides(tmp_path)
    section = run(path, [("a", features[0][1]), ("b", features[0][1])])
    for row in table(section, "Difference from a").rows:
        assert [(cell.value, cell.low, cell.high) for cell in row[2:]] == [(0, 0, 0)] * 4
    assert {score.reference for score in section.scores} == {"a"}  # whatever the report's models are compared with


@pytest.mark.slow
def test_random_labels_give_intervals_that_cover_a_guess(tmp_path: Path) -> None:
    covered = []
    for seed in range(3):
        folder = tmp_path / str(seed)
        folder.mkdir()
        section = run(*write_labelled_slides(folder, shift=0.0, seed=seed))
        found = [score(section, model, predictor) for model in ("uni", "noise") for predictor in (MIL, MEAN)]
        covered += [interval.low < 0.5 < interval.high for interval in found]
    assert np.mean(covered) > 0.7  # one in twenty misses by chance, and all four of a cohort go together


def test_a_given_split_is_taken(tmp_path: Path) -> None:
    path, features = write_labelled_slides(tmp_path)
    rows = path.read_text().splitlines()
    parts = ["train"] * 10 + ["val"] * 2 + ["test"] * 8
    lines = [f"{row},{parts[int(row[5:7])]}" for row in rows[1:]]
    path.write_text("\n".join([rows[0] + ",split", *lines]) + "\n")
    section = run(path, features[:1])
    assert [record["case"] for record in section.data["predictions"]] == [f"case_{i}" for i in range(12, 20)]
    assert {name: count for name, count in section.basis.items() if "cases" in name or "slides" in name} == {
        "slides": 24,
        "cases": 20,
        "slides to train on": 12,
        "cases to train on": 10,
        "slides to choose by": 3,
        "cases to choose by": 2,
        "slides scored": 9,
        "cases scored": 8,
    }
    sides = [section.basis[f"patches {side}"] for side in ("to train on", "to choose by", "scored")]
    assert sum(sides) == section.basis["patches"] == 214
    assert section.settings["folds"] == "the CSV's split"
    assert any(note.startswith("2 cases of the split val") for note in section.notes)
    assert not [found for found in section.tables if "by centre" in found.title]  # all scored cases are of one


@pytest.mark.slow
def test_centres_are_counted_one_by_one(tmp_path: Path) -> None:
    """Cases 0, 5, 10 and 15 have two slides; those of 0 and 15 are of both centres."""
    path, features = write_labelled_slides(tmp_path, shift=4.0)
    edit(path, "case_00-DX2,case_00,wt,north", "case_00-DX2,case_00,wt,south")
    edit(path, "case_15-DX2,case_15,mut,south", "case_15-DX2,case_15,mut,north")
    section = run(path, features[:1])
    assert section.basis["centres"] == 2
    by_center = table(section, "by centre")
    assert {row[0]: row[3] for row in by_center.rows} == {"north": 11, "south": 7}
    assert by_center.note == "2 of 20 cases are of several centres and in no row."
    (note,) = [note for note in section.notes if "several centres" in note]
    assert note.startswith("2 of 20 cases are of several centres: 'case_00' (north, south); 'case_15' (north, south).")
    for centre in ("north", "south"):
        path.write_text(path.read_text().replace(f",{centre}", ",one" if centre == "north" else ",two"))
    edit(path, "case_00-DX1,case_00,wt,one", "case_00-DX1,case_00,wt,")
    assert run(path, features[:1]).basis["centres"] == 2


def test_a_patient_that_is_given_for_some_slides_is_never_parted(tmp_path: Path) -> None:
    """Cases 0 to 7 are of two patients, the others name none; the case is given throughout."""
    path, features = write_labelled_slides(tmp_path)
    rows = path.read_text().splitlines()
    patient = {case: "PQ"[case % 2] if case < 8 else "" for case in range(NUM_CASES)}
    path.write_text("\n".join([rows[0] + ",patient", *(f"{row},{patient[int(row[5:7])]}" for row in rows[1:])]) + "\n")
    section = run(path, features[:1])
    assert section.basis["cases"] == 2 + 12
    folds: dict[str, set[int]] = {}
    for record in section.data["predictions"]:
        name = record["case_id"]
        folds.setdefault(name, set()).add(record["fold"])
    assert all(len(found) == 1 for found in folds.values())
    assert set(folds) == {"P", "Q", *(f"case_{case:02d}" for case in range(8, NUM_CASES))}
    assert any(
        note.endswith("may stand on both sides.") and "14 of 24 rows have no patient" in note for note in section.notes
    )


@pytest.mark.slow
def test_an_auroc_of_few_pairs_says_so(tmp_path: Path) -> None:
    path, features = write_labelled_slides(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *(line for line in lines[1:] if line.split("-DX")[0][5:7] < "10")]) + "\n")
    section = run(path, features[:1], folds=5, mil_epochs=1)
    notes = " ".join(section.notes)
    assert "AUROC rests on few comparisons" in notes
    assert "pairs of cases of different classes." in notes


# --- what is left out, and what cannot be used ---


@pytest.mark.slow
def test_missing_damaged_and_unlabelled_slides_are_listed(tmp_path: Path) -> None:
    path, features = write_labelled_slides(tmp_path)
    (tmp_path / "noise" / "case_01-DX1.h5").unlink()
    (tmp_path / "uni" / "case_02-DX1.h5").write_bytes(b"no HDF5")
    broken = np.ones((4, WIDTH), np.float32)
    broken[1:3, 2] = np.nan
    write_features(tmp_path / "uni", "case_05-DX2", broken)
    edit(path, "case_03-DX1,case_03,mut", "case_03-DX1,case_03,NA")
    section = run(path, features)
    assert section.basis["slides"] == 24 - 4
    assert section.basis["cases"] == 20 - 3
    left_out = {exclusion.what: exclusion for exclusion in section.exclusions}
    slides = {
        number: f"slide case_0{number} of case case_0{number[0]}" for number in ("1-DX1", "2-DX1", "3-DX1", "5-DX2")
    }
    assert set(left_out) == {*slides.values(), "case case_01", "case case_02"}
    assert left_out[slides["1-DX1"]] == Exclusion(slides["1-DX1"], "no feature file for noise")
    assert "not a readable feature file" in left_out[slides["2-DX1"]].why
    assert "2 of 4 rows have NaN" in left_out[slides["5-DX2"]].why
    assert [what for what, exclusion in left_out.items() if exclusion.by_rule] == [slides["3-DX1"]]
    (note,) = [note for note in section.notes if "without some of their slides" in note]
    assert note.startswith("1 of 17 cases are predicted")
    assert note.endswith("what is left out: case_05.")
    assert "Intervals rest on 17 cases only, and are rather too narrow." in section.notes
    assert "case_05" in {record["case"] for record in section.data["predictions"]}


def test_what_gives_no_number_is_refused(tmp_path: Path) -> None:
    path, features = write_labelled_slides(tmp_path)
    with pytest.raises(BenchmarkError, match=r"11 folds need at least 11 cases of every class, but 'mut' has 10"):
        run(path, features, folds=11)
    each = tmp_path / "each.csv"
    each.write_text("case_id,tmb\n" + "".join(f"case_{case:02d},{case}\n" for case in range(NUM_CASES)))
    with pytest.raises(BenchmarkError, match=r"'0' has 1, .*, '12' has 1 and 15 more classes have too few\."):
        run(each, features, label="tmb")
    with pytest.raises(BenchmarkError, match="lacks the column her2"):
        run(path, features, label="her2")
    with pytest.raises(BenchmarkError, match="a label of its own, not uni, uni"):
        run(path, [features[0], features[0]])
    for file in (tmp_path / "noise").iterdir():
        file.write_bytes(b"")
    with pytest.raises(BenchmarkError, match="no case has both a label and features of every model; 44 are left out"):
        run(path, features)
    path.write_text(path.read_text().replace(",wt,", ",mut,"))
    with pytest.raises(BenchmarkError, match="all 20 cases that are left have the label 'mut'"):
        run(path, features)


# --- reading and repeating ---


@pytest.mark.slow
def test_hashes_follow_the_files(tmp_path: Path) -> None:
    path, features = write_labelled_slides(tmp_path)
    before = run(path, features).source
    write_features(tmp_path / "uni", "case_04-DX1", np.ones((4, WIDTH), np.float32))
    after = run(path, features).source
    assert {key for key in before if before[key] != after[key]} == {"features uni sha256"}


PROGRAM = """
import json
from pathlib import Path
from support.slide_sets import run
path = Path("labels.csv").absolute()
print(json.dumps(run(path, [(name, path.parent / name) for name in ("uni", "noise")]).record()))
"""


@pytest.mark.slow
def test_another_process_with_more_threads_gives_the_same_digits(tmp_path: Path) -> None:
    path, features = write_labelled_slides(tmp_path)
    here = run(path, features).record()
    there = json.loads(said_with_threads(2, PROGRAM, tmp_path, PYTHONHASHSEED="7"))
    for ours, theirs in zip(here["data"]["predictions"], there["data"]["predictions"], strict=True):
        for model in ("uni", "noise"):  # regression sums in BLAS, whose threads share the rounding
            mean = ours["probabilities"].pop(f"{model}, {MEAN}")
            assert theirs["probabilities"].pop(f"{model}, {MEAN}") == pytest.approx(mean, rel=1e-12)
    assert there == json.loads(json.dumps(here))
    other = run(path, features, seed=1).record()
    assert other["tables"][0] != here["tables"][0]
