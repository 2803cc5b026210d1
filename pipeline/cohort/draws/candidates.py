"""Read the candidate patches of an open slide and describe them."""

import numpy as np
from numpy.typing import NDArray

from pipeline.base.console import counted
from pipeline.base.errors import PatchError
from pipeline.cohort.draws.descriptors import NUM_FACTS, describe_patch
from pipeline.cohort.plan import SlidePlan
from pipeline.slides.geometry import PILLOW
from pipeline.slides.reader import Slide


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
    num_bad = int((~readable).sum())
    words = f"{num_bad:,} of {counted(len(readable), 'candidate patch', 'candidate patches')} cannot be read"
    return part.take(readable), np.array(facts, np.uint16).reshape(-1, NUM_FACTS), words if num_bad else ""
