"""What a held lock does to others, and what a released one leaves."""

from pathlib import Path

import pytest

from pipeline.base.errors import BusyError
from pipeline.disk.locks import LOCK_SUFFIX, exclusive


def refused(path: Path, words: str = "in use by first") -> None:
    with pytest.raises(BusyError, match=words), exclusive(path, "second"):
        pass


def nothing_left(folder: Path) -> bool:
    return not list(folder.rglob("*" + LOCK_SUFFIX))
