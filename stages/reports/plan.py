"""Report of a plan: a summary of the slides, notes and warnings on some, and what stage one will write.

A thousand slides should not be a thousand lines: the terminal gets a summary and the odd slides, the audit's CSV all.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from pipeline.base.console import counted, table
from pipeline.base.units import format_bytes
from pipeline.cohort.audit import EXCLUDED, AuditRow
from pipeline.cohort.cases import case_facts, cases_warning, counted_cases
from pipeline.cohort.draws.budget import ASSUMED_WIDTH
from pipeline.cohort.draws.spent import budget_lines
from pipeline.cohort.plan import Plan
from pipeline.disk.label_words import spelling_notes
from pipeline.sampling import TRAIN, VAL
from pipeline.slides.patch_sample import expected_pixel_bytes
from stages.reports.plan_options import area_lines

ASSUMED_ROWS_PER_SHARD = 2048
USUAL_MPP = 0.5
"""um/px that the encoders of the table were trained at, the paper's teacher among them."""
MPP_TOLERANCE = 0.05
"""Level 0 may be off `USUAL_MPP` by this share without a warning. Our choice: 20x scans mostly have 0.49 to 0.51."""
SPREAD = {"um/px": "mpp", "tissue mm2": "tissue_mm2", "available": "patches_available", "taken": "patches_taken"}
"""Columns of the audit that the summary of a large plan gives, by their headings."""
NOT_BAD = {EXCLUDED: 1, "ok": 2}
"""Statuses that are no failure, and where their slides come in a list: after those that failed or are damaged."""
MOST_LISTED = 20
"""Slides to list of each kind. Our choice: a screenful; the CSV has all."""


def audit_table(plan: Plan) -> str:
    """The audit for the terminal: all slides of a small plan; for a large one, a summary and the odd slides."""
    order = sorted(plan.audit, key=_place_in_table)
    bad = _rarest_first([row for row in order if row.status not in NOT_BAD], lambda row: row.reason or row.status)
    shown = order if len(order) <= MOST_LISTED else bad[:MOST_LISTED]
    lines = [_slides_table(shown)] if shown else []
    lines += [_summary(plan.audit)] if len(order) > len(shown) else []
    lines += area_lines(plan.audit)
    lines += _listing("failed or damaged", [(row.slide_id, row.reason) for row in bad])
    for status, kind in ((EXCLUDED, "excluded"), ("ok", "with notes")):
        noted = _rarest_first([row for row in order if row.status == status], lambda row: row.reason)
        lines += _listing(kind, [(row.slide_id, row.reason) for row in noted])
    warned = _rarest_first(order, lambda row: row.warnings)
    lines += _listing("with warnings", [(row.slide_id, f"warning: {row.warnings}") for row in warned])
    return "\n".join(lines)


def _place_in_table(row: AuditRow) -> tuple[int, bool, bool, str]:
    """What went wrong comes first, and of that what gives no patch; then what is warned of."""
    return NOT_BAD.get(row.status, 0), row.status == "damaged", not row.warnings, row.slide_id


def _slides_table(rows: Sequence[AuditRow]) -> str:
    """Table of slides, a row each."""
    header = ("slide", "status", "um/px", "levels", "size", "tissue mm2", "available", "taken", "split")
    lines = [
        (
            row.slide_id,
            row.status,
            f"{row.mpp:.4g}",
            row.levels,
            f"{row.width} x {row.height}",
            "" if row.tissue_mm2 is None else row.tissue_mm2,
            row.patches_available,
            row.patches_taken,
            row.split,
        )
        if row.mpp
        else (row.slide_id, row.status, "", "", "", "", "", "", "")
        for row in rows
    ]
    return table(lines, header, right=(2, 3, 4, 5, 6, 7))


def _summary(audit: Sequence[AuditRow]) -> str:
    """Counts by status, and the spread of a few columns over the slides."""
    status = Counter(row.status for row in audit)
    counts = ", ".join(f"{number:,} {name}" for name, number in sorted(status.items()))
    lines: list[tuple[str, str, str, str]] = []
    for name, column in SPREAD.items():
        values = [value for row in audit if row.mpp and (value := getattr(row, column)) is not None]
        if values:
            least, middle, most = (f"{value:.4g}" for value in np.quantile(np.array(values, float), (0, 0.5, 1)))
            lines.append((name, least, middle, most))
    spread = "\n" + table(lines, ("of a slide", "least", "median", "most"), right=(1, 2, 3)) if lines else ""
    return f"{counted(len(audit), 'slide')}: {counts}; a line each in the CSV{spread}"


def _listing(kind: str, messages: Sequence[tuple[str, str]]) -> list[str]:
    """A line for each (slide, message), at most `MOST_LISTED`, then how many more slides of this kind there are."""
    shown = [f"{slide_id}: {message}" for slide_id, message in messages[:MOST_LISTED]]
    if len(messages) > MOST_LISTED:
        shown.append(f"... and {len(messages) - MOST_LISTED:,} more {kind}; the CSV has all")
    return shown


def _rarest_first(rows: Sequence[AuditRow], words: Callable[[AuditRow], str]) -> list[AuditRow]:
    """Rows of which something is said, of more than can be listed those first that say what few others do."""
    rows = [row for row in rows if words(row)]
    if len(rows) <= MOST_LISTED:
        return list(rows)
    said = [_kinds_of(row.slide_id, words(row)) for row in rows]
    slides = Counter(kind for kinds in said for kind in kinds)
    rarest = [min(slides[kind] for kind in kinds) for kinds in said]
    return [rows[i] for i in sorted(range(len(rows)), key=rarest.__getitem__)]


