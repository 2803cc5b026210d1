"""Warn of slides that are one slide, though their files differ, and of a piece of glass that was scanned twice."""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.cohort.copies import BY_PIXELS, BY_QUICKHASH, near_copies, near_copy_warning
from pipeline.cohort.leakage.rescans import rescan_warnings
from pipeline.slides import dicom
from stages.planning.audit_slide import Audited


def note_near_copies(audited: Sequence[Audited]) -> tuple[list[Audited], list[tuple[list[str], str]]]:
    """Warn in the audit of slides that are one slide, though their files differ; also returns the ids of each group,
    and by what it is known.
    """
    noted, groups = list(audited), []
    quickhashes = [
        a.slide.quickhash if a.slide is not None and a.audit.vendor != dicom.VENDOR else None for a in audited
    ]
    for group in near_copies(quickhashes, [a.pixels for a in audited]):
        shared = {quickhashes[index] for index in group}
        by = BY_QUICKHASH if len(shared) == 1 and None not in shared else BY_PIXELS
        for index in group:
            words = near_copy_warning((audited[i].audit.slide_id for i in group if i != index), by)
            noted[index] = replace(audited[index], audit=audited[index].audit.with_warning(words))
        groups.append(([audited[i].audit.slide_id for i in group], by))
    return noted, groups


def note_rescans(audited: Sequence[Audited], same: Sequence[tuple[Sequence[str], str]]) -> list[Audited]:
    """Warn in the audit of slides that may be one piece of glass scanned twice; `same` has the ids of those that surely
    are, as `note_near_copies` returns them.
    """
    rows = [a.audit for a in audited]
    ids, cases = [row.slide_id for row in rows], [row.case_id for row in rows]
    warnings = rescan_warnings([a.look for a in audited], ids, cases, [group for group, _ in same])
    noted = list(audited)
    for index, words in warnings.items():
        noted[index] = replace(noted[index], audit=rows[index].with_warning(words))
    return noted
