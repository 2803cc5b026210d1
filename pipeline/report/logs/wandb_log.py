"""A run in Weights & Biases, offline unless the environment says otherwise.

The mode is `WANDB_MODE`, by default "offline": the run lies in `FOLDER/wandb`, and `wandb sync` sends it when the user
wants that. Source code, the command's words, names of host and user, what is installed, machine statistics and the
terminal's text are not logged; the library itself notes its own version, Python's and the platform. A run that a caller
has begun goes on beside it. A run that is continued keeps its id; offline, each call adds a part to the same run, which
`wandb sync` joins, and figures are placed by their step, so that steps which were made again lie on themselves.
"""

import os
import secrets
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.base.errors import ConfigError
from pipeline.base.outside import is_there, read_json, reading
from pipeline.disk.files import make_output_folder, write_json

PROJECT = "g2l"
"""Unless `WANDB_PROJECT` names another."""
RUN_THERE = "g2l-run.json"
"""In `FOLDER/wandb`: the run's id."""
FIX = "Delete it; the next call begins another run there"


class WandbLog:
    """A run that has been started."""

    def __init__(self, run: Any) -> None:
        self._run = run
        run.define_metric("*", step_metric="step")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log figures of a step."""
        self._run.log({**values, "step": step})

    def files(self, paths: Sequence[Path]) -> None:
        """Log copies of files as one artefact."""
        import wandb  # optional: in an extra

        artifact = wandb.Artifact(f"g2l-{self._run.id}", type="g2l")
        for path in paths:
            artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def where(self) -> str:
        """Where the run is, and what sends it."""
        if not self._run.offline:
            return f"the run is at {self._run.url}"
        folder = Path(self._run.dir).parent  # of its files
        return f"the run is offline, in {folder}; {sync_command()} {shlex.quote(str(folder))} sends it"

    def end(self, *, finished: bool) -> None:
        """Write what is held back, and end the run."""
        self._run.finish(exit_code=0 if finished else 1)


def sync_command() -> str:
    """The command that sends an offline run: earlier libraries join the parts of a run by `--append` only, and later
    ones, 0.31 among them, do it by themselves and have no such option.
    """
    from wandb.cli import cli  # optional: in an extra

    sync: Any = cli.sync
    return "wandb sync --append" if any("--append" in option.opts for option in sync.params) else "wandb sync"


def run_id(folder: Path) -> str:
    """The id of the run in this folder: that of its first call."""
    path = folder / RUN_THERE
    if is_there(path):
        with reading(path, "damaged", ConfigError, FIX):
            return str(read_json(path)["id"])
    made = secrets.token_hex(8)
    write_json(path, {"id": made})
    return made


def start(folder: Path, kind: str, config: Mapping[str, Any]) -> WandbLog:
    """Start or continue the run of this folder."""
    place = folder / "wandb"
    make_output_folder(place)
    os.environ.setdefault("WANDB_CONFIG_DIR", str(place))  # these three would be in the user's home
    os.environ.setdefault("WANDB_CACHE_DIR", str(place))
    os.environ.setdefault("WANDB_DATA_DIR", str(place))
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # reports of its own crashes to its makers
    import wandb  # optional: in an extra; reads the variables above

    settings = wandb.Settings(
        console="off",
        disable_git=True,
        save_code=False,
        silent=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        host="",
        reinit="create_new",  # a run that the caller has begun goes on, and stays `wandb.run`
    )
    mode: Any = os.environ.get("WANDB_MODE", "offline")  # the library checks the word
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        dir=str(folder),
        id=run_id(place),
        name=folder.name,
        job_type=kind,
        config=dict(config),
        mode=mode,
        resume="allow",
        settings=settings,
    )
    return WandbLog(run)
