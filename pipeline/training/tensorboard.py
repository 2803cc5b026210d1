"""Name the figures of metrics for whoever shows them, and write them for TensorBoard if that extra is installed.

For watching a run; `metrics.jsonl` is the record. A run that continues hides points after its checkpoint.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.base.console import say
from pipeline.base.errors import first_line

STEP_FIGURES = ("loss", "lr", "grad_norm")


def scalars_of(line: dict[str, Any]) -> dict[str, float]:
    """The figures of a line of `metrics.jsonl` by name: losses and rates under `train/`, held-out figures under
    `held-out/`; with several teachers, below the teacher's name.
    """
    if line["kind"] == "step":
        return {f"train/{name}": line[name] for name in STEP_FIGURES}
    if line["kind"] == "val":
        prefix = f"{line['teacher']}/" if "teacher" in line else ""
        others = ("kind", "teacher", "step", "epoch", "rows")
        return {f"held-out/{prefix}{name}": value for name, value in line.items() if name not in others}
    return {}


class TensorBoard:
    """Write lines of `metrics.jsonl` as scalars into `folder`; do nothing if `folder` is `None` or the extra is
    missing. If it fails, as where its packages do not fit each other, the run is told and goes on without it.
    """

    def __init__(self, folder: Path | None, first_step: int) -> None:
        self._writer: Any = None
        if folder is not None and find_spec("tensorboard") is not None:
            with self._left_if_it_fails():
                from torch.utils.tensorboard import SummaryWriter  # optional: in an extra

                self._writer = SummaryWriter(str(folder), purge_step=first_step or None)

    def append(self, line: dict[str, Any]) -> None:
        """Write the figures of a line."""
        if self._writer is not None:
            with self._left_if_it_fails():
                for name, value in scalars_of(line).items():
                    self._writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Flush and close."""
        if self._writer is not None:
            with self._left_if_it_fails():
                self._writer.close()

    @contextmanager
    def _left_if_it_fails(self) -> Iterator[None]:
        """As services that track runs are (`report.logs.tracker`)."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  (whatever it raises, training does not stop for it)
            self._writer = None
            say(f"warning: TensorBoard: {type(error).__name__}: {first_line(error)}. The run goes on without it")
