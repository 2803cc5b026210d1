"""What a slide says of itself: which mpp counts, what is contradictory, and which sizes no slide has."""

from pathlib import Path

import pytest

from pipeline.base.errors import SlideError
from pipeline.slides.info import read_info, read_mpp

PATH = Path("a.svs")


def mpp_properties(x: str, y: str | None = None, **others: str) -> dict[str, str]:
    return {"openslide.mpp-x": x} | ({} if y is None else {"openslide.mpp-y": y}) | others


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ("0.25", "0.26", r"pixels are not square \(0\.25 x 0\.26 um\)"),
        ("0.25", None, "it has no mpp"),
        ("0.25", "much", "could not convert string to float"),
        ("0.25", "nan", "implausible mpp nan"),
    ],
)
def test_mpp_that_is_refused(x: str, y: str | None, message: str) -> None:
    properties = mpp_properties(x, y)
    with pytest.raises(SlideError, match=f"a.svs: {message}"):
        read_mpp(properties, None, PATH)
    found = read_mpp(properties, 0.255, PATH)
    assert (found.mpp, found.source) == (0.255, "manifest")


def test_mpp_of_nearly_square_pixels() -> None:
    found = read_mpp(mpp_properties("0.2500", "0.2520"), None, PATH)
    assert found.mpp == pytest.approx(0.250998, abs=1e-6)
    assert found.source == "slide"
    for same in ("0.499", "0.2325", "0.252"):  # exactly what the slide says
        assert read_mpp(mpp_properties(same, same), None, PATH).mpp == float(same)


@pytest.mark.parametrize("manifest_mpp", [0.5, 0.26, 0.244])
def test_manifest_that_contradicts_the_slide(manifest_mpp: float) -> None:
    properties = mpp_properties("0.25", "0.25")
    with pytest.raises(SlideError, match=rf"a\.svs: the manifest says {manifest_mpp:g} um/px, the slide itself 0\.25"):
        read_mpp(properties, manifest_mpp, PATH)
    found = read_mpp(properties, manifest_mpp, PATH, overrides=True)
    assert (found.mpp, found.source, found.own_mpp) == (manifest_mpp, "manifest", 0.25)
    assert f"the manifest's mpp of {manifest_mpp:g} overrides the slide's own of 0.25" in found.warnings


def test_pixels_that_are_not_square_are_taken_with_a_warning_or_not_at_all() -> None:
    """One number for both axes must lie between them, or override them, and then it is said that patches are wrong."""
    properties = mpp_properties("0.25", "0.5")
    for manifest_mpp in (0.25, 0.5, 0.3):
        with pytest.raises(SlideError, match=r"the slide itself 0\.353553"):
            read_mpp(properties, manifest_mpp, PATH)
    found = read_mpp(properties, 0.35, PATH)
    words = "pixels are not square (0.25 x 0.5 um) but are treated as 0.35 um along both axes"
    assert (found.mpp, found.warnings) == (0.35, (f"{words}, so that patches are distorted",))
    assert len(read_mpp(properties, 0.25, PATH, overrides=True).warnings) == 2


@pytest.mark.parametrize("manifest_mpp", [0.252, 0.2475, 0.25])
def test_manifest_that_rounds_the_slide(manifest_mpp: float) -> None:
    found = read_mpp(mpp_properties("0.25", "0.25"), manifest_mpp, PATH)
    assert (found.mpp, found.own_mpp, found.warnings) == (manifest_mpp, 0.25, ())


def test_an_implausible_mpp_of_the_slide_does_not_count() -> None:
    """72 dots an inch, as programs that know no um write it."""
    found = read_mpp(mpp_properties("352.8", "352.8"), 0.25, PATH)
    assert (found.mpp, found.own_mpp) == (0.25, None)


@pytest.mark.parametrize(
    ("power", "mpp", "odd"),
    [
        ("40", "0.5", True),
        ("20", "0.25", True),
        ("40", "0.25", False),
        ("40", "0.2325", False),
        ("20", "0.499", False),
        ("x", "0.5", False),
        ("0", "0.5", False),
        ("inf", "0.5", False),
    ],
)
def test_objective_against_mpp(power: str, mpp: str, odd: bool) -> None:
    found = read_mpp(mpp_properties(mpp, mpp, **{"openslide.objective-power": power}), None, PATH)
    assert any("x objective, usually" in words for words in found.warnings) == odd
    if odd:
        assert f"a {power}x objective, usually {10 / float(power):g} um/px, but its mpp is {mpp}" in found.warnings[0]


TIFF_PER_CM = {"tiff.XResolution": "40000", "tiff.YResolution": "40000", "tiff.ResolutionUnit": "centimeter"}
TIFF_WORDS = "the slide's field tiff.XResolution says 0.25 um/px, but {} is used. Is it right?"


