"""Stage one in the processes that help the first one (`torchrun`): they take shards until all are done."""

import contextlib
import os
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from pipeline.base.console import say
from pipeline.base.cores import own_cores
from pipeline.base.errors import StoreError
from pipeline.base.launched.group import LaunchedGroup
from pipeline.config.stages import ExtractConfig
from pipeline.disk.at_hand import noted
from pipeline.disk.raw_arrays import METADATA
from pipeline.store.changed_slides import noting_changed
from pipeline.store.create import require_same
from pipeline.store.format import TEACHERS_FOLDER, StoreSpec, teacher_folder
from pipeline.store.patches import patches_to_embed
from pipeline.store.store import Store, StoredTeacher
from stages.extract_teacher import embed_shards
from stages.extracting.teacher import start_teacher
from stages.many.shared_shards import VISIBLE_SECONDS, do_claimed


def help_extract(group: LaunchedGroup, out: Path, config: ExtractConfig) -> None:
    """Wait for the leader's calls, and do shards of the store `out`, or of a round of it, until all are done.

    Plan and settings are those that the leader has put into the store. The slides lie where the leader says: the store
    may have been begun when they lay elsewhere.

    Raises:
        G2LError: the leader has failed; or this machine's teacher or device is not what the store was begun with.
    """
    with group.helping() as calls, ExitStack() as held:
        store: Store | None = None
        for call in calls:
            if store is None:
                store = open_when_seen(out)
                plan, root = store.plan.at_places(call["places"]), config.slides_root
                running = start_teacher(config, plan)
                slides = (plan.slide_path(slide, root) for slide in plan.slides)
                held.enter_context(noted(out, slides, call["crashing"]))
            teacher = made_when_seen(teacher_when_seen(store, config.teacher), call["view"])
            settings = {**teacher.settings, "precision": running.precision}
            require_same(teacher, plan, StoreSpec(running.encoder.record(), settings))
            accepts = noting_changed(out) if config.retry_failures else None
            do_shards = partial(
                embed_shards,
                teacher,
                patches_to_embed(teacher, plan, root, tell=say, accepts_changed=accepts, stage=config.stage_folder),
                running=running,
                workers=config.workers or own_cores(),
                max_failures=config.max_failures,
            )
            do_claimed(group, teacher, call, do_shards)


def made_when_seen(teacher: StoredTeacher, view: int) -> StoredTeacher:
    """A teacher's embeddings, or the round of a view of it that another process has just made.

    Raises:
        StoreError: it is not there.
    """
    if not view:
        return teacher
    await_made(teacher.round_folder(view))
    made = teacher.round(view)
    assert made is not None
    return made


def teacher_when_seen(store: Store, name: str) -> StoredTeacher:
    """The first teacher of a store, or a further one whose folder another process has just made.

    Raises:
        StoreError: it is not there.
    """
    if name != store.first.name:
        await_made(store.folder / TEACHERS_FOLDER / teacher_folder(name))
    return store.teacher(name)


def open_when_seen(out: Path) -> Store:
    """The store that another process has just made.

    Raises:
        StoreError: it is not there.
    """
    await_made(out)
    return Store(out)


def await_made(folder: Path) -> None:
    """Wait for a folder with arrays that another process has just made; a file server may show it late.

    Raises:
        StoreError: it is not there.
    """
    until = time.monotonic() + VISIBLE_SECONDS
    while not (folder / METADATA).exists():
        if time.monotonic() > until:
            raise StoreError(
                f"{folder}: the first process has made this folder, and here it is not there. Do all machines see the "
                "same folder?"
            )
        for above in folder.absolute().parents[1::-1]:  # makes a client of NFS ask its server
            with contextlib.suppress(OSError):
                os.listdir(above)
        time.sleep(1)
