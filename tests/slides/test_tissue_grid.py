"""The grid of a slide: every cell, those on tissue kept, and words where there is none."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import support.slides as sf
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter
from support.mirax import make_mirax_slide, photo_corner

from pipeline.base.errors import PatchError, SlideError
from pipeline.config.plan import PlanConfig
from pipeline.config.tissue_rules import EARLIER_RULES, RuleName
from pipeline.slides import tissue_grid
from pipeline.slides.reader import Slide
from pipeline.slides.tissue import TissueMask, reason_of
from pipeline.slides.tissue_grid import NO_COLOUR, ON_BLACK, TissueGrid, dropped_patches, greedy_rules, lay_grid


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of 700 x 500 pixels at 0.5 um/px."""
    folder = tmp_path_factory.mktemp("slide")
    return sf.make_slide(folder / "a.svs", width=700, height=500, mpp=0.5, downsamples=(1,))


@pytest.fixture
def slide(path: Path, monkeypatch: pytest.MonkeyPatch) -> Slide:
    """The slide with tissue in its left 320 pixels, whatever it shows."""
    mask = np.zeros((32, 44), bool)
    mask[:, :20] = True
    found = TissueMask(mask, 16.0, np.zeros_like(mask), np.zeros((32, 44, 3), np.uint8))
    monkeypatch.setattr(tissue_grid, "find_tissue", lambda _, rules: found)
    return Slide(path)


@pytest.mark.parametrize(
    "options",
    [{}, {"stride_px": 40}, {"mpp": 1.0}, {"mpp": 1.0, "stride_px": 20}, {"min_tissue": 0.9}, {"min_tissue": 0.0}],
    ids=str,
)
def test_cells_on_tissue_are_kept(slide: Slide, options: dict[str, float]) -> None:
    """Against all corners by hand; the share on tissue is that of the columns left of 320."""
    config = PlanConfig.build({"patch_px": 64} | options)
    scale = config.mpp / 0.5
    side, stride = 64 * scale, (config.stride_px or 64) * scale
    corners = [(x, y) for y in np.arange(0, 500 - side + 1, stride) for x in np.arange(0, 700 - side + 1, stride)]
    shares = [min(max(320 - x, 0) / side, 1) for x, _ in corners]
    grid = lay_grid(slide, config.grid)
    assert grid.geometry.patch_l0_px == side
    assert grid.num_cells == len(corners)
    kept = [i for i, share in enumerate(shares) if share >= config.min_tissue]
    assert kept
    np.testing.assert_array_equal(grid.coords_l0_px, [corners[i] for i in kept])
    np.testing.assert_allclose(grid.tissue_fraction, [shares[i] for i in kept], atol=1e-9)
    assert grid.coords_l0_px.dtype == np.int64


def test_a_tile_is_laid_as_a_patch_of_its_size(slide: Slide) -> None:
    """The same corners, shares of tissue and geometry; the patch within it decides nothing."""
    tiles = lay_grid(slide, PlanConfig(patch_px=48, tile_px=64).grid)
    patches = lay_grid(slide, PlanConfig(patch_px=64).grid)
    assert tiles.geometry == patches.geometry
    np.testing.assert_array_equal(tiles.coords_l0_px, patches.coords_l0_px)
    np.testing.assert_array_equal(tiles.tissue_fraction, patches.tissue_fraction)
    apart = lay_grid(slide, PlanConfig(patch_px=48, tile_px=64, stride_px=48).grid)
    assert len(apart.coords_l0_px) > len(tiles.coords_l0_px)


def test_tiling_at_level_0_is_at_the_slides_own_resolution(slide: Slide) -> None:
    """Cells of 64 px of level 0, whatever `mpp` says; those half on tissue whose centre is not are left out."""
    grid = lay_grid(slide, PlanConfig(patch_px=64, mpp=2.0, tiling="level0").grid)
    assert (grid.geometry.target_mpp, grid.geometry.level, grid.geometry.patch_l0_px) == (0.5, 0, 64)
    expected = lay_grid(slide, PlanConfig(patch_px=64, mpp=0.5, min_tissue=1.0).grid)
    assert grid.num_cells == expected.num_cells
    assert grid.coords_l0_px.tolist() == expected.coords_l0_px.tolist()
    assert len(grid.coords_l0_px) == 5 * 7


