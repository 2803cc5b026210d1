"""Stage one: run the teacher once over the planned patches, and keep its embeddings and its pixels.

G2L, section "Knowledge distillation": the teacher is frozen, so its embeddings are computed once and the student never
shares accelerator memory with it. With `--views` the teacher also sees seeded views of each patch, which the student
replays: beyond the paper, whose student is compared with the embedding of the plain patch.
"""

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from pipeline.base.console import Progress, say
from pipeline.base.cores import usable_cores
from pipeline.base.devices import (
    autocast,
    choose_batch_size,
    choose_device,
    choose_precision,
    continued_precision,
    describe_device,
    keep_freed_memory,
    mark,
    versions,
)
from pipeline.base.errors import ConfigError, StoreError
from pipeline.base.loader import Batch, BatchLoader
from pipeline.base.units import format_bytes
from pipeline.cohort.plan import Plan
from pipeline.config.base import to_toml
from pipeline.config.model_names import PRETRAINED
from pipeline.config.stages import ExtractConfig
from pipeline.disk.files import write_text
from pipeline.disk.folders import is_free
from pipeline.disk.locks import exclusive
from pipeline.disk.tables import write_records
from pipeline.encoders.build import BuiltEncoder, Encoder, build_encoder
from pipeline.slides.patch_sample import expected_pixel_bytes
from pipeline.store.patches import PatchRead, PlannedPatches, ViewedPatches, patches_to_embed
from pipeline.store.retry_failures import forget_failures
from pipeline.store.store import Status, Store, StoreSpec, create_store, open_to_continue
from pipeline.store.teachers import all_teachers, needs_slides, open_further
from pipeline.store.writer import StoreWriter
from pipeline.student.teacher_weights import weights_note
from pipeline.training.preflight import preflight
from stages.reports.extract import Extracted as Extracted
from stages.reports.extract import report as report

T = TypeVar("T")

MPP_TOLERANCE = 0.01
"""A plan within 1 % of the teacher's own resolution is at that resolution."""
NAMED = 3
"""Missing slides that a note names. Our choice: enough to see what is wrong."""


def extract_teacher(plan: Plan, out: Path, config: ExtractConfig, *, record: dict[str, Any] | None = None) -> Extracted:
    """Make or continue the store `out`; `record`, the resolved options and paths, goes into it as `config.toml`.

    Raises:
        G2LError: wrong input, a store of another plan, teacher or setting, a full disk, too many failures; what was
            finished before is safe, and the same command continues.
    """
    with exclusive(out, "g2l extract-teacher"):
        if needs_slides(out, config.teacher):
            check_slides(plan, config.slides_root)
        device = choose_device(config.device)
        keep_freed_memory(device)
        precision = choose_precision(config.precision, device)
        teacher = build_encoder(config.teacher, config.weights or PRETRAINED, plan.config.patch_px)
        if teacher.spec.mpp and abs(teacher.spec.mpp / plan.config.mpp - 1) > MPP_TOLERANCE:
            say(f"note: {config.teacher} was trained at {teacher.spec.mpp:g} um/px, the plan is at {plan.config.mpp:g}")
        teacher.module.to(device)
        store = prepare_store(plan, out, config, teacher, device, precision)
        if store.base is not store:
            say(f"note: {config.teacher} is a further teacher of {out}, with a ledger of its own; it sees the "
                f"{'stored pixels' if store.base.has_pixels else 'slides, for the store has no pixels'}")  # fmt: skip
        if record is not None:
            kept = {"rows_per_shard": store.rows_per_shard, "pixels": store.base.image_format}
            own = record | kept if store.base is not store else record
            write_text(store.folder / "config.toml", to_toml({"extract-teacher": own}))
        if config.retry_failures:
            forget_failures(store, plan, patches_to_embed(store, plan, config.slides_root, encode=False))
        pending = store.pending_shards()
        num_rows = sum(len(store.shard_rows(shard)) for shard in pending)
        warn_of_disk(store, plan, num_rows)
        started = time.monotonic()
        arithmetic = continued_precision(precision, device, full_float32="full_float32" in store.attributes)
        embed_shards(store, plan, pending, teacher.module, device, arithmetic, config)
        seconds = time.monotonic() - started
        write_failures(store)
    return Extracted(store, num_rows, store.status_counts(), seconds)


