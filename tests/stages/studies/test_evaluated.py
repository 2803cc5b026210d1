"""The students of an ablation, evaluated by the benchmarks: from a table, over seeds, with the cache."""

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest
from support.fuzz_damage import damages_of
from support.labelled_patches import write_patches
from support.pixels import noise
from support.studies import ablate_once, study_store

from pipeline.base.errors import BenchmarkError, ConfigError
from pipeline.study.folder import StudyFolder
from pipeline.study.grid import Setting
from stages.studies import evaluated as module
from stages.studies.evaluated import combined, evaluate_students, read_benchmarks, read_report, score_table
from stages.studies.runs import Study, StudyRuns

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]


def number(value: float, half: float = 0.02) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def test_students_are_evaluated_and_their_scores_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study_store(tmp_path)
    cases = [f"C{i // 2}" for i in range(16)]
    columns = {"label": ["xy"[i // 2 % 2] for i in range(16)], "case_id": cases}
    table = write_patches(tmp_path, [noise(32, 32, 3, seed=i) for i in range(16)], columns)
    file = tmp_path / "benchmarks.toml"
    file.write_text(
        f'[evaluate]\npatches = "{table}"\nresamples = 100\nfolds = 2\nknn = 3\ndraws = 2\ndevice = "cpu"\n'
    )
    done = ablate_once(tmp_path, tmp_path / "out", vary=["val_every=1,2"], seeds=2, evaluate=file)
    with (tmp_path / "out" / "table.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    added = [row for row in rows if row["score"] != "R2 of the best linear map"]
    assert added
    assert {row["setting"] for row in added} == {"base", "val_every-2"}
    assert {row["verdict"] for row in added} <= {"", "the same"}  # the two students are one
    assert len(list((tmp_path / "out" / "evaluate" / "embeddings").glob("*.h5"))) == 2  # a student a seed
    monkeypatch.setattr(module, "evaluate", lambda *_: pytest.fail("evaluated again"))
    assert ablate_once(tmp_path, tmp_path / "out", vary=["val_every=1,2"], seeds=2, evaluate=file).text == done.text


def test_a_report_is_made_again_when_an_input_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = StudyFolder(tmp_path / "out")
    for label in ("a", "b"):
        (folder.run(label, 0) / "student").mkdir(parents=True)
        (folder.run(label, 0) / "student" / "model.safetensors").write_text(label)
    table = write_patches(tmp_path, [noise(8, 8, 3)], {"label": ["x"], "case_id": ["c"]})
    made = []

    def report(out: Path, config: object) -> None:
        made.append(out)
        out.mkdir(parents=True)
        (out / "report.json").write_text('{"sections": {}}')

    monkeypatch.setattr(module, "evaluate", report)
    study = Study(folder, {}, [], None, [0], True)  # type: ignore[arg-type]
    settings, runs = [Setting("a", {}, {}), Setting("b", {}, {})], StudyRuns({"a": {0: None}, "b": {0: None}})  # type: ignore[dict-item]

    def evaluated() -> int:
        evaluate_students(study, settings, runs, "a", {"patches": str(table)}, 0.05)
        return len(made)

    assert (evaluated(), evaluated()) == (1, 1)
    table.write_text(table.read_text().replace(",x,", ",y,"))
    assert (evaluated(), evaluated()) == (2, 2)
    image = next(tmp_path.rglob("*.png"))
    image.write_bytes(image.read_bytes() + b" ")
    assert (evaluated(), evaluated()) == (3, 3)
    table.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        evaluated()


def test_a_reference_that_diverged_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Study(StudyFolder(tmp_path), {}, [], None, [0], True)  # type: ignore[arg-type]
    runs = StudyRuns({"b": {0: None}}, {("a", 0): "diverged"})  # type: ignore[dict-item]
    assert evaluate_students(study, [Setting("a", {}, {}), Setting("b", {}, {})], runs, "a", {}, 0.05) == []
    assert "nothing is evaluated, as all runs of the reference diverged" in capsys.readouterr().err


def test_a_number_of_several_reports_is_one_over_seeds_and_cases() -> None:
    each = combined([number(0.5), number(0.6), number(0.7)])
    assert each.value == pytest.approx(0.6)
    assert each.seed_error == pytest.approx(0.1 / np.sqrt(3))
    assert each.case_error == pytest.approx(0.02 / 1.96, rel=1e-4)
    assert (each.seed_freedom, each.case_freedom) == (2, 2)
    assert each.interval("cases") == pytest.approx((0.58, 0.62), abs=1e-6)  # as wide as the reports' own
    assert each.interval()[0] < 0.6 - 4.3 * each.error + 1e-3
    assert combined([number(0.5)]).interval("cases") == pytest.approx((0.48, 0.52), abs=1e-6)


def test_differences_are_judged_against_the_reference() -> None:
    reports = [
        {
            "values": {"a": number(0.5 + s), "b": number(0.8 + s), "c": number(0.5 + 2 * s)},
            "differences": {"b": number(0.3 + s / 10, 0.01), "c": number(s, 0.01)},
        }
        for s in (-0.02, -0.01, 0.0, 0.01, 0.02)
    ]
    made = score_table("accuracy", reports, "a", ["a", "b", "c"], 0.05)
    assert {pair.second: pair.verdict for pair in made.pairs} == {"b": "higher", "c": "the same"}
    assert made.estimates.keys() == {"a", "b", "c"}
    del reports[2]["values"]["c"]
    assert score_table("accuracy", reports, "a", ["a", "b", "c"], 0.05).estimates.keys() == {"a", "b"}


def test_without_an_interval_nothing_can_be_said() -> None:
    none = {"value": 0.1, "low": float("nan"), "high": float("nan")}
    reports = [{"values": {"a": none, "b": none}, "differences": {"b": none}}] * 3
    (pair,) = score_table("x", reports, "a", ["a", "b"], 0.05).pairs
    assert pair.verdict == "cannot be said"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[plan]\nseed = 1\n", "no table .evaluate."),
        ("[evaluate]\nknnn = 3\n", "did you mean knn"),
        ("x", "not a TOML"),
    ],
)
def test_a_wrong_table_is_told_before_anything_is_trained(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_benchmarks(tmp_path / "b.toml")


def test_a_report_that_is_damaged_in_any_way_is_read_or_named(tmp_path: Path) -> None:
    """All damages of the fuzz harness to a report that an ablation reads back: no other exception comes of them."""
    path = tmp_path / "report.json"
    section = {"scores": {"R2": {"a": number(0.5), "b": number(0.6)}}, "differences": {"R2": {"b": number(0.1)}}}
    text = json.dumps({"sections": {"patches": section, "cost": section}})
    whole = read_report(write_new(path, text), ["a", "b"])
    said = set()
    for draw in range(600):
        write_new(path, text)
        damages = damages_of(path)
        damage = damages[draw % len(damages)]
        damage.apply(path, random.Random(draw))
        try:
            damaged = read_report(path, ["a", "b"])
        except BenchmarkError as error:
            said.add(str(error))
            continue
        assert not damage.must, damage.name
        for name in damaged:
            reports = [report[name] for report in (whole, damaged) if name in report]
            with np.errstate(all="ignore"):
                score_table(name, reports, "a", ["a", "b"], 0.05)
    assert len(said) > 5
    assert all("report.json: damaged" in words for words in said)


def write_new(path: Path, text: str) -> Path:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.write_text(text)
    return path


def test_a_damaged_report_is_named(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    scores = {"scores": {"R2": {"a": number(0.5)}}, "differences": {}}
    path.write_text(json.dumps({"sections": {"patches": scores, "cost": scores}}))
    assert read_report(path, ["a"])["R2"]["values"] == {"a": number(0.5)}
    path.write_text('{"sections": {"patches": {}}}')
    with pytest.raises(BenchmarkError, match=r"report\.json.*damaged"):
        read_report(path, ["a"])
