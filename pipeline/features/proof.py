"""Prove that features and slides belong together: the teacher embeds a few patches of each slide again.

A slide passes if, in the median of its patches, the cosine with the file's features is high and hardly any other row of
the file is nearer than the patch's own. The mean of the features is subtracted before the cosine, since embeddings of
one encoder share a large common part. The cosine is not enough by itself: two patches of tissue resemble each other
more than either resembles that mean. Their rank is enough: features of other places, slides or models have a random
one. A few slides that do not pass are refused by name, and the store remembers them; if most do not, the whole import
is refused. Left out: patches that were not drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.console import Tell, counted
from pipeline.base.errors import StoreError
from pipeline.base.images import ImageFormat
from pipeline.base.outside import reading
from pipeline.cohort.plan import Plan
from pipeline.encoders.build import BuiltEncoder
from pipeline.encoders.embed import embed_rows
from pipeline.features.importing import FeatureRows, ImportedSlide
from pipeline.store.format import Status
from pipeline.store.patches import PlannedPatches
from pipeline.store.store import Store
from pipeline.training.rows.order import row_keys

BATCH_ROWS = 32
"""Patches a forward pass. Our choice: fits anywhere; the sample is small."""
COMMON = 0.01
"""Features that differ from their mean by less than this share of their length are compared as they are."""
MAX_NEARER = 0.05
"""Share of a slide's rows that may be nearer to a patch than its own, in the median. Our choice: of right features none
or a few in thousands are, of wrong ones about half.
"""
TOO_LONG = 2.0
"""The mean of a slide's features that is so many times as long as any of the teacher's embeddings is no mean of such
embeddings. Our choice: a mean is no longer than the longest of its rows, of which only a sample is at hand.
"""
MOST_REFUSED = 0.5
"""If a larger share of the slides is refused, the whole import is. Our choice: a wrong teacher, patch size or
resampling fails nearly all slides, files that were mixed up fail a few.
"""
REFUSED = "refused"
"""The store's attribute that lists the slides that were refused."""
NAMED = 10
"""Slides that an error names. Our choice: fits a screen."""


@dataclass(frozen=True)
class Refused:
    """A slide whose features are not the teacher's: the hash of these features, and why they are refused."""

    slide_id: str
    sha256: str
    reason: str


@dataclass(frozen=True)
class Proof:
    """A sample of patches, embedded again.

    Attributes:
        rows: number of patches.
        median_cosine: median cosine of all patches, less the mean.
        min_slide_cosine: smallest median cosine of a slide, less the mean.
        max_nearer: largest median of a slide, of the share of rows that are nearer to a patch than its own.
        min_plain_cosine: smallest cosine of a patch, the mean not subtracted.
        largest: largest absolute difference of a value.
        scale: largest absolute value, for comparison.
        refused: slides that did not pass; the numbers are those of the others.
    """

    rows: int
    median_cosine: float
    min_slide_cosine: float
    max_nearer: float
    min_plain_cosine: float
    largest: float
    scale: float
    refused: tuple[Refused, ...] = ()

    def notes(self) -> dict[str, Any]:
        """What the store records of the proof."""
        proof = {name: value for name, value in vars(self).items() if name != REFUSED}
        return {"proof": proof} | ({REFUSED: [asdict(r) for r in self.refused]} if self.refused else {})

    def words(self) -> str:
        """The numbers in words, in one line."""
        return (
            f"{counted(self.rows, 'patch', 'patches')} embedded again: less the mean, "
            f"cosine {self.median_cosine:.4f} in the median and "
            f"{self.min_slide_cosine:.4f} for the worst slide; at most {self.max_nearer:.1%} of other rows are nearer; "
            f"with the mean, cosine at least {self.min_plain_cosine:.4f}, largest difference "
            f"{self.largest:.3g} of values up to {self.scale:.3g}"
        )


