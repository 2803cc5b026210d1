"""Fresh views: rounds equal views made at once, a run shows each in an epoch, and nothing that was shown may change."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.extraction import TEACHER, extract, plan_cohort, store_files, write_cohort, write_teacher
from support.stores import run_files, student_folder, train_config

from pipeline.base.draws import RunDraws
from pipeline.base.errors import ConfigError, StoreError
from pipeline.cohort.plan import Plan
from pipeline.cohort.plan_hdf5 import write_plan
from pipeline.config.stages import ExtractConfig
from pipeline.sampling import TRAIN
from pipeline.store.create import open_round
from pipeline.store.format import Status
from pipeline.store.fresh_views import FreshViews
from pipeline.store.store import Store
from pipeline.store.teachers import choose_teachers
from pipeline.study.grid import Setting
from pipeline.training.rows.reading import StoredRows
from stages.extract_teacher import extract_teacher
from stages.extracting.prepare import view_settings
from stages.finished import finished_extract, finished_training
from stages.inspect import inspect_path
from stages.reports.extract import extract_report
from stages.studies import runs
from stages.train_student import train_student
from stages.verify import verify_store

pytestmark = pytest.mark.usefixtures("one_thread")
PATCH, TILE, EPOCHS = 64, 80, 3
VIEWS: dict[str, Any] = {"views": EPOCHS + 1, "views_strength": "paper", "views_seed": 4}
FRESH = VIEWS | {"views_per_epoch": "fresh"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slides, their plan, a teacher, and stores of the same views: `at_once.zarr` and, in rounds, `rounds.zarr`."""
    folder = tmp_path_factory.mktemp("rounds")
    plan = plan_cohort(write_cohort(folder / "slides"), tile_px=TILE, patches_per_slide=18, val_fraction=0.4)
    write_plan(plan, folder / "plan.h5")
    write_teacher(folder / "teacher.safetensors")
    extract(plan, folder / "at_once.zarr", folder / "teacher.safetensors", **VIEWS)
    extract(plan, folder / "rounds.zarr", folder / "teacher.safetensors", **FRESH)
    student_folder(folder / "student", "test_vit", img_size=PATCH, depth=2, embed_dim=32, num_heads=2)
    return folder


@pytest.fixture(scope="module")
def plan(root: Path) -> Plan:
    return Store(root / "rounds.zarr").plan


def train(store: Path, run: Path, student: Path | None = None, **options: Any) -> Path:
    chosen = {"epochs": EPOCHS, "batch_size": 4, "checkpoint_every": 2, "views_per_epoch": "fresh"} | options
    encoder = f"local-dir:{student or store.parent / 'student'}"
    train_student(Store(store), run, train_config(encoder, use_plain_view=False, **chosen))
    return run


def copied(root: Path, folder: Path, name: str = "rounds.zarr") -> Path:
    """A copy of a store, and of the student, that a test may change."""
    shutil.copytree(root / "student", folder / "student")
    return Path(shutil.copytree(root / name, folder / name))


