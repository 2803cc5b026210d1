"""Make one store of the stores of a plan's parts: each shard file is checked, and linked or copied as it is.

What decides bytes must be the same in all parts: the plan's hash, the teacher's record, the settings. What is merged is
then, array by array and byte by byte, the store of one run. From the first part are what only describes: versions, the
preflight's findings, `config.toml`. Seconds and device in a ledger entry are those of the job that did the shard.

Left out: further teachers, which see the merged store.
"""

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base.console import say
from pipeline.base.errors import ConfigError, StoreError
from pipeline.base.outside import is_there, read_json, reading
from pipeline.base.units import format_bytes
from pipeline.config.base import differences, read_options, to_toml
from pipeline.disk.at_hand import CRASHING
from pipeline.disk.files import sha256_file, write_json, write_text, written_by_library
from pipeline.disk.locks import exclusive
from pipeline.store.changed_slides import CHANGED_FILE, read_changed
from pipeline.store.create import create_store, is_store, open_to_continue
from pipeline.store.format import TEACHERS_FOLDER, UNSAID_SETTINGS
from pipeline.store.parts.part import PART, StorePart, require_part
from pipeline.store.shards import make_folders
from pipeline.store.store import Store, StoredTeacher
from pipeline.store.writer import write_failures

OF_EVERY_STORE = (
    "format",
    "version",
    "rows",
    "patch_px",
    "tile_px",
    "plan_hash",
    "teacher",
    "settings",
    "status_codes",
    "versions",
    "full_float32",
    PART,
)
"""Attributes that a new store gets anyway, or a whole one has not; the others are notes that decide nothing."""


@dataclass
class Merged:
    """A merged store.

    Attributes:
        teacher: its embeddings.
        num_linked, num_copied: files that this run has linked and copied.
        num_before: shards that an earlier run had merged. Their files are checked, and those that are damaged since are
            brought once more.
        bytes_to_bring: of shard files of the parts that no earlier run had merged.
    """

    teacher: StoredTeacher
    bytes_to_bring: int = 0
    num_linked: int = 0
    num_copied: int = 0
    num_before: int = 0


def merge_parts(
    folders: Sequence[Path], out: Path, *, link: bool, step: Callable[[int], None] = lambda _: None
) -> Merged:
    """Merge the finished parts in `folders`, all of one plan, into the store `out`; a killed merge continues.

    Args:
        link: use hard links where the file system can; else copies.
        step: is told the number of rows of each merged shard.

    Raises:
        G2LError: they are not all parts of one plan, of one teacher and the same settings; one is missing, twice there,
            unfinished, damaged or in use; `out` is something else; or the disk is full. What was merged stays.
        OSError: a file cannot be read or written.
    """
    places = sorted({os.path.realpath(folder) for folder in folders})
    if os.path.realpath(out) in places:
        raise StoreError(f"{out} is one of the parts. Choose another --out")
    if around := [place for place in places if Path(os.path.realpath(out)).is_relative_to(place)]:
        raise StoreError(f"{out} lies in the part {around[0]}, and would be deleted with it. Choose another --out")
    with exclusive(out, "g2l merge"):
        for folder in places:
            with held_part(Path(folder)):  # one after the other: an array may have more parts than files may be open
                pass
        parts = parts_in_order([Store(folder) for folder in folders])
        require_alike(parts)
        target = start_merged(parts[0], out)
        num_bytes = sum(store.first.ledger.num_bytes() for store in parts) - target.ledger.num_bytes()
        merged = Merged(target, bytes_to_bring=num_bytes)
        for store in parts:
            with held_part(store.folder):
                require_finished(store)  # still
                merge_part(store.first, merged, link=link, step=step)
        merge_notes(parts, merged.teacher.folder)
        write_failures(merged.teacher)
    return merged


@contextmanager
def held_part(folder: Path) -> Iterator[None]:
    """See that no other process writes a part while the block runs; nobody continues one that is read-only.

    Raises:
        BusyError: one does.
    """
    with exclusive(folder, "g2l merge") if os.access(folder, os.W_OK) else nullcontext():
        yield


