"""Embed: run a model over all tissue of each slide, and write complete files in the layout of another tool.

This is what a distilled student is for: attention MIL and slide encoders take the embeddings of every tissue patch of a
slide. Grid, tissue and reading are as in `g2l plan`; nothing is sampled. The next slide is prepared while one is
embedded. Finished slides are never done again; a killed run loses the slide that it was at.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.base.console import Progress, say
from pipeline.base.cores import own_cores
from pipeline.base.devices import (
    choose_batch_size,
    choose_device,
    choose_precision,
    continued_precision,
    keep_freed_memory,
)
from pipeline.base.distributed import own_device
from pipeline.base.launched.group import LaunchedGroup, SharedWork
from pipeline.base.versions import versions
from pipeline.cohort.manifest.rows import Manifest, ManifestRow
from pipeline.config.groups import Grid
from pipeline.config.staging import StageFolder
from pipeline.config.tissue_rules import EARLIER_RULES
from pipeline.config.tools import EmbedConfig
from pipeline.disk.at_hand import remove_notes, watched
from pipeline.disk.files import require_names_apart
from pipeline.disk.locks import exclusive
from pipeline.disk.objects.places import real_name
from pipeline.disk.second_look import Work
from pipeline.encoders.build import weights_hash
from pipeline.encoders.embed import model_key
from pipeline.features.embedding import Embedder
from pipeline.features.folder import EmbedFolder
from pipeline.features.layouts import Mark, Place
from pipeline.features.registry import find_writer
from pipeline.slides.geometry import PILLOW
from pipeline.slides.read_again import read_tissue
from pipeline.slides.staging.ahead import Staging
from pipeline.slides.staging.one import with_own_copy
from pipeline.student.resolve import NamedModel
from stages.embed_inputs import choose_dtype, continued_grid, find_model, plan_grid, read_slides
from stages.many.slide_work import (
    PREPARED_AHEAD,
    SHARED_AHEAD,
    ExpectedPatches,
    SlideDone,
    SlideWork,
    count_slide,
    giving_back,
    prepare_ahead,
    slides_hash,
    written_since,
)
from stages.reports.embed import Tally


def embed(
    model: str,
    source: Path,
    out: Path,
    config: EmbedConfig,
    *,
    options: dict[str, Any],
    group: LaunchedGroup | None = None,
) -> Tally:
    """Embed all tissue of the slides of `source`: a manifest, a folder of slides, or one slide.

    `options` are the resolved options and paths, which go into the folder as `embed.toml`. With a `group`, this process
    leads it, and all of them take slides.

    Raises:
        G2LError: wrong input, a folder of another model or setting, a full disk; what was finished is safe.
    """
    manifest = read_slides(source, config.slides_root, config.stage_folder)
    named = find_model(model, config)
    grid = plan_grid(named, config)
    dtype = choose_dtype(config.layout, config.dtype)
    with exclusive(out, "g2l embed"):
        folder = EmbedFolder(out)
        before = folder.require_usable()
        settings = None if before is None else before["made_by"].get("settings", {})
        grid = continued_grid(grid, config, settings)
        place = output_place(out, named, config, grid)
        embedder = build_embedder(named, config, dtype, before)
        made_by = what_makes(embedder, place, config.deciding())
        record = {
            "made_by": made_by,
            "model": embedder.encoder.record(),
            "batch_size": embedder.batch_size,
            "versions": versions(),
            "full_float32": True,
        }
        for note in folder.start_or_continue(record, options):
            say(note)
        is_full = before is None or before["full_float32"]
        arithmetic = continued_precision(embedder.precision, embedder.device, full_float32=is_full)
        embedder = replace(embedder, precision=arithmetic)
        require_names_apart(out, [row.slide_id for row in manifest.rows])
        marks = finished_slides(manifest, place, made_by)
        folder.read_failures(marks)
        staging = Staging(config.stage_folder, tell=say)
        written = written_since(manifest, place, marks)
        check, retry = config.check_files, config.retry_failures
        work = SlideWork(manifest, place, embedder, marks, made_by, check, retry, staging, written)
        with watched(out, *slides_left(manifest, work.rows_left, grid, config.stage_folder), tell=say) as crashing:
            if group is None:
                return embed_slides(work, folder)
            return lead_embedding(group, work, folder, crashing)


def output_place(out: Path, named: NamedModel, config: EmbedConfig, grid: Grid) -> Place:
    """Where the files of slides lie, and in whose layout."""
    suffix = f"-as-{config.teacher or 'teacher'}" if config.as_teacher else ""
    return Place(out, find_writer(config.layout), named.label + suffix, grid)


def slides_left(
    manifest: Manifest, rows: Iterable[ManifestRow], grid: Grid, stage: StageFolder | None = None
) -> tuple[Iterable[Path], Callable[[Path], Work]]:
    """The files of the slides of `rows`, and how to read one again in a child process as `embed` does."""
    slides = {manifest.slide_path(row): row for row in rows}

    def read_again(path: Path) -> Work:
        work = read_tissue, (path, slides[path].mpp, slides[path].mpp_overrides is not None, grid)
        return with_own_copy(path, stage, work)

    return slides, read_again


def build_embedder(named: NamedModel, config: EmbedConfig, dtype: str, before: dict[str, Any] | None) -> Embedder:
    """The model on its device. Without --batch-size, a continued run takes that of the folder's record `before`, and so
    gives the same bits.

    Raises:
        EncoderError: the model cannot be built.
        ConfigError: no such device or arithmetic.
    """
    device = own_device(choose_device(config.device))
    keep_freed_memory()
    precision = choose_precision(config.precision, device)
    encoder = named.build()
    if encoder.note:
        say(encoder.note)
    projector = named.projector(config.teacher) if config.as_teacher else None
    encoder.module.to(device)
    if projector is not None:
        projector.to(device)
    batch_size = config.batch_size or (before["batch_size"] if before else None)
    if batch_size is None:
        batch_size = choose_batch_size(encoder.module, named.patch_px, device, precision)
    return Embedder(encoder, projector, device, precision, dtype, batch_size, config.workers or own_cores())


def what_makes(embedder: Embedder, place: Place, options: dict[str, Any]) -> dict[str, Any]:
    """What the embeddings of a slide depend on, beside the slide: `options` are those that decide the output by their
    values. The batch size is left out: it changes the last bits only.
    """
    grid = place.grid
    settings = options | {
        "encoder": place.encoder,
        "dtype": embedder.dtype,
        "patch_px": grid.patch_px,
        "mpp": grid.mpp,
        "stride_px": grid.stride_px,
    }
    if grid.resampling != PILLOW:  # earlier versions had no other
        settings["resampling"] = grid.resampling
    if grid.decode != "full":
        settings["decode"] = grid.decode
    if grid.rules != EARLIER_RULES:
        settings["rules"] = list(grid.rules)
    if grid.max_artefact < 1:
        settings["max_artefact"] = grid.max_artefact
    if embedder.projector is not None:
        settings["projector_sha256"] = weights_hash(embedder.projector)
    made_by: dict[str, Any] = json.loads(
        json.dumps({"model": model_key(embedder.encoder, embedder.precision), "settings": settings})
    )
    return made_by


def finished_slides(manifest: Manifest, place: Place, made_by: dict[str, Any]) -> dict[str, Mark]:
    """The marks of slides whose files are whole.

    Raises:
        EmbedError: a file was made by something else, or with another model or setting; says which and what differs.
    """
    marks = {}
    for row in manifest.rows:
        mark = place.read_mark(row.slide_id)
        if mark is not None:
            EmbedFolder.require_same(place.marked_file(row.slide_id), mark.made_by, made_by)
            marks[row.slide_id] = mark
    return marks


def embed_slides(work: SlideWork, folder: EmbedFolder) -> Tally:
    """Embed every slide that is not finished; a slide that fails is noted, and the others go on.

    Raises:
        G2LError: a file cannot be written, or the device has too little memory.
    """
    rows = work.manifest.rows
    tally = Tally(folder.folder, work.place.marked_file("x").parent, work.embedder.width)
    started = time.monotonic()
    with (
        Progress("embedding", 0, "patches") as progress,
        closing(prepare_ahead(rows, work.prepare, PREPARED_AHEAD)) as prepared,
        work.staging as staging,
    ):
        staging.expect(map(work.slide_to_stage, work.rows_left))
        patches = ExpectedPatches(progress, work.num_left)
        for row, slide in giving_back(prepared, staging, work.manifest):
            patches.num_left -= row.slide_id not in work.marks
            count_slide(tally, work.do(row, slide, patches.expect, progress.step, folder.note_failures))
            progress.note(slides=f"{tally.num_slides} of {len(rows)}", failed=len(tally.reasons) + tally.failed_patches)
    return finish_folder(work, folder, replace(tally, seconds=time.monotonic() - started))


def finish_folder(work: SlideWork, folder: EmbedFolder, tally: Tally) -> Tally:
    """Write what is to be known of all slides once they are done."""
    folder.write_failures()
    manifest = work.manifest
    listed = [row for row in manifest.rows if row.slide_id not in tally.reasons]  # the file may be another slide's now
    work.place.write_list({row.slide_id: real_name(manifest.slide_path(row)) for row in listed})
    if not tally.reasons:
        ids = [row.slide_id for row in manifest.rows]
        files = [path for slide_id in ids for path in work.place.files(slide_id).values()]
        folder.note_finished(tally.record(), files)
    return tally


def lead_embedding(group: LaunchedGroup, work: SlideWork, folder: EmbedFolder, crashing: dict[str, str]) -> Tally:
    """Call the other processes of the group to the slides, embed them with these, and sum up what all say.

    Raises:
        G2LError: as `embed_slides`.
    """
    rows, started = work.manifest.rows, time.monotonic()
    precision = work.embedder.precision
    group.call(
        {
            "slides": slides_hash(work.manifest),
            "made_by": work.made_by,
            "batch_size": work.embedder.batch_size,
            "precision": precision,
            "finished": sorted(work.marks),
            "crashing": crashing,
        }
    )

    def note_failures_so_far() -> None:
        """Note those of all processes: the launcher's store ends with the job, also where that is killed."""
        for done in map(SlideDone.from_record, group.new_reports()):
            if done.is_new:
                folder.note_failures(done.slide_id, done.failures)

    with Progress("embedding", 0, "patches") as progress, group.showing(progress, work.num_left):
        shared = embed_claimed(group, work, note_failures_so_far)
    tally = Tally(folder.folder, work.place.marked_file("x").parent, work.embedder.width)
    said = shared.reports(range(len(rows)))
    for index, row in enumerate(rows):
        done = SlideDone.from_record(said[index]) if index in said else work.done_silently(row)
        count_slide(tally, done)
        if done.is_new:
            folder.note_failures(row.slide_id, done.failures)
    remove_notes(folder.folder)
    return finish_folder(work, folder, replace(tally, seconds=time.monotonic() - started))


