"""The run directory of stage two, and how a run is continued.

config.toml      the resolved options; can be passed to --config
run.json         what the run started from: store, student, and the options that decide the result; the
                 recipe that the last call named, which decides nothing
statistics.json  mean and variance of the teachers' embeddings over the training rows, so as not to compute them again
metrics.jsonl    a line a step and a line a validation; nothing that depends on the clock
curves.png       a plot of the metrics
checkpoints/     the last few, and the best
student/         the exported student, once the run is finished
tensorboard/     the same metrics for TensorBoard, if it is installed
"""

import contextlib
import errno
import json
import math
import os
import re
import stat
from pathlib import Path
from typing import IO, Any

from pipeline.base.draws import RUN_VERSION, RunDraws
from pipeline.base.errors import CheckpointError, DivergedError
from pipeline.base.outside import (
    is_there,
    one_line,
    parse_object,
    read_bytes,
    read_json,
    reading,
    require_regular,
    require_room,
)
from pipeline.base.versions import continued_note
from pipeline.config.base import RECIPE, differences, to_toml
from pipeline.config.model_names import RUN_FILE
from pipeline.config.stages import TrainConfig
from pipeline.disk.asides import holds_nothing, remove_asides
from pipeline.disk.files import make_output_folder, name_path, sync_file, write_json, write_text
from pipeline.disk.objects.urls import absolute
from pipeline.report.logs.tracker import Tracker
from pipeline.training.early_stop import STOP, Stop
from pipeline.training.held_out import Best, best_validation, vals_by_teacher
from pipeline.training.identity import loss_weights, random_start_differs, require_sound_identity
from pipeline.training.tensorboard import TensorBoard, scalars_of

LABELS = ("student.weights:", "teacher.weights:", "versions.", "versions:", f"{RECIPE}.", f"{RECIPE}:")
"""Recorded, but allowed to differ when a run is continued: where weights came from (`weights_sha256` is compared
instead), versions of packages (a note lists the changes), and the recipe, whose values are compared as options.
"""


LONGER = "; to train longer, begin a new run from the student and projector of this one: --weights {run} --out OTHER"
"""Advice to a user whose run is finished."""
WHY_ANOTHER = " (the learning rate is scheduled over all epochs, so more epochs are another run)"
"""What it adds for a user who raises `--epochs`."""

STEP = "step"
"""Key in a student's `config.json`: the step of its run that it was exported after."""

CHECKPOINT_NAME = re.compile(r"step-([0-9]+)(\.pt)?")
"""Of a checkpoint in one file, or of the folder of one in parts."""

MOST_METRICS_BYTES = 1 << 30
"""1 GiB, the largest metrics file that is read. Our choice: a million steps take a quarter of it."""

NUMBERS = {
    "step": frozenset({"step", "epoch", "loss", "lr"}),
    "val": frozenset({"step", "epoch", "loss", "rows"}),
    STOP: frozenset({"step", "epoch", "loss", "mean", "times"}),
}
"""Numbers that each kind of line of the metrics file has; it may have more, by the version that began the run."""
TYPES = {"kind": (str,), "teacher": (str,), **dict.fromkeys(("step", "epoch", "rows", "times"), (int,))}
"""Types of what a line has that is no number, or a whole one."""

HeldOut = tuple[dict[str, float], dict[str, float]]
"""A teacher's held-out figures before the first step and at a later one, by their names in the metrics file."""


def _parse_line(number: int, text: bytes) -> dict[str, Any]:
    """Line `number` of the metrics file, from 1; it is of a known kind, and what plots and tables take of it is there.

    Raises:
        ValueError: it is damaged.
    """
    try:
        line = parse_object(text)
        kind = line["kind"]
        if kind not in NUMBERS:
            raise ValueError(f"of an unknown kind, {kind!r}")
        for name in NUMBERS[kind] - line.keys():
            raise KeyError(name)
        for name, value in line.items():
            if type(value) not in TYPES.get(name, (int, float)):
                raise TypeError(f"its {name} is {value!r}")
        if kind == STOP:
            Stop.from_line(line)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"line {number:,}: {one_line(error).replace(' from line 1,', ' from')}") from None
    return line


