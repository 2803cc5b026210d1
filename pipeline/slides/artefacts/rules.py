"""The rules of the tissue finder with their colours, and the detectors of what looks like tissue and is none. Pure.

`RULES` is in the order in which rules run. Those without a detector here are steps of `slides.tissue`; the others run
after it, each on what those before it left, and see the same picture. A detector is a function

    find_X(image, pixel_um, tissue, known, glass) -> dropped

of an RGB picture uint8 (H, W, 3) of about 8 um/px, the side of its pixels in um, the tissue so far bool (H, W), the
pixels that can be judged bool (H, W), and the colours of the glass; it says bool (H, W) what is to be dropped. To add
one, enter its name in `config.tissue_rules` and its colour and function here.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.config.tissue_rules import RULE_WORDS, RuleName
from pipeline.slides.artefacts.blank import find_blank
from pipeline.slides.artefacts.density import WHITE
from pipeline.slides.artefacts.edges import find_edges
from pipeline.slides.artefacts.fat import find_fat
from pipeline.slides.artefacts.focus import find_blur
from pipeline.slides.artefacts.folds import find_folds
from pipeline.slides.artefacts.pen import find_pen
from pipeline.slides.glass import Colour, strips
from pipeline.slides.tissue import BLIND_RULES, TissueMask, reason_of

Detector = Callable[[NDArray[np.uint8], float, NDArray[np.bool_], NDArray[np.bool_], list[Colour]], NDArray[np.bool_]]


@dataclass(frozen=True)
class Rule:
    """A step of finding tissue.

    Attributes:
        name: as in `--skip-rule`.
        colour: of what it drops, in pictures; `None` for a rule that drops nothing.
        find: its detector; `None` for a step of `slides.tissue`.
    """

    name: RuleName
    colour: tuple[int, int, int] | None
    find: Detector | None = None

    @property
    def description(self) -> str:
        """What it does, in a line."""
        return RULE_WORDS[self.name].description

    @property
    def is_on(self) -> bool:
        """Whether it runs without `--use-rule`."""
        return RULE_WORDS[self.name].is_on


RULES: tuple[Rule, ...] = (
    Rule("border", (70, 70, 160)),
    Rule("dark", (110, 60, 20)),
    Rule("faint", None),
    Rule("grey", None),
    Rule("specks", (240, 200, 0)),
    Rule("haze", (200, 0, 200)),
    Rule("pen", (0, 190, 220), find_pen),
    Rule("edges", (0, 110, 110), find_edges),
    Rule("folds", (210, 0, 60), find_folds),
    Rule("blank", (120, 200, 40), find_blank),
    Rule("blur", (140, 80, 220), find_blur),
    Rule("fat", (140, 140, 0), find_fat),
)
"""All rules, in the order in which they run. Colours are our choice: apart from each other, from stains and from the
other colours of an overlay.
"""
DROPPING = tuple(rule for rule in RULES if rule.colour is not None)
"""The rules that drop something."""


def drop_artefacts(found: TissueMask, pixel_um: float, rules: tuple[Rule, ...] = RULES) -> TissueMask:
    """Drop by the detectors of those rules that the tissue is to be found by; keeps which rule dropped a pixel.

    Detectors see glass in place of a scanner's border, which is a ring around all tissue, as an air bubble's edge is.
    """
    detectors = [rule for rule in rules if rule.find is not None and rule.name in found.rules]
    if not detectors:
        return found
    mask = found.mask.copy()
    reasons = np.zeros(mask.shape, np.uint8) if found.reasons is None else found.reasons.copy()
    picture, border = found.thumbnail, reasons == reason_of("border")
    if border.any():
        picture = picture.copy()
        picture[border] = np.round(found.glass[0] if found.glass else WHITE)
    known = ~found.unreadable & ~np.isin(reasons, [reason_of(name) for name in BLIND_RULES])
    for rule in detectors:
        assert rule.find is not None
        tissue = mask & known
        if not tissue.any():
            break
        dropped = rule.find(picture, pixel_um, tissue, known, list(found.glass)) & tissue
        reasons[dropped] = reason_of(rule.name)
        mask &= ~dropped
    return replace(found, mask=mask, reasons=reasons)


def dropped_mm2(found: TissueMask, pixel_mm2: float) -> dict[str, float]:
    """The area that each rule dropped, mm2: of all rules that ran and can drop, in order."""
    if found.reasons is None:
        return {}
    counts = np.zeros(len(RULES) + 1, np.int64)
    for rows in strips(*found.reasons.shape):  # `bincount` takes eight bytes a pixel
        counts += np.bincount(found.reasons[rows].ravel(), minlength=len(counts))
    return {
        rule.name: round(float(counts[reason_of(rule.name)] * pixel_mm2), 3)
        for rule in DROPPING
        if rule.name in found.rules
    }
