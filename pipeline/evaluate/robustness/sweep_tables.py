"""Tables, notes and numbers of a sweep: APD and nIPD of each model, and its accuracy as class and centre come together.
Pure.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.evaluate.bootstrap import Draws, difference, few_groups_note
from pipeline.evaluate.robustness.sweep import SweptModel
from pipeline.evaluate.robustness.sweep_plan import OUR_SCHEDULE, SweepPlan
from pipeline.evaluate.robustness.tables import interval_if_any
from pipeline.report.content import Cell, Column, Interval, Table

SWEEP_WHAT = (
    "The sweep asks what it costs that class and centre go together in training. A logistic regression (PathoROB's) is "
    "trained on sets in which they are unrelated (V = 0), then more and more (Cramer's V), until one tells the other "
    "(V = 1), and is tested on the same balanced cases each time. APD is PathoROB's average performance drop over "
    "these sets, relative to the balanced one; nIPD is croma's, relative to what the balanced one has above chance. 0: "
    "nothing is lost; below 0: the centre is used in place of the class."
)
SPREAD = (
    "Intervals are of 95 %, from a bootstrap over the repetitions: how far other draws of the same cases would move "
    "the number. They are no sampling error: all repetitions draw from the same cases, and other cases or centres may "
    "give other numbers. More repetitions narrow them, however few the cases are."
)


def sweep_tables(plan: SweepPlan, models: Sequence[SweptModel], reference: str) -> list[Table]:
    """APD and nIPD with differences from the reference, and the accuracies that they are made of."""
    base = next((model for model in models if model.label == reference), None)
    columns = [
        Column("model"),
        Column("APD", "Average performance drop, relative to V = 0; 0 is none.", better="higher"),
        Column("difference", f"Of the APD from that of {reference}, repetition by repetition."),
        Column("nIPD", "Integrated over V, as a share of what V = 0 has above chance; 0 is none.", better="higher"),
        Column("difference, nIPD", f"Of the nIPD from that of {reference}, repetition by repetition."),
    ]
    rows: list[list[Cell]] = []
    for model in models:
        other = None if base is None or base is model else base
        drop = None if other is None else _less(model.apd, other.apd)
        degradation = None if other is None else _less(model.nipd, other.nipd)
        rows.append([model.label, interval_if_any(model.apd), drop, interval_if_any(model.nipd), degradation])
    title = f"Sweep of class and centre, {_schedule_in_words(plan)}"
    return [Table(title, columns, rows, SPREAD), _accuracy_table(plan, models)]


def _accuracy_table(plan: SweepPlan, models: Sequence[SweptModel]) -> Table:
    """Mean accuracy at each step."""
    names = [f"V = {strength:.2f}" for strength in plan.strengths]
    columns = [Column("model"), *(Column(name, better="higher") for name in names)]
    rows: list[list[Cell]] = [[model.label, *map(float, model.accuracies.mean(1))] for model in models]
    note = (
        f"Balanced accuracy on the test cases, mean over repetitions; chance is {1 / len(plan.classes):.3f}. Read APD "
        "beside it: a probe that tells little at V = 0 has little to lose."
    )
    return Table("Sweep: accuracy by the correlation of class and centre in training", columns, rows, note)


def sweep_notes(plan: SweepPlan, models: Sequence[SweptModel], repetitions: int) -> list[str]:
    """What a reader of the sweep must know: the schedule, what can be compared, and what went wrong."""
    last = len(plan.splits) - 1
    notes = [
        f"Sweep: {_schedule_in_words(plan)}; {len(plan.splits)} steps with V = "
        f"{', '.join(f'{strength:.2f}' for strength in plan.strengths)}; {repetitions} repetitions; {plan.patches} "
        f"patches of a case in a cell; of each cell {plan.tested} cases are tested on. Training cases of each cell at "
        f"V = 0: {'; '.join(plan.cases_at(0))}. At V = 1: {'; '.join(plan.cases_at(last))}."
    ]
    if plan.schedule == OUR_SCHEDULE:
        notes.append(
            "The schedule is G2L's own and depends on the set: compare APD and nIPD within this report only, never "
            "with published ones or those of another set."
        )
    else:
        notes.append(
            "Schedule, cases, patches and probe are PathoROB's; its draws are others, and so is its embedding of some "
            "models (class token and mean of patch tokens). It is the in-domain APD: centres of subset OOD are not "
            "read."
        )
    few = few_groups_note(repetitions, "repetitions")
    return [*notes, *filter(None, [few]), *(f"{m.label}: {note.rstrip('.')}." for m in models for note in m.notes)]


def sweep_data(plan: SweepPlan, models: Sequence[SweptModel]) -> dict[str, Any]:
    """The schedule and every accuracy, for the report's JSON."""
    return {
        "schedule": plan.schedule,
        "centres": list(plan.centers),
        "classes": list(plan.classes),
        "patches of a case": plan.patches,
        "cases tested": plan.tested,
        "cramers_v": list(plan.strengths),
        "training patches (centre, class, patches)": [[list(cell) for cell in split] for split, _ in plan.splits],
        "balanced accuracy (step, repetition)": {model.label: model.accuracies.tolist() for model in models},
    }


def _schedule_in_words(plan: SweepPlan) -> str:
    """Whose schedule, of which centres and classes."""
    whose = "G2L's own schedule" if plan.schedule == OUR_SCHEDULE else f"PathoROB's schedule of {plan.schedule}"
    return f"{whose}, {', '.join(plan.classes)} from {', '.join(plan.centers)}"


def _less(first: Draws | None, second: Draws | None) -> Interval | None:
    """`None` where either does not exist."""
    if first is None or second is None or np.isnan(first.value) or np.isnan(second.value):
        return None
    return difference(first, second)
