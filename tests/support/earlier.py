"""Outputs of earlier versions: one archive a version, and one of the files that are the same in all of them.

An archive may hold only the files in which its outputs differ from those of another: `BASES` says of which.
"""

import tarfile
from pathlib import Path

from support.places import TESTS

SHARED = TESTS / "earlier" / "shared.tar.xz"
VERSIONS = sorted(path.name.removesuffix(".tar.xz") for path in (TESTS / "earlier").glob("*.tar.xz") if path != SHARED)


BASES = {"0.2.0-student-json": "0.2.0"}
"""The archive that another one completes, by the other's name."""


def archives_of(version: str) -> list[Path]:
    """The archives that hold a version's outputs, in the order in which they are unpacked."""
    names = [*([BASES[version]] if version in BASES else []), version]
    return [SHARED, *(TESTS / "earlier" / f"{name}.tar.xz" for name in names)]


def unpack(version: str, folder: Path) -> Path:
    """All outputs of a version, in `folder`; returns it."""
    for path in archives_of(version):
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
    return folder
