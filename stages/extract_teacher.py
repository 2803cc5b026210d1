"""Stage one: run the teacher once over the planned patches, and keep its embeddings and its pixels.

G2L, section "Knowledge distillation": the teacher is frozen, so its embeddings are computed once and the student never
shares accelerator memory with it. With `--views` the teacher also sees seeded views of each patch, which the student
replays: all of them at once, or with `--views-per-epoch fresh` one after the other, each in a round that goes over all
rows. A round is complete before the next one begins, and rounds can be added to a finished store.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from pipeline.base.console import counted, say
from pipeline.base.cores import own_cores
from pipeline.base.devices import continued_precision, describe_device
from pipeline.base.errors import ConfigError, StoreError
from pipeline.base.launched.group import LaunchedGroup, SharedWork
from pipeline.base.outside import NO_FILE
from pipeline.base.versions import versions
from pipeline.cohort.plan import Plan, SlidePlan
from pipeline.config.base import to_toml
from pipeline.config.stages import ExtractConfig
from pipeline.config.staging import StageFolder
from pipeline.disk.at_hand import remove_notes, watched
from pipeline.disk.files import write_text
from pipeline.disk.locks import exclusive
from pipeline.disk.objects.places import say_where
from pipeline.disk.objects.present import absent_places
from pipeline.disk.second_look import Work
from pipeline.encoders.embed import EncoderForward, batches_at_once, read_and_embed
from pipeline.slides.pool import accept_all
from pipeline.slides.read_again import read_patches
from pipeline.slides.staging.objects import require_stage
from pipeline.slides.staging.one import LastCopy, with_own_copy
from pipeline.store.changed_slides import noting_changed
from pipeline.store.create import is_store, open_round
from pipeline.store.format import Status
from pipeline.store.parts.part import StorePart
from pipeline.store.patches import PlannedPatches, StoredPatches, ViewedPatches, patches_to_embed
from pipeline.store.replay import require_replay
from pipeline.store.retry_failures import forget_failures
from pipeline.store.store import Store, StoredTeacher
from pipeline.store.teachers import needs_slides
from pipeline.store.writer import StoreWriter, row_batches, warn_of_disk, write_failures
from stages.extracting.prepare import note_on_views, prepare_store, view_settings
from stages.extracting.teacher import RunningTeacher, start_teacher
from stages.many.shared_shards import DoShards, counted_work, lead
from stages.reports.extract import Extracted

NO_ROOM = "Give a smaller --batch-size and another --out: a store keeps its batch size"
"""What a user can do whose device has no room for a batch."""
NAMED = 3
"""Missing slides that a note names. Our choice: enough to see what is wrong."""


class Share(Protocol):
    """Does shards of a teacher's embeddings, or of a round of it, together with other processes."""

    def __call__(
        self, teacher: StoredTeacher, pending: Sequence[int], do_shards: DoShards, /, *, what: str
    ) -> None: ...


def extract_teacher(
    plan: Plan,
    out: Path,
    config: ExtractConfig,
    *,
    record: dict[str, Any] | None = None,
    group: LaunchedGroup | None = None,
) -> Extracted:
    """Make or continue the store `out`; `record`, the resolved options and paths, goes into it as `config.toml`.

    With a `group`, this process leads it: it makes what is made once, and all of them do the shards.

    Raises:
        G2LError: wrong input, a store of another plan, teacher or setting, a full disk, too many failures; what was
            finished before is safe, and the same command continues.
    """
    require_all_shards(config.part, makes_rounds=config.makes_rounds)
    with ExitStack() as held:
        held.enter_context(exclusive(out, "g2l extract-teacher"))
        if note := note_on_views(plan, config.views_strength, config.views or 1):
            say(note)
        crashing = held.enter_context(watched(out, *slides_to_read(plan, out, config), tell=say))
        running = start_teacher(config, plan)
        teacher = prepare_store(plan, out, config, running)
        write_record(teacher, record)
        started = time.monotonic()
        share: Share | None = None
        if group is not None:
            places = plan.places_beside(teacher.store.plan)
            share = partial(
                lead, group, message={"crashing": crashing, "places": places}, stages=bool(config.stage_dir)
            )
        num_rows = embed_pending(teacher, plan, config, running, share=share)
        first = teacher.store.first
        if not (first.folder / "failures.csv").exists():  # the run that finished it was killed before it wrote them
            write_failures(first)
        if config.makes_rounds:
            num_rows += embed_rounds(teacher, plan, config, running, share)
        if group is not None:
            remove_notes(out)  # of processes that were killed and replaced
        seconds = time.monotonic() - started
    return Extracted(teacher, num_rows, teacher.ledger.status_counts(teacher.shards), seconds)


