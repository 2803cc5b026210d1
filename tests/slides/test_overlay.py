"""Overlays: a picture that opens, with the colours that the legend names at the places that the plan names."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import support.slides as sf
from PIL import Image

from pipeline.cohort.manifest.read import read_manifest, write_manifest
from pipeline.cohort.manifest.rows import ManifestRow
from pipeline.config.plan import PlanConfig
from pipeline.sampling import TRAIN, VAL
from pipeline.slides.artefacts.rules import DROPPING
from pipeline.slides.overlay import (
    CONTOUR,
    GRID,
    HELD_OUT,
    SWATCH_PX,
    TRAINED,
    UNREADABLE,
    VEIL_ALPHA,
    Swatch,
    draw_overlay,
)
from pipeline.slides.tissue import TissueMask, reason_of
from stages.plan import plan_slides

SCALE = 8
"""Picture pixels a mask pixel: the mask below has 125 x 100 pixels, the picture 1000 x 800."""


@pytest.fixture
def tissue() -> TissueMask:
    mask = np.zeros((100, 125), bool)
    mask[20:80, 30:110] = True
    thumbnail = np.full((100, 125, 3), 243, np.uint8)
    thumbnail[mask] = (224, 158, 192)
    return TissueMask(mask, 16.0, np.zeros_like(mask), thumbnail)


def draw(tissue: TissueMask, path: Path) -> np.ndarray:
    """Patches of 10 mask pixels at (40, 30) and (60, 30) for training, (80, 30) held out, (40, 60) not taken."""
    taken = np.array([(40, 30), (60, 30), (80, 30)]) * 16
    available = np.concatenate([taken, np.array([(40, 60)]) * 16])
    draw_overlay(tissue, available, taken, np.array([TRAIN, TRAIN, VAL], np.uint8), 160.0, "the title", path)
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        return np.asarray(picture).astype(int)


def test_colours_are_where_the_plan_says(tissue: TissueMask, tmp_path: Path) -> None:
    picture = draw(tissue, tmp_path / "new folder" / "a.png")
    plain = picture[36 * SCALE, 55 * SCALE]
    assert plain.tolist() == [224, 158, 192]  # tissue between the patches, as it is
    for (column, row), colour in {(40, 30): TRAINED, (60, 30): TRAINED, (80, 30): HELD_OUT}.items():
        x, y, side = column * SCALE, row * SCALE, 10 * SCALE
        for edge in (
            (y, x + side // 2),
            (y + side - 1, x + side // 2),
            (y + side // 2, x),
            (y + side // 2, x + side - 1),
        ):
            assert picture[edge].tolist() == list(colour)
        for outside in ((y - 3, x + side // 2), (y + side + 3, x + side // 2), (y + side // 2, x + side + 3)):
            assert picture[outside].tolist() == plain.tolist()
        assert picture[y + side // 2, x + side // 2].tolist() == plain.tolist()  # the stain as it is
    x, y = 40 * SCALE, 60 * SCALE
    assert (plain - picture[y, x + 40]).min() > 10  # a faint grey line round a patch that was not taken
    assert picture[y + 40, x + 40].tolist() == plain.tolist()


@pytest.mark.parametrize("side_l0_px", [16, 32, 160, 480])
def test_most_of_the_tissue_is_seen_as_it_is(tissue: TissueMask, tmp_path: Path, side_l0_px: int) -> None:
    """Whatever the patches' side in the picture: 8, 16, 80 or 240 pixels, all of the grid taken."""
    axis = np.arange(0, 60 * 16, side_l0_px)
    corners = np.array([(30 * 16 + x, 20 * 16 + y) for y in axis for x in axis])
    split = (np.arange(len(corners)) % 7 == 0).astype(np.uint8)
    draw_overlay(tissue, corners, corners, split, float(side_l0_px), "", tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        picture = np.asarray(opened)[22 * SCALE : 78 * SCALE, 32 * SCALE : 88 * SCALE]
    assert (picture == (224, 158, 192)).all(axis=2).mean() > 0.7
    assert (picture == TRAINED).all(axis=2).any()
    assert (picture == HELD_OUT).all(axis=2).any()


def test_contour_runs_along_the_tissue(tissue: TissueMask, tmp_path: Path) -> None:
    picture = draw(tissue, tmp_path / "a.png")[:800]
    green = np.argwhere((picture == CONTOUR).all(axis=2))
    top, left = green.min(axis=0)
    bottom, right = green.max(axis=0)
    for edge, expected in ((top, 20), (bottom, 80), (left, 30), (right, 110)):
        assert abs(edge - expected * SCALE) <= 3
    middle = (slice(25 * SCALE, 75 * SCALE), slice(35 * SCALE, 105 * SCALE))
    assert not (picture[middle] == CONTOUR).all(axis=2).any()


def is_in(caption: np.ndarray, swatch: Swatch) -> bool:
    """Whether the caption has the swatch, pixel for pixel."""
    wanted = np.asarray(swatch.painted())
    rows, columns = len(caption) - SWATCH_PX + 1, caption.shape[1] - SWATCH_PX + 1
    near = np.ones((rows, columns), bool)
    for place in range(0, SWATCH_PX, 3):  # its diagonal
        near &= (caption[place : place + rows, place : place + columns] == wanted[place, place]).all(axis=2)
    return any((caption[y : y + SWATCH_PX, x : x + SWATCH_PX] == wanted).all() for y, x in np.argwhere(near))


def test_caption_is_below(tissue: TissueMask, tmp_path: Path) -> None:
    picture = draw(tissue, tmp_path / "a.png")
    assert picture.shape[1] == 1000
    caption = picture[800:]
    assert 40 < len(caption) < 100
    for swatch in (Swatch("", CONTOUR, "line"), Swatch("", TRAINED, "patch"), Swatch("", HELD_OUT, "patch")):
        assert (np.asarray(swatch.painted()) == swatch.colour).all(axis=2).sum() > 90
        assert is_in(caption, swatch)
    assert is_in(caption, Swatch("", GRID, "grid"))
    assert not is_in(caption, Swatch("", UNREADABLE, "solid"))


def test_a_title_in_other_letters_is_no_row_of_boxes(tissue: TissueMask, tmp_path: Path) -> None:
    """Each letter looks different, while the box of a letter that a font lacks is always the same."""
    none, captions = np.zeros((0, 2), np.int64), []
    for title in ("üüüü", "ßßßß", "łłłł"):
        draw_overlay(tissue, none, none, np.zeros(0, np.uint8), 160.0, title, tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as opened:
            captions.append(np.asarray(opened)[800:].tobytes())
    assert len(set(captions)) == 3


def test_the_legend_names_what_is_there(tissue: TissueMask, tmp_path: Path) -> None:
    taken = np.array([(40, 30)]) * 16
    draw_overlay(tissue, taken, taken, np.array([TRAIN], np.uint8), 160.0, "", tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        caption = np.asarray(opened)[800:]
    assert is_in(caption, Swatch("", TRAINED, "patch"))
    assert not is_in(caption, Swatch("", HELD_OUT, "patch"))


@pytest.mark.parametrize("below", [(224, 158, 192), (243, 243, 243), (60, 20, 70)])
def test_what_rules_dropped_has_their_colours(tissue: TissueMask, tmp_path: Path, below: tuple[int, ...]) -> None:
    """On tissue, on glass and on what is dark: an outline and stripes of the legend's colour to the bit, and between
    them the slide through the veil that the legend has over white.
    """
    reasons = np.zeros(tissue.mask.shape, np.uint8)
    boxes = {"pen": (20, 45), "blur": (50, 75)}
    for name, (left, right) in boxes.items():
        reasons[84:96, left:right] = reason_of(name)
    tissue.thumbnail[80:] = below
    picture = draw(replace(tissue, reasons=reasons, rules=("pen", "blur")), tmp_path / "a.png")
    for rule in DROPPING:
        swatch = Swatch("", rule.colour or (0, 0, 0), "area")
        assert is_in(picture[800:], swatch) == (rule.name in boxes)
        if rule.name in boxes:
            left, right = boxes[rule.name]
            area = picture[84 * SCALE : 96 * SCALE, left * SCALE : right * SCALE]
            exact = (area == swatch.colour).all(axis=2)
            assert exact[0].all()
            assert exact[-1].all()
            assert exact[:, [0, -1]].all()
            assert 0.2 < exact[8:-8, 8:-8].mean() < 0.4
            veil = np.array(below) + VEIL_ALPHA / 255 * (np.array(swatch.colour) - below)
            assert np.abs(area[~exact] - veil).max() <= 1


def test_unreadable_places_are_named(tissue: TissueMask, tmp_path: Path) -> None:
    tissue.unreadable[30:50, 90:105] = True
    tissue.thumbnail[tissue.unreadable] = 0
    picture = draw(tissue, tmp_path / "a.png")
    assert (picture[45 * SCALE, 97 * SCALE] == UNREADABLE).all()
    assert is_in(picture[800:], Swatch("", UNREADABLE, "solid"))


def test_nothing_taken(tissue: TissueMask, tmp_path: Path) -> None:
    none = np.zeros((0, 2), np.int64)
    draw_overlay(tissue, none, none, np.zeros(0, np.uint8), 160.0, "é " * 200, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 1000  # wide enough for its title


@pytest.mark.parametrize(("shape", "side", "size"), [((3000, 10), 1, 2000), ((2, 3), 0, 1000), ((1500, 1200), 1, 1500)])
def test_size_of_the_picture(tmp_path: Path, shape: tuple[int, int], side: int, size: int) -> None:
    """The longer side, 0 the width and 1 the height, is 1000 to 2000 pixels; the caption has 72."""
    mask = np.zeros(shape, bool)
    slide = TissueMask(mask, 16.0, mask, np.full((*shape, 3), 243, np.uint8))
    none = np.zeros((0, 2), np.int64)
    draw_overlay(slide, none, none, np.zeros(0, np.uint8), 160.0, "", tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert (picture.width, picture.height - 72)[side] == size


@pytest.mark.slow
def test_one_overlay_a_slide(tmp_path: Path) -> None:
    """Of slides that open, failed ones included."""
    sf.make_slide(tmp_path / "a.svs", width=1500, height=1200, mpp=0.5)
    sf.make_slide(tmp_path / "b.svs", width=600, height=600, mpp=0.5, pattern="blank")
    sf.not_a_slide(tmp_path / "c.svs")
    write_manifest(tmp_path / "m.csv", [ManifestRow(name, f"{name}.svs", name) for name in "abc"])
    plan_slides(read_manifest(tmp_path / "m.csv"), PlanConfig(patch_px=64), workers=2, overlays=tmp_path / "overlays")
    assert sorted(path.name for path in (tmp_path / "overlays").iterdir()) == ["a.png", "b.png"]
