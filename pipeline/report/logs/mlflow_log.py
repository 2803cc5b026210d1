"""A run in MLflow, on this machine unless the environment says otherwise.

Where runs are kept is `MLFLOW_TRACKING_URI`, by default a database and files in `FOLDER/mlflow` (`mlflow ui
--backend-store-uri sqlite:///FOLDER/mlflow/mlflow.db` shows them). A run that is continued goes on with the same run
there, and steps that it has already are not logged again.
"""

import contextlib
import logging
import logging.config
import os
import re
import shlex
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.base.errors import ConfigError
from pipeline.base.outside import is_there, read_json, reading
from pipeline.disk.files import make_output_folder, write_json
from pipeline.report.logs.tracker import one_level

EXPERIMENT = "g2l"
"""Unless `MLFLOW_EXPERIMENT_NAME` names another."""
RUN_THERE = "g2l-run.json"
"""In `FOLDER/mlflow`: where the run is kept, and its id there."""
FIX = "Delete it; the next call begins another run there"
BATCH = 500
"""Figures that are held back and logged at once. A call takes some ms; MLflow takes up to 1,000."""
MOST_PARAM = 6000
"""Characters of a value that MLflow keeps."""
LAST_STEP = "last step"
"""Name of the figure that says how far a run is logged."""
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_\-. /:]")


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without words on the database's tables, and deprecations of the libraries below."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def logging_kept() -> Iterator[None]:
    """Without words of the database's libraries below a warning, and with the process's logging as it is: earlier
    versions of MLflow (3.1) set it up anew when they make their tables, which closes the files of all handlers. Here
    that does nothing.
    """
    file_config = logging.config.fileConfig
    loggers = [logging.getLogger(name) for name in ("alembic", "sqlalchemy")]
    levels = [logger.level for logger in loggers]
    setattr(logging.config, "fileConfig", lambda *args, **options: None)  # noqa: B010  (mypy takes no assignment)
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        setattr(logging.config, "fileConfig", file_config)  # noqa: B010


class MlflowLog:
    """A run that has been started."""

    def __init__(self, client: Any, run: str, logged: int, uri: str = "") -> None:
        """`logged` is the last step that the run has already, -1 for a new one; `uri` where it is kept."""
        self._client, self._run, self._logged, self._uri = client, run, logged, uri
        self._held: list[tuple[str, float, int]] = []

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log figures of a step; those of steps before the last that an earlier call logged are left out."""
        if step < self._logged:
            return
        self._held += [(NOT_IN_NAMES.sub("_", name), float(value), step) for name, value in values.items()]
        if len(self._held) >= BATCH:
            self._write()

    def files(self, paths: Sequence[Path]) -> None:
        """Log copies of files."""
        with quietly():
            for path in paths:
                self._client.log_artifact(self._run, str(path))

    def end(self, *, finished: bool) -> None:
        """Write what is held back, and end the run."""
        self._write()
        with quietly():
            self._client.set_terminated(self._run, "FINISHED" if finished else "FAILED")

    def where(self) -> str:
        """Where the run is, and what shows it."""
        if not self._uri.startswith("sqlite:"):
            return f"run {self._run} where MLFLOW_TRACKING_URI says"  # which may hold a password
        return f"the run is on this machine; mlflow ui --backend-store-uri {shlex.quote(self._uri)} shows it"

    def _write(self) -> None:
        """A part at a time; last how far that is."""
        from mlflow.entities import Metric  # optional: in an extra

        now, held = int(time.time() * 1000), self._held
        self._held = []
        last = [(LAST_STEP, float(held[-1][2]), held[-1][2])] if held else []
        with quietly():
            for begin in range(0, len(held), BATCH):
                part = held[begin : begin + BATCH] + (last if begin + BATCH >= len(held) else [])
                self._client.log_batch(self._run, metrics=[Metric(name, v, now, step) for name, v, step in part])


def start(folder: Path, kind: str, config: Mapping[str, Any]) -> MlflowLog:
    """Start or continue the run of this folder."""
    place = (folder / "mlflow").absolute()
    make_output_folder(place)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # reports of use to its makers
    # MLflow's own seven tries hold a run up for minutes where a server is away; a user's own values stay
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")  # seconds
    with quietly():
        from mlflow.entities import Param  # optional: in an extra; reads the variable above
        from mlflow.tracking import MlflowClient  # optional: in an extra
    with quietly(), logging_kept():  # anew: the import sets the logger to INFO
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        kept = uri or f"sqlite:///{place}/mlflow.db"
        client = MlflowClient(tracking_uri=kept)
        record = {"uri": uri or "here"}
        if is_there(place / RUN_THERE):
            with reading(place / RUN_THERE, "damaged", ConfigError, FIX):
                begun = read_json(place / RUN_THERE)
            if begun["uri"] == record["uri"]:
                client.update_run(begun["id"], status="RUNNING")
                last = client.get_run(begun["id"]).data.metrics.get(LAST_STEP, -1.0)
                return MlflowLog(client, begun["id"], int(last), kept)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = client.get_experiment_by_name(name)
        files = None if uri else (place / "artifacts").as_uri()
        experiment = found.experiment_id if found else client.create_experiment(name, artifact_location=files)
        run = client.create_run(experiment, run_name=folder.name, tags={"kind": kind}).info.run_id
        params = [
            Param(NOT_IN_NAMES.sub("_", name), str(value)[:MOST_PARAM]) for name, value in one_level(config).items()
        ]
        for begin in range(0, len(params), 100):  # MLflow takes a hundred at a time
            client.log_batch(run, params=params[begin : begin + 100])
        write_json(place / RUN_THERE, record | {"id": run})
    return MlflowLog(client, run, -1, kept)
