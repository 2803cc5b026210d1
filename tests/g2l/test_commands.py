"""The functions do what the commands do, to the byte, and say what is wrong by exceptions."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from support.commands import call_g2l, succeed
from support.stores import make_store, plain_vit, run_files, student_folder

import g2l
from pipeline.base.errors import ConfigError, StoreError

PLAN: dict[str, Any] = {"patch_px": 64, "patches_per_slide": 12, "val_strip": 0.3, "workers": 1}
TRAIN: dict[str, Any] = {"weights": "scratch", "epochs": 1, "batch_size": 4, "device": "cpu", "workers": 1}


def flags(options: dict[str, Any]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("start") / "student"
    return student_folder(place, "test_vit", patch_px=64, img_size=64, depth=1, embed_dim=32, num_heads=2)


def files_of(folder: Path) -> dict[str, bytes]:
    """What embeddings are in files, by name; records have paths and times."""
    return {path.name: path.read_bytes() for path in folder.rglob("*.h5")}


@pytest.mark.slow
def test_the_functions_do_what_the_commands_do(
    cohort: Path, weights: Path, student: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Plan, store, run, student and embeddings, and what is recorded of them; and nothing is printed."""
    ours, theirs = tmp_path / "functions", tmp_path / "commands"
    ours.mkdir()
    theirs.mkdir()
    teacher = {"teacher": "test_resnet", "weights": weights, "rows_per_shard": 8, "device": "cpu", "workers": 1}
    embedding = {"device": "cpu", "workers": 1, "patch_px": 64, "layout": "trident"}

    succeed("plan", cohort, "--out", theirs / "p.h5", *flags(PLAN))
    succeed("extract-teacher", theirs / "p.h5", "--out", theirs / "s.zarr", *flags(teacher))
    succeed("train-student", theirs / "s.zarr", "--out", theirs / "run", "--student", student, *flags(TRAIN))
    succeed("export", theirs / "run", "--out", theirs / "student")
    succeed("embed", theirs / "student", cohort, "--out", theirs / "features", *flags(embedding))
    capfd.readouterr()

    plan = g2l.plan(cohort, ours / "p.h5", **PLAN)
    extracted = g2l.extract_teacher(ours / "p.h5", str(ours / "s.zarr"), **teacher)
    trained = g2l.train_student(ours / "s.zarr", ours / "run", student=student, **TRAIN)
    exported = g2l.export(ours / "run", ours / "student")
    tally = g2l.embed(ours / "student", cohort, ours / "features", **embedding)
    assert capfd.readouterr() == ("", "")

    assert plan.hash == g2l.read_plan(theirs / "p.h5").hash
    assert (extracted.num_failed, extracted.num_new_rows) == (0, plan.num_rows)
    assert extracted.teacher.content_hash() == type(extracted.store)(theirs / "s.zarr").first.content_hash()
    assert trained.num_new_steps > 0
    ours_run, theirs_run = run_files(ours / "run"), run_files(theirs / "run")
    timed = ("metrics.jsonl", "student/README.md")
    assert {k: v for k, v in ours_run.items() if k not in timed} == {
        k: v for k, v in theirs_run.items() if k not in timed
    }
    assert exported.teachers[0].name == "test_resnet"
    assert (tally.num_slides, tally.is_partial) == (4, False)
    assert files_of(ours / "features") == files_of(theirs / "features") != {}
    for name in ("p.config.toml", "s.zarr/config.toml", "run/config.toml", "features/embed.toml"):
        text = (theirs / name).read_text().replace(str(theirs), str(ours))
        assert (ours / name).read_text() == text
    again = g2l.train_student(ours / "s.zarr", ours / "run", student=student, **TRAIN)
    assert again.num_new_steps == 0
    assert str(ours / "run") in g2l.inspect(ours / "run")


@pytest.mark.slow
def test_a_manifest_is_planned_and_extracted_in_one_call(cohort: Path, weights: Path, tmp_path: Path) -> None:
    options = {"teacher": "test_resnet", "weights": weights, "device": "cpu", "preflight": False}
    extracted = g2l.extract_teacher(cohort, tmp_path / "s.zarr", **options, **PLAN)  # type: ignore[misc]
    assert extracted.counts["OK"] == extracted.store.num_rows > 24
    assert g2l.extract_teacher(cohort, tmp_path / "s.zarr", **options, **PLAN).num_new_rows == 0  # type: ignore[misc]
    assert "4 rows embedded again" in g2l.verify(tmp_path / "s.zarr", sample=4)
    report = g2l.evaluate(
        tmp_path / "report", store=tmp_path / "s.zarr", models=[f"teacher=test_resnet@{weights}", "test_vit@scratch"]
    )
    assert {section.key for section in report.sections} >= {"fidelity"}


