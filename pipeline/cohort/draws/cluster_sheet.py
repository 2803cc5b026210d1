"""A contact sheet of clusters: some patches of each, for a person to see what they are."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import PatchError, SlideError
from pipeline.cohort.plan import Plan
from pipeline.disk.objects.places import ObjectPath
from pipeline.report.sheets import draw_best_and_worst
from pipeline.slides.geometry import PILLOW
from pipeline.slides.reader import Slide

CLUSTER_SHEET: Final = Path("clusters", "sheet.png")
"""Where it lies in the folder of overlays; a folder below, so that no slide's picture has its name."""
OF_EACH: Final = 8
"""Patches of a cluster. Our choice: a row that fits a screen."""


def write_cluster_sheet(
    examples: Mapping[int, Sequence[tuple[str, int, int]]],
    read: Callable[[str, int, int], NDArray[np.uint8]],
    path: Path,
) -> None:
    """Write the sheet (PNG): a row a cluster; patches that cannot be read are passed over.

    Args:
        examples: of each cluster, slide id and level-0 (x, y) of patches that were taken.
        read: the patch, uint8 (P, P, 3), by these; may raise PatchError or SlideError.

    Raises:
        OSError: it cannot be written.
    """
    rows: dict[str, list[tuple[NDArray[np.uint8], str]]] = {}
    for cluster, places in sorted(examples.items()):
        patches = rows[f"no. {cluster}"] = []
        for slide_id, x, y in places:
            try:
                patches.append((read(slide_id, x, y), slide_id[:12]))
            except (PatchError, SlideError):
                continue
    if any(rows.values()):
        path.parent.mkdir(exist_ok=True)
        draw_best_and_worst(rows, "Patches taken of each cluster, and their slides", path)


def draw_cluster_examples(plan: Plan, examples: Mapping[int, Sequence[tuple[str, int, int]]], folder: Path) -> None:
    """Write the sheet of a plan's clusters to the folder of overlays; reads the patches from the slides, but for those
    in a bucket, each of which would be copied for a patch or two.

    Raises:
        OSError: it cannot be written.
    """
    parts = {part.slide_id: part for part in plan.slides}
    rows = {row.slide_id: row for row in plan.audit}
    away = {slide_id for slide_id, part in parts.items() if isinstance(plan.slide_path(part), ObjectPath)}
    examples = {cluster: [place for place in places if place[0] not in away] for cluster, places in examples.items()}

    def read(slide_id: str, x: int, y: int) -> NDArray[np.uint8]:
        part, mpp = parts[slide_id], rows[slide_id].mpp
        slide = Slide(plan.slide_path(part), mpp, mpp_overrides=True)
        return slide.read_patch(x, y, part.geometry.reduced_by(PILLOW))

    write_cluster_sheet(examples, read, folder / CLUSTER_SHEET)
