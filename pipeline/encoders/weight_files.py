"""Reading a file of weights from outside: one boundary, which bounds what is read and turns every failure into an
`EncoderError` that names the file.

safetensors as it is; what `torch.save` wrote through `tensor_files`, so that no code of the file runs. Of a training
checkpoint the tensors are read, not the settings beside them (`args`). Left out:
which of several sets in a file is the encoder (`weight_sets`), and TorchScript archives.
"""

import stat
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from pipeline.base.errors import EncoderError, first_line, raise_if_limit
from pipeline.base.outside import UnsafeError
from pipeline.disk.tensor_files import ForeignClassError, load_tensors
from pipeline.encoders.forms.foreign import LFS_MARK, way_from_file

LARGEST_FILE_BYTES = 64 << 30
"""Size above which a file of weights is not opened. Our choice: a ViT-g in training (student, teacher and both moments
of AdamW, in float32) takes 18 GB.
"""
LARGEST_PICKLE_BYTES = 256 << 20
"""Size of the description of tensors in a file of `torch.save`, above which it is not read. Our choice: a thousand
bytes for each of 250,000 tensors.
"""
MOST_RECORDS = 250_000
"""Records of a file of `torch.save`, one a tensor. Our choice: the largest encoders have 2,000 tensors."""
MOST_CLASSES = 3
"""Classes that a refusal names. Our choice: the first ones tell whose code wrote the file."""
ZIP_MARK = b"PK\x03\x04"
RUN_CODE = frozenset(
    (
        *("__builtin__", "_pickle", "asyncio", "atexit", "bdb", "builtins", "cProfile", "code", "codeop"),
        *("commands", "ctypes", "functools", "http", "importlib", "inspect", "io", "marshal", "multiprocessing"),
        *("nt", "operator", "os", "pdb", "pickle", "pkgutil", "posix", "profile", "pty"),
        *("runpy", "shutil", "signal", "socket", "subprocess", "sys", "tempfile", "threading", "timeit"),
        *("trace", "types", "urllib", "webbrowser", "zipimport"),
    )
)
"""Python's modules with which a pickle runs code, or reaches files or a network. Our choice, for advice only: a file
that names anything unknown is refused in any case."""
CRC_BLOCK_BYTES = 1 << 22
DEEPEST = 4
"""Dictionaries in dictionaries that are looked into: a checkpoint, its model, a part of that, and one to spare."""


def read_weight_file(path: Path) -> dict[str, Any]:
    """All that a file of weights holds: tensors by name, or such dictionaries in dictionaries.

    Raises:
        EncoderError: missing, no file, too large, damaged, or it holds something else than tensors and plain values.
    """
    check_weight_file(path)
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        content = load_tensors(path, share=1.0)
    except (UnsafeError, OSError, RuntimeError, EOFError, MemoryError, safetensors.SafetensorError) as error:
        raise_if_limit(error)
        raise EncoderError(f"{path}: unreadable weights ({first_line(error)}){way_from_file(path)}") from None
    except Exception as error:  # noqa: BLE001  (pickle's own errors for code, and any other for what is no pickle)
        raise EncoderError(
            f"{path}: not a PyTorch file of nothing but tensors, and so not loaded ({_not_tensors(error)})"
            f"{way_from_file(path) or _way_by_hand(path, error)}"
        ) from None
    if not isinstance(content, dict):
        raise EncoderError(f"{path}: not a state dict of tensors{way_from_file(path)}")
    limit = path.stat().st_size
    for name, tensor in tensors_of(content):
        if problem := _unusable(tensor, limit):
            raise EncoderError(f"{path}: {name} {problem}")
    return content


def _not_tensors(error: Exception) -> str:
    """What a file holds that is no tensor, as far as is known."""
    if not isinstance(error, ForeignClassError):
        return type(error).__name__
    more = len(error.names) - MOST_CLASSES
    return f"it holds {', '.join(error.names[:MOST_CLASSES])}{f' and {more} other classes' if more > 0 else ''}"


def _way_by_hand(path: Path, error: Exception) -> str:
    """The line that saves the weights of a file alone, where what it holds beside them is a training's own classes.
    Whoever is given a file that calls Python itself, or that is no file of weights, is not shown how to run it.
    """
    if not isinstance(error, ForeignClassError):
        return ". Is it a page or a part of a download? Fetch it again from its source"
    if calls := [name for name in error.names if name.split(".")[0] in RUN_CODE]:
        return f". No weights need {calls[0]}, which can run code: do not load it, and ask where it comes from"
    code = (
        f"import torch; c = torch.load({str(path)!r}, 'cpu', weights_only=False); "
        "torch.save(c['state_dict'], 'weights.pth')"
    )
    return (
        f'. Where you trust it, and its code is installed, save its state dict by itself: python -c "{code}" '
        "(or c['model'], as its training calls it; of a whole model c.state_dict())"
    )


