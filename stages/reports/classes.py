"""Report of the classes of a plan's annotations: a table for the terminal."""

from collections import Counter, defaultdict

from pipeline.base.console import table
from pipeline.base.units import format_digits
from pipeline.cohort.plan import Plan

MOST_ROWS = 20
"""Classes that the table has, those of the most area. Our choice: a screenful."""


def class_table(plan: Plan) -> str:
    """The classes of a plan's annotations, the largest first: slides, patches of the class, and the area of it that
    the patches show; "" if no slide has annotations.

    A patch is of a class from the plan's `min_class` on, so that it may be of several, or of none.
    """
    slides, patches, areas_mm2 = Counter[str](), Counter[str](), defaultdict[str, float](float)
    for slide in plan.slides:
        classes, geometry = slide.classes, slide.geometry
        if classes is None:
            continue
        patch_mm2 = (geometry.patch_l0_px * geometry.slide_mpp / 1000) ** 2
        is_of = classes.of(classes.names) >= plan.config.min_class
        for index, name in enumerate(classes.names):
            slides[name] += 1
            patches[name] += int(is_of[:, index].sum())
            areas_mm2[name] += float(classes.fractions[:, index].sum(dtype=float)) * patch_mm2
    if not slides:
        return ""
    order = sorted(slides, key=lambda name: (-areas_mm2[name], name))
    rows = [(name, slides[name], f"{patches[name]:,}", format_digits(areas_mm2[name])) for name in order[:MOST_ROWS]]
    more = f"\n... and {len(order) - MOST_ROWS:,} more classes" if len(order) > MOST_ROWS else ""
    header = ("class", "slides", "patches", "mm2 in patches")
    return table(rows, header, right=(1, 2, 3)) + more
