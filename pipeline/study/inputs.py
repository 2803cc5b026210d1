"""What the files behind options hold, for the keys of results that a study keeps.

An option names a file or folder by its path, and another one may lie there later. Weights are told by their bytes, and
so are tables; images, features and stores, which are many files, by the size and time of each. Left out: slides of a
store without pixels, whose identity its plan has.
"""

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.base.errors import ConfigError, ManifestError
from pipeline.config.model_names import FOLDER_PREFIX, WEIGHTS_WORDS, is_run, split_choice, split_folder, split_model
from pipeline.disk.file_names import file_named
from pipeline.disk.files import sha256_file, sha256_json
from pipeline.disk.linked_folders import walk_once
from pipeline.disk.tables import read_table

MODEL_SUFFIXES = (".json", ".safetensors", ".bin", ".pt", ".pth")
"""Ends of the names of files that models are built from; other files in a model's folder change no embedding."""
STARTS_OF_PATHS = ("images_root", "slides_root")
"""Options that name the folder that paths in a table or plan start from, and no input itself."""
LISTED = "path"
"""Column of a table that names files."""

State = tuple[str, int, int] | tuple[str]
"""A file's path, size in bytes and time of the last change in ns; the path alone if it is not there."""


def run_inputs(student: str, weights: str) -> dict[str, str]:
    """Hashes of the files that a run's options `--student` and `--weights` name, by option; empty where they name none.

    Raises:
        ConfigError: one is gone or cannot be read.
    """
    inputs: dict[str, str] = {}
    if student.startswith(FOLDER_PREFIX):
        inputs["student"] = model_content(Path(student.removeprefix(FOLDER_PREFIX)))
    if weights not in WEIGHTS_WORDS:
        inputs["weights"] = model_content(Path(weights))
    return inputs


def model_content(path: Path) -> str:
    """Hex SHA-256 of a file of weights, or of the files of a model's folder; of a run, its student's.

    Raises:
        ConfigError: it is gone or cannot be read.
    """
    path, _ = split_choice(path)
    try:
        if not path.is_dir():
            return _hash_of(path)
        folder = path / "student" if is_run(path) else path
        files = sorted(file for file in folder.iterdir() if file.suffix in MODEL_SUFFIXES and file.is_file())
        return sha256_json({file.name: _hash_of(file) for file in files})
    except OSError as error:
        raise _unreadable(path, error) from None


def benchmark_inputs(values: Mapping[str, Any]) -> dict[str, str]:
    """Hashes of what the options of `g2l evaluate` name, by option and path; words that name nothing are not among
    them.

    Args:
        values: options as they are recorded, with absolute paths.

    Raises:
        ConfigError: a table or folder is gone or cannot be read.
    """
    root = values.get("images_root")
    inputs: dict[str, str] = {}
    for name, value in values.items():
        if name in STARTS_OF_PATHS:
            continue
        for text in value if isinstance(value, list) else [value]:
            if name == "models":
                inputs |= {f"{name} {path}": model_content(path) for path in _files_of_model(text)}
            elif isinstance(text, str):
                path = split_folder(text)[1] if isinstance(value, list) else Path(text)
                if path.is_absolute():
                    inputs[f"{name} {path}"] = _data_content(path, Path(root) if root else path.parent)
    return inputs


def _files_of_model(text: str) -> list[Path]:
    """The folder and the file of weights in a model's name, as far as it names some."""
    name = split_model(text)
    weights = [Path(name.weights)] if name.weights and name.weights not in WEIGHTS_WORDS else []
    return [*([name.folder] if name.folder.is_dir() else []), *weights]


def _data_content(path: Path, root: Path) -> str:
    """Hex SHA-256 of a table and the states of the files that it lists, which start from `root`; or of the states of
    all files below a folder.

    Raises:
        ConfigError: it is gone or cannot be read.
    """
    try:
        if path.is_dir():
            return sha256_json(
                sorted(_state(folder / name, path) for folder, files in walk_once(path) for name in files)
            )
        return sha256_json([_hash_of(path), [_state(file, root) for file in _listed_files(path, root)]])
    except OSError as error:
        raise _unreadable(path, error) from None


def _listed_files(table: Path, root: Path) -> list[Path]:
    """The files that a table lists; none if it has no such column, or is damaged, which its benchmark tells."""
    try:
        records, _ = read_table(table, (LISTED,), ",")
    except ManifestError:
        return []
    return sorted({file_named(root / cells[LISTED]) for _, cells in records if cells.get(LISTED)})


def _state(file: Path, root: Path) -> State:
    """The state of one file, whose path starts from `root`."""
    name = os.path.relpath(file, root)
    try:
        stat = file.stat()
    except (OSError, ValueError):
        return (name,)
    return name, stat.st_size, stat.st_mtime_ns


def _hash_of(file: Path) -> str:
    """Hex SHA-256 of a regular file, computed once for as long as it stays as it is.

    Raises:
        OSError: it is no regular file, or cannot be read.
    """
    if file.exists() and not file.is_file():
        raise OSError(0, "it is no regular file")
    stat = file.stat()
    return _hash_in_state(file, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@cache
def _hash_in_state(file: Path, size: int, changed_ns: int, replaced_ns: int) -> str:
    """Hex SHA-256 of a file of this size and these times of change."""
    return sha256_file(file)


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"{path}: {error.strerror or error}. A study tells its results by what this holds. Correct the option, or put "
        "it back"
    )
