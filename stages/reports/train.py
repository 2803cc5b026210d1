"""What stage two did, in words, and whether there is anything left for it to do: looked at without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.base.units import format_seconds
from pipeline.training.held_out import best_words, gains_table, teacher_weights
from pipeline.training.run_folder import LONGER, HeldOut, RunFolder


@dataclass(frozen=True)
class Trained:
    """What stage two did.

    Attributes:
        run: the run directory.
        num_steps: steps of the whole run.
        num_new_steps: steps that this process did.
        before, after: held-out figures before the first step, and of the exported student, if rows are held out.
        seconds: of this process's training.
        further: the same two of further teachers, by name; `before` and `after` are the first one's.
        step: after which step the exported student stood.
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
    """What was done, in words."""
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
        is_told = best is None or best.step in (trained.step, trained.num_steps)
        lines.append(words if is_told else f"{words} --keep best exports that one.")
    return "\n".join(lines)