def _figures_of(line: dict[str, Any]) -> dict[str, float]:
    """The figures of a validation's line."""
    return {name: value for name, value in line.items() if name not in ("kind", "teacher", "step", "epoch")}


def diverged(step: int, cause: str) -> DivergedError:
    """The error to raise when something is not finite after `step` steps."""
    return DivergedError(
        f"training has diverged: at step {step} {cause}. Choose a smaller --lr (or --precision float32) "
        "and another --out"
    )


def check_line(line: dict[str, Any]) -> None:
    """Check that all figures of a line of `metrics.jsonl` are finite.

    Raises:
        DivergedError: a figure is not finite.
    """
    wrong = [f"{name} is {v:g}" for name, v in line.items() if isinstance(v, float) and not math.isfinite(v)]
    if wrong:
        raise diverged(line["step"], ", ".join(wrong))


def saved_steps(checkpoints: Path) -> list[int]:
    """Steps that have a checkpoint of either kind, complete or not, in order."""
    names = [CHECKPOINT_NAME.fullmatch(path.name) for path in checkpoints.glob("step-*")]
    return sorted({int(name[1]) for name in names if name})


class RunFolder:
    """A run directory.

    Attributes:
        is_training: whether this process trains the run now: a student that is there is then an earlier one, and the
            metrics are not expected to be those of a finished run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config_path = folder / "config.toml"
        self.identity_path = folder / RUN_FILE
        self.metrics_path = folder / "metrics.jsonl"
        self.statistics_path = folder / "statistics.json"
        self.shown_views_path = folder / "fresh_views.json"
        self.curves_path = folder / "curves.png"
        self.checkpoints = folder / "checkpoints"
        self.student = folder / "student"
        self.tensorboard = folder / "tensorboard"
        self.is_training = False

    def shown(self) -> list[Path]:
        """Files that say what the run is and how it went, without weights."""
        return [
            self.config_path, self.identity_path, self.metrics_path, self.curves_path, self.student / "README.md"
        ]  # fmt: skip

    def start_or_continue(self, identity: dict[str, Any]) -> list[str]:
        """Make the directory, or check that it was started from the same `identity`; remove half-written files. Returns
        notes for the user.

        Raises:
            CheckpointError: it was started from something else; the message lists the differences that matter.
            G2LError: it cannot be written.
        """
        make_output_folder(self.folder)
        if self.identity_path.exists():
            notes = self._continue(identity)
            remove_asides(self.folder)
            return notes
        if not holds_nothing(self.folder):
            raise CheckpointError(
                f"{self.folder} is not empty and not a run; nothing is overwritten. Choose another --out"
            )
        remove_asides(self.folder)
        write_json(self.identity_path, identity)
        return []

    def _continue(self, identity: dict[str, Any]) -> list[str]:
        """Check that the run was started from the same `identity`; see `start_or_continue`."""
        begun = self.read_identity()
        other_random_start = random_start_differs(begun, identity)
        self._require_same(begun, identity | {"student": begun["student"]} if other_random_start else identity)
        if begun.get(RECIPE) != identity.get(RECIPE):
            kept = {name: value for name, value in begun.items() if name != RECIPE}
            named = {name: value for name, value in identity.items() if name == RECIPE}
            write_json(self.identity_path, kept | named)
        is_finished, notes = self.student.exists(), []
        if not is_finished and (note := continued_note(self.folder, begun.get("versions", {}))):
            notes.append(note)
        if other_random_start and not saved_steps(self.checkpoints):
            write_json(self.identity_path, identity)  # no step was saved: start again from the new weights
        elif other_random_start and not is_finished:
            notes.append(
                f"note: this seed gives other random weights here than where {self.folder} was begun; the run "
                "continues from its checkpoint"
            )
        return notes

    def _require_same(self, begun: dict[str, Any], now: dict[str, Any]) -> None:
        """Check that two identities differ only where they may: `LABELS`, and the number of processes of runs whose
        batch normalisation is over all of them.

        Raises:
            CheckpointError: they differ elsewhere.
        """
        changes = differences(begun, now, {"options": TrainConfig.unsaid()})
        free = (*LABELS, "world_size:") if RunDraws(0, begun.get("version", 1)).batch_norm_over_all else LABELS
        refused = [line for line in changes if not line.startswith(free)]
        if not refused:
            return
        hashed = {line.split(":")[0].removesuffix("_sha256") for line in refused}  # where other weights came from
        listing = "\n".join(f"  {line}" for line in changes if line in refused or line.split(":")[0] in hashed)
        longer = any(line.startswith("options.epochs:") for line in changes)
        raise CheckpointError(
            f"{self.folder} was started from other inputs and cannot continue (run -> now):\n{listing}\n"
            f"Choose another --out{LONGER.format(run=self.folder) + WHY_ANOTHER if longer else ''}."
        )

    def write_config(self, store: str, options: dict[str, Any]) -> None:
        """Write the resolved options and paths for `--config`; options that may change are those of the last call."""
        record = {"store": absolute(Path(store)), "out": str(self.folder.absolute())} | options
        write_text(self.config_path, to_toml({"train-student": record}))

    def version(self) -> int:
        """Version of the draws, figures and arithmetic (`draws.RUN_VERSION`): that of the run, or the current one for a
        new run.

        Raises:
            CheckpointError: a newer G2L began the run, or its record is damaged.
        """
        version = self.read_identity().get("version", 1) if self.identity_path.exists() else RUN_VERSION
        if version > RUN_VERSION:
            raise CheckpointError(
                f"{self.folder}: a run of version {version}; this G2L continues runs up to version "
                f"{RUN_VERSION}. Use the G2L that began it"
            )
        return version

    def read_identity(self) -> dict[str, Any]:
        """Read `run.json`, what the run was started from. Its version and its teachers are sound.

        Raises:
            CheckpointError: there is no run, or the file is damaged.
        """
        if not self.identity_path.exists():
            raise CheckpointError(f"{self.folder}: no such run. `g2l train-student` makes one")
        with reading(self.identity_path, "damaged", CheckpointError):
            identity = read_json(self.identity_path)
            require_sound_identity(identity)
        return identity

    def metrics(self) -> list[dict[str, Any]]:
        """Read all complete lines of the metrics file; a run that was stopped may leave half a line at the end.

        Raises:
            CheckpointError: it is damaged.
        """
        return self._lines(b"")

    def _lines(self, containing: bytes) -> list[dict[str, Any]]:
        """Read the lines that contain these bytes; see `metrics`."""
        is_finished = self.student.exists() and not self.is_training
        if not is_there(self.metrics_path) and not is_finished:
            return []
        with reading(self.metrics_path, "damaged", CheckpointError):
            require_room(require_regular(self.metrics_path), "the file")
            *lines, rest = read_bytes(self.metrics_path, MOST_METRICS_BYTES).split(b"\n")
            if is_finished and (rest or not lines):
                raise ValueError("the run is finished, but its last line is not")
            return [_parse_line(number, line) for number, line in enumerate(lines, start=1) if containing in line]

    def validations(self) -> list[dict[str, Any]]:
        """Read only the validation lines; fast, as every checkpoint needs them.

        Raises:
            CheckpointError: the metrics are damaged.
        """
        return self._lines(b'"kind": "val"')

    def stop(self) -> Stop | None:
        """Why the run ended early; `None` if it did not.

        Raises:
            CheckpointError: the metrics are damaged.
        """
        lines = self._lines(b'"kind": "stop"')
        return Stop.from_line(lines[-1]) if lines else None

    def held_out_figures(self, step: int | None = None) -> dict[str, HeldOut]:
        """Held-out figures before the first step and at `step`, by default the last, of each teacher as
        `vals_by_teacher` names it; empty if no rows are held out.
        """
        figures = {}
        for teacher, vals in vals_by_teacher(self.validations()).items():
            at_step = [line for line in vals if line["step"] == step] or vals[-1:]
            figures[teacher] = (_figures_of(vals[0]), _figures_of(at_step[0]))
        return figures

    def best(self) -> Best | None:
        """The validation with the smallest held-out loss; `None` before the end of the first epoch, or if no rows are
        held out.
        """
        return best_validation(self.validations(), loss_weights(self.read_identity()))

    def exported_step(self) -> int | None:
        """The step that the student was exported after, from its `config.json`; `None` means the last.

        Raises:
            CheckpointError: `config.json` is damaged.
        """
        path = self.student / "config.json"
        with reading(path, "damaged", CheckpointError):
            step = read_json(path).get(STEP)
            return None if step is None else int(step)


def not_own_metrics(path: Path) -> CheckpointError:
    """The error for metrics that would be written elsewhere than in the run's directory."""
    return CheckpointError(
        f"{path} is a link, a pipe or a device; metrics are written to a file of the run only. Put the file itself "
        "there, or choose another --out"
    )


