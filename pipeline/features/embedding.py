"""Embeddings of all tissue patches of one slide: which patches, then the model over them, batch by batch.

On a GPU the host is one batch ahead of the results. Memory is a ring of batches and one slide's embeddings. Patches
that cannot be read, or whose embedding is no number, are left out and reported, never filled up.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.base.console import Tell
from pipeline.base.errors import SlideError
from pipeline.cohort.manifest.rows import ManifestRow
from pipeline.cohort.plan import PlannedSlides, SlidePlan
from pipeline.config.base import differences
from pipeline.config.groups import Grid
from pipeline.encoders.build import BuiltEncoder
from pipeline.encoders.embed import EncoderForward, batches_at_once, read_and_embed
from pipeline.features.layouts import EmbeddedSlide
from pipeline.projector import Projector
from pipeline.sampling import TRAIN
from pipeline.slides.identity import hashes_pixels
from pipeline.slides.reader import Slide
from pipeline.slides.staging.ahead import KnownCopy
from pipeline.slides.tissue_grid import lay_grid
from pipeline.store.format import Status
from pipeline.store.patches import PatchRead, PlannedPatches

WHOLE_SLIDE = "SLIDE"
"""Status of a failure that is a whole slide's."""
PARTS, SERIES = "sha256_parts", "sha256_series"
"""Hashes of a slide's file and, of some of several files, of all with levels. Marks of earlier versions lack them."""


@dataclass(frozen=True)
class Failure:
    """A patch that was left out, or a slide without embeddings: then without `x` and `y`, which are level 0."""

    slide_id: str
    x: int | None
    y: int | None
    status: str
    reason: str


@dataclass(frozen=True, eq=False)
class PreparedSlide:
    """A slide whose patches are known.

    Attributes:
        path: its file.
        plan: the slide and its patches, all on tissue, in reading order.
        tissue_fraction: float64 (N,), of each patch's area.
        level_size_px: (width, height) of the level that is read.
        content: what it is, whatever its file is called.
        warnings: what is odd of it, in words.
        copy: a copy that is read in its place (`slides.staging`).
    """

    path: Path
    plan: SlidePlan
    tissue_fraction: NDArray[np.float64]
    level_size_px: tuple[int, int]
    content: dict[str, Any]
    warnings: tuple[str, ...] = ()
    copy: Path | None = None


@dataclass(frozen=True, eq=False)
class Embedder:
    """A model, and how it is run.

    Attributes:
        encoder: the model; its module is on `device`.
        projector: maps its embedding into its teacher's space; on `device`; `None` for its own embedding.
        device, precision: where and in which arithmetic.
        dtype: type of the embeddings that are kept, float32 or float16.
        batch_size: patches a forward pass.
        workers: threads that read.
    """

    encoder: BuiltEncoder
    projector: Projector | None
    device: torch.device
    precision: str
    dtype: str
    batch_size: int
    workers: int

    @property
    def width(self) -> int:
        """Dimension of what comes out."""
        return self.projector.linear.out_features if self.projector else self.encoder.spec.width

    @torch.inference_mode()
    def embed(self, pixels: Tensor) -> Tensor:
        """uint8 (B, P, P, 3) on the device -> float32 (B, D) there."""
        embeddings = EncoderForward(self.encoder.module, self.device, self.precision)(pixels)
        return self.projector.as_teacher(embeddings) if self.projector else embeddings


