"""Check PyTorch and NumPy files from outside before loading them.

`torch.load` trusts the storage sizes that a file claims and reads past its end. Both formats are zip archives, whose
entries may inflate a thousandfold. So an unpickler that creates nothing first checks every size against the file's
bytes. Only tensors and arrays of numbers are loaded, and no code is run (`weights_only`, no object arrays). Settings
that training puts beside its tensors (`INERT`) are passed over. For use inside `outside.reading`. Left out:
safetensors, whose reader checks its header.
"""

import _compat_pickle
import io
import math
import pickle
import sys
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.outside import MOST_SHARE, SMALL_BYTES, UnsafeError, require_claim, require_regular, require_room

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_PICKLES = 4
"""Pickles before the storage keys in files of torch before 1.6: magic number, version, system, content."""
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""Content of the first pickle (`torch.serialization.MAGIC_NUMBER`)."""
STORAGE_BYTES = {
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
    "ComplexDoubleStorage": 16,
    "ComplexFloatStorage": 8,
    "UntypedStorage": 1,
}
"""Bytes per number by storage class, as the pickle names it; other classes have at least 1."""


class PassedOver:
    """Stands in for a value beside the tensors that is not read. It takes any state, and keeps and runs nothing."""

    def __init__(self, *_: Any) -> None: ...
    def __setstate__(self, state: Any) -> None: ...


class PlainDict:
    """Stands in for a class of dictionaries: the object that it makes is a plain one."""

    def __new__(cls, *_: Any) -> Any:
        return OrderedDict()  # the one that torch fills whether or not it was pickled with attributes


_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
_OF_OMEGACONF = (
    *("dictconfig.DictConfig", "listconfig.ListConfig", "base.ContainerMetadata", "base.Metadata", "base.UnionNode"),
    *(f"nodes.{kind}Node" for kind in ("Any", "String", "Integer", "Float", "Boolean", "Bytes", "Path", "Enum")),
)
INERT: dict[str, type[PassedOver] | type[PlainDict]] = {
    **dict.fromkeys(("argparse.Namespace", "types.SimpleNamespace"), PassedOver),
    **{
        f"numpy.{home}.multiarray.{name}": PassedOver
        for home in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    },
    **dict.fromkeys(("numpy.dtype", "numpy.ndarray"), PassedOver),
    **{f"pathlib.{inner}{name}": PassedOver for inner in ("", "_local.") for name in _PATHS},
    **{f"datetime.{name}": PassedOver for name in ("datetime", "date", "time", "timedelta", "timezone")},
    **{f"builtins.{name}": PassedOver for name in ("dict", "list", "tuple", "int", "float", "str", "bool")},
    **dict.fromkeys(("collections.defaultdict", "easydict.EasyDict", "yacs.config.CfgNode"), PlainDict),
    **{f"omegaconf.{name}": PassedOver for name in _OF_OMEGACONF},
    "typing.Any": PassedOver,
    "pytorch_lightning.utilities.parsing.AttributeDict": PlainDict,
    "lightning.pytorch.utilities.parsing.AttributeDict": PlainDict,
    "lightning_fabric.utilities.data.AttributeDict": PlainDict,
    "lightning.fabric.utilities.data.AttributeDict": PlainDict,
}
"""Classes of settings that training writes beside its tensors, and what stands in for each; their own code is never
called. `builtins` are here as what `defaultdict` makes, `typing.Any` as what omegaconf names. Of timm's train.py
(`args`), PyTorch Lightning's `hyper_parameters`, and configurations of Hydra's, Swin's and MMDetection's kind. Our
choice; any other class is refused by name.
"""
OF_TENSORS = frozenset(("collections.OrderedDict", "collections.Counter", "_codecs.encode")) | {
    f"builtins.{name}" for name in ("set", "complex")
}
"""What torch itself loads in files of tensors, beside its own names, which it allows or refuses one by one. Left out is
`bytearray`, which a file of a few bytes can ask to be of any size.
"""
MODULES = "torch.nn.modules."
"""How the names of torch's own modules begin, which are code."""
_loading = threading.Lock()
_num_loading = 0


