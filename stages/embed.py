"""Embed: run a model over all tissue of each slide, and write complete files in the layout of another tool.

This is what a distilled student is for: attention MIL and slide encoders take the embeddings of every tissue patch of a
slide. Grid, tissue and reading are as in `g2l plan`; nothing is sampled. The next slide is prepared while one is
embedded. Finished slides are never done again; a killed run loses the slide that it was at.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.base.console import Progress, say
from pipeline.base.cores import usable_cores
from pipeline.base.devices import (
    choose_batch_size,
    choose_device,
    choose_precision,
    continued_precision,
    keep_freed_memory,
)
from pipeline.base.errors import EmbedError, SlideError
from pipeline.base.versions import versions
from pipeline.cohort.manifest import Manifest, ManifestRow
from pipeline.config.groups import Grid
from pipeline.config.tools import EmbedConfig
from pipeline.disk.at_hand import watched
from pipeline.disk.files import require_names_apart
from pipeline.disk.locks import exclusive
from pipeline.disk.second_look import Work
from pipeline.encoders.build import weights_hash
from pipeline.encoders.embed import model_key
from pipeline.features.embedding import (
    WHOLE_SLIDE,
    Embedder,
    Failure,
    PreparedSlide,
    content_changes,
    embed_slide,
    file_change,
    prepare_slide,
    slide_content,
)
from pipeline.features.folder import EmbedFolder
from pipeline.features.layouts import Mark, Place
from pipeline.features.registry import find_writer
from pipeline.slides.geometry import PILLOW
from pipeline.slides.identity import check_sha256
from pipeline.slides.read_again import read_tissue
from pipeline.slides.reader import Slide, slide_failures
from pipeline.slides.staging.ahead import Staging
from pipeline.slides.staging.copies import ExpectedSlide
from pipeline.student.resolve import NamedModel
from stages.embed_inputs import choose_dtype, continued_grid, find_model, plan_grid, read_slides
from stages.reports.embed import Tally

PREPARED_AHEAD = 2
"""Slides whose tissue is found while another one is embedded. Our choice: finding tissue is mostly the shorter work."""


def embed(model: str, source: Path, out: Path, config: EmbedConfig, *, options: dict[str, Any]) -> Tally:
    """Embed all tissue of the slides of `source`: a manifest, a folder of slides, or one slide.

    `options` are the resolved options and paths, which go into the folder as `embed.toml`.

    Raises:
        G2LError: wrong input, a folder of another model or setting, a full disk; what was finished is safe.
    """
    manifest = read_slides(source, config.slides_root)
    named = find_model(model, config)
    grid = plan_grid(named, config)
    dtype = choose_dtype(config.layout, config.dtype)
    suffix = f"-as-{config.teacher or 'teacher'}" if config.as_teacher else ""
    with exclusive(out, "g2l embed"):
        folder = EmbedFolder(out)
        before = folder.require_usable()
        settings = None if before is None else before["made_by"].get("settings", {})
        grid = continued_grid(grid, config.resampling, settings)
        place = Place(out, find_writer(config.layout), named.label + suffix, grid)
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

        def prepare_row(row: ManifestRow) -> PreparedSlide | None:
            mark = marks.get(row.slide_id)
            return prepare(
                row,
                manifest,
                place,
                mark,
                check_files=config.check_files,
                retry_failures=config.retry_failures,
                copy=staging.copy_of(manifest.slide_path(row)),
            )

        whole = {slide for slide, mark in marks.items() if not (config.retry_failures and mark.failed)}
        rows = [row for row in manifest.rows if row.slide_id not in whole]
        staging = Staging(config.stage_folder, tell=say)
        with (
            watched(out, *slides_left(manifest, rows, grid), tell=say),
            closing(prepare_ahead(manifest.rows, prepare_row)) as prepared,
            staging,
        ):
            staging.expect(slides_to_stage(manifest, rows, check_files=config.check_files))
            used_once = giving_back(prepared, staging, manifest)
            return embed_slides(manifest, used_once, place, folder, embedder, marks, made_by)


def slides_to_stage(manifest: Manifest, rows: Iterable[ManifestRow], *, check_files: bool) -> list[ExpectedSlide]:
    """The slides of `rows` as they are used, once each; with `check_files` their copies must have the manifest's
    sha256.
    """
    return [ExpectedSlide(manifest.slide_path(row), sha256=row.sha256 if check_files else None) for row in rows]


def giving_back(
    prepared_slides: Iterable[tuple[ManifestRow, "Future[PreparedSlide | None]"]], staging: Staging, manifest: Manifest
) -> Generator[tuple[ManifestRow, "Future[PreparedSlide | None]"], None, None]:
    """The same, giving back the copy of each slide when the next one is asked for."""
    for row, prepared in prepared_slides:
        yield row, prepared
        staging.done(manifest.slide_path(row), lambda path: None)


def slides_left(
    manifest: Manifest, rows: Iterable[ManifestRow], grid: Grid
) -> tuple[Iterable[Path], Callable[[Path], Work]]:
    """The files of the slides of `rows`, and how to read one again in a child process as `embed` does."""
    slides = {manifest.slide_path(row): row for row in rows}

    def read_again(path: Path) -> Work:
        return read_tissue, (path, slides[path].mpp, slides[path].mpp_overrides is not None, grid)

    return slides, read_again


def build_embedder(named: NamedModel, config: EmbedConfig, dtype: str, before: dict[str, Any] | None) -> Embedder:
    """The model on its device. Without --batch-size, a continued run takes that of the folder's record `before`, and so
    gives the same bits.

    Raises:
        EncoderError: the model cannot be built.
        ConfigError: no such device or arithmetic.
    """
    device = choose_device(config.device)
    keep_freed_memory(device)
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
    return Embedder(encoder, projector, device, precision, dtype, batch_size, config.workers or usable_cores())


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


def embed_slides(
    manifest: Manifest,
    prepared_slides: Iterable[tuple[ManifestRow, "Future[PreparedSlide | None]"]],
    place: Place,
    folder: EmbedFolder,
    embedder: Embedder,
    marks: dict[str, Mark],
    made_by: dict[str, Any],
) -> Tally:
    """Embed every slide that is not finished; a slide that fails is noted, and the others go on.

    Args:
        prepared_slides: every row of the manifest with its slide, as `prepare_ahead` gives them.
        marks: of the slides whose files are whole.
        made_by: what the embeddings depend on, for the marks.

    Raises:
        G2LError: a file cannot be written, or the device has too little memory.
    """
    tally = Tally(folder.folder, place.marked_file("x").parent, embedder.width)
    num_left, num_prepared, num_planned = sum(row.slide_id not in marks for row in manifest.rows), 0, 0
    started = time.monotonic()
    with Progress("embedding", 0, "patches") as progress:
        for row, prepared in prepared_slides:
            num_left -= row.slide_id not in marks
            try:
                slide = prepared.result()
                if slide is None:
                    tally.add(marks[row.slide_id].rows, marks[row.slide_id].failed)
                    tally.num_before += 1
                    continue
                num_prepared, num_planned = num_prepared + 1, num_planned + len(slide.plan.coords_l0_px)
                progress.expect(num_planned + round(num_left * num_planned / num_prepared))  # others: as many each
                embedded, failures = embed_slide(slide, embedder, made_by, progress.step, say)
            except SlideError as error:
                tally.reasons[row.slide_id] = str(error)
                folder.note_failures(row.slide_id, [Failure(row.slide_id, None, None, WHOLE_SLIDE, str(error))])
            else:
                before = marks.get(row.slide_id)
                if before is not None and len(failures) >= before.failed:  # --retry-failures gained nothing
                    tally.add(before.rows, before.failed)
                    continue
                folder.note_failures(row.slide_id, failures)
                mark = place.write(embedded)
                tally.add(mark.rows, mark.failed)
                tally.new_patches += len(embedded.features)
                if slide.warnings:
                    tally.warnings[row.slide_id] = "; ".join(slide.warnings)
            progress.note(
                slides=f"{tally.num_slides} of {len(manifest.rows)}", failed=len(tally.reasons) + tally.failed_patches
            )
    folder.write_failures()
    if not tally.reasons:
        ids = [row.slide_id for row in manifest.rows]
        folder.note_finished(tally.record(), [path for slide_id in ids for path in place.files(slide_id).values()])
    return replace(tally, seconds=time.monotonic() - started)


def prepare_ahead(
    rows: Sequence[ManifestRow], prepare_row: Callable[[ManifestRow], PreparedSlide | None]
) -> Generator[tuple[ManifestRow, "Future[PreparedSlide | None]"], None, None]:
    """Every row with the preparation of its slide, which runs ahead in threads."""
    with ThreadPoolExecutor(PREPARED_AHEAD, thread_name_prefix="g2l-prepare") as pool:
        waiting: deque[tuple[ManifestRow, Future[PreparedSlide | None]]] = deque()
        try:
            for row in rows:
                waiting.append((row, pool.submit(prepare_row, row)))
                if len(waiting) > PREPARED_AHEAD:
                    yield waiting.popleft()
            yield from waiting
        finally:
            for _, future in waiting:
                future.cancel()


def prepare(
    row: ManifestRow,
    manifest: Manifest,
    place: Place,
    mark: Mark | None,
    *,
    check_files: bool,
    retry_failures: bool,
    copy: Path | None = None,
) -> PreparedSlide | None:
    """A slide and all its patches; `None` if it is finished.

    Args:
        mark: of its files, if they are whole.
        check_files: whether its SHA-256 must be the manifest's.
        retry_failures: whether it is not finished if patches of it failed.
        copy: of the slide, to be read in its place; with `check_files` its SHA-256 was found to be the manifest's.

    Raises:
        SlideError: it cannot be used, or it is not the slide that its finished files are of.
    """
    path = manifest.slide_path(row)
    slide = Slide(path, row.mpp, mpp_overrides=row.mpp_overrides is not None, copy=copy)
    content = slide_content(slide, row.slide_id)
    if other_files := files_of_other_name(row, manifest, place, content):
        raise SlideError(
            f"{path}: embedded already as {' '.join(map(str, other_files))}; since another file of the "
            f"same name has come or gone, it is called {row.slide_id}. Delete those files to embed it "
            "under that name, or give a manifest with the ids to keep"
        )
    if mark is not None:
        if changes := content_changes(mark.slide, content):
            where = place.marked_file(row.slide_id)
            raise SlideError(
                f"{path}: not the slide that {where} was made from ({'; '.join(changes)}). Delete that "
                "file to embed the slide anew"
            )
        if not (retry_failures and mark.failed):
            if change := file_change(mark.slide, content):
                made = place.marked_file(row.slide_id)
                say(
                    f"warning: {path}: its file has changed since {made} was made ({change}), though its quickhash "
                    "has not. Was it damaged or repaired? Delete that file to embed the slide anew"
                )
            return None
    if check_files and row.sha256 and copy is None:
        check_sha256(path, row.sha256)
    with slide_failures(path):
        return replace(prepare_slide(slide, row, content, place.grid), copy=copy)


def files_of_other_name(row: ManifestRow, manifest: Manifest, place: Place, content: dict[str, Any]) -> list[Path]:
    """The files that a slide of a folder has under another name. A slide is called by its path if another one has the
    same file name, and that one may have come or gone since. Empty if there are none, or if they are of another slide.
    """
    if not manifest.path.is_dir():
        return []  # a manifest's ids are what they are
    stem = Path(row.path).stem
    other = stem if row.slide_id != stem else row.path.replace("/", "__")
    try:
        mark = place.read_mark(other) if place.marked_file(other).exists() else None
    except EmbedError:  # not made by `g2l embed`, so not this slide's
        mark = None
    same = mark is not None and not content_changes(mark.slide | {"slide_id": ""}, content | {"slide_id": ""})
    return list(place.files(other).values()) if same else []
