"""What `--models` names: the table, files, exported students and runs, before and after."""

import json
import shutil
from pathlib import Path

import pytest
from support.extraction import TEACHER, write_teacher
from support.stores import PATCH_PX

from pipeline.base.errors import BenchmarkError, ConfigError, EncoderError
from pipeline.config.model_names import PRETRAINED, SCRATCH
from pipeline.report.content import AFTER, BEFORE
from pipeline.report.content import TEACHER as TEACHER_ROLE
from pipeline.student.resolve import NamedModel, name_model, name_models, reference_of
from pipeline.training.run_folder import RunFolder


@pytest.mark.parametrize(
    ("text", "label", "encoder", "weights", "patch_px"),
    [
        ("uni", "uni", "uni", PRETRAINED, 224),
        ("mine=uni", "mine", "uni", PRETRAINED, 224),
        ("uni@scratch", "uni", "uni", SCRATCH, 224),
        ("a b=uni@some/file.safetensors", "a b", "uni", Path("some/file.safetensors"), 224),
        ("resnet18", "resnet18", "resnet18", PRETRAINED, 96),
        ("hf-hub:owner/name", "owner/name", "hf-hub:owner/name", PRETRAINED, 96),
        ("hf-hub:MahmoodLab/UNI@a=b/f.bin", "MahmoodLab/UNI", "hf-hub:MahmoodLab/UNI", Path("a=b/f.bin"), 224),
        ("local-dir:a=b/c", "local-dir:a=b/c", "local-dir:a=b/c", PRETRAINED, 96),
    ],
)
def test_names_of_encoders(text: str, label: str, encoder: str, weights: object, patch_px: int) -> None:
    model = name_model(text, 96)
    assert (model.label, model.encoder, model.weights, model.patch_px) == (label, encoder, weights, patch_px)
    assert model.role == ""


def test_encoders_of_any_size_take_the_usual_one_where_nothing_is_said() -> None:
    assert name_model("resnet18", None).patch_px == 224


@pytest.mark.parametrize("text", ["with/slash=uni", "a:b=uni@f.bin", "=uni", "runs/a=1/run", "a/b=hf-hub:owner/name"])
def test_what_no_label_can_be_is_told(text: str) -> None:
    before = text.partition("=")[0]
    with pytest.raises(
        ConfigError, match=f"'{before}' cannot be a label, which takes no / @ or :, and there is no folder"
    ):
        name_model(text, 96)


@pytest.mark.slow
def test_a_folder_with_an_equals_sign_is_a_folder(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "lr=3" / "run"))
    assert (name_model(str(copy), None).role, name_model(f"mine={copy}", None).label) == (AFTER, "mine")


def test_a_run_is_its_student_after(run: Path) -> None:
    for text in (str(run), f"{run}@after"):
        model = name_model(text, None)
        built = model.build()
        assert (model.role, model.patch_px) == (AFTER, PATCH_PX)
        assert built.num_params > 0
        projector = model.projector()
        assert projector is not None
        assert projector.linear.in_features == built.spec.width


def test_the_student_before_is_the_one_that_the_run_started_from(run: Path) -> None:
    model = name_model(f"before={run}@before", None)
    assert (model.label, model.role, model.weights) == ("before", BEFORE, SCRATCH)
    identity = RunFolder(run).read_identity()
    assert model.build().weights_sha256 == identity["student"]["weights_sha256"]
    assert model.build().weights_sha256 != name_model(str(run), None).build().weights_sha256
    assert model.projector() is None