class ForeignClassError(pickle.UnpicklingError):
    """A file holds objects of classes that are neither tensors nor plain values.

    Attributes:
        names: of the classes, as the file names them.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"holds objects of {', '.join(names)}")
        self.names = tuple(names)


PARSING = threading.Lock() if sys.version_info < (3, 12) else nullcontext()
"""Held while NumPy parses a header, which is a Python literal: in Python 3.11 two threads that parse at once may get a
SystemError, "AST constructor recursion depth mismatch" (github.com/python/cpython/issues/106905).
"""


def load_tensors(path: Path, share: float = MOST_SHARE) -> Any:
    """Load a PyTorch file of tensors and plain containers to the CPU.

    Args:
        share: share of the free memory that it may use; 1 for weights, which are not copied.

    Raises:
        ForeignClassError: it holds objects of a class that is neither known as harmless (`INERT`) nor torch's.
        Exception: any kind: the file is damaged, claims more than it holds, or holds other objects.
    """
    size = require_regular(path)
    require_room(size, "the file", share)
    with open(path, "rb") as f:
        if f.read(len(ZIP_MAGIC)) == ZIP_MAGIC:
            names = _check_storages(path, share)
        else:
            f.seek(0)
            names = _check_legacy(f, size)
    if foreign := [name for name in names if name not in INERT and not _is_left_to_torch(name)]:
        raise ForeignClassError(foreign)
    with _inert_allowed() if INERT.keys() & names.keys() else nullcontext():
        return torch.load(path, map_location="cpu", weights_only=True)


def _is_left_to_torch(name: str) -> bool:
    """Whether torch decides on a class or function: its own for tensors, or one that its user has registered there."""
    if name in OF_TENSORS or name.startswith("torch."):
        return not name.startswith(MODULES)
    registered = torch.serialization.get_safe_globals()
    return name in {e[1] if isinstance(e, tuple) else f"{e.__module__}.{e.__qualname__}" for e in registered}


@contextmanager
def _inert_allowed() -> Iterator[None]:
    """Within the block `torch.load` takes stand-ins for the classes of `INERT`; after the last of all blocks that
    threads are in, what torch takes is as it was.
    """
    global _num_loading
    stand_ins: list[Any] = [(kind, name) for name, kind in INERT.items()]
    with _loading:
        _num_loading += 1
        torch.serialization.add_safe_globals(stand_ins)
    try:
        yield
    finally:
        with _loading:
            _num_loading -= 1
            if not _num_loading:
                with torch.serialization.safe_globals(stand_ins):  # which takes them away at its end
                    pass


def as_array(tensor: torch.Tensor) -> NDArray[np.float32]:
    """Convert a tensor of numbers to a float32 array.

    Raises:
        UnsafeError: its shape claims more than its storage or memory holds (a view may repeat one number many times).
    """
    stored = tensor.untyped_storage().nbytes()
    if tensor.numel() * tensor.element_size() > stored:
        raise UnsafeError(f"claims the shape {tuple(tensor.shape)}, but has {stored:,} bytes")
    require_room(4 * tensor.numel(), "the tensor")
    values: NDArray[np.float32] = tensor.detach().float().numpy()  # NumPy has no bfloat16
    return values


def read_npz(path: Path, names: Sequence[str]) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Read the arrays `names` of a NumPy archive, as far as it has them; also returns the names of all its arrays.

    Raises:
        Exception: any kind: the file is damaged, claims more than it holds, or holds arrays of objects.
    """
    require_regular(path)
    with open(path, "rb") as f, zipfile.ZipFile(f) as archive:
        sizes = _entry_sizes(archive)
        arrays = {}
        for name in names:
            if f"{name}.npy" in sizes:
                with archive.open(f"{name}.npy") as entry, PARSING:
                    _check_header(entry, sizes[f"{name}.npy"], name)
                with archive.open(f"{name}.npy") as entry, PARSING:
                    arrays[name] = np.lib.format.read_array(entry, allow_pickle=False)
        return arrays, [name.removesuffix(".npy") for name in sizes]