@pytest.mark.slow
def test_rounds_have_the_embeddings_of_views_made_at_once(root: Path) -> None:
    at_once, rounds = Store(root / "at_once.zarr").first, Store(root / "rounds.zarr").first
    assert (rounds.views.count, len(rounds.rounds), rounds.views_at_hand) == (1, EPOCHS, at_once.views)
    assert rounds.views_strength == at_once.views_strength == "paper"
    for shard in range(at_once.num_shards):
        views = at_once.read_views(shard)
        assert np.array_equal(rounds.read_embeddings(shard), views[:, 0])
        for made in rounds.rounds:
            assert made.attributes["version"] == 2
            assert np.array_equal(made.read_embeddings(shard), views[:, made.own_view])
    for row in rounds.ok_rows()[:5].tolist():
        for view in range(EPOCHS + 1):
            assert np.array_equal(rounds.read_embedding(row, view), at_once.read_embedding(row, view))
    with pytest.raises(StoreError, match=r"rounds/4: view 4 was not made"):
        rounds.read_embedding(0, 4)


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 3])
def test_views_are_added_to_a_store_and_what_is_there_stays(
    root: Path, plan: Plan, tmp_path: Path, at_once: int
) -> None:
    out, weights = tmp_path / "store.zarr", root / "teacher.safetensors"
    first = FRESH | {"views": 2} if at_once == 1 else VIEWS | {"views": at_once}
    extract(plan, out, weights, **first)
    before = store_files(out)
    found = extract(plan, out, weights, **FRESH)
    after = store_files(out)
    assert {name: after[name] for name in before} == before
    assert found.num_new_rows == plan.num_rows * (2 if at_once == 1 else 1)
    whole, store = Store(root / "at_once.zarr").first, Store(out).first
    assert store.views_at_hand == whole.views
    for row in store.ok_rows()[::7].tolist():
        assert all(
            np.array_equal(store.read_embedding(row, v), whole.read_embedding(row, v)) for v in range(EPOCHS + 1)
        )
    again = extract(plan, out, weights, **FRESH)
    assert again.num_new_rows == 0
    assert "nothing was left to do" in extract_report(again)
    assert {1: "views 1 to 3 in rounds", 3: "view 3 in rounds"}[at_once] in extract_report(again)


def test_files_that_a_round_lacks_are_named(root: Path, plan: Plan, tmp_path: Path) -> None:
    """Such as in half a copy: before more rounds are made."""
    out = copied(root, tmp_path)
    Store(out).first.rounds[1].shard_path("embedding", 0).unlink()
    with pytest.raises(StoreError, match=r"1 file that the ledger names \(rounds/2/embedding/c/0/0"):
        extract(plan, out, root / "teacher.safetensors", **FRESH)


@pytest.mark.slow
def test_a_further_teacher_has_rounds_of_its_own(root: Path, plan: Plan, tmp_path: Path) -> None:
    out = copied(root, tmp_path)
    weights = write_teacher(tmp_path / "further.safetensors", "test_efficientnet", seed=3)
    extract(plan, out, weights, teacher="test_efficientnet", **FRESH | {"views": 3})
    further = Store(out).teachers["test_efficientnet"]
    assert [made.folder.relative_to(out).as_posix() for made in further.rounds] == [
        "teachers/test_efficientnet/rounds/1",
        "teachers/test_efficientnet/rounds/2",
    ]
    both = choose_teachers(Store(out), [TEACHER, "test_efficientnet"], None)
    assert (both.views.count, both.views_at_hand.count) == (1, 3)
    with pytest.raises(StoreError, match=r"--teacher test_efficientnet --views 4 \(or more\)"):
        train(out, tmp_path / "run", teacher=[TEACHER, "test_efficientnet"])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"views_seed": 5}, "views_seed"),
        ({"views_strength": "strong"}, "views_strength"),
        ({"views": 1}, "say with --views"),
        ({"views": 65, "views_per_epoch": "turn"}, "at most 64"),
    ],
)
def test_other_views_and_numbers_are_refused(
    root: Path, plan: Plan, tmp_path: Path, options: dict[str, Any], told: str
) -> None:
    out = copied(root, tmp_path)
    before = store_files(out)
    with pytest.raises((StoreError, ConfigError), match=told):
        extract(plan, out, root / "teacher.safetensors", **FRESH | options)
    assert store_files(out) == before


@pytest.mark.parametrize("options", [{"views_seed": 5}, {"views_strength": "mild"}])
def test_rounds_after_views_made_at_once_are_of_their_seed(
    root: Path, plan: Plan, tmp_path: Path, options: dict[str, Any]
) -> None:
    out = copied(root, tmp_path, "at_once.zarr")
    with pytest.raises(StoreError, match="same seed and strength only"):
        extract(plan, out, root / "teacher.safetensors", **FRESH | {"views": 9} | options)
    assert not (out / "rounds").exists()