def require_all_shards(part: str | None, *, makes_rounds: bool) -> None:
    """Refuse what cannot be done in parts.

    Raises:
        ConfigError: it is asked for.
    """
    if part and makes_rounds:
        raise ConfigError(
            "--views-per-epoch fresh: rounds are added to a whole store. Merge its parts first, without it"
        )


def slides_to_read(plan: Plan, out: Path, config: ExtractConfig) -> tuple[Iterable[Path], Callable[[Path], Work]]:
    """The files of the slides that will be read, and how to read all patches of one again in a child process.

    Raises:
        ConfigError: none of them is there.
    """
    root, part = config.slides_root, StorePart.parse(config.part) if config.part else None
    read: Sequence[SlidePlan] = plan.slides
    if part is not None:
        read = part.slides(plan, Store(out).first.rows_per_shard if is_store(out) else config.rows_per_shard)
        ids = f"{read[0].slide_id} to {read[-1].slide_id}" if len(read) > 1 else read[0].slide_id
        say(f"note: part {part} reads {len(read)} of {counted(len(plan.slides), 'slide')}: {ids}")
    slides, read_again = slides_to_embed(plan, read, root, config.stage_folder)
    if needs_slides(out, config.teacher, config.views_after_rounds):
        check_slides(plan, read, root, config.stage_folder)
    elif not config.retry_failures:
        slides = []
    return slides, read_again


def embed_pending(
    teacher: StoredTeacher,
    plan: Plan,
    config: ExtractConfig,
    running: RunningTeacher,
    what: str = "extracting",
    share: Share | None = None,
) -> int:
    """Do the shards that are not done, with `--retry-failures` also those whose failed rows can be read now; returns
    the number of their rows. `what` is said beside the progress; `share` does the shards together with other processes.

    Raises:
        StoreError: the disk is full, or too many rows failed.
    """
    root, retries = config.slides_root, config.retry_failures
    if retries:
        with LastCopy(config.stage_folder, tell=say) as copies:
            tried = patches_to_embed(
                teacher, plan, root, encode=False, tell=say, accepts_changed=accept_all, copies=copies
            )
            forget_failures(teacher, plan, tried)
    pending = teacher.pending
    num_rows = teacher.ledger.count_rows(pending)
    warn_of_disk(teacher, plan, num_rows)
    accepts = noting_changed(teacher.store.folder) if retries else None
    patches = patches_to_embed(teacher, plan, root, tell=say, accepts_changed=accepts, stage=config.stage_folder)
    do_shards = partial(
        embed_shards,
        teacher,
        patches,
        running=running,
        workers=config.workers or own_cores(),
        max_failures=config.max_failures,
        what=what,
    )
    if share is None or not pending:
        do_shards(pending)
    else:
        share(teacher, pending, do_shards, what=what)
    write_failures(teacher)
    return num_rows


def embed_rounds(
    teacher: StoredTeacher, plan: Plan, config: ExtractConfig, running: RunningTeacher, share: Share | None = None
) -> int:
    """Make, or continue, a round for each view that the finished `teacher` was not given at once; returns the number of
    new rows, those of all rounds together.

    Raises:
        StoreError: views before them are of another seed or strength, the disk is full, or too many rows failed.
    """
    num_rows, num_views = 0, config.views or 1
    for view in range(teacher.views.count, num_views):
        settings = view_settings(plan, config.views_seed, config.views_strength)
        made = open_round(teacher, plan, view, settings, versions())
        require_replay(made)
        num_rows += embed_pending(made, plan, config, running, f"view {view} of {num_views - 1}", share)
    return num_rows


def slides_to_embed(
    plan: Plan, read: Sequence[SlidePlan], slides_root: Path | None, stage: StageFolder | None = None
) -> tuple[Iterable[Path], Callable[[Path], Work]]:
    """The files of a plan's slides that are `read`, and how to read all patches of one again in a child process."""
    slides = {plan.slide_path(slide, slides_root): slide for slide in read}

    def read_again(path: Path) -> Work:
        slide = slides[path]
        work = read_patches, (path, slide.manifest_mpp, slide.geometry, slide.coords_l0_px)
        return with_own_copy(path, stage, work)

    return slides, read_again


