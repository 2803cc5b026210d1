"""What `g2l publish` sends of a store: the files that reading it takes, without the places of its maker's machine.

Shard files go as they are, so that the store's content hash holds for the copy. Metadata lose what only its maker can
use: the folder of the slides, and folders in the names of files, in the plan's records and in reasons of failures.

Left out: locks, `config.toml`, tables that the ledger has too, and what is needed only to extract on.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.base.errors import StoreError
from pipeline.base.outside import read_json, reading
from pipeline.cohort.barcodes import BARCODE
from pipeline.disk.raw_arrays import METADATA
from pipeline.store.changed_slides import CHANGED_FILE
from pipeline.store.store import Store, StoredTeacher
from stages.verify import check_stored_teacher

PLAN_FOLDER = "plan"
FOLDERS = re.compile(r"(?<![\w./~-])(?:~|[A-Za-z]:)?[/\\](?:[^/\\\s'\":;,()]+[/\\])+")
"""The folders of an absolute path in a text, up to its last part."""
MOST_PLACES = 3
"""Places, or barcodes, that a note names."""


def require_complete_store(store: Store) -> None:
    """See that every embedding of a store is there and undamaged: metadata, ledger, every checksum.

    Raises:
        StoreError: it is a part, shards are missing, or something is damaged.
    """
    if part := store.first.part:
        raise StoreError(f"{store.place}: part {part} of a store. `g2l merge` makes one store of all parts")
    for teacher in store.all_embeddings:
        check = check_stored_teacher(teacher)
        if check.problems or check.num_pending:
            raise StoreError(f"{store.place}: not whole, and so not sent:\n" + "\n".join(check.words()))


def files_of_store(store: Store) -> dict[str, Path | bytes]:
    """The files of a whole store by their names in it: a path to be sent as it is, or the bytes to send.

    Raises:
        StoreError: the metadata are damaged.
    """
    folder = store.folder
    with reading(folder / PLAN_FOLDER / METADATA, "the store's plan is damaged", StoreError):
        plan = read_json(folder / PLAN_FOLDER / METADATA)
        records = plan["attributes"]["g2l"]
        root = str(records["plan"]["slides_root"])
        records["plan"]["slides_root"] = ""
        for name in ("audit", "slides"):
            held = records["plan"] if name == "audit" else records
            held[name] = [_of_slide(record, root) for record in held[name]]
    files: dict[str, Path | bytes] = {f"{PLAN_FOLDER}/{METADATA}": _as_bytes(plan)}
    for path in sorted((folder / PLAN_FOLDER).glob("*/**/*")):
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = path
    for teacher in store.all_embeddings:
        files |= _files_of_teacher(teacher, root)
    if (folder / CHANGED_FILE).is_file():
        files[CHANGED_FILE] = folder / CHANGED_FILE
    return dict(sorted(files.items()))


def _of_slide(record: dict[str, Any], root: str) -> dict[str, Any]:
    """A slide's record in the plan or the audit: texts that a file's place may be in, without it."""
    places = {name: without_folders(record[name], root) for name in ("path", "reason", "warnings") if name in record}
    return record | places


def _files_of_teacher(teacher: StoredTeacher, root: str) -> dict[str, Path | bytes]:
    """Those of one teacher's embeddings, or of one round."""
    folder, files = teacher.folder, dict[str, Path | bytes]()
    place = folder.relative_to(teacher.store.folder)
    with reading(folder / METADATA, "damaged", StoreError):
        metadata = read_json(folder / METADATA)
        metadata["attributes"]["g2l"].pop("weights_file", None)
    files[(place / METADATA).as_posix()] = _as_bytes(metadata)
    for array in teacher.arrays:
        files[(place / array / METADATA).as_posix()] = folder / array / METADATA
    for shard in teacher.shards:
        for path in teacher.shard_files(shard):
            files[(place / path.relative_to(folder)).as_posix()] = path
        ledger = teacher.ledger.path(shard)
        entry = teacher.ledger.read(shard)
        assert entry is not None  # it was checked
        told = [failure | {"reason": without_folders(failure["reason"], root)} for failure in entry["failures"]]
        files[(place / ledger.relative_to(folder)).as_posix()] = _as_bytes(entry | {"failures": told})
    return files


def without_folders(value: Any, root: str) -> Any:
    """A text without the folder of the slides, and without the folders of any other absolute path in it; anything else
    as it is.
    """
    if not isinstance(value, str):
        return value
    if root not in ("", ".", "/"):
        value = value.replace(root.rstrip("/\\") + "/", "").replace(root.rstrip("/\\") + "\\", "")
    return FOLDERS.sub("", value)


def seen_places(files: dict[str, Path | bytes]) -> list[str]:
    """Folders of absolute paths that are still in the metadata to be sent, since the store's hash covers them."""
    return sorted({match[0] for text in _sent_texts(files) for match in FOLDERS.finditer(text)})[:MOST_PLACES]


def seen_barcodes(files: dict[str, Path | bytes]) -> list[str]:
    """Barcodes of TCGA's patients in the metadata to be sent: in ids of slides and cases, names of files, labels, notes
    and reasons.
    """
    return sorted({match[0] for text in _sent_texts(files) for match in BARCODE.finditer(text)})[:MOST_PLACES]


def _sent_texts(files: dict[str, Path | bytes]) -> Iterator[str]:
    """Every text in the metadata to be sent."""
    for name, content in files.items():
        if isinstance(content, bytes) and name.endswith(".json"):
            yield from _texts(json.loads(content))


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _as_bytes(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=2).encode()
