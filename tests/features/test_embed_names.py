"""Names of the records beside embeddings: cheap to import, and those that are documented."""

from pathlib import PurePath

import pytest
from support.places import ROOT, imports_of

from pipeline.features import embed_names

NAMES = {name: value for name, value in vars(embed_names).items() if name.endswith("_FILE")}


def test_they_come_without_an_import() -> None:
    """`g2l inspect` and the listing of finished work look at folders without torch."""
    assert not imports_of(ROOT / "pipeline" / "features" / "embed_names.py")


def test_they_are_file_names_apart_from_each_other() -> None:
    assert len(NAMES) == len(set(NAMES.values())) == 4
    assert all(PurePath(value).name == value for value in NAMES.values())


@pytest.mark.parametrize("name", sorted(NAMES))
def test_they_are_documented(name: str) -> None:
    assert f"`{NAMES[name]}`" in (ROOT / "docs" / "formats.md").read_text()
