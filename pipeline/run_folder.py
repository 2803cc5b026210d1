"""The run directory of stage two, and how a run is continued.

config.toml      the resolved options, fit for --config
run.json         what it was started from: store, student, and the options that decide
metrics.jsonl    a line a step and a line a validation; nothing that depends on the clock
curves.png       the same as a picture
checkpoints/     the last ones
student/         the exported student, once the run is finished
"""

import json
import os
from pathlib import Path
from typing import Any

from pipeline.config import differences
from pipeline.errors import CheckpointError
from pipeline.files import remove_asides, write_json


class RunFolder:
    """A run directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config_path = folder / "config.toml"
        self.identity_path = folder / "run.json"
        self.metrics_path = folder / "metrics.jsonl"
        self.curves_path = folder / "curves.png"
        self.checkpoints = folder / "checkpoints"
        self.student = folder / "student"

    def start_or_continue(self, identity: dict[str, Any]) -> None:
        """Make the directory, or check that it was started from the same `identity`, and clear away half-written files.

        Raises:
            CheckpointError: it was started from something else; says what differs.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.identity_path.exists():
            changes = differences(self.read_identity(), identity)
            if changes:
                listing = "\n".join(f"  {line}" for line in changes)
                raise CheckpointError(
                    f"{self.folder} was started from other inputs and is not continued (run -> now):\n{listing}\n"
                    "Choose another --out."
                )
            remove_asides(self.folder)
            return
        if any(self.folder.iterdir()):
            raise CheckpointError(
                f"{self.folder} is not empty and not a run; nothing is overwritten. Choose another --out"
            )
        write_json(self.identity_path, identity)

    def read_identity(self) -> dict[str, Any]:
        """What the run was started from.

        Raises:
            CheckpointError: no run, or damaged.
        """
        try:
            identity: dict[str, Any] = json.loads(self.identity_path.read_text())
        except FileNotFoundError:
            raise CheckpointError(f"{self.folder}: no such run. `g2l train-student` makes one") from None
        except (OSError, json.JSONDecodeError) as error:
            raise CheckpointError(f"{self.identity_path}: damaged ({error})") from None
        return identity

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of the metrics file."""
        if not self.metrics_path.exists():
            return []
        return [json.loads(line) for line in self.metrics_path.read_text().splitlines()]


class MetricsLog:
    """Appends to `metrics.jsonl`; to nothing if `path` is `None`. On continuing, it is cut back to what the checkpoint
    had seen.

    Raises:
        CheckpointError: the file is shorter than that.
    """

    def __init__(self, path: Path | None, num_bytes: int) -> None:
        self._file = None
        if path is None:
            return
        if num_bytes and (not path.exists() or path.stat().st_size < num_bytes):
            raise CheckpointError(f"{path}: cut short; the checkpoint saw {num_bytes} bytes of it")
        self._file = open(path, "ab")  # noqa: SIM115  (closed by close)
        self._file.truncate(num_bytes)

    def append(self, line: dict[str, Any]) -> None:
        """One line; floats keep all their digits."""
        if self._file is not None:
            self._file.write((json.dumps(line) + "\n").encode())

    def sync(self) -> int:
        """Make all lines durable; returns the file's length in bytes."""
        if self._file is None:
            return 0
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
