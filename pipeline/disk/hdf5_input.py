"""Read HDF5 files from outside, and only the file itself.

HDF5 can point at other files (external storage, external links, virtual datasets), load code (plugin filters), claim
any size, and return zeros for data that were never written. All of these are refused: a dataset must lie whole in this
file, behind filters that come with HDF5 or h5py. For use inside `outside.reading`. Left out: writing, in
`features.files` and `cohort.plan_hdf5`.
"""

import contextlib
import math
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.base.outside import (
    MOST_RATIO,
    SMALL_BYTES,
    UnsafeError,
    format_size,
    read_part,
    require_claim,
    require_room,
)
from pipeline.disk.first_look import require_sound_hdf5

FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
"""Filters built into HDF5 and h5py; all others are plugins, which run code."""
DEFLATE = 1
NUMBERS = "biuf"
"""NumPy kinds of numeric types."""
MOST_ATTRIBUTE_BYTES = SMALL_BYTES
MOST_VARIABLE = 64
"""Values of any length (strings, sequences) of one attribute. Our choice: the tools that we import from write single
strings; many may be one object of the file, which would be read into memory as often.
"""
MOST_GROWTH, SMALL_CHUNK_BYTES = 1.1, 4096
"""Factor and bytes by which filters may enlarge an incompressible chunk. Our choice: deflate adds 0.1 % and a few
bytes.
"""
MOST_LINKS = 16
"""Links within a file that are followed in turn. Our choice: more is a circle."""


@contextmanager
def open_hdf5(path: Path, only: str | None = None) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading.

    Args:
        only: name of the one attribute that is read of what lies in the file, where it has many. All those of the file
            itself may be read.

    Raises:
        OSError, UnsafeError: it does not exist, is not HDF5, is a pipe or device, or would crash the process.
    """
    read_part(path, 0, 1)  # of a file that may not be read the system says so in a word, HDF5 in a paragraph
    require_sound_hdf5(path, only)
    with h5py.File(path, "r") as f:
        yield f


def look_at(path: Path, only: str | None = None) -> str:
    """Open a file and read all its metadata, in a child process for `first_look`; of the attributes of what lies in it
    the one called `only`, if that is given.

    Returns "" and ignores exceptions: the reader will meet and name them. Only a crash of the process matters here.
    """
    with contextlib.suppress(Exception), h5py.File(path, "r") as f:
        _read_metadata(f, None)
        f.visititems(lambda _, node: _read_metadata(node, only))
    return ""


def _read_metadata(node: h5py.File | h5py.Group | h5py.Dataset, only: str | None) -> None:
    """Read a node's attributes, or the one called `only`, and a dataset's type, layout, filters and chunk index."""
    with contextlib.suppress(Exception):
        if only is None:
            attributes(node)
        elif only in node.attrs:
            attribute(node, only)
    if isinstance(node, h5py.Dataset):
        with contextlib.suppress(Exception):
            _ = node.dtype, node.shape, node.is_virtual, node.external, node.id.get_storage_size()
            plist = node.id.get_create_plist()
            _ = [plist.get_filter(i) for i in range(plist.get_nfilters())]
            if node.chunks is not None and (number := node.id.get_num_chunks()):
                _ = node.id.get_chunk_info(0), node.id.get_chunk_info(number - 1)


def member(group: h5py.Group, name: str) -> Any:
    """The group or dataset at the path `name`, following links within the file only; `None` if there is none.

    Raises:
        UnsafeError: a link on the path leads into another file, or in a circle.
    """
    return _follow(group, name, [MOST_LINKS])


def _follow(group: h5py.Group, name: str, left: list[int]) -> Any:
    """`member`, with the number of links that may still be followed."""
    node: Any = group.file if name.startswith("/") else group
    for part in name.split("/"):
        if part in ("", "."):
            continue
        if not isinstance(node, h5py.Group):
            return None
        links, stored_name = node.id.links, part.encode("utf-8", "surrogateescape")
        if not links.exists(stored_name):  # `part in node` would follow the link, into other files too
            return None
        if links.get_info(stored_name).type == h5py.h5l.TYPE_HARD:
            node = node[part]
            continue
        link = node.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise UnsafeError(f"{name} is a link into another file, {link.filename!r}; only the file itself is read")
        if isinstance(link, h5py.SoftLink):
            left[0] -= 1
            if left[0] < 0:
                raise UnsafeError(f"{name} is a link that leads in a circle")
            node = _follow(node, link.path, left)
        else:
            raise UnsafeError(f"{name} is a link of an unknown kind; only the file itself is read")
    return node


def dataset(group: h5py.Group, name: str) -> h5py.Dataset | None:
    """The dataset at the path `name`, or `None` if there is none.

    Raises:
        UnsafeError: see `member`.
    """
    node = member(group, name)
    return node if isinstance(node, h5py.Dataset) else None


def datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    """The datasets in a file's root group, by name; skips links into other files."""
    by_name = {}
    for name in file.keys():  # noqa: SIM118  (h5py's own view: names, no links followed)
        if not isinstance(file.get(name, getlink=True), h5py.ExternalLink):
            values = dataset(file, name)
            if values is not None:
                by_name[name] = values
    return by_name


