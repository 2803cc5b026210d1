"""The index of weights that are spread over several files: which tensor is in which file.

The hub's tools write it beside the files as `model.safetensors.index.json` or `pytorch_model.bin.index.json`: an
object with `weight_map`, from a tensor's name to a file's, and `metadata.total_size`, the bytes of all tensors
(huggingface_hub, serialization/_base.py; transformers, modeling_utils.py). Without torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base.errors import EncoderError
from pipeline.base.outside import read_json, reading

INDEX_ENDING = ".index.json"
INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
"""Names of an index in a folder, the one of safe files first."""
MOST_INDEX_BYTES = 16 << 20
"""Size of an index above which it is not read. Our choice: a hundred bytes for each of 160,000 tensors."""
SHARD_ENDINGS = (".safetensors", ".bin", ".pt", ".pth")


@dataclass(frozen=True)
class WeightIndex:
    """What an index says.

    Attributes:
        path: the index itself.
        names: names of the tensors in each file, in the index's order.
        total_size: bytes of all tensors; `None` where it does not say.
    """

    path: Path
    names: dict[str, list[str]]
    total_size: int | None

    @property
    def files(self) -> list[Path]:
        """The files, which lie beside the index."""
        return [self.path.parent / name for name in self.names]


def is_index(path: Path) -> bool:
    """Whether a path names an index, by its ending."""
    return path.name.endswith(INDEX_ENDING)


def index_in(folder: Path) -> Path | None:
    """The index in a folder; `None` if there is none."""
    return next((folder / name for name in INDEX_FILES if (folder / name).is_file()), None)


def read_index(path: Path) -> WeightIndex:
    """Read an index, and see that all its files are there before any of them is read.

    Raises:
        EncoderError: it is damaged, names a file outside its folder or one of another kind, or files are missing.
    """
    if not path.exists():
        raise EncoderError(f"{path}: no such weights")
    with reading(path, "not a readable index of weights", EncoderError):
        content = read_json(path, MOST_INDEX_BYTES)
    names: dict[str, list[str]] = {}
    for tensor, file in _map_of(path, content).items():
        names.setdefault(file, []).append(tensor)
    for file in names:
        _require_plain_name(path, file)
    index = WeightIndex(path, names, _total_of(path, content))
    if missing := [file.name for file in index.files if not file.exists()]:
        raise EncoderError(
            f"{path}: {len(missing)} of its {len(names)} files {'is' if len(missing) == 1 else 'are'} missing (the "
            f"first: {missing[0]}). Download all of them into its folder"
        )
    return index


def _map_of(path: Path, content: dict[str, Any]) -> dict[str, str]:
    """The index's map of names.

    Raises:
        EncoderError: it has none, or of another kind.
    """
    names = content.get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(file, str) for file in names.values()):
        raise EncoderError(f"{path}: not an index of weights (no weight_map of names of tensors to names of files)")
    return names


def _require_plain_name(path: Path, file: str) -> None:
    """See that a file lies beside the index.

    Raises:
        EncoderError: the name leads elsewhere, or is of no kind of file that holds weights.
    """
    if not file.endswith(SHARD_ENDINGS) or any(mark in file for mark in ("/", "\\", "\0")):
        raise EncoderError(
            f"{path}: it names the file {file[:80]!r}; an index names files in its own folder that end in "
            f"{', '.join(SHARD_ENDINGS)}"
        )


def _total_of(path: Path, content: dict[str, Any]) -> int | None:
    """The bytes that the index says all tensors have.

    Raises:
        EncoderError: it says something that is no number.
    """
    metadata = content.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    if total is None:
        return None
    if isinstance(total, bool) or not isinstance(total, int | float) or total != total // 1:
        raise EncoderError(f"{path}: its total_size is {total!r}, not a number of bytes")
    return int(total)
