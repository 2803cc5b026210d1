"""Stage one: run the teacher once over the planned patches, and keep its embeddings and its pixels.

G2L, section "Knowledge distillation": the teacher is frozen, so its embeddings are computed once and the student never
shares accelerator memory with it. With `--views` the teacher also sees seeded views of each patch, which the student
replays: all of them at once, or with `--views-per-epoch fresh` one after the other, each in a round that goes over all
rows. A round is complete before the next one begins, and rounds can be added to a finished store.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from pipeline.base.console import counted, say
from pipeline.base.cores import own_cores
from pipeline.base.devices import (
    choose_batch_size,
    choose_device,
    choose_precision,
    continued_precision,
    describe_device,
    keep_freed_memory,
)
from pipeline.base.distributed import own_device
from pipeline.base.errors import ConfigError, StoreError
from pipeline.base.images import ImageFormat
from pipeline.base.launched.group import LaunchedGroup, SharedWork
from pipeline.base.outside import NO_FILE
from pipeline.base.units import resolution_note
from pipeline.base.versions import versions
from pipeline.cohort.plan import Plan, SlidePlan
from pipeline.cohort.view_strengths import EARLIER
from pipeline.cohort.views import Views
from pipeline.config.base import to_toml
from pipeline.config.model_names import PRETRAINED
from pipeline.config.stages import ExtractConfig
from pipeline.config.staging import StageFolder
from pipeline.disk.at_hand import remove_notes, watched
from pipeline.disk.files import write_text
from pipeline.disk.locks import exclusive
from pipeline.disk.objects.present import absent_places
from pipeline.disk.second_look import Work
from pipeline.encoders.build import BuiltEncoder, build_encoder
from pipeline.encoders.embed import EncoderForward, batches_at_once, read_and_embed
from pipeline.encoders.hub import weights_here
from pipeline.slides.artefacts.patch_checks import PATCH_RULES
from pipeline.slides.read_again import read_patches
from pipeline.slides.reader import Accepts, accept_all
from pipeline.slides.staging.ahead import Copies
from pipeline.slides.staging.objects import require_stage
from pipeline.slides.staging.one import LastCopy, with_own_copy
from pipeline.store.changed_slides import noting_changed
from pipeline.store.create import VIEW_SETTINGS, create_store, is_store, open_further, open_round, open_to_continue
from pipeline.store.format import Status, StoreSpec
from pipeline.store.parts.part import StorePart, require_part
from pipeline.store.patches import PlannedPatches, StoredPatches, ViewedPatches, patches_to_embed
from pipeline.store.replay import require_replay, strength_settings
from pipeline.store.retry_failures import forget_failures
from pipeline.store.store import Store, StoredTeacher
from pipeline.store.teachers import needs_slides
from pipeline.store.writer import StoreWriter, row_batches, warn_of_disk, write_failures
from pipeline.student.weights_place import weights_note
from pipeline.training.preflight import TeacherWork, preflight
from stages.many.shared_shards import DoShards, counted_work, lead
from stages.reports.extract import Extracted

NO_ROOM = "Give a smaller --batch-size and another --out: a store keeps its batch size"
"""What a user can do whose device has no room for a batch."""
CROPPING = ("paper", "strong")
"""Strengths of views that are stated with a crop; milder ones crop where they can, and nobody expects it."""
NAMED = 3
"""Missing slides that a note names. Our choice: enough to see what is wrong."""


class Share(Protocol):
    """Does shards of a teacher's embeddings, or of a round of it, together with other processes."""

    def __call__(
        self, teacher: StoredTeacher, pending: Sequence[int], do_shards: DoShards, /, *, what: str
    ) -> None: ...


@dataclass(frozen=True, eq=False)
class RunningTeacher:
    """A teacher that is on its device, the arithmetic that the user asked for, and the file of its weights if they came
    from one.
    """

    encoder: BuiltEncoder
    device: torch.device
    precision: str
    weights: Path | None = None


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
        share = partial(lead, group, message={"crashing": crashing}, stages=bool(config.stage_dir)) if group else None
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


def note_on_views(plan: Plan, strength: str | None, num_views: int) -> str:
    """That views of the asked strength would crop, but the plan has no tiles to crop from; "" if all is well."""
    if strength not in CROPPING or num_views < 2 or plan.config.has_tiles:
        return ""
    return (
        f"note: views of strength {strength} crop the patch from a tile around it, but the plan has no "
        "tiles: nothing is cropped. `g2l plan --tile-px` makes them"
    )


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


def start_teacher(config: ExtractConfig, plan: Plan) -> RunningTeacher:
    """Build the teacher on its device; tell the user if the plan is not at its resolution.

    Raises:
        ConfigError: no such device here, or it cannot compute in the precision.
        EncoderError: the teacher cannot be built for the plan's patches.
    """
    device = own_device(choose_device(config.device))
    keep_freed_memory()
    precision = choose_precision(config.precision, device)
    encoder = build_encoder(config.teacher, config.weights or PRETRAINED, plan.config.patch_px)
    if encoder.note:
        say(encoder.note)
    if note := resolution_note(config.teacher, encoder.spec.mpp, plan.mpp, "the plan is at"):
        say(note)
    encoder.module.to(device)
    return RunningTeacher(encoder, device, precision, config.weights)


