"""Stage one without running the teacher: a store from features that another tool has made with it.

Find each feature file's slide, hold both against each other, prove with a few patches that they belong together, and
read the pixels. Left out of the paper's stage one: sampling and tissue, which the tool has decided.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipeline.base.console import Progress, say
from pipeline.base.cores import own_cores, usable_cores
from pipeline.base.devices import choose_device, keep_freed_memory
from pipeline.base.errors import BenchmarkError, ConfigError, StoreError
from pipeline.base.images import ImageFormat, require_lanczos
from pipeline.base.launched.group import LaunchedGroup, SharedWork
from pipeline.base.loader import BatchLoader
from pipeline.base.units import resolution_note
from pipeline.base.versions import versions
from pipeline.cohort.manifest import ManifestRow
from pipeline.cohort.plan import AuditRow, Plan, in_order, write_audit
from pipeline.config.base import to_toml
from pipeline.config.groups import Resampling
from pipeline.config.model_names import FOLDER_PREFIX, PRETRAINED, SCRATCH
from pipeline.config.plan import PlanConfig
from pipeline.config.tissue_rules import LATER_RULES
from pipeline.config.tools import ImportConfig
from pipeline.disk.at_hand import remove_notes, watched
from pipeline.disk.file_names import file_named
from pipeline.disk.files import write_text
from pipeline.disk.first_look import refuse_slide
from pipeline.disk.locks import exclusive
from pipeline.disk.second_look import Work
from pipeline.encoders.build import BuiltEncoder, build_encoder
from pipeline.encoders.hub import cached_weights
from pipeline.encoders.names import are_of_one, other_encoders
from pipeline.encoders.table import EncoderSpec, named_spec
from pipeline.features.excluded import leave_out_cases, require_same_exclusions
from pipeline.features.find import find_feature_tree
from pipeline.features.importing import (
    Expected,
    FeatureRows,
    ImportedSlide,
    describe_import,
    look_at_slide,
    read_slide,
    refuse_other_levels,
    where_slides_are,
)
from pipeline.features.match import Matched, fail_copies, fail_near_copies, match_slides
from pipeline.features.proof import BATCH_ROWS, Proof, Refused, embed_sample, prove, read_refused, sample_rows
from pipeline.features.read import read_facts
from pipeline.slides.geometry import PILLOW
from pipeline.slides.patch_sample import patches_to_measure
from pipeline.slides.reader import accept_all
from pipeline.store.changed_slides import noting_changed
from pipeline.store.create import create_store, is_store, open_to_continue
from pipeline.store.format import StoreSpec
from pipeline.store.patches import PlannedPatches
from pipeline.store.retry_failures import forget_failures
from pipeline.store.store import Store, StoredTeacher
from pipeline.store.writer import StoreWriter, row_batches, warn_of_disk, write_failures
from pipeline.student.weights_place import weights_note
from stages.many.shared_shards import counted_work, lead
from stages.reports.extract import Extracted
from stages.reports.plan import audit_table, estimate

MOST_READERS = 4
"""Threads that read feature files, at most. Our choice: each holds the features of a slide, up to some 100 MB, and HDF5
serves one at a time.
"""
UNKNOWN_WEIGHTS = "unknown"
"""Stands for the teacher's weights where they were not there to prove anything."""


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


def find_features(folder: Path, config: ImportConfig) -> tuple[Matched, list[Path]]:
    """The slides with their feature files; and these files, or all that there are if none is of a slide.

    Raises:
        G2LError: no feature files or slides; a list of cases cannot be used.
    """
    tree = find_feature_tree(folder, "")
    matched = leave_out_cases(match_slides(tree, config.manifest, config.slides_root), config.exclude_cases)
    for note in matched.notes:
        say(f"note: {note}")
    return matched, [path for _, path in matched.pairs] or list(tree.files.values())


def teacher_patch_px(config: ImportConfig, files: Sequence[Path]) -> int:
    """Side of the teacher's input: its own, else the option, else that of the first file that says one.

    Raises:
        ConfigError: none of them says, or teacher and option contradict each other.
        BenchmarkError: none of the files can be read.
    """
    spec = named_spec(config.teacher)
    if spec.patch_px and config.patch_px not in (None, spec.patch_px):
        raise ConfigError(f"--patch-px {config.patch_px}: {config.teacher} takes patches of {spec.patch_px} px")
    if known := spec.patch_px or config.patch_px:
        return known
    errors: list[BenchmarkError] = []
    for path in files:
        try:
            written = read_facts(path, config.coords).patch_px
        except BenchmarkError as error:
            errors.append(error)  # it fails by name when it is looked at
            continue
        if written is not None and written == round(written):
            return round(written)
    if len(errors) == len(files):
        raise errors[0]
    others = ", nor does any other file" if len(files) > 1 else ""
    raise ConfigError(
        f"{config.teacher} takes patches of any size, and {files[0]} does not say which{others}: give --patch-px"
    )


