"""Report of stage two; without torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.base.console import counted
from pipeline.base.units import format_seconds
from pipeline.training.held_out import ONLY, best_words, gains_table
from pipeline.training.identity import loss_weights
from pipeline.training.run_folder import LONGER, HeldOut, RunFolder


@dataclass(frozen=True)
class Trained:
    """Result of stage two.

    Attributes:
        run: the run directory.
        num_steps: the last step of the run.
        num_new_steps: steps done by this process.
        held_out: held-out figures before the first step and of the exported student by teacher, in the run's order, as
            `RunFolder.held_out_figures`; empty if no rows are held out.
        seconds: training time of this process.
        step: step that the student was exported after.
    """

    run: RunFolder
    num_steps: int
    num_new_steps: int
    held_out: Mapping[str, HeldOut]
    seconds: float
    step: int | None = None


def train_report(trained: Trained) -> str:
    """Report for the terminal."""
    run = trained.run
    identity = run.read_identity()
    lines = [f"{run.folder}: {counted(trained.num_steps, 'step')}, the student is in {run.student}"]
    if stop := run.stop():
        lines.append(stop.words())
    if trained.num_new_steps:
        each = trained.seconds / trained.num_new_steps
        seconds = format_seconds(trained.seconds)
        lines.append(
            f"{counted(trained.num_new_steps, 'step')} in {seconds}, {each * 1000:,.0f} ms each with validations and "
            "checkpoints"
        )
    else:
        lines.append("nothing was left to do" + LONGER.format(run=run.folder))
    for teacher, (before, after) in trained.held_out.items():
        lines.append(gains_table(before, after, f" as {teacher}" if teacher != ONLY else ""))
    best = run.best()
    if words := best_words(run.validations(), loss_weights(identity), trained.step):
        has_choice = best is not None and best.step not in (trained.step, trained.num_steps)
        lines.append(f"{words} --keep best exports that one." if has_choice else words)
    return "\n".join(lines)
