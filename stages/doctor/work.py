"""Look at a manifest, a store or a run: whether its files are there, the first slides read for real, and what the whole
will take in hours and bytes.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.console import counted, said_to, say
from pipeline.base.cores import usable_cores
from pipeline.base.devices import choose_device, choose_precision, describe_device, keep_freed_memory
from pipeline.base.errors import CheckpointError, G2LError, Source
from pipeline.base.outside import reading
from pipeline.base.units import format_bytes, format_seconds
from pipeline.base.versions import other_versions
from pipeline.cohort.cases import case_facts, cases_warning
from pipeline.cohort.leakage.exclusions import PartedRows
from pipeline.cohort.manifest.read import read_manifest
from pipeline.cohort.manifest.rows import Manifest, ManifestRow
from pipeline.config.base import read_options
from pipeline.config.model_names import SCRATCH
from pipeline.config.plan import PlanConfig
from pipeline.config.stages import ExtractConfig, TrainConfig
from pipeline.disk.files import bytes_below
from pipeline.disk.objects.places import say_where
from pipeline.disk.objects.present import absent_places
from pipeline.disk.objects.urls import as_url
from pipeline.encoders.build import build_encoder
from pipeline.encoders.embed import EncoderForward
from pipeline.encoders.weight_files import read_weight_file
from pipeline.slides.patch_sample import MOST_OF_A_SLIDE
from pipeline.slides.staging.one import copy_of_slide
from pipeline.store.format import Status
from pipeline.store.store import Store, StoredTeacher
from pipeline.store.teachers import choose_teachers
from pipeline.student.start import find_start
from pipeline.student.weights_place import NOTED_WEIGHTS, noted_place, remembered_weights, store_of_run
from pipeline.training.preflight import NUM_PATCHES, seconds_of_patch
from pipeline.training.run_folder import RunFolder
from stages.doctor.estimate import MEND_PLAN, OF_CONFIG, TriedSlides, estimate_cohort
from stages.doctor.findings import Finding, good, note, trouble
from stages.doctor.reading import look_at_reading
from stages.doctor.stored_files import look_at_files
from stages.plan import check_cohort
from stages.planning.audit_slide import Audited, audit_slide
from stages.planning.outputs import folders_of, require_folders

NOT_FAILED = {status.name for status in Status if status in (Status.OK, Status.ABSENT) or status.is_dropped}
"""Statuses of rows that are no failures: embedded, not done yet, or dropped by `--patch-qc`."""
COLUMNS_ARE_IN = "data_manifests/README.md says what the columns mean"
ABOUT_COLUMNS = f"nothing, if that is right; {COLUMNS_ARE_IN}"
HOW_TO_MEND: Mapping[Source, str] = {
    "slide": "look at it in a viewer; options of `plan` are taken from the table [plan] of --config",
    "annotations": "correct its file in the program that drew it, or the path in the manifest's column annotations; "
    f"docs/annotations.md says what is read. --include, --exclude and --annotation-origin {OF_CONFIG}",
    "tissue": "correct its file in QuPath, or write it anew with `g2l plan --tissue-geojson`. "
    f"--tissue-from {OF_CONFIG}",
}
"""What to do about a slide, by what of it is in the way."""
FIRST_SLIDES = 3
"""Slides to read for real. Our choice: some seconds each."""


def look_at_manifest(path: Path, place: Path, teacher_seconds: float | None, slides: TriedSlides) -> Iterator[Finding]:
    """Look at a manifest: its rows, their files, the first slides that would be planned, and an estimate for the whole.

    Args:
        teacher_seconds: of the teacher's forward pass, a patch; `None` if no teacher was named.
        slides: how slides would be planned.
    """
    try:
        manifest = read_manifest(path, slides.slides_root)
    except G2LError as error:
        yield trouble("manifest", str(error), f"mend these rows, or give --slides-root; {COLUMNS_ARE_IN}")
        return
    yield from _look_at_rows(manifest)
    if slides.why_unpriced:
        advice = f"mend that, or give a number of patches. --budget {OF_CONFIG}"
        yield trouble("budget", slides.why_unpriced, advice)
    rows, findings = rows_that_plan_takes(manifest, slides.planned)
    yield from findings
    first = rows[:FIRST_SLIDES]  # all are there: `read_manifest` has looked
    if not first:
        return
    yield from look_at_reading(list(map(manifest.slide_path, first)))  # before they are read for real
    tried = []
    for row in first:
        finding, result = try_slide(manifest, row.slide_id, slides)
        yield finding
        tried.append(result)
    yield from estimate_cohort(tried, rows, place, teacher_seconds, slides)


def _look_at_rows(manifest: Manifest) -> Iterator[Finding]:
    """What a manifest's rows say."""
    cases, centers = {row.case_id for row in manifest.rows}, {row.center for row in manifest.rows if row.center}
    found = (
        f"{counted(len(manifest.rows), 'slide')} of {counted(len(cases), 'case')}, {counted(len(centers), 'centre')}"
    )
    yield good("manifest", found)
    yield from (note("columns", words, ABOUT_COLUMNS) for words in manifest.notes)
    if not any(row.has_case for row in manifest.rows):
        advice = "fill the column case_id: slides of one patient may otherwise be trained on and held out"
        yield note("cases", "no row names its case, so each slide counts as one", advice)
    elif warning := cases_warning(case_facts(manifest.rows)):
        yield note("cases", warning, "mend the column case_id before you plan: it decides what is held out")