@pytest.mark.parametrize(("shift", "kept"), [(0, True), (-24, True), (-40, False), (24, True), (40, False)])
def test_centre_and_two_edges_must_be_on_tissue(shift: int, kept: bool) -> None:
    """A patch whose left or right part hangs over tissue from 64 to 128, all of its height or its lower half only."""
    mask = np.zeros((16, 16), bool)
    mask[:, 4:8] = True
    tissue = TissueMask(mask, 16.0, np.zeros_like(mask), np.zeros((16, 16, 3), np.uint8))
    corner = np.array([[64 + shift, 64]])
    assert tissue_grid.centre_and_edges_on(tissue, corner, 64).tolist() == [kept]
    mask[4:7] = False
    assert not tissue_grid.centre_and_edges_on(tissue, corner, 64).any()


def test_small_groups_are_dropped() -> None:
    """Five in a diagonal touch at corners and stay; four in a square, and one apart by a gap, do not."""
    diagonal = [(x * 10 + 3, x * 10 + 7) for x in range(5)]
    square = [(103, 7), (113, 7), (103, 17), (113, 17), (133, 7)]
    coords = np.array(diagonal + square)
    assert tissue_grid.in_groups(coords, 10.0).tolist() == [True] * 5 + [False] * 5
    assert tissue_grid.in_groups(coords[:0], 10.0).tolist() == []
    stride = 7.3  # corners are rounded multiples of it
    row = np.array([(round(i * stride), 0) for i in range(4)] + [(round(9 * stride), 0)])
    assert not tissue_grid.in_groups(row, stride).any()
    assert tissue_grid.in_groups(np.array([(round(i * stride), 0) for i in range(5)]), stride).all()


def test_the_grid_lies_within_the_bounds(slide: Slide) -> None:
    slide.info = replace(slide.info, bounds_l0_px=(100, 50, 140, 200))
    grid = lay_grid(slide, PlanConfig(patch_px=64).grid)
    assert grid.coords_l0_px.tolist() == [[x, y] for y in (50, 114, 178) for x in (100, 164)]


def test_a_real_slide_has_its_own_tissue(path: Path) -> None:
    slide = Slide(path)
    whole, part = (lay_grid(slide, PlanConfig(patch_px=64, min_tissue=least).grid) for least in (0.0, 0.5))
    assert whole.num_cells == part.num_cells == len(whole.coords_l0_px) == (700 // 64) * (500 // 64)
    assert part.coords_l0_px.tolist() == whole.coords_l0_px[whole.tissue_fraction >= 0.5].tolist()
    assert part.tissue.mask.shape == (32, 44)


def test_a_slide_of_which_one_channel_is_read_is_told_of(tmp_path: Path) -> None:
    """An OME-TIFF with a page for each of red, green and blue, as raw2ometiff writes it unless told otherwise."""
    colours = sf.make_pixels("tissue", 1024, 768, mpp=0.5)
    for name, pixels in (("channels", np.moveaxis(colours, -1, 0)), ("colours", colours)):
        axes, kind = ("CYX", "minisblack") if name == "channels" else ("YXS", "rgb")
        tifffile.imwrite(
            tmp_path / f"{name}.ome.tif",
            np.ascontiguousarray(pixels),
            photometric=kind,
            metadata={"axes": axes},
            tile=(256, 256),
            resolution=(20_000, 20_000),
            resolutionunit="CENTIMETER",
        )
        grid = lay_grid(Slide(tmp_path / f"{name}.ome.tif"), PlanConfig.build({"patch_px": 64}).grid)
        assert len(grid.coords_l0_px)
        assert [word for word in grid.warnings if "grey" in word] == ([NO_COLOUR] if name == "channels" else [])


def test_tissue_that_is_bright_on_black_is_told_of(tmp_path: Path) -> None:
    """Fluorescence; not a brightfield slide in an area that was not scanned, with or without glass."""
    colours = sf.make_pixels("tissue", 1024, 768, mpp=0.5)
    stained = colours.min(axis=2) < 225
    nuclei = (255 - colours.astype(np.int16).min(axis=2, keepdims=True)) * stained[..., None] * [0.02, 0.02, 1.2]
    near = binary_dilation(stained[::8, ::8], iterations=4).repeat(8, 0).repeat(8, 1)
    unscanned = np.where(near[..., None], colours, 0)
    bare = np.zeros_like(colours)
    bare[160:610, 250:790] = colours[160:610, 250:790]
    pictures = {
        "nuclei": nuclei.clip(0, 255),
        "unscanned": unscanned,
        "glass": colours,
        "full": colours[200:500, 300:700],
        "bare": bare,
    }
    for name, pixels in pictures.items():
        path = sf.write_slide(tmp_path / f"{name}.svs", pixels.astype(np.uint8), mpp=0.5)
        grid = lay_grid(Slide(path), PlanConfig.build({"patch_px": 64}).grid)
        assert len(grid.coords_l0_px), name
        assert (ON_BLACK in grid.warnings) == (name == "nuclei"), name


def test_why_there_is_no_patch(slide: Slide) -> None:
    small = lay_grid(slide, PlanConfig(patch_px=512).grid)
    assert (small.num_cells, small.why_empty) == (0, "it is smaller than a patch (512 pixels of level 0)")
    slide.info = replace(slide.info, bounds_l0_px=(400, 0, 300, 500))
    bare = lay_grid(slide, PlanConfig(patch_px=64, min_tissue=0.25).grid)
    assert bare.num_cells > 0
    assert (len(bare.coords_l0_px), bare.why_empty) == (0, "no patch has 25% of its area on tissue")
    grouped = lay_grid(slide, PlanConfig(patch_px=64, tiling="level0").grid)
    assert grouped.why_empty.endswith("of its area on tissue with its centre, in a group of 5")


def with_alpha(path: Path, alpha: NDArray[np.uint8]) -> Path:
    """A slide of one level with that fourth channel."""
    pixels = np.dstack([sf.make_pixels("tissue", *alpha.shape[::-1], mpp=0.5), alpha])
    options: dict[str, Any] = {"photometric": "rgb", "extrasamples": ["unassalpha"], "metadata": None}
    resolution = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, tile=(256, 256), compression="deflate", **options, **resolution)
    return path