def _entry_sizes(archive: zipfile.ZipFile, share: float = MOST_SHARE) -> dict[str, int]:
    """Uncompressed bytes of an archive's entries by name, checked against the stored bytes.

    Raises:
        UnsafeError: an entry claims more than it can expand to, a name occurs twice, or the sum does not fit into
            memory.
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
    """Check that an array's header claims no more than its entry holds.

    Raises:
        UnsafeError: it claims more, or is of objects.
        ValueError: it is not a header.
    """
    major, _ = np.lib.format.read_magic(entry)
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(entry)
    if dtype.hasobject:
        raise UnsafeError(f"{name} holds objects, not numbers")
    if math.prod(shape) * dtype.itemsize > size:
        raise UnsafeError(f"{name} claims the shape {shape}, but has {size:,} bytes")


def _check_storages(path: Path, share: float) -> dict[str, None]:
    """Check that the storages of a torch zip archive hold the bytes that its pickle claims; returns the classes and
    functions that it names.

    Raises:
        UnsafeError: they do not, or the archive claims more than it can hold.
        Exception: any kind: the archive is damaged.
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
    scan = _scanned(io.BytesIO(content))
    for key, claimed in scan.storages:
        held = sizes.get(f"{folder}data/{key}")
        if held is None or claimed > held:
            raise UnsafeError(f"storage {key} claims {claimed:,} bytes and has {held or 0:,}")
    return scan.names


def _check_legacy(file: Any, size: int) -> dict[str, None]:
    """Check that the storages of a file of torch before 1.6 fit into it; returns the classes and functions that it
    names.

    Raises:
        UnsafeError: they do not.
        Exception: any kind: the file is damaged.
    """
    if _StorageScan(file).load() != LEGACY_MAGIC:
        raise pickle.UnpicklingError("not a file of torch.save")
    names: dict[str, None] = {}
    for _ in range(LEGACY_PICKLES - 1):
        scan = _scanned(file)
        names |= scan.names
        total = sum(claimed for _, claimed in scan.storages)
        if total > size:
            raise UnsafeError(f"its storages claim {total:,} bytes; the file has {size:,}")
    return names


def _scanned(file: Any) -> "_StorageScan":
    """What the next pickle of a file names.

    Raises:
        Exception: any kind: it is not a pickle.
    """
    scan = _StorageScan(file)
    scan.load()
    return scan


class _Nothing:
    """Stands in for any object of a pickle: accepts everything and keeps nothing."""

    def __init__(self, *_: Any, **__: Any) -> None: ...
    def __call__(self, *_: Any) -> "_Nothing":
        return self

    def __setstate__(self, state: Any) -> None: ...
    def __setitem__(self, key: Any, value: Any) -> None: ...
    def append(self, value: Any) -> None:
        """As a list does."""

    def extend(self, values: Any) -> None:
        """As a list does."""

    def add(self, value: Any) -> None:
        """As a set does."""


class _StorageScan(pickle._Unpickler):
    """Walks a pickle without creating objects and collects the storages, classes and functions it names. Uses the
    unpickler written in Python: the C one allocates memory for any memo index that a pickle names.
    """

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: list[tuple[str, int]] = []
        self.names: dict[str, None] = {}

    def find_class(self, module: str, name: str) -> Any:
        """An empty class of that name."""
        module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
        self.names[f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}"] = None
        return type(name, (_Nothing,), {})

    def persistent_load(self, pid: Any) -> Any:
        """Record a storage: ("storage", class, key, location, number of elements). Files before torch 1.6 also name
        classes of modules, ("module", class, source, text), which `find_class` has recorded.
        """
        if pid[0] in ("module", b"module"):
            return pid[1]
        kind, stored, key, _, count = pid[:5]
        if kind not in ("storage", b"storage") or not isinstance(count, int) or count < 0:
            raise UnsafeError("names something other than a storage")
        self.storages.append((str(key), count * STORAGE_BYTES.get(getattr(stored, "__name__", ""), 1)))
        return _Nothing()
