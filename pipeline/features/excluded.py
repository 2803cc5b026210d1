"""Leave slides out of an import whose cases must not be trained on: `g2l import-features --exclude-cases`.

They are left out after files and slides have been matched, so that whose a file is does not depend on it. Nothing of
them is read.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.base.errors import StoreError
from pipeline.cohort.audit import EXCLUDED, AuditRow
from pipeline.cohort.leakage.exclusions import changed_exclusions, exclude_rows
from pipeline.cohort.plan import Plan
from pipeline.features.match import Matched

MOST_LISTED = 20
"""Slides that an error lists. Our choice."""


def leave_out_cases(matched: Matched, lists: Sequence[str] | None) -> Matched:
    """The slides with their feature files, less those of cases in `lists`; notes say how many.

    Raises:
        ConfigError: a list cannot be used.
        ManifestError: a table is not well formed.
    """
    parted = exclude_rows(matched.rows, lists or ())
    gone = parted.excluded_ids
    excluded = tuple(
        AuditRow(row.slide_id, EXCLUDED, reason, row.path, row.case_id, row.center or "")
        for row, reason in parted.excluded
    )
    return replace(
        matched,
        pairs=tuple(pair for pair in matched.pairs if pair[0].slide_id not in gone),
        failed=tuple(slide for slide in matched.failed if slide.audit.slide_id not in gone),
        notes=(*matched.notes, *parted.notes),
        rows=parted.kept,
        excluded=excluded,
    )


def require_same_exclusions(matched: Matched, plan: Plan, store: Path) -> None:
    """See that a store is continued with the slides excluded that were when it was made; `plan` is the store's.

    Raises:
        StoreError: others are; lists them.
    """
    before = {row.slide_id for row in plan.audit if row.status == EXCLUDED}
    changes = changed_exclusions(
        before,
        {row.slide_id for row in plan.audit} - before,
        {row.slide_id for row in matched.excluded},
        {row.slide_id for row in matched.rows},
    )
    if changes:
        listing = "\n".join(f"  {line}" for line in changes[:MOST_LISTED])
        more = f"\n  and {len(changes) - MOST_LISTED:,} more" if len(changes) > MOST_LISTED else ""
        raise StoreError(
            f"{store} was made with other inputs and is not continued (store -> now):\n{listing}{more}\n"
            "Give the same --exclude-cases, or choose another --out"
        )
