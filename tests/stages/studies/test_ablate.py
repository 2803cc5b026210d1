"""`g2l ablate` as a whole: a planted winner is found, equals tie, and a killed grid ends in the same bytes."""

import csv
import shutil
from pathlib import Path

import pytest
from support.commands import call_g2l, without_leftovers
from support.stores import make_store, run_files, student_folder
from support.studies import ablate_once, base_values, study_store, study_tables
from support.training import stop_after

from pipeline.base.errors import ConfigError
from pipeline.config.base import read_options
from pipeline.config.stages import TrainConfig
from pipeline.store.store import Store
from stages import train_student as stage
from stages.studies.ablate import Ablation, pairs_of, plan_ablation

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, a student that can hold the teacher, and one of two dimensions that cannot."""
    folder = tmp_path_factory.mktemp("ablate")
    study_store(folder)
    student_folder(folder / "narrow", "test_vit", img_size=32, depth=1, embed_dim=2, num_heads=1)
    return folder


def planted(folder: Path) -> dict[str, object]:
    """A grid with a winner, by the student's width, and ties, by an option that changes no student."""
    students = ",".join(f"local-dir:{folder / name}" for name in ("narrow", "vit"))
    return {"vary": [f"student={students}", "val_every=1,2"], "seeds": 3}


@pytest.fixture(scope="module")
def grid(folder: Path) -> Ablation:
    return ablate_once(folder, folder / "grid", **planted(folder))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_planted_winner_is_found_and_equals_tie(grid: Ablation, folder: Path) -> None:
    assert not grid.is_partial
    pairs = rows_of(folder / "grid" / "pairs.csv")
    verdicts = {(row["first"], row["second"]): row["verdict"] for row in pairs}
    settings = rows_of(folder / "grid" / "table.csv")
    narrow = {row["setting"] for row in settings if row["student"].endswith("narrow")}
    for (first, second), verdict in verdicts.items():
        if (first in narrow) == (second in narrow):
            assert verdict == "the same"
        else:
            assert verdict == ("higher" if first in narrow else "lower")
    assert {row["runs"] for row in settings} == {"3"}
    assert "Not shown to be lower than another setting: student=local-dir:" in grid.text


def test_the_score_of_a_run_is_one_of_its_own_record(grid: Ablation, folder: Path) -> None:
    """Each run is that of `train-student` with the setting's options, to the byte."""
    values = base_values(folder, seed=1, val_every=2)
    stage.train_student(Store(folder / "store.zarr"), folder / "alone", TrainConfig(**values))
    theirs, ours = run_files(folder / "grid" / "runs" / "val_every-2" / "1"), run_files(folder / "alone")
    assert {name: theirs[name] == ours[name] for name in ours} == dict.fromkeys(ours, True)