def open_metrics(path: Path) -> IO[bytes]:
    """Open or create `metrics.jsonl` for appending; never through a link, whose target would be cut and written to.

    Raises:
        CheckpointError: something other than a file has its name.
        OSError: it cannot be opened.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link; a pipe that nobody reads
            raise not_own_metrics(path) from None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise not_own_metrics(path)
    return open(fd, "ab")


class MetricsLog:
    """Append to `metrics.jsonl`, for TensorBoard and in services that track the run; not to the file if `path` is
    `None`.

    A run that continues first truncates the file to the length recorded in its checkpoint, `num_bytes`. One that begins
    (0) empties it at its first `append` or `sync`: if it fails before, what an earlier run has left there stays.

    Raises:
        CheckpointError: the file is shorter than that, or a link, pipe or device has its name.
    """

    def __init__(
        self, path: Path | None, num_bytes: int, board: TensorBoard | None = None, tracker: Tracker | None = None
    ) -> None:
        self._file = None
        self._board = board or TensorBoard(None, 0)
        self._tracker = tracker or Tracker()
        if path is None:
            return
        if path.is_symlink():
            raise not_own_metrics(path)
        if num_bytes and (not path.exists() or path.stat().st_size < num_bytes):
            raise CheckpointError(
                f"{path}: missing or truncated; it had {num_bytes} bytes at the checkpoint. Put it back, or choose "
                "another --out"
            )
        self._path = path
        self._file = open_metrics(path)  # closed by close
        self._begins = not num_bytes
        if num_bytes:
            self._file.truncate(num_bytes)

    def append(self, line: dict[str, Any]) -> None:
        """Write a line and flush it; floats keep all their digits.

        Raises:
            G2LError: a figure is not finite; the line is not written.
        """
        check_line(line)
        self._board.append(line)
        if self._tracker and (scalars := scalars_of(line)):
            self._tracker.scalars(scalars, line["step"])
        if self._file is not None:
            try:
                self._empty_at_first(self._file)
                self._file.write((json.dumps(line) + "\n").encode())
                self._file.flush()
            except OSError as error:
                raise name_path(error, self._path)  # noqa: B904  (the same error)

    def sync(self) -> int:
        """Sync the file to disk; returns its length in bytes."""
        if self._file is None:
            return 0
        self._empty_at_first(self._file)
        sync_file(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def _empty_at_first(self, file: IO[bytes]) -> None:
        """Empty the file of a run that begins, once."""
        if self._begins:
            file.truncate(0)
            self._begins = False

    def close(self) -> None:
        """Close the file."""
        self._board.close()
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk, which `append` has reported
                self._file.close()
