"""Name the figures of metrics for whoever shows them, and write them for TensorBoard if that extra is installed.

For watching a run; `metrics.jsonl` is the record. A run that continues hides points after its checkpoint.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

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
    missing.
    """

    def __init__(self, folder: Path | None, first_step: int) -> None:
        self._writer: Any = None
        if folder is not None and find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter  # optional: in an extra

            self._writer = SummaryWriter(str(folder), purge_step=first_step or None)

    def append(self, line: dict[str, Any]) -> None:
        """Write the figures of a line."""
        if self._writer is not None:
            for name, value in scalars_of(line).items():
                self._writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Flush and close."""
        if self._writer is not None:
            self._writer.close()