def test_a_killed_grid_goes_on_and_says_the_same_to_the_byte(
    grid: Ablation, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    for steps in (3, 26):  # within a run, and in a later one
        with monkeypatch.context() as patch:
            stop_after(patch, steps)
            with pytest.raises(KeyboardInterrupt):
                ablate_once(folder, out, **planted(folder), base={"checkpoint_every": 2})
        without_leftovers(out)
    runs = list((out / "scores").rglob("*.json"))
    before = {path: path.stat().st_mtime_ns for path in runs}
    again = ablate_once(folder, out, **planted(folder), base={"checkpoint_every": 2})
    assert len(before) > 2
    assert {path: path.stat().st_mtime_ns for path in runs} == before
    assert study_tables(out) == study_tables(folder / "grid")
    assert again.text.replace(str(out), "OUT") == grid.text.replace(str(folder / "grid"), "OUT")


def test_a_finished_grid_trains_nothing_and_is_extended(
    grid: Ablation, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(folder / "grid", out)
    with monkeypatch.context() as patch:
        stop_after(patch, 0)
        ablate_once(folder, out, **planted(folder))
        smaller = ablate_once(folder, out, vary=["val_every=1,2"], seeds=2, compare="reference", score="cosine")
    assert study_tables(out) != study_tables(folder / "grid")
    assert "1 settings" not in smaller.text
    larger = ablate_once(folder, out, vary=["val_every=1,2,3"], seeds=2)
    assert "val_every=3" in larger.text
    with pytest.raises(ConfigError, match=r"options.lr: 0.0001 -> 0.1\n"):
        ablate_once(folder, out, vary=["val_every=1,2"], base={"lr": 0.1})


def test_stores_of_one_plan_are_compared_and_others_refused(folder: Path, tmp_path: Path) -> None:
    study_store(tmp_path)
    make_store(tmp_path / "float32.zarr", train=(12,) * 6, val=(8,) * 8, dtype="float32")
    make_store(tmp_path / "other.zarr", train=(12,) * 6, val=(8,) * 7)
    make_store(tmp_path / "failed.zarr", train=(12,) * 6, val=(8,) * 8, failed=(25,))
    stores = [tmp_path / "store.zarr", tmp_path / "float32.zarr"]
    done = ablate_once(tmp_path, tmp_path / "out", stores, seeds=1)
    assert "store=float32.zarr" in done.text
    for name, words in (("other", "another plan"), ("failed", "other held-out patches")):
        vary = [f"store={tmp_path / 'store.zarr'},{tmp_path / name}.zarr"]
        with pytest.raises(ConfigError, match=rf"{name}.zarr has {words}"):
            ablate_once(tmp_path, tmp_path / name, vary=vary, seeds=1)


def test_what_cannot_be_compared_is_refused_before_anything_is_made(folder: Path, tmp_path: Path) -> None:
    for options, words in (
        ({}, "1 setting: nothing to compare"),
        ({"vary": ["loss=mse", "alpha=2,4"]}, "1 setting: nothing to compare"),
        ({"vary": ["loss=mse,cosine"], "reference": "loss=log-sum"}, "is not of the grid"),
        ({"vary": ["recipe=default,paper"]}, "recipe=paper: --no-use-plain-view: the teacher has embedded no view"),
    ):
        with pytest.raises(ConfigError, match=words):
            ablate_once(folder, tmp_path / "out", **options)
    (tmp_path / "store.zarr").mkdir()
    with pytest.raises(ConfigError, match="have one name"):
        plan_ablation([folder / "store.zarr", tmp_path / "store.zarr"], [], None, base_values(folder))
    assert not (tmp_path / "out").exists()


def test_pairs_are_all_or_those_with_the_reference() -> None:
    assert pairs_of(["a", "b", "c"], "b", "reference") == [("b", "a"), ("b", "c")]
    assert pairs_of(["a", "b", "c"], "b", "all") == [("b", "a"), ("b", "c"), ("a", "c")]


@pytest.mark.parametrize("vary", ["val_every=1,2", "recipe=default,paper"])
def test_the_command_records_what_it_was_called_with(folder: Path, tmp_path: Path, vary: str) -> None:
    """And goes on from that record alone."""
    base = base_values(folder)
    words = [word for name, value in base.items() for word in ("--" + name.replace("_", "-"), value)]
    out = tmp_path / "out"
    call = ["ablate", folder / "store.zarr", "--out", out, *words, "--use-plain-view", "--vary", vary, "--seeds", 1]
    code, said, errors = call_g2l(*call)
    assert (code, "No difference can be said: that takes two runs" in said) == (0, True), errors
    record = read_options(out / "config.toml", "ablate")
    assert (record["stores"], record["vary"], record["seeds"]) == ([str(folder / "store.zarr")], [vary], 1)
    tables = study_tables(out)
    code, _, errors = call_g2l("ablate", "--config", out / "config.toml")
    assert (code, study_tables(out)) == (0, tables), errors
    code, _, errors = call_g2l("ablate", "--config", out / "config.toml", "--epochs", 2)
    assert (code, "options.epochs: 1 -> 2" in errors) == (1, True)
