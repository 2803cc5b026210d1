"""A student of several teachers where it is used: each teacher's projector is reached, by name and by its weights."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from support.commands import call_g2l
from support.extraction import FURTHER, PATCH_PX, TEACHER, extract, plan_cohort, write_cohort, write_teacher
from support.stores import student_folder, train_config

from pipeline.base.errors import EncoderError
from pipeline.store.store import Store
from pipeline.student.card import teacher_lines
from pipeline.student.earlier import teachers_in_card
from pipeline.student.resolve import name_model
from pipeline.training.run_folder import RunFolder
from stages import finished
from stages.export import export_student
from stages.inspect import inspect_path
from stages.train_student import train_student

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slides, `store.zarr` of TEACHER and then FURTHER, a run of FURTHER first and then TEACHER, and its export."""
    folder = tmp_path_factory.mktemp("several")
    plan = plan_cohort(write_cohort(folder / "slides", 4))
    extract(plan, folder / "store.zarr", write_teacher(folder / "first.safetensors"))
    extract(plan, folder / "store.zarr", write_teacher(folder / "second.safetensors", FURTHER, seed=3), teacher=FURTHER)
    vit = student_folder(folder / "vit", "test_vit", PATCH_PX, img_size=PATCH_PX, depth=2, embed_dim=32, num_heads=2)
    config = train_config(vit, teacher=[FURTHER, TEACHER], epochs=1)
    train_student(Store(folder / "store.zarr"), folder / "run", config)
    export_student(folder / "run", folder / "exported")
    return folder


def test_a_finished_run_is_known_by_the_embeddings_of_all_its_teachers(root: Path, tmp_path: Path) -> None:
    names, store = [FURTHER, TEACHER], Store(root / "store.zarr")
    assert finished._views_of(RunFolder(root / "run"), store, names) == 1
    assert finished._views_of(RunFolder(root / "run"), store, names[::-1]) is None
    identity = RunFolder(root / "run").read_identity()
    identity["further_teachers"][0]["content"] = "0" * 64
    (tmp_path / "run.json").write_text(json.dumps(identity))
    assert finished._views_of(RunFolder(tmp_path), store, names) is None


def by_hand(own: torch.Tensor, projector: Path) -> torch.Tensor:
    """A projector applied in plain words."""
    t = {name: value.double() for name, value in safetensors.torch.load_file(projector).items()}
    z = own.double() @ t["linear.weight"].T + t["linear.bias"]
    z = (z - t["student_norm.mean"]) / (t["student_norm.var"] + 1e-5).sqrt()
    return z * (t["teacher_norm.var"] + 1e-5).sqrt() + t["teacher_norm.mean"]


def embed(root: Path, model: str, out: Path, *more: object) -> tuple[int, str, str]:
    slide = root / "slides" / "s0.svs"
    return call_g2l("embed", f"s={root / model}", slide, "--out", out, "--layout", "pt", "--device", "cpu", *more)


def fidelity(root: Path, store: Path, out: Path, *models: str) -> tuple[dict[str, list[str]], str]:
    """Evaluate models on a store: labels and maps of the rows of each table of models, and the notes in one."""
    named = [word for model in models for word in ("--models", model.replace("ROOT", str(root)))]
    code, _, said = call_g2l(
        "evaluate", "--store", store, *named, "--out", out, "--no-cost", "--device", "cpu", "--resamples", 100
    )
    assert code == 0, said
    section: dict[str, Any] = json.loads((out / "report.json").read_text())["sections"]["fidelity"]
    return {t["title"]: t["rows"] for t in section["tables"]}, "\n".join(section["notes"])


def test_the_projector_of_the_named_teacher_is_applied(root: Path, tmp_path: Path) -> None:
    assert embed(root, "run", tmp_path / "own")[0] == 0
    own = torch.load(tmp_path / "own" / "tile_embeddings" / "s0.pt", weights_only=True)
    for model in ("run", "exported"):
        for teacher, file in (
            (FURTHER, "projector/projector.safetensors"),
            (TEACHER, f"projector/projector-{TEACHER}.safetensors"),
        ):
            out = tmp_path / f"{model}-{teacher}"
            code, _, said = embed(root, model, out, "--as-teacher", "--teacher", teacher)
            assert code == 0, said
            found = torch.load(out / "tile_embeddings" / "s0.pt", weights_only=True)
            expected = by_hand(own, root / "exported" / file)
            assert found.shape == expected.shape
            torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
            meta = json.loads((out / "tile_embeddings" / "s0.meta.json").read_text())
            assert meta["encoder_name"] == f"s-as-{teacher}"
            assert json.loads(meta["g2l"])["made_by"]["settings"]["teacher"] == teacher


