"""The rows of a manifest: slides, their cases, and which cases are held out."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.disk.files import sha256_json
from pipeline.disk.objects.places import place_below

Split = Literal["train", "val"]


@dataclass(frozen=True)
class ManifestRow:
    """One slide. `path` is as written; `mpp` is um/px of level 0, and replaces the slide's own if `mpp_overrides` is
    "yes"; `annotations` is a file as written; `line` counts from 1 (0: not from a file).

    `has_case` is false if the manifest gives no case; `case_id` is then the slide's id. Comparisons ignore `has_case`
    and `line`, since the order of rows does not matter.
    """

    slide_id: str
    path: str
    case_id: str
    center: str | None = None
    mpp: float | None = None
    split: Split | None = None
    sha256: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    line: int = field(default=0, compare=False)
    mpp_overrides: Literal["yes"] | None = None
    has_case: bool = field(default=True, compare=False)
    annotations: str | None = None


@dataclass(frozen=True)
class Manifest:
    """The rows of a manifest, sorted by `slide_id`, the folder that their relative paths start from, and what a reader
    must know of how it was read.
    """

    rows: tuple[ManifestRow, ...]
    path: Path
    slides_root: Path
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Manifest({str(self.path)!r}, {len(self.rows):,} slides)"

    def slide_path(self, row: ManifestRow) -> Path:
        """Path of the row's slide, or its address in a bucket (`disk.objects.places`)."""
        return place_below(self.slides_root, row.path)

    def annotations_path(self, row: ManifestRow) -> Path | None:
        """Path of the row's file of annotations; finds the file if only the encoding of accents in its name differs.
        `None` without one.
        """
        return place_below(self.slides_root, row.annotations) if row.annotations else None


def split_of_case(case_id: str, val_fraction: float) -> Split:
    """The split of a case, from the SHA-256 of its id alone, so that adding or removing slides does not change it.

    A case held out at one fraction is held out at every larger one.

    Raises:
        ValueError: `val_fraction` is not within 0 to 1.
    """
    if not 0 <= val_fraction <= 1:
        raise ValueError(f"val_fraction must be 0 to 1, not {val_fraction:g}")
    # A float holds 48 bits exactly, and the quotient is below 1: fraction 0 holds out nothing, 1 everything.
    position = int.from_bytes(hashlib.sha256(case_id.encode()).digest()[:6], "big") / 2**48
    return "val" if position < val_fraction else "train"


def row_split(row: ManifestRow, val_fraction: float) -> Split:
    """The row's split in the manifest, else the split of its case's hash."""
    return row.split or split_of_case(row.case_id, val_fraction)


def row_hash(row: ManifestRow) -> str:
    """A short hash of the fields of a manifest row that a plan depends on, without its labels."""
    hashed: list[Any] = [row.slide_id, row.path, row.case_id, row.center, row.mpp, row.split, row.sha256]
    if row.mpp_overrides:  # absent otherwise, so that rows of earlier versions keep their hash
        hashed.append({"mpp_overrides": row.mpp_overrides})
    if row.annotations:
        hashed.append({"annotations": row.annotations})
    return sha256_json(hashed)[:16]
