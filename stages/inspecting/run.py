"""A run in words, for `g2l inspect`: what is trained by what, how far it has come, and its held-out figures."""

from pipeline.base.console import table
from pipeline.base.errors import CheckpointError
from pipeline.base.outside import reading
from pipeline.student.describe import takes_alpha
from pipeline.training.held_out import best_words, history_table, vals_by_teacher
from pipeline.training.identity import loss_weights, recorded_departures, recorded_teachers
from pipeline.training.run_folder import RunFolder
from stages.inspecting.recipe import recipe_rows


def describe_run(run: RunFolder) -> str:
    """A run in words.

    Raises:
        CheckpointError: its records are damaged.
    """
    with reading(run.identity_path, "damaged", CheckpointError):
        return _run_in_words(run)


def _run_in_words(run: RunFolder) -> str:
    identity, lines = run.read_identity(), run.metrics()
    student, options = identity["student"], identity["options"]
    steps = [line for line in lines if line["kind"] == "step"]
    first, *further = recorded_teachers(identity)
    rows: list[tuple[str, object]] = [
        ("run", run.folder),
        ("student", f"{student['name']} ({student['num_params'] / 1e6:.2f} M parameters, {student['weights']})"),
        ("teacher", first.name),
        *(("further teacher", f"{each.name}, {each.weight:.4g} of the loss") for each in further),
        ("loss", loss_words(options["loss"], options["alpha"] if takes_alpha(options["loss"]) else None)),
        (
            "steps",
            f"{steps[-1]['step'] if steps else 0:,}, epoch {steps[-1]['epoch'] + 1 if steps else 0} of "
            f"{options['epochs']}",
        ),
        *recipe_rows(recorded_departures(identity)),
        *_early_stop(run),
        ("finished", "yes" if run.student.exists() else "no: run train-student again to continue"),
    ]
    text = table(rows)
    for teacher, vals in vals_by_teacher(lines).items():
        suffix = f" as {teacher}" if teacher else ""
        text += f"\n\n{vals[-1]['rows']:,} held-out patches{suffix}\n" + history_table(vals)
    kept = run.exported_step() if run.student.exists() else None
    if words := best_words(lines, loss_weights(identity), kept):
        text += f"\n\n{words}"
    return text


def _early_stop(run: RunFolder) -> list[tuple[str, object]]:
    """Why a run ended early, if it did."""
    stop = run.stop()
    return [("early stop", stop.words())] if stop else []


def loss_words(loss: str, alpha: float | None) -> str:
    """A loss and its exponent, if it has one."""
    return loss if alpha is None else f"{loss}, alpha {alpha:g}"
