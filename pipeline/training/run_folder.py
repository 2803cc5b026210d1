"""The run directory of stage two, and how a run is continued.

config.toml      the resolved options, fit for --config
run.json         what it was started from: store, student, and the options that decide
metrics.jsonl    a line a step and a line a validation; nothing that depends on the clock
curves.png       the same as a picture
checkpoints/     the last ones
student/         the exported student, once the run is finished
tensorboard/     the same metrics for TensorBoard, where it is installed
"""

import contextlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline.base.console import say
from pipeline.base.draws import RUN_VERSION
from pipeline.base.errors import CheckpointError, G2LError
from pipeline.base.outside import parse_object, read_json, reading
from pipeline.base.versions import continued_note, versions
from pipeline.config.base import differences, to_toml
from pipeline.config.model_names import SCRATCH
from pipeline.config.stages import TrainConfig
from pipeline.disk.asides import holds_nothing, remove_asides
from pipeline.disk.files import make_output_folder, name_path, sync_file, write_json, write_text
from pipeline.store.store import StoredTeacher
from pipeline.training.held_out import Best, best_validation, teacher_weights, vals_by_teacher
from pipeline.training.tensorboard import TensorBoard

LABELS = ("student.weights:", "teacher.weights:", "versions.", "versions:")
"""What is recorded, but may differ when a run is continued: where weights came from (they count by `weights_sha256`),
and versions of packages (which are told).
"""


LONGER = (
    "; to train longer, begin a new run with the student and projector of this one: --weights {run} --out OTHER "
    "(the schedule is of all steps, so that a run of more epochs is another run)"
)
"""What is said where `--epochs` is raised."""

STEP = "step"
"""Key of a student's `config.json`: after which step of its run it stood."""

HeldOut = tuple[dict[str, float] | None, dict[str, float] | None]
"""Held-out figures before the first step and after the last; `None` if no rows are held out."""