def _look_at_exclusion(parted: PartedRows) -> Iterator[Finding]:
    """Which slides `plan` would leave out, if it is to leave any out."""
    advice = f"nothing, if that is right. --exclude-cases {OF_CONFIG}"
    if not parted.kept:
        yield trouble("excluded", "--exclude-cases leaves no slide to plan", advice)
        return
    yield from (good("excluded", words) for words in parted.notes[:1])
    yield from (note("excluded", words, advice) for words in parted.notes[1:])


def rows_that_plan_takes(manifest: Manifest, planned: PlanConfig) -> tuple[list[ManifestRow], list[Finding]]:
    """The rows that `plan` would plan by its options, by slide id, and what it would say of them before it opens a
    slide; no rows if it would refuse. Builds the encoder of candidates, if there is one, as `plan` does.
    """
    said: list[str] = []
    try:
        with said_to(said.append):
            checked = check_cohort(manifest, planned, planned.workers or usable_cores())
            require_folders(manifest, folders_of(planned.overlays, planned.tissue_geojson))
    except G2LError as error:
        return [], [*_notes_of_plan(said), trouble("plan", str(error), MEND_PLAN)]
    told = {f"note: {words}" for words in checked.parted.notes}
    notes = _notes_of_plan(words for words in said if words not in told)
    return checked.planned, [*notes, *_look_at_exclusion(checked.parted)]


def _notes_of_plan(said: Iterable[str]) -> Iterator[Finding]:
    """The notes of `plan` on its options."""
    advice = f"nothing, if that is right. Each option {OF_CONFIG}"
    yield from (note("plan", words.removeprefix("note: "), advice) for words in said)


def try_slide(manifest: Manifest, slide_id: str, slides: TriedSlides) -> tuple[Finding, Audited]:
    """Plan one slide, reading some of its patches."""
    (row,) = (row for row in manifest.rows if row.slide_id == slide_id)
    started = time.monotonic()
    copied = copy_of_slide(manifest.slide_path(row), slides.stage, tell=say)
    how = slides.grid, slides.sampling, False, None, MOST_OF_A_SLIDE, slides.tissue_files
    with copied as copy:
        result = audit_slide(row, manifest, *how, copy=copy)
    seconds, audit = time.monotonic() - started, result.audit
    if result.slide is None or not result.sample or not result.sample.measured:
        return trouble(slide_id, audit.reason or "no patch of it can be read", HOW_TO_MEND[result.about]), result
    each = result.sample.seconds / result.sample.measured
    words = (
        f"{audit.vendor}, {audit.width:,} x {audit.height:,} at {audit.mpp:.4g} um/px, "
        f"{counted(audit.patches_available, 'patch', 'patches')} on tissue; planned in {format_seconds(seconds)}, "
        f"{each * 1000:.3g} ms a patch to read and encode"
    )
    if audit.status != "ok" or audit.warnings:
        advice = "look at it in a viewer, and at its picture: `g2l plan --overlays`"
        if result.about != "slide":
            advice = f"{advice}; {HOW_TO_MEND[result.about]}"
        return note(slide_id, f"{words}; {'; '.join(filter(None, (audit.reason, audit.warnings)))}", advice), result
    return good(slide_id, words), result