def test_the_teacher_must_be_said_and_another_one_s_files_are_refused(root: Path, tmp_path: Path) -> None:
    for more, words in (
        (["--as-teacher"], f"learnt from {FURTHER}, {TEACHER}: say with --teacher which"),
        (["--as-teacher", "--teacher", "uni"], f"--teacher uni: s={root / 'run'} learnt from {FURTHER}, {TEACHER}"),
        (["--teacher", FURTHER], f"--teacher {FURTHER} goes with --as-teacher"),
    ):
        code, _, said = embed(root, "run", tmp_path / "out", *more)
        assert (code, words in said) == (1, True), said
        assert not (tmp_path / "out").exists()
    assert embed(root, "run", tmp_path / "out", "--as-teacher", "--teacher", FURTHER)[0] == 0
    before = (tmp_path / "out" / "tile_embeddings" / "s0.pt").read_bytes()
    code, _, said = embed(root, "run", tmp_path / "out", "--as-teacher", "--teacher", TEACHER)
    assert (code, f"settings.teacher: '{FURTHER}' -> '{TEACHER}'" in said) == (1, True), said
    (tmp_path / "out" / "embed.json").unlink()  # the file's own mark refuses as well
    (tmp_path / "out" / "embed.toml").unlink()
    assert embed(root, "run", tmp_path / "out", "--as-teacher", "--teacher", TEACHER)[0] == 1
    assert (tmp_path / "out" / "tile_embeddings" / "s0.pt").read_bytes() == before
    assert embed(root, "run", tmp_path / "trident", "--as-teacher", "--teacher", FURTHER, "--layout", "trident")[0] == 0
    assert list((tmp_path / "trident").rglob(f"features_s-as-{FURTHER}/s0.h5"))


def test_evaluation_finds_the_projector_of_the_store_s_teacher(root: Path, tmp_path: Path) -> None:
    identity = RunFolder(root / "run").read_identity()
    hashes = {
        FURTHER: identity["teacher"]["weights_sha256"],
        TEACHER: Store(root / "store.zarr").first.spec.teacher["weights_sha256"],
    }
    for model in ("run", "exported", "run/student", "run@before"):
        assert name_model(str(root / model), None).teachers == hashes
    named = name_model(str(root / "exported"), None)
    for teacher, file in (
        (FURTHER, "projector/projector.safetensors"),
        (TEACHER, f"projector/projector-{TEACHER}.safetensors"),
    ):
        projector = named.projector_into(hashes[teacher])
        assert projector is not None
        saved = safetensors.torch.load_file(root / "exported" / file)
        assert torch.equal(projector.linear.weight, saved["linear.weight"])
    tables, notes = fidelity(
        root,
        root / "store.zarr",
        tmp_path / "report",
        "after=ROOT/run",
        "stu=ROOT/exported",
        f"first={TEACHER}@ROOT/first.safetensors",
    )
    rows = {row["model"] if isinstance(row, dict) else row[0] for row in tables["Standing in as it is"]}
    assert rows == {"after", "stu", "first"}
    assert "distilled from" not in notes
    assert "projector" not in notes


def test_unknown_weights_are_nobody_s(root: Path, tmp_path: Path) -> None:
    """A store whose teacher's weights are not known, as imported ones may be, and a student of it."""
    store = Path(shutil.copytree(root / "store.zarr", tmp_path / "store.zarr"))
    known, place = Store(store).first.spec.teacher["weights_sha256"], store / "zarr.json"
    place.write_text(place.read_text().replace(f'"{known}"', '""'))
    assert Store(store).first.spec.teacher["weights_sha256"] == ""
    train_student(
        Store(store), tmp_path / "run", train_config(f"local-dir:{root / 'vit'}", teacher=[TEACHER], epochs=1)
    )
    card = (tmp_path / "run" / "student" / "README.md").read_text()
    assert f"- Teacher weights not known (timm:{TEACHER})." in card
    silent = Path(shutil.copytree(tmp_path / "run" / "student", tmp_path / "silent"))
    for name in ("README.md", "student.json"):
        (silent / name).unlink()
    tables, notes = fidelity(
        root, store, tmp_path / "report", f"own={tmp_path / 'run'}", f"silent={silent}", "several=ROOT/run"
    )
    assert "Standing in as it is" not in tables
    for label in ("own", "silent", "several"):
        assert f"The store does not know its teacher's weights: {label}'s own projector is not used." in notes
    tables, notes = fidelity(root, root / "store.zarr", tmp_path / "known", f"own={tmp_path / 'run'}")
    assert "Standing in as it is" not in tables
    assert "own was distilled from a teacher whose weights its folder does not name" in notes


def test_the_card_says_which_teacher_and_lists_all_projectors(root: Path) -> None:
    card = (root / "exported" / "README.md").read_text()
    for words in (
        f"% of {FURTHER}'s ",
        f"maps the embedding into {FURTHER}'s space",
        "| `projectors.json` |",
        f"| `projector/projector.safetensors` | its map into {FURTHER}'s space |",
        f"| `projector/projector-{TEACHER}.safetensors` | its map into {TEACHER}'s space |",
    ):
        assert words in card, words
    assert "% of the teacher's" not in card
    for file in json.loads((root / "exported" / "projectors.json").read_text()).values():
        assert (root / "exported" / file).is_file()


