"""List what a fidelity score leaves out of its store: rows without an embedding, rows that were not drawn, and slides
or centres with too few patches for figures of their own.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.base.console import counted
from pipeline.evaluate.fidelity.score import StoreRows
from pipeline.report.content import Exclusion
from pipeline.sampling import TRAIN, VAL
from pipeline.store.format import Status
from pipeline.store.store import StoredTeacher

MIN_PART_ROWS = 5
"""A slide or centre with fewer held-out patches has no figures of its own. Our choice."""
MAX_ROWS_NAMED = 5
"""So many rows of a slide are named by number."""

Names = NDArray[np.str_]


def failed_rows(teacher: StoredTeacher) -> list[Exclusion]:
    """Planned rows that the store has no embedding of: one exclusion for each slide and reason, held-out rows first,
    and one for all that are not done yet. Those that `--patch-qc` dropped are left out by rule.
    """
    status, split = teacher.status(), teacher.plan.split()
    reasons = {failure["row"]: str(failure["reason"]) for failure in teacher.ledger.failures()}
    exclusions: list[Exclusion] = []
    for code, words in ((VAL, "held-out"), (TRAIN, "training")):
        of_split = split == code
        without = np.flatnonzero(of_split & (status != Status.OK) & (status != Status.ABSENT)).tolist()
        dropped = {row: code for row in without if (code := Status(int(status[row]))).is_dropped}
        failed = [row for row in without if row not in dropped]
        whys = {row: reasons.get(row, Status(int(status[row])).name) for row in failed}
        exclusions += _by_slide(teacher, {row: f"no embedding in the store: {why}" for row, why in whys.items()}, words)
        by_rule = {row: f"dropped by --patch-qc: {code.words}" for row, code in dropped.items()}
        exclusions += [replace(each, by_rule=True) for each in _by_slide(teacher, by_rule, words)]
        if absent := int((of_split & (status == Status.ABSENT)).sum()):
            exclusions.append(
                Exclusion(_patches(absent, words), "the store is not finished; continue it", count=absent)
            )
    return exclusions


def rows_of_changed(teacher: StoredTeacher, rows: StoreRows, why_of_slide: Mapping[int, str]) -> list[Exclusion]:
    """Rows that were left out as of a changed file, likewise; `why_of_slide` has the slides' numbers in the plan."""
    split, slide_of_row = teacher.plan.split(), teacher.plan.slide_of_row()
    exclusions: list[Exclusion] = []
    for code, words in ((VAL, "held-out"), (TRAIN, "training")):
        of_split = rows.changed[split[rows.changed] == code].tolist()
        exclusions += _by_slide(teacher, {row: why_of_slide[int(slide_of_row[row])] for row in of_split}, words)
    return exclusions


def changed_note(exclusions: list[Exclusion]) -> str:
    """How many patches those are, in words; "" if there are none."""
    total = sum(exclusion.count for exclusion in exclusions)
    if not total:
        return ""
    verbs = ("is", "has") if total == 1 else ("are", "have")
    return (
        f"{counted(total, 'patch', 'patches')} {verbs[0]} of slides whose files are not those that the teacher has "
        f"seen, and {verbs[1]} no part in this."
    )


def _by_slide(teacher: StoredTeacher, why_of_row: Mapping[int, str], words: str) -> list[Exclusion]:
    """An exclusion for each slide and reason; `words` say which patches they are."""
    slide_of_row = teacher.plan.slide_of_row()
    groups: dict[tuple[int, str], list[int]] = {}
    for row, why in why_of_row.items():
        groups.setdefault((int(slide_of_row[row]), why), []).append(row)
    return [
        Exclusion(
            f"{_patches(len(rows), words)} of slide {teacher.plan.slides[slide].slide_id} ({_rows(rows)})",
            why,
            count=len(rows),
        )
        for (slide, why), rows in groups.items()
    ]


def _patches(number: int, words: str) -> str:
    return counted(number, f"{words} patch", f"{words} patches")


def _rows(rows: list[int]) -> str:
    """Numbers of rows, the first few by name."""
    shown = ", ".join(map(str, rows[:MAX_ROWS_NAMED]))
    more = f" and {len(rows) - MAX_ROWS_NAMED:,} more" if len(rows) > MAX_ROWS_NAMED else ""
    return f"row {shown}" if len(rows) == 1 else f"rows {shown}{more}"


def missing_note(exclusions: list[Exclusion]) -> str:
    """How many patches are missing, in words; "" if none is."""
    if not exclusions:
        return ""
    total = sum(exclusion.count for exclusion in exclusions)
    verb = "has" if total == 1 else "have"
    dropped = sum(exclusion.count for exclusion in exclusions if exclusion.by_rule)
    of_these = f" --patch-qc dropped {dropped:,} of them." if dropped else ""
    return (
        f"{counted(total, 'patch', 'patches')} of the plan {verb} no embedding in the store and {verb} no part in this."
        f"{of_these}"
    )


def sample_note(teacher: StoredTeacher, rows: StoreRows) -> str:
    """How many rows `--store-rows` left of those that there are; "" if it left all."""
    of_val, of_train = len(teacher.ok_rows(VAL)), len(teacher.ok_rows(TRAIN))
    num_val, num_train = len(rows.val), len(rows.train)
    if num_val + num_train + len(rows.changed) == of_val + of_train:
        return ""
    return (
        f"A sample by hash, for --store-rows: {num_val:,} of {of_val:,} held-out patches are scored, and maps are "
        f"fitted on {num_train:,} of {of_train:,} training patches."
    )


def part_rows(parts: Names, *, small: bool) -> dict[str, NDArray[np.int64]]:
    """Rows of each slide or centre of `parts` (N,) by name, sorted: of the `small` ones, or of all others. Rows whose
    name is "" are of none.
    """
    rows_of = {str(name): np.flatnonzero(parts == name) for name in np.unique(parts[parts != ""])}
    return {name: rows for name, rows in rows_of.items() if (len(rows) < MIN_PART_ROWS) == small}


def not_shown(parts: Names) -> list[dict[str, str | int]]:
    """Parts without figures of their own and their patches; what has no name is one of them, called "", unless that is
    all.
    """
    named: list[dict[str, str | int]] = [
        {"name": name, "patches": len(rows)} for name, rows in part_rows(parts, small=True).items()
    ]
    nameless = int((parts == "").sum())
    return [*named, {"name": "", "patches": nameless}] if 0 < nameless < len(parts) else named


def not_shown_note(parts: Names, name: str) -> str:
    """The same in words, "" if all are shown or no row has a name; `name` is "slide" or "centre"."""
    small, nameless = part_rows(parts, small=True), int((parts == "").sum())
    if nameless == len(parts):
        return ""
    sentences = []
    if small:
        of = counted(sum(map(len, small.values())), "patch", "patches")
        few = f"fewer than {MIN_PART_ROWS}" if len(small) == 1 else f"each with fewer than {MIN_PART_ROWS}"
        sentences.append(f"Not shown: {counted(len(small), name)} with {of}, {few}; report.json names them.")
    if nameless:
        verb = "is" if nameless == 1 else "are"
        sentences.append(f"{counted(nameless, 'patch', 'patches')} without a {name} {verb} in no {name}'s figures.")
    return " ".join(sentences)