def slide_content(slide: Slide, slide_id: str, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a slide is, by its `SlideIdentity`: a change of any of it makes other embeddings. To be compared with what
    was said of it `before`, if that is given.

    Raises:
        SlideError: the file is gone.
    """
    identity, info = slide.identity(before.get("bytes") if before else None), slide.info
    return {
        "slide_id": slide_id,
        "quickhash": info.quickhash,
        "bytes": identity.file_bytes,
        "mpp": info.mpp,
        "size_l0_px": list(info.size_l0_px),
        PARTS: identity.sha256,
        **({} if identity.series_sha256 is None else {SERIES: identity.series_sha256}),
    }


def content_changes(then: dict[str, Any], now: dict[str, Any], vendor: str) -> list[str]:
    """How a slide differs from what a mark says of it, `name: then -> now` each. Marks of earlier versions have no hash
    of the file: they are told by its bytes, size, mpp and quickhash. Where both have the same quickhash, a damaged tile
    may have been repaired since: `file_change`. Not so where the quickhash says nothing of pixels, by the `vendor`
    (`identity.hashes_pixels`).
    """
    left_out = {name for name in (PARTS, SERIES) if name not in then}
    if then.get("quickhash") is not None and then["quickhash"] == now["quickhash"] and hashes_pixels(vendor):
        left_out |= {PARTS, SERIES}
    then, now = ({k: v for k, v in record.items() if k not in left_out} for record in (then, now))
    return differences(then, now)


def file_change(then: dict[str, Any], now: dict[str, Any]) -> str:
    """How the file of an unchanged slide differs from what a mark says of it, `name: then -> now`, or nothing."""
    pairs = [(name, then.get(name), now.get(name)) for name in (PARTS, SERIES)]
    changes = [
        f"{name}: {was[:12]} -> {now_is[:12]}" for name, was, now_is in pairs if was and now_is and was != now_is
    ]
    return "; ".join(changes)


def prepare_slide(slide: Slide, row: ManifestRow, content: dict[str, Any], grid: Grid) -> PreparedSlide:
    """Find the tissue of a slide and all patches on it.

    Raises:
        SlideError: it gives no patch, or it is too coarse.
    """
    laid = lay_grid(slide, grid)
    if not len(laid.coords_l0_px):
        raise SlideError(f"{slide.path}: {laid.why_empty}")
    plan = SlidePlan(
        slide_id=row.slide_id,
        path=slide.path.name,
        case_id=row.case_id,
        center=row.center,
        manifest_mpp=row.mpp,
        quickhash=slide.info.quickhash,
        size_l0_px=slide.info.size_l0_px,
        geometry=laid.geometry,
        coords_l0_px=laid.coords_l0_px,
        split=np.full(len(laid.coords_l0_px), TRAIN, np.uint8),
        identity_facts=slide.identity().record(),
        has_case=row.has_case,
    )
    size = slide.info.level_sizes_px[laid.geometry.level]
    return PreparedSlide(slide.path, plan, laid.tissue_fraction, size, content, (*slide.info.warnings, *laid.warnings))


def embed_slide(
    slide: PreparedSlide, embedder: Embedder, made_by: dict[str, Any], on_batch: Callable[[int], None], tell: Tell
) -> tuple[EmbeddedSlide, list[Failure]]:
    """Embed all patches of a slide; `on_batch` gets how many more are done, `tell` what is odd about the file.

    Raises:
        SlideError: the slide is gone or another one than it was, or none of its patches can be embedded.
        ConfigError: the device has too little memory for the batch.
    """
    coords = slide.plan.coords_l0_px
    num = len(coords)
    patches = PlannedPatches(
        PlannedSlides((slide.plan,), slide.path.parent), None, tell=tell, copies=KnownCopy(slide.copy)
    )
    size = min(embedder.batch_size, num)
    features = np.empty((num, embedder.width), embedder.dtype)
    results: list[PatchRead] = []

    def read(rows: Sequence[int], out: NDArray[np.uint8]) -> list[PatchRead]:
        results = patches.read_some(rows, out)
        for result in results:
            if result.status is Status.NO_SLIDE:  # there is never a file of half a slide
                raise SlideError(result.reason)
        return results

    with read_and_embed(
        embedder.embed,
        read,
        [range(start, min(start + size, num)) for start in range(0, num, size)],
        embedder.device,
        patch_px=slide.plan.geometry.patch_px,
        batch_size=size,
        workers=embedder.workers,
        width=embedder.width,
        no_room="Give a smaller --batch-size; finished slides are kept",
        is_readable=lambda result: result.status is Status.OK,
        at_once=batches_at_once(embedder.device),
    ) as batches:
        for embedded in batches:
            start, reads = len(results), embedded.results
            _store(embedded.embeddings.numpy(), reads, features[start : start + len(reads)])
            results += reads
            on_batch(len(reads))
    kept = np.array([read.status is Status.OK for read in results])
    failures = [
        Failure(slide.plan.slide_id, int(coords[i, 0]), int(coords[i, 1]), results[i].status.name, results[i].reason)
        for i in np.flatnonzero(~kept)
    ]
    if not kept.any():
        raise SlideError(f"{slide.path}: none of its {num:,} patches can be embedded; the first: {failures[0].reason}")
    if failures:
        features = features[kept]
    whole = EmbeddedSlide(
        slide.plan, slide.level_size_px, made_by, slide.content, coords[kept], slide.tissue_fraction[kept], features
    )
    return whole, failures


def _store(found: NDArray[np.float32], results: list[PatchRead], out: NDArray[Any]) -> None:
    """Put the embeddings of a batch at their rows of `out`, in its type; those that are no numbers become failures."""
    ok = [i for i, read in enumerate(results) if read.status is Status.OK]
    with np.errstate(over="ignore"):  # beyond float16 becomes infinite, and is seen below
        out[ok] = found
    finite = np.isfinite(out[ok]).all(axis=1)
    for i, good in zip(ok, finite, strict=True):
        if not good:
            reason = f"the model gives NaN or infinity, or more than {out.dtype} holds"
            results[i] = PatchRead(Status.NOT_FINITE, reason=reason)
