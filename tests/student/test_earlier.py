"""Students of versions before `student.json`: the card and the list of projectors say what it would."""

from pathlib import Path

import pytest
import torch
from support.students import random_projector, small_student, write_exported

from pipeline.base.errors import EncoderError
from pipeline.student.card import teacher_lines
from pipeline.student.earlier import (
    first_projector,
    move_projectors,
    named_projectors,
    plan_in_card,
    read_card,
    teachers_in_card,
)
from pipeline.student.exported import read_student
from pipeline.student.folder import load_projector
from pipeline.student.student_json import STUDENT_JSON


def test_a_projector_beside_the_weights_is_read(tmp_path: Path) -> None:
    """As earlier versions wrote it; `g2l export` of an earlier run moves it, for timm before 1.0.29."""
    folder = tmp_path / "student"
    teachers = {"a": random_projector(2), "b": random_projector(2)}
    model, spec, _ = small_student(1)
    write_exported(folder, model, spec, teachers)
    (folder / "student.json").unlink()
    (folder / "README.md").write_text("`projector.safetensors` maps")
    expected = {name: load_projector(folder, name).state_dict() for name in ("a", "b")}
    for path in (folder / "projector").iterdir():
        path.rename(folder / path.name)
    (folder / "projector").rmdir()
    listing = folder / "projectors.json"
    listing.write_text(listing.read_text().replace("projector/", ""))
    for moved in (False, True):
        if moved:
            move_projectors(folder)
            move_projectors(folder)  # a second time nothing is left to do
        assert (folder / "projector.safetensors").exists() is not moved
        for name, state in expected.items():
            found = load_projector(folder, name).state_dict()
            assert all(torch.equal(found[key], value) for key, value in state.items())
    assert (folder / "README.md").read_text() == "`projector/projector.safetensors` maps"


@pytest.mark.parametrize(
    "files", ['{"a": "../x.safetensors"}', '{"a": ".."}', '{"a": "projector/.."}', '{"a": "x.pt"}']
)
def test_an_earlier_list_of_projectors_stays_in_the_folder_too(student: Path, files: str) -> None:
    (student / STUDENT_JSON).unlink()
    (student / "projectors.json").write_text(files)
    with pytest.raises(EncoderError, match=r"projectors\.json: damaged \(.* is no file name\)"):
        read_student(student)


# --- the card -------------------------------------------------------------------------------------------------------


def test_a_card_names_its_plan_or_none() -> None:
    assert plan_in_card(f"- Plan {'a' * 64}, made\n- Plan {'b' * 64}") == "a" * 64
    for card in ("", "Plan unknown", f"Plan {'a' * 63}", f"Plan {'A' * 64}", f"Plan {'a' * 65}", f"xPlan {'a' * 64}"):
        assert plan_in_card(card) == ""


def test_teachers_are_read_from_what_a_card_says_of_them() -> None:
    """The sentences are those that `card` writes today: both change together, or earlier folders are not read."""
    first, second, third = (
        {"name": name, "source": f"timm:{name}", "weights": "w.bin", "weights_sha256": digest * 64}
        for name, digest in (("a", "1"), ("b (x): y", "2"), ("c", "3"))
    )
    teachers = [{"teacher": teacher, "weight": 0.25, "content": "9" * 64} for teacher in (first, second, third)]
    card = f"{teacher_lines(teachers)}\n"
    names = ["a", "b (x): y", "c", "not in it"]
    expected = {"a": "1" * 64, "b (x): y": "2" * 64, "c": "3" * 64, "not in it": ""}
    assert teachers_in_card(card, names) == expected
    assert teachers_in_card(card, []) == {"": "1" * 64}
    assert teachers_in_card("", []) == {"": ""}


def test_a_card_that_is_no_text_is_read_as_far_as_it_is(tmp_path: Path) -> None:
    assert read_card(tmp_path) == ""
    (tmp_path / "README.md").write_bytes(b"Plan \xff " + b"Plan " + b"a" * 64)
    assert plan_in_card(read_card(tmp_path)) == "a" * 64


# --- projectors -----------------------------------------------------------------------------------------------------


def test_the_first_projector_lies_beside_the_weights_or_in_the_folder(tmp_path: Path) -> None:
    assert first_projector(tmp_path) == "projector/projector.safetensors"
    (tmp_path / "projector.safetensors").mkdir()  # no file
    assert first_projector(tmp_path) == "projector/projector.safetensors"
    (tmp_path / "projector.safetensors").rmdir()
    (tmp_path / "projector.safetensors").touch()
    assert first_projector(tmp_path) == "projector.safetensors"


def test_a_list_of_projectors_that_is_damaged_is_named(tmp_path: Path) -> None:
    assert named_projectors(tmp_path) == {}
    listing = tmp_path / "projectors.json"
    listing.write_text('{"a": "projector.safetensors", "b": "projector/projector-b.safetensors"}')
    assert named_projectors(tmp_path) == {"a": "projector.safetensors", "b": "projector/projector-b.safetensors"}
    for text in ("", "[]", '{"a"', '{"a": 1}', '{"a": "x.safetensors\\n"}'):
        listing.write_text(text)
        with pytest.raises(EncoderError, match=r"projectors\.json: damaged"):
            named_projectors(tmp_path)