def embed_claimed(group: LaunchedGroup, work: SlideWork, meanwhile: Callable[[], None] = lambda: None) -> SharedWork:
    """Embed this process's share of the slides; returns when all are done, whoever does them.

    Args:
        meanwhile: as for `LaunchedGroup.share`.

    Raises:
        G2LError: as `embed_slides`, or the leader has failed.
    """
    rows = work.manifest.rows
    shared = group.share(range(len(rows)), work.is_on_disk, meanwhile=meanwhile)
    index_of = {row.slide_id: index for index, row in enumerate(rows)}
    left = {row.slide_id for row in work.rows_left}

    def chosen(claimed: Iterable[int], staging: Staging) -> Iterator[ManifestRow]:
        """The rows of slides as they are claimed; copying one begins as soon as it is."""
        for row in (rows[index] for index in claimed):
            if row.slide_id in left:
                staging.expect([work.slide_to_stage(row)])
            yield row

    for claimed in shared.rounds():
        now = replace(work, staging=work.staging.another())
        with (
            closing(prepare_ahead(chosen(claimed, now.staging), now.prepare, SHARED_AHEAD)) as prepared,
            now.staging as staging,
        ):
            for row, slide in giving_back(prepared, staging, work.manifest):
                done = work.do(row, slide, shared.expect, shared.step)
                shared.report(index_of[row.slide_id], done.record())
                shared.done(index_of[row.slide_id])
    return shared
