"""Parse the names of models and folders that users type: `[LABEL=]ENCODER[@WEIGHTS]` and `[LABEL=]DIR`.

Folder names may contain "@" and "=" (`/home/user@domain/run`). A name that exists on disk is used as it is; otherwise
the split with the shortest valid WEIGHTS wins.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER_PREFIX = "local-dir:"
"""Stands before the folder of a model, as timm names it."""
PRETRAINED, SCRATCH = "pretrained", "scratch"
"""Weights that are not a file: an encoder's published weights, and random ones."""
WORDS = ("before", "after", "teacher", PRETRAINED, SCRATCH)
"""Words that may follow the "@" in place of a file or folder of weights."""
RUN_FILE = "run.json"
"""What a run started from; marks a folder as a run."""
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
    """
    match = LABELLED.match(text)
    whole = ModelName("", *_split_weights(text))
    if match is None or _is_model(whole.encoder):
        return whole
    return ModelName(match["label"], *_split_weights(match["rest"]))


def split_folder(text: str) -> tuple[str, Path]:
    """Split `[LABEL=]DIR` into label and folder; the label is "" if there is none."""
    match = LABELLED.match(text)
    if match is None or Path(text).is_dir():
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


def absolute_weights(text: str) -> str:
    """The absolute path of weights; one of `WORDS` stays as it is."""
    return text if text in WORDS else str(Path(text).absolute())


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
    folder = record.resolve().parent
    above = [folder, *folder.parents]
    typed_in = [base for base in above if out and (base / out).resolve() == folder]
    existing = (base / path for base in (Path(), *typed_in, *above[:-1]) if (base / path).exists())
    return next(existing, path)


def _is_model(encoder: str) -> bool:
    """Whether a run or a model's folder of that name exists."""
    folder = Path(encoder.removeprefix(FOLDER_PREFIX))
    return any((folder / name).is_file() for name in MODEL_FILES)


def _split_weights(text: str) -> tuple[str, str]:
    """Split `ENCODER[@WEIGHTS]` into encoder and weights."""
    if _is_model(text) or "@" not in text:
        return text, ""
    splits = list(_splits(text))
    for encoder, weights in splits:
        if _is_model(encoder) or weights in WORDS or Path(weights).exists():
            return encoder, weights
    first = text.partition("@")[0]
    if "/" in first and not first.startswith("hf-hub:"):  # a path that does not exist: keep it whole
        return text, ""
    return splits[-1] if not first.startswith("hf-hub:") else splits[0]


def _splits(text: str) -> Iterator[tuple[str, str]]:
    """All splits of a text at an "@" into two non-empty parts, the shortest end first."""
    at = len(text)
    while (at := text.rfind("@", 0, at)) > 0:
        if at + 1 < len(text):
            yield text[:at], text[at + 1 :]


def split_choice(weights: Path) -> tuple[Path, str]:
    """Split `FILE::SET` into a path of weights and the name of the set in it; "" if none is named.

    An existing file whose name contains "::" is kept whole.
    """
    text = str(weights)
    if CHOICE not in text or weights.exists():
        return weights, ""
    file, _, name = text.rpartition(CHOICE)
    return Path(file), name
