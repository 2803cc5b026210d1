"""Options of commands that copy slides from slow storage into a local folder ahead of use: `--stage-dir`, `--stage-gb`.

They change no byte of an output, so no output keeps them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationInfo
from pydantic_core import PydanticCustomError

from pipeline.config.base import option
from pipeline.disk.objects.places import as_place

GB = 10**9


@dataclass(frozen=True)
class StageFolder:
    """Where slides are copied to, and how many bytes of them lie there at most; `None`: half of what is free."""

    folder: Path
    most_bytes: int | None = None


STAGES_SLIDES = (
    "Local folder to copy slides into ahead of use, for slides on slow storage or in a bucket; each copy is checked, "
    "and removed after use [slides are read where they are]."
)
STAGES_OBJECTS = (
    "Local folder to copy slides of a bucket into, which needs it; each copy is checked, and removed after use [slides "
    "are read where they are]."
)
STAGES_STORE = (
    "Local folder for what is fetched of a store in a bucket, each file checked, and removed at the end [a temporary "
    "folder]."
)
"""What `--stage-dir` is for: where slides are read, where only those in a bucket are copied, and where a store is."""


def stage_dir_option(description: str = STAGES_SLIDES) -> Any:
    """Define the option `--stage-dir`."""
    return option(None, description=description, decides="nothing", stored=False, in_plan=False)


def stage_gb_option(what: str = "slides") -> Any:
    """Define the option `--stage-gb`."""
    return option(
        None,
        gt=0,
        allow_inf_nan=False,
        description=f"Most GB of {what} in --stage-dir, of all commands that share it [half of what is free there].",
        decides="nothing",
        stored=False,
        in_plan=False,
    )


def check_stage_gb(stage_gb: float | None, others: ValidationInfo) -> float | None:
    """See that `--stage-gb` goes with a folder; validates that field of a configuration.

    Raises:
        PydanticCustomError: it does not.
    """
    if stage_gb is not None and others.data.get("stage_dir") is None:
        raise PydanticCustomError("stage", "goes with --stage-dir, which is not given")
    return stage_gb


def check_place(path: Path | None) -> Path | None:
    """The path, or the address that it is; validates an option that may name a folder in a bucket."""
    return None if path is None else as_place(path)


def stage_folder(stage_dir: Path | None, stage_gb: float | None) -> StageFolder | None:
    """The folder that the two options name; `None` if slides are read where they are."""
    if stage_dir is None:
        return None
    return StageFolder(stage_dir, None if stage_gb is None else round(stage_gb * GB))
