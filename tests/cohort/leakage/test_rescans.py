"""Scans of one slide are found however it lay; other slides are not; too little tissue says nothing."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pipeline.base import console
from pipeline.cohort.leakage import rescans
from pipeline.cohort.leakage.rescans import (
    LEAST_CELLS,
    SlidePrint,
    find_rescans,
    least_correlation,
    rescan_warnings,
    slide_print,
)

Rgb = NDArray[np.uint8]
SIDE = 300
PIXEL_UM = 40.0


def section(seed: int) -> Rgb:
    """The thumbnail of a made-up section: an uneven disc on glass, darker and lighter at several scales."""
    rng = np.random.default_rng(seed)

    def field(sigma: float) -> NDArray[np.float64]:
        values = ndimage.gaussian_filter(rng.standard_normal((SIDE, SIDE)), sigma)
        return values / values.std()

    y, x = (np.mgrid[:SIDE, :SIDE] + 0.5) / SIDE - 0.5
    inside = np.hypot(y, x * rng.uniform(1.1, 1.5)) + 0.03 * field(20) < 0.38
    grey = np.clip(150 + 18 * field(8) + 12 * field(3), 40, 215)
    return np.where(inside[..., None], np.stack([grey, grey * 0.65, grey * 0.95], -1), 243).astype(np.uint8)


def print_of(rgb: Rgb, pixel_um: float = PIXEL_UM) -> SlidePrint | None:
    mask = np.ptp(rgb, axis=2) > 12
    return slide_print(rgb, mask, np.zeros_like(mask), pixel_um)


def compressed(rgb: Rgb) -> Rgb:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=40)
    return np.asarray(Image.open(file))


def tilted(rgb: Rgb) -> Rgb:
    image = Image.fromarray(rgb).rotate(2, Image.Resampling.BILINEAR, fillcolor=(243, 243, 243))
    return np.asarray(image)


SCANS: dict[str, Callable[[Rgb], Rgb]] = {
    "the same": lambda rgb: rgb,
    "compressed": compressed,
    "darker": lambda rgb: (rgb * 0.9).astype(np.uint8),
    "shifted": lambda rgb: np.roll(rgb, (9, -7), (0, 1)),
    "cropped": lambda rgb: rgb[15:, 8:],
    "tilted": tilted,
}


@pytest.mark.parametrize("name", SCANS)
def test_a_scan_of_the_same_slide_is_found(name: str) -> None:
    (pair,) = find_rescans([print_of(section(0)), print_of(SCANS[name](section(0)))])
    assert (pair.first, pair.second, pair.turn) == (0, 1, 0)


@pytest.mark.parametrize("turn", range(8))
def test_a_turned_scan_is_found_and_its_turn_named(turn: int) -> None:
    rgb = section(1)
    turned = np.ascontiguousarray(np.rot90(rgb[:, ::-1] if turn >= 4 else rgb, turn % 4))
    (pair,) = find_rescans([print_of(turned), print_of(rgb)])
    assert pair.turn == turn
    assert pair.correlation > 0.9
    assert ("mirrored" in pair.words) == (turn >= 4)
    assert ("turned" in pair.words) == (turn % 4 > 0)


@pytest.mark.parametrize("least", [1, 2])
def test_many_pairs_have_a_progress_line(
    least: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cohort of thousands takes minutes; a few pairs take no time, and say nothing."""
    monkeypatch.setattr(rescans, "MANY_PAIRS", least)
    monkeypatch.setattr(console, "QUIET_SECONDS", 0)
    assert len(find_rescans([print_of(section(0))] * 2)) == 1
    assert ("comparing slides: 1 of 1 pairs" in capsys.readouterr().err) == (least == 1)


def test_half_the_resolution_is_found() -> None:
    rgb = section(2)
    half = np.asarray(Image.fromarray(rgb).reduce(2))
    assert find_rescans([print_of(rgb), print_of(half, 2 * PIXEL_UM)])


def test_another_size_of_tissue_is_another_slide() -> None:
    assert not find_rescans([print_of(section(2)), print_of(section(2), 2 * PIXEL_UM)])


def test_other_slides_are_not_taken_for_scans_of_one() -> None:
    assert find_rescans([print_of(section(seed)) for seed in range(40)]) == []


