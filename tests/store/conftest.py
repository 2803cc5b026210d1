"""A plan, its patches and its finished store, which the tests of the store's modules share."""

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.extraction import made_up_plan
from support.pixels import noise
from support.store_writing import PATCH_PX, ROWS, continued_store, write_pending

from pipeline.base.images import encode_image
from pipeline.cohort.plan import Plan


@pytest.fixture(scope="session")
def plan() -> Plan:
    return made_up_plan(ROWS, PATCH_PX)


@pytest.fixture(scope="session")
def images() -> NDArray[np.uint8]:
    return noise(ROWS, PATCH_PX, PATCH_PX, 3, seed=2)


@pytest.fixture(scope="session")
def encoded(images: NDArray[np.uint8]) -> list[bytes]:
    return [encode_image(image, "jpegxl") for image in images]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, plan: Plan, encoded: list[bytes]) -> Path:
    """A finished store; tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("finished") / "store.zarr"
    write_pending(continued_store(folder, plan), encoded)
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "store.zarr"))


class _Hooked(io.BufferedWriter):
    """A file that tells of every write before it is done."""

    before: Callable[[str], None]

    def write(self, data: Any, /) -> int:
        type(self).before("write")
        return super().write(data)


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], None]], None]:
    """Have a function called with its name before every call that changes the disk, in the writer's thread or not."""

    def install(before: Callable[[str], None]) -> None:
        for name in ("replace", "rename", "fsync", "mkdir", "unlink"):
            real = getattr(os, name)

            def call(*args: Any, _name: str = name, _real: Any = real, **kwargs: Any) -> Any:
                before(_name)
                return None if _name == "fsync" else _real(*args, **kwargs)

            monkeypatch.setattr(os, name, call)
        kind = type("Hooked", (_Hooked,), {"before": staticmethod(before)})
        for module in ("pipeline.store.shards", "pipeline.disk.files"):
            monkeypatch.setattr(f"{module}.open", lambda path, _mode: kind(io.FileIO(path, "w")), raising=False)

    return install