@pytest.mark.slow
def test_parts_are_merged(cohort: Path, weights: Path, tmp_path: Path) -> None:
    plan = g2l.plan(cohort, tmp_path / "p.h5", **PLAN)
    options = {"teacher": "test_resnet", "weights": weights, "device": "cpu", "preflight": False, "rows_per_shard": 8}
    for part in ("1/2", "2/2"):
        g2l.extract_teacher(tmp_path / "p.h5", tmp_path / f"{part[0]}.zarr", part=part, **options)  # type: ignore[misc]
    merged = g2l.merge([tmp_path / "1.zarr", tmp_path / "2.zarr"], tmp_path / "s.zarr")
    assert merged.teacher.plan_hash == plan.hash
    with pytest.raises(StoreError, match=r"2\.zarr is part 2/2"):
        g2l.train_student(tmp_path / "2.zarr", tmp_path / "run", student="test_vit")


@pytest.mark.slow
def test_what_is_embedded_is_imported(cohort: Path, weights: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"layout": "trident", "patch_px": 64, "mpp": 0.5, "device": "cpu"}
    tally = g2l.embed(f"test_resnet@{weights}", cohort, tmp_path / "f", **options)  # type: ignore[arg-type]
    options = {
        "teacher": "test_resnet",
        "weights": weights,
        "manifest": cohort,
        "slides_root": cohort.parent,
        "device": "cpu",
    }
    for new in (True, False):
        imported = g2l.import_features(tally.where, tmp_path / "s.zarr", **options)  # type: ignore[arg-type]
        assert (imported.num_new_rows > 0, imported.num_failed) == (new, 0)
    assert imported.store.num_rows == tally.num_patches
    with pytest.raises(g2l.G2LError, match="nothing"):
        g2l.import_features(tmp_path / "nothing", tmp_path / "t.zarr", **options)  # type: ignore[arg-type]


def test_a_manifest_is_made_and_what_is_odd_is_logged(
    slides_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "g2l")
    manifest = g2l.make_manifest(slides_dir, tmp_path / "m.csv")
    assert [row.slide_id for row in manifest.rows] == [f"slide_{i}" for i in range(1, 5)]
    assert manifest.slide_path(manifest.rows[0]).is_file()
    assert any("case" in each.getMessage() for each in caplog.records if each.levelname == "WARNING")
    with pytest.raises(g2l.G2LError, match=r"m\.csv exists"):
        g2l.make_manifest(slides_dir, tmp_path / "m.csv")


def test_an_unknown_option_gets_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"plan has no option patch_pix \(did you mean patch_px\?\)"):
        g2l.plan("m.csv", tmp_path / "p.h5", patch_pix=64)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"train-student has no option epoch \(did you mean epochs\?\)"):
        g2l.train_student("s.zarr", tmp_path / "run", epoch=2)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"extract-teacher has no option patch_pxx \(did you mean patch_px\?\)"):
        g2l.extract_teacher("m.csv", tmp_path / "s.zarr", patch_pxx=2)  # type: ignore[call-arg]
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_value_is_told_as_the_command_tells_it(cohort: Path, tmp_path: Path) -> None:
    for options in ({"patch_px": 0}, {"sample": "spred"}, {"recipe": "papr"}, {"budget": "7 days"}):
        with pytest.raises(ConfigError) as caught:
            g2l.plan(cohort, tmp_path / "p.h5", **options)  # type: ignore[arg-type]
        code, _, said = call_g2l("plan", cohort, "--out", tmp_path / "p.h5", *flags(options))
        assert code == 1
        assert said.replace("(got '0')", "(got 0)") == f"error: {caught.value}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_options_come_from_a_file_unless_the_call_has_them(cohort: Path, tmp_path: Path) -> None:
    file = tmp_path / "options.toml"
    file.write_text("[plan]\npatch_px = 64\npatches_per_slide = 3\nval_fraction = 0.5\n")
    plan = g2l.plan(cohort, tmp_path / "p.h5", config=file, patches_per_slide=2, mpp=None)
    assert (plan.config.patch_px, plan.config.patches_per_slide, plan.num_rows) == (64, 2, 8)
    with pytest.raises(g2l.G2LError, match=r"p\.h5 exists"):
        g2l.plan(cohort, tmp_path / "p.h5", config=file)
    with pytest.raises(ConfigError, match=r"none\.toml"):
        g2l.plan(cohort, tmp_path / "q.h5", config=tmp_path / "none.toml")