def write_record(teacher: StoredTeacher, record: dict[str, Any] | None) -> None:
    """Write the resolved options beside the teacher's arrays, as `config.toml`; of a further teacher with what it has
    taken over from the store.
    """
    if record is not None:
        write_text(teacher.folder / "config.toml", to_toml({"extract-teacher": record | teacher.inherited}))


def check_slides(
    plan: Plan, read: Sequence[SlidePlan], slides_root: Path | None, stage: StageFolder | None = None
) -> None:
    """See that the planned slides that are `read` are there; warn of some that are missing, whose rows will fail.

    Raises:
        ConfigError: none is there; or one is in a bucket, and there is no folder to `stage` it in.
        ObjectError: a bucket cannot be asked.
    """
    paths = [plan.slide_path(slide, slides_root) for slide in read]
    require_stage(paths, stage)
    absent = absent_places(paths)
    missing = [path for path in paths if path in absent]
    if len(missing) == len(paths):
        why = "" if absent[paths[0]] == NO_FILE else f", {absent[paths[0]]}"
        raise ConfigError(
            f"none of the {len(paths)} planned slides is there (the first: {missing[0]}{why}): "
            f"{say_where(slide.path for slide in read)}"
        )
    if missing:
        names = ", ".join(str(path) for path in missing[:NAMED])
        more = ", ..." if len(missing) > NAMED else ""
        say(f"note: {len(missing)} of {len(paths)} planned slides are missing, and their rows will fail: {names}{more}")


def embed_shards(
    teacher: StoredTeacher,
    patches: PlannedPatches | StoredPatches,
    shards: Iterable[int],
    running: RunningTeacher,
    *,
    workers: int,
    max_failures: int | None = None,
    what: str = "extracting",
    shared: SharedWork | None = None,
) -> None:
    """Read, embed and commit the given shards; those that are `shared` are counted with those of other processes.
    `what` is said beside the progress.

    Raises:
        StoreError: the disk is full, or more rows failed than `max_failures`.
    """
    batch_size, device = teacher.settings["batch_size"], running.device
    is_full = "full_float32" in teacher.attributes
    arithmetic = continued_precision(running.precision, device, full_float32=is_full)
    own = teacher.own_view
    claimed = patches.claimed_ahead(shards, teacher.ledger.rows) if shared else shards
    to_read = patches.looking_back(claimed, teacher.ledger.rows)
    is_plain = teacher.views.count == 1 and not own and teacher.tile_px == teacher.patch_px
    seen = patches if is_plain else ViewedPatches(patches.read_some, teacher.views, teacher.tile_px, own)
    with (
        StoreWriter(
            teacher, patches.describe, describe_device(device), shared.done if shared else None, patches.seen_before
        ) as writer,
        read_and_embed(
            EncoderForward(running.encoder.module, device, arithmetic),
            seen.read_some,
            row_batches(teacher, to_read, batch_size),
            device,
            patch_px=teacher.patch_px,
            batch_size=batch_size,
            workers=workers,
            width=teacher.width,
            no_room=NO_ROOM,
            is_readable=lambda read: read.status is Status.OK,
            views=teacher.views.count,
            at_once=batches_at_once(device),
        ) as batches,
        patches.staged(() if shared else map(teacher.ledger.rows, shards)),
        counted_work(teacher, shards, what, shared) as work,
    ):
        failed, failed_here = work.add_failed(0), 0
        for embedded in batches:
            writer.put(embedded.rows, embedded.for_all_rows(), embedded.results)
            if new := writer.num_failures - failed_here:
                failed, failed_here = work.add_failed(new), writer.num_failures
            if max_failures is not None and failed > max_failures:
                raise StoreError(too_many_failures(failed, writer.last_failure, max_failures))
            work.note(failed=failed)
            work.step(len(embedded.rows))
    if isinstance(patches, PlannedPatches) and (note := patches.plain_note()):
        say(note)


def too_many_failures(failed: int, last: dict[str, Any] | None, limit: int) -> str:
    """The message when `--max-failures` is passed, with the last failure of this run as an example."""
    example = f" The last: {last['slide_id']} at ({last['x']}, {last['y']}): {last['reason']}." if last else ""
    return (
        f"{counted(failed, 'row')} failed, more than --max-failures {limit}.{example} Finished shards are kept; fix "
        "the cause and run again, with --retry-failures to do the shards that hold failed rows again"
    )