def prepare_store(plan: Plan, out: Path, config: ExtractConfig, running: RunningTeacher) -> StoredTeacher:
    """Make the store, or open the one that is there if it was made by the same plan, teacher, settings and part.

    A finished store takes the embeddings of a further teacher; what is then returned are those.

    Raises:
        G2LError: another plan, teacher or setting, or a teacher that the preflight refuses; nothing was written.
    """
    store = Store(out) if is_store(out) else None
    has_batch_size = config.batch_size is not None or running.device.type != "cuda"
    part = asked_part(out, store, config.part, has_batch_size=has_batch_size)
    is_first = store is None or config.teacher == store.first.name or bool(store.first.ledger.pending())
    further_of = None if is_first else store
    require_checks(further_of, patch_qc=config.patch_qc)
    if further_of is None:
        begun = None if store is None else store.first
        settings = choose_settings(plan, config, running, begun, config.rows_per_shard, config.pixels)
    else:
        begun, rows_per_shard = begun_and_rows(further_of, config)
        config = config.model_copy(update={"patch_qc": "patch_qc" in further_of.first.settings})
        settings = choose_settings(plan, config, running, begun, rows_per_shard, "none")
    if begun is not None:
        require_replay(begun)

    def look() -> dict[str, Any]:
        if not config.preflight:
            return {}
        accepts = accept_all if config.retry_failures else None
        work = TeacherWork.left(plan.num_rows, settings, begun, part, config.views_after_rounds)
        with LastCopy(config.stage_folder, tell=say) as copies:
            return look_at_teacher(
                plan, further_of, running, settings, work, config.slides_root, accepts_changed=accepts, copies=copies
            )

    spec = StoreSpec(running.encoder.record(), settings)
    if store is None:
        return create_first(plan, out, spec, running.weights, look, part)
    if further_of is None:
        return continue_first(plan, store, spec, look)
    return prepare_further(plan, store, spec, running.weights, look, is_begun=begun is not None)


def require_checks(further_of: Store | None, *, patch_qc: bool) -> None:
    """See that `--patch-qc` is not asked for where the rows are settled already.

    Raises:
        ConfigError: the store that the teacher is a further one of was made without.
    """
    if further_of is not None and patch_qc and "patch_qc" not in further_of.first.settings:
        raise ConfigError(
            "--patch-qc: a further teacher embeds the rows of the store, which was made without; leave it out"
        )


def asked_part(out: Path, store: Store | None, text: str | None, *, has_batch_size: bool) -> StorePart | None:
    """The part that the call asks for by `text`, "I/N"; `None` for all of the plan.

    Raises:
        ConfigError: no such part, or nothing says the batch size that all parts must have.
        StoreError: the store that is there is another part.
    """
    part = StorePart.parse(text) if text else None
    if store is not None:
        require_part(out, store.first.part, part)
    elif part is not None and not has_batch_size:
        raise ConfigError("--part: say --batch-size, the same for all parts. Otherwise it is by each GPU's memory")
    return part


def begun_and_rows(store: Store, config: ExtractConfig) -> tuple[StoredTeacher | None, int]:
    """The embeddings of a further teacher, if they were begun; and its rows a shard: as many as the user asks for, else
    as they were begun with, else as the store has.

    Raises:
        ConfigError: other pixels than the store's are asked for.
    """
    if "pixels" in config.model_fields_set and config.pixels != store.image_format:
        raise ConfigError(
            f"--pixels {config.pixels}: a further teacher sees the patches of the store, which keeps "
            f"pixels as {store.image_format}; leave it out"
        )
    begun = store.teachers.get(config.teacher)
    if "rows_per_shard" in config.model_fields_set:
        return begun, config.rows_per_shard
    return begun, (begun or store.first).rows_per_shard


Look = Callable[[], dict[str, Any]]
"""Runs the preflight, if the user has not turned it off; gives its record, for the metadata."""


def create_first(
    plan: Plan, out: Path, spec: StoreSpec, weights: Path | None, look: Look, part: StorePart | None
) -> StoredTeacher:
    """Make a store without rows for its first teacher, or for a part of it, after a look at the teacher."""
    create_store(out, plan, spec, versions(), **look() | weights_note(weights) | (part.note() if part else {}))
    return open_to_continue(out, plan, spec).first


def continue_first(plan: Plan, store: Store, spec: StoreSpec, look: Look) -> StoredTeacher:
    """Open a store to add shards of its first teacher."""
    first = open_to_continue(store.folder, plan, spec).first
    if first.pending:  # perhaps on another machine: said again, but recorded once only
        look()
    return first


