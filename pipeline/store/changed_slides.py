"""Which changed files of slides stage one has read for a store, so that what reads them again knows its own.

`--retry-failures` reads a slide whose file has changed since it was planned. Each such file is noted in the store, by
the SHA-256 of its parts (`slides.identity.parts_digest`), with its name for people. Training from slides and `verify`
accept the planned file and the noted ones; of another one the teacher has seen no pixel.

Left out: which rows came of which file. A repaired slide's earlier rows may be of the planned one.
"""

from pathlib import Path

from pipeline.base.errors import StoreError
from pipeline.base.outside import is_there, read_json, reading
from pipeline.disk.files import write_json
from pipeline.slides.reader import Accepts, accept_all
from pipeline.store.store import Store

CHANGED_FILE = "changed-slides.json"
"""In a store: {SHA-256 of parts: name} of the changed files that were read; absent where there were none."""
WITHOUT_NOTES = (None, "0.1.0")
"""Versions of G2L whose stores do not say what was read: `None` for a store that does not name its own."""


def noting_changed(store: Path) -> Accepts:
    """Accept every changed file, as `--retry-failures` does, and note it in the store first.

    Raises:
        StoreError: the notes are damaged.
        OSError: they cannot be written.
    """
    noted = read_changed(store)

    def accepts(path: Path, sha256: str) -> bool:
        if sha256 not in noted:
            noted[sha256] = path.name.encode(errors="backslashreplace").decode()
            write_json(store / CHANGED_FILE, dict(sorted(noted.items())))
        return True

    return accepts


def only_noted(store: Store) -> Accepts:
    """Accept the changed files that stage one has read. Of a store of an earlier version nobody knows: all of them.

    Raises:
        StoreError: the notes are damaged.
    """
    made_by = {teacher.attributes.get("versions", {}).get("g2l") for teacher in store.teachers.values()}
    if not made_by.isdisjoint(WITHOUT_NOTES):
        return accept_all
    noted = read_changed(store.folder)
    return lambda _, sha256: sha256 in noted


def read_changed(store: Path) -> dict[str, str]:
    """The notes of a store, names by SHA-256; empty if there are none.

    Raises:
        StoreError: they are damaged.
    """
    path = store / CHANGED_FILE
    if not is_there(path):
        return {}
    with reading(path, "damaged", StoreError):
        return {sha256: str(name) for sha256, name in read_json(path).items()}
