"""Parse the names of models and folders that users type: `[LABEL=]ENCODER[@WEIGHTS]` and `[LABEL=]DIR`.

Folder names may contain "@" and "=" (`/home/user@domain/run`). A name that exists on disk is used as it is; otherwise
the split with the shortest valid WEIGHTS wins.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import ConfigError
from pipeline.disk.file_names import files_named

HUB_PREFIX, FOLDER_PREFIX = "hf-hub:", "local-dir:"
"""What an encoder's name begins with that is a page of the hub, or a folder."""
PRETRAINED, SCRATCH = "pretrained", "scratch"
"""Weights that are not a file: an encoder's published weights, and random ones."""
WEIGHTS_WORDS = ("before", "after", "teacher", PRETRAINED, SCRATCH)
"""Words that may follow the "@" in place of a file or folder of weights."""
RUN_FILE = "run.json"
"""The record of a run, which marks its folder."""
MODEL_FILES = (RUN_FILE, "config.json")
"""Files that mark a run and a model's folder."""
CHOICE = "::"
"""Separates a file of weights from the name of a set in it."""
LABELLED = re.compile(r"^(?P<label>[^=/@:]+)=(?P<rest>.+)$", re.DOTALL)


@dataclass(frozen=True)
class ModelName:
    """A model's name in parts; "" for a missing part."""

    label: str
    encoder: str
    weights: str

    @property
    def folder(self) -> Path:
        """The encoder read as a folder, which need not exist."""
        return Path(self.encoder.removeprefix(FOLDER_PREFIX))


def split_model(text: str) -> ModelName:
    """Split `[LABEL=]ENCODER[@WEIGHTS]` into label, encoder and weights.

    Recognises existing runs and model folders of any name: tries the whole text first, then the part before an "@", and
    last removes a label.

    Raises:
        ConfigError: a part is missing, as from an unset shell variable.
    """
    match = LABELLED.match(text)
    _require_named(text)
    whole = ModelName("", *_split_weights(text))
    if match is None or _is_model(whole.encoder):
        return whole
    return ModelName(match["label"], *_split_weights(match["rest"]))


def split_folder(text: str) -> tuple[str, Path]:
    """Split `[LABEL=]DIR` into label and folder; the label is "" if there is none.

    Raises:
        ConfigError: no folder follows the label.
    """
    match = LABELLED.match(text)
    _require_named(text)
    if match is None or os.path.isdir(text):
        return "", Path(text)
    return match["label"], Path(match["rest"])


def absolute_model(text: str) -> str:
    """The model's name with absolute paths for existing files and folders, for records."""
    name = split_model(text)
    encoder, weights = name.encoder, name.weights
    if name.folder.exists() and (_is_model(encoder) or encoder.startswith(FOLDER_PREFIX)):
        prefix = FOLDER_PREFIX if encoder.startswith(FOLDER_PREFIX) else ""
        encoder = f"{prefix}{name.folder.absolute()}"
    weights = absolute_weights(weights) if weights else ""
    return f"{name.label}=" * bool(name.label) + encoder + f"@{weights}" * bool(weights)


def as_on_disk(text: str) -> str:
    """A path, or a model's or folder's name, with each existing path in it as the disk spells its accents.

    A name that exists as it is typed stays, and so does one that is not found, or could be several.
    """
    if text.isascii():
        return text
    label, folder = LABELLED.match(text), re.compile(f"(?:[^=/@:]+=)?{FOLDER_PREFIX}").match(text)
    starts = [0, *([label.start("rest")] if label else []), *([folder.end()] if folder else [])]
    for enough in (all, any):  # "DIR@FILE" may be two paths, or one path and another word
        for start in dict.fromkeys(starts):
            for parts in ((text[start:],), *_splits(text[start:])):
                names = [_file_as_on_disk(part) for part in parts]
                if enough(name is not None for name in names):
                    spelled = (part if name is None else name for part, name in zip(parts, names, strict=True))
                    return text[:start] + "@".join(spelled)
    return text


