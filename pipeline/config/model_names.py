"""Models and folders as the user names them, taken apart: `[LABEL=]ENCODER[@WEIGHTS]` and `[LABEL=]DIR`.

Folders may have "@" and "=" in their names (`/home/user@domain/run`): what exists on disk is taken for what it is, and
of several ways to read a name the one with the shortest end is taken that makes sense.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER_PREFIX = "local-dir:"
PRETRAINED, SCRATCH = "pretrained", "scratch"
"""Weights that are no file: those that are published for an encoder, and random ones."""
WORDS = ("before", "after", "teacher", PRETRAINED, SCRATCH)
"""What may stand behind the "@" beside a file or folder of weights."""
MODEL_FILES = ("run.json", "config.json")
"""By these a run and a model's folder are known."""
CHOICE = "::"
"""Stands between a file of weights and the name of a set in it."""
LABELLED = re.compile(r"^(?P<label>[^=/@:]+)=(?P<rest>.+)$", re.DOTALL)


@dataclass(frozen=True)
class ModelName:
    """A model's name, taken apart; "" for what it does not have."""

    label: str
    encoder: str
    weights: str

    @property
    def folder(self) -> Path:
        """The encoder as a folder, whether there is one or not."""
        return Path(self.encoder.removeprefix(FOLDER_PREFIX))


def split_model(text: str) -> ModelName:
    """Label, encoder and weights of `[LABEL=]ENCODER[@WEIGHTS]`.

    An existing run or model's folder is found whatever its name: first the whole text as one, then with what stands
    behind an "@"; then a label is taken off.
    """
    match = LABELLED.match(text)
    whole = ModelName("", *_split_weights(text))
    if match is None or _is_model(whole.encoder):
        return whole
    return ModelName(match["label"], *_split_weights(match["rest"]))


def split_folder(text: str) -> tuple[str, Path]:
    """Label and folder of `[LABEL=]DIR`; the label is "" where there is none."""
    match = LABELLED.match(text)
    if match is None or Path(text).is_dir():
        return "", Path(text)
    return match["label"], Path(match["rest"])


def absolute_model(text: str) -> str:
    """The same model, with files and folders that exist by their absolute paths: fit for a record."""
    name = split_model(text)
    encoder, weights = name.encoder, name.weights
    if name.folder.exists() and (_is_model(encoder) or encoder.startswith(FOLDER_PREFIX)):
        prefix = FOLDER_PREFIX if encoder.startswith(FOLDER_PREFIX) else ""
        encoder = f"{prefix}{name.folder.absolute()}"
    weights = absolute_weights(weights) if weights else ""
    return f"{name.label}=" * bool(name.label) + encoder + f"@{weights}" * bool(weights)


def absolute_weights(text: str) -> str:
    """Weights by their absolute path; a word for others stays as it is."""
    return text if text in WORDS else str(Path(text).absolute())


def absolute_folder(text: str) -> str:
    """`[LABEL=]DIR` with the absolute path."""
    label, folder = split_folder(text)
    return f"{label}=" * bool(label) + str(folder.absolute())


def recorded_path(text: str, record: Path, out: str = "") -> Path:
    """A path that a record holds. Records of version 0.1.0 have it as it was typed: it is then tried from the working
    folder, from where the recorded output `out` was typed, and from the record's folder and those above it.

    Returns the first that exists, else the path as it stands.
    """
    path = Path(text)
    if path.is_absolute():
        return path
    folder = record.resolve().parent
    above = [folder, *folder.parents]
    typed_in = [base for base in above if out and (base / out).resolve() == folder]
    found = (base / path for base in (Path(), *typed_in, *above[:-1]) if (base / path).exists())
    return next(found, path)


def _is_model(encoder: str) -> bool:
    """Whether there is a run or a model's folder of that name."""
    folder = Path(encoder.removeprefix(FOLDER_PREFIX))
    return any((folder / name).is_file() for name in MODEL_FILES)


def _split_weights(text: str) -> tuple[str, str]:
    """Encoder and weights of `ENCODER[@WEIGHTS]`."""
    if _is_model(text) or "@" not in text:
        return text, ""
    ways = list(_ways(text))
    for encoder, weights in ways:
        if _is_model(encoder) or weights in WORDS or Path(weights).exists():
            return encoder, weights
    first = text.partition("@")[0]
    if "/" in first and not first.startswith("hf-hub:"):  # a path that does not exist: no weights are cut from it
        return text, ""
    return ways[-1] if not first.startswith("hf-hub:") else ways[0]


def _ways(text: str) -> Iterator[tuple[str, str]]:
    """All ways to part a text at an "@", the shortest end first; both parts have something in them."""
    at = len(text)
    while (at := text.rfind("@", 0, at)) > 0:
        if at + 1 < len(text):
            yield text[:at], text[at + 1 :]


def split_choice(weights: Path) -> tuple[Path, str]:
    """A path of weights and the name of the set in it, of `FILE::SET`; "" where none is named.

    A file whose own name has such a mark is taken as it is.
    """
    text = str(weights)
    if CHOICE not in text or weights.exists():
        return weights, ""
    file, _, name = text.rpartition(CHOICE)
    return Path(file), name
