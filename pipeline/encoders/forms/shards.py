"""Read weights that are spread over several files, by their index: every tensor that it names, and nothing else."""

from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.base.errors import EncoderError
from pipeline.encoders import weight_files
from pipeline.encoders.forms.index import WeightIndex, is_index, read_index
from pipeline.encoders.weight_files import check_weight_file, read_weight_file


def read_weights(path: Path) -> dict[str, Any]:
    """All that a file of weights holds, or the files of an index.

    Raises:
        EncoderError: missing, damaged, or it holds something else than tensors and plain values.
    """
    return read_shards(read_index(path)) if is_index(path) else read_weight_file(path)


def check_weights(path: Path) -> None:
    """Check, before anything is loaded, a file of weights or the files of an index.

    Raises:
        EncoderError: one is no file, too large or damaged.
    """
    for file in read_index(path).files if is_index(path) else [path]:
        check_weight_file(file)


def read_shards(index: WeightIndex) -> dict[str, Tensor]:
    """The tensors of all files of an index.

    Raises:
        EncoderError: a file is damaged, lacks a tensor that the index says it has, or has one that it does not say; or
            all together have another size.
    """
    num_bytes = sum(file.stat().st_size for file in index.files)
    if num_bytes > (most := weight_files.LARGEST_FILE_BYTES):
        raise EncoderError(f"{index.path}: {num_bytes:,} bytes; no weights above {most:,} are read")
    tensors: dict[str, Tensor] = {}
    for file, names in zip(index.files, index.names.values(), strict=True):
        content = read_weight_file(file)
        if lacking := [name for name in names if not isinstance(content.get(name), Tensor)]:
            raise EncoderError(
                f"{file}: {lacking[0]} is not in this file, in which {index.path.name} has it: the files are not of "
                "one download"
            )
        if further := sorted(map(str, content.keys() - set(names))):
            raise EncoderError(
                f"{file}: {further[0]} is not in {index.path.name}, or in another file: the files are not of one "
                "download"
            )
        tensors |= {name: content[name] for name in names}
    in_memory = sum(value.numel() * value.element_size() for value in tensors.values())
    if index.total_size not in (None, in_memory, num_bytes):
        raise EncoderError(
            f"{index.path}: its files hold {in_memory:,} bytes of tensors, it says {index.total_size:,}: the files are "
            "not of one download"
        )
    return tensors