def rimmed(seed: int, uneven: float = 0.0) -> Rgb:
    """A roundish section with faint texture and a rim that is 60 grey levels darker, all around or more on one side."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    angle, away = np.arctan2(y, x), np.hypot(y, x)
    edge = 90 + sum(rng.normal(0, 2) * np.cos(k * angle + rng.uniform(0, 6)) for k in range(2, 6))
    texture = ndimage.gaussian_filter(rng.standard_normal((SIDE, SIDE)), 2.4)
    rim = 60 * (away > edge - 12) * (1 - uneven * np.cos(angle + rng.uniform(0, 6)))
    grey = np.clip(150 + 10 * texture / texture.std() - rim, 20, 215)
    return np.where((away < edge)[..., None], np.stack([grey, grey, grey * 0.8], -1), 243).astype(np.uint8)


@pytest.mark.parametrize("uneven", [0.0, 0.5])
def test_a_dark_rim_does_not_make_sections_alike(uneven: float) -> None:
    assert find_rescans([print_of(rimmed(seed, uneven)) for seed in range(5)]) == []


def test_a_scan_of_a_section_with_a_dark_rim_is_found() -> None:
    rgb = rimmed(0)
    noise = np.random.default_rng(1).normal(0, 5, (SIDE, SIDE, 1))
    other = np.where(rgb < 243, np.clip(rgb * 0.9 + noise, 0, 225), 243).astype(np.uint8)
    again = np.ascontiguousarray(np.rot90(np.roll(tilted(other), (6, -4), (0, 1))))
    (pair,) = find_rescans([print_of(again), print_of(rgb)])
    assert pair.turn == 1


def test_little_tissue_and_even_tissue_have_no_print() -> None:
    rgb = np.full((SIDE, SIDE, 3), 243, np.uint8)
    assert print_of(rgb) is None
    rgb[100, 100] = 90
    assert print_of(rgb) is None
    rgb[50:250, 80:220] = (150, 90, 140)
    assert print_of(rgb) is None
    assert find_rescans([None, None, print_of(section(0))]) == []


def test_fewer_cells_need_a_higher_correlation() -> None:
    needed = [least_correlation(cells) for cells in (LEAST_CELLS, 400, 1000, 4000)]
    assert needed == sorted(needed, reverse=True)
    assert needed[0] > 0.8
    assert needed[-1] == 0.5


def test_warnings_name_the_other_slides_and_cases() -> None:
    prints = [print_of(section(3)), print_of(section(4)), print_of(compressed(section(3))), None]
    ids, cases = ["a", "b", "c", "d"], ["one", "two", "three", "four"]
    warnings = rescan_warnings(prints, ids, cases, [])
    assert warnings.keys() == {0, 2}
    assert warnings[0].startswith("it may be the same tissue as 'c' (of another case, correlation ")
    assert "of another case" not in rescan_warnings(prints, ids, ["one"] * 4, [])[0]
    assert rescan_warnings(prints, ids, cases, [["a", "c"]]) == {}
    many = rescan_warnings([prints[0]] * 6, list("abcdef"), ["one"] * 6, [])
    assert "and 2 more" in many[0]


def best_by_shifts(first: SlidePrint, second: SlidePrint, turn: int) -> float:
    """The best correlation over small shifts, shift by shift and cell by cell."""
    pad, best = rescans.MOST_SHIFT, 0.0
    least = rescans.LEAST_SHARED * max(first.inside.sum(), second.inside.sum())

    def turned(values: NDArray[Any]) -> NDArray[Any]:
        return np.pad(np.rot90(values[:, ::-1] if turn >= 4 else values, turn % 4), pad)

    detail, inside = turned(second.detail), turned(second.inside)
    for y in range(2 * pad + 1):
        for x in range(2 * pad + 1):
            both = first.inside & inside[y : y + rescans.SIDE, x : x + rescans.SIDE]
            if both.sum() < max(least, LEAST_CELLS):
                continue
            a, b = first.detail[both], detail[y : y + rescans.SIDE, x : x + rescans.SIDE][both]
            found = float(np.corrcoef(a.astype(np.float64), b.astype(np.float64))[0, 1])
            best = max(best, found if found >= least_correlation(int(both.sum())) else 0.0)
    return best


def test_pairs_are_compared_as_shift_by_shift() -> None:
    """Of a thousand slides some thousand pairs are compared, of five thousand 70,000."""
    prints = [p for seed in range(2) for rgb in (section(seed), tilted(section(seed))[::-1]) if (p := print_of(rgb))]
    pairs = [(a, b, turn) for a in prints for b in prints for turn in (0, 4)]
    found = [[compare(*pair) for pair in pairs] for compare in (rescans._best, best_by_shifts)]
    np.testing.assert_allclose(*found, atol=1e-5)
    assert 0 in found[0]
    assert max(found[0]) > 0.99