def sample_rows(plan: Plan, each: int) -> list[int]:
    """Up to `each` rows of every slide, chosen by a hash, ascending."""
    rows, slides = np.arange(plan.num_rows), plan.slide_of_row()
    order = np.lexsort((row_keys(rows, 0, 0, "import"), slides))
    first = np.searchsorted(slides[order], np.arange(len(plan.slides)))
    rank = np.arange(len(rows)) - first[slides[order]]
    chosen: list[int] = np.sort(rows[order][rank < each]).tolist()
    return chosen


def cosines(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Cosine of each row of (N, D) with that of (N, D); 0 where one has no length."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return np.asarray((x * y).sum(axis=1) / np.where(norms > 0, norms, 1))


def centred_cosines(
    stored: NDArray[np.float32], again: NDArray[np.float32], centre: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Cosines of (N, D) with (N, D), less `centre` (D,); plain ones where a stored row hardly differs from it."""
    rest = np.linalg.norm(stored - centre, axis=1)
    plain = rest < COMMON * np.linalg.norm(stored, axis=1)
    return np.where(plain, cosines(stored, again), cosines(stored - centre, again - centre))


def share_nearer(
    again: NDArray[np.float32], own: NDArray[np.int64], rows: NDArray[np.float32], centre: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Share of the other rows (M, D) that are nearer to each embedding (N, D) than row `own` (N,), less `centre`."""
    a, b = again - centre, rows - centre
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float32).tiny) for x in (a, b))
    likeness = a @ b.T
    mine = likeness[np.arange(len(own)), own][:, None]
    nearer = (likeness > mine + np.finfo(np.float32).eps).sum(axis=1)
    return np.asarray(nearer / max(len(rows) - 1, 1))


