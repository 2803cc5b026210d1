"""What reading a patch of whole pixels does to its embedding, as TRIDENT and slide2vec do, against `g2l embed`.

    python benchmarks/whole_pixels.py MODEL SLIDE --patch-px 224 [--mpp 0.5] [--patches 200]

`embed` reads the patch's true side and reduces it by Pillow's Lanczos filter. TRIDENT reads
`round(patch_px * magnification / target)` level-0 pixels, turns them into whole pixels of the level, and resizes by
Pillow's bicubic filter (`WSIPatcher`, read in 2026-11); slide2vec does the same by OpenCV's area filter. Each line
changes one thing: the side, the filter, or both; the ratio is the side's share of what the median loses with both.
Written after the arithmetic; nothing of TRIDENT runs here.
"""

import argparse
from pathlib import Path

import numpy as np
import openslide
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline.config.plan import PlanConfig
from pipeline.config.tools import EmbedConfig
from pipeline.slides.geometry import PatchGeometry, region_box
from pipeline.slides.reader import Slide
from pipeline.slides.tissue_grid import lay_grid
from stages.embed_inputs import find_model

NOTHING = 1e-6
"""Loss of cosine that is rounding."""
FILTERS = {"lanczos": Image.Resampling.LANCZOS, "bicubic": Image.Resampling.BICUBIC}


def true_side(slide: openslide.OpenSlide, x: int, y: int, geometry: PatchGeometry, name: str) -> NDArray[np.uint8]:
    """A patch (P, P, 3) of its true side, reduced by a filter."""
    box = region_box(x, y, geometry)
    left, top = (round(value * geometry.downsample) for value in box.corner_level_px)
    region = slide.read_region((left, top), geometry.level, box.size_level_px).convert("RGB")
    size = (geometry.patch_px, geometry.patch_px)
    return np.asarray(region.resize(size, FILTERS[name], box=box.box_level_px))


def whole_side(slide: openslide.OpenSlide, x: int, y: int, geometry: PatchGeometry, name: str) -> NDArray[np.uint8]:
    """A patch (P, P, 3) of whole pixels of level 0 and of the level, resized by a filter where its side differs."""
    side_l0_px = round(geometry.patch_px * geometry.target_mpp / geometry.slide_mpp)
    side = round(side_l0_px / int(geometry.downsample))
    region = slide.read_region((x, y), geometry.level, (side, side)).convert("RGB")
    return np.asarray(region.resize((geometry.patch_px, geometry.patch_px), FILTERS[name]))


def cosines(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of the rows of two arrays (N, D)."""
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.asarray((first * second).sum(1) / lengths, np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="as `g2l embed` names it: a student's folder, a run, ENCODER@WEIGHTS")
    parser.add_argument("slide", type=Path)
    parser.add_argument("--mpp", type=float, default=0.5)
    parser.add_argument("--patches", type=int, default=200)
    parser.add_argument("--patch-px", type=int, default=224)
    options = parser.parse_args()

    config = EmbedConfig.build({"layout": "pt", "patch_px": options.patch_px, "mpp": options.mpp})
    encoder = find_model(options.model, config).build().module
    read = Slide(options.slide)
    laid = lay_grid(read, PlanConfig.build({"patch_px": options.patch_px, "mpp": options.mpp}).grid)
    geometry = laid.geometry
    chosen = np.linspace(0, len(laid.coords_l0_px) - 1, min(options.patches, len(laid.coords_l0_px))).astype(int)
    coords = laid.coords_l0_px[chosen].tolist()
    ours = np.stack([read.read_patch(x, y, geometry) for x, y in coords])
    print(
        f"{len(coords)} patches of {geometry.patch_l0_px:.3f} px of level 0, {geometry.patch_level_px:.3f} of the level"
    )
    with openslide.OpenSlide(options.slide) as slide, torch.inference_mode():
        expected = encoder(torch.from_numpy(ours)).numpy()
        lost = {}
        for how in (true_side, whole_side):
            for name in FILTERS:
                pixels = np.stack([how(slide, x, y, geometry, name) for x, y in coords])
                same = cosines(encoder(torch.from_numpy(pixels)).numpy(), expected)
                lost[how, name] = 1 - float(np.median(same))
                pixel = np.abs(pixels.astype(int) - ours).mean()
                print(
                    f"{how.__name__.replace('_', ' ')}, {name}: cosine {same.min():.6f} at least, "
                    f"{np.median(same):.6f} in the median; {pixel:.2f} grey levels a pixel"
                )
    whole = lost[whole_side, "bicubic"]
    if whole > NOTHING:
        print(f"ratio: {lost[whole_side, 'lanczos'] / whole:.3f}")
    else:
        print("ratio: none, the two agree")


if __name__ == "__main__":
    main()