def find_teacher(name: str, weights_file: Path | None, patch_px: int) -> tuple[BuiltEncoder | None, dict[str, Any]]:
    """The teacher, if its weights are on this machine, and its record for the store.

    Raises:
        EncoderError: it cannot be built, or is not known well enough to describe it.
    """
    spec = named_spec(name)
    weights = weights_file or (PRETRAINED if _has_weights(spec) else None)
    if weights is not None:
        built = build_encoder(name, weights, patch_px)
        if built.note:
            say(built.note)
        return built, built.record()
    if spec.patch_px == 0:  # its width and statistics are in its architecture
        described = build_encoder(name, SCRATCH, patch_px)
        spec, num_params = described.spec, described.num_params
    else:
        num_params = round(spec.params_m * 1e6)
    unknown = {"weights": UNKNOWN_WEIGHTS, "weights_sha256": "", "num_params": num_params}
    return None, spec.record() | unknown


def _has_weights(spec: EncoderSpec) -> bool:
    """Whether a teacher's weights are on this machine: its own folder, or the hub's cache."""
    return spec.source.startswith(FOLDER_PREFIX) or cached_weights(spec) is not None


@dataclass(frozen=True)
class Looked:
    """Slides, checked against their feature files.

    Attributes:
        matched: which file is of which slide.
        slides: those that have a file, in the order of ids, failed or not.
        mpp: um/px of the patches.
        expected: what they were checked against.
    """

    matched: Matched
    slides: tuple[ImportedSlide, ...]
    mpp: float
    expected: Expected

    @property
    def audit(self) -> list[AuditRow]:
        """The audit of all slides: those with a file, those without, and the excluded ones."""
        return [*(slide.audit for slide in (*self.slides, *self.matched.failed)), *self.matched.excluded]

    @property
    def accepted(self) -> dict[str, ImportedSlide]:
        """The slides that are well, by id."""
        return {slide.audit.slide_id: slide for slide in self.slides if slide.slide is not None}

    def coords_note(self, folder: Path | None) -> str:
        """A note if the folder of coordinates that the user names has been of no use; "" otherwise."""
        slides = self.accepted.values()
        if folder is None or not slides or any(slide.coords_apart for slide in slides):
            return ""
        return f"note: --coords {folder} is not used: the feature files say themselves where their patches lie"

    def reason(self, slide_id: str) -> str:
        """Why a slide failed."""
        return next(slide.audit.reason for slide in self.slides if slide.audit.slide_id == slide_id)

    def reduced_as(self, plan: Plan) -> "Looked":
        """The same, its patches reduced as in a plan, which may be of an earlier version: that took Pillow, whoever had
        reduced them before.
        """
        known = {part.slide_id: part.geometry.resampling for part in plan.slides}
        slides = (slide.reduced_by(known.get(slide.audit.slide_id, slide.resampling)) for slide in self.slides)
        return replace(self, slides=tuple(slides))

    def without(self, refused: Sequence[Refused]) -> "Looked":
        """The same, with those slides failed whose features were refused and have not changed since."""
        reasons = {(r.slide_id, r.sha256): r.reason for r in refused}
        kept = []
        for slide in self.slides:
            reason = reasons.get((slide.audit.slide_id, slide.digest))
            kept.append(slide.failed(f"{slide.features}: {reason}") if reason else slide)
        return replace(self, slides=tuple(kept))


def expected_features(config: ImportConfig, patch_px: int, width: int) -> Expected:
    """What the features of every slide must fit."""
    return Expected(
        teacher=config.teacher,
        patch_px=patch_px,
        width=width,
        mpp=config.mpp,
        allow_upsampling=config.allow_upsampling,
        coords=config.coords,
        sampling=config.sampling,
    )


