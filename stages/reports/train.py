"""Report of stage two; without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.base.units import format_seconds
from pipeline.training.held_out import best_words, gains_table
from pipeline.training.identity import teacher_weights
from pipeline.training.run_folder import LONGER, HeldOut, RunFolder


@dataclass(frozen=True)
class Trained:
    """Result of stage two.

    Attributes:
        run: the run directory.
        num_steps: steps in the whole run.
        num_new_steps: steps done by this process.
        before, after: held-out figures before the first step and of the exported student, if rows are held out; with
            several teachers, those of the first.
        seconds: training time of this process.
        further: the same two for each further teacher, by name.
        step: step that the student was exported after.
    """

    run: RunFolder
    num_steps: int
    num_new_steps: int
    before: dict[str, float] | None
    after: dict[str, float] | None
    seconds: float
    further: Mapping[str, HeldOut] = field(default_factory=dict)
    step: int | None = None


def report(trained: Trained) -> str:
    """Report for the terminal."""
    run = trained.run
    identity = run.read_identity()
    lines = [f"{run.folder}: {trained.num_steps:,} steps, the student is in {run.student}"]
    if trained.num_new_steps:
        each = trained.seconds / trained.num_new_steps
        lines.append(f"{trained.num_new_steps:,} steps in {format_seconds(trained.seconds)}, {each * 1000:.0f} ms each")
    else:
        lines.append("nothing was left to do" + LONGER.format(run=run.folder).split(" (")[0])
    first = identity["teacher"]["name"] if trained.further else ""
    for teacher, (before, after) in {first: (trained.before, trained.after), **trained.further}.items():
        if before and after:
            lines.append(gains_table(before, after, f" as {teacher}" if teacher else ""))
    best = run.best()
    if words := best_words(run.validations(), teacher_weights(identity), trained.step):
        has_choice = best is not None and best.step not in (trained.step, trained.num_steps)
        lines.append(f"{words} --keep best exports that one." if has_choice else words)
    return "\n".join(lines)