def test_the_description_has_the_teachers_in_order(root: Path) -> None:
    run, folder = RunFolder(root / "run"), root / "exported"
    described = json.loads((folder / "student.json").read_text())
    assert (folder / "student.json").read_bytes() == (run.student / "student.json").read_bytes()
    identity, listing = run.read_identity(), json.loads((folder / "projectors.json").read_text())
    records = [identity["teacher"], identity["further_teachers"][0]["teacher"]]
    contents = [identity["store"], identity["further_teachers"][0]["content"]]
    assert [teacher["name"] for teacher in described["teachers"]] == [FURTHER, TEACHER]
    for teacher, record, content in zip(described["teachers"], records, contents, strict=True):
        for key in ("name", "source", "weights", "weights_sha256", "width"):
            assert teacher[key] == record[key], key
        assert (teacher["store_content"], teacher["loss_weight"]) == (content, 0.5)
        assert teacher["projector"] == listing[teacher["name"]]
        assert teacher["projector_sha256"] == hashlib.sha256((folder / teacher["projector"]).read_bytes()).hexdigest()
    shown = inspect_path(folder)
    assert f"{FURTHER}, 0.5 of the loss" in shown
    assert described["plan_hash"] in shown


def test_what_a_card_says_of_teachers_is_read_back() -> None:
    def record(name: str, sha256: str) -> dict[str, Any]:
        return {"name": name, "weights_sha256": sha256, "source": "timm:x", "weights": "f.bin"}

    first, *further = [
        {"teacher": record(n, h), "weight": 0.25, "content": "c" * 64}
        for n, h in (("one", "a" * 64), ("hf-hub:o/n", "b" * 64), ("other", ""), ("third", "d" * 64))
    ]
    card = f"- Plan x.\n{teacher_lines([first, *further])}\n- Student\n"
    names = ["one", "hf-hub:o/n", "other", "third"]
    assert teachers_in_card(card, names) == dict(zip(names, ("a" * 64, "b" * 64, "", "d" * 64), strict=True))
    assert teachers_in_card(card, []) == {"": "a" * 64}
    unknown = f"{teacher_lines([first | {'teacher': record('one', '')}, further[0]])}\n"
    assert teachers_in_card(unknown, ["one", "hf-hub:o/n"]) == {"one": "", "hf-hub:o/n": "b" * 64}


def test_a_damaged_list_of_projectors_is_told_to_the_user(root: Path, tmp_path: Path) -> None:
    student = Path(shutil.copytree(root / "exported", tmp_path / "exported"))
    (student / "projectors.json").write_text("{")
    assert name_model(str(student), None).teachers == name_model(str(root / "exported"), None).teachers
    (student / "student.json").unlink()
    with pytest.raises(EncoderError, match=r"projectors\.json: damaged"):
        name_model(str(student), None)


def test_a_report_measures_by_the_teacher_that_is_named(tmp_path: Path, root: Path) -> None:
    """The named one is the measure, at 1; a student's projector into its space is found among its projectors."""
    store = Store(root / "store.zarr")
    names = [TEACHER, FURTHER]
    config = train_config(FURTHER, epochs=1, teacher=names, teacher_weight=[1, 1])
    run = train_student(store, tmp_path / "run", config).run.folder
    weights = {TEACHER: root / "first.safetensors", FURTHER: root / "second.safetensors"}
    models = [f"{name}@{weights[name]}" for name in names] + [f"student={run}"]
    arguments = ["evaluate", "--store", store.folder, "--no-cost", "--device", "cpu", "--resamples", 100]
    arguments += [word for model in models for word in ("--models", model)]
    for chosen, other in (([], FURTHER), (["--teacher", TEACHER], FURTHER), (["--teacher", FURTHER], TEACHER)):
        name = FURTHER if other == TEACHER else TEACHER
        out = tmp_path / "-".join(["report", *chosen])
        code, _, said = call_g2l(*arguments, *chosen, "--out", out)
        assert code == 0, said
        record = json.loads((out / "report.json").read_text())
        assert record["reference"] == name
        section = record["sections"]["fidelity"]
        assert f"stands in for {name} on" in section["what"]
        assert any(f"embeddings of {other} too: `--teacher {other}`" in note for note in section["notes"])
        assert not any("No contact sheet" in note for note in section["notes"])  # the store's pixels are for all
        assert list(out.glob("fidelity_*.png"))
        rows = {(row["model"], row["map"]): row for table in section["tables"][:2] for row in table["rows"]}
        assert {key for key in rows if key[1] == "none needed"} == {(name, "none needed")}
        assert rows[name, "none needed"]["R2 scaled"]["value"] == pytest.approx(1)
        assert ("student", "its own projector") in rows
    code, _, said = call_g2l(*arguments, "--teacher", "uni", "--out", tmp_path / "none")
    assert (code, "has embeddings of" in said) == (1, True)
    without = ["evaluate", "--models", "uni@scratch", "--teacher", "uni", "--out", tmp_path / "none"]
    code, _, said = call_g2l(*without)
    assert (code, "give --store too" in said) == (1, True)