def look_at_store(store: Store, slides_root: Path | None = None) -> Iterator[Finding]:
    """Look at a store: how far each teacher is, failed rows, versions, files that are missing, slides that are still
    needed, which are below `slides_root` or where they were planned.
    """
    for teacher in store.teachers.values():
        done = len(teacher.shards) - len(teacher.pending)
        counts = teacher.ledger.status_counts(teacher.shards)
        words = f"{done:,} of {counted(len(teacher.shards), 'shard')} done, {format_bytes(teacher.ledger.num_bytes())}"
        if teacher.pending:
            yield note(teacher.name, words + _remaining(teacher.ledger.seconds(), done, len(teacher.pending)), CONTINUE)
            yield from _look_for_weights_of(teacher)
        else:
            yield good(teacher.name, words)
        for made in teacher.rounds:
            if made.pending:
                view, done = f"{teacher.name}, view {made.own_view}", len(made.shards) - len(made.pending)
                words = f"{done:,} of {counted(len(made.shards), 'shard')} done"
                yield note(view, words + _remaining(made.ledger.seconds(), done, len(made.pending)), CONTINUE)
        failed = sum(number for name, number in counts.items() if name not in NOT_FAILED)
        if failed:
            mend = NO_PIXELS if failed == counts[Status.EMPTY.name] else MEND_SLIDES
            yield note(teacher.name, f"{counted(failed, 'row')} failed", f"see failures.csv in the store; {mend}")
        if changed := other_versions(teacher.attributes.get("versions", {})):
            advice = "continue with the versions it was begun with, where digits matter" if teacher.pending else KEEP
            yield note(teacher.name, f"begun with other versions: {', '.join(changed)}", advice)
    yield from _look_at_inputs(store, slides_root)


NO_PIXELS = "nothing else: the slides' files have no pixels there"
MEND_SLIDES = "mend the slides, then `extract-teacher --retry-failures`"
CONTINUE = "run the same `g2l extract-teacher` again: it continues"
KEEP = "nothing, as long as it is only read"


def _remaining(seconds: float, done: int, pending: int) -> str:
    """How long the shards to come take at the rate of those that are done."""
    return f"; about {format_seconds(seconds / done * pending)} to go at their rate" if done and seconds else ""


def _look_for_weights_of(teacher: StoredTeacher) -> Iterator[Finding]:
    """That the file of a teacher's weights, which is still needed, is not where it was; nothing of published ones."""
    if NOTED_WEIGHTS in teacher.attributes and remembered_weights(teacher) is None:
        words = f"its weights are no longer at {noted_place(teacher)}, and not all is done"
        yield trouble(teacher.name, words, "name their file with --weights where it is now; its hash is compared")


def _look_at_inputs(store: Store, slides_root: Path | None) -> Iterator[Finding]:
    """What is missing of a store's files, and of its slides where they are still needed."""
    damage = list(look_at_files(store))
    yield from damage
    has_plan = all(finding.subject != "plan" for finding in damage)
    if has_plan and (not store.has_pixels or any(teacher.pending for teacher in store.teachers.values())):
        yield _look_at_slides(store, slides_root)


def _look_at_slides(store: Store, slides_root: Path | None) -> Finding:
    """Whether the slides of a store that needs them are there."""
    plan = store.plan
    places = {slide.path: plan.slide_path(slide, slides_root) for slide in plan.slides}
    absent = absent_places(places.values())
    if missing := [name for name, place in places.items() if place in absent]:
        words = f"{len(missing):,} of {counted(len(plan.slides), 'slide')} are missing: {places[missing[0]]}"
        return trouble("slides", words, say_where(missing))
    return good("slides", f"all {len(plan.slides):,} are there")