def test_a_fourth_channel_that_makes_a_slide_transparent_is_named(tmp_path: Path) -> None:
    """Without a word it would be a slide without tissue, or one of paler colours."""
    grid, alpha = PlanConfig(patch_px=64).grid, np.zeros((512, 704), np.uint8)
    nothing = lay_grid(Slide(with_alpha(tmp_path / "zero.tif", alpha)), grid)
    assert nothing.num_cells > 0 == len(nothing.coords_l0_px)
    assert nothing.why_empty.startswith("it has no pixels: all are transparent. Is its fourth channel, which counts as")
    alpha[:, :64] = 255  # glass beside the tissue
    mostly = lay_grid(Slide(with_alpha(tmp_path / "mostly.tif", alpha)), grid)
    assert "; 91% of it has no pixels: never scanned, or transparent (alpha)" in mostly.why_empty
    alpha[:] = 255
    for share, is_told in ((0.15, False), (0.3, True)):
        alpha[: int(512 * share)] = 128
        paler = lay_grid(Slide(with_alpha(tmp_path / f"{share}.tif", alpha)), grid)
        assert len(paler.coords_l0_px) > 0
        assert any("of it is transparent in part" in words for words in paler.warnings) is is_told


def test_a_patch_under_artefacts_is_dropped_though_most_of_it_is_tissue(
    slide: Slide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fold of 16 pixels in every row, a quarter of the patches that it crosses; specks are no artefact."""
    found = tissue_grid.find_tissue(slide, EARLIER_RULES)
    mask, reasons = found.mask.copy(), np.zeros(found.mask.shape, np.uint8)
    mask[:, 5] = mask[:, 9] = False
    reasons[:, 5], reasons[:, 9] = reason_of("folds"), reason_of("specks")
    folded = replace(found, mask=mask, reasons=reasons, rules=("specks", "folds"))
    monkeypatch.setattr(tissue_grid, "find_tissue", lambda *_: folded)

    def columns(**options: float) -> set[float]:
        grid = lay_grid(slide, PlanConfig(patch_px=64, **options).grid)
        assert len(grid.coords_l0_px) + len(grid.rejected_l0_px) == grid.num_cells
        assert grid.rejected_covered.sum() == 7 * (len(everywhere) - len(columns_of(grid)))
        return columns_of(grid)

    def columns_of(grid: TissueGrid) -> set[float]:
        return set(grid.coords_l0_px[:, 0].tolist())

    everywhere = {0, 64, 128, 192, 256}
    assert columns() == everywhere - {64}
    assert columns(max_artefact=0.24) == everywhere - {64}
    assert columns(max_artefact=0.26) == columns(max_artefact=1) == everywhere
    monkeypatch.setattr(tissue_grid, "like_tissue", lambda *_: found.mask)
    shown, by = dropped_patches(lay_grid(slide, PlanConfig(patch_px=64).grid))
    assert set(shown[:, 0].tolist()) == {64}
    assert set(by.tolist()) == {reason_of("folds")}
    whole = replace(folded, reasons=np.full_like(reasons, reason_of("pen")))
    monkeypatch.setattr(tissue_grid, "find_tissue", lambda *_: whole)
    bare = lay_grid(slide, PlanConfig(patch_px=64).grid)
    assert bare.why_empty.endswith(
        "of its area on tissue without artefacts on more of it than --max-artefact allows; 35 patches would be taken "
        "without rules (most of each dropped by: pen 35). If the pictures of `g2l plan --overlays` show that this is "
        "tissue: --skip-rule NAME"
    )


@pytest.mark.parametrize(("taken", "is_told"), [(0.19, False), (0.21, True)])
@pytest.mark.parametrize("rule", ["pen", "haze", "specks"])
def test_a_rule_that_takes_much_of_the_tissue_is_told_of(rule: RuleName, taken: float, is_told: bool) -> None:
    """Such as blue collagen for ink; not of specks, which are small, nor by a rule that was left out."""
    reasons = np.zeros((100, 100), np.uint8)
    reasons[: round(100 * taken)] = reason_of(rule)
    reasons[-1] = reason_of("border")  # not found as tissue before
    glass = np.zeros_like(reasons, bool)
    found = TissueMask(reasons == 0, 8.0, glass, np.zeros((100, 100, 3), np.uint8), reasons, (), ("border", rule))
    words = f"the rule {rule} took {100 * taken / 99:.0%} of what had been found as tissue: look at the pictures"
    told = [warning.startswith(words) for warning in greedy_rules(found)]
    assert told == [True] * (is_told and rule != "specks")
    assert greedy_rules(replace(found, rules=("border",))) == greedy_rules(replace(found, reasons=None)) == []


def test_of_tissue_from_a_file_no_rule_is_told_of(slide: Slide) -> None:
    """Its reasons are what the user has drawn as artefacts, and `--skip-rule` changes nothing."""
    found = tissue_grid.find_tissue(slide, EARLIER_RULES)
    reasons = np.where(found.mask, reason_of("pen"), 0).astype(np.uint8)
    reasons[found.mask.nonzero()[0][0]] = 0
    drawn = replace(found, mask=found.mask & (reasons == 0), reasons=reasons, rules=("pen",))
    assert len(greedy_rules(drawn)) == 1
    assert not [word for word in lay_grid(slide, PlanConfig(patch_px=64).grid, drawn).warnings if "rule pen" in word]


def test_a_slide_that_is_too_coarse_is_refused_unless_it_may_be_enlarged(slide: Slide) -> None:
    with pytest.raises(SlideError, match=r"a\.svs: .*enlarged 2\.00 times"):
        lay_grid(slide, PlanConfig(patch_px=64, mpp=0.25).grid)
    assert lay_grid(slide, PlanConfig(patch_px=64, mpp=0.25, allow_upsampling=True).grid).geometry.patch_l0_px == 32


def test_of_a_frame_the_sheet_has_what_lies_beside_it(tmp_path: Path) -> None:
    """A frame of noisy dark grey, which counts as coloured, along tissue and along glass: patches of its rim on tissue
    are seen, none of the frame itself and none of glass.
    """
    pixels = np.random.default_rng(0).integers(240, 245, (1024, 2048, 3)).astype(np.uint8)
    stained = sf.make_pixels("tissue", 1600, 1600, mpp=0.5)[300:1324, 300:1324]
    pixels[:, :1024] = np.minimum(stained, 215)
    pixels[:160] = np.clip(np.random.default_rng(1).normal(60, 6, (160, 2048, 3)), 0, 255)
    found = Slide(sf.write_slide(tmp_path / "a.tif", pixels, mpp=0.5))
    grid = lay_grid(found, PlanConfig(patch_px=64, stride_px=16).grid)
    assert grid.tissue.dropped_by("border")[:9].all()
    corners, reasons = dropped_patches(grid)
    assert set(reasons.tolist()) == {reason_of("border")}
    x, y = corners.T
    assert len(corners) > 10
    assert (y + 64 >= 160 + 32).all()  # half of each is below the frame
    assert (y < 160 + 48).all()  # and it reaches into the frame's rim
    assert (x < 1024).all()


@pytest.fixture(scope="module")
def both_ways(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A slide of 1344 x 896 pixels at 0.5 um/px, and one of 896 x 1344: sides are whole in patches."""
    folder = tmp_path_factory.mktemp("turned")
    sizes = {"wide": (1344, 896), "high": (896, 1344)}
    paths = [
        sf.make_slide(folder / f"{name}.svs", width=width, height=height, mpp=0.5, downsamples=(1,), pattern="blank")
        for name, (width, height) in sizes.items()
    ]
    return paths[0], paths[1]


def check_that_patches_turn(paths: tuple[Path, Path], seed: int, patch_px: int, overlap: bool, least: float) -> None:
    """A mask turned by quarters, and its mirror images, give the turned patches with the turned shares."""
    rng = np.random.default_rng(seed)
    mask = gaussian_filter(rng.normal(size=(56, 84)), rng.uniform(0.5, 6)) > rng.normal(0, 0.02)
    stride = patch_px // 2 if overlap else patch_px
    wanted = PlanConfig(patch_px=patch_px, stride_px=stride, min_tissue=least).grid

    def kept(shown: np.ndarray) -> np.ndarray:
        """The share of tissue of kept patches on their grid, -1 of others."""
        path = paths[0] if shown.shape[1] > shown.shape[0] else paths[1]
        thumbnail = np.zeros((*shown.shape, 3), np.uint8)
        grid = lay_grid(Slide(path), wanted, TissueMask(shown, 16.0, np.zeros_like(shown), thumbnail))
        height, width = ((side * 16 - patch_px) // stride + 1 for side in shown.shape)
        shares = np.full((height, width), -1.0)
        shares[grid.coords_l0_px[:, 1] // stride, grid.coords_l0_px[:, 0] // stride] = grid.tissue_fraction
        return shares

    first = kept(mask)
    for turns, mirror in itertools.product(range(4), (False, True)):
        turned = np.rot90(mask[:, ::-1] if mirror else mask, turns)
        expected = np.rot90(first[:, ::-1] if mirror else first, turns)
        np.testing.assert_allclose(kept(turned.copy()), expected, atol=1e-9)


PATCHES = {
    "seed": st.integers(0, 10**6),
    "patch_px": st.sampled_from([32, 56, 64, 112, 224, 448]),
    "overlap": st.booleans(),
    "least": st.sampled_from([0.05, 0.5, 0.73]),
}
"""Sides of 2 to 28 mask pixels, also of half ones."""


@settings(max_examples=8)
@given(**PATCHES)
def test_a_mask_that_is_turned_has_its_patches_turned(
    both_ways: tuple[Path, Path], seed: int, patch_px: int, overlap: bool, least: float
) -> None:
    check_that_patches_turn(both_ways, seed, patch_px, overlap, least)


@pytest.mark.slow
@settings(max_examples=100)
@given(**PATCHES)
def test_many_masks_that_are_turned(
    both_ways: tuple[Path, Path], seed: int, patch_px: int, overlap: bool, least: float
) -> None:
    check_that_patches_turn(both_ways, seed, patch_px, overlap, least)


def test_no_patch_lies_where_a_scanner_took_no_photo(tmp_path: Path) -> None:
    """Within tissue, and as small as holes that are filled."""
    pixels = np.tile(sf.make_pixels("tissue", 1600, 1400, seed=3, mpp=0.5)[400:1000, 500:900], (2, 3, 1))
    slide = Slide(make_mirax_slide(tmp_path / "a.mrxs", pixels, mpp=0.5, photos=(4, 4), missing=[(2, 2)]))
    grid = lay_grid(slide, PlanConfig(patch_px=64, stride_px=32).grid)
    corners = grid.coords_l0_px.tolist()
    assert len(corners) > 300
    x, y = photo_corner((2, 2))
    assert not any(
        x <= left - 19 <= x + 154 and y <= top - 19 <= y + 154 for left, top in corners
    )  # nothing is scanned
    assert not [each for each in slide.read_patches(corners, grid.geometry) if isinstance(each, PatchError)]
