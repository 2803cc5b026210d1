"""Slides with made-up embeddings, on the way to their files."""

import numpy as np

from pipeline.cohort.plan import SlidePlan
from pipeline.config.plan import PlanConfig
from pipeline.features.layouts import EmbeddedSlide
from pipeline.sampling import TRAIN
from pipeline.slides.geometry import PatchGeometry

GRID = PlanConfig(patch_px=64, mpp=0.5).grid
SLIDES = {"even": (0.5, 0, 1.0), "odd.v2": (0.2527, 0, 1.0), "level": (0.2309, 1, 2.0)}
"""um/px, level and downsample: 64 px of 0.5 um are 64, 126.63 and 138.59 level-0 pixels."""
ENCODER = "hf-hub:owner/name v2"


def embedded(slide_id: str, dtype: str, rows: int = 9) -> EmbeddedSlide:
    """A slide with made-up embeddings; two of its patches could not be embedded."""
    mpp, level, downsample = SLIDES[slide_id]
    rng = np.random.default_rng(sum(map(ord, slide_id)))
    tried = np.stack([np.arange(rows + 2) * 300, np.full(rows + 2, 77)], axis=1).astype(np.int64)
    geometry = PatchGeometry(GRID.patch_px, GRID.mpp, mpp, level, downsample)
    plan = SlidePlan(
        slide_id,
        f"{slide_id}.svs",
        "case",
        None,
        None,
        "0" * 8,
        (9001, 2003),
        geometry,
        tried,
        np.full(rows + 2, TRAIN, np.uint8),
    )
    size = (int(9001 / downsample), int(2003 / downsample))
    made_by = {"model": {"architecture": "x"}, "settings": {"patch_px": GRID.patch_px, "mpp": GRID.mpp}}
    return EmbeddedSlide(
        plan,
        size,
        made_by,
        {"slide_id": slide_id},
        tried[1:-1],
        np.full(rows, 0.75),
        rng.standard_normal((rows, 5)).astype(dtype),
    )