def look_at_run(path: Path) -> Iterator[Finding]:
    """Look at a run: how far it is, its checkpoints, its versions."""
    run = RunFolder(path)
    try:
        with reading(run.identity_path, "damaged", CheckpointError):
            identity = run.read_identity()
            reached = _reached(run.metrics(), identity["options"]["epochs"])
    except G2LError as error:
        yield trouble("run", str(error), "copy it from a backup, or train again into another --out")
        return
    size = bytes_below(run.checkpoints)
    if run.student.exists():
        yield good("run", f"finished at {reached}; {format_bytes(size)} of checkpoints")
        yield from _look_at_student(run.student)
    elif later := _later_version(run):
        yield trouble("run", later, "copy the run to where that G2L is")
    else:
        saved = any(run.checkpoints.glob("*"))
        advice = "run the same `g2l train-student` again: it continues" + ("" if saved else " from the first step")
        yield note("run", f"{reached}, not finished; {format_bytes(size)} of checkpoints", advice)
        if changed := other_versions(identity.get("versions", {})):
            advice = "continue with these versions, where it is to be exact to the bit"
            yield note("versions", f"begun with others: {', '.join(changed)}", advice)
        yield from look_at_start(run)


def _later_version(run: RunFolder) -> str:
    """Why this G2L cannot continue a run; empty if it can."""
    try:
        run.version()
    except CheckpointError as error:
        return str(error)
    return ""


def _look_at_student(folder: Path) -> Iterator[Finding]:
    """Whether the files of weights of a finished run's student can be read; nothing if so."""
    for path in sorted(folder.rglob("*.safetensors")):
        try:
            read_weight_file(path)
        except G2LError as error:
            yield trouble(
                "student", str(error), "copy it from a backup; or `g2l train-student` again, into another --out"
            )


def _reached(lines: Sequence[Mapping[str, Any]], epochs: int) -> str:
    """How far a run of so many epochs is, by the lines of its metrics."""
    steps = [line for line in lines if line["kind"] == "step"]
    return f"step {steps[-1]['step']:,}, epoch {steps[-1]['epoch'] + 1} of {epochs}" if steps else "no step yet"


def look_at_start(run: RunFolder) -> Iterator[Finding]:
    """What `train-student` would refuse of the store and the student's weights that a run goes on with, as the run's
    options name them; nothing of a store in a bucket, or if there are no options yet.
    """
    store = store_of_run(run)
    if store is None or as_url(store):
        return
    try:
        options = read_options(run.config_path, "train-student")
        names = options.keys() & TrainConfig.model_fields.keys()
        config = TrainConfig.build({name: options[name] for name in names}, is_record=True)
        opened = Store(store)
        choose_teachers(opened, config.teacher, config.teacher_weight)
        find_start(config.weights)
        yield from look_at_files(opened)
    except G2LError as error:
        yield trouble("inputs", str(error), "name the store or --weights where they are now; both are compared")


def seconds_of_teacher(name: str, patch_px: int) -> tuple[Finding, float | None]:
    """Build an encoder with random weights, which are as fast as its own, and time it here; seconds a patch."""
    try:
        device = choose_device(ExtractConfig(teacher=name).device)
        keep_freed_memory()
        built = build_encoder(name, SCRATCH, patch_px)
        built.module.to(device).eval()
        forward = EncoderForward(built.module, device, choose_precision("auto", device))
        patches = np.random.default_rng(0).integers(0, 256, (NUM_PATCHES, patch_px, patch_px, 3), np.uint8)
        seconds_of_patch(forward, patches, NUM_PATCHES)  # warms up
        seconds = seconds_of_patch(forward, patches, NUM_PATCHES)
    except G2LError as error:
        return trouble("teacher", str(error), "see `g2l models`"), None
    words = f"{name} takes {seconds * 1000:.3g} ms a patch on {describe_device(device)}, with random weights"
    return good("teacher", words), seconds