def prepare_store(
    plan: Plan, out: Path, config: ExtractConfig, teacher: BuiltEncoder, device: torch.device, precision: str
) -> Store:
    """Make the store, or open the one that is there if it was made by the same plan, teacher and settings.

    A finished store takes the embeddings of a further teacher; what is then returned are those. A batch size left open
    is the existing store's own, so that a run continues on another card.
    """
    existing = Store(out) if (out / "zarr.json").exists() else None
    if existing is None and not is_free(out):
        raise StoreError(f"{out} exists and is not a store; nothing is overwritten. Choose another --out")
    further = existing is not None and config.teacher != existing.spec.teacher["name"] and not existing.pending_shards()
    base = existing if further else None
    begun = all_teachers(base).get(config.teacher) if base else existing
    rows_per_shard, pixels = config.rows_per_shard, str(config.pixels)
    if base:
        rows_per_shard, pixels = further_sizes(base, begun or base, config)
    batch_size = config.batch_size
    if batch_size is None and begun is not None:
        batch_size = begun.spec.settings["batch_size"]
    if batch_size is None:
        batch_size = choose_batch_size(teacher.module, plan.config.patch_px, device, precision)
        batch_size = max(batch_size // (config.views or 1), 1)  # all views of a batch are in memory
    rows_per_shard = min(rows_per_shard, plan.num_rows)
    settings: dict[str, Any] = {
        "rows_per_shard": rows_per_shard,
        "pixels": pixels,
        "dtype": config.dtype,
        "precision": precision,
        "batch_size": min(batch_size, rows_per_shard),
    }
    if (config.views or 1) > 1:
        settings |= {"views": config.views, "views_seed": config.views_seed or 0}
    elif config.views_seed is not None:
        raise ConfigError("--views-seed: the patch itself has no seed; say with --views how many views there are")
    spec = StoreSpec(teacher.record(), settings)
    look = partial(preflight, plan, config, teacher, device, settings, base)

    def notes() -> dict[str, Any]:
        return look() | weights_note(config.weights)

    if existing is None:
        create_store(out, plan, spec, versions(), **notes())
    store = open_further(base, plan, spec, versions(), notes) if base else open_to_continue(out, plan, spec)
    if begun and store.pending_shards():
        look()  # perhaps another machine: said, but recorded once only
    return store


def further_sizes(store: Store, like: Store, config: ExtractConfig) -> tuple[int, str]:
    """Rows a shard and kind of pixels of a further teacher's embeddings: as they were begun, else as the store's.

    Raises:
        ConfigError: other pixels than the store's are asked for.
    """
    if "pixels" in config.model_fields_set and config.pixels != store.image_format:
        raise ConfigError(f"--pixels {config.pixels}: a further teacher sees the patches of the store, which keeps "
                          f"pixels as {store.image_format}; leave it out")  # fmt: skip
    given = "rows_per_shard" in config.model_fields_set
    return config.rows_per_shard if given else like.rows_per_shard, "none"


def check_slides(plan: Plan, slides_root: Path | None) -> None:
    """See that slides are where they are looked for; some that are missing are said, and fail their rows.

    Raises:
        ConfigError: none is there.
    """
    paths = [plan.slide_path(slide, slides_root) for slide in plan.slides]
    missing = [path for path in paths if not os.path.isfile(path)]  # never raises, unlike Path.is_file
    if len(missing) == len(paths):
        raise ConfigError(f"none of the {len(paths)} planned slides is there (the first: {missing[0]}). Say with "
                          "--slides-root where they are now")  # fmt: skip
    if missing:
        names = ", ".join(str(path) for path in missing[:NAMED])
        more = ", ..." if len(missing) > NAMED else ""
        say(f"note: {len(missing)} of {len(paths)} planned slides are missing, and their rows will fail: {names}{more}")


def warn_of_disk(store: Store, plan: Plan, num_rows: int) -> None:
    """Say so if what is to be written will hardly fit."""
    pixels = str(store.image_format) if store.has_pixels else "none"
    taken = [row for row in plan.audit if row.patches_taken]
    pixel_bytes = (expected_pixel_bytes(taken, pixels) or 0.0) / max(sum(row.patches_taken for row in taken), 1)
    needed = num_rows * (store.views.count * store.width * np.dtype(store.dtype).itemsize + pixel_bytes)
    free = shutil.disk_usage(store.folder).free
    if needed > free:
        say(f"warning: about {format_bytes(needed)} will be written; {store.folder} has {format_bytes(free)} free")


def row_batches(store: Store, shards: list[int], batch_size: int) -> Iterator[range]:
    """Batches of rows; they never straddle shards, so that a shard's bytes do not depend on what was done before it."""
    for shard in shards:
        rows = store.shard_rows(shard)
        for start in range(rows.start, rows.stop, batch_size):
            yield range(start, min(start + batch_size, rows.stop))


def embed_shards(
    store: Store,
    plan: Plan,
    shards: list[int],
    model: Encoder,
    device: torch.device,
    precision: str,
    config: ExtractConfig,
) -> None:
    """Read, embed and commit the given shards.

    On a GPU the host is one batch ahead: while a batch computes, the results of the one before are fetched and written.

    Raises:
        StoreError: the disk is full, or more rows failed than `max_failures`.
    """
    batch_size = store.spec.settings["batch_size"]
    patches = patches_to_embed(store, plan, config.slides_root)
    failed_before = len(store.failures())
    total = store.num_rows
    done = total - sum(len(store.shard_rows(shard)) for shard in shards)
    workers = config.workers or usable_cores()
    read = patches.read if store.views.count == 1 else ViewedPatches(patches.read, store.views).read
    reader = BatchLoader(read, patch_px=store.patch_px, batch_size=batch_size, workers=workers, device=device,
                         views=store.views.count)  # fmt: skip
    with (
        StoreWriter(store, patches.describe, describe_device(device)) as writer,
        reader,
        Progress("extracting", total, "patches", done=done) as progress,
    ):
        batches = reader.batches(row_batches(store, shards, batch_size))
        for embedded in one_ahead(embed_batch(model, batch, device, precision) for batch in batches):
            finish_batch(embedded, store, writer)
            failed = failed_before + writer.num_failures
            if config.max_failures is not None and failed > config.max_failures:
                raise StoreError(too_many_failures(failed, writer.last_failure, config.max_failures))
            progress.note(failed=failed)
            progress.step(len(embedded.batch.rows))
    if isinstance(patches, PlannedPatches) and (note := patches.plain_note()):
        say(note)


@dataclass(frozen=True)
class EmbeddedBatch:
    """A batch on its way from the device.

    Attributes:
        batch: what was read.
        embeddings: float32 (R, D), of several views (R, K, D), on the host, of the R rows that could be read; there
            once `ready` has passed.
        ready: the event behind the copy to the host; `None` when it is there already.
    """

    batch: Batch[PatchRead]
    embeddings: Tensor
    ready: torch.cuda.Event | None


def one_ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items; each is given when the next one has been made."""
    waiting: list[T] = []
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting


@torch.inference_mode()
def embed_batch(model: Encoder, batch: Batch[PatchRead], device: torch.device, precision: str) -> EmbeddedBatch:
    """Embed the rows that could be read; failed rows never enter the model. On a GPU this does not wait for it.

    Raises:
        ConfigError: the device has too little memory for the batch.
    """
    ok = [i for i, read in enumerate(batch.results) if read.status is Status.OK]
    if not ok:
        views = batch.pixels.shape[1:-3]
        return EmbeddedBatch(batch, torch.empty((0, *views, model.spec.width)), None)
    try:
        pixels = batch.pixels_on(device)
        if len(ok) < len(batch.rows):
            pixels = pixels[torch.tensor(ok, device=device)]
        with autocast(device, precision):
            several = pixels.dim() == 5  # a pass each: the first is the very one of a store without further views
            passes = [model(view) for view in pixels.unbind(1)] if several else []
            embeddings: Tensor = torch.stack(passes, 1) if several else model(pixels)
    except torch.OutOfMemoryError:
        raise ConfigError(
            f"{describe_device(device)} has no room for batches of {len(batch.rows)} patches. Give a smaller "
            "--batch-size and another --out: a store keeps its batch size"
        ) from None
    host = embeddings.float().to("cpu", non_blocking=device.type == "cuda")  # into pinned memory
    return EmbeddedBatch(batch, host, mark(device))


def finish_batch(embedded: EmbeddedBatch, store: Store, writer: StoreWriter) -> None:
    """Wait for a batch's embeddings and hand it to the writer."""
    if embedded.ready is not None:
        embedded.ready.synchronize()
    batch = embedded.batch
    embeddings = np.full((len(batch.rows), *embedded.embeddings.shape[1:]), np.nan, np.float32)
    embeddings[[read.status is Status.OK for read in batch.results]] = embedded.embeddings.numpy()
    writer.put(batch.rows, embeddings, batch.results)


def too_many_failures(failed: int, last: dict[str, Any] | None, limit: int) -> str:
    """The message when `--max-failures` is passed, with the last failure of this run as an example."""
    example = f" The last: {last['slide_id']} at ({last['x']}, {last['y']}): {last['reason']}." if last else ""
    return (
        f"{failed} rows failed, more than --max-failures {limit}.{example} Finished shards are kept; mend the cause "
        "and run again, with --retry-failures to do the shards that hold failed rows again"
    )


def write_failures(store: Store) -> None:
    """`failures.csv` in the store: one line a failed row; no file when there is none."""
    path = store.folder / "failures.csv"
    failures = store.failures()
    path.unlink(missing_ok=True)
    if failures:
        write_records(path, failures)
