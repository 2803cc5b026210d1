"""Stage one without running the teacher: a store from features that another tool has made with it.

Left out of the paper's stage one: sampling and tissue, which the tool has decided. What remains is to find each file's
slide, to hold both against each other, to prove with a few patches that they belong together, and to read the pixels.
"""

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pipeline.base.console import Progress, say
from pipeline.base.cores import usable_cores
from pipeline.base.devices import choose_device, keep_freed_memory, versions
from pipeline.base.errors import BenchmarkError, ConfigError, StoreError
from pipeline.base.loader import BatchLoader
from pipeline.cohort.plan import Plan, build_plan
from pipeline.config.base import to_toml
from pipeline.config.model_names import PRETRAINED, SCRATCH
from pipeline.config.stages import PlanConfig
from pipeline.config.tools import ImportConfig
from pipeline.disk.file_names import file_named
from pipeline.disk.files import write_text
from pipeline.disk.folders import is_free
from pipeline.disk.locks import exclusive
from pipeline.encoders.build import BuiltEncoder, build_encoder
from pipeline.encoders.hub import cached_weights
from pipeline.encoders.names import are_of_one, other_encoders
from pipeline.encoders.table import EncoderSpec, named_spec
from pipeline.features.facts import read_facts
from pipeline.features.folders import find_feature_tree
from pipeline.features.importing import (
    FeatureRows,
    ImportedSlide,
    describe_import,
    look_at_slide,
    refuse_other_levels,
)
from pipeline.features.match import Matched, fail_copies, match_slides
from pipeline.features.proof import BATCH_ROWS, Proof, Refused, prove, read_refused
from pipeline.slides.patch_sample import patches_to_measure
from pipeline.store.patches import PlannedPatches
from pipeline.store.retry_failures import forget_failures
from pipeline.store.store import Store, StoreSpec, create_store, open_to_continue
from pipeline.store.writer import StoreWriter
from pipeline.student.teacher_weights import weights_note
from stages import extract_teacher
from stages.extract_teacher import MPP_TOLERANCE
from stages.plan import write_audit
from stages.reports.extract import Extracted as Extracted
from stages.reports.extract import import_report as report  # noqa: F401
from stages.reports.plan import audit_table, estimate

MOST_READERS = 4
"""Threads that look at feature files, at most. Our choice: each holds the features of a slide, up to some 100 MB, and
HDF5 reads for one at a time.
"""
UNKNOWN_WEIGHTS = "unknown"
"""In place of where a teacher's weights came from, when it was not there to prove anything."""


def import_features(
    folder: Path, out: Path, config: ImportConfig, *, record: dict[str, Any] | None = None
) -> Extracted:
    """Make or continue the store `out` from the feature files in `folder`; `record`, the resolved options and paths,
    goes into it as `config.toml`.

    Raises:
        G2LError: wrong input, features that are not the teacher's, a store of other inputs, a full disk; what was
            finished before is safe, and the same command continues.
    """
    with exclusive(out, "g2l import-features"):
        existing = (out / "zarr.json").exists()
        if not existing and not is_free(out):
            raise StoreError(f"{out} exists and is not a store; nothing is overwritten. Choose another --out")
        if existing and "imported" not in Store(out).spec.settings:
            raise StoreError(f"{out} was not made by import-features and is not continued. Choose another --out")
        if config.coords is not None and not config.coords.is_dir():
            raise ConfigError(f"--coords {config.coords}: no such folder")
        files, tree = find_feature_tree(folder, "")
        matched = match_slides(files, config, tree)
        patch_px = teacher_patch_px(config, [path for _, path in matched.pairs] or list(files.values()))
        built, teacher = find_teacher(config, patch_px)
        looked = look_at_slides(matched, config, patch_px, teacher["width"])
        if existing:
            looked = looked.without(read_refused(Store(out)))
        slides, plan = plan_import(looked, config)
        if existing:
            plan = plan.as_known_to(Store(out).plan)
        say_plan(plan, teacher["width"], config)
        proof = None
        if not existing and (proof := _prove(plan, slides, built, config)) and proof.refused:
            looked = looked.without(proof.refused)
            slides, plan = plan_import(looked, config)
            say_plan(plan, teacher["width"], config)
        rows_per_shard = min(config.rows_per_shard, plan.num_rows)
        settings = {
            "rows_per_shard": rows_per_shard,
            "pixels": config.pixels,
            "dtype": config.dtype,
            "precision": "float32",  # of what `verify` embeds again; the files do not say in which they were made
            "batch_size": min(BATCH_ROWS, rows_per_shard),
            "imported": describe_import(list(slides.values()), config),
        }
        spec = StoreSpec(teacher, settings)
        if not existing:
            notes = (proof.notes() if proof else {}) | weights_note(config.weights)
            create_store(out, plan, spec, versions(), **notes)
        store = open_to_continue(out, plan, spec)
        if record is not None:
            write_text(out / "config.toml", to_toml({"import-features": record}))
        write_audit(plan.audit, out / "audit.csv")
        if config.retry_failures:
            forget_failures(store, plan, PlannedPatches(plan, None, None))
        pending = store.pending_shards()
        num_rows = sum(len(store.shard_rows(shard)) for shard in pending)
        extract_teacher.warn_of_disk(store, plan, num_rows)
        started = time.monotonic()
        copy_shards(store, plan, pending, FeatureRows(plan, slides, config.coords), config)
        extract_teacher.write_failures(store)
    return Extracted(store, num_rows, store.status_counts(), time.monotonic() - started)