def prepare_further(
    plan: Plan, store: Store, spec: StoreSpec, weights: Path | None, look: Look, *, is_begun: bool
) -> StoredTeacher:
    """Make, or open to continue, the embeddings of a further teacher of a finished store. It keeps no pixels."""
    teacher = open_further(store, plan, spec, versions(), lambda: look() | weights_note(weights))
    if is_begun and teacher.ledger.pending():  # perhaps on another machine: said again, but recorded once only
        look()
    say(
        f"note: {teacher.name} is a further teacher of {store.folder}, with a ledger of its own; it sees the "
        f"{'stored pixels' if store.has_pixels else 'slides, for the store has no pixels'}"
    )
    return teacher


def choose_settings(
    plan: Plan,
    config: ExtractConfig,
    running: RunningTeacher,
    begun: StoredTeacher | None,
    rows_per_shard: int,
    pixels: str,
) -> dict[str, Any]:
    """The settings that embeddings are made under, and continued under only.

    A batch size left open is that of the embeddings that were `begun`, so that a run continues on another card; else as
    large as the device has room for.

    Raises:
        ConfigError: a seed or strength of views without views, or a strength that changes nothing.
    """
    count, seed, strength = config.views or 1, config.views_seed, config.views_strength
    if config.makes_rounds:  # what was begun at once stays; a wrong strength is refused before anything is written
        view_settings(plan, seed, strength)
        of_views = {name: value for name, value in (begun.settings if begun else {}).items() if name in VIEW_SETTINGS}
    else:
        of_views = settings_of_views(plan, count, seed, strength)
    batch_size = config.batch_size or (begun.settings["batch_size"] if begun else None)
    if batch_size is None:
        module, device = running.encoder.module, running.device
        batch_size = choose_batch_size(module, plan.config.patch_px, device, running.precision)
        batch_size = max(batch_size // of_views.get("views", 1), 1)  # all views of a batch are in memory
    rows_per_shard = min(rows_per_shard, plan.num_rows)
    settings: dict[str, Any] = {
        "rows_per_shard": rows_per_shard,
        "pixels": pixels,
        "dtype": config.dtype,
        "precision": running.precision,
        "batch_size": min(batch_size, rows_per_shard),
    }
    rules = min(begun.settings.get("patch_qc", PATCH_RULES), PATCH_RULES) if begun else PATCH_RULES
    return settings | ({"patch_qc": rules} if config.patch_qc else {}) | of_views


def settings_of_views(plan: Plan, count: int, seed: int | None, strength: str | None) -> dict[str, Any]:
    """What the settings say of `count` views that are made at once.

    Raises:
        ConfigError: a seed or strength of views without views, or a strength that changes nothing.
    """
    if count > 1:
        return {"views": count} | view_settings(plan, seed, strength)
    if strength is not None:
        raise ConfigError(
            "--views-strength: the patch itself is not changed; say with --views how many views there are"
        )
    if seed is not None:
        raise ConfigError("--views-seed: the patch itself has no seed; say with --views how many views there are")
    return {}


def view_settings(plan: Plan, seed: int | None, strength: str | None) -> dict[str, Any]:
    """What settings say of seed and strength of views.

    Raises:
        ConfigError: all views would be the patch itself.
    """
    return {"views_seed": seed or 0} | strength_settings(strength or EARLIER, has_tiles=plan.config.has_tiles)


def look_at_teacher(
    plan: Plan,
    further_of: Store | None,
    running: RunningTeacher,
    settings: dict[str, Any],
    work: TeacherWork,
    slides_root: Path | None,
    *,
    accepts_changed: Accepts | None,
    copies: Copies | None = None,
) -> dict[str, Any]:
    """Run the preflight; returns its record, for the metadata.

    Args:
        further_of: the store that the teacher is a further one of; the patches are the store's, if it keeps pixels.
        work: what the call will embed.
        copies: of slides in a bucket.

    Raises:
        G2LError: no run can come of it; nothing was written.
    """
    seen: ImageFormat | None = "jpeg" if settings["pixels"] == "jpeg" else None  # lossless ones are seen as they are
    stored = StoredPatches(further_of) if further_of and further_of.has_pixels else None
    patches = stored or PlannedPatches(
        plan, seen, slides_root, tell=say, accepts_changed=accepts_changed, copies=copies
    )
    file = weights_here(running.encoder.spec, running.weights)
    seen_patches = ViewedPatches(patches.read_some, Views(patch_px=plan.config.patch_px), plan.config.read_px)
    return preflight(running.encoder, seen_patches.read, plan, settings, work, device=running.device, file=file)


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
            f"none of the {len(paths)} planned slides is there (the first: {missing[0]}{why}). Say with "
            "--slides-root where they are now"
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
        f"{failed} rows failed, more than --max-failures {limit}.{example} Finished shards are kept; fix the cause "
        "and run again, with --retry-failures to do the shards that hold failed rows again"
    )
