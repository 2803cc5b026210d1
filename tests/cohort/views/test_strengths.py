"""Each change of a view occurs as often, and as strongly, as the table of strengths says."""

from collections import Counter
from dataclasses import replace
from itertools import permutations
from typing import get_args

import numpy as np
import pytest
from scipy.stats import chisquare, kstest

from pipeline.cohort.views.colours import FACTOR_ONE, HUE_TURN
from pipeline.cohort.views.strengths import EARLIER, VIEW_STRENGTHS, Strength
from pipeline.cohort.views.views import STAINS, DrawnView, ViewDraws, Views, draw_view, stain_changes
from pipeline.config.stages import ExtractConfig

TILE_PX, PATCH_PX, COUNT = 256, 224, 1200
LEAST_P = 1e-5


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[DrawnView]]:
    """Many views of each strength."""
    return {
        name: [draw_view(ViewDraws(3, row, 1 + row % 7), name, TILE_PX, PATCH_PX) for row in range(COUNT)]
        for name in VIEW_STRENGTHS
    }


def as_often(happened: list[bool], probability: float) -> bool:
    """Whether a count is within 4.5 standard deviations of what it should be: one test in 100,000 fails by chance."""
    if probability in (0, 1):
        return sum(happened) == probability * len(happened)
    spread = np.sqrt(len(happened) * probability * (1 - probability))
    return bool(abs(sum(happened) - probability * len(happened)) < 4.5 * spread)


def is_uniform(values: list[float], low: float, high: float) -> bool:
    """Whether values lie between the two, and anywhere as often."""
    scaled = (np.array(values) - low) / (high - low)
    return bool(scaled.min() >= -1e-3 and scaled.max() <= 1 + 1e-3 and kstest(scaled, "uniform").pvalue > LEAST_P)


def test_the_papers_strength_is_the_papers() -> None:
    paper = VIEW_STRENGTHS["paper"]
    assert (paper.flips, paper.turn, paper.stain, paper.rescale, paper.compression) == (True, None, None, None, None)
    assert paper.colours is not None
    assert paper.blur is not None
    colours, blur = paper.colours, paper.blur
    assert colours.probability == 0.5
    assert (colours.brightness, colours.contrast, colours.saturation, colours.hue) == (0.15, 0.15, 0.1, 0.05)
    assert (blur.probability, blur.smallest_milli_px, blur.largest_milli_px) == (0.1, 100, 2000)


def test_flips_are_the_papers_views_without_their_colours_and_blur(drawn: dict[str, list[DrawnView]]) -> None:
    """With the same seed: what an ablation of the two compares is those changes, not other crops."""
    assert VIEW_STRENGTHS["flips"] == replace(VIEW_STRENGTHS["paper"], colours=None, blur=None)
    for flips, paper in zip(drawn["flips"], drawn["paper"], strict=True):
        assert flips == replace(paper, colours=(), sigma_milli_px=None)


def test_every_strength_can_be_asked_for_and_the_default_is_the_earlier_one() -> None:
    field = ExtractConfig.model_fields["views_strength"]
    choice = next(part for part in get_args(field.annotation) if get_args(part))
    assert get_args(choice) == tuple(VIEW_STRENGTHS)
    assert field.default is None
    assert EARLIER in VIEW_STRENGTHS


@pytest.mark.parametrize("name", VIEW_STRENGTHS)
def test_each_change_occurs_as_often_as_stated(drawn: dict[str, list[DrawnView]], name: str) -> None:
    table, views = VIEW_STRENGTHS[name], drawn[name]
    assert as_often([bool(v.colours) for v in views], table.colours.probability if table.colours else 0)
    assert as_often([v.stain is not None for v in views], table.stain.probability if table.stain else 0)
    assert as_often([v.sigma_milli_px is not None for v in views], table.blur.probability if table.blur else 0)
    is_compressed = [v.quality is not None for v in views]
    assert as_often(is_compressed, table.compression.probability if table.compression else 0)
    counts = np.bincount([v.turn for v in views], minlength=8)
    if table.turn:
        assert chisquare(counts).pvalue > LEAST_P
    elif table.flips:
        assert counts[4:].sum() == 0
        assert as_often([bool(v.turn & 1) for v in views], 0.5)
        assert as_often([bool(v.turn & 2) for v in views], 0.5)
        assert chisquare(counts[:4]).pvalue > LEAST_P  # the two are independent
    else:
        assert counts[0] == COUNT


@pytest.mark.parametrize("name", ["paper", "strong"])
def test_each_change_is_as_strong_as_stated(drawn: dict[str, list[DrawnView]], name: str) -> None:
    colours, blur, compression = (
        VIEW_STRENGTHS[name].colours,
        VIEW_STRENGTHS[name].blur,
        VIEW_STRENGTHS[name].compression,
    )
    assert colours is not None
    assert blur is not None
    steps = [dict(view.colours) for view in drawn[name] if view.colours]
    for step, most in (
        ("brightness", colours.brightness),
        ("contrast", colours.contrast),
        ("saturation", colours.saturation),
    ):
        assert is_uniform([each[step] / FACTOR_ONE for each in steps], 1 - most, 1 + most), step
    assert is_uniform([each["hue"] / HUE_TURN for each in steps], -colours.hue, colours.hue)
    orders = Counter(tuple(step for step, _ in view.colours) for view in drawn[name] if view.colours)
    every = list(permutations(("brightness", "contrast", "saturation", "hue")))
    assert chisquare([orders[order] for order in every]).pvalue > LEAST_P
    sigmas = [float(v.sigma_milli_px) for v in drawn[name] if v.sigma_milli_px is not None]
    assert is_uniform(sigmas, blur.smallest_milli_px, blur.largest_milli_px)
    if compression:
        qualities = [float(v.quality) for v in drawn[name] if v.quality is not None]
        assert is_uniform(qualities, compression.lowest - 0.5, compression.highest + 0.5)