def teacher_patch_px(config: ImportConfig, files: Sequence[Path]) -> int:
    """Side of the teacher's input: its own, else the option, else as the first file says that says it.

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
            said = read_facts(path, config.coords).patch_px
        except BenchmarkError as error:
            errors.append(error)  # it fails by name when it is looked at
            continue
        if said is not None and said == round(said):
            return round(said)
    if len(errors) == len(files):
        raise errors[0]
    others = ", nor does any other file" if len(files) > 1 else ""
    raise ConfigError(
        f"{config.teacher} takes patches of any size, and {files[0]} does not say which{others}: give --patch-px"
    )


def find_teacher(config: ImportConfig, patch_px: int) -> tuple[BuiltEncoder | None, dict[str, Any]]:
    """The teacher, if its weights can be had without a network, and its record for the store.

    Raises:
        EncoderError: it cannot be built, or is not known well enough to describe it.
    """
    spec = named_spec(config.teacher)
    weights = config.weights or (PRETRAINED if _has_weights(spec) else None)
    if weights is not None:
        built = build_encoder(config.teacher, weights, patch_px)
        return built, built.record()
    if spec.patch_px == 0:  # its width and statistics are in its architecture
        described = build_encoder(config.teacher, SCRATCH, patch_px)
        spec, num_params = described.spec, described.num_params
    else:
        num_params = round(spec.params_m * 1e6)
    unknown = {"weights": UNKNOWN_WEIGHTS, "weights_sha256": "", "num_params": num_params}
    return None, spec.record() | unknown


def _has_weights(spec: EncoderSpec) -> bool:
    """Whether a teacher's weights are on this machine: its own folder, or the hub's cache."""
    return spec.source.startswith("local-dir:") or cached_weights(spec) is not None


@dataclass(frozen=True)
class Looked:
    """Slides held against their files.

    Attributes:
        matched: which file is of which slide.
        slides: those that have a file, in the order of ids, failed or not.
        mpp: um/px of the patches.
        patch_px: side of the teacher's input.
    """

    matched: Matched
    slides: tuple[ImportedSlide, ...]
    mpp: float
    patch_px: int

    def without(self, refused: Sequence[Refused]) -> "Looked":
        """The same with slides failed whose features the proof has refused, and are still those features."""
        reasons = {(r.slide_id, r.sha256): r.reason for r in refused}
        kept = []
        for slide in self.slides:
            reason = reasons.get((slide.audit.slide_id, slide.digest))
            kept.append(slide.failed(f"{slide.features}: {reason}") if reason else slide)
        return replace(self, slides=tuple(kept))


def look_at_slides(matched: Matched, config: ImportConfig, patch_px: int, width: int) -> Looked:
    """Hold every file against its slide.

    Raises:
        ConfigError: the files name different encoders, or another than the teacher.
    """
    found = []
    with (
        ThreadPoolExecutor(min(config.workers or usable_cores(), MOST_READERS)) as pool,
        Progress("looking at features", len(matched.pairs), "slides") as progress,
    ):
        root, measured = matched.root, patches_to_measure(len(matched.pairs))
        for slide in pool.map(
            lambda p: look_at_slide(p[0], file_named(root / p[0].path), p[1], config, patch_px, width, measured),
            matched.pairs,
        ):
            found.append(slide)
            progress.note(failed=sum(s.slide is None for s in found))
            progress.step()
    found, mpp = refuse_other_levels(fail_copies(found, root), config.mpp)
    encoders = sorted({s.encoder for s in found if s.slide and s.encoder})
    if not are_of_one(encoders):
        raise ConfigError(f"the files name different encoders: {', '.join(encoders)}. Import one folder of features")
    if other := other_encoders(encoders, named_spec(config.teacher).record()):
        say(f"note: the files name the encoder {other[0]}, --teacher says {config.teacher}; it is not known whether "
            "they are the same")  # fmt: skip
    return Looked(matched, tuple(found), mpp, patch_px)


def plan_import(looked: Looked, config: ImportConfig) -> tuple[dict[str, ImportedSlide], Plan]:
    """The slides that are well, by id, and the plan with the audit of all.

    Raises:
        PlanError: no slide is well.
    """
    well = {s.audit.slide_id: s for s in looked.slides if s.slide is not None}
    most = max((len(s.slide.coords_l0_px) for s in well.values() if s.slide), default=1)
    values = {"patches_per_slide": config.patches_per_slide or most, "patch_px": looked.patch_px, "mpp": looked.mpp,
              "min_tissue": 0.0, "val_fraction": config.val_fraction, "allow_upsampling": config.allow_upsampling,
              "seed": config.seed}  # fmt: skip
    audit = [s.audit for s in (*looked.slides, *looked.matched.failed)]
    parts = [s.slide for s in well.values() if s.slide is not None]
    return well, build_plan(PlanConfig.build(values), parts, audit, looked.matched.root.resolve())


def say_plan(plan: Plan, width: int, config: ImportConfig) -> None:
    """The audit and what the store will take, in words."""
    say(audit_table(plan))
    say(
        estimate(
            plan, width=width or None, dtype=config.dtype, rows_per_shard=config.rows_per_shard, pixels=config.pixels
        )
    )
    trained_at, mpp = named_spec(config.teacher).mpp, plan.config.mpp
    if trained_at and abs(trained_at / mpp - 1) > MPP_TOLERANCE:
        say(f"note: {config.teacher} was trained at {trained_at:g} um/px, these patches are at {mpp:g}")


def _prove(
    plan: Plan, slides: dict[str, ImportedSlide], teacher: BuiltEncoder | None, config: ImportConfig
) -> Proof | None:
    """Prove that features and slides belong together, and say so; `None` where it cannot be.

    Raises:
        StoreError: most of them do not.
    """
    if teacher is None or not config.check_rows:
        why = "the teacher's weights are not here; --weights gives them" if teacher is None else "--check-rows 0"
        say(f"note: not proven that features and slides belong together ({why})")
        return None
    device = choose_device(config.device)
    keep_freed_memory(device)
    teacher.module.to(device)
    proof = prove(plan, slides, teacher, config, device)
    if proof is None:
        say("note: not proven that features and slides belong together (no patch of the sample can be read)")
        return None
    say(proof.words())
    return proof


def copy_shards(store: Store, plan: Plan, shards: Iterable[int], features: FeatureRows, config: ImportConfig) -> None:
    """Read the pixels of the given shards, and commit them with their features.

    Raises:
        StoreError: the disk is full, or a file has changed meanwhile.
    """
    todo, size = list(shards), store.spec.settings["batch_size"]
    patches = PlannedPatches(plan, None if config.pixels == "none" else config.pixels)
    done = store.num_rows - sum(len(store.shard_rows(shard)) for shard in todo)
    loader = BatchLoader(
        patches.read, patch_px=store.patch_px, batch_size=size, workers=config.workers or usable_cores(),
        device=torch.device("cpu"),
    )  # fmt: skip
    with (
        StoreWriter(store, patches.describe, "imported") as writer,
        loader,
        Progress("importing", store.num_rows, "patches", done=done) as progress,
    ):
        for batch in loader.batches(extract_teacher.row_batches(store, todo, size)):
            writer.put(batch.rows, features.read(batch.rows), batch.results)
            progress.note(failed=writer.num_failures)
            progress.step(len(batch.rows))
    if note := patches.plain_note():
        say(note)
