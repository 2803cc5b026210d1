"""What a reader must know beside the figures of fidelity: cases, chance, maps, and where each model comes from."""

from collections.abc import Sequence

import numpy as np

from pipeline.base.console import counted
from pipeline.cohort.cases import case_facts, cases_warning
from pipeline.cohort.plan import Plan
from pipeline.evaluate.bootstrap import GroupResamples, bound_note, few_groups_note, interval, mean_draws
from pipeline.evaluate.fidelity.rows import failed_rows, missing_note, sample_note
from pipeline.evaluate.fidelity.score import FITTED, Alignment, RowFigures, StoreEmbeddings, StoreRows, TeacherSpace
from pipeline.report.content import AFTER, Interval
from pipeline.sampling import TRAIN
from pipeline.store.store import StoredTeacher
from pipeline.student.resolve import NamedModel
from pipeline.student.start import Start, seen_before
from pipeline.training.linear_map import ROWS, LinearMap
from pipeline.training.similarity import NUM_NEIGHBOURS


def row_notes(
    teacher: StoredTeacher, rows: StoreRows, space: TeacherSpace, num_cases: int, cka: dict[str, Alignment]
) -> list[str]:
    """On the scored rows: what is missing, which cases they are of, chance, and ties."""
    num_rows = len(rows.val)
    texts = [*filter(None, [missing_note(failed_rows(teacher)), sample_note(teacher, rows)])]
    texts += case_notes(teacher, rows, num_cases)
    neighbours = min(NUM_NEIGHBOURS, num_rows - 1)
    levels = ", ".join(f"{of.by_chance:.3f} ({label})" for label, of in cka.items())
    texts.append(
        f"By chance top-1 is {1 / num_rows:.3f}, top-5 {min(5 / num_rows, 1):.3f}, the overlap "
        f"{neighbours / (num_rows - 1):.3f}, CKA 0, and the plain CKA {levels}: its mean over all orders of "
        "the rows."
    )
    if without := [label for label, of in cka.items() if np.isnan(of.debiased)]:
        why = "it needs four patches" if num_rows < 4 else "of one side no more than a single embedding differs"
        texts.append(f"No CKA of {', '.join(without)}: {why}.")
    if ties := num_rows - len(np.unique(space.plain, axis=0)):
        texts.append(
            f"{counted(ties, 'patch has', 'patches have')} the same embedding as another one (blank places, mostly). "
            "Such ties count as not found, so that even the teacher's own retrieval is below 1."
        )
    if len(rows.train) < 2 * teacher.width:
        texts.append(
            f"The linear maps are fitted on {len(rows.train):,} rows for {teacher.width:,} dimensions: too few "
            "to be exact, so that even the teacher's own row is below 1."
        )
    if not teacher.store.has_pixels:
        texts.append("No contact sheet: the store keeps no pixels.")
    return texts


def case_notes(teacher: StoredTeacher, rows: StoreRows, num_cases: int) -> list[str]:
    """What a reader must know of the `num_cases` cases that the held-out rows are of."""
    texts = []
    cases = teacher.plan.case_of_row()
    held_out, trained_on = np.unique(cases[rows.val]), np.unique(cases[teacher.ok_rows(TRAIN)])
    if shared := len(np.intersect1d(held_out, trained_on)):
        texts.append(
            f"Of {shared} of the {len(held_out)} held-out cases other patches are trained on (a strip of each "
            "slide is held out): these figures are too good for new cases."
        )
    of_val = np.unique(teacher.plan.slide_of_row()[rows.val])
    if warning := cases_warning(case_facts(teacher.plan.slides)):
        held = case_facts(teacher.plan.slides[i] for i in of_val)
        unclear = held.unknown + held.not_recorded
        of_held = f"Of the {held.slides:,} held-out slides, {unclear:,} have no known case; intervals"
        what = of_held if unclear else "Intervals"
        texts.append(f"{warning[0].upper()}{warning[1:]}. {what} may be too narrow.")
    if num_cases < 2:
        texts.append(
            "All held-out patches are of one case: no interval can be given, and nothing follows for other cases."
        )
    elif note := few_groups_note(num_cases, "cases"):
        texts.append(note)
    return texts


def map_notes(maps: dict[str, LinearMap]) -> list[str]:
    """What a reader must know of how the strengths of the fitted maps were chosen."""
    texts = []
    if any(fitted.left_out == ROWS for fitted in maps.values()):
        texts.append(
            "All training patches are of one case: the ridge of the linear maps is chosen by leaving out "
            "single patches, which is rather too weak for other cases."
        )
    if strongest := [label for label, fitted in maps.items() if fitted.is_strongest]:
        texts.append(
            f"The ridge of the linear map is the strongest of its grid for {', '.join(strongest)}: next to "
            "nothing of the teacher is mapped to other cases."
        )
    return texts


def at_bound(
    models: Sequence[StoreEmbeddings],
    overlap: dict[str, Interval],
    figures: dict[tuple[str, str], RowFigures],
    resamples: GroupResamples,
) -> list[str]:
    """The note on estimates of 0 or 1, for all models but the teacher, for which they are 1 by definition."""
    estimates = {
        m.label: [overlap[m.label], interval(mean_draws(figures[m.label, FITTED].top1, resamples))]
        for m in models
        if not m.is_teacher
    }
    return [note] if (note := bound_note(estimates)) else []


def provenance(teacher: StoredTeacher, models: Sequence[StoreEmbeddings]) -> list[str]:
    """Which other teachers there are, whether the held-out patches are really new to each model, and why a student's
    projector is not used.
    """
    name = teacher.spec.teacher["name"]
    others_of_store = [other for other in teacher.store.teachers if other != name]
    texts = [
        f"The store has embeddings of {other} too: `--teacher {other}` measures by them." for other in others_of_store
    ]
    weights = teacher.spec.teacher["weights_sha256"]
    for model in models:
        named = model.named
        if why := named.why_no_projector(weights):
            texts.append(why)
        if named.role == AFTER and (note := training_note(named, teacher.plan)):
            texts.append(f"{model.label} {note}")
    if others := [model.label for model in models if not (model.is_teacher or model.named.role)]:
        texts.append(f"Whether {', '.join(others)} saw these slides in pretraining is not known here.")
    return texts


def training_note(student: NamedModel, plan: Plan) -> str:
    """Whether the held-out cases of a plan are new to a student, as the rest of a sentence; "" where that goes without
    saying, since it was trained on this plan and from weights that no other plan trained.
    """
    seen = seen_before(Start(str(student.student), student), plan)
    other = "" if student.plan_hash == plan.hash else "another plan than the store's"
    if seen.shared:
        return (
            f"or a student that it was begun from was trained on {seen.shared:,} of the {seen.cases:,} held-out cases, "
            "by another plan than the store's: its figures are too good."
        )
    if seen.is_unknown and not other:
        return "was begun from a student of another plan, which is not at hand: it may have seen the held-out patches."
    if seen.is_unknown:
        where = other if student.plan_hash else "a plan that its folder does not name"
        return f"was trained on {where}: it may have seen the held-out patches."
    return f"was trained on {other}, but on none of the held-out cases, by their names." if other else ""