def test_a_random_start_that_comes_out_otherwise_is_told(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On another processor, or with another torch. Weights out of a file that are others are refused instead:
    tests/student/test_teacher_weights.py.
    """
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    identity = json.loads((copy / "run.json").read_text())
    identity["student"]["weights_sha256"] = "f" * 64
    (copy / "run.json").write_text(json.dumps(identity))
    built = name_model(f"{copy}@before", None).build()
    assert built.weights_sha256 == name_model(f"{run}@before", None).build().weights_sha256
    said = " ".join(capsys.readouterr().err.split())
    assert "random weights of this seed come out otherwise here" in said


def test_an_exported_student_is_known_by_its_projector(run: Path, tmp_path: Path) -> None:
    model = name_model(f"s={run / 'student'}", None)
    assert (model.label, model.role, model.patch_px) == ("s", AFTER, PATCH_PX)
    assert model.build().weights_sha256 == name_model(str(run), None).build().weights_sha256
    bare = tmp_path / "bare"
    shutil.copytree(run / "student", bare)
    (bare / "projector" / "projector.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"projector\.safetensors: no such file, but student\.json names it"):
        name_model(str(bare), None)
    (bare / "student.json").unlink()
    assert name_model(str(bare), None).role == ""
    assert name_model(str(bare), None).label == "bare"


def test_encoders_recorded_by_a_relative_folder_are_found_from_elsewhere(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both of a run: what it started from, and its teacher."""
    copy = tmp_path / "work" / "run"
    shutil.copytree(run, copy)
    (tmp_path / "work" / "start").mkdir()
    record = json.loads((copy / "run.json").read_text())
    record["student"]["name"] = record["teacher"]["name"] = "local-dir:start"
    record["teacher"]["weights"] = PRETRAINED
    (copy / "run.json").write_text(json.dumps(record))
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    for which in ("before", "teacher"):
        assert name_model(f"../work/run@{which}", None).encoder == f"local-dir:{tmp_path / 'work' / 'start'}"


def test_the_teacher_of_a_run_needs_its_file(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"weights came from test; say where.*test-teacher@FILE"):
        name_model(f"{run}@teacher", None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("RUN@during", "@before, @after and @teacher"),
        ("RUN/student@scratch", "has its own weights"),
        ("RUN/checkpoints", "neither a run nor an exported student"),
        ("l" * 61 + "=uni", "more than 60 characters"),
    ],
)
def test_forms_that_are_refused(run: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        name_model(text.replace("RUN", str(run)), None)


def test_an_unfinished_run_has_no_student(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "student")
    with pytest.raises(BenchmarkError, match="not finished"):
        name_model(str(copy), None)


def test_a_damaged_description_is_named(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "student"
    shutil.copytree(run / "student", copy)
    (copy / "config.json").write_text("{}")
    with pytest.raises(EncoderError, match=r"config\.json: architecture is missing, not the name"):
        name_model(str(copy), None)


def test_a_student_says_what_it_was_made_from(run: Path) -> None:
    identity = RunFolder(run).read_identity()
    for text in (str(run), str(run / "student"), f"{run}@before"):
        model = name_model(text, None)
        assert model.plan_hash == identity["plan"], text
        assert list(model.teachers.values()) == [identity["teacher"]["weights_sha256"]], text


def test_a_changed_word_in_the_card_changes_nothing(run: Path, tmp_path: Path) -> None:
    expected = name_model(f"s={run / 'student'}", None)
    for text in ("", "# another card\n", f"- Plan {'1' * 64}.\n- Teacher weights {'2' * 64} (timm:x, unknown).\n"):
        student = Path(shutil.copytree(run / "student", tmp_path / str(len(text))))
        (student / "README.md").write_text(text)
        model = name_model(f"s={student}", None)
        assert (model.teachers, model.plan_hash) == (expected.teachers, expected.plan_hash)
        assert model.projector_into("0" * 64) is not None  # the hash of the run's teacher


def test_a_folder_of_an_earlier_version_is_read_by_its_card(run: Path, tmp_path: Path) -> None:
    """It has no `student.json`. A note says so, and how to renew the folder."""
    student = Path(shutil.copytree(run / "student", tmp_path / "student"))
    (student / "student.json").unlink()
    models = name_models([f"s={student}", "resnet18@scratch"], None)
    assert models[0].note.startswith(f"{student} has no student.json")
    assert "Run `g2l export` on its run again" in models[0].note
    identity = RunFolder(run).read_identity()
    assert models[0].plan_hash == identity["plan"]
    assert models[0].teachers == {"": identity["teacher"]["weights_sha256"]}
    assert models[0].projector_into(identity["teacher"]["weights_sha256"]) is not None
    assert name_model(str(run / "student"), None).note == ""


def test_an_earlier_card_that_cannot_be_read_names_no_teacher_and_matches_none(run: Path, tmp_path: Path) -> None:
    for text in ("", "# another card\n", "- Teacher weights  (timm:x, unknown).\n"):
        student = Path(shutil.copytree(run / "student", tmp_path / str(len(text))))
        (student / "student.json").unlink()
        (student / "README.md").write_text(text)
        model = name_model(str(student), None)
        assert set(model.teachers.values()) == {""}
        assert model.projector_into("") is None
        assert model.projector_into("0" * 64) is None  # the hash of the run's teacher
        assert "a teacher whose weights its folder does not name" in model.why_no_projector("0" * 64)
    assert name_model(str(run / "student"), None).projector_into("0" * 64) is not None


@pytest.mark.parametrize(
    ("teachers", "store", "words"),
    [
        ({"a": "1", "b": "2"}, "2", ""),
        ({"a": "1", "b": "2"}, "3", "s was distilled from other teachers: its own"),
        ({"a": "1"}, "3", "s was distilled from another teacher: its own"),
        ({"a": "1", "b": ""}, "3", "s was distilled from a teacher whose weights its folder does not name: its own"),
        ({}, "3", "s was distilled from a teacher whose weights its folder does not name: its own"),
        ({"a": ""}, "", "The store does not know its teacher's weights: s's own projector is not used."),
        ({"a": "1"}, "", "The store does not know its teacher's weights: s's own projector is not used."),
    ],
)
def test_why_a_projector_is_not_used(teachers: dict[str, str], store: str, words: str) -> None:
    said = NamedModel("s", "any", SCRATCH, 32, student=Path("s"), teachers=teachers).why_no_projector(store)
    assert said.startswith(words) if words else said == ""
    assert NamedModel("s", "any", SCRATCH, 32, teachers=teachers).why_no_projector(store) == ""  # no student


def test_encoders_of_any_size_take_that_of_the_students_beside_them(run: Path) -> None:
    models = name_models(["resnet18@scratch", f"s={run}", "uni@scratch"], None)
    assert [model.patch_px for model in models] == [PATCH_PX, PATCH_PX, 224]
    assert name_models(["resnet18@scratch", f"s={run}"], 96)[0].patch_px == 96


def test_two_models_of_one_label_are_refused(tmp_path: Path) -> None:
    weights = write_teacher(tmp_path / "t.safetensors")
    with pytest.raises(ConfigError, match=f"two are called {TEACHER}"):
        name_models([f"{TEACHER}@{weights}", f"{TEACHER}@scratch"], 32)


def test_the_reference_is_the_wanted_one_else_the_teacher_else_the_first() -> None:
    labels = ["a", "b", "c"]
    assert reference_of(labels, ["", TEACHER_ROLE, ""], None) == "b"
    assert reference_of(labels, ["", "", ""], None) == "a"
    assert reference_of(labels, ["", TEACHER_ROLE, ""], "c") == "c"
    with pytest.raises(ConfigError, match="--reference d: the models are a, b, c"):
        reference_of(labels, ["", "", ""], "d")


def written_run(folder: Path, weights: str, out: str) -> Path:
    """A run's records: that of its options has the paths `weights` and `out`."""
    folder.mkdir(parents=True)
    encoder = {"name": "test_vit", "weights": "w.pth", "weights_sha256": "1" * 64, "patch_px": 32}
    identity = {"teacher": encoder | {"name": "t"}, "student": encoder, "plan": "2" * 64, "store": "3" * 64}
    (folder / "run.json").write_text(json.dumps(identity))
    (folder / "config.toml").write_text(f'[train-student]\nweights = "{weights}"\nseed = 3\nout = "{out}"\n')
    return folder


def test_weights_of_a_run_are_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typed as `--weights w/w.pth --out runs/a` in `home`, by an earlier version, which kept both as typed."""
    home = tmp_path / "user@domain"
    run = written_run(home / "runs" / "a", "w/w.pth", "runs/a")
    (home / "w").mkdir()
    (home / "w" / "w.pth").write_bytes(b"")
    monkeypatch.chdir("/")
    found = name_model(f"start={run}@before", None)
    assert (found.label, found.weights) == ("start", home / "w" / "w.pth")
    assert name_model(f"{run}@before", None).label == "a before"
    monkeypatch.chdir(home)
    assert name_model("runs/a@before", None).weights == Path("w/w.pth")
    absolute = written_run(home / "b", str(home / "w" / "w.pth"), str(home / "b"))
    assert name_model(f"{absolute}@before", None).weights == home / "w" / "w.pth"
