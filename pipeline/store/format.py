"""What a store is made of: its attributes, its status codes, and the metadata of its arrays."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from math import inf
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline.base import interrupts
from pipeline.base.errors import StoreError
from pipeline.base.outside import read_json, reading
from pipeline.cohort.plan import Plan
from pipeline.cohort.views.strengths import EARLIER, VIEW_STRENGTHS
from pipeline.cohort.views.views import Views
from pipeline.disk.folders import new_folder
from pipeline.disk.raw_arrays import METADATA
from pipeline.store.parts.part import part_of

FORMAT_VERSION, STRENGTHS_VERSION = 1, 2
"""Of a store, and of one whose views have a strength or whose patches are part of a tile: programs that do not know
these would replay other views.
"""
STORE_FORMAT, TEACHER_FORMAT = "g2l-store", "g2l-teacher"
"""What a store says that it is, and the embeddings of a further teacher in it."""
TEACHERS_FOLDER = "teachers"
"""In a store: a folder for each further teacher."""
ROUNDS_FOLDER = "rounds"
"""Beside a teacher's arrays: a folder for each view that it embedded in a round of its own."""
MOST_VIEWS = 2**16
"""Views of a patch that metadata may speak of. Our choice: far more than anybody embeds."""
DTYPES, PIXELS = ("float16", "float32"), ("jpegxl", "jpeg", "none")
MOST_SHARDS = 10_000_000
"""Our choice: a hundred million rows in shards of ten; each is a file, and each is asked for."""
CHUNK_ROWS = 256
"""Rows of an inner chunk of `embedding`, at most. Our choice: 256 rows of 1536 float16 are 0.8 MB, a good read."""


class Status(IntEnum):
    """What became of a row."""

    ABSENT = 0  # not done yet
    OK = 1
    UNREADABLE = 2  # a tile under the patch is damaged
    EMPTY = 3  # the slide has no pixels there
    NO_SLIDE = 4  # the slide does not open, or is not the planned one
    NOT_FINITE = 5  # the teacher gave NaN or infinity, or a value beyond the stored type
    # dropped by `--patch-qc`, after the row was read
    ONE_COLOUR = 6
    NO_TISSUE = 7  # glass, or nearly so
    PEN = 8
    OUT_OF_FOCUS = 9
    DUPLICATE = 10  # the pixels of an earlier row of the slide

    @property
    def is_dropped(self) -> bool:
        """Whether the row was read and left out by `--patch-qc`, which is no failure."""
        return self >= Status.ONE_COLOUR

    @property
    def words(self) -> str:
        """The name in words, such as "out of focus"."""
        return self.name.lower().replace("_", " ")


UNSAID_SETTINGS = {"views": 1, "views_seed": 0, "views_strength": EARLIER, "patch_qc": "off"}
"""What the settings of a store mean that lack a name, for words on how two stores differ."""


@dataclass(frozen=True)
class StoreSpec:
    """What a store was made with; it is continued under the same only.

    Attributes:
        teacher: record of the teacher: source, architecture, weight hash, mean, std, width, embedding rule, ...
        settings: rows_per_shard, pixels, dtype, precision, batch_size; patch_qc, the version of its rules, if patches
            are checked; views and views_seed if there are several views;
            views_strength and views_probe if these are not the views of earlier versions. Those of a round have view,
            its number, in place of views.
    """

    teacher: dict[str, Any]
    settings: dict[str, Any]

    @property
    def views(self) -> Views:
        """The views of a patch that the teacher saw."""
        settings = self.settings
        return Views(settings.get("views", 1), settings.get("views_seed", 0), settings.get("views_strength", EARLIER))


