"""Which scans of one slide are found by its print, which slides are wrongly taken for one, and what it costs.

Thumbnails are synthesised: uneven discs of tissue, darker and lighter at several scales. Each is scanned once
more: compressed to JPEG at quality 40, in another stain, at half the resolution, turned by 180 degrees, tilted by two
degrees, with a margin cut off, and all of compression, brightness, resolution and turn at once. The same is done with
roundish sections of little texture that have a dark rim, as lymph nodes have. Measured in turn in one process: the
print of a slide, and finding its tissue, which a plan does anyway. `--folder` takes pictures of slides in
their place, such as the overviews of a development set; their size in micrometres is not known and taken as 20 mm.
"""

import io
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import machine
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pipeline.base.console import table
from pipeline.cohort.leakage.rescans import SlidePrint, find_rescans, slide_print
from pipeline.slides.tissue import segment

NEEDED = 0.25
"""Share of the tissue finder's time that a print may take: the issue allows a plan half as much time again for all."""
SIDE, PIXEL_UM = 700, 24.0
RIM, RIM_UM = 60.0, 320.0
"""How much darker a rim is, grey levels, and its width. Our choice: a lymph node's cortex in a picture of a slide."""
Rgb = NDArray[np.uint8]


def section(seed: int, rimmed: bool = False) -> Rgb:
    """A made-up section; a rimmed one is rounder, more even, and dark along its edge."""
    rng = np.random.default_rng(seed)

    def field(cell: int) -> NDArray[np.float64]:
        coarse = rng.standard_normal((SIDE // cell + 4,) * 2)
        fine: NDArray[np.float64] = ndimage.zoom(coarse, cell, order=1)[:SIDE, :SIDE]
        return fine

    y, x = (np.mgrid[:SIDE, :SIDE] + 0.5) / SIDE - 0.5
    wide = rng.uniform(1, 1.1 if rimmed else 2)
    inside = np.hypot(y * wide, x) + (0.01 if rimmed else 0.04) * field(60) < rng.uniform(0.28, 0.4)
    texture = field(40) + 0.7 * field(20) + 0.5 * field(10)
    rim = RIM * (ndimage.distance_transform_edt(inside) * PIXEL_UM < RIM_UM) if rimmed else 0
    grey = np.clip(150 + (8 if rimmed else 25) * texture - rim, 40, 215)
    glass = np.full((SIDE, SIDE, 1), 243) + rng.normal(0, 1, (SIDE, SIDE, 1))
    rgb = np.where(inside[..., None], np.stack([grey * 1.05, grey * 0.65, grey * 0.95], axis=-1), glass)
    return np.clip(rgb, 0, 255).astype(np.uint8)


def as_jpeg(rgb: Rgb, quality: int) -> Rgb:
    """Compressed and decoded again."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def turned(rgb: Rgb, degrees: float) -> Rgb:
    """Turned about its middle; the corners are glass."""
    glass = tuple(int(value) for value in np.median(rgb[:5].reshape(-1, 3), axis=0))
    return np.asarray(Image.fromarray(rgb).rotate(degrees, Image.Resampling.BILINEAR, fillcolor=glass))


def coarser(rgb: Rgb) -> Rgb:
    """Scanned at half the resolution, and shown at the same size."""
    image = Image.fromarray(rgb)
    return np.asarray(image.reduce(2).resize(image.size, Image.Resampling.BILINEAR))


def stained(rgb: Rgb) -> Rgb:
    """With other amounts of red, green and blue absorbed; glass stays nearly as it is."""
    density = -np.log((rgb + 1.0) / 256) * (1.15, 0.9, 1.05)
    return np.asarray(np.clip(256 * np.exp(-density) - 1, 0, 255).astype(np.uint8))


def scans(rgb: Rgb) -> Iterator[tuple[str, Rgb]]:
    """Further scans of a slide, by what differs."""
    high, wide = rgb.shape[:2]
    yield "JPEG, quality 40", as_jpeg(rgb, 40)
    yield "darker by 10 %", (rgb * 0.9).astype(np.uint8)
    yield "another stain", stained(rgb)
    yield "half the resolution", coarser(rgb)
    yield "turned by 180 degrees", np.ascontiguousarray(rgb[::-1, ::-1])
    yield "tilted by 2 degrees", turned(rgb, 2)
    yield "tilted by 5 degrees", turned(rgb, 5)
    yield "a margin of 5 % cut off", np.ascontiguousarray(rgb[high // 20 :, wide // 20 :])
    yield "JPEG, darker, coarser, turned", as_jpeg((coarser(turned(rgb, 181)) * 0.95).astype(np.uint8), 60)


def print_of(rgb: Rgb, pixel_um: float) -> SlidePrint | None:
    """The print of a thumbnail, on the tissue that is found in it."""
    mask = segment(rgb, pixel_um)
    return slide_print(rgb, mask, np.zeros_like(mask), pixel_um)


def read_pictures(folder: Path) -> list[tuple[Rgb, float]]:
    """All pictures below a folder with their um per pixel."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    return [(rgb, 20_000 / max(rgb.shape)) for rgb in pictures]


def report(what: str, slides: list[tuple[Rgb, float]], again: int) -> list[SlidePrint | None]:
    """Print which slides are wrongly taken for one, and which further scans of the first `again` are found; returns the
    slides' prints.
    """
    prints = [print_of(*slide) for slide in slides]
    pairs = len(slides) * (len(slides) - 1) // 2
    print(f"{len(slides)} {what}, {sum(each is None for each in prints)} without a print")
    print(f"wrongly taken for one: {len(find_rescans(prints))} of {pairs:,} pairs")
    found: dict[str, list[bool]] = {}
    for (rgb, pixel_um), own in list(zip(slides, prints, strict=True))[:again]:
        for name, scan in scans(rgb):
            found.setdefault(name, []).append(bool(find_rescans([own, print_of(scan, pixel_um)])))
    print(table([(name, f"{sum(each)} of {len(each)}") for name, each in found.items()], ("scanned again", "found")))
    return prints


def main() -> int:
    """Measure and print."""
    parser = machine.parser(__doc__, rounds=5)
    parser.add_argument("--slides", type=int, default=200, help="sections to synthesise")
    parser.add_argument("--rimmed", type=int, default=40, help="sections with a dark rim to synthesise")
    parser.add_argument("--folder", type=Path, help="pictures in place of the sections")
    args = parser.parse_args()
    slides = read_pictures(args.folder) if args.folder else [(section(n), PIXEL_UM) for n in range(args.slides)]
    prints = report("slides", slides, 50)
    if args.rimmed:
        report("sections with a dark rim", [(section(n, rimmed=True), PIXEL_UM) for n in range(args.rimmed)], 10)
    many = [prints[n % len(prints)] for n in range(1000)]
    apart = [
        each and replace(each, detail=np.roll(each.detail, (7 * n, 13 * n), (0, 1)) * each.inside)
        for n, each in enumerate(many)
    ]
    start = time.perf_counter()
    find_rescans(apart)
    print(f"1,000 prints are compared in {time.perf_counter() - start:.1f} s")
    rgb = np.asarray(Image.fromarray(section(0)).resize((3125, 2500)))
    mask = segment(rgb, 8.0)
    none = np.zeros_like(mask)
    parts = {"finding tissue": lambda: segment(rgb, 8.0), "print": lambda: slide_print(rgb, mask, none, 8.0)}
    rounds = machine.measure_rounds(parts, wanted=args.rounds, patience=args.patience)
    print(table([(name, f"{rounds.seconds(name):.3f}") for name in parts], ("of 3125 x 2500 pixels", "s"), right=[1]))
    print(rounds.words())
    return machine.conclude(rounds.ratio(["print"], ["finding tissue"]), at_most=NEEDED, quiet=rounds.quiet)


if __name__ == "__main__":
    sys.exit(main())
