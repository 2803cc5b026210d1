"""What is installed: each finding appears when it should, and the token never does."""

import importlib
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from stages.doctor import installed
from stages.doctor.findings import Finding

OTHER_PIXELS = """
def sumElems(patch): return patch.sum((0, 1))
def transform(patch, table, dst=None): return patch
def addWeighted(*values, dst): dst[:] = 7
"""


def of(findings: Iterator[Finding], subject: str) -> Finding | None:
    return next((each for each in findings if each.subject == subject), None)


def test_a_sound_installation_is_no_trouble() -> None:
    found = list(installed.look_at_packages())
    assert not [each for each in found if each.level == "trouble"]
    assert {"Python", "packages", "OpenSlide"} <= {each.subject for each in found}


def test_a_missing_and_an_old_package_are_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"numpy": "1.26.4"}
    asked = ["numpy>=2.0", "no-such-package>=3", "onnxish>=1; extra == 'onnx'", 'other; python_version < "3"']
    monkeypatch.setattr(metadata, "requires", lambda name: asked)
    monkeypatch.setattr(installed, "_version", versions.get)
    found = list(installed.look_at_packages())
    old, absent, extra = (of(iter(found), name) for name in ("numpy", "no-such-package", "extra onnx"))
    assert old is not None
    assert old.level == "trouble"
    assert "1.26.4 is installed, >=2.0 is needed" in old.words
    assert absent is not None
    assert absent.words == "not installed"
    assert "no-such-package>=3" in absent.advice
    assert extra is not None
    assert extra.level == "note"
    assert "g2l[onnx]" in extra.advice
    assert of(iter(found), "other") is None  # of another Python


def test_a_package_of_the_same_module_is_as_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: ["opencv-python-headless>=4.10; extra == 'opencv'"])
    for versions, is_there in (({}, False), ({"opencv-python": "4.11.0"}, True), ({"opencv-python": "4.2"}, False)):
        monkeypatch.setattr(installed, "_version", {"g2l": "1", **versions}.get)
        assert (of(installed.look_at_packages(), "extra opencv") is None) == is_there


def test_a_package_that_does_not_load_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def broken(name: str) -> Any:
        if name == "openslide":
            raise OSError("libopenslide.so.1: cannot open shared object file")
        return real(name)

    monkeypatch.setattr(importlib, "import_module", broken)
    found = of(installed.look_at_packages(), "openslide")
    assert found is not None
    assert found.level == "trouble"
    assert "libopenslide.so.1" in found.words


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "raise ImportError('libGL.so.1: cannot open shared object file')",
            "cv2 does not load: libGL.so.1: cannot open",
        ),
        (OTHER_PIXELS, "cv2 at {place} gives other pixels than NumPy"),
        ("", "cv2 at {place} is no OpenCV, or too old a one: module 'cv2' has no attribute"),
        (None, "cv2 at {place} is no OpenCV, or too old a one: module 'cv2' has no attribute"),
    ],
    ids=["library", "other pixels", "another module", "an empty folder"],
)
def test_an_opencv_that_cannot_be_used_is_noted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str | None, expected: str
) -> None:
    """Training does without it in silence."""
    place = tmp_path / ("cv2" if source is None else "cv2.py")
    if source is None:
        place.mkdir()
    else:
        place.write_text(source)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])  # the real one hides a folder without `__init__.py`
    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    importlib.invalidate_caches()
    (found,) = installed._look_at_opencv()
    sys.modules.pop("cv2", None)  # by `monkeypatch` it would come back, for other tests to find
    assert found.level == "note"
    assert found.words.replace(str(place), "{place}").startswith(expected)
    assert "fast flips" in found.words
    assert "opencv-python-headless" in found.advice


def test_an_opencv_that_works_or_is_not_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert of(installed.look_at_packages(), "OpenCV") is None
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert of(installed.look_at_packages(), "OpenCV") is None


def test_a_torch_that_is_too_old_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "2.6.0" if name == "torch" else real(name))
    found = of(installed.look_at_packages(), "torch")
    assert found is not None
    assert found.level == "trouble"
    assert found.words == "2.6.0 is installed, >=2.12 is needed"


def test_threads_and_memory_that_are_limited_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "usable_cores", lambda: 8)
    monkeypatch.setattr(installed, "free_memory_bytes", lambda: 1 << 30)
    for name in installed.THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    found = {each.subject: each for each in installed.look_at_processors()}
    assert found["OMP_NUM_THREADS"].words == "is 2: models on a processor use 2 of 8 cores"
    assert (found["memory"].level, found["processors"].level) == ("note", "ok")
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(installed, "free_memory_bytes", lambda: 64 << 30)
    assert {each.level for each in installed.look_at_processors()} == {"ok"}


def test_a_card_is_named_and_a_hidden_one_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (found,) = installed.look_at_gpus()
    assert "CUDA 12.8, and sees no card" in found.words
    assert found.advice == "CUDA_VISIBLE_DEVICES is '': unset it"
    monkeypatch.setattr(torch.version, "cuda", None)
    (found,) = installed.look_at_gpus()
    assert "this build of torch knows none" in found.words
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    card = SimpleNamespace(name="A card", total_memory=80 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (70 << 30, 80 << 30))
    (found,) = installed.look_at_gpus()
    assert (found.level, found.subject) == ("ok", "cuda:0")
    assert "A card" in found.words


def test_a_token_is_told_of_and_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = "hf_ThisIsNobodysTokenAtAll"
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    found = of(installed.look_at_weights(), "token")
    assert found is not None
    assert found.level == "note"
    assert "gated" in found.words
    (tmp_path / "token").write_text(secret)
    in_file = list(installed.look_at_weights())
    monkeypatch.setenv("HF_TOKEN", secret)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    in_variable = list(installed.look_at_weights())
    for each in (*in_file, *in_variable):
        assert secret not in each.words + each.advice
    assert [each.level for each in in_file if each.subject == "token"] == ["ok"]
    hub = of(iter(in_variable), "hub")
    assert hub is not None
    assert "nothing is fetched" in hub.words


def test_weights_in_the_cache_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "cached_weights", lambda spec: Path("w") if spec.name == "hibou-l" else None)
    found = of(installed.look_at_weights(), "weights")
    assert found is not None
    assert found.level == "ok"
    assert found.words.endswith(": hibou-l")