def require_sound_attributes(attributes: Mapping[str, Any]) -> None:
    """See that the sizes and names in a store's metadata are such as this program writes.

    Raises:
        KeyError, TypeError, ValueError: one is not; says which.
    """
    teacher, settings = attributes["teacher"], attributes["settings"]
    most = {"rows": 2**40, "patch_px": 2**14, "tile_px": 2**14, "width": 2**20, "rows_per_shard": 2**40}
    most |= {"views": MOST_VIEWS, "view": MOST_VIEWS, "patch_qc": 2**16}
    sizes = {
        "rows": attributes["rows"],
        "patch_px": attributes["patch_px"],
        "tile_px": attributes.get("tile_px", attributes["patch_px"]),
        "width": teacher["width"],
        "rows_per_shard": settings["rows_per_shard"],
        "views": settings.get("views", 1),
        "view": settings.get("view", 1),
        "patch_qc": settings.get("patch_qc", 1),
    }
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= most[name]:
            raise ValueError(f"{name} is {size!r}")
    if settings["dtype"] not in DTYPES or settings["pixels"] not in PIXELS:
        raise ValueError(f"dtype is {settings['dtype']!r}, pixels {settings['pixels']!r}")
    if sizes["tile_px"] < sizes["patch_px"]:
        raise ValueError(f"tile_px is {sizes['tile_px']}, patch_px {sizes['patch_px']}")
    if settings.get("views_strength", EARLIER) not in VIEW_STRENGTHS:
        raise ValueError(f"views_strength is {settings['views_strength']!r}")
    if -(-sizes["rows"] // sizes["rows_per_shard"]) > MOST_SHARDS:
        raise ValueError(f"{sizes['rows']:,} rows in shards of {sizes['rows_per_shard']:,}")
    part_of(attributes)


def require_entry(entry: Mapping[str, Any]) -> None:
    """See that a ledger entry has all fields, each of its type.

    Raises:
        KeyError, TypeError, ValueError: it has not.
    """
    if missing := {"rows", "status", "files", "failures"} - entry.keys():
        raise KeyError(*sorted(missing))
    if not all(isinstance(count, int) and count >= 0 for count in entry["status"].values()):
        raise ValueError(f"its status counts are {entry['status']!r}")
    if unknown := entry["status"].keys() - {status.name for status in Status if not status.is_dropped}:
        raise ValueError(f"status {min(unknown)!r}")
    for name, file in entry["files"].items():
        if not (isinstance(file["bytes"], int) and isinstance(file["sha256"], str)):
            raise TypeError(f"its file {name!r} has no bytes and sha256")
    if not all(isinstance(failure, dict) for failure in entry["failures"]):
        raise TypeError("its failures are no records")
    _require_seconds(entry.get("seconds", 0.0))
    _require_dropped(entry.get("dropped", []))


def _require_seconds(seconds: Any) -> None:
    """See that what a shard took is a number of seconds.

    Raises:
        ValueError: it is none.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < inf:
        raise ValueError(f"its seconds are {seconds!r}")


def _require_dropped(records: list[dict[str, Any]]) -> None:
    """See that records of dropped rows have a status of such rows, and what was measured.

    Raises:
        KeyError, TypeError, ValueError: they have not.
    """
    for record in records:
        if not Status[record["status"]].is_dropped:
            raise ValueError(f"dropped, with status {record['status']!r}")
        if missing := {"row", "slide_id", "x", "y", "value", "bound"} - record.keys():
            raise KeyError(*sorted(missing))


def teacher_folder(teacher: str) -> str:
    """A teacher's name as that of a folder or file: letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", teacher).strip("-.") or "teacher"


def chunk_rows(rows_per_shard: int) -> int:
    """Rows of an inner chunk: the largest divisor of the shard's rows that is at most `CHUNK_ROWS`."""
    return next(c for c in range(min(CHUNK_ROWS, rows_per_shard), 0, -1) if rows_per_shard % c == 0)


def read_store_attributes(folder: Path, format_name: str, place: str = "") -> dict[str, Any]:
    """What the metadata say of a store, or of a further teacher in it, by `format_name`. Messages call the folder
    `place`.

    Raises:
        StoreError: there is none, or it is of another format or version.
    """
    place = place or str(folder)
    if not (folder / METADATA).exists():
        raise StoreError(f"{place}: no such store. `g2l extract-teacher` makes one")
    with reading(place, "not a store of G2L", StoreError):
        attributes: dict[str, Any] = read_json(folder / METADATA)["attributes"]["g2l"]
        stored_format, version = attributes["format"], attributes["version"]
    if stored_format != format_name or version not in (FORMAT_VERSION, STRENGTHS_VERSION):
        raise StoreError(
            f"{place}: {stored_format} of format version {version}; this program reads versions {FORMAT_VERSION} and "
            f"{STRENGTHS_VERSION} of {format_name}. Use the G2L that made it"
        )
    return attributes


@contextmanager
def new_arrays(
    folder: Path,
    plan: Plan,
    spec: StoreSpec,
    versions: dict[str, str],
    format_name: str,
    notes: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[Path]:
    """Make the metadata of a store, or of a further teacher, without rows: in a folder aside, which is synced and
    renamed when the block ends well.

    `notes` are attributes that decide nothing.

    Raises:
        StoreError: the place cannot be written; nothing is left.
    """
    from pipeline.store import zarr_format  # zarr is slow to import, and what reads a store needs none

    rows, settings = plan.num_rows, spec.settings
    shard_rows = settings["rows_per_shard"]
    tile = {"tile_px": plan.config.tile_px} if plan.config.has_tiles else {}
    attributes = {
        "format": format_name,
        "version": STRENGTHS_VERSION if tile or "views_strength" in settings else FORMAT_VERSION,
        "rows": rows,
        "patch_px": plan.config.patch_px,
        **tile,
        "plan_hash": plan.hash,
        "teacher": spec.teacher,
        "settings": settings,
        "status_codes": {
            status.name: int(status) for status in Status if not status.is_dropped or "patch_qc" in settings
        },
        "versions": versions,
        "full_float32": True,
        **notes,
    }
    sharding = {"shard_rows": shard_rows, "chunk_rows": chunk_rows(shard_rows)}
    embeddings = (rows, spec.teacher["width"])
    try:
        # zarr makes the folders above whatever it writes, those that the end of a command has just removed as well
        with interrupts.guard, new_folder(folder, METADATA) as aside:
            zarr_format.create_group(aside, {"g2l": attributes})
            zarr_format.create_rows_array(
                aside, "embedding", embeddings, settings["dtype"], fill=float("nan"), **sharding
            )
            if spec.views.count > 1:
                shape = (rows, spec.views.count - 1, spec.teacher["width"])
                zarr_format.create_rows_array(aside, "views", shape, settings["dtype"], fill=float("nan"), **sharding)
            zarr_format.create_rows_array(aside, "status", (rows,), "uint8", fill=int(Status.ABSENT), **sharding)
            yield aside
            (aside / "shards").mkdir()
    except OSError as error:
        raise StoreError(f"cannot make the store {folder}: {error.strerror or error}") from error
