"""Patches a second of the slide reader, against OpenSlide alone and against the least work that there is.

All read the same patches of one slide in the same process, in turn, on as many threads as asked for:
    reader      `Slide.read_patch` as stage one calls it, row by row, with the cache of decoded tiles
    openslide   the same with tiles decoded by OpenSlide and patches reduced by Pillow, as before
    least       each distinct tile decoded once by the same decoder, and one resampling a patch, each in a call of its
                own: nothing else. The reader resamples eight in a call, so that it may take less
The slide has 256-pixel JPEG tiles (4:2:0) at 0.25 um/px, patches 224 px at 0.5: 448 level-0 pixels, which lie over 7.6
tiles on average, of which 3.1 are new where patches do not overlap. The slide is in the page cache for all. The second
um/px gives fractional boxes, as most real slides do. The need of times OpenSlide is that of the last --resampling.
"""

import itertools
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import inputs
import machine
import numpy as np
from PIL import Image
from support.slides import make_big_slide  # of the tests; `inputs` sets the path

from pipeline.base.console import table
from pipeline.base.devices import keep_freed_memory
from pipeline.base.images import reduce_by_torch
from pipeline.cohort.manifest.rows import Manifest, ManifestRow
from pipeline.config.groups import Resampling
from pipeline.config.plan import PlanConfig
from pipeline.slides.direct.tile_cache import TileCache
from pipeline.slides.direct.tiled_tiff import TiledTiff
from pipeline.slides.geometry import region_box
from pipeline.slides.reader import RESAMPLING, Slide
from stages.plan import plan_slides

FASTER, OF_LEAST = 2.5, 0.9
"""What the reader must reach: times OpenSlide alone, and share of the least work."""
ROWS_PER_TASK = 8
"""Of `base.loader`."""


class Reading:
    """One slide and its patches; each method reads them all once."""

    def __init__(self, path: Path, patches: int, threads: int, mpp: float, resampling: Resampling) -> None:
        self.path, self.threads = path, threads
        row = ManifestRow(slide_id="slide", path=str(path.resolve()), case_id="case", mpp=mpp, mpp_overrides="yes")
        config = PlanConfig(patches_per_slide=10**9, val_fraction=0, patch_px=inputs.PATCH_PX, resampling=resampling)
        plan = plan_slides(Manifest((row,), path.parent / "manifest.csv", path.parent), config, workers=1)
        self.geometry = plan.slides[0].geometry
        assert self.geometry.resampling == resampling
        self.coords = plan.coords()[:patches].tolist()
        self.mpp = mpp

    def _slide(self) -> Slide:
        slide = Slide(self.path, self.mpp, mpp_overrides=True, cache=TileCache())
        assert slide.direct.read(self.geometry.level, (0, 0), (8, 8)) is not None, "the slide is not read directly"
        return slide

    def _in_threads(self, read: Callable[[list[tuple[int, int]]], object]) -> None:
        def some(start: int) -> None:
            read([(x, y) for x, y in self.coords[start : start + ROWS_PER_TASK]])

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(some, range(0, len(self.coords), ROWS_PER_TASK)))

    def reader(self) -> None:
        """As stage one reads."""
        slide = self._slide()
        self._in_threads(lambda corners: slide.read_patches(corners, self.geometry))

    def openslide(self) -> None:
        """By OpenSlide alone, reduced by Pillow."""
        slide, geometry = self._slide(), self.geometry.reduced_by("lanczos-pillow")
        slide.direct.read = lambda *_: None  # type: ignore[method-assign]
        self._in_threads(lambda corners: slide.read_patches(corners, geometry))

    def least(self) -> None:
        """Each tile once, one resampling a patch."""
        slide = self._slide()
        level = self.geometry.level
        tiff = TiledTiff(self.path, slide.info.vendor, slide.info.level_sizes_px, TileCache())
        tiles, boxes = tiff.levels[level], [region_box(x, y, self.geometry) for x, y in self.coords]
        needed = {
            row * tiles.num_columns + column
            for box in boxes
            for row in range(
                box.corner_level_px[1] // tiles.tile_height,
                -(-(box.corner_level_px[1] + box.size_level_px[1]) // tiles.tile_height),
            )
            for column in range(
                box.corner_level_px[0] // tiles.tile_width,
                -(-(box.corner_level_px[0] + box.size_level_px[0]) // tiles.tile_width),
            )
        }
        patch_px, region = inputs.PATCH_PX, np.zeros((*boxes[0].size_level_px[::-1], 3), np.uint8)

        def resample(box_index: int) -> None:
            box = boxes[box_index].box_level_px
            if self.geometry.resampling == "lanczos-torch":
                reduce_by_torch(region[None], box[2], patch_px)
            else:
                Image.fromarray(region).resize((patch_px, patch_px), RESAMPLING, box=box)

        def decode(index: int) -> None:
            tiff._decode(tiles, index)  # not kept: memory that is used again and again

        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(decode, sorted(needed)))
            list(pool.map(resample, range(len(boxes))))


def main() -> int:
    """Measure and print."""
    parser = machine.parser(__doc__, rounds=5)
    parser.add_argument("--patches", type=int, default=400, help="patches a round [%(default)s]")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--resampling", nargs="+", default=["lanczos-pillow", "lanczos-torch"])
    parser.add_argument("--mpp", type=float, nargs="+", default=[0.25, 0.2521], help="um/px of level 0 [%(default)s]")
    inputs.slide_option(parser)
    args = parser.parse_args()
    lines, faster, of_least, quiet = [], [], [], True
    keep_freed_memory()  # as stage one
    with tempfile.TemporaryDirectory() as folder:
        path = args.slide or make_big_slide(Path(folder) / "slide.svs", width=20_000, height=20_000)
        for resampling, mpp, threads in itertools.product(args.resampling, args.mpp, args.threads):
            reading = Reading(path, args.patches, threads, mpp, resampling)
            work = {"reader": reading.reader, "openslide": reading.openslide, "least": reading.least}
            rounds = machine.measure_rounds(work, wanted=args.rounds, patience=args.patience)
            faster.append(rounds.ratio(["openslide"], ["reader"]))
            of_least.append(rounds.ratio(["least"], ["reader"]))
            quiet &= rounds.quiet
            rates = (f"{args.patches / rounds.seconds(name):.0f}" for name in work)
            ratios = (f"{faster[-1]:.2f}", f"{of_least[-1]:.3f}")
            lines.append((resampling, f"{mpp:g}", threads, *rates, *ratios, rounds.words()))
    header = (
        "reduced by",
        "um/px",
        "threads",
        "reader",
        "OpenSlide",
        "least",
        "times OpenSlide",
        "of the least",
        "how",
    )
    print("patches a second")
    print(table(lines, header, right=range(1, 8)))
    codes = [
        machine.conclude(min(faster[-len(args.mpp) * len(args.threads) :]), at_least=FASTER, quiet=quiet),
        machine.conclude(min(of_least), at_least=OF_LEAST, quiet=quiet),
    ]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
