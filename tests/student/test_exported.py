"""What a student's folder says of its teachers, plan and projectors, with `student.json` and without."""

import shutil
from pathlib import Path

import pytest
import safetensors.torch
from support.students import random_projector

from pipeline.base.errors import EncoderError
from pipeline.student.exported import ExportedStudent, StudentTeacher, is_student, read_student
from pipeline.student.folder import check_projectors, load_projector
from pipeline.student.student_json import STUDENT_JSON, projector_files
from stages.inspect import inspect_path


def test_teachers_and_plan_come_from_it(student: Path) -> None:
    read = read_student(student)
    assert [teacher.name for teacher in read.teachers] == ["a", "b/c"]
    assert read.teachers[1].projector == "projector/projector-b-c.safetensors"
    assert (read.plan_hash, read.note()) == ("b" * 64, "")
    assert load_projector(student, "b/c").linear.in_features == 2
    check_projectors(student)


def test_a_missing_or_another_projector_is_named(student: Path) -> None:
    first, second = (student / file for file in projector_files(["a", "b/c"]).values())
    data = first.read_bytes()
    safetensors.torch.save_file(random_projector(2).state_dict(), first, metadata={"other": "bytes"})
    with pytest.raises(EncoderError, match=r"projector\.safetensors: not the projector that student\.json names: SHA"):
        load_projector(student)
    safetensors.torch.save_file(random_projector(3).state_dict(), first)
    with pytest.raises(
        EncoderError, match=r"projector\.safetensors: maps 3 dimensions to 7, but .* says 2 to 7\. Copy"
    ):
        check_projectors(student)
    first.write_bytes(data)
    check_projectors(student)
    second.unlink()
    for reads in (read_student, load_projector, check_projectors, inspect_path):
        with pytest.raises(EncoderError, match=r"projector-b-c\.safetensors: no such file, but student\.json names it"):
            reads(student)
    assert is_student(student)


def test_a_folder_without_it_is_of_an_earlier_version(student: Path) -> None:
    (student / STUDENT_JSON).unlink()
    assert is_student(student)
    read = read_student(student)
    assert read.described is None
    assert [(each.name, each.projector_sha256) for each in read.teachers] == [("a", ""), ("b/c", "")]
    assert "an earlier version exported it" in read.note()
    assert "an earlier version exported it" in inspect_path(student)
    assert load_projector(student, "b/c").linear.in_features == 2
    shutil.rmtree(student / "projector")
    assert not is_student(student)


def test_a_teacher_is_found_by_its_name_and_the_first_without(tmp_path: Path) -> None:
    a, b = StudentTeacher("a", "1", "projector/a"), StudentTeacher("b", "2", "projector/b")
    several, single = (ExportedStudent(tmp_path, teachers, "", None) for teachers in ((a, b), (a,)))
    assert (several.teacher(None), several.teacher("b"), single.teacher(None)) == (a, b, a)
    with pytest.raises(EncoderError, match="no projector of a teacher c; there are those of a, b"):
        several.teacher("c")
    assert single.teacher("a") == a  # as `StoreDataset.teacher` has it, of one teacher as of several
    with pytest.raises(EncoderError, match="no projector of a teacher b; there is that of a"):
        single.teacher("b")
    assert several.projector_files() == {"a": "projector/a", "b": "projector/b"}
    assert single.projector_files() == {}


def test_another_model_s_folder_is_no_student(tmp_path: Path) -> None:
    assert not is_student(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert not is_student(tmp_path)
    (tmp_path / "projector.safetensors").touch()  # where version 0.1.0 has it
    assert is_student(tmp_path)
