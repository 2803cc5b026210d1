"""`g2l curve` as a whole: nested runs, one table, and nothing said where nothing can be."""

import csv
import json
from pathlib import Path

import pytest
from support.commands import call_g2l
from support.stores import make_store
from support.studies import base_values, curve_once, study_store, study_tables
from support.training import stop_after

from pipeline.base.errors import ConfigError
from pipeline.config.studies import CurveConfig
from pipeline.study.points import Cohort
from stages.studies.curve import cohort_of, plan_points

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]
OPTIONS = {"slides": "2,6", "patches": "6,12", "epoch_counts": "1,2", "seeds": 2, "resamples": 100}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curve")
    study_store(folder)
    done = curve_once(folder, folder / "curve", **OPTIONS, base={"epochs": 2})
    (folder / "said.txt").write_text(done.text)
    return folder


def test_a_cohort_is_of_rows_that_all_teachers_have_embedded(tmp_path: Path) -> None:
    """As training takes them: numbers of slides and steps would be those of other rows."""
    stored = [
        make_store(tmp_path / name, train=(4, 3, 2), val=(3,), rows_per_shard=12, failed=failed).first
        for name, failed in (("a", (0,)), ("b", (1, 7, 8)))
    ]
    assert sorted(cohort_of(stored, 0).patches) == [2, 3]
    assert sorted(cohort_of(stored[:1], 0).patches) == [2, 3, 3]


def test_numbers_that_nobody_gave_are_left_out_below_a_batch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a small cohort; they were refused, though there was no option to change. Given ones still are."""
    cohorts, base = [Cohort((12,) * 6)], base_values(tmp_path, batch_size=24)
    points = plan_points(CurveConfig.build({"over": ["slides", "epochs"]}), cohorts, base)
    assert [point.number for point in points if point.axis == "slides"] == [2, 3, 6]
    (note,) = capsys.readouterr().err.splitlines()
    assert note.startswith("note: the curve over slides leaves out 1, which give fewer rows to train on than a batch")
    with pytest.raises(ConfigError, match="1 slides: 12 rows to train on, fewer than a batch of 24"):
        plan_points(CurveConfig.build({"over": ["slides"], "slides": "1,6"}), cohorts, base)


def test_every_point_is_a_run_on_its_rows(folder: Path) -> None:
    runs = {path.name for path in (folder / "curve" / "runs").iterdir()}
    assert runs == {"base", "epochs-1", "epochs-6_train_slides-2", "epochs-4_train_patches_per_slide-6"}
    for name, rows, steps in (("epochs-6_train_slides-2", 24, 12), ("base", 72, 12)):
        lines = (folder / "curve" / "runs" / name / "0" / "metrics.jsonl").read_text().splitlines()
        assert sum('"kind": "step"' in line for line in lines) == steps
        options = json.loads((folder / "curve" / "runs" / name / "0" / "run.json").read_text())["options"]
        assert rows // 12 * options["epochs"] == steps


def test_the_table_has_every_point_and_nothing_is_said_of_two(folder: Path) -> None:
    with (folder / "curve" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["over"], row["number"], row["kind"]) for row in rows] == [
        ("slides", "2", "measured"),
        ("slides", "6", "measured"),
        ("patches a slide", "6", "measured"),
        ("patches a slide", "12", "measured"),
        ("epochs", "1", "measured"),
        ("epochs", "2", "measured"),
    ]
    wholes = {rows[i]["value"] for i in (1, 3, 5)}
    assert len(wholes) == 1  # the whole of each axis is one run
    assert (folder / "said.txt").read_text().count("cannot be said: 2 points; the law needs at least 4") == 3


def test_a_stopped_curve_goes_on_and_says_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "curve"
    with monkeypatch.context() as patch:
        stop_after(patch, 20)
        with pytest.raises(KeyboardInterrupt):
            curve_once(folder, out, **OPTIONS, base={"epochs": 2})
    curve_once(folder, out, **OPTIONS, base={"epochs": 2})
    assert study_tables(out) == study_tables(folder / "curve")
    with pytest.raises(ConfigError, match=r"equal: 'steps' -> 'epochs'"):
        curve_once(folder, out, **OPTIONS, equal="epochs", base={"epochs": 2})


def test_what_the_curve_varies_is_refused_as_an_option(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--train-slides: g2l curve varies it\. Give --slides"):
        curve_once(folder, tmp_path / "out", base={"train_slides": 3})
    with pytest.raises(ConfigError, match="--slides 7: there are 6"):
        curve_once(folder, tmp_path / "out", slides="7")
    assert not (tmp_path / "out").exists()


def test_the_command_with_its_checkpoints_removed(folder: Path, tmp_path: Path) -> None:
    words = [w for name, value in base_values(folder).items() for w in ("--" + name.replace("_", "-"), value)]
    call = ["curve", folder / "store.zarr", "--out", tmp_path / "c", *words, "--over", "slides", "--slides", "3,6"]
    code, said, errors = call_g2l(*call, "--seeds", 1, "--no-keep-checkpoints")
    assert (code, "cannot be said" in said) == (0, True), errors
    assert not list((tmp_path / "c").rglob("*.pt"))
    assert len(list((tmp_path / "c").rglob("model.safetensors"))) == 2
    code, again, errors = call_g2l("curve", "--config", tmp_path / "c" / "config.toml")
    assert (code, again) == (0, said), errors
