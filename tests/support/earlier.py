"""Outputs of earlier versions: one archive a version, and one of the files that are the same in all of them."""

import tarfile
from pathlib import Path

from support.places import TESTS

SHARED = TESTS / "earlier" / "shared.tar.xz"
VERSIONS = sorted(path.name.removesuffix(".tar.xz") for path in (TESTS / "earlier").glob("*.tar.xz") if path != SHARED)


def unpack(version: str, folder: Path) -> Path:
    """All outputs of a version, in `folder`; returns it."""
    for path in (SHARED, TESTS / "earlier" / f"{version}.tar.xz"):
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
    return folder
