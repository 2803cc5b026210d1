"""Read a slide's facts from OpenSlide's properties and level sizes, and refuse implausible ones.

The mpp comes from the slide or the manifest. If the two contradict each other, the slide is refused unless the manifest
overrides it. Left out: opening slides (`reader`) and telling slides apart (`identity`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base.errors import SlideError
from pipeline.base.units import MPP_AT_1X, check_mpp
from pipeline.slides.geometry import filled_downsamples, reduction, stated_downsample, true_downsample
from pipeline.slides.stated_mpp import UM_FIELDS, stated_mpps

MAX_ANISOTROPY = 1.01
"""Pixels may be 1 % off square, within the 1 % by which the effective mpp may miss the target."""
MAX_MPP_APART = 1.02
"""The manifest's and the slide's mpp may differ by 2 %, as differently rounded headers do."""
MAX_OBJECTIVE_APART = math.sqrt(2)
"""Beyond this ratio an mpp fits the next doubling of the magnification better than the stated one. Our choice: scanners
named 40x have 0.22 to 0.28 um/px.
"""
MAX_LEVEL_APART = 1.01
"""A level may be reduced by 1 % more along one axis than the other, on top of the rounding of its size."""
MAX_SLIDE_PX = 2**40
"""Pixels of level 0. Our choice: 262 mm x 262 mm at 0.25 um/px, larger than any slide."""
MAX_TILE_PX = 2**28
"""Pixels of a tile, which OpenSlide decodes whole: 1 GiB. Our choice: real tiles have 240 to 4096 pixels a side."""


@dataclass(frozen=True)
class SlideInfo:
    """A slide's facts.

    Attributes:
        vendor: OpenSlide's name of the format.
        mpp: um/px of level 0.
        mpp_source: "slide" or "manifest".
        size_l0_px: (width, height) of level 0.
        bounds_l0_px: (x, y, width, height) of the scanned area, level 0; the whole slide if it gives none.
        level_sizes_px: (width, height) of each level, finest first.
        downsamples: level-0 pixels per level pixel, finest first: what the format states, else
            `geometry.filled_downsamples` where that knows, else `geometry.true_downsample`.
        quickhash: OpenSlide's hash of the slide's content, if it has one.
        background: RGB for transparent pixels.
        own_mpp: um/px according to the slide, if plausible.
        manifest_mpp: um/px according to the manifest, if it says so.
        warnings: oddities, in words.
    """

    vendor: str
    mpp: float
    mpp_source: str
    size_l0_px: tuple[int, int]
    bounds_l0_px: tuple[int, int, int, int]
    level_sizes_px: tuple[tuple[int, int], ...]
    downsamples: tuple[float, ...]
    quickhash: str | None
    background: tuple[int, int, int]
    own_mpp: float | None = None
    manifest_mpp: float | None = None
    warnings: tuple[str, ...] = ()

    def audit_facts(self) -> dict[str, Any]:
        """The slide's columns of a plan's audit (`cohort.audit.AuditRow`)."""
        return {
            "vendor": self.vendor,
            "width": self.size_l0_px[0],
            "height": self.size_l0_px[1],
            "levels": len(self.downsamples),
            "mpp": round(self.mpp, 6),
            "mpp_source": self.mpp_source,
            "own_mpp": None if self.own_mpp is None else round(self.own_mpp, 6),
            "manifest_mpp": self.manifest_mpp,
            "warnings": "; ".join(self.warnings),
        }

    def known_downsamples(self, level: int) -> tuple[float, ...]:
        """The downsample of a level, and the one that its size gives, by which earlier versions and other tools go;
        nothing if there is no such level.
        """
        if not 0 <= level < len(self.downsamples):
            return ()
        return self.downsamples[level], true_downsample(self.size_l0_px, self.level_sizes_px[level])


@dataclass(frozen=True)
class Resolution:
    """um/px of level 0 (`mpp`), its source ("slide" or "manifest"), the slide's own mpp, and warnings."""

    mpp: float
    source: str
    own_mpp: float | None = None
    warnings: tuple[str, ...] = ()


