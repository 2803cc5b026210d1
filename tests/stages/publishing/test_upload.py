"""Files go in commits of bounded size, the last ones last; what is there is not sent again; another's files stay."""

import logging
from pathlib import Path

import pytest
from support.hub import StandIn

from pipeline.base.errors import ConfigError, ExportError
from stages.publishing import upload
from stages.publishing.upload import require_name, send

FILES: dict[str, Path | bytes] = {f"{number}.bin": bytes([number]) for number in range(7)}


def test_a_broken_upload_is_continued(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "FILES_A_COMMIT", 3)
    hub.most_commits = 1
    with pytest.raises(ExportError, match="the hub did not take it"):
        send(FILES, "lab/a", "dataset", public=False, message="m", last=["0.bin"], only=True)
    assert set(hub.files["lab/a"]) == {"1.bin", "2.bin", "3.bin"}
    hub.most_commits = 100
    send(FILES, "lab/a", "dataset", public=False, message="m", last=["0.bin"], only=True)
    assert hub.files["lab/a"] == FILES
    assert hub.commits == 3  # the first one's files were there, and were not sent again


def test_other_files_of_a_repository_are_not_mixed_in(hub: StandIn) -> None:
    hub.private["lab/a"] = True
    hub.files["lab/a"] = {".gitattributes": b"", "shards/9.json": b"{}"}
    with pytest.raises(ExportError, match=r"holds shards/9\.json, which is no file of this store"):
        send(FILES, "lab/a", "dataset", public=False, message="m", only=True)
    assert hub.commits == 0
    send(FILES, "lab/a", "dataset", public=False, message="m")
    assert hub.files["lab/a"].keys() == FILES.keys() | {".gitattributes", "shards/9.json"}


def test_the_client_says_nothing_of_its_own(hub: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        send(FILES, "lab/a", "model", public=False, message="m")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_name_has_an_owner() -> None:
    require_name("lab/a")
    with pytest.raises(ConfigError, match="Give OWNER/NAME"):
        require_name("a")