@pytest.mark.parametrize("name", ["mild", "strong"])
def test_the_stain_changes_as_strongly_as_stated(
    drawn: dict[str, list[DrawnView]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The factors that are drawn, and those in the pixels: known amounts of haematoxylin, eosin and residual are
    unmixed in views. Both lie anywhere in 1 -+ the change, each stain's on its own.
    """
    table = VIEW_STRENGTHS[name]
    assert table.stain is not None
    most = table.stain.change
    changes = np.array([stain_changes(*view.stain) for view in drawn[name] if view.stain is not None])
    assert_uniform_and_unrelated(1 + changes, most)
    monkeypatch.setitem(
        VIEW_STRENGTHS, "stain alone", Strength(turn=table.turn, stain=replace(table.stain, probability=1))
    )
    amounts = np.random.default_rng(0).uniform(0.1, 0.7, (24, 24, 3))
    patch = np.rint(256 * np.exp(-amounts @ STAINS) - 1).astype(np.uint8)
    views, seen, expected = Views(2, 9, "stain alone"), [], []
    for row in range(300):
        alone, whole = (draw_view(ViewDraws(9, row, 1), strength, 24, 24) for strength in ("stain alone", name))
        assert alone.stain is not None
        assert whole.stain in (None, alone.stain)  # whatever else the strength draws
        seen.append(total_stains(views.apply(patch, row, 1)) / total_stains(patch))
        expected.append(1 + stain_changes(*alone.stain))
    assert np.abs(np.array(seen) - expected).max() < 0.01  # the 12 bits of `FINENESS`, in three stains that overlap
    assert_uniform_and_unrelated(np.array(seen), most, error=0.01)


def total_stains(patch: np.ndarray) -> np.ndarray:
    """Amounts of the three stains in a patch, (3,), by Beer and Lambert."""
    amounts = -np.log((patch.reshape(-1, 3) + 1.0) / 256) @ np.linalg.inv(STAINS)
    return np.asarray(amounts.sum(axis=0))


def assert_uniform_and_unrelated(factors: np.ndarray, most: float, error: float = 1e-9) -> None:
    """Factors of three stains (N, 3): uniform in 1 -+ `most` but for the error, and none tells anything of another."""
    assert np.abs(factors - 1).max() <= most + error
    for stain in range(3):
        assert kstest(factors[:, stain], "uniform", (1 - most, 2 * most)).pvalue > LEAST_P
        assert np.ptp(factors[:, stain]) > 1.9 * most
    related = np.corrcoef(factors.T)[np.triu_indices(3, 1)]
    assert np.abs(related).max() < 4.5 / np.sqrt(len(factors))


@pytest.mark.parametrize("name", VIEW_STRENGTHS)
def test_the_crop_lies_anywhere_in_the_tile(drawn: dict[str, list[DrawnView]], name: str) -> None:
    rescale, views = VIEW_STRENGTHS[name].rescale, drawn[name]
    sides = [view.side_px for view in views]
    assert as_often([side != PATCH_PX for side in sides], rescale.probability if rescale else 0) or rescale
    if rescale:
        smallest, largest = round(PATCH_PX * rescale.smallest + 0.5), TILE_PX  # 1.25 times the patch is more
        assert min(sides) >= smallest
        assert max(sides) <= largest
        assert as_often([side != PATCH_PX for side in sides], rescale.probability * (1 - 1 / (largest - smallest + 1)))
        others = [float(side) for side in sides if side != PATCH_PX]
        assert is_uniform(others, smallest - 0.5, largest + 0.5)
    for axis in (0, 1):
        margins = [TILE_PX - view.side_px for view in views]
        assert all(0 <= view.corner_px[axis] <= margin for view, margin in zip(views, margins, strict=True))
        places = [v.corner_px[axis] for v in views if v.side_px == PATCH_PX]
        assert chisquare(np.bincount(places, minlength=TILE_PX - PATCH_PX + 1)).pvalue > LEAST_P


def test_without_a_tile_nothing_is_cropped_but_a_smaller_part_enlarged() -> None:
    for name in VIEW_STRENGTHS:
        for row in range(60):
            view = draw_view(ViewDraws(0, row, 1), name, 224, 224)
            assert view.side_px <= 224
            assert view.corner_px == (0, 0) or (name == "strong" and max(view.corner_px) <= 224 - view.side_px)


def test_no_draw_tells_anything_of_another() -> None:
    """Pairs of draws of the same view: all by purpose words of their own."""
    words = ["view", "view crop x", "view crop y", "view flip of rows?", "view flip of columns?", "view colours?"]
    words += ["view brightness", "view hue", "view blur?", "view sigma", "view turn", "view stain", "view stain?"]
    words += ["view rescale?", "view side", "view compression?", "view quality"]
    keys = np.array([[ViewDraws(0, row, 2).key(word) >> 61 for word in words] for row in range(800)])
    for first in range(len(words)):
        for second in range(first):
            pairs = np.bincount(keys[:, first] * 8 + keys[:, second], minlength=64)
            assert chisquare(pairs).pvalue > 1e-6, (words[first], words[second])
