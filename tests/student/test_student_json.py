"""`student.json`: what is written is read back, anything else is one error that names the file, and nothing of a run
that it should hold is missing.
"""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.places import ROOT
from support.students import described, small_student, write_exported

from pipeline.base.errors import EncoderError
from pipeline.base.outside import MOST_TEXT_BYTES
from pipeline.config.recipes import Departure
from pipeline.student.exported import read_student
from pipeline.student.folder import load_projector
from pipeline.student.student_json import (
    LARGEST_BYTES,
    STUDENT_JSON,
    projector_files,
    read_student_json,
    write_student_json,
)
from stages.inspect import inspect_path

Change = Callable[[dict[str, Any]], object]


def change(student: Path, changing: Change) -> None:
    """Change what `student.json` holds."""
    path = student / STUDENT_JSON
    values = json.loads(path.read_text())
    changing(values)
    path.write_text(json.dumps(values))


def test_what_is_written_is_read_back(student: Path) -> None:
    content = read_student_json(student)
    before = (student / STUDENT_JSON).read_bytes()
    write_student_json(student, content)
    assert (student / STUDENT_JSON).read_bytes() == before
    assert read_student_json(student) == content
    model, spec, _ = small_student(1)
    again = described(student, spec, {name: load_projector(student, name) for name in ("a", "b/c")})
    assert again == content
    assert model is not None


def test_the_schema_is_as_documented(student: Path) -> None:
    """docs/formats.md names every key; a key that is renamed or taken away is another version."""
    values = json.loads((student / STUDENT_JSON).read_text())
    assert (values["format"], values["version"]) == ("g2l-student", 1)
    assert {key: list(value) for key, value in values.items() if isinstance(value, dict)} == {
        "encoder": [
            "name",
            "architecture",
            "num_params",
            "embedding",
            "width",
            "patch_px",
            "mpp",
            "mean",
            "std",
            "start",
        ],
        "training": ["loss", "alpha", "step", "epoch", "best"],
        "split": ["by", "val_strip", "train_rows", "train_slides", "val_rows", "val_slides", "cases"],
    }
    keys = set(values)
    for part in (
        values["encoder"],
        values["encoder"]["start"],
        values["teachers"][0],
        values["training"],
        values["training"]["best"],
        values["split"],
        values["split"]["cases"],
    ):
        keys |= part.keys()
    documented = (ROOT / "docs" / "formats.md").read_text()
    assert {key for key in keys if f"`{key}`" not in documented} == set()


def test_a_recipe_is_written_only_where_one_was_named(student: Path) -> None:
    """Folders of earlier versions, and of runs without a recipe, have no such key."""
    assert read_student_json(student).training.recorded_recipe is None
    assert not re.search("^recipe ", inspect_path(student), re.MULTILINE)
    used = [("batch_size", 32, 16), ("use_plain_view", False, True), ("tile_px", 256, None), ("lr", 1e-4, 0.5)]
    listed = [{"command": "any", "option": name, "recipe": a, "used": b} for name, a, b in used]
    change(student, lambda values: values["training"].update(recipe={"name": "paper", "departures": listed}))
    content = read_student_json(student)
    assert content.training.recorded_recipe == ("paper", [Departure("any", *each) for each in used])
    write_student_json(student, content)
    assert json.loads((student / STUDENT_JSON).read_text())["training"]["recipe"]["departures"] == listed
    shown = inspect_path(student)
    assert re.search(r"recipe +paper\n", shown)
    assert re.search(r"not the recipe's +any --batch-size 16, not 32\n", shown)
    assert "any --tile-px not set, not 256" in shown
    change(student, lambda values: values["training"]["recipe"].update(departures=[{"option": "x"}]))
    with pytest.raises(EncoderError, match=r"student\.json: .*training\.recipe\.departures\.0\.command"):
        read_student_json(student)


def test_an_unknown_key_is_passed_over(student: Path) -> None:
    before = read_student_json(student)
    change(student, lambda values: values.update(later={"any": 1}) or values["teachers"][0].update(later=[]))
    assert read_student_json(student) == before


WRONG: list[tuple[str, Change, str]] = [
    ("another format", lambda v: v.update(format="g2l-store"), "its format is not g2l-student"),
    ("a later version", lambda v: v.update(version=2), "of version 2; this G2L reads version 1. Use a newer G2L"),
    ("no version", lambda v: v.pop("version"), "version: not a whole number"),
    ("a version that is no number", lambda v: v.update(version=True), "version: "),
    ("no teachers", lambda v: v.update(teachers=[]), "teachers: "),
    ("too many teachers", lambda v: v.update(teachers=v["teachers"] * 60), "teachers: "),
    ("a teacher twice", lambda v: v["teachers"][1].update(name="a"), "two teachers have the name a"),
    (
        "a projector twice",
        lambda v: v["teachers"][1].update(projector=v["teachers"][0]["projector"]),
        "two teachers have the projector projector/projector.safetensors",
    ),
    ("teachers as an object", lambda v: v.update(teachers={}), "teachers: "),
    ("a teacher without a name", lambda v: v["teachers"][0].update(name=""), "teachers.0.name: "),
    ("a missing key", lambda v: v["teachers"][1].pop("width"), "teachers.1.width: Field required"),
    ("text for a number", lambda v: v["teachers"][0].update(width="2"), "teachers.0.width: "),
    ("a share for a count", lambda v: v["training"].update(step=1.5), "training.step: "),
    ("a truth for a count", lambda v: v["training"].update(step=True), "training.step: "),
    ("a number below 0", lambda v: v["training"].update(step=-1), "training.step: "),
    ("a huge width", lambda v: v["encoder"].update(width=1 << 40), "encoder.width: "),
    ("no number", lambda v: v["training"].update(alpha=float("nan")), "training.alpha: "),
    ("an infinite number", lambda v: v["encoder"].update(mpp=float("inf")), "encoder.mpp: "),
    ("two statistics", lambda v: v["encoder"].update(mean=[0.5, 0.5]), "encoder.mean.2: "),
    ("an unknown rule", lambda v: v["encoder"].update(embedding="max"), "encoder.embedding: "),
    ("a short hash", lambda v: v["teachers"][0].update(weights_sha256="ab"), "teachers.0.weights_sha256: "),
    ("a hash with a line end", lambda v: v.update(plan_hash="a" * 64 + "\n"), "plan_hash: "),
    ("a weight above 1", lambda v: v["teachers"][0].update(loss_weight=1.5), "teachers.0.loss_weight: "),
    ("an unknown split", lambda v: v["split"].update(by="slide"), "split.by: "),
    ("a long text", lambda v: v.update(g2l="x" * 10_000), "g2l: "),
]


