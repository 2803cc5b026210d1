"""PyTorch and NumPy files of others, looked at before they are loaded.

`torch.load` takes a storage's size from the file's own word and reads beyond what is there; both kinds are zip
archives, whose entries may inflate a thousandfold. Here every size is held against the bytes of the file first, by an
unpickler that makes nothing. Nothing but tensors and arrays of numbers is loaded: no code is run (`weights_only`, no
object arrays). For use within `outside.reading`. What it leaves out: safetensors, whose own reader checks its header.
"""

import io
import math
import pickle
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.outside import MOST_SHARE, SMALL_BYTES, UnsafeError, require_claim, require_regular, require_room

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_PICKLES = 4
"""Pickles before the keys of the storages, in files of torch before 1.6: magic number, version, system, content."""
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The first of them (`torch.serialization.MAGIC_NUMBER`)."""
STORAGE_BYTES = {
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8, "IntStorage": 4,
    "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1, "ComplexDoubleStorage": 16,
    "ComplexFloatStorage": 8, "UntypedStorage": 1,
}  # fmt: skip
"""Bytes of a number by the class of its storage, as the pickle names it; 1 is the least for those not named here."""


def load_tensors(path: Path, share: float = MOST_SHARE) -> Any:
    """What a PyTorch file of nothing but tensors and plain containers holds, on the CPU.

    Args:
        share: of the free memory that it may take; 1 for weights, which are not copied.

    Raises:
        Exception: any, of a file that is damaged, claims more than it holds, or needs more than tensors.
    """
    size = require_regular(path)
    require_room(size, "the file", share)
    with open(path, "rb") as f:
        if f.read(len(ZIP_MAGIC)) == ZIP_MAGIC:
            _check_archive(path, share)
        else:
            f.seek(0)
            _check_legacy(f, size)
    return torch.load(path, map_location="cpu", weights_only=True)


def as_array(tensor: torch.Tensor) -> NDArray[np.float32]:
    """A tensor of numbers as float32, in an array of its own layout.

    Raises:
        UnsafeError: its shape claims more than there is room for (a view may repeat one number any number of times).
    """
    stored = tensor.untyped_storage().nbytes()
    if tensor.numel() * tensor.element_size() > stored:
        raise UnsafeError(f"claims the shape {tuple(tensor.shape)}, but has {stored:,} bytes")
    require_room(4 * tensor.numel(), "the tensor")
    values: NDArray[np.float32] = tensor.detach().float().numpy()  # NumPy has no bfloat16
    return values


def read_npz(path: Path, names: Sequence[str]) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Those of the arrays `names` that a NumPy archive has, and the names of all that are in it.

    Raises:
        Exception: any, of a file that is damaged, claims more than it holds, or has arrays of objects.
    """
    require_regular(path)
    with open(path, "rb") as f, zipfile.ZipFile(f) as archive:
        sizes = _entry_sizes(archive)
        found = {}
        for name in names:
            if f"{name}.npy" in sizes:
                with archive.open(f"{name}.npy") as entry:
                    _check_header(entry, sizes[f"{name}.npy"], name)
                with archive.open(f"{name}.npy") as entry:
                    found[name] = np.lib.format.read_array(entry, allow_pickle=False)
        return found, [name.removesuffix(".npy") for name in sizes]


def _entry_sizes(archive: zipfile.ZipFile, share: float = MOST_SHARE) -> dict[str, int]:
    """The bytes of an archive's entries by name, as far as what is stored can become them.

    Raises:
        UnsafeError: an entry claims more than it can, one name stands there twice, or all are larger than the memory.
    """
    sizes: dict[str, int] = {}
    for entry in archive.infolist():
        if entry.filename in sizes:
            raise UnsafeError(f"two entries {entry.filename!r}")
        if entry.compress_type == zipfile.ZIP_STORED and entry.file_size != entry.compress_size:
            raise UnsafeError(f"{entry.filename!r} claims {entry.file_size:,} bytes and has {entry.compress_size:,}")
        require_claim(entry.file_size, entry.compress_size, repr(entry.filename))
        sizes[entry.filename] = entry.file_size
    require_room(sum(sizes.values()), "the archive", share)
    return sizes