def read_values(values: h5py.Dataset) -> NDArray[Any]:
    """Read all numbers of a dataset.

    Raises:
        UnsafeError: they lie in another file, were never written, are not numbers, or do not fit into memory.
    """
    require_room(require_whole(values), values.name)
    return np.asarray(values[()])


def require_whole(values: h5py.Dataset) -> int:
    """Check that a dataset's numbers lie in the file, all of them; returns their bytes. For datasets that are read a
    part at a time.

    Raises:
        UnsafeError: they lie in another file, were never written, or are not numbers.
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
    number, stored_bytes = math.prod(values.shape), values.id.get_type().get_size()
    size: int = number * max(values.dtype.itemsize, stored_bytes)  # bfloat16 is read as float32
    file_bytes = int(h5py.h5i.get_file_id(values.id).get_filesize())
    require_claim(size, file_bytes, name)
    if values.chunks is None:
        _require_contiguous(values, number * stored_bytes, file_bytes)
    else:
        _require_chunks(values, stored_bytes, file_bytes)
    return size


def _require_contiguous(values: h5py.Dataset, size: int, file_bytes: int) -> None:
    """Check that a dataset without chunks, of `size` bytes, has been written and lies in the file.

    Raises:
        UnsafeError: it has not, or does not.
    """
    start = values.id.get_offset()  # None for a compact one, which lies in its header
    if values.id.get_storage_size() < size:
        raise UnsafeError(f"{values.name} was never written")
    if start is not None and start + size > file_bytes:
        raise UnsafeError(f"{values.name} reaches beyond the end of the file")


def _require_chunks(values: h5py.Dataset, stored_bytes: int, file_bytes: int) -> None:
    """Check that all chunks of a dataset, of so many bytes a number, lie in the file, use built-in filters, and inflate
    to a chunk's size.

    Raises:
        UnsafeError: they do not.
    """
    filters = _filters(values)
    chunk_bytes = math.prod(values.chunks) * stored_bytes
    require_claim(chunk_bytes, file_bytes, f"a chunk of {values.name}")
    require_room(chunk_bytes, f"a chunk of {values.name}")
    needed = math.prod(-(-side // chunk) for side, chunk in zip(values.shape, values.chunks, strict=True))
    written, large = 0, []

    def check_chunk(chunk: Any) -> None:
        nonlocal written
        written += 1
        if chunk.byte_offset is None or chunk.byte_offset + chunk.size > file_bytes:
            raise UnsafeError(f"{values.name} reaches beyond the end of the file")
        if chunk.size > MOST_GROWTH * chunk_bytes + SMALL_CHUNK_BYTES:
            raise UnsafeError(f"a chunk of {values.name} is larger than it can be")
        if chunk.size * MOST_RATIO > SMALL_BYTES:
            large.append(chunk.chunk_offset)

    if hasattr(values.id, "chunk_iter"):
        values.id.chunk_iter(check_chunk)
    else:  # h5py built on HDF5 before 1.12.3
        for number in range(values.id.get_num_chunks()):
            check_chunk(values.id.get_chunk_info(number))
    if written < needed:
        raise UnsafeError(f"{needed - written:,} of {needed:,} chunks of {values.name} were never written")
    if DEFLATE in filters:
        for offset in large:
            _require_inflated(values, offset, 1 << filters.index(DEFLATE), chunk_bytes)


def _filters(values: h5py.Dataset) -> list[int]:
    """The numbers of the filters that a dataset's chunks went through, in order.

    Raises:
        UnsafeError: one is not built into HDF5.
    """
    properties = values.id.get_create_plist()
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    if foreign := [number for number in filters if number not in FILTERS]:
        known = ", ".join(FILTERS.values())
        raise UnsafeError(f"{values.name} needs the filter {foreign[0]}, a plugin; write it with {known} or without")
    return filters


def _require_inflated(values: h5py.Dataset, offset: tuple[int, ...], deflate_bit: int, chunk_bytes: int) -> None:
    """Check that a deflated chunk inflates to no more than a chunk's size, before HDF5 allocates the memory.

    Args:
        deflate_bit: bit of the chunk's mask that is set if the chunk was not deflated.

    Raises:
        UnsafeError: it inflates to more.
    """
    mask, data = values.id.read_direct_chunk(offset)
    if mask & deflate_bit:
        return  # HDF5 skips a filter that does not help
    inflater = zlib.decompressobj()
    inflater.decompress(data, chunk_bytes + 4)  # 4 bytes for fletcher32's checksum
    if not inflater.eof:
        raise UnsafeError(f"a chunk of {values.name} inflates to more than it claims")


def attributes(carrier: h5py.File | h5py.Group | h5py.Dataset) -> dict[str, Any]:
    """The attributes of a file, group or dataset as Python values: `None` for an empty one, arrays as they are.

    Raises:
        UnsafeError: one is larger than `MOST_ATTRIBUTE_BYTES`, or has more than `MOST_VARIABLE` values of any length;
            or all of these together are larger than `MOST_ATTRIBUTE_BYTES`.
    """
    names: list[str] = list(carrier.attrs.keys())  # items() would read values before the check
    return _checked_attributes(carrier, names)


def attribute(carrier: h5py.File | h5py.Group | h5py.Dataset, name: str) -> Any:
    """One attribute, as `attributes` gives it.

    Raises:
        KeyError: there is none of this name.
        UnsafeError: as `attributes`.
    """
    return _checked_attributes(carrier, [name])[name]


def _checked_attributes(carrier: h5py.File | h5py.Group | h5py.Dataset, names: Iterable[str]) -> dict[str, Any]:
    """The attributes of these names; as `attributes`."""
    values: dict[str, Any] = {}
    text_bytes, attrs = 0, carrier.attrs
    for name in names:
        stored = attrs.get_id(name)
        size = math.prod(stored.shape or ())
        if stored.shape is not None and size * stored.dtype.itemsize > MOST_ATTRIBUTE_BYTES:
            raise UnsafeError(f"its attribute {name} claims more than {MOST_ATTRIBUTE_BYTES >> 20} MiB")
        variable = size * _num_variable(stored.get_type(), name)
        if variable > MOST_VARIABLE:
            raise UnsafeError(
                f"its attribute {name} has {variable:,} values of any length; at most {MOST_VARIABLE} are read"
            )
        if variable > 1:  # all may be one object, which is as large as the file
            require_room(variable * int(carrier.file.id.get_filesize()), f"its attribute {name}")
        values[name] = python_value(attrs[name])
        text_bytes += _num_bytes(values[name]) if variable else 0
        if text_bytes > MOST_ATTRIBUTE_BYTES:
            raise UnsafeError(f"its attributes hold more than {format_size(MOST_ATTRIBUTE_BYTES)}")
    return values


def _num_variable(kind: h5py.h5t.TypeID, name: str) -> int:
    """How many values of any length (strings, sequences) an element of this type has. They lie in the file's heap, and
    their sizes are not known before they are read.

    Raises:
        UnsafeError: such values lie within such a value.
    """
    if isinstance(kind, h5py.h5t.TypeStringID):
        return int(kind.is_variable_str())
    if isinstance(kind, h5py.h5t.TypeVlenID):
        if _num_variable(kind.get_super(), name):
            raise UnsafeError(f"its attribute {name} has sequences of values of any length; not read")
        return 1
    if isinstance(kind, h5py.h5t.TypeArrayID):
        return int(math.prod(kind.get_array_dims())) * _num_variable(kind.get_super(), name)
    if isinstance(kind, h5py.h5t.TypeCompoundID):
        return sum(_num_variable(kind.get_member_type(i), name) for i in range(kind.get_nmembers()))
    return 0


def _num_bytes(value: Any) -> int:
    """About how many bytes the strings and sequences of an attribute have."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        return sum(_num_bytes(each) for each in value.flat)
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    return len(value) if isinstance(value, str | bytes) else 0


def python_value(value: Any) -> Any:
    """An attribute as a Python value; `None` if it is empty."""
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.item() if isinstance(value, np.generic) else value