def look_at_features(matched: Matched, expected: Expected, workers: int) -> Looked:
    """Check every feature file against its slide.

    Raises:
        ConfigError: the files name different encoders, or another than the teacher.
    """
    root, measured = matched.root, patches_to_measure(len(matched.pairs))

    def look(pair: tuple[ManifestRow, Path]) -> ImportedSlide:
        row, features = pair
        return look_at_slide(row, file_named(root / row.path), features, expected, measured)

    slides = []
    with (
        ThreadPoolExecutor(min(workers, MOST_READERS)) as pool,
        Progress("looking at features", len(matched.pairs), "slides") as progress,
    ):
        for slide in pool.map(look, matched.pairs):
            slides.append(slide)
            progress.note(failed=sum(s.slide is None for s in slides))
            progress.step()
    slides, mpp = refuse_other_levels(fail_copies(slides, root), expected.mpp)
    slides = fail_near_copies(slides, root)
    say_encoder(slides, expected.teacher)
    return Looked(matched, tuple(slides), mpp, expected)


def say_encoder(slides: Sequence[ImportedSlide], teacher: str) -> None:
    """Say if the files name an encoder of which it is not known whether it is the teacher.

    Raises:
        ConfigError: they name different encoders, or another than the teacher.
    """
    encoders = sorted({s.encoder for s in slides if s.slide and s.encoder})
    if not are_of_one(encoders):
        raise ConfigError(f"the files name different encoders: {', '.join(encoders)}. Import one folder of features")
    if other := other_encoders(encoders, named_spec(teacher).record()):
        say(
            f"note: the files name the encoder {other[0]}, --teacher says {teacher}; it is not known whether "
            "they are the same"
        )


def leave_out_refused(looked: Looked, plan: Plan, proof: Proof | None) -> tuple[Looked, Plan]:
    """The slides and their plan, without the slides that the proof refuses.

    Raises:
        PlanError: no slide is left.
    """
    if proof is None or not proof.refused:
        return looked, plan
    looked = looked.without(proof.refused)
    for refused in proof.refused:
        say(f"refused: {refused.slide_id}: {looked.reason(refused.slide_id)}")
    return looked, plan_import(looked)


def plan_again(looked: Looked, before: Store) -> tuple[Looked, Plan]:
    """The plan of a store that is continued; what was refused when it was made stays refused.

    Raises:
        PlanError: no slide is left.
    """
    looked = looked.without(read_refused(before)).reduced_as(before.plan)
    plan = plan_import(looked, before.plan.config.resampling).as_known_to(before.plan)
    say_audit(plan, looked.expected.teacher)
    return looked, plan


def plan_import(looked: Looked, resampling: Resampling | None = None) -> Plan:
    """The plan of the slides that are well, with the audit of all.

    Args:
        resampling: who reduces patches according to the plan's options, if a store has them already; else who reduced
            those of all files, or Pillow if that was not one.

    Raises:
        PlanError: no slide is well.
        ConfigError: torch reduced their patches, and the one that is installed cannot.
    """
    parts = [slide.slide for slide in looked.slides if slide.slide is not None]
    if any(part.geometry.resampling != PILLOW for part in parts):
        require_lanczos("torch reduced the patches of these features", "embed")
    reducers = {slide.resampling for slide in looked.accepted.values()}
    most = max((len(part.coords_l0_px) for part in parts), default=1)
    expected, sampling = looked.expected, looked.expected.sampling
    options = PlanConfig.build(
        {
            "patches_per_slide": sampling.patches_per_slide or most,
            "patch_px": expected.patch_px,
            "mpp": looked.mpp,
            "min_tissue": 0.0,
            "max_artefact": 1.0,
            "val_fraction": sampling.val_fraction,
            "allow_upsampling": expected.allow_upsampling,
            "seed": sampling.seed,
            "resampling": resampling or (reducers.pop() if len(reducers) == 1 else PILLOW),
            "skip_rule": LATER_RULES,  # patches are those of the files: no tissue is looked for
        }
    )
    slides, audit = in_order(parts, looked.audit)
    return Plan(slides, Path(os.path.realpath(looked.matched.root)), options, audit)


def say_audit(plan: Plan, teacher: str) -> None:
    """What came of each slide, and whether the teacher was trained at this resolution, in words."""
    say(audit_table(plan))
    if note := resolution_note(teacher, named_spec(teacher).mpp, plan.mpp, "these patches are at"):
        say(note)


def say_estimate(plan: Plan, width: int, config: ImportConfig) -> None:
    """What the store will take, in words."""
    say(
        estimate(
            plan, width=width or None, dtype=config.dtype, rows_per_shard=config.rows_per_shard, pixels=config.pixels
        )
    )


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
