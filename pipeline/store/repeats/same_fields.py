"""Find rows of a whole store whose images are the same pixel for pixel: a region that was copied, a slide cut from
another.

Images end in their CRC-32C. Rows of one length and checksum are compared byte by byte, so that what is reported is
certain; equal pixels have equal bytes, as one program has encoded them. Nothing is decoded but one image of each field.
Memory is some 60 bytes a row, over all shards. Left out: fields that are shifted by a part of a patch, or were scanned
or compressed again. No hash of single patches tells those from tissue that is even (decision 0077).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.base.console import counted
from pipeline.store.format import Status
from pipeline.store.store import Store

NAMED_FIELDS = 5
"""Fields that a report names. Our choice."""


@dataclass(frozen=True)
class SameField:
    """Rows that show one field, ascending; `is_plain` if it is of one colour, as glass or a blank tile is."""

    rows: tuple[int, ...]
    is_plain: bool


def find_same_fields(store: Store) -> list[SameField]:
    """The fields that more than one row of a store shows, by their first rows; none in a store without pixels.

    Rows of shards that are not done, and rows without an embedding, are passed over.

    Raises:
        StoreError: a shard file is damaged.
    """
    if not store.has_pixels:
        return []
    rows, keys = _checksums(store)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(keys) else np.zeros(0, np.int64)
    lengths = np.diff(np.r_[starts, len(keys)])
    repeated = zip(starts[lengths > 1].tolist(), lengths[lengths > 1].tolist(), strict=True)
    fields = [found for start, length in repeated for found in _equal(store, rows[order[start : start + length]])]
    return sorted(fields, key=lambda found: found.rows)


def _checksums(store: Store) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """The rows that have an embedding and an image (N,), and length and checksum of each in one number (N,)."""
    teacher = store.first
    rows, keys = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
    for shard in teacher.shards:
        if teacher.ledger.read(shard) is None:
            continue
        with store.files.held(teacher.shard_files(shard)):
            inside = np.flatnonzero(teacher.read_status(shard) == Status.OK)
            file = store.files.open(teacher.shard_path("pixels", shard), teacher.rows_per_shard)
            rows.append(teacher.ledger.rows(shard).start + inside)
            keys.append(np.array([file.read_checksum(index) for index in inside.tolist()], np.uint64))
    return np.concatenate(rows), np.concatenate(keys)


def _equal(store: Store, rows: NDArray[np.int64]) -> Iterator[SameField]:
    """The fields among rows of one length and checksum: nearly always one."""
    by_bytes: dict[bytes, list[int]] = {}
    for row in rows.tolist():
        by_bytes.setdefault(store.read_image(row), []).append(row)
    for same in by_bytes.values():
        if len(same) > 1:
            pixels = store.read_pixels(same[0])
            yield SameField(tuple(same), bool((pixels == pixels[0, 0]).all()))


def same_field_words(store: Store, fields: Sequence[SameField]) -> list[str]:
    """How many rows show a field again, and the first of them; a line each, none if there are none. Fields of one
    colour are counted apart, for they are alike without being copies.
    """
    slide_of_row, coords = store.plan.slide_of_row(), store.plan.coords()

    def place(row: int) -> str:
        x, y = coords[row].tolist()
        return f"row {row:,} ({store.plan.slides[slide_of_row[row]].slide_id} at {x}, {y})"

    lines = []
    if plain := sum(len(found.rows) - 1 for found in fields if found.is_plain):
        lines.append(f"note: {counted(plain, 'row shows', 'rows show')} one colour that an earlier row shows as well")
    copies = [found.rows for found in fields if not found.is_plain]
    if copies:
        across = sum(len({int(slide_of_row[row]) for row in rows}) > 1 for rows in copies)
        lines.append(
            f"note: {counted(sum(len(rows) - 1 for rows in copies), 'row shows', 'rows show')} the field of an earlier "
            "row, pixel for pixel; "
            f"of {counted(len(copies), 'such field')} {across:,} {'is' if across == 1 else 'are'} on several slides:"
        )
        lines += [f"  {place(rows[1])} shows {place(rows[0])}" for rows in copies[:NAMED_FIELDS]]
        if len(copies) > NAMED_FIELDS:
            lines.append(f"  and {len(copies) - NAMED_FIELDS:,} more")
    return lines