def test_an_epoch_shows_its_view_and_the_teachers_embedding_of_it(root: Path) -> None:
    store = Store(root / "rounds.zarr")
    teachers = choose_teachers(store, None, None)
    rows = store.first.ok_rows(TRAIN)
    for plain in (True, False):
        fresh = FreshViews(teachers, rows, plain=plain)
        reader = StoredRows(teachers.stored, views=teachers.views_at_hand, plain_view=plain, fresh=fresh, tell=print)
        for epoch in range(EPOCHS):
            fresh.begin(epoch)
            view = epoch if plain else epoch + 1
            for row in rows[:3].tolist():
                out = np.empty((PATCH, PATCH, 3), np.uint8)
                embedding = reader.reader(RunDraws(0), epoch, "none").read(row, out)
                assert np.array_equal(out, teachers.views_at_hand.apply(store.read_pixels(row), row, view))
                assert np.array_equal(embedding, store.first.read_embedding(row, view))


@pytest.mark.slow
def test_a_run_is_the_same_from_rounds_and_from_views_made_at_once(root: Path, tmp_path: Path) -> None:
    made = [train(root / name, tmp_path / name) for name in ("at_once.zarr", "rounds.zarr")]
    files = [run_files(run) for run in made]
    for name in ("metrics.jsonl", "student/model.safetensors", "student/projector/projector.safetensors"):
        assert files[0][name] == files[1][name], name
    card = (made[1] / "student" / "README.md").read_text()
    assert "A fresh view of each patch in each epoch (strength: paper, each a crop of 64 of 80 px)" in card
    assert json.loads((made[1] / "run.json").read_text())["options"]["views_per_epoch"] == "fresh"
    with pytest.raises(Exception, match="views_per_epoch"):
        train(root / "at_once.zarr", made[0], views_per_epoch="turn")