def _check_header(entry: Any, size: int, name: str) -> None:
    """See that an array's header claims no more than its entry has.

    Raises:
        UnsafeError: it does, or it is of objects.
        ValueError: it is no header.
    """
    major, _ = np.lib.format.read_magic(entry)
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(entry)
    if dtype.hasobject:
        raise UnsafeError(f"{name} holds objects, not numbers")
    if math.prod(shape) * dtype.itemsize > size:
        raise UnsafeError(f"{name} claims the shape {shape}, but has {size:,} bytes")


def _check_archive(path: Path, share: float) -> None:
    """See that the storages of a zip archive of torch's have the bytes that the pickle says they have.

    Raises:
        UnsafeError: they have not, or the archive claims more than it can hold.
        Exception: any, of a damaged one.
    """
    with zipfile.ZipFile(path) as archive:
        sizes = _entry_sizes(archive, share)
        pickles = [name for name in sizes if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise UnsafeError(f"{len(pickles)} entries data.pkl in the archive")
        if sizes[pickles[0]] > SMALL_BYTES:
            raise UnsafeError(f"a pickle of {sizes[pickles[0]]:,} bytes")
        content = archive.read(pickles[0])
    folder = pickles[0].removesuffix("data.pkl")
    for key, claimed in _storages(io.BytesIO(content)):
        held = sizes.get(f"{folder}data/{key}")
        if held is None or claimed > held:
            raise UnsafeError(f"storage {key} claims {claimed:,} bytes and has {held or 0:,}")


def _check_legacy(file: Any, size: int) -> None:
    """See that the storages of a file of torch before 1.6 fit into it.

    Raises:
        UnsafeError: they do not.
        Exception: any, of a damaged one.
    """
    if _Look(file).load() != LEGACY_MAGIC:
        raise pickle.UnpicklingError("not a file of torch.save")
    total = 0
    for _ in range(LEGACY_PICKLES - 1):
        total = sum(claimed for _, claimed in _storages(file))
        if total > size:
            raise UnsafeError(f"its storages claim {total:,} bytes; the file has {size:,}")


def _storages(file: Any) -> Iterator[tuple[str, int]]:
    """Key and claimed bytes of each storage that the next pickle of a file names.

    Raises:
        Exception: any, of what is no pickle.
    """
    look = _Look(file)
    look.load()
    yield from look.storages


class _Nothing:
    """Takes the place of whatever a pickle makes: it takes everything, and is nothing."""

    def __init__(self, *_: Any, **__: Any) -> None: ...
    def __setstate__(self, state: Any) -> None: ...
    def __setitem__(self, key: Any, value: Any) -> None: ...
    def append(self, value: Any) -> None:
        """As a list does."""

    def extend(self, values: Any) -> None:
        """As a list does."""

    def add(self, value: Any) -> None:
        """As a set does."""


class _Look(pickle._Unpickler):
    """Goes through a pickle and makes nothing, but notes the storages that it names. The unpickler written in Python:
    the one in C takes memory for any place in its memo that a pickle names.
    """

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: list[tuple[str, int]] = []

    def find_class(self, module: str, name: str) -> Any:
        """A class of nothing, which still has its name."""
        return type(name, (_Nothing,), {})

    def persistent_load(self, pid: Any) -> Any:
        """Note a storage: ("storage", class, key, place, number of elements)."""
        kind, stored, key, _, count = pid[:5]
        if kind not in ("storage", b"storage") or not isinstance(count, int) or count < 0:
            raise UnsafeError("names something else than a storage")
        self.storages.append((str(key), count * STORAGE_BYTES.get(getattr(stored, "__name__", ""), 1)))
        return _Nothing()