def _kinds_of(slide_id: str, message: str) -> set[str]:
    """What a message says, each warning for itself, without numbers and names that have some, as slides' mostly do."""
    message = re.sub(rf"(?<!\w){re.escape(slide_id)}(?!\w)", "#", message)
    return {re.sub(r"\S*\d\S*", "#", part) for part in message.split("; ")}


def estimate(
    plan: Plan,
    *,
    width: int | None = ASSUMED_WIDTH,
    dtype: str = "float16",
    rows_per_shard: int = ASSUMED_ROWS_PER_SHARD,
    pixels: str = "jpegxl",
) -> str:
    """Estimate what stage one will write, for the terminal: rows, shards, bytes of embeddings and pixels; with
    warnings about the split and about names.

    `width` is `None` if the teacher's is unknown until it is built.
    """
    rows, train, val = plan.num_rows, plan.count(TRAIN), plan.count(VAL)
    shard_rows = min(rows_per_shard, rows)
    centers = {s.center for s in plan.slides if s.center}
    if width is None:
        embeddings = f"{np.dtype(dtype).itemsize} bytes for each row and dimension of the teacher"
    else:
        size = format_bytes(rows * width * np.dtype(dtype).itemsize)
        embeddings = f"{size} of embeddings ({width}-d {dtype})"
    lines = [
        f"{counted(len(plan.slides), 'slide')} of {counted_cases(plan.slides)} and "
        f"{counted(len(centers), 'centre')}: {counted(rows, 'patch', 'patches')}, "
        f"{train:,} to train on and {val:,} held out.",
        f"Stage one will write {counted(-(-rows // shard_rows), 'shard')} of {counted(shard_rows, 'row')}: "
        f"{embeddings} and {_pixel_estimate(plan, pixels)}.",
    ]
    lines += budget_lines(plan.budget)
    if warning := _resolution_warning(plan):
        lines.append(f"warning: {warning}")
    if plan.config.val_strip is None and (warning := cases_warning(case_facts(plan.slides))):
        lines.append(f"warning: {warning}")
    return "\n".join([*lines, *_split_warnings(plan, train, val), *_spelling_warnings(plan)])


def _split_warnings(plan: Plan, train: int, val: int) -> list[str]:
    """Warnings of so many patches to train on and held out."""
    lines = []
    if not train:
        lines.append("warning: there is nothing to train on; see --val-fraction, --val-strip and the column split")
    if not val:
        lines.append("warning: nothing is held out, so a student cannot be scored; see --val-fraction and --val-strip")
    elif val == 1:
        lines.append("warning: only one patch is held out, and scoring a student needs two; see --val-fraction")
    elif val > train > 0 and plan.config.val_fraction < 0.5:
        cases = len({slide.case_id for slide in plan.slides})
        held_out = len({slide.case_id for slide in plan.slides if (slide.split == VAL).any()})
        lines.append(
            f"warning: more patches are held out than trained on: {held_out:,} of {counted(cases, 'case')} are held "
            f"out, though --val-fraction is {plan.config.val_fraction:g}. Where the manifest's column split does "
            "not say, a hash draws each case by itself, and of few cases may take many: fill in that column"
        )
    return lines


def _spelling_warnings(plan: Plan) -> list[str]:
    """Warnings of cases and centres that differ only in spelling."""
    slides = plan.slides
    kind = "slides, each a case of its own," if all(s.case_id == s.slide_id for s in slides) else "cases"
    notes = spelling_notes(kind, {s.case_id for s in slides})
    notes += spelling_notes("centres", {s.center for s in slides if s.center})
    return [f"warning: {note}" for note in notes]


def _resolution_warning(plan: Plan) -> str:
    """What to say of slides whose level 0, at which their patches are cut, is not at `USUAL_MPP`; empty if there are
    none, or if all patches have the um/px that was asked for.
    """
    if not plan.config.tiling:
        return ""
    mpps = [slide.geometry.target_mpp for slide in plan.slides]
    odd = [mpp for mpp in mpps if abs(mpp / USUAL_MPP - 1) > MPP_TOLERANCE]
    if not odd:
        return ""
    where = "" if len(odd) == len(mpps) else f" on {len(odd):,} of {counted(len(mpps), 'slide')}"
    sides = _span([mpp / USUAL_MPP for mpp in odd], 2)
    return (
        f"level 0, at which patches are cut, has {_span(odd, 4)} um/px{where}. Most encoders were trained at "
        f"{USUAL_MPP} um/px: a side of such a patch shows {sides} times the length of tissue that they know"
    )


def _span(values: Sequence[float], digits: int) -> str:
    """The least and the largest number, or the one that they are."""
    least, most = f"{min(values):.{digits}g}", f"{max(values):.{digits}g}"
    return least if least == most else f"{least} to {most}"


def _pixel_estimate(plan: Plan, pixels: str) -> str:
    """Size of the pixels, and how many patches it was measured on."""
    kind = {"jpegxl": "lossless pixels", "jpeg": "JPEG pixels", "none": "no pixels"}[pixels]
    if pixels == "none":
        return kind
    taken = [row for row in plan.audit if row.patches_taken]
    total = expected_pixel_bytes(taken, pixels)
    if total is None:
        return f"an unknown amount of {kind}"
    measured = sum(row.patches_measured or row.pixel_bytes is not None for row in taken)
    slides = sum(row.pixel_bytes is not None for row in taken)
    basis = f"measured on {counted(measured, 'patch', 'patches')} of {counted(slides, 'slide')}"
    return f"about {format_bytes(total)} of {kind} ({basis})"