@pytest.mark.parametrize(
    ("properties", "manifest_mpp", "warnings"),
    [
        (mpp_properties("0.5", "0.5", **TIFF_PER_CM), None, [TIFF_WORDS.format("0.5")]),
        (mpp_properties("0.251", "0.251", **TIFF_PER_CM), None, []),
        (TIFF_PER_CM, 0.5, [TIFF_WORDS.format("0.5")]),
        (TIFF_PER_CM, 0.25, []),
        (
            mpp_properties("0.25", "0.25", **{"aperio.MPP": "0.5"}),
            None,
            ["the slide's field aperio.MPP says 0.5 um/px, but 0.25 is used. Is it right?"],
        ),
        (
            mpp_properties("0.25", "0.25", **(TIFF_PER_CM | {"tiff.YResolution": "20000"})),
            None,
            ["the slide's field tiff.XResolution says 0.25 x 0.5 um/px, but 0.25 is used. Is it right?"],
        ),
        (
            mpp_properties("0.25"),
            0.5,
            ["the slide's field openslide.mpp-x says 0.25 um/px, but 0.5 is used. Is it right?"],
        ),
        (mpp_properties("0.25"), 0.25, []),
    ],
)
def test_a_field_that_contradicts_the_mpp(
    properties: dict[str, str], manifest_mpp: float | None, warnings: list[str]
) -> None:
    """As after a conversion that updated one of them; the mpp decides, and it is said."""
    found = read_mpp(properties, manifest_mpp, PATH)
    assert list(found.warnings) == warnings


GOOD = mpp_properties("0.5", "0.5")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tiff.XResolution": "40000", "tiff.YResolution": "40000", "tiff.ResolutionUnit": "centimeter"}, "0.25 um/px"),
        ({"tiff.XResolution": "72", "tiff.YResolution": "72", "tiff.ResolutionUnit": "inch"}, ""),
        ({"aperio.MPP": "0.2500 um"}, "'0.2500 um'"),
        ({}, ""),
    ],
)
def test_a_slide_without_mpp_tells_what_it_says_elsewhere(fields: dict[str, str], words: str) -> None:
    """It is not taken for the mpp: a person may look, and write it into the manifest."""
    name = next(iter(fields), "")
    said = f", though its field {name} says {words}" if words else ""
    with pytest.raises(SlideError) as told:
        read_mpp(fields, None, PATH)
    assert str(told.value) == f"{PATH}: it has no mpp (um/px){said}. Give it in the manifest's column mpp"


def test_levels_that_were_filled_up_to_whole_tiles() -> None:
    """Their sizes are out of proportion, and all of them were halved."""
    sizes = [(7744, 7680), (3904, 3840), (1984, 1920)]
    tiles = {f"openslide.level[{n}].tile-{side}": "64" for n in range(3) for side in ("width", "height")}
    assert read_info(GOOD | tiles, sizes, None, PATH).downsamples == (1, 2, 4)
    with pytest.raises(SlideError, match="level 2 of 1984 x 1920 pixels is not in proportion"):
        read_info(GOOD, sizes, None, PATH)


def test_a_downsample_that_the_format_states_counts() -> None:
    """Not the ratio of sizes, which may be of whole tiles; where OpenSlide gives that ratio, nothing is stated."""
    sizes = [(4352, 4351), (2304, 2304), (1088, 1087)]
    ratios = [4352 / w / 2 + 4351 / h / 2 for w, h in sizes]
    assert read_info(GOOD, sizes, None, PATH, ratios=ratios).downsamples == (1, 4351.5 / 2304, 4)
    assert read_info(GOOD, sizes, None, PATH, ratios=[1, 2, 4]).downsamples == (1, 2, 4)


@pytest.mark.parametrize(
    "levels", [[(4000, 3000), (2000, 750)], [(4000, 3000), (1000, 750), (250, 200)], [(4000, 3000), (1000, 740)]]
)
def test_level_out_of_proportion(levels: list[tuple[int, int]]) -> None:
    with pytest.raises(SlideError, match=r"a\.svs: level \d of \d+ x \d+ pixels is not in proportion to 4000 x 3000"):
        read_info(GOOD, levels, None, PATH)


@pytest.mark.parametrize(
    "levels",
    [
        [(4000, 3000), (1000, 750)],
        [(4000, 3000), (1008, 750)],  # 0.8 %
        [(1501, 1203), (375, 300), (93, 75), (47, 38)],  # rounded down, and up
        [(100_000, 300), (1563, 4), (782, 2), (391, 1)],
    ],
)
def test_level_whose_size_is_rounded(levels: list[tuple[int, int]]) -> None:
    info = read_info(GOOD, levels, None, PATH)
    assert info.level_sizes_px == tuple(levels)


@pytest.mark.parametrize(
    ("properties", "levels", "message"),
    [
        ({}, [], "a level has no pixels"),
        ({}, [(0, 100)], "a level has no pixels"),
        ({}, [(2**31, 2**31)], "it claims 2,147,483,648 x 2,147,483,648 pixels, more than any slide"),
        (
            {"openslide.level[0].tile-width": "128", "openslide.level[0].tile-height": "1073741823"},
            [(600, 400)],
            "tiles of level 0 claim 128 x 1,073,741,823 pixels",
        ),
    ],
)
def test_sizes_that_no_slide_has(properties: dict[str, str], levels: list[tuple[int, int]], message: str) -> None:
    with pytest.raises(SlideError, match=f"a.svs: {message}"):
        read_info(GOOD | properties, levels, None, PATH)


def test_bounds_are_cut_to_the_slide() -> None:
    bounds = {
        f"openslide.bounds-{name}": value
        for name, value in {"x": "-5", "y": "90", "width": "500", "height": "500"}.items()
    }
    assert read_info(GOOD | bounds, [(100, 100)], None, PATH).bounds_l0_px == (0, 90, 100, 10)
