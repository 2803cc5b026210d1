"""Failed rows are done again: shards that hold some are taken out of the ledger, where that can gain something."""

import numpy as np

from pipeline.base.console import say
from pipeline.cohort.plan import Plan
from pipeline.store.patches import PlannedPatches, StoredPatches
from pipeline.store.store import Status, Store

NAMED = 3
"""Shards that a note names. Our choice: enough to see what is wrong."""


def forget_failures(store: Store, plan: Plan, patches: PlannedPatches | StoredPatches) -> None:
    """Take shards with failed rows out of the ledger, so that they are done again, where that can only gain.

    A shard's good rows are done again with it. So it stays as it is unless one of its failed rows can be read now, and
    of each slide the first and the last of its good rows. Those ends stand for all between them, which are not read
    twice for it: a slide that is gone, replaced or cut short is seen, damage within one that is new since is not.
    """
    slide_of_row = plan.slide_of_row()
    pixels = np.empty((store.patch_px, store.patch_px, 3), np.uint8)

    def readable(row: int) -> bool:
        return patches.read(row, pixels).status is Status.OK

    kept = []
    for shard, entry in list(store.ledgers()):
        if entry is None or not entry["failures"]:
            continue
        failed = [failure["row"] for failure in entry["failures"]]
        good = np.setdiff1d(store.shard_rows(shard), failed)
        slides = slide_of_row[good]
        ends = np.append(slides[1:] != slides[:-1], True)[: len(good)]  # rows come slide by slide
        starts = np.append(True, ends[:-1])[: len(good)]
        if any(map(readable, failed)) and all(map(readable, good[starts | ends].tolist())):
            store.ledger_path(shard).unlink()
        else:
            kept.append(str(shard))
    if kept:
        names = ", ".join(kept[:NAMED]) + (", ..." if len(kept) > NAMED else "")
        say(f"note: shards that --retry-failures leaves as they are: {len(kept)} ({names}). Either their failed rows "
            "still cannot be read, or good ones no longer can. Is --slides-root right?")  # fmt: skip
