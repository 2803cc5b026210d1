"""The contact sheet: some patches of each rule, chosen by a hash, in frames of the rule's colour."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import support.slides as sf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.config.plan import PlanConfig
from pipeline.config.tissue_rules import in_rule_order, rules_in_use
from pipeline.slides import tissue_grid
from pipeline.slides.artefacts.dropped import (
    COLUMNS,
    DROPPED_SHEET,
    MOST_PATCHES,
    PARTS,
    DroppedPatch,
    choose_dropped,
    draw_dropped,
    evenly_over,
    for_sheet,
    places_in_legend,
)
from pipeline.slides.artefacts.rules import DROPPING
from pipeline.slides.reader import Slide
from pipeline.slides.tissue import TissueMask, reason_of
from pipeline.slides.tissue_grid import TissueGrid, covering_rules, dropped_patches, lay_grid

RULE = {rule.name: rule for rule in DROPPING}


@pytest.fixture
def slide(tmp_path: Path) -> Slide:
    return Slide(sf.make_slide(tmp_path / "a.svs", width=704, height=512, mpp=0.5, downsamples=(1,)))


@pytest.fixture
def grid(slide: Slide, monkeypatch: pytest.MonkeyPatch) -> TissueGrid:
    """Patches of 64 px, 4 mask pixels: tissue in the left 5 columns of patches, specks in the next 3, then haze in 1,
    glass, and a column that has both rules and no tissue.
    """
    mask, reasons = np.zeros((32, 44), bool), np.zeros((32, 44), np.uint8)
    mask[:, :20] = True
    reasons[:, 20:32] = reason_of("specks")
    reasons[:, 32:36] = reason_of("haze")
    reasons[:, 40], reasons[:, 41:43] = reason_of("specks"), reason_of("haze")
    found = TissueMask(
        mask, 16.0, np.zeros_like(mask), np.zeros((32, 44, 3), np.uint8), reasons, (), rules_in_use([], [])
    )
    monkeypatch.setattr(tissue_grid, "find_tissue", lambda _, rules: found)
    monkeypatch.setattr(tissue_grid, "drop_artefacts", lambda tissue, _: tissue)
    return lay_grid(slide, PlanConfig(patch_px=64).grid)


def test_patches_that_only_rules_took(grid: TissueGrid) -> None:
    corners, reasons = dropped_patches(grid)
    columns = {
        reason: sorted(set((corners[reasons == reason][:, 0] // 64).tolist())) for reason in set(reasons.tolist())
    }
    assert columns == {reason_of("specks"): [5, 6, 7], reason_of("haze"): [8, 10]}
    assert len(corners) == 5 * 8
    assert len(grid.coords_l0_px) + len(grid.rejected_l0_px) == grid.num_cells
    whole = replace(grid, tissue=replace(grid.tissue, reasons=None))
    assert len(dropped_patches(whole)[0]) == 0


def test_covered_patches_by_the_rule_that_took_most(monkeypatch: pytest.MonkeyPatch, slide: Slide) -> None:
    """Against the pixels of each patch, counted; specks are no artefact and do not cover."""
    rng, rules = np.random.default_rng(3), (*in_rule_order(["pen", "edges", "folds"]), "specks")
    reasons = rng.integers(0, 16, (32, 44))
    places = [reason_of(name) for name in rules]
    reasons = np.array([0] * 12 + places, np.uint8)[reasons]
    found = TissueMask(
        reasons == 0, 16.0, np.zeros((32, 44), bool), np.zeros((32, 44, 3), np.uint8), reasons, (), rules_in_use([], [])
    )
    monkeypatch.setattr(tissue_grid, "find_tissue", lambda _, rules: found)
    monkeypatch.setattr(tissue_grid, "drop_artefacts", lambda tissue, _: tissue)
    grid = lay_grid(slide, PlanConfig(patch_px=64).grid)
    expected: Counter[str] = Counter()
    for column, row in (grid.rejected_l0_px[grid.rejected_covered] // 16).tolist():
        pixels = reasons[row : row + 4, column : column + 4]
        shares = [(pixels == place).sum() for place in places[:3]]
        assert sum(shares) > 1.6
        expected[rules[int(np.argmax(shares))]] += 1
    assert covering_rules(grid) == expected
    assert len(expected) == 3
    assert covering_rules(replace(grid, tissue=replace(found, reasons=None))) == {}
    monkeypatch.setattr(tissue_grid, "find_tissue", lambda _, rules: replace(found, reasons=reasons * 0))
    assert covering_rules(lay_grid(slide, PlanConfig(patch_px=64).grid)) == {}


@pytest.mark.slow
def test_the_sheet_shows_each_rule_in_its_colour(slide: Slide, grid: TissueGrid, tmp_path: Path) -> None:
    chosen = choose_dropped(slide, "a", grid, None, False)
    assert len(chosen) == 40
    draw_dropped(chosen, tmp_path)
    with Image.open(tmp_path / DROPPED_SHEET) as opened:
        assert opened.format == "JPEG"
        picture = np.asarray(opened).astype(int)
    for name in ("specks", "haze"):
        assert (np.abs(picture - RULE[name].colour).max(axis=2) < 30).sum() > 1000
    upper_edge = np.median(picture[77:79, 20:160], axis=(0, 1))  # of the first frame
    assert np.abs(upper_edge - RULE["specks"].colour).max() < 60
    assert for_sheet(chosen[::-1]) == for_sheet(chosen)


def test_the_legend_of_all_rules_stays_on_the_page(slide: Slide, grid: TissueGrid, tmp_path: Path) -> None:
    one = choose_dropped(slide, "a", grid, None, False)[0]
    draw_dropped([replace(one, rule=rule, turn=turn) for rule in DROPPING for turn in range(12)], tmp_path)
    with Image.open(tmp_path / DROPPED_SHEET) as opened:
        picture = np.asarray(opened).astype(int)
    header = picture[16 + 31 : 16 + 80]
    for rule in DROPPING:
        assert (np.abs(header - rule.colour).max(axis=2) < 30).sum() > 100
    assert (picture[:96, -12:] > 240).all()


@given(lengths=st.lists(st.integers(0, 400), min_size=1, max_size=30), width=st.integers(500, 2000))
def test_no_entry_of_a_legend_is_cut_off_or_on_another(lengths: list[int], width: int) -> None:
    places = places_in_legend(lengths, width)
    for (left, line), length in zip(places, lengths, strict=True):
        assert left + 22 + length <= width - 16
        following = [x for x, other in places if other == line and x > left]
        assert not following or min(following) >= left + 22 + length
    assert places == sorted(places, key=lambda place: (place[1], place[0]))


def test_nothing_dropped_is_no_sheet(tmp_path: Path) -> None:
    draw_dropped([], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_patch_that_cannot_be_read_is_grey(slide: Slide, grid: TissueGrid, tmp_path: Path) -> None:
    chosen = [replace(patch, path=tmp_path / "gone.svs") for patch in choose_dropped(slide, "a", grid, None, False)]
    draw_dropped(chosen, tmp_path)
    with Image.open(tmp_path / DROPPED_SHEET) as opened:
        picture = np.asarray(opened).astype(int)
    assert (np.abs(picture - 110).max(axis=2) < 6).mean() > 0.3


def test_rules_share_the_sheet(slide: Slide, grid: TissueGrid) -> None:
    """A rule that dropped few gives its room to the others."""
    one = choose_dropped(slide, "a", grid, None, False)[0]

    def dropped(rule: str, number: int) -> list[DroppedPatch]:
        return [replace(one, rule=RULE[rule], corner_l0_px=(place, 0)) for place in range(number)]

    shown = for_sheet([*dropped("haze", 100), *dropped("specks", 100), *dropped("border", 3)])
    counts = {name: sum(patch.rule.name == name for patch in shown) for name in ("border", "specks", "haze")}
    assert len(shown) == MOST_PATCHES
    assert counts["border"] == 3
    assert abs(counts["specks"] - counts["haze"]) <= 1
    assert MOST_PATCHES % COLUMNS == 0
    assert [DROPPING.index(patch.rule) for patch in shown] == sorted(DROPPING.index(patch.rule) for patch in shown)


def test_a_slide_is_shown_evenly_and_so_are_slides(slide: Slide, grid: TissueGrid) -> None:
    """Of one slide with a long stroke of pen and a dot far away both are seen at once, and of two slides both."""
    one = replace(choose_dropped(slide, "a", grid, None, False)[0], rule=RULE["pen"])
    stroke = [replace(one, corner_l0_px=(x, y)) for x in range(0, 160, 4) for y in range(0, 256, 16)]
    dot = replace(one, corner_l0_px=(690, 500))
    for order in ([*stroke, dot], [dot, *stroke[::-1]]):
        ordered = evenly_over((704, 512), order)
        assert sorted(map(repr, ordered)) == sorted(map(repr, order))
        parts = {(x * PARTS // 704, y * PARTS // 512) for x, y in (patch.corner_l0_px for patch in ordered)}
        first = [patch.corner_l0_px for patch in ordered[: len(parts)]]
        assert {(x * PARTS // 704, y * PARTS // 512) for x, y in first} == parts
        assert ordered == evenly_over((704, 512), [*stroke, dot])
    many = [replace(patch, turn=turn) for turn, patch in enumerate(ordered)]
    few = [replace(patch, slide_id="b", turn=turn) for turn, patch in enumerate(ordered[:3])]
    shown = for_sheet([*many, *few])
    assert {patch.slide_id for patch in shown[:6]} == {"a", "b"}
    assert [patch.turn for patch in shown[:6]] == [0, 0, 1, 1, 2, 2]