def read_mpp(
    properties: Mapping[str, str], manifest_mpp: float | None, path: Path, *, overrides: bool = False
) -> Resolution:
    """The resolution of level 0, from the slide or the manifest.

    Args:
        overrides: use the manifest's mpp, whatever the slide says.

    Raises:
        SlideError: neither gives an mpp, they differ by more than 2 %, it is implausible, or pixels are not square.
    """
    own, trouble = _own_mpp(properties)
    own_mpp = math.sqrt(own[0] * own[1]) if own else None
    try:
        if manifest_mpp is not None:
            check_mpp(manifest_mpp, "the manifest")
            if own_mpp and not overrides and _ratio(manifest_mpp, own_mpp) > MAX_MPP_APART:
                raise ValueError(
                    f"the manifest says {manifest_mpp:g} um/px, the slide itself {own_mpp:g}. Correct the column mpp, "
                    "or leave it empty; if the slide is wrong, write yes in a column mpp_overrides"
                )
            mpp, source = manifest_mpp, "manifest"
        elif own is None:
            raise ValueError(trouble)
        elif _ratio(*own) > MAX_ANISOTROPY:
            raise ValueError(
                f"pixels are not square ({own[0]:g} x {own[1]:g} um). Give one mpp in the manifest's column mpp"
            )
        else:
            mpp, source = math.sqrt(own[0] * own[1]), "slide"
    except ValueError as error:
        facts = {"own_mpp": own_mpp and round(own_mpp, 6), "manifest_mpp": manifest_mpp}
        raise SlideError(f"{path}: {error}", facts) from None
    return Resolution(mpp, source, own_mpp, tuple(_odd_resolution(properties, mpp, own)))


def _own_mpp(properties: Mapping[str, str]) -> tuple[tuple[float, float] | None, str]:
    """um/px along x and y according to the slide, or why it has no usable mpp."""
    values = [properties.get(f"openslide.mpp-{axis}") for axis in "xy"]
    if values[0] is None or values[1] is None:
        return None, f"it has no mpp (um/px){_stated_instead(properties)}. Give it in the manifest's column mpp"
    try:
        return (check_mpp(float(values[0]), "the slide"), check_mpp(float(values[1]), "the slide")), ""
    except ValueError as error:
        return None, str(error)


def _stated_instead(properties: Mapping[str, str]) -> str:
    """What the fields of a slide without mpp say of its resolution, in words; empty if they say nothing."""
    stated = stated_mpps(properties)
    words = [f"its field {name} says {x:.4g}{'' if x == y else f' x {y:.4g}'} um/px" for name, (x, y) in stated.items()]
    odd = [name for name in UM_FIELDS if properties.get(name) and name not in stated]
    words += [f"its field {name} says {properties[name]!r}" for name in odd]
    return f", though {' and '.join(words)}" if words else ""


def _odd_resolution(properties: Mapping[str, str], mpp: float, own: tuple[float, float] | None) -> list[str]:
    """Warnings about the resolution; `own` is the slide's mpp along x and y."""
    warnings = []
    if own and _ratio(mpp, math.sqrt(own[0] * own[1])) > MAX_MPP_APART:
        warnings.append(f"the manifest's mpp of {mpp:g} overrides the slide's own of {math.sqrt(own[0] * own[1]):g}")
    if own and _ratio(*own) > MAX_ANISOTROPY:
        warnings.append(
            f"pixels are not square ({own[0]:g} x {own[1]:g} um) but are treated as {mpp:g} um along both "
            "axes, so that patches are distorted"
        )
    warnings += _contradictions(properties, own or (mpp, mpp), mpp)
    try:
        power = float(properties.get("openslide.objective-power") or "nan")
    except ValueError:
        return warnings
    if 0 < power < math.inf:
        usual = MPP_AT_1X / power
        if _ratio(mpp, usual) > MAX_OBJECTIVE_APART:
            warnings.append(
                f"the slide names a {power:g}x objective, usually {usual:.3g} um/px, but its mpp is "
                f"{mpp:.4g}, which is used. Is it right?"
            )
    return warnings


def _contradictions(properties: Mapping[str, str], believed: tuple[float, float], mpp: float) -> list[str]:
    """Warnings about fields of the slide that state another um/px along x or y than the `believed` ones."""
    return [
        f"the slide's field {name} says {x:.4g}{'' if x == y else f' x {y:.4g}'} um/px, but {mpp:.4g} is used. Is it "
        "right?"
        for name, (x, y) in stated_mpps(properties).items()
        if max(_ratio(x, believed[0]), _ratio(y, believed[1])) > MAX_MPP_APART
    ]


def _ratio(one: float, other: float) -> float:
    """Ratio of the larger to the smaller of two positive numbers."""
    return max(one / other, other / one)


