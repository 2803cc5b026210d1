"""Slides of a manifest that lie in a bucket: which are copied to be audited, and what the audit says of the others.

A plan reads a thumbnail and a few patches of a slide, but the whole of it is copied: OpenSlide reads files. Slides that
are files are read where they are.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.base.console import counted, say
from pipeline.base.errors import SlideError
from pipeline.base.units import format_bytes
from pipeline.cohort.annotated import file_hashes
from pipeline.cohort.audit import AuditRow
from pipeline.cohort.manifest.rows import Manifest, ManifestRow
from pipeline.config.staging import StageFolder
from pipeline.disk.objects.bucket import ObjectFacts
from pipeline.disk.objects.places import ObjectPath
from pipeline.disk.objects.present import look_at_objects
from pipeline.slides.staging.ahead import Staging
from pipeline.slides.staging.copies import ExpectedSlide
from pipeline.slides.staging.objects import require_stage
from pipeline.slides.staging.one import left_open


def require_copies(manifest: Manifest, rows: Iterable[ManifestRow], stage: StageFolder | None) -> None:
    """See that the slides of `rows` that are in a bucket can be copied.

    Raises:
        ConfigError: there is no folder to copy them into.
    """
    require_stage((manifest.slide_path(row) for row in rows), stage)


@contextmanager
def staged_objects(
    manifest: Manifest, rows: Iterable[ManifestRow], stage: StageFolder | None, *, check_files: bool = False
) -> Iterator[Staging]:
    """While the block runs, copy those slides of `rows` that are in a bucket, in this order, each to be used once; with
    `check_files` a copy must have the manifest's SHA-256.

    Raises:
        ConfigError: there are some, and no folder to copy them into.
        G2LError: the folder cannot be written, or a bucket does not answer.
    """
    in_buckets = [(path, row) for row in rows if isinstance(path := manifest.slide_path(row), ObjectPath)]
    require_stage((path for path, _ in in_buckets), stage)
    if in_buckets and stage is not None:
        looks = look_at_objects(path for path, _ in in_buckets).values()
        size = format_bytes(sum(look.num_bytes for look in looks if isinstance(look, ObjectFacts)))
        slides = counted(len(in_buckets), "slide")
        say(f"note: {slides} in a bucket: each is copied whole into {stage.folder}, {size} in all")
    with Staging(stage if in_buckets else None, tell=say) as staging:
        staging.expect(ExpectedSlide(path, sha256=row.sha256 if check_files else None) for path, row in in_buckets)
        yield staging


@contextmanager
def copy_to_audit(path: Path, staging: Staging) -> Iterator[tuple[Path | None, str]]:
    """The copy of a slide while the block runs, `None` if it is read where it is; and why there is none."""
    try:
        try:
            copy, why = staging.copy_of(path), ""
        except SlideError as error:
            copy, why = None, str(error)
        yield copy, why
    finally:
        staging.done(path, left_open)


def audit_of_uncopied(
    row: ManifestRow, manifest: Manifest, known: dict[str, Any], tissue_from: Path | None, why: str
) -> AuditRow:
    """The audit row of a slide that cannot be copied; `known` are the columns that come from the manifest."""
    try:
        known = known | file_hashes(manifest, row, tissue_from)
    except SlideError as error:
        why = str(error)
    return AuditRow(**known, status="failed", reason=why)
