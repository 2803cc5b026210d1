"""Remember where the weights of a store's teacher were, when they came from a file.

The note in the store decides nothing. Weights are identified by their hash, which every user of the note checks.
"""

import os
from pathlib import Path
from typing import Any

from pipeline.base.errors import CheckpointError, StoreError
from pipeline.base.outside import read_toml, reading
from pipeline.config.model_names import PRETRAINED, split_choice
from pipeline.disk.objects.urls import as_url
from pipeline.store.store import Store, StoredTeacher
from pipeline.training.run_folder import RunFolder

NOTED_WEIGHTS = "weights_file"
"""Attribute of a store, and of a further teacher in it: the absolute path that `--weights` named, with its `::SET`."""


def weights_note(weights: Path | None) -> dict[str, Any]:
    """The note for a new store; nothing for weights of a hub."""
    return {} if weights is None else {NOTED_WEIGHTS: str(weights.absolute())}


def remembered_weights(teacher: StoredTeacher) -> str | Path | None:
    """Where a store's teacher has its weights: `PRETRAINED`, the file or folder that was noted, or `None` if there is
    no note, or nothing lies there any more.
    """
    if teacher.record["weights"] == PRETRAINED:
        return PRETRAINED
    noted = teacher.attributes.get(NOTED_WEIGHTS)
    if not isinstance(noted, str) or not noted:
        return None
    return Path(noted) if split_choice(Path(noted))[0].exists() else None


def noted_place(teacher: StoredTeacher) -> str:
    """Where a store's teacher came from, for a message: the place that was noted, else the file's name."""
    return str(teacher.attributes.get(NOTED_WEIGHTS) or teacher.record["weights"])


def weights_of_run(run: RunFolder, teacher: dict[str, Any], store: Path | None) -> str | Path | None:
    """Where a run's teacher has its weights, by the note of the store that is evaluated, else of the one that the run
    learnt from; `None` if neither knows.

    Args:
        teacher: record of the run's teacher.
    """
    if teacher["weights"] == PRETRAINED:
        return PRETRAINED
    for folder in (store, store_of_run(run)):
        try:
            stored = Store(folder).teachers if folder is not None else {}
        except StoreError:  # moved or damaged: the one to say so is whoever reads its rows
            continue
        one = stored.get(teacher["name"])
        same = one is not None and one.record["weights_sha256"] == teacher["weights_sha256"]
        if one is not None and same and (weights := remembered_weights(one)):
            return weights
    return None


def store_of_run(run: RunFolder) -> Path | None:
    """The store that a run learnt from, as its options name it, or below the folder that the run lies in; `None` if
    they name none.
    """
    options = options_of_run(run)
    if "store" not in options:
        return None
    path = Path(str(options["store"]))
    return path if as_url(path) or path.exists() else Path(os.path.realpath(run.folder)).parent / path


def options_of_run(run: RunFolder) -> dict[str, Any]:
    """The options of a run, as it recorded them; none if these cannot be read."""
    try:
        with reading(run.config_path, "damaged", CheckpointError):
            options: dict[str, Any] = dict(read_toml(run.config_path)["train-student"])
    except CheckpointError:
        return {}
    return options
