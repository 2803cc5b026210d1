"""Log a run or a report to tracking services, `--log wandb` and `--log mlflow`, for looking at beside others.

The folder of the run or report stays the record. A service that fails is left, with a warning, and the work goes on.
Nothing leaves the machine unless the user's own environment says so: see each service's module.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from pipeline.base.console import say
from pipeline.base.errors import ConfigError
from pipeline.config.groups import TrackingService

MODULES: dict[TrackingService, str] = {
    "wandb": "pipeline.report.logs.wandb_log",
    "mlflow": "pipeline.report.logs.mlflow_log",
}
"""Modules that start each service's log; imported when it is asked for."""


class Log(Protocol):
    """One run in one service."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log figures of a step."""

    def files(self, paths: Sequence[Path]) -> None:
        """Log copies of files as the run's artefacts."""

    def where(self) -> str:
        """Where the run is, and how it is sent or shown, in words."""

    def end(self, *, finished: bool) -> None:
        """Send or write what is held back, and end; `finished` is false if the work failed or was stopped."""


class Tracker:
    """A run in all services that were asked for; one that fails is left."""

    def __init__(self, logs: Mapping[str, Log] | None = None) -> None:
        self._logs = dict(logs or {})

    def __bool__(self) -> bool:
        """Whether any service is there to be told."""
        return bool(self._logs)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log figures of a step."""
        self._each(lambda log: log.scalars(values, step))

    def files(self, paths: Sequence[Path]) -> None:
        """Log copies of those files that exist as the run's artefacts."""
        there = [path for path in paths if path.is_file()]
        self._each(lambda log: log.files(there))

    def end(self, *, finished: bool) -> None:
        """End the run in each service, and say where it is."""
        places: dict[str, str] = {}

        def end_one(name: str, log: Log) -> None:
            place = log.where()  # asked while the service still knows
            log.end(finished=finished)
            places[name] = place

        self._each_named(end_one)
        for name, place in places.items():
            say(f"note: --log {name}: {place}")

    def _each(self, use: Callable[[Log], None]) -> None:
        self._each_named(lambda _, log: use(log))

    def _each_named(self, use: Callable[[str, Log], None]) -> None:
        for name, log in list(self._logs.items()):
            try:
                use(name, log)
            except Exception as error:  # noqa: BLE001  (whatever a service raises, training does not stop for it)
                del self._logs[name]
                say(f"warning: --log {name}: {type(error).__name__}: {error}. The work goes on without it")


def require_services(services: Collection[TrackingService]) -> None:
    """Check that the packages of services are installed, before anything is computed.

    Raises:
        ConfigError: one is not.
    """
    for name in services:
        if find_spec(name) is None:
            raise ConfigError(f"--log {name}: the package is not installed. Run: pip install 'g2l[{name}]'")


@contextmanager
def tracked(
    services: Collection[TrackingService], folder: Path, kind: str, config: Mapping[str, Any], *, here: bool = True
) -> Iterator[Tracker]:
    """A run in each service for the time of the block; none if not `here`, in processes that do not lead.

    Args:
        folder: of the run or report. What a service keeps on this machine lies in it, and its name is the run's.
        kind: "train-student" or "evaluate".
        config: what the run's configuration is, JSON types.

    Raises:
        ConfigError: a package is not installed.
    """
    require_services(services)
    logs: dict[str, Log] = {}
    for name in services if here else ():
        try:
            logs[name] = import_module(MODULES[name]).start(folder, kind, config)
        except Exception as error:  # noqa: BLE001  (as in `Tracker`)
            say(f"warning: --log {name}: {type(error).__name__}: {error}. The work goes on without it")
    tracker, finished = Tracker(logs), False
    try:
        yield tracker
        finished = True
    finally:
        tracker.end(finished=finished)


def one_level(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested record with one level: names joined by dots, lists as they are."""
    values: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            values |= one_level(value, f"{prefix}{name}.")
        else:
            values[prefix + name] = value
    return values