def _file_as_on_disk(text: str) -> str | None:
    """The path of the one file or folder that `text` may mean, with the name of a set after it; `None` if none."""
    file, choice = split_choice(Path(text))
    found = files_named(file)
    if len(found) != 1:
        return None
    return text if found == [file] else f"{found[0]}{CHOICE}{choice}" if choice else str(found[0])


def absolute_weights(text: str) -> str:
    """The absolute path of weights; one of `WEIGHTS_WORDS` stays as it is."""
    return text if text in WEIGHTS_WORDS else str(Path(text).absolute())


def absolute_folder(text: str) -> str:
    """`[LABEL=]DIR` with the absolute path."""
    label, folder = split_folder(text)
    return f"{label}=" * bool(label) + str(folder.absolute())


def recorded_path(text: str, record: Path, out: str = "") -> Path:
    """Resolve a path in a record. Records of version 0.1.0 hold relative paths as typed: try the working folder, the
    folder from which the recorded output `out` was typed, then the record's folder and those above it.

    Returns the first path that exists, else the path unchanged.
    """
    path = Path(text)
    if path.is_absolute():
        return path
    folder = Path(os.path.realpath(record)).parent
    above = [folder, *folder.parents]
    typed_in = [base for base in above if out and os.path.realpath(base / out) == str(folder)]
    existing = (base / path for base in (Path(), *typed_in, *above[:-1]) if (base / path).exists())
    return next(existing, path)


def recorded_encoder(name: str, record: Path, out: str = "") -> str:
    """An encoder's name in a record; of a folder that was typed as a relative path, with the place it has now, as
    `recorded_path` finds it.
    """
    if not name.startswith(FOLDER_PREFIX):
        return name
    return f"{FOLDER_PREFIX}{recorded_path(name.removeprefix(FOLDER_PREFIX), record, out)}"


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    return (folder / RUN_FILE).is_file()


def _is_model(encoder: str) -> bool:
    """Whether a run or a model's folder of that name exists."""
    folder = Path(encoder.removeprefix(FOLDER_PREFIX))
    return any((folder / name).is_file() for name in MODEL_FILES)


def _require_named(text: str) -> None:
    """Check that something follows a label.

    Raises:
        ConfigError: nothing does, as from an unset shell variable.
    """
    if text.endswith("=") and LABELLED.match(f"{text}x") and not Path(text).exists():
        raise ConfigError(f"{text}: nothing follows the =. Name what {text[:-1]} stands for")


def _split_weights(text: str) -> tuple[str, str]:
    """Split `ENCODER[@WEIGHTS]` into encoder and weights.

    Raises:
        ConfigError: one of the two is missing.
    """
    if _is_model(text) or "@" not in text:
        return text, ""
    if text.startswith("@"):
        raise ConfigError(f"{text}: no encoder before the @. Write ENCODER@WEIGHTS")
    if text.endswith("@"):
        raise ConfigError(f"{text}: nothing follows the @. Name weights, or leave out the @")
    splits = list(_splits(text))
    for encoder, weights in splits:
        if _is_model(encoder) or weights in WEIGHTS_WORDS or Path(weights).exists():
            return encoder, weights
    first = text.partition("@")[0]
    if "/" in first and not first.startswith(HUB_PREFIX):  # a path that does not exist: keep it whole
        return text, ""
    return splits[-1] if not first.startswith(HUB_PREFIX) else splits[0]


def _splits(text: str) -> Iterator[tuple[str, str]]:
    """All splits of a text at an "@" into two non-empty parts, the shortest end first."""
    at = len(text)
    while (at := text.rfind("@", 0, at)) > 0:
        if at + 1 < len(text):
            yield text[:at], text[at + 1 :]


def split_choice(weights: Path) -> tuple[Path, str]:
    """Split `FILE::SET` into a path of weights and the name of the set in it; "" if none is named.

    An existing file whose name contains "::" is kept whole.

    Raises:
        ConfigError: no name follows the "::".
    """
    text = str(weights)
    if CHOICE not in text or weights.exists():
        return weights, ""
    file, _, name = text.rpartition(CHOICE)
    if not name:
        raise ConfigError(f"{text}: nothing follows the {CHOICE}. Name a set of weights, or leave out the {CHOICE}")
    return Path(file), name
