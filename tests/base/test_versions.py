"""Versions: what is continued under others says so."""

import pytest

from pipeline.base import versions as module
from pipeline.base.versions import DECIDING, RECORDED, continued_note, other_versions, versions


def test_the_packages_that_decide_are_recorded() -> None:
    assert set(DECIDING) <= set(RECORDED)
    assert {"torch", "timm", "pillow", "imagecodecs", "openslide-bin", "python"} <= versions().keys()
    assert continued_note("x", versions()) == ""


def test_another_decoder_or_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = versions()
    monkeypatch.setattr(module, "versions", lambda: begun | {"torch": "9.9", "imagecodecs": "1", "zarr": "99"})
    words = continued_note("store.zarr", begun)
    assert f"torch {begun['torch']} -> 9.9" in words
    assert f"imagecodecs {begun['imagecodecs']} -> 1" in words
    assert "store.zarr" in words
    assert "zarr 99" not in words  # it only reads and writes what is checked by hash
    assert other_versions({}) == []  # an earlier version of this program recorded none