@pytest.mark.slow
def test_progress_is_shown_where_it_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path / "s.zarr").folder
    monkeypatch.setattr("pipeline.base.console.QUIET_SECONDS", 0.0)
    options = {**TRAIN, "student": plain_vit(tmp_path / "start")}
    g2l.train_student(store, tmp_path / "quiet", **options)
    assert capsys.readouterr() == ("", "")
    g2l.train_student(store, tmp_path / "run", progress=True, **options)
    said = capsys.readouterr()
    assert said.out == ""
    assert "training: " in said.err
    assert "note: " in said.err


@pytest.mark.slow
def test_training_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    import torch

    store = make_store(tmp_path / "s.zarr").folder
    before = dict(os.environ), list(sys.path), torch.get_rng_state().tolist(), torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    g2l.train_student(store, tmp_path / "run", student=plain_vit(tmp_path / "start"), deterministic=True, **TRAIN)
    assert before == (dict(os.environ), list(sys.path), torch.get_rng_state().tolist(), torch.get_num_threads())
    assert torch.are_deterministic_algorithms_enabled() == deterministic


def test_damage_is_an_exception(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr")
    path = store.first.shard_path("embedding", 0)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StoreError, match="embedding"):
        g2l.verify(store.folder, sample=0)
    with pytest.raises(g2l.G2LError, match="does not exist"):
        g2l.inspect(tmp_path / "none")


@pytest.mark.parametrize("path", ["", b"bytes", None, ["a"]])
def test_an_empty_path_is_not_the_working_folder(path: Any) -> None:
    for call in (g2l.inspect, g2l.open_store, g2l.load_student):
        with pytest.raises(ConfigError, match="is no path"):
            call(path)


def test_a_table_for_a_path_does_not_fill_the_screen() -> None:
    with pytest.raises(ConfigError, match="is no path") as error:
        g2l.inspect(list(range(5000)))  # type: ignore[arg-type]
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("parts", ["ab", Path("ab"), b"ab", None, 3])
def test_one_path_is_no_list_of_parts(parts: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"parts=.*give a list of stores"):
        g2l.merge(parts, tmp_path / "out.zarr")


def test_a_path_is_taken_where_a_name_is(
    cohort: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`teacher=Path("teacher")` is the word: a folder of that name gets the hint that it does in the command."""
    monkeypatch.chdir(tmp_path)
    Path("teacher").mkdir()
    for teacher in ("teacher", Path("teacher")):
        with pytest.raises(g2l.G2LError, match="there is a folder of this name: local-dir:teacher"):
            g2l.extract_teacher(cohort, "store.zarr", teacher=teacher, device="cpu", patches_per_slide=4, patch_px=64)


def test_a_word_is_no_list_of_words(tmp_path: Path) -> None:
    """Every option that is a list, of every function."""
    for call, options in (
        (lambda **o: g2l.export(tmp_path, tmp_path / "o", **o), {"format": "onnx"}),
        (lambda **o: g2l.evaluate(tmp_path / "o", **o), {"models": "uni"}),
        (lambda **o: g2l.plan(tmp_path / "m.csv", tmp_path / "o", **o), {"skip_rule": "pen"}),
        (lambda **o: g2l.train_student(tmp_path, tmp_path / "o", student="x", **o), {"teacher": "uni"}),
    ):
        with pytest.raises(ConfigError, match="should be a valid list"):
            call(**options)


def test_several_processes_are_sent_to_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    for call in (g2l.extract_teacher, g2l.train_student, g2l.import_features):
        with pytest.raises(g2l.G2LError, match="torchrun --no-python --nproc-per-node 2 g2l"):
            call(tmp_path / "a", tmp_path / "b")
    with pytest.raises(g2l.G2LError, match="torchrun"):
        g2l.embed("uni", tmp_path, tmp_path / "b")
