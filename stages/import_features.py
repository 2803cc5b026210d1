"""Stage one without running the teacher: a store from features that another tool has made with it.

Find each feature file's slide, hold both against each other, prove with a few patches that they belong together, and
read the pixels. Left out of the paper's stage one: sampling and tissue, which the tool has decided.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipeline.base.console import say
from pipeline.base.cores import own_cores, usable_cores
from pipeline.base.devices import choose_device, keep_freed_memory
from pipeline.base.errors import ConfigError, StoreError
from pipeline.base.images import ImageFormat
from pipeline.base.launched.group import LaunchedGroup, SharedWork
from pipeline.base.loader import BatchLoader
from pipeline.base.versions import versions
from pipeline.cohort.audit import write_audit
from pipeline.cohort.plan import Plan
from pipeline.config.base import to_toml
from pipeline.config.tools import ImportConfig
from pipeline.disk.at_hand import remove_notes, watched
from pipeline.disk.file_names import file_named
from pipeline.disk.files import write_text
from pipeline.disk.first_look import refuse_slide
from pipeline.disk.locks import exclusive
from pipeline.disk.second_look import Work
from pipeline.encoders.build import BuiltEncoder
from pipeline.features.excluded import require_same_exclusions
from pipeline.features.importing import (
    Expected,
    FeatureRows,
    ImportedSlide,
    describe_import,
    read_slide,
    where_slides_are,
)
from pipeline.features.match import Matched
from pipeline.features.proof import BATCH_ROWS, Proof, embed_sample, prove, sample_rows
from pipeline.slides.patch_sample import patches_to_measure
from pipeline.slides.pool import accept_all
from pipeline.store.changed_slides import noting_changed
from pipeline.store.check import require_files
from pipeline.store.create import create_store, is_store, open_to_continue
from pipeline.store.format import StoreSpec
from pipeline.store.patches import PlannedPatches
from pipeline.store.retry_failures import forget_failures
from pipeline.store.store import Store, StoredTeacher
from pipeline.store.writer import StoreWriter, row_batches, warn_of_disk, write_failures
from pipeline.student.weights_place import weights_note
from stages.importing.look import Looked, expected_features, find_features, look_at_features
from stages.importing.plan import leave_out_refused, plan_again, plan_import, say_audit, say_estimate
from stages.importing.teacher import find_teacher, teacher_patch_px
from stages.many.shared_shards import counted_work, lead
from stages.reports.extract import Extracted


def import_features(
    folder: Path,
    out: Path,
    config: ImportConfig,
    *,
    record: dict[str, Any] | None = None,
    group: LaunchedGroup | None = None,
) -> Extracted:
    """Make or continue the store `out` from the feature files in `folder`; `record`, the resolved options and paths,
    goes into it as `config.toml`. With a `group`, this process leads it, and all of them read the pixels.

    Raises:
        G2LError: wrong input, features that are not the teacher's, a store of other inputs, a full disk; what was
            finished before is safe, and the same command continues.
    """
    with exclusive(out, "g2l import-features"):
        before = store_to_continue(out)
        if config.coords is not None and not os.path.isdir(config.coords):
            raise ConfigError(f"--coords {config.coords}: no such folder")
        matched, files = find_features(folder, config)
        if before is not None:
            require_same_exclusions(matched, before.plan, out)
        patch_px = teacher_patch_px(config, files)
        built, teacher = find_teacher(config.teacher, config.weights, patch_px)
        expected = expected_features(config, patch_px, teacher["width"])
        planned = planned_files(before.plan) if before else {}
        with watched(out, *slides_with_features(matched, expected), tell=say, refused_later=planned) as crashing:
            looked = look_at_features(matched, expected, config.workers or usable_cores())
            if note := looked.coords_note(config.coords):
                say(note)
            proof: Proof | None = None
            if before is None:
                plan = plan_import(looked)
                say_audit(plan, config.teacher)
                proof = prove_or_say_why(plan, looked, built, config)
                looked, plan = leave_out_refused(looked, plan, proof)
            else:
                looked, plan = plan_again(looked, before)
            say_estimate(plan, teacher["width"], config)
            spec = StoreSpec(teacher, store_settings(looked, plan, config))
            if before is None:
                notes = (proof.notes() if proof else {}) | weights_note(config.weights)
                create_store(out, plan, spec, versions(), **notes)
            stored = open_to_continue(out, plan, spec).first
            require_files(stored)
            if record is not None:
                write_text(out / "config.toml", to_toml({"import-features": record}))
            write_audit(plan.audit, out / "audit.csv")
            for path in crashing.keys() & planned.keys():  # it stays in the store's plan, and its rows fail
                refuse_slide(planned[path], crashing[path])
            return fill_store(stored, plan, looked.accepted, config, group, crashing)


def slides_with_features(matched: Matched, expected: Expected) -> tuple[Iterable[Path], Callable[[Path], Work]]:
    """The files of slides with features, and how to read one again in a child process as the import does."""
    pairs = {file_named(matched.root / row.path): (row, features) for row, features in matched.pairs}

    def read_again(path: Path) -> Work:
        row, features = pairs[path]
        return read_slide, (row, path, features, expected, patches_to_measure(len(pairs)))

    return pairs, read_again


def planned_files(plan: Plan) -> dict[str, Path]:
    """The files of a plan's slides by their real paths, as they will be opened."""
    paths = [plan.slide_path(slide) for slide in plan.slides]
    return {os.path.realpath(path): path for path in paths}