def run_identity(
    teacher: StoredTeacher,
    student: dict[str, Any],
    config: TrainConfig,
    precision: str,
    world_size: int,
    others: Sequence[tuple[StoredTeacher, float]] = (),
    version: int = RUN_VERSION,
    start: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """What a run is started from and continued under only: options by value or by what they led to (`base.option`).

    `version` is that of the run (`draws.RUN_VERSION`), `start` the hashes of projectors that it starts from, by their
    teachers. `teacher` is the first one; `others` are further ones with the weights of their losses.
    """
    further = [{"teacher": other.record, "weight": weight, "content": other.content_hash()} for other, weight in others]
    newer = {"version": version, "versions": versions()} if version > 1 else {}
    return (
        {
            **newer,
            "store": teacher.content_hash(),
            "plan": teacher.plan_hash,
            "teacher": teacher.record,
            "student": student,
            "options": config.deciding() | {"precision": precision},
            "world_size": world_size,
        }
        | ({"further_teachers": further} if further else {})
        | ({"start": dict(start)} if start else {})
    )


def random_start_differs(begun: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a run began with random weights that the same seed does not give now, and nothing else differs in its
    student.

    Other versions of torch and other processors draw other last bits. Checkpoints hold the weights, so that a run
    continues from what it began with.
    """
    was, found = begun.get("student"), now.get("student")
    if not (isinstance(was, dict) and isinstance(found, dict)) or was.get("weights") != SCRATCH:
        return False
    lines = differences({"student": was}, {"student": found})
    return bool(lines) and all(line.startswith("student.weights_sha256:") for line in lines)


def diverged(step: int, what: str) -> G2LError:
    """The error when something is no longer finite after `step` steps."""
    return G2LError(f"training has diverged: at step {step} {what}. Choose a smaller --lr (or --precision float32) and "
                    "another --out")  # fmt: skip


def check_line(line: dict[str, Any]) -> None:
    """See that a line of the metrics holds numbers.

    Raises:
        G2LError: a figure is not finite.
    """
    wrong = [f"{name} is {v:g}" for name, v in line.items() if isinstance(v, float) and not math.isfinite(v)]
    if wrong:
        raise diverged(line["step"], ", ".join(wrong))


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
        self.tensorboard = folder / "tensorboard"

    def start_or_continue(self, identity: dict[str, Any]) -> None:
        """Make the directory, or check that it was started from the same `identity`, and clear away half-written files.

        Raises:
            CheckpointError: it was started from something else; says what differs.
            G2LError: it cannot be written.
        """
        make_output_folder(self.folder)
        if self.identity_path.exists():
            begun = self.read_identity()
            anew = random_start_differs(begun, identity)
            compared = identity | {"student": begun["student"]} if anew else identity
            changes = differences(begun, compared)
            if any(not line.startswith(LABELS) for line in changes):
                listing = "\n".join(f"  {line}" for line in changes)
                longer = any(line.startswith("options.epochs:") for line in changes)
                raise CheckpointError(
                    f"{self.folder} was started from other inputs and is not continued (run -> now):\n{listing}\n"
                    f"Choose another --out{LONGER.format(run=self.folder) if longer else ''}."
                )
            if not self.student.exists() and (note := continued_note(self.folder, begun.get("versions", {}))):
                say(note)
            if anew and not any(self.checkpoints.glob("*.pt")):
                write_json(self.identity_path, identity)  # nothing came of the start that it had
            elif anew and not self.student.exists():
                say(f"note: random weights of this seed come out otherwise here than where {self.folder} was begun; it "
                    "continues from its checkpoint")  # fmt: skip
            remove_asides(self.folder)
            return
        if not holds_nothing(self.folder):
            raise CheckpointError(
                f"{self.folder} is not empty and not a run; nothing is overwritten. Choose another --out"
            )
        remove_asides(self.folder)
        write_json(self.identity_path, identity)

    def write_config(self, store: Path, config: TrainConfig) -> None:
        """The resolved options and paths, fit for `--config`; those of the last call, for some may change."""
        record = {"store": str(store.absolute()), "out": str(self.folder.absolute())} | config.absolute().record()
        write_text(self.config_path, to_toml({"train-student": record}))

    def version(self) -> int:
        """Version of the draws, figures and arithmetic (`draws.RUN_VERSION`): as the run was begun, else the present.

        Raises:
            CheckpointError: a later program began it, or its record is damaged.
        """
        version = int(self.read_identity().get("version", 1)) if self.identity_path.exists() else RUN_VERSION
        if version > RUN_VERSION:
            raise CheckpointError(f"{self.folder}: a run of version {version}, this program continues those up to "
                                  f"{RUN_VERSION}. Use the G2L that began it")  # fmt: skip
        return version

    def read_identity(self) -> dict[str, Any]:
        """What the run was started from.

        Raises:
            CheckpointError: no run, or damaged.
        """
        if not self.identity_path.exists():
            raise CheckpointError(f"{self.folder}: no such run. `g2l train-student` makes one")
        with reading(self.identity_path, "damaged", CheckpointError):
            return read_json(self.identity_path)

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of the metrics file; one that is still being written is left out.

        Raises:
            CheckpointError: it is damaged.
        """
        return self._lines(b"")

    def _lines(self, having: bytes) -> list[dict[str, Any]]:
        """The lines that have these bytes in them; see `metrics`."""
        if not self.metrics_path.exists():
            return []
        lines = self.metrics_path.read_bytes().split(b"\n")[:-1]
        with reading(self.metrics_path, "damaged", CheckpointError):
            return [parse_object(line) for line in lines if having in line]

    def validations(self) -> list[dict[str, Any]]:
        """The lines of validations alone; quick, for it is asked at every checkpoint.

        Raises:
            CheckpointError: the metrics are damaged.
        """
        return self._lines(b'"kind": "val"')

    def held_out_figures(self, teacher: str | None = None, step: int | None = None) -> HeldOut:
        """Held-out figures before the first step and after the last validation, or that of `step`; `None` if no rows
        are held out.

        Of the first teacher, or of the one that is named, where there are several.
        """
        of_teachers = vals_by_teacher(self.validations())
        if not of_teachers:
            return None, None
        vals = of_teachers[teacher or next(iter(of_teachers))]
        chosen = [line for line in vals if line["step"] == step] or vals[-1:]
        before, after = (
            {k: v for k, v in line.items() if k not in ("kind", "teacher", "step", "epoch")}
            for line in (vals[0], chosen[0])
        )
        return before, after

    def best(self) -> Best | None:
        """The validation of the smallest held-out loss; `None` before the end of the first epoch, or if no rows are
        held out.
        """
        return best_validation(self.validations(), teacher_weights(self.read_identity()))

    def exported_step(self) -> int | None:
        """After which step the exported student stood, as it says itself; `None` if it does not: the last.

        Raises:
            CheckpointError: its description is damaged.
        """
        path = self.student / "config.json"
        with reading(path, "damaged", CheckpointError):
            step = read_json(path).get(STEP)
            return None if step is None else int(step)


class MetricsLog:
    """Appends to `metrics.jsonl`; to nothing if `path` is `None`. On continuing, it is cut back to what the checkpoint
    had seen.

    Raises:
        CheckpointError: the file is shorter than that.
    """

    def __init__(self, path: Path | None, num_bytes: int, board: TensorBoard | None = None) -> None:
        self._file = None
        self._board = board or TensorBoard(None, 0)
        if path is None:
            return
        if num_bytes and (not path.exists() or path.stat().st_size < num_bytes):
            raise CheckpointError(
                f"{path}: cut short or gone; the checkpoint saw {num_bytes} bytes of it. Put it back, or choose "
                "another --out"
            )
        self._path = path
        self._file = open(path, "ab")  # noqa: SIM115  (closed by close)
        self._file.truncate(num_bytes)

    def append(self, line: dict[str, Any]) -> None:
        """One line, for all to see; floats keep all their digits.

        Raises:
            G2LError: a figure is not finite; the line is not written.
        """
        check_line(line)
        self._board.append(line)
        if self._file is not None:
            try:
                self._file.write((json.dumps(line) + "\n").encode())
                self._file.flush()
            except OSError as error:
                raise name_path(error, self._path)  # noqa: B904  (the same error)

    def sync(self) -> int:
        """Make all lines durable; returns the file's length in bytes."""
        if self._file is None:
            return 0
        sync_file(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the file."""
        self._board.close()
        if self._file is not None:
            with contextlib.suppress(OSError):  # of a full disk, which `append` has told
                self._file.close()
