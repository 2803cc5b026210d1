"""An exported student with the hub's card, which tests may change; and a stand-in for the hub."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
from support.hub import TOKEN, StandIn, stand_in_hub

from stages.export import export_student
from stages.publishing import upload
from stages.publishing.hub_card import HubCard


@pytest.fixture(scope="session")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "student"
    export_student(run, out, ("timm",), HubCard(None, {}, ()))
    return out


@pytest.fixture
def student(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "student"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    """The stand-in, which this process takes for the hub."""
    with stand_in_hub() as standing:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", standing.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no login"))
        monkeypatch.setattr(upload, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        # before version 1 the client keeps a session, which was made for being offline
        reset = getattr(huggingface_hub.utils, "reset_sessions", lambda: None)
        reset()
        yield standing
        reset()