def read_info(
    properties: Mapping[str, str],
    level_sizes_px: Sequence[tuple[int, int]],
    manifest_mpp: float | None,
    path: Path,
    *,
    overrides: bool = False,
    ratios: Sequence[float] | None = None,
) -> SlideInfo:
    """Read and check a slide's facts; `ratios` are OpenSlide's level-0 pixels per pixel of each level.

    Raises:
        SlideError: its resolution cannot be used (`read_mpp`), its size or its tiles' is absurd, or a level is out of
            proportion.
        ValueError: a property is not a number.
    """
    _check_sizes(properties, level_sizes_px, path)
    known = _known_downsamples(properties, level_sizes_px, ratios, path)
    resolution = read_mpp(properties, manifest_mpp, path, overrides=overrides)
    width, height = level_sizes_px[0]
    bounds = [properties.get(f"openslide.bounds-{name}") for name in ("x", "y", "width", "height")]
    x, y, w, h = (int(b) for b in bounds if b is not None) if None not in bounds else (0, 0, width, height)
    x, y = min(max(x, 0), width), min(max(y, 0), height)
    colour = properties.get("openslide.background-color", "FFFFFF")
    return SlideInfo(
        vendor=properties.get("openslide.vendor", "unknown"),
        mpp=resolution.mpp,
        mpp_source=resolution.source,
        size_l0_px=(width, height),
        bounds_l0_px=(x, y, max(min(w, width - x), 0), max(min(h, height - y), 0)),
        level_sizes_px=tuple(level_sizes_px),
        downsamples=tuple(
            each or true_downsample((width, height), size) for each, size in zip(known, level_sizes_px, strict=True)
        ),
        quickhash=properties.get("openslide.quickhash-1"),
        background=(int(colour[0:2], 16), int(colour[2:4], 16), int(colour[4:6], 16)),
        own_mpp=resolution.own_mpp,
        manifest_mpp=manifest_mpp,
        warnings=resolution.warnings,
    )


def _check_sizes(properties: Mapping[str, str], level_sizes_px: Sequence[tuple[int, int]], path: Path) -> None:
    """Refuse sizes that no slide has, before reading anything of that size.

    Raises:
        SlideError: level 0 or a tile is absurdly large, or a level has no pixels.
    """
    if not level_sizes_px or min(min(size) for size in level_sizes_px) < 1:
        raise SlideError(f"{path}: a level has no pixels ({list(level_sizes_px)}). Is the file whole?")
    width, height = level_sizes_px[0]
    if width * height > MAX_SLIDE_PX:
        raise SlideError(f"{path}: it claims {width:,} x {height:,} pixels, more than any slide. Is the file damaged?")
    for level in range(len(level_sizes_px)):
        tile = _tile_px(properties, level)
        if tile and tile[0] * tile[1] > MAX_TILE_PX:
            raise SlideError(
                f"{path}: tiles of level {level} claim {tile[0]:,} x {tile[1]:,} pixels. Is the file damaged?"
            )


def _known_downsamples(
    properties: Mapping[str, str], level_sizes_px: Sequence[tuple[int, int]], ratios: Sequence[float] | None, path: Path
) -> list[float | None]:
    """The levels' downsamples where they do not follow from their sizes (`geometry.stated_downsample`,
    `geometry.filled_downsamples`).

    Raises:
        SlideError: the sizes of another level are out of proportion to level 0's.
    """
    width, height = level_sizes_px[0]
    tiles = [_tile_px(properties, level) for level in range(len(level_sizes_px))]
    known = list(filled_downsamples(level_sizes_px, tiles))
    for level, ratio in enumerate(ratios or ()):
        known[level] = stated_downsample((width, height), level_sizes_px[level], ratio) or known[level]
    for level, (w, h) in enumerate(level_sizes_px):
        (least_x, most_x), (least_y, most_y) = reduction(width, w), reduction(height, h)
        if not known[level] and max(least_x / most_y, least_y / most_x) > MAX_LEVEL_APART:
            raise SlideError(
                f"{path}: level {level} of {w} x {h} pixels is not in proportion to {width} x {height}: "
                f"reduced {width / w:.4g} times across and {height / h:.4g} times down. Rewrite the slide "
                "without this level"
            )
    return known


def _tile_px(properties: Mapping[str, str], level: int) -> tuple[int, int] | None:
    """(width, height) of a level's tiles, if it has any.

    Raises:
        ValueError: it is no number.
    """
    sides = [properties.get(f"openslide.level[{level}].tile-{side}") for side in ("width", "height")]
    width, height = (int(side or 0) for side in sides)
    return (width, height) if min(width, height) > 0 else None
