"""What `plan --decode half` gives and costs: patches a second of the slide reader, and the embeddings' cosine.

Speed: the same patches of a synthesised slide (256-pixel JPEG tiles, 4:2:0, 0.25 um/px; patches 224 px at 0.5) are read
in the same process, in turn, with tiles decoded in full and at half their size; torch reduces. The second um/px gives
fractional boxes.
Cosine: patches of the demo's real slide (0.499 um/px, patches 224 px at 1 um/px, every quarter patch) are embedded by
the demo's teacher, an EfficientNet-Lite2 of ImageNet, from both readings. Beside it stands what else changes the pixels
a little: Pillow in place of torch, and a shift by one pixel of level 0.
"""

import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path

import inputs
import machine
import numpy as np
import torch
from numpy.typing import NDArray
from support.slides import make_big_slide  # of the tests; `inputs` sets the path

from pipeline.base.console import table
from pipeline.cohort.manifest.rows import Manifest, ManifestRow
from pipeline.cohort.plan import SlidePlan
from pipeline.config.plan import PlanConfig
from pipeline.demo_data import TEACHER_MODEL, convert_teacher_weights, fetch_slide
from pipeline.encoders.build import build_encoder
from pipeline.slides.direct.tile_cache import TileCache
from pipeline.slides.geometry import PatchGeometry
from pipeline.slides.reader import Slide
from stages.plan import plan_slides

FASTER = 1.5
"""Times the reader's speed with tiles decoded in full that half must reach on one thread."""
ROWS_PER_TASK = 8
"""Of `base.loader`."""
BATCH = 32

Coords = list[list[int]]


def plan_half(path: Path, slide_mpp: float | None, **options: float) -> SlidePlan:
    """The slide's part of a plan at half, of all its patches on tissue."""
    row = ManifestRow(
        slide_id="slide",
        path=path.name,
        case_id="case",
        mpp=slide_mpp,
        mpp_overrides=None if slide_mpp is None else "yes",
    )
    config = PlanConfig.build({"patches_per_slide": 10**9, "val_fraction": 0, "decode": "half"} | options)
    (planned,) = plan_slides(Manifest((row,), path.parent / "manifest.csv", path.parent), config, workers=1).slides
    assert planned.geometry.decode == "half"
    return planned


def in_full(geometry: PatchGeometry) -> PatchGeometry:
    """The same patches of tiles decoded in full."""
    return replace(geometry, decode="full").reduced_by("lanczos-torch")


def read_all(path: Path, mpp: float, coords: Coords, geometry: PatchGeometry, threads: int) -> None:
    """Read patches as stage one does, with a fresh cache."""
    slide = Slide(path, mpp, mpp_overrides=True, cache=TileCache())

    def some(start: int) -> None:
        for x, y in coords[start : start + ROWS_PER_TASK]:
            slide.read_patch(x, y, geometry)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(some, range(0, len(coords), ROWS_PER_TASK)))


def embed_patches(patches: list[NDArray[np.uint8]], encode: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Unit embeddings: float32 (N, D)."""
    batches = [torch.from_numpy(np.stack(patches[at : at + BATCH])) for at in range(0, len(patches), BATCH)]
    with torch.inference_mode():
        return torch.nn.functional.normalize(torch.cat([encode(batch) for batch in batches]), dim=1)


def measure_cosines(stride_px: int) -> list[tuple[str, ...]]:
    """Cosine with the embeddings of full decoding reduced by torch: median, first percentile and least."""
    path = fetch_slide()
    planned = plan_half(path, None, mpp=1.0, patch_px=inputs.PATCH_PX, stride_px=stride_px)
    slide, half, full = Slide(path), planned.geometry, in_full(planned.geometry)
    encoder = build_encoder(TEACHER_MODEL, convert_teacher_weights(), inputs.PATCH_PX)
    module = encoder.module.eval()
    right = slide.info.size_l0_px[0] - full.patch_l0_px
    coords = [(x, y) for x, y in planned.coords_l0_px.tolist() if x + 1 <= right]

    def embed(geometry: PatchGeometry, shift: int = 0) -> torch.Tensor:
        return embed_patches([slide.read_patch(x + shift, y, geometry) for x, y in coords], module)

    reference, lines = embed(full), []
    for name, others in (
        ("half", embed(half)),
        ("full, reduced by Pillow", embed(full.reduced_by("lanczos-pillow"))),
        ("full, one pixel to the right", embed(full, 1)),
    ):
        cosines = (reference * others).sum(dim=1).numpy()
        values = (np.median(cosines), np.quantile(cosines, 0.01), cosines.min())
        lines.append((name, *(f"{value:.4f}" for value in values)))
    print(f"{len(coords)} patches of the demo's slide, {TEACHER_MODEL}: cosine with full decoding")
    return lines


def main() -> int:
    """Measure and print."""
    parser = machine.parser(__doc__, rounds=5)
    parser.add_argument("--patches", type=int, default=400, help="patches a round [%(default)s]")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--mpp", type=float, nargs="+", default=[0.25, 0.2467], help="um/px of level 0 [%(default)s]")
    parser.add_argument("--stride-px", type=int, default=56, help="between patches to embed [%(default)s]")
    args = parser.parse_args()
    lines, faster, quiet = [], [], True
    with tempfile.TemporaryDirectory() as folder:
        path = make_big_slide(Path(folder) / "slide.svs", width=20_000, height=20_000)
        for mpp, threads in product(args.mpp, args.threads):
            planned = plan_half(path, mpp, patch_px=inputs.PATCH_PX)
            coords, geometry = planned.coords_l0_px[: args.patches].tolist(), planned.geometry
            work = {
                name: lambda of=of, coords=coords, mpp=mpp, threads=threads: read_all(path, mpp, coords, of, threads)
                for name, of in (("half", geometry), ("full", in_full(geometry)))
            }
            rounds = machine.measure_rounds(work, wanted=args.rounds, patience=args.patience)
            faster.append(rounds.ratio(["full"], ["half"]))
            quiet &= rounds.quiet
            rates = (f"{len(coords) / rounds.seconds(name):.0f}" for name in work)
            lines.append((f"{mpp:g}", threads, *rates, f"{faster[-1]:.2f}", rounds.words()))
    print("patches a second")
    print(table(lines, ("um/px", "threads", "half", "full", "times full", "how"), right=range(5)))
    print(table(measure_cosines(args.stride_px), ("decoded", "median", "1 %", "least"), right=range(1, 4)))
    return machine.conclude(min(faster), at_least=FASTER, quiet=quiet)


if __name__ == "__main__":
    sys.exit(main())
