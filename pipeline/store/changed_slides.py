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
from pipeline.disk.locks import exclusive_soon
from pipeline.slides.pool import Accepts, accept_all
from pipeline.store.store import Store

CHANGED_FILE = "changed-slides.json"
"""In a store: {SHA-256 of parts: name} of the changed files that were read; absent where there were none."""
LOCK_SECONDS = 60.0
"""Longest wait for another process that writes its note, which takes milliseconds. Our choice."""
WITHOUT_NOTES = (None, "0.1.0")
"""Versions of G2L whose stores do not say what was read: `None` for a store that does not name its own."""


def noting_changed(store: Path) -> Accepts:
    """Accept every changed file, as `--retry-failures` does, and note it in the store first. Several processes may do
    so at once.

    Raises:
        StoreError: the notes are damaged.
        BusyError: another process has been writing them for a minute.
        OSError: they cannot be written.
    """
    file = store / CHANGED_FILE

    def read_alone(also: dict[str, str]) -> dict[str, str]:
        with exclusive_soon(file, "g2l, noting a changed slide", LOCK_SECONDS):
            noted = read_changed(store)
            if not also.keys() <= noted.keys():
                noted = also | noted
                write_json(file, dict(sorted(noted.items())))
        return noted

    known = read_alone({})  # and so removes the lock of a process that was killed amid a note

    def accepts(path: Path, sha256: str) -> bool:
        if sha256 not in known:
            known.update(read_alone({sha256: path.name.encode(errors="backslashreplace").decode()}))
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