def common_part(centres: Sequence[NDArray[np.float64]], again: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mean of the slides' features, float64 (D,), from the mean of each, without those that are `TOO_LONG`.

    One slide of much larger values would be nearly all of the mean; less it, all embeddings of the other slides have a
    cosine of 1. Where all are too long, all count.

    Args:
        again: float32 (N, D), the teacher's embeddings of the sample.
    """
    lengths = np.linalg.norm(again.astype(np.float64), axis=1)
    longest = TOO_LONG * float(lengths.max(where=np.isfinite(lengths), initial=0.0))
    return np.asarray(np.mean([c for c in centres if np.linalg.norm(c) <= longest] or centres, axis=0))


def embed_sample(
    plan: Plan,
    rows: list[int],
    teacher: BuiltEncoder,
    device: torch.device,
    *,
    image_format: ImageFormat | None,
    workers: int,
    tell: Tell,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The rows that can be read, int64 (N,), and their embeddings by a teacher that is on `device`, float32 (N, D).

    Patches are seen as a lossy `image_format` gives them. Notes on slides go to `tell`.
    """
    patches = PlannedPatches(plan, image_format, tell=tell)
    status: dict[int, Status] = {}

    def read(some: Sequence[int], out: NDArray[np.uint8]) -> list[None]:
        status.update(zip(some, (result.status for result in patches.read_some(some, out)), strict=True))
        return [None] * len(some)

    embedded = embed_rows(
        teacher.module,
        read,
        rows,
        patch_px=plan.config.patch_px,
        batch_size=BATCH_ROWS,
        workers=workers,
        device=device,
        precision="float32",
        what="embedding again",
        no_room="Choose another --device",
    )
    ok = np.array([status[row] is Status.OK for row in rows])
    return np.array(rows)[ok], embedded[ok]


def prove(
    plan: Plan,
    slides: Mapping[str, ImportedSlide],
    rows: NDArray[np.int64],
    again: NDArray[np.float32],
    *,
    teacher: str,
    coords: Path | None,
    min_cosine: float,
) -> Proof:
    """Compare the features of a sample with what the teacher gives.

    A slide is refused if its median cosine is below `min_cosine`, or if more than `MAX_NEARER` of its rows are nearer.

    Args:
        rows: int64 (N,), the sample: at least one row.
        again: float32 (N, D), the teacher's embeddings of these rows.
        teacher: its name.
        coords: the folder of coordinate files, if they lie apart.

    Raises:
        StoreError: more than `MOST_REFUSED` of the slides are refused; names them.
    """
    features, slide_of_row = FeatureRows(plan, slides, coords), plan.slide_of_row()
    centre = common_part([s.centre for s in slides.values() if s.centre is not None], again)
    medians: dict[str, tuple[float, float]] = {}
    stored: dict[str, NDArray[np.float32]] = {}
    embedded: dict[str, NDArray[np.float32]] = {}
    for i in np.unique(slide_of_row[rows]):
        slide_rows, in_sample = np.flatnonzero(slide_of_row == i), slide_of_row[rows] == i
        name, whole = plan.slides[i].slide_id, features.read(slide_rows.tolist())
        own = np.searchsorted(slide_rows, rows[in_sample])
        stored[name], embedded[name] = whole[own], again[in_sample]
        cosine = centred_cosines(whole[own], again[in_sample], centre)
        nearer = share_nearer(again[in_sample], own, whole, centre)
        medians[name] = (float(np.median(cosine)), float(np.median(nearer)))
    refused = refused_slides(medians, slides, min_cosine, teacher)
    good = medians.keys() - {r.slide_id for r in refused}
    before = np.concatenate([values for name, values in stored.items() if name in good])
    after = np.concatenate([values for name, values in embedded.items() if name in good])
    return Proof(
        rows=len(before),
        median_cosine=float(np.median(centred_cosines(before, after, centre))),
        min_slide_cosine=min(cosine for name, (cosine, _) in medians.items() if name in good),
        max_nearer=max(nearer for name, (_, nearer) in medians.items() if name in good),
        min_plain_cosine=float(cosines(before, after).min()),
        largest=float(np.abs(before - after).max()),
        scale=float(np.abs(before).max()),
        refused=refused,
    )


def read_refused(store: Store) -> tuple[Refused, ...]:
    """The slides that were refused when the store was made.

    Raises:
        StoreError: its attribute is damaged.
    """
    with reading(store.folder, f"its attribute {REFUSED} is damaged", StoreError, "Choose another --out"):
        return tuple(Refused(**values) for values in store.first.attributes.get(REFUSED, []))


def refused_slides(
    medians: Mapping[str, tuple[float, float]], slides: Mapping[str, ImportedSlide], min_cosine: float, teacher: str
) -> tuple[Refused, ...]:
    """Slides whose features are not those of the teacher at these places.

    Args:
        medians: of each slide, the median cosine and the median share of rows that are nearer.

    Raises:
        StoreError: more than `MOST_REFUSED` of the slides are refused.
    """
    bad = {  # NaN is not good either
        name: f"cosine {cosine:.3f}, {nearer:.0%} of the other rows nearer"
        for name, (cosine, nearer) in medians.items()
        if not (cosine >= min_cosine and nearer <= MAX_NEARER)
    }
    needed = f"needed are a cosine of {min_cosine:g} and at most {MAX_NEARER:.0%}"
    if len(bad) > MOST_REFUSED * len(medians):
        names = "\n".join(f"  {name}: {words}" for name, words in list(bad.items())[:NAMED])
        more = f"\n  and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        raise StoreError(
            f"the features of {len(bad)} of {len(medians)} slides are not those that {teacher} gives at these places "
            f"(medians of a slide; {needed}):\n{names}{more}\n"
            "Is it another teacher, patch size or folder of slides? If the tool resamples differently, --min-cosine "
            "lowers the first bound"
        )
    why = f"not the features that {teacher} gives at these places"
    return tuple(
        Refused(name, slides[name].digest, f"{why}: {words} (medians; {needed})") for name, words in bad.items()
    )
