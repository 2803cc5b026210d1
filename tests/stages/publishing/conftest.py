"""An exported student with the hub's card, which tests may change."""

import shutil
from pathlib import Path

import pytest

from stages.export import export_student
from stages.publishing.hub_card import HubCard


@pytest.fixture(scope="session")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "student"
    export_student(run, out, ("timm",), HubCard(None, {}, ()))
    return out


@pytest.fixture
def student(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "student"))
