"""The runs of a study: one that diverges stops no other, and stores are compared only if they can be."""

import json
from pathlib import Path
from typing import Any

import pytest
import support.stores
from safetensors.torch import save_file
from support.stores import copy_with_teacher, embed_patches, make_store
from support.studies import ablate_once, base_values, study_store

from pipeline.base.errors import CheckpointError, ConfigError, DivergedError
from pipeline.encoders.build import build_encoder
from pipeline.store.store import Store
from pipeline.study.folder import StudyFolder
from pipeline.study.grid import Setting
from pipeline.study.tables import PAIR_COLUMNS
from pipeline.training.early_stop import Stop
from pipeline.training.run_folder import RunFolder
from stages.studies import runs as module
from stages.studies.runs import (
    StudyRuns,
    build_yardstick,
    drop_checkpoints,
    require_one_process,
    require_same_rows,
    stopped_note,
    yardstick_note,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    study_store(folder)
    return folder


@pytest.mark.slow
def test_a_run_that_diverges_is_told_and_the_others_are_compared(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = module.train_student

    def diverging(store: Store, out: Path, config: object, **how: bool) -> object:
        if out.parts[-2:] == ("val_every-2", "1"):
            raise DivergedError("training has diverged: at step 3 loss is nan")
        return real(store, out, config, **how)

    monkeypatch.setattr(module, "train_student", diverging)
    done = ablate_once(folder, tmp_path / "out", vary=["val_every=1,2"], seeds=3)
    assert done.is_partial
    assert "1 run diverged; seeds that a setting lacks are left out" in done.text
    said = capsys.readouterr().err
    assert "val_every=2, seed 1: training has diverged" in said
    assert "the store pays" not in said, "one store serves all runs"
    assert {line.split()[1] for line in done.text.splitlines() if line.startswith("val_every")} >= {"2"}
    monkeypatch.setattr(module, "train_student", real)
    assert not ablate_once(folder, tmp_path / "out", vary=["val_every=1,2"], seeds=3).is_partial


@pytest.mark.slow
def test_settings_of_which_all_runs_diverge_leave_the_others_or_are_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.train_student
    bad = {"base", "val_every-2"}

    def diverging(store: Store, out: Path, config: object, **how: bool) -> object:
        if out.parent.name in bad:
            raise DivergedError("training has diverged: at step 3 loss is nan")
        return real(store, out, config, **how)

    monkeypatch.setattr(module, "train_student", diverging)
    with pytest.raises(ConfigError, match="all compared runs diverged"):
        ablate_once(folder, tmp_path / "out", vary=["val_every=1,2"], seeds=1)
    bad.remove("base")
    done = ablate_once(folder, tmp_path / "out", vary=["val_every=1,2"], seeds=1)
    assert (done.is_partial, "nothing to compare" in done.text) == (True, True)
    assert (tmp_path / "out" / "pairs.csv").read_text() == ",".join(PAIR_COLUMNS) + "\n"
    assert len((tmp_path / "out" / "table.csv").read_text().splitlines()) == 2


def test_runs_that_stopped_early_are_told(tmp_path: Path) -> None:
    folder, setting = StudyFolder(tmp_path), Setting("recipe-paper", {"recipe": "paper"}, {})
    for seed, step in ((0, 4_100), (1, 900), (2, None)):
        run = RunFolder(folder.run(setting.label, seed))
        run.metrics_path.parent.mkdir(parents=True)
        lines = [{"kind": "val", "step": 0}] + ([Stop(step, 0, 1.0, 0.5, 11).line()] if step else [])
        run.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    note = stopped_note(folder, setting, [0, 1, 2])
    assert "recipe=paper: 2 of 3 runs stopped early, after 900 to 4,100 steps" in note
    assert "1 of 1 run stopped early, after 900 steps" in stopped_note(folder, setting, [1])
    assert stopped_note(folder, setting, [2]) == stopped_note(folder, setting, []) == ""


def test_seeds_are_common_to_all_settings() -> None:
    runs = StudyRuns({"a": {0: None, 1: None, 2: None}, "b": {2: None, 0: None}})  # type: ignore[dict-item]
    assert runs.complete_seeds([0, 1, 2], ["a", "b"]) == [0, 2]
    assert runs.complete_seeds([0, 1, 2], ["a", "c"]) == []


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    require_one_process()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="one process"):
        require_one_process()


def test_the_yardstick_is_the_first_teacher_of_the_first_store(folder: Path, tmp_path: Path) -> None:
    store = Store(folder / "store.zarr")
    made = build_yardstick(store, base_values(folder), 16, StudyFolder(tmp_path))
    assert (made.teacher.name, len(made.rows.val)) == ("test-teacher", 16)
    require_same_rows([store, Store(folder / "store.zarr")], "test-teacher")


def with_weights(folder: Path, sha256: str) -> Store:
    """A store whose teacher records this hash of its weights."""
    make_store(folder, train=(4,), val=(4,))
    path = folder / "zarr.json"
    metadata = path.read_text()
    assert metadata.count("0" * 64) == 1
    path.write_text(metadata.replace("0" * 64, sha256))
    store = Store(folder)
    assert store.first.record["weights_sha256"] == sha256
    return store


def test_with_which_of_several_teachers_students_are_compared_is_said(tmp_path: Path) -> None:
    one = make_store(tmp_path / "one.zarr", train=(6,), val=(2,))
    assert yardstick_note(one.first) == ""
    two = Store(copy_with_teacher(one.folder, tmp_path / "two.zarr", "second"))
    assert yardstick_note(two.teacher("second")) == (
        "held-out scores compare every student with second, the first --teacher of the base, whichever teachers it "
        "learns from; not with test-teacher"
    )


@pytest.mark.slow
def test_a_study_of_several_teachers_says_so(folder: Path, tmp_path: Path) -> None:
    store = copy_with_teacher(folder / "store.zarr", tmp_path / "two.zarr", "second")
    base = {"teacher": ["second"]}
    done = ablate_once(folder, tmp_path / "out", [store], vary=["teacher=second,test-teacher"], seeds=1, base=base)
    assert "compare every student with second" in done.text


def test_weights_that_are_not_known_are_not_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores of imported features, of one plan: what tells their teachers apart is the embeddings."""
    first, same, known = (with_weights(tmp_path / n, sha) for n, sha in (("a", ""), ("b", ""), ("c", "0" * 64)))
    require_same_rows([first, same], "test-teacher")
    require_same_rows([known, same], "test-teacher")
    monkeypatch.setattr(support.stores, "embed_patches", lambda patches: 2 * embed_patches(patches))
    others = [with_weights(tmp_path / name, sha) for name, sha in (("d", ""), ("e", "0" * 64))]
    for pair in ((first, others[0]), (first, others[1]), (known, others[0])):
        with pytest.raises(ConfigError, match="other embeddings of test-teacher, of weights that are not known"):
            require_same_rows(pair, "test-teacher")
    require_same_rows([known, others[1]], "test-teacher")
    with pytest.raises(ConfigError, match="other weights of test-teacher"):
        require_same_rows([known, with_weights(tmp_path / "f", "1" * 64)], "test-teacher")


@pytest.mark.slow
def test_weights_that_were_replaced_behind_their_path_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, other = tmp_path / "weights.safetensors", tmp_path / "other.safetensors"
    for seed, path in enumerate((weights, other)):
        model = build_encoder(f"local-dir:{folder / 'vit'}", "scratch", 32, seed=seed).module
        state = {name.removeprefix("model."): value.contiguous() for name, value in model.state_dict().items()}
        save_file(state, path)
    options: dict[str, Any] = {"vary": ["val_every=1,2"], "seeds": 2, "base": {"weights": str(weights)}}
    first = ablate_once(folder, tmp_path / "out", **dict(options)).text
    real = module.train_student
    monkeypatch.setattr(module, "train_student", lambda *_, **__: pytest.fail("trained again"))
    assert ablate_once(folder, tmp_path / "out", **dict(options)).text == first
    weights.write_bytes(weights.read_bytes())
    assert ablate_once(folder, tmp_path / "out", **dict(options)).text == first
    monkeypatch.setattr(module, "train_student", real)
    other.replace(weights)
    with pytest.raises(CheckpointError, match="weights_sha256"):
        ablate_once(folder, tmp_path / "out", **dict(options))
    weights.unlink()
    with pytest.raises(ConfigError, match=r"weights.safetensors: No such file"):
        ablate_once(folder, tmp_path / "out", **dict(options))


def test_only_checkpoints_of_the_run_itself_are_removed(tmp_path: Path) -> None:
    for name in ("run", "elsewhere"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "checkpoints" / "step-1.pt").write_text("x")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "checkpoints").symlink_to(tmp_path / "elsewhere" / "checkpoints")
    for name in ("run", "linked", "run"):
        drop_checkpoints(tmp_path / name)
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert (tmp_path / "elsewhere" / "checkpoints" / "step-1.pt").exists()
