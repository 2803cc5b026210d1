"""The tensors of a checkpoint by torch's distributed checkpointing: each process writes its part, and any number of
processes reads them again.

__<process>_<n>.distcp  tensors, or parts of them
.metadata               which part of which tensor lies where
rest.pt                 all that is no tensor by a name, and random states

torch reads `.metadata` as a pickle, which can run code. Here it may hold the descriptions of tensors only, and files of
the same folder only.
"""

import io
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_saver import save

from pipeline.base import distributed
from pipeline.base.outside import read_bytes
from pipeline.disk.files import sha256_file, sync_file
from pipeline.distillation import Distillation

TENSORS_FILE, REST = ".metadata", "rest.pt"
ADAMS_STEP = "step"
"""What AdamW calls the number of its steps, the one state that is not of its parameter's shape."""
MOST_METADATA_BYTES = 1 << 28
"""256 MiB. Our choice: a thousand tensors in a thousand processes take less."""
KNOWN = {
    "torch.distributed.checkpoint.metadata": (
        "Metadata",
        "TensorStorageMetadata",
        "TensorProperties",
        "ChunkStorageMetadata",
        "MetadataIndex",
        "StorageMeta",
        "_MEM_FORMAT_ENCODING",
    ),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.serialization": ("_get_layout",),
    "torch": ("Size",),
    "pathlib": ("PosixPath", "WindowsPath"),
    "pathlib._local": ("PosixPath", "WindowsPath"),
}
"""What a description of tensors is made of, by module."""

Like = Callable[[str, torch.Size, torch.dtype], Tensor]
"""Gives a tensor to read into, by the name, shape and type of one of a checkpoint."""


def tensors_and_rest(content: Mapping[Any, Any], prefix: str = "") -> tuple[dict[str, Tensor], dict[Any, Any]]:
    """Split nested dictionaries into tensors, named by the keys that lead to them (`student/norm.weight`), and the same
    dictionaries without them.
    """
    tensors: dict[str, Tensor] = {}
    rest: dict[Any, Any] = {}
    for key, value in content.items():
        if isinstance(value, Tensor):
            tensors[f"{prefix}{key}"] = value
        elif isinstance(value, Mapping):
            inner, rest[key] = tensors_and_rest(value, f"{prefix}{key}/")
            tensors |= inner
        else:
            rest[key] = value
    return tensors, rest


def put_back(rest: dict[Any, Any], tensors: Mapping[str, Tensor]) -> dict[Any, Any]:
    """The inverse of `tensors_and_rest`; changes `rest`.

    Raises:
        KeyError: a name leads nowhere.
    """
    for name, value in tensors.items():
        *path, last = name.split("/")
        place = rest
        for word in path:
            place = place[word] if word in place else place[int(word)]  # the optimiser numbers its parameters
        place[last] = value
    return rest


def write_parts(folder: Path, content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Write a checkpoint into `folder`, which the first process has made; all processes must call this.

    Returns the size and SHA-256 of every file, by name, in every process.

    Raises:
        OSError: it cannot be written.
    """
    tensors, rest = tensors_and_rest(content)
    try:
        save(tensors, storage_writer=FileSystemWriter(folder, sync_files=True))
    except CheckpointException as error:
        first, _ = next(iter(error.failures.values()))
        raise first if isinstance(first, OSError) else OSError(str(first)) from error
    names = [path.name for path in folder.glob(f"__{distributed.rank()}_*")]
    if distributed.is_leader():
        with open(folder / REST, "xb") as f:
            torch.save(rest, f)
            f.flush()
            sync_file(f.fileno())
        names += [TENSORS_FILE, REST]
    mine = {n: {"bytes": (folder / n).stat().st_size, "sha256": sha256_file(folder / n)} for n in sorted(names)}
    return {name: facts for files in distributed.gather(mine) for name, facts in files.items()}


def read_parts(folder: Path, like: Like | None = None, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read a checkpoint, whose files have been compared with their hashes: the tensors that `like` gives, of split ones
    this process's parts; by default whole ones on the CPU. Keys in `without` are left out.

    Each process reads by itself, so that one alone can.

    Raises:
        OSError, ValueError, ...: it is damaged.
    """
    reader = _Reader(folder)
    metadata = reader.read_metadata()
    rest: dict[str, Any] = torch.load(folder / REST, map_location="cpu", weights_only=True)
    rest = {key: value for key, value in rest.items() if key not in without}
    tensors = {
        name: (like or _whole)(name, facts.size, facts.properties.dtype)
        for name, facts in metadata.state_dict_metadata.items()
        if name.split("/")[0] not in without and isinstance(facts, TensorStorageMetadata)
    }
    _read_alone(tensors, reader, metadata)
    return put_back(rest, tensors)


def _read_alone(tensors: dict[str, Tensor], reader: FileSystemReader, metadata: Metadata) -> None:
    """Read into `tensors` what each of them has here: torch's `load`, without the other processes."""
    planner = DefaultLoadPlanner()
    planner.set_up_planner(tensors, metadata, is_coordinator=True)
    reader.set_up_storage_reader(metadata, is_coordinator=True)
    (plan,) = planner.create_global_plan([planner.create_local_plan()])
    reader.read_data(planner.finish_plan(plan), planner).wait()


def _whole(name: str, size: torch.Size, dtype: torch.dtype) -> Tensor:
    return torch.empty(size, dtype=dtype)


def like_run(distillation: Distillation, optimizer: torch.optim.Optimizer) -> Like:
    """Tensors as a run's own: weights, statistics and the optimiser's state, placed and split as its parameters."""
    live, _ = tensors_and_rest(distillation.state())
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def like(name: str, size: torch.Size, dtype: torch.dtype) -> Tensor:
        if name in live:
            return torch.empty_like(live[name])
        words = name.split("/")
        if words[:2] == ["optimizer", "state"] and words[-1] != ADAMS_STEP:
            return torch.empty_like(parameters[int(words[2])])
        return torch.empty(size, dtype=dtype)

    return like


class _Reader(FileSystemReader):
    """torch's reader of a folder, with a description of tensors that runs no code and names no other folder."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Read `.metadata`.

        Raises:
            OSError, ValueError, UnpicklingError: it is damaged.
        """
        metadata = _Unpickler(io.BytesIO(read_bytes(Path(self.path, TENSORS_FILE), MOST_METADATA_BYTES))).load()
        if not isinstance(metadata, Metadata):
            raise ValueError("no description of tensors")
        for name, facts in metadata.state_dict_metadata.items():
            if not isinstance(facts, TensorStorageMetadata):
                raise ValueError(f"{name} is no tensor")
        for place in metadata.storage_data.values():
            if Path(str(place.relative_path)).name != str(place.relative_path):
                raise ValueError(f"{place.relative_path} lies elsewhere")
        return metadata


class _Unpickler(pickle.Unpickler):
    """Makes what `KNOWN` lists, and torch's number types."""

    def find_class(self, module: str, name: str) -> Any:
        if name in KNOWN.get(module, ()) or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a description of tensors")