@pytest.mark.slow
def test_a_run_stops_where_views_end_and_continues_when_they_are_there(
    root: Path, plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = copied(root, tmp_path)
    shutil.rmtree(out / "rounds" / "3")
    run = tmp_path / "run"
    with pytest.raises(StoreError, match=r"view 3, for epoch 3, is not there yet.*--views 4 \(or more\)"):
        train(out, run)
    assert "fresh views for 2 of 3 epochs" in capsys.readouterr().err
    assert max(json.loads(line)["epoch"] for line in (run / "metrics.jsonl").read_text().splitlines()) == 2
    extract(plan, out, root / "teacher.safetensors", **FRESH)
    train(out, run)
    whole = train(root / "rounds.zarr", tmp_path / "whole", tmp_path / "student")
    assert run_files(run) == run_files(whole)


@pytest.mark.slow
def test_a_view_that_was_shown_may_not_change(root: Path, tmp_path: Path) -> None:
    out = copied(root, tmp_path)
    shutil.rmtree(out / "rounds" / "3")
    with pytest.raises(StoreError, match="not there yet"):
        train(out, tmp_path / "run")
    shutil.copytree(root / "rounds.zarr" / "rounds" / "3", out / "rounds" / "3")
    metadata = out / "rounds" / "1" / "zarr.json"
    metadata.write_text(metadata.read_text().replace('"precision": "float32"', '"precision": "bfloat16"'))
    with pytest.raises(StoreError, match="view 1 was made again since this run showed it in epoch 1"):
        train(out, tmp_path / "run")


@pytest.mark.slow
def test_a_finished_run_knows_the_views_that_it_has_shown(root: Path, plan: Plan, tmp_path: Path) -> None:
    out = copied(root, tmp_path)
    run = train(out, tmp_path / "run")
    shown = json.loads((run / "fresh_views.json").read_text())["shown"]
    assert shown == [[made.content_hash()] for made in Store(out).first.rounds]
    assert json.loads((run / "student" / "student.json").read_text())["training"]["fresh_views"] == shown
    before = run_files(run)
    shutil.rmtree(out / "rounds")
    again = FRESH | {"views_seed": 5, "views_strength": "strong"}
    extract(plan, out, root / "teacher.safetensors", **again)
    encoder = f"local-dir:{tmp_path / 'student'}"
    options = {"epochs": EPOCHS, "batch_size": 4, "checkpoint_every": 2, "views_per_epoch": "fresh"}
    assert finished_training(Store(out), run, train_config(encoder, use_plain_view=False, **options)) is None
    with pytest.raises(StoreError, match="view 1 was made again since this run showed it in epoch 1"):
        train(out, run)
    assert run_files(run) == before


@pytest.mark.slow
def test_a_damaged_record_of_views_is_told(root: Path, tmp_path: Path) -> None:
    out = copied(root, tmp_path)
    shutil.rmtree(out / "rounds" / "3")
    with pytest.raises(StoreError, match="not there yet"):
        train(out, tmp_path / "run")
    (tmp_path / "run" / "fresh_views.json").write_text("[")
    with pytest.raises(StoreError, match=r"fresh_views\.json: damaged record of the views that were shown"):
        train(out, tmp_path / "run")


def test_without_any_fresh_view_nothing_begins(root: Path, tmp_path: Path) -> None:
    out = copied(root, tmp_path)
    shutil.rmtree(out / "rounds")
    with pytest.raises(ConfigError, match="no view but the patch itself"):
        train(out, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_rows_that_failed_in_a_round_are_named_and_tried_again(root: Path, tmp_path: Path) -> None:
    manifest = write_cohort(tmp_path / "slides")
    plan = plan_cohort(manifest, patches_per_slide=6, val_fraction=0.0)
    out, weights = tmp_path / "store.zarr", root / "teacher.safetensors"
    options = FRESH | {"views_strength": "mild", "pixels": "none", "max_failures": None}
    extract(plan, out, weights, **options | {"views": 2})
    slide = tmp_path / "slides" / "s1.svs"
    slide.rename(tmp_path / "away.svs")
    found = extract(plan, out, weights, **options | {"views": 3})
    assert found.num_failed == 6
    assert "rounds/2/failures.csv" in extract_report(found)
    rows = Store(out).first.ok_rows(TRAIN)
    fresh = FreshViews(choose_teachers(Store(out), None, None), rows, plain=True)
    fresh.begin(1)
    with pytest.raises(StoreError, match=r"rounds/2: view 2 of row 6 failed"):
        fresh.begin(2)
    (tmp_path / "away.svs").rename(slide)
    assert extract(plan, out, weights, **options | {"views": 3, "retry_failures": True}).num_failed == 0
    FreshViews(choose_teachers(Store(out), None, None), rows, plain=True).begin(2)
    assert not (out / "rounds" / "2" / "failures.csv").exists()


def test_verify_and_inspect_know_rounds(root: Path, tmp_path: Path) -> None:
    out = copied(root, tmp_path)
    text, code = verify_store(out, root / "teacher.safetensors", 16, "cpu")
    assert code == 0
    assert "one of 4 views of each" in text
    assert "smallest cosine 1.000000" in text
    assert f"view 3 of {TEACHER}: 5 of 5 shards" in text
    assert "4 of each patch, 3 in rounds, seed 4, paper" in inspect_path(out)
    (out / "rounds" / "3" / "shards" / "2.json").unlink()
    assert "3 of each patch, 2 in rounds, view 3 not finished, seed 4, paper" in inspect_path(out)
    assert verify_store(out, None, 0, "cpu")[1] == 3
    shard = Store(out).first.rounds[1].shard_path("embedding", 1)
    data = bytearray(shard.read_bytes())
    data[40] ^= 1
    shard.write_bytes(data)
    text, code = verify_store(out, None, 0, "cpu")
    assert code == 1
    assert "embedding/c/1/0: its bytes have changed" in text
    assert "rounds/2: delete shards" in text


def test_a_round_in_the_place_of_another_is_refused(root: Path, tmp_path: Path) -> None:
    out = copied(root, tmp_path)
    shutil.rmtree(out / "rounds" / "2")
    shutil.copytree(out / "rounds" / "3", out / "rounds" / "2")
    with pytest.raises(StoreError, match=r"rounds/2: these embeddings are of another view"):
        Store(out).first.round(2)


def test_a_repeated_command_knows_that_it_is_done(root: Path, plan: Plan, tmp_path: Path) -> None:
    out, source = copied(root, tmp_path), root / "plan.h5"
    values = {"teacher": TEACHER, "weights": root / "teacher.safetensors", "device": "cpu", "rows_per_shard": 8}
    config = ExtractConfig.build(values | {"batch_size": 4} | FRESH)
    record = config.absolute().record() | {"plan": str(source), "out": str(out)}
    extract_teacher(plan, out, config, record=record)
    found = finished_extract(plan, source, out, config)
    assert found is not None
    assert found.num_new_rows == 0
    more = config.model_copy(update={"views": 5})
    assert finished_extract(plan, source, out, more) is None
    (out / "rounds" / "3" / "shards" / "0.json").unlink()
    assert finished_extract(plan, source, out, config) is None


@pytest.mark.slow
def test_a_finished_run_of_fresh_views_is_known(root: Path, tmp_path: Path) -> None:
    run = train(root / "rounds.zarr", tmp_path / "run")
    student = f"local-dir:{root / 'student'}"
    options = {"epochs": EPOCHS, "batch_size": 4, "checkpoint_every": 2, "views_per_epoch": "fresh"}
    config = train_config(student, use_plain_view=False, **options)
    assert finished_training(Store(root / "rounds.zarr"), run, config) is not None
    assert (
        finished_training(Store(root / "rounds.zarr"), run, config.model_copy(update={"views_per_epoch": "turn"}))
        is None
    )


def test_a_round_continues_under_its_settings_only(root: Path, plan: Plan, tmp_path: Path) -> None:
    first = Store(copied(root, tmp_path)).first
    settings = view_settings(plan, FRESH["views_seed"], FRESH["views_strength"])
    assert open_round(first, plan, 2, settings, {}).ledger.pending() == []
    assert set(open_round(first, plan, 2, settings, {}).status().tolist()) == {int(Status.OK)}
    with pytest.raises(StoreError, match="made with other inputs"):
        open_round(first, plan, 2, settings | {"views_seed": 9}, {})


def test_scores_of_a_study_depend_on_the_rounds_that_its_runs_show(root: Path) -> None:
    store, student = Store(root / "rounds.zarr"), f"local-dir:{root / 'student'}"
    hashes = [made.content_hash() for made in store.first.rounds]
    for epochs, expected in ((2, hashes[:2]), (EPOCHS, hashes), (9, hashes)):
        assert runs._rounds_shown(store, train_config(student, epochs=epochs, views_per_epoch="fresh")) == expected
    assert runs._rounds_shown(store, train_config(student, epochs=2)) == []


def test_a_study_of_more_epochs_than_fresh_views_does_not_begin(root: Path) -> None:
    store = Store(root / "rounds.zarr")
    base = {"student": f"local-dir:{root / 'student'}", "weights": "scratch", "views_per_epoch": "fresh"}
    long = Setting("epochs-4", {"epochs": "4"}, {"epochs": EPOCHS + 1})
    runs.require_views(
        [store], base | {"use_plain_view": False}, [Setting("epochs-3", {"epochs": "3"}, {"epochs": EPOCHS})]
    )
    runs.require_views([store], base, [long])  # with the patch itself there is one more
    with pytest.raises(ConfigError, match=r"^epochs=4: .* views for 3 of 4 epochs.*--views 5 .*has made the oth"):
        runs.require_views([store], base | {"use_plain_view": False}, [long])
    runs.require_views([store], base | {"use_plain_view": False, "early_stop": "total"}, [long])  # may end before
