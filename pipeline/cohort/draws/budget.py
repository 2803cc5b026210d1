"""Cut a cohort's patches to a budget: of patches, of bytes, or of stage one's time. Pure.

A budget becomes one number, the most patches of a slide: slides with fewer give all they have, and leave their share to
the others. What then is left goes to the slides one patch each, in the order of `--max-slides`. A larger budget gives
no slide fewer patches, so its plan contains the smaller one's where the draw nests. Left out: balance between centres,
cases and classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.base.errors import PlanError
from pipeline.cohort.audit import AuditRow, split_column
from pipeline.cohort.draws.by_method import sample_of_slide
from pipeline.cohort.draws.filling import fill_evenly
from pipeline.cohort.plan import SlidePlan
from pipeline.config.budget import Budget
from pipeline.config.groups import Sampling
from pipeline.sampling import rank_slides
from pipeline.slides.patch_sample import pixel_bytes_of_each

LEFT_OUT = "the budget leaves no patch for it"
ASSUMED_WIDTH = 1536
"""Width of the embedding where no teacher is named: that of the paper's, H-optimus-0."""


@dataclass(frozen=True)
class Prices:
    """What a patch costs.

    Attributes:
        embedding_bytes: of its embeddings in the store.
        pixels: how the store keeps it: "jpegxl", "jpeg" or "none".
        patches_a_second: that stage one does; `None` if that is not known.
    """

    embedding_bytes: int = ASSUMED_WIDTH * 2
    pixels: str = "jpegxl"
    patches_a_second: float | None = None


USUAL_PRICES = Prices()
"""Of a store of the usual teacher with lossless pixels."""


def cut_to_budget(
    slides: Sequence[SlidePlan], audit: Sequence[AuditRow], budget: Budget, prices: Prices, sampling: Sampling
) -> tuple[list[SlidePlan], list[AuditRow], dict[str, Any]]:
    """Cut slides, which have all their patches, to a budget; returns them, perhaps without patches, the audit of all
    slides, and what the budget came to, as the plan records it.

    Raises:
        PlanError: bytes are limited, and no patch could be measured.
    """
    rows = {row.slide_id: row for row in audit}
    numbers = {slide.slide_id: index for index, slide in enumerate(slides)}
    order = [numbers[slide_id] for slide_id in rank_slides(sorted(numbers), sampling.seed)]
    available = [len(slide.split) for slide in slides]
    taken = patches_bought(available, [rows[slide.slide_id] for slide in slides], budget, prices, order)
    cut = []
    for slide, number in zip(slides, taken, strict=True):
        drawn = replace(sampling, patches_per_slide=number)
        part = slide.take(sample_of_slide(slide.slide_id, slide.coords_l0_px, slide.classes, drawn))
        row = replace(rows[slide.slide_id], patches_taken=number, split=split_column(part.split))
        rows[slide.slide_id] = row if number else row.with_reason(LEFT_OUT)
        cut.append(part)
    facts: dict[str, Any] = {
        "budget": budget.text,
        "patches": sum(taken),
        "of_patches": sum(available),
        "most_of_a_slide": max(taken, default=0),
    }
    if budget.kind == "bytes":
        facts |= {"embedding_bytes": prices.embedding_bytes, "pixels": prices.pixels}
    if budget.kind == "seconds":
        facts |= {"patches_a_second": prices.patches_a_second}
    return cut, [rows[row.slide_id] for row in audit], facts


def patches_bought(
    available: Sequence[int], rows: Sequence[AuditRow], budget: Budget, prices: Prices, order: Sequence[int]
) -> list[int]:
    """How many patches of each slide a budget buys.

    Args:
        available: patches of each slide.
        rows: the slides' audit, which says what pixels take.
        order: the slides' indices, in which what is left is handed out.

    Raises:
        PlanError: bytes are limited, and no patch could be measured.
    """
    costs, amount = _in_units(budget, prices, rows)
    return fill_evenly(available, costs, amount, order)


def _in_units(budget: Budget, prices: Prices, rows: Sequence[AuditRow]) -> tuple[list[int], int]:
    """What a patch of each slide costs, and the budget, both in bytes or both in patches."""
    if budget.kind == "bytes":
        pixels = pixel_bytes_of_each(rows, prices.pixels)
        if pixels is None:
            raise PlanError(
                f"--budget {budget.text}: no patch could be read, so nobody knows what one takes. Give a number of "
                "patches"
            )
        return [max(prices.embedding_bytes + math.ceil(each), 1) for each in pixels], budget.amount
    amount = budget.amount
    if budget.kind == "seconds":
        assert prices.patches_a_second is not None  # the options see to it
        amount = math.floor(amount * prices.patches_a_second)
    return [1] * len(rows), amount
