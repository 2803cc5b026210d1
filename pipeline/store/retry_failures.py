"""Retry failed rows: drop their shards from the ledger if a failed row can be read now."""

import numpy as np

from pipeline.base.console import say
from pipeline.cohort.plan import Plan
from pipeline.store.format import Status
from pipeline.store.patches import PlannedPatches, StoredPatches
from pipeline.store.store import StoredTeacher

NAMED = 3
"""Shards that a note names. Our choice: enough to see what is wrong."""


def forget_failures(teacher: StoredTeacher, plan: Plan, patches: PlannedPatches | StoredPatches) -> None:
    """Drop shards with failed rows from the ledger, so that they are done again, where nothing can be lost by it.

    A row that `--patch-qc` dropped is no failed one. A shard's good rows are done again too. So it stays unless one of
    its failed rows can be read now, and with it the first and the last good row of each slide. These two stand for the
    rows between them, which are not read for this: a slide that is gone, replaced or cut short is noticed; new damage
    within a slide is not.
    """
    slide_of_row = plan.slide_of_row()
    pixels = np.empty((teacher.tile_px, teacher.tile_px, 3), np.uint8)

    def readable(row: int) -> bool:
        status = patches.read(row, pixels).status
        return status is Status.OK or status.is_dropped

    kept = []
    for shard, entry in list(teacher.ledger.entries()):
        if entry is None or not entry["failures"]:
            continue
        failed = [failure["row"] for failure in entry["failures"]]
        left_out = [*failed, *(record["row"] for record in entry.get("dropped", []))]
        good = np.setdiff1d(teacher.ledger.rows(shard), left_out)
        slides = slide_of_row[good]
        ends = np.append(slides[1:] != slides[:-1], True)[: len(good)]  # rows come slide by slide
        starts = np.append(True, ends[:-1])[: len(good)]
        if any(map(readable, failed)) and all(map(readable, good[starts | ends].tolist())):
            teacher.ledger.forget(shard)
        else:
            kept.append(str(shard))
    if kept:
        names = ", ".join(kept[:NAMED]) + (", ..." if len(kept) > NAMED else "")
        say(
            f"note: shards that --retry-failures leaves as they are: {len(kept)} ({names}). Either their failed rows "
            "still cannot be read, or good ones no longer can. Is --slides-root right?"
        )
