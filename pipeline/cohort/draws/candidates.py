"""Read the candidate patches of an open slide and describe them by colour and texture; or what describes them later."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.base.console import counted
from pipeline.base.errors import PatchError
from pipeline.cohort.audit import AuditRow
from pipeline.cohort.draws.descriptors import NUM_FACTS, describe_patch
from pipeline.cohort.plan import SlidePlan
from pipeline.slides.geometry import PILLOW
from pipeline.slides.reader import Slide
from pipeline.slides.staging.ahead import Staging

NONE_READABLE: Final = "no candidate patch can be read"
"""Why a slide with candidates gives none."""


@dataclass(frozen=True)
class DescribedPool:
    """The candidates of all slides, described.

    Attributes:
        slides: with the candidates that can be read; those without one are left out.
        audit: of all slides.
        facts: of each slide, by its id, what its candidates look like, uint16 (N, D).
    """

    slides: list[SlidePlan]
    audit: list[AuditRow]
    facts: dict[str, NDArray[np.uint16]]


class PoolSampler(Protocol):
    """What describes candidates once all slides are audited, in place of colour and texture."""

    @property
    def name(self) -> str:
        """What it is, as the plan records it."""

    def describe(
        self, slides: Sequence[SlidePlan], audit: Sequence[AuditRow], slides_root: Path, staging: Staging
    ) -> DescribedPool:
        """Read and describe the candidates of slides, whose paths start from `slides_root`; those that are in a bucket
        are copied by `staging`, in this order.
        """


def describe_candidates(slide: Slide, part: SlidePlan) -> tuple[SlidePlan, NDArray[np.uint16], str]:
    """The candidates that can be read; what they look like, uint16 (N, D); and a warning of those that cannot be read,
    or "".

    Pillow reduces them, as where sizes are measured: so a plan is made without loading torch.
    """
    geometry = part.geometry.reduced_by(PILLOW)
    facts, readable = list[NDArray[np.uint16]](), np.zeros(len(part.split), bool)
    for index, (x, y) in enumerate(part.coords_l0_px.tolist()):
        try:
            facts.append(describe_patch(slide.read_patch(x, y, geometry)))
        except PatchError:
            continue
        readable[index] = True
    return part.take(readable), np.array(facts, np.uint16).reshape(-1, NUM_FACTS), unread_words(readable)


def unread_words(readable: NDArray[np.bool_]) -> str:
    """A warning of candidates (N,) that cannot be read, or ""."""
    num_bad = int((~readable).sum())
    words = f"{num_bad:,} of {counted(len(readable), 'candidate patch', 'candidate patches')} cannot be read"
    return words if num_bad else ""