def store_to_continue(out: Path) -> Store | None:
    """The store that is there already; `None` where a new one is to be made.

    Raises:
        StoreError: there is something else, or a store that another command made.
    """
    if not is_store(out):
        return None
    store = Store(out)
    if "imported" not in store.first.settings:
        raise StoreError(f"{out} was not made by import-features and is not continued. Choose another --out")
    return store


def prove_or_say_why(plan: Plan, looked: Looked, teacher: BuiltEncoder | None, config: ImportConfig) -> Proof | None:
    """Prove that features and slides belong together, and say how well; `None` where it cannot be proven.

    Raises:
        StoreError: most of them do not.
    """
    why = "no patch of the sample can be read"
    if teacher is None:
        why = "the teacher's weights are not here; --weights gives them"
    elif not config.check_rows:
        why = "--check-rows 0"
    else:
        device = choose_device(config.device)
        keep_freed_memory()
        teacher.module.to(device)
        seen: ImageFormat | None = "jpeg" if config.pixels == "jpeg" else None
        workers = config.workers or usable_cores()
        sample = sample_rows(plan, config.check_rows)
        rows, again = embed_sample(plan, sample, teacher, device, image_format=seen, workers=workers, tell=say)
        if len(rows):
            name, bound = teacher.spec.name, config.min_cosine
            proof = prove(plan, looked.accepted, rows, again, teacher=name, coords=config.coords, min_cosine=bound)
            say(proof.words())
            return proof
    say(f"note: not proven that features and slides belong together ({why})")
    return None


def store_settings(looked: Looked, plan: Plan, config: ImportConfig) -> dict[str, Any]:
    """What the store records of how it was made; another import does not continue it."""
    rows_per_shard = min(config.rows_per_shard, plan.num_rows)
    return {
        "rows_per_shard": rows_per_shard,
        "pixels": config.pixels,
        "dtype": config.dtype,
        "precision": "float32",  # of what `verify` embeds again; the files do not say in which they were made
        "batch_size": min(BATCH_ROWS, rows_per_shard),
        "imported": describe_import(list(looked.accepted.values()), config.deciding()),
    }


def fill_store(
    stored: StoredTeacher,
    plan: Plan,
    slides: Mapping[str, ImportedSlide],
    config: ImportConfig,
    group: LaunchedGroup | None,
    crashing: dict[str, str],
) -> Extracted:
    """Copy what is pending into the store, failed rows too if the options say so.

    Raises:
        StoreError: the disk is full, or a file has changed meanwhile.
    """
    if config.retry_failures:
        forget_failures(stored, plan, PlannedPatches(plan, None, tell=say, accepts_changed=accept_all))
    pending = stored.ledger.pending()
    num_rows = stored.ledger.count_rows(pending)
    warn_of_disk(stored, plan, num_rows)
    started = time.monotonic()
    image_format = None if config.pixels == "none" else config.pixels
    accepts = noting_changed(stored.store.folder) if config.retry_failures else None
    do_shards = partial(
        copy_shards,
        stored,
        PlannedPatches(plan, image_format, tell=say, accepts_changed=accepts, stage=config.stage_folder, in_order=True),
        features=FeatureRows(plan, slides, config.coords, fills_store=True),
        workers=config.workers or own_cores(),
    )
    if group is None or not pending:
        do_shards(pending)
    else:
        message = {"crashing": crashing} | where_slides_are(plan, slides)
        lead(group, stored, pending, do_shards, message, "importing", stages=bool(config.stage_dir))
    if group is not None:
        remove_notes(stored.store.folder)  # of processes that were killed and replaced
    write_failures(stored)
    return Extracted(stored, num_rows, stored.ledger.status_counts(), time.monotonic() - started)


def copy_shards(
    teacher: StoredTeacher,
    patches: PlannedPatches,
    shards: Iterable[int],
    *,
    shared: SharedWork | None = None,
    features: FeatureRows,
    workers: int,
) -> None:
    """Read the pixels of the given shards, and commit them with their features; those that are `shared` are counted
    with those of other processes.

    Raises:
        StoreError: the disk is full, or a file has changed meanwhile.
    """
    size = teacher.settings["batch_size"]
    claimed = patches.claimed_ahead(shards, teacher.ledger.rows) if shared else shards
    loader = BatchLoader(
        patches.read_some, patch_px=teacher.patch_px, batch_size=size, workers=workers, device=torch.device("cpu")
    )
    with (
        StoreWriter(teacher, patches.describe, "imported", shared.done if shared else None) as writer,
        loader,
        patches.staged(() if shared else map(teacher.ledger.rows, shards)),
        counted_work(teacher, shards, "importing", shared) as work,
    ):
        failed, failed_here = work.add_failed(0), 0
        for batch in loader.batches(row_batches(teacher, claimed, size)):
            writer.put(batch.rows, features.read(batch.rows), batch.results)
            if new := writer.num_failures - failed_here:
                failed, failed_here = work.add_failed(new), writer.num_failures
            work.note(failed=failed)
            work.step(len(batch.rows))
    if note := patches.plain_note():
        say(note)
