"""Stage one in the processes that help the first one (`torchrun`): they take shards until all are done."""

import os
import time
from functools import partial
from pathlib import Path

from pipeline.base.console import say
from pipeline.base.cores import own_cores
from pipeline.base.errors import StoreError
from pipeline.base.launched.group import LaunchedGroup
from pipeline.config.stages import ExtractConfig
from pipeline.disk.at_hand import noted
from pipeline.store.create import require_same
from pipeline.store.format import StoreSpec
from pipeline.store.patches import patches_to_embed
from pipeline.store.store import Store
from pipeline.store.zarr_format import METADATA
from stages.extract_teacher import embed_shards, start_teacher
from stages.many.shared_shards import VISIBLE_SECONDS, do_claimed


def help_extract(group: LaunchedGroup, out: Path, config: ExtractConfig) -> None:
    """Wait for the leader's call, and do shards of the store `out` until all are done.

    Plan and settings are those that the leader has put into the store.

    Raises:
        G2LError: the leader has failed; or this machine's teacher or device is not what the store was begun with.
    """
    with group.helping() as call:
        if call is None:
            return
        store = open_when_seen(out)
        teacher = store.teacher(config.teacher)
        plan, root = store.plan, config.slides_root
        running = start_teacher(config, plan)
        settings = {**teacher.settings, "precision": running.precision}
        require_same(teacher, plan, StoreSpec(running.encoder.record(), settings))
        patches = patches_to_embed(teacher, plan, root, tell=say)
        do_shards = partial(
            embed_shards,
            teacher,
            patches,
            running=running,
            workers=config.workers or own_cores(),
            max_failures=config.max_failures,
        )
        with noted(out, (plan.slide_path(slide, root) for slide in plan.slides), call["crashing"]):
            do_claimed(group, teacher, call["pending"], call["failed"], do_shards)


def open_when_seen(out: Path) -> Store:
    """The store that another process has just made; a file server may show it late.

    Raises:
        StoreError: it is not there.
    """
    until = time.monotonic() + VISIBLE_SECONDS
    while not (out / METADATA).exists():
        if time.monotonic() > until:
            raise StoreError(
                f"{out}: the first process has made this store, and here it is not there. Do all machines see the same "
                "folder?"
            )
        os.listdir(out.absolute().parent)
        time.sleep(1)
    return Store(out)