def parts_in_order(stores: Sequence[Store]) -> list[Store]:
    """The parts from the first to the last.

    Raises:
        StoreError: a store is no part or not finished, or they are not all parts exactly once.
    """
    found: dict[int, Store] = {}
    for store in stores:
        other = found.setdefault(require_finished(store).number, store)
        if other is not store:
            raise StoreError(f"{other.folder} and {store.folder} are both part {store.first.part}. Give each part once")
    counts = {store.first.part.count: store for store in stores if store.first.part}
    if len(counts) > 1:
        words = ", ".join(f"{store.folder} is part {store.first.part}" for store in counts.values())
        raise StoreError(f"these are not parts of one division: {words}")
    count = max(counts)
    if missing := [str(number) for number in range(1, count + 1) if number not in found]:
        raise StoreError(f"of {count} parts some are missing: {', '.join(missing)}. Give all of them")
    return [found[number] for number in sorted(found)]


def require_finished(store: Store) -> StorePart:
    """See that a store is a finished part; returns which.

    Raises:
        StoreError: it is not.
    """
    part = store.first.part
    if part is None:
        raise StoreError(f"{store.folder} is not a part of a store: it was made without --part")
    if pending := store.first.pending:
        raise StoreError(
            f"{store.folder} is not finished: {len(pending)} of its {len(store.first.shards)} shards are missing. "
            f"Run extract-teacher --part {part} again"
        )
    if (store.folder / TEACHERS_FOLDER).exists():
        raise StoreError(f"{store.folder} has further teachers: merge first, then add them")
    return part


def require_alike(parts: Sequence[Store]) -> None:
    """See that all parts are of one plan, teacher and settings. Plans count by their hash: only the first one is read.

    Raises:
        StoreError: they are not; says what differs.
    """
    first = parts[0]
    for other in parts[1:]:
        changes = differences(deciding(first.first), deciding(other.first), {"settings": UNSAID_SETTINGS})
        changes = [line for line in changes if not line.startswith("teacher.weights:")]  # weights count by their hash
        if changes:
            listing = "\n".join(f"  {line}" for line in changes[:20])
            raise StoreError(
                f"{other.folder} was made with other inputs than {first.folder}, and they are not merged "
                f"({first.first.part} -> {other.first.part}):\n{listing}"
            )


def deciding(teacher: StoredTeacher) -> dict[str, Any]:
    """What the bytes of a store depend on."""
    return {
        "plan_hash": teacher.plan_hash,
        "rows": teacher.num_rows,
        "teacher": teacher.record,
        "settings": teacher.settings,
    }


def start_merged(part: Store, out: Path) -> StoredTeacher:
    """Make the store that all parts go into, or open the one of an earlier merge.

    Raises:
        StoreError: there is something else.
    """
    first = part.first
    if is_store(out):
        require_part(out, Store(out).first.part, None)
    else:
        notes = {name: value for name, value in first.attributes.items() if name not in OF_EVERY_STORE}
        create_store(out, part.plan, first.spec, first.attributes.get("versions", {}), **notes)
    merged = open_to_continue(out, part.plan, first.spec).first
    if is_there(part.folder / "config.toml"):
        try:
            options = read_options(part.folder / "config.toml", "extract-teacher")
        except ConfigError as error:
            raise StoreError(f"{part.folder}: its record of options is damaged ({error})") from None
        options.pop("part", None)
        write_text(out / "config.toml", to_toml({"extract-teacher": options | {"out": str(out.absolute())}}))
    return merged


def merge_part(source: StoredTeacher, merged: Merged, *, link: bool, step: Callable[[int], None]) -> None:
    """Bring all shards of a part into the merged store.

    Raises:
        StoreError: as `merge_shard`; or the disk is full.
        OSError: a file cannot be read or written otherwise.
    """
    for shard in source.shards:
        try:
            merge_shard(source, shard, merged, link=link)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            target = merged.teacher
            done = target.num_shards - len(target.ledger.pending())
            raise StoreError(
                f"cannot write to {target.folder}: {error.strerror}. {done} of {target.num_shards} shards are merged "
                "and safe; make room and run the same command again"
            ) from error
        step(len(source.ledger.rows(shard)))


