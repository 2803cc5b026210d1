"""HDF5 files of others, read so that nothing but the file itself is read.

HDF5 can point at other files (external storage, external links, virtual datasets), run code that it finds in other
places (filters by plugin), claim any size, and fill with zeros what was never written. Each is refused: a dataset is
read if its numbers lie in this file, whole, behind filters that come with HDF5 or h5py. For use within
`outside.reading`. What it leaves out: writing, which is `features.files` and `cohort.plan`.
"""

import contextlib
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.base.outside import MOST_RATIO, SMALL_BYTES, UnsafeError, require_claim, require_regular, require_room
from pipeline.disk.first_look import require_sound_hdf5

FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
"""Filters that are built into HDF5 and h5py; all others come as plugins, which are programs."""
DEFLATE = 1
NUMBERS = "biuf"
"""Kinds of NumPy types that are numbers."""
MOST_ATTRIBUTE_BYTES = SMALL_BYTES
MOST_GROWTH, SMALL_CHUNK_BYTES = 1.1, 4096
"""How far filters may enlarge a chunk that cannot be compressed. Our choice: deflate adds 0.1 % and a few bytes."""
MOST_LINKS = 16
"""Links within a file that are followed one after the other. Our choice: more is a circle."""


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file, open for reading.

    Raises:
        OSError, UnsafeError: no file, none of HDF5's, a pipe or device, or so damaged that reading it ends the process.
    """
    require_regular(path)
    require_sound_hdf5(path)
    with h5py.File(path, "r") as f:
        yield f


def look_at(path: Path) -> str:
    """Open a file and read all that describes it, as a child process does for `first_look`.

    What raises is left to the reader, who names it: what counts is whether the process comes to its end. Returns "".
    """
    with contextlib.suppress(Exception), h5py.File(path, "r") as f:
        _look_into(f)
        f.visititems(lambda _, found: _look_into(found))
    return ""


def _look_into(found: h5py.File | h5py.Group | h5py.Dataset) -> None:
    """Read the attributes of a thing in a file, and of a dataset its type, layout, filters and index of chunks."""
    with contextlib.suppress(Exception):
        attributes(found)
    if isinstance(found, h5py.Dataset):
        with contextlib.suppress(Exception):
            _ = found.dtype, found.shape, found.is_virtual, found.external, found.id.get_storage_size()
            plist = found.id.get_create_plist()
            _ = [plist.get_filter(i) for i in range(plist.get_nfilters())]
            if found.chunks is not None and (number := found.id.get_num_chunks()):
                _ = found.id.get_chunk_info(0), found.id.get_chunk_info(number - 1)


def member(group: h5py.Group, name: str) -> Any:
    """What `name` (a path) is in a file, as long as the way there stays in it; `None` where there is nothing.

    Raises:
        UnsafeError: a link on the way leads into another file, or in a circle.
    """
    return _follow(group, name, [MOST_LINKS])


def _follow(group: h5py.Group, name: str, left: list[int]) -> Any:
    """`member`, with the number of links that may still be followed."""
    place: Any = group.file if name.startswith("/") else group
    for part in name.split("/"):
        if part in ("", "."):
            continue
        if not isinstance(place, h5py.Group) or part not in place.keys():  # noqa: SIM118  (`in` follows links)
            return None
        link = place.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise UnsafeError(f"{name} is a link into another file, {link.filename!r}; only the file itself is read")
        if isinstance(link, h5py.SoftLink):
            left[0] -= 1
            if left[0] < 0:
                raise UnsafeError(f"{name} is a link that leads in a circle")
            place = _follow(place, link.path, left)
            if place is None:
                return None
        else:
            place = place[part]
    return place


def dataset(group: h5py.Group, name: str) -> h5py.Dataset | None:
    """The dataset `name`, or `None` where there is none.

    Raises:
        UnsafeError: see `member`.
    """
    found = member(group, name)
    return found if isinstance(found, h5py.Dataset) else None


def datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    """The datasets right in a file, by name; links into other files are passed over."""
    found = {}
    for name in file.keys():  # noqa: SIM118  (h5py's own view: names, no links followed)
        if not isinstance(file.get(name, getlink=True), h5py.ExternalLink):
            values = dataset(file, name)
            if values is not None:
                found[name] = values
    return found


def read_values(values: h5py.Dataset) -> NDArray[Any]:
    """All numbers of a dataset.

    Raises:
        UnsafeError: they lie elsewhere, were never written, are no numbers, or there is no room for them.
    """
    name = values.name
    if values.is_virtual:
        raise UnsafeError(f"{name} is a virtual dataset, made of other files; only the file itself is read")
    if values.external:
        raise UnsafeError(f"{name} lies in another file, {values.external[0][0]!r}; only the file itself is read")
    if values.shape is None:
        raise UnsafeError(f"{name} is empty")
    if values.dtype.kind not in NUMBERS:
        raise UnsafeError(f"{name} is of type {values.dtype}, not numbers")
    size = math.prod(values.shape) * values.dtype.itemsize
    file_bytes = int(values.file.id.get_filesize())
    require_claim(size, file_bytes, name)
    require_room(size, name)
    if values.chunks is None:
        _require_contiguous(values, size, file_bytes)
    else:
        _require_chunks(values, file_bytes)
    return np.asarray(values[()])


def _require_contiguous(values: h5py.Dataset, size: int, file_bytes: int) -> None:
    """See that a dataset without chunks has been written and lies in the file.

    Raises:
        UnsafeError: it has not, or does not.
    """
    start = values.id.get_offset()  # None for a compact one, which lies in its header
    if values.id.get_storage_size() < size:
        raise UnsafeError(f"{values.name} was never written")
    if start is not None and start + size > file_bytes:
        raise UnsafeError(f"{values.name} reaches beyond the end of the file")


def _require_chunks(values: h5py.Dataset, file_bytes: int) -> None:
    """See that all chunks of a dataset are in the file, and that their filters are known and give what they should.

    Raises:
        UnsafeError: they are not.
    """
    properties = values.id.get_create_plist()
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    if foreign := [number for number in filters if number not in FILTERS]:
        known = ", ".join(FILTERS.values())
        raise UnsafeError(f"{values.name} needs the filter {foreign[0]}, a plugin; write it with {known} or without")
    chunk_bytes = math.prod(values.chunks) * values.dtype.itemsize
    require_claim(chunk_bytes, file_bytes, f"a chunk of {values.name}")
    require_room(chunk_bytes, f"a chunk of {values.name}")
    needed = math.prod(-(-side // chunk) for side, chunk in zip(values.shape, values.chunks, strict=True))
    written, large = 0, []

    def look(chunk: Any) -> None:
        nonlocal written
        written += 1
        if chunk.byte_offset is None or chunk.byte_offset + chunk.size > file_bytes:
            raise UnsafeError(f"{values.name} reaches beyond the end of the file")
        if chunk.size > MOST_GROWTH * chunk_bytes + SMALL_CHUNK_BYTES:
            raise UnsafeError(f"a chunk of {values.name} is larger than it can be")
        if chunk.size * MOST_RATIO > SMALL_BYTES:
            large.append(chunk.chunk_offset)

    if hasattr(values.id, "chunk_iter"):
        values.id.chunk_iter(look)
    else:  # h5py built on HDF5 before 1.12.3
        for number in range(values.id.get_num_chunks()):
            look(values.id.get_chunk_info(number))
    if written < needed:
        raise UnsafeError(f"{needed - written:,} of {needed:,} chunks of {values.name} were never written")
    if DEFLATE in filters:
        for offset in large:
            _require_inflated(values, offset, 1 << filters.index(DEFLATE), chunk_bytes)


def _require_inflated(values: h5py.Dataset, offset: tuple[int, ...], deflate_bit: int, chunk_bytes: int) -> None:
    """See that a deflated chunk becomes no larger than a chunk is: HDF5 would take the memory first.

    Args:
        deflate_bit: what the chunk's mask has where it was not deflated.

    Raises:
        UnsafeError: it does.
    """
    mask, data = values.id.read_direct_chunk(offset)
    if mask & deflate_bit:
        return  # HDF5 leaves a filter out where it does not help
    inflater = zlib.decompressobj()
    inflater.decompress(data, chunk_bytes + 4)  # with fletcher32's checksum
    if not inflater.eof:
        raise UnsafeError(f"a chunk of {values.name} becomes larger than it says")


def attributes(carrier: h5py.File | h5py.Group | h5py.Dataset) -> dict[str, Any]:
    """The attributes of a file, group or dataset, as Python values; `None` for an empty one, arrays stay arrays.

    Raises:
        UnsafeError: one is larger than `MOST_ATTRIBUTE_BYTES`.
    """
    found = {}
    for name in carrier.attrs.keys():  # noqa: SIM118  (items would read them unseen)
        stored = carrier.attrs.get_id(name)
        if stored.shape is not None and math.prod(stored.shape) * stored.dtype.itemsize > MOST_ATTRIBUTE_BYTES:
            raise UnsafeError(f"its attribute {name} claims more than {MOST_ATTRIBUTE_BYTES >> 20} MiB")
        found[name] = plain(carrier.attrs[name])
    return found


def plain(value: Any) -> Any:
    """An attribute as a Python value; `None` where it is there and empty."""
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.item() if isinstance(value, np.generic) else value
