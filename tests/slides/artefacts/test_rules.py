"""The rules: as the configuration names them, applied in order, and what they dropped kept by reason."""

from dataclasses import replace

import numpy as np
import pytest
from support.artefacts import Section, stroke
from support.stained import glass, piece, stain

from pipeline.config.tissue_rules import RULE_NAMES, rules_in_use
from pipeline.slides.artefacts.rules import DROPPING, RULES, Rule, drop_artefacts, dropped_mm2
from pipeline.slides.tissue import TissueMask, look_for_tissue, reason_of

SHAPE = (20, 30)


@pytest.fixture
def found() -> TissueMask:
    """Tissue but for a border on the left, of which nothing is known."""
    mask, reasons = np.ones(SHAPE, bool), np.zeros(SHAPE, np.uint8)
    mask[:, :5], reasons[:, :5] = False, reason_of("border")
    unreadable = np.zeros(SHAPE, bool)
    unreadable[0, 10] = True
    thumbnail = np.zeros((*SHAPE, 3), np.uint8)
    return TissueMask(mask, 16.0, unreadable, thumbnail, reasons, ((240.0, 240.0, 240.0),), rules_in_use([], []))


def test_rules_are_those_of_the_options_in_their_order() -> None:
    assert tuple(rule.name for rule in RULES) == RULE_NAMES
    colours = [rule.colour for rule in DROPPING]
    assert len(set(colours)) == len(colours)
    assert all(rule.description and isinstance(rule.is_on, bool) for rule in RULES)


def test_a_detector_sees_what_those_before_it_left(found: TissueMask) -> None:
    seen = []

    def first(image: np.ndarray, pixel_um: float, tissue: np.ndarray, known: np.ndarray, glass: list) -> np.ndarray:
        seen.append((pixel_um, tissue.copy(), known.copy(), glass))
        return np.arange(SHAPE[1]) < 12 * np.ones((SHAPE[0], 1))

    def second(image: np.ndarray, pixel_um: float, tissue: np.ndarray, known: np.ndarray, glass: list) -> np.ndarray:
        seen.append((pixel_um, tissue.copy(), known.copy(), glass))
        return np.ones(SHAPE, bool)

    rules = (Rule("specks", (1, 2, 3), first), Rule("haze", (4, 5, 6), second), Rule("grey", None))
    judged = drop_artefacts(found, 8.0, rules)
    (um, tissue, known, glass), (_, left, _, _) = seen
    assert (um, glass) == (8.0, [(240.0, 240.0, 240.0)])
    expected = np.ones(SHAPE, bool)
    expected[:, :5] = expected[0, 10] = False
    np.testing.assert_array_equal(known, expected)
    np.testing.assert_array_equal(tissue, expected)
    assert not left[:, :12].any()
    assert left[:, 12:].all()
    assert judged.mask.sum() == 1  # what cannot be read stays, to fail as a row
    assert judged.dropped_by("specks").sum() == 20 * 7 - 1
    assert judged.dropped_by("haze").sum() == 20 * 18
    assert judged.dropped_by("border").sum() == 20 * 5
    assert found.mask[:, 5:].all()  # not written into
    areas = dropped_mm2(judged, 0.01)
    assert {name: area for name, area in areas.items() if area} == {"border": 1.0, "specks": 1.39, "haze": 3.6}
    assert list(areas) == [rule.name for rule in DROPPING if rule.name in found.rules]


def test_a_rule_that_is_off_does_nothing(found: TissueMask) -> None:
    off = replace(found, rules=("dark",))

    def never(*_: object) -> np.ndarray:
        raise AssertionError

    rules = (Rule("haze", (4, 5, 6), never),)
    assert drop_artefacts(off, 8.0, rules) is off
    empty = replace(found, mask=np.zeros(SHAPE, bool))
    assert not drop_artefacts(empty, 8.0, rules).mask.any()  # nor where there is no tissue


def test_areas_of_a_mask_that_no_rule_made() -> None:
    mask = np.ones(SHAPE, bool)
    plain = TissueMask(mask, 16.0, ~mask, np.zeros((*SHAPE, 3), np.uint8))
    assert dropped_mm2(plain, 1.0) == {}
    assert not plain.dropped_by("dark").any()


@pytest.mark.parametrize("level", [10, 60])
def test_a_border_is_no_ring_around_the_tissue(level: int) -> None:
    """Of a small scan, which it encloses as the edge of a bubble does."""
    where = piece(100, 130, 60, 90)
    image = stain(glass(), where, (215, 140, 185))
    frame = np.ones_like(where)
    frame[16:-16, 16:-16] = False
    image[frame] = level
    nothing = np.zeros_like(where)
    found = look_for_tissue(image, 8.0, nothing, rules_in_use([], []))
    mask = TissueMask(found.mask, 1.0, nothing, image, found.reasons, tuple(found.glass), rules_in_use([], []))
    assert drop_artefacts(mask, 8.0).mask.sum() > 0.95 * where.sum()


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (8, 24), (37, 25), (60, 12)], ids=str)
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.find], ids=lambda rule: rule.name)
def test_detectors_take_small_slides(rule: Rule, shape: tuple[int, int]) -> None:
    """A biopsy's slide may be smaller than what a detector compares a place with."""
    assert rule.find is not None
    image = np.random.default_rng(0).integers(60, 240, (*shape, 3), np.uint8)
    everywhere = np.ones(shape, bool)
    found = rule.find(image, 8.0, everywhere, everywhere, [(243.0, 243.0, 243.0)])
    assert (found.shape, found.dtype) == (shape, bool)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.find], ids=lambda rule: rule.name)
def test_a_scanner_of_slightly_larger_pixels_gives_nearly_the_same(rule: Rule, section: Section) -> None:
    """A slide of 0.2525 um/px is looked at with 8.08 um/px, one of 0.25 with 8: a hundredth is no other thumbnail."""
    assert rule.find is not None
    inked = section.inked((1.4, 0.45, 0.65), stroke(section.tissue.shape, 60))
    image, pixel_um, tissue, known, glass = inked.arguments()
    found = rule.find(image, pixel_um, tissue, known, glass)
    other = rule.find(image, pixel_um * 1.01, tissue, known, glass)
    assert (other ^ found).sum() <= 0.001 * found.sum()  # least areas are in um2: a speck more or less