def merge_shard(source: StoredTeacher, shard: int, merged: Merged, *, link: bool) -> None:
    """Bring one shard of a part into the merged store, its ledger entry last.

    Raises:
        StoreError: a file is damaged, or the store has another shard there.
    """
    entry, target = source.ledger.read(shard), merged.teacher
    assert entry is not None
    before = target.ledger.read(shard)
    if before is not None and before["files"] != entry["files"]:
        raise StoreError(f"{target.folder} has another shard {shard} than {source.folder}. Choose another --out")
    merged.num_before += before is not None
    expected = {source.shard_path(name, shard).relative_to(source.folder).as_posix() for name in source.arrays}
    rows = source.ledger.rows(shard)
    if entry["files"].keys() != expected or entry["rows"] != [rows.start, rows.stop]:
        raise StoreError(
            f"{source.ledger.path(shard)}: not of this shard's rows and files. `g2l verify` lists all damage"
        )
    for name in sorted(expected):
        if before is not None and is_whole(target.folder / name, entry["files"][name]):
            continue
        is_linked = bring(source.folder / name, target.folder / name, entry["files"][name], link=link)
        if not is_linked and not merged.num_copied:
            warn_of_room(merged.teacher.folder, merged.bytes_to_bring)
        merged.num_linked += is_linked
        merged.num_copied += not is_linked
    if before is None:
        target.ledger.write(shard, entry)


def warn_of_room(out: Path, num_bytes: int) -> None:
    """Warn if copies of so many bytes, of which one is made, will hardly fit."""
    free = shutil.disk_usage(out).free
    if num_bytes > free:
        say(
            f"warning: shard files of {format_bytes(num_bytes)} are copied, and {out} has {format_bytes(free)} free. "
            "On the file system of the parts they would be linked, which takes no room"
        )


def is_whole(path: Path, file: Mapping[str, Any]) -> bool:
    """Whether a file is there with the bytes and SHA-256 of its ledger entry."""
    return path.is_file() and path.stat().st_size == file["bytes"] and sha256_file(path) == file["sha256"]


def bring(source: Path, target: Path, file: Mapping[str, Any], *, link: bool) -> bool:
    """Link or copy a shard file, checked against its ledger entry's bytes and SHA-256; whether it was linked.

    Raises:
        StoreError: it is missing or damaged.
    """
    try:
        status = os.stat(source)
    except FileNotFoundError:
        raise StoreError(f"{source}: the shard file is missing. `g2l verify` lists all damage") from None
    if not stat.S_ISREG(status.st_mode) or status.st_size != file["bytes"]:  # a device may have no end
        raise StoreError(
            f"{source}: {status.st_size} bytes, {file['bytes']} were written. `g2l verify` lists all damage"
        )
    make_folders(target.parent)
    with written_by_library(target) as aside:
        is_linked = link and replaced_by_link(aside, source)
        if not is_linked:
            shutil.copyfile(source, aside)
        if not is_whole(aside, file):
            raise StoreError(
                f"{source}: its bytes have changed (SHA-256 does not match). `g2l verify` lists all damage"
            )
    return is_linked


def replaced_by_link(path: Path, source: Path) -> bool:
    """Put a hard link to `source` in the place of the empty file `path`; false where none can be made: on another file
    system, or one without hard links. Where `source` is a link by name, the file that it leads to is linked: the parts
    may be deleted afterwards.
    """
    path.unlink()
    try:
        os.link(os.path.realpath(source), path)
    except OSError:
        return False
    return True


def merge_notes(parts: Sequence[Store], out: Path) -> None:
    """Bring together which changed files of slides were read, and which slides were left out.

    Raises:
        StoreError: a note is damaged.
    """
    changed: dict[str, str] = {}
    crashing: dict[str, Any] = {}
    for store in parts:
        changed |= read_changed(store.folder)
        if is_there(path := store.folder / CRASHING):
            with reading(path, "damaged", StoreError):
                crashing |= {slide["path"]: slide for slide in read_json(path)["slides"]}
    if changed:
        write_json(out / CHANGED_FILE, dict(sorted(changed.items())))
    if crashing:
        write_json(out / CRASHING, {"slides": [crashing[path] for path in sorted(crashing)]})