def check_weight_file(path: Path) -> None:
    """Check, before anything is loaded, that a file of weights is a file, not too large, and whole as a ZIP archive.

    `torch.load` does not compare checksums: a flipped bit in a tensor would be taken as it is.

    Raises:
        EncoderError: it is not so.
    """
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise EncoderError(f"{path}: unreadable weights (not a file)")
        if facts.st_size > LARGEST_FILE_BYTES:
            raise EncoderError(f"{path}: {facts.st_size:,} bytes; no weights above {LARGEST_FILE_BYTES:,} are read")
        with open(path, "rb") as f:
            start = f.read(len(LFS_MARK))
        if start == LFS_MARK:
            raise EncoderError(f"{path}: a pointer of Git LFS in the place of the weights; `git lfs pull` fetches them")
        is_archive = start.startswith(ZIP_MARK)
        if is_archive and path.suffix != ".safetensors":
            _check_records(path, facts.st_size)
    except FileNotFoundError:
        raise EncoderError(f"{path}: no such weights") from None
    except EncoderError:
        raise
    except Exception as error:  # noqa: BLE001  (zipfile's errors for damaged archives are of many kinds)
        raise_if_limit(error)
        raise EncoderError(f"{path}: unreadable weights ({first_line(error)})") from None


def _check_records(path: Path, num_bytes: int) -> None:
    """What `torch.save` writes: records that are not compressed, no larger than the file, with fitting checksums."""
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        if len(records) > MOST_RECORDS:
            raise EncoderError(f"{path}: {len(records):,} records; no more than {MOST_RECORDS:,} are read")
        for record in records:
            pickle = record.filename.endswith(".pkl")
            if record.compress_type != zipfile.ZIP_STORED or record.file_size > num_bytes:
                raise EncoderError(f"{path}: {record.filename} is compressed, which torch.save never does; not read")
            if pickle and record.file_size > LARGEST_PICKLE_BYTES:
                raise EncoderError(
                    f"{path}: {record.filename} has {record.file_size:,} bytes; no more than "
                    f"{LARGEST_PICKLE_BYTES:,} are read"
                )
        if sum(record.file_size for record in records) > num_bytes:
            raise EncoderError(f"{path}: its records claim more bytes than the file has; not read")
        for record in records:
            try:
                with archive.open(record) as f:
                    while f.read(CRC_BLOCK_BYTES):
                        pass
            except zipfile.BadZipFile:
                raise EncoderError(
                    f"{path}: damaged: {record.filename} does not match its checksum. Copy the file again; where it "
                    "was written without checksums (torch.serialization.set_crc32_options), save it again with them"
                ) from None


def tensors_of(content: dict[Any, Any], depth: int = DEEPEST, before: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in dictionaries of dictionaries, with its name; a dictionary that stands in several places once."""
    seen: set[int] = set()

    def walk(part: dict[Any, Any], left: int, before: str) -> Iterator[tuple[str, Tensor]]:
        if id(part) in seen:
            return
        seen.add(id(part))
        for key, value in part.items():
            name = f"{before}{key}"
            if isinstance(value, Tensor):
                yield name, value
            elif isinstance(value, dict) and left > 1:
                yield from walk(value, left - 1, f"{name}.")

    yield from walk(content, depth, before)


def _unusable(tensor: Tensor, limit: int) -> str:
    """What is wrong with a tensor of a file of `limit` bytes; "" if it can be worked with."""
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
        return f"is no plain tensor ({'quantised' if tensor.is_quantized else tensor.layout})"
    if tensor.numel() * tensor.element_size() > limit:  # one value in memory may be said to be many
        return f"claims {tensor.numel():,} values, more than the file holds; not read"
    return ""


PLAIN_TYPES = frozenset(
    {torch.float16, torch.bfloat16, torch.float32, torch.float64}
    | {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
)
"""Types of weights that torch converts, checks and compares; others (float8, complex) need code that knows them."""


def require_plain_types(weights: Mapping[str, Tensor], source: str) -> None:
    """Check the types of weights before they are converted or loaded.

    Raises:
        EncoderError: one is none of `PLAIN_TYPES`.
    """
    for name, value in weights.items():
        if value.dtype not in PLAIN_TYPES:
            raise EncoderError(
                f"{source}: {name} is of type {value.dtype}; weights that were quantised or converted to it are not "
                "loaded. Save them as float32 or float16"
            )