@pytest.mark.parametrize(("changing", "words"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_values_that_do_not_fit_are_named(student: Path, changing: Change, words: str) -> None:
    change(student, changing)
    for reads in (read_student, load_projector, inspect_path):
        with pytest.raises(EncoderError) as caught:
            reads(student)
        assert str(caught.value).startswith(f"{student / STUDENT_JSON}: ")
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "file",
    [
        "../projector.safetensors",
        "projector/../../x.safetensors",
        "/etc/passwd",
        "projector//etc/x.safetensors",
        "projector\\x.safetensors",
        "C:\\x.safetensors",
        "projector/x.safetensors\n",
        "projector/x.pt",
        "projector/\u0000",
        "model.safetensors",
        "projector/",
        "",
        "projector/a/b.safetensors",
        "projector/" + "x" * 300 + ".safetensors",
        1,
    ],
)
def test_a_projector_stays_in_its_folder(student: Path, tmp_path: Path, file: object) -> None:
    shutil.copy(student / "projector" / "projector.safetensors", tmp_path)
    change(student, lambda values: values["teachers"][0].update(projector=file))
    with pytest.raises(EncoderError, match=r"student\.json: damaged \(teachers\.0\.projector: "):
        load_projector(student)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "damaged"),
        (b"{", "damaged"),
        (b"[]", "holds a list, not an object"),
        (b"\xff\xfe", "damaged"),
        (b"[" * 100_000, "damaged"),
        (b'{"a":' * 100_000, "damaged"),
        (b"null", "not an object"),
        (b'{"format": "g2l-student", "version": 1, "g2l": ' + b"9" * 100_000 + b"}", "damaged"),
        (b" " * (LARGEST_BYTES + 1), "the limit is 1.0 MiB"),
    ],
)
def test_what_is_no_description_is_one_error(student: Path, data: bytes, words: str) -> None:
    (student / STUDENT_JSON).write_bytes(data)
    with pytest.raises(EncoderError) as caught:
        read_student(student)
    assert str(caught.value).startswith(f"{student / STUDENT_JSON}: ")
    assert words in str(caught.value)
    assert "Copy the folder again, or write a new one with `g2l export`" in str(caught.value)


def test_a_description_that_is_cut_anywhere_is_one_error(student: Path) -> None:
    data = (student / STUDENT_JSON).read_bytes()
    for end in range(0, len(data) - 2, 37):
        (student / STUDENT_JSON).write_bytes(data[:end])
        with pytest.raises(EncoderError, match=r"student\.json: damaged"):
            read_student(student)


def test_a_huge_file_a_folder_or_a_link_that_leads_nowhere_is_not_read(student: Path) -> None:
    path = student / STUDENT_JSON
    with open(path, "wb") as f:
        f.truncate(4 * MOST_TEXT_BYTES)
    with pytest.raises(EncoderError, match=r"student\.json: damaged \(1\.0 GiB; the limit is 1\.0 MiB\)"):
        read_student(student)
    path.unlink()
    path.mkdir()
    with pytest.raises(EncoderError, match=r"student\.json: damaged \(Is a directory\)"):
        read_student(student)
    path.rmdir()
    path.symlink_to("nowhere")
    with pytest.raises(EncoderError, match=r"student\.json: damaged \(No such file or directory\)"):
        read_student(student)


def test_files_of_projectors_have_names_of_their_own() -> None:
    files = projector_files(["x/y", "a/b", "a-b", "A-b"])
    assert list(files.values()) == [
        "projector/projector.safetensors",
        "projector/projector-a-b.safetensors",
        "projector/projector-a-b-3.safetensors",
        "projector/projector-A-b-4.safetensors",
    ]


# --- of a run ----------------------------------------------------------------------------------------------------


def test_a_resolution_that_is_not_known_is_null(tmp_path: Path) -> None:
    model, spec, projector = small_student(1)
    write_exported(tmp_path / "student", model, replace(spec, mpp=0.25), projector)
    assert read_student_json(tmp_path / "student").encoder.mpp == 0.25
    change(tmp_path / "student", lambda values: values["encoder"].update(mpp=None))
    assert read_student_json(tmp_path / "student").encoder.mpp is None
