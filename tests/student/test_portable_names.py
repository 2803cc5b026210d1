"""The names of files that an export may add: cheap to import, apart from each other and from the student's own."""

from pathlib import PurePath

import pytest
from support.places import ROOT, imports_of

from pipeline.encoders.model_config import CONFIG_FILE
from pipeline.student.card_files import USES
from pipeline.student.portable_names import ONNX_FILE, PROGRAM_FILE, WEIGHTS_FILE
from pipeline.student.student_json import FIRST_PROJECTOR, STUDENT_JSON

NAMES = (PROGRAM_FILE, ONNX_FILE, WEIGHTS_FILE)


def test_they_come_without_an_import() -> None:
    assert not imports_of(ROOT / "pipeline" / "student" / "portable_names.py")


def test_no_two_files_of_a_student_s_folder_have_one_name() -> None:
    names = [*NAMES, CONFIG_FILE, STUDENT_JSON, FIRST_PROJECTOR, "model.safetensors", "README.md"]
    assert len(set(names)) == len(names)
    assert all(PurePath(name).name == name for name in NAMES)


def test_weights_beside_an_onnx_file_have_the_name_that_torch_s_exporter_gives_them() -> None:
    assert f"{ONNX_FILE}.data" == WEIGHTS_FILE


@pytest.mark.parametrize("name", NAMES)
def test_they_are_documented(name: str) -> None:
    assert f"| `{name}` |" in (ROOT / "docs" / "formats.md").read_text()


def test_the_card_says_how_each_is_used() -> None:
    assert set(USES) == set(NAMES) - {WEIGHTS_FILE}
