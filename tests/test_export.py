"""What cards of exported students name: the library's door now, an import path in earlier versions."""

import re
from pathlib import Path

import pytest
import torch
from support.places import ROOT
from support.students import small_student, write_exported

import g2l
from pipeline import export
from pipeline.student import folder


def test_the_path_leads_to_the_projector_of_a_student(tmp_path: Path) -> None:
    assert export.load_projector is folder.load_projector
    model, spec, projector = small_student(1)
    write_exported(tmp_path / "student", model, spec, projector)
    embedding = torch.ones(3, 2)
    assert torch.equal(
        export.load_projector(tmp_path / "student").as_teacher(embedding), projector.as_teacher(embedding)
    )


@pytest.mark.parametrize("path", ["pipeline/data/card/student.md", "docs/formats.md"])
def test_what_users_are_told_to_call_is_there(path: str) -> None:
    named = re.findall(r"\bg2l\.(\w+)\(", (ROOT / path).read_text())
    assert named
    assert all(callable(getattr(g2l, name)) for name in named)


def test_it_holds_nothing_else() -> None:
    assert {name for name in vars(export) if not name.startswith("__")} == {"load_projector"}
