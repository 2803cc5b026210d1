"""How far apart `plan --sample spread` puts patches, how much of the rim it takes, and how long it needs, beside the
uniform draw and greedy farthest points.

Made-up tissue of several pieces on a grid, by smoothed noise; 40 seeds. Distances are in patches: the least between two
that were taken, and the greatest from any patch to one that was taken. The rim is what lies beside a place without
tissue. Time is of the largest slide, measured in turn.

With --picture FILE it draws docs/images/sampling.png instead: 100 patches of the demo's slide by each draw, small ones,
so that the slide has enough of them.
"""

from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import machine
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_erosion, gaussian_filter
from scipy.spatial import cKDTree

from pipeline.base.console import table
from pipeline.cohort.draws.spread import spread_patches
from pipeline.cohort.manifest import ManifestRow, read_manifest, write_manifest
from pipeline.config.plan import PlanConfig
from pipeline.demo_data import fetch_slide
from pipeline.sampling import patch_keys, sample_patches
from stages.plan import plan_slides

STRIDE = 448
SEEDS = 40
NEEDED = 5
"""Our choice: else the draw known best would do."""
CASES = ((1000, 100), (5000, 100), (5000, 1000), (50_000, 100), (50_000, 1000))
"""Patches of the slide, and how many are taken."""


def made_up(num: int, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """About `num` patches, an eighth of the slide or more, and which of them are at the rim."""
    side = round((2.2 * num) ** 0.5)
    field = gaussian_filter(np.random.default_rng(seed).standard_normal((side, side)), side / 20)
    tissue = field > np.quantile(field, 1 - num / side**2)
    y, x = np.nonzero(tissue)
    return np.stack([x, y], axis=1) * STRIDE, ~binary_erosion(tissue)[y, x]


def farthest_patches(slide_id: str, coords: NDArray[np.int64], num: int, seed: int) -> NDArray[np.int64]:
    """Greedy farthest points: each patch is the farthest from those before, of equally far ones that of the smallest
    key.
    """
    ranks = np.argsort(np.argsort(patch_keys(slide_id, coords, seed), kind="stable"))
    nearest, taken = np.full(len(coords), np.iinfo(np.int64).max), []
    for _ in range(num):
        ties = np.flatnonzero(nearest == nearest.max())
        taken.append(ties[np.argmin(ranks[ties])])
        nearest = np.minimum(nearest, ((coords - coords[taken[-1]]) ** 2).sum(axis=1))
    return np.sort(np.array(taken))


DRAWS = {"uniform": sample_patches, "spread": spread_patches, "farthest points": farthest_patches}


def qualities(num: int, taken: int) -> list[tuple[str, ...]]:
    """A line a draw: medians over the seeds."""
    lines = list[tuple[str, ...]]()
    for name, draw in DRAWS.items():
        few = name == "farthest points"  # it is slow, and its seed decides little but the first patch
        found = []
        for seed in range(3 if few else SEEDS):
            coords, rim = made_up(num, seed % 4)
            sample = coords[chosen := draw("slide", coords, taken, seed)] / STRIDE
            tree = cKDTree(sample)
            least, reach = tree.query(sample, k=2)[0][:, 1].min(), tree.query(coords / STRIDE)[0].max()
            found.append((least, reach, rim[chosen].mean() / rim.mean()))
        apart, reach, rims = (median(values) for values in zip(*found, strict=True))
        lines.append((f"{taken:,} of {num:,}", name, f"{apart:.1f}", f"{reach:.1f}", f"{rims:.2f}"))
    return lines


def draw_picture(path: Path) -> None:
    """Overlays of both draws, side by side."""
    slide, pictures = fetch_slide(), []
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_manifest(folder / "m.csv", [ManifestRow("demo", slide.name, "demo")])
        manifest = read_manifest(folder / "m.csv", slide.parent)
        for sample in ("uniform", "spread"):
            options = {"patch_px": 48, "patches_per_slide": 100, "val_fraction": 0, "sample": sample}
            plan_slides(manifest, PlanConfig.build(options), workers=1, overlays=folder / sample)
            with Image.open(folder / sample / "demo.png") as picture:
                pictures.append(picture.convert("RGB"))
    width, height = pictures[0].size
    both = Image.new("RGB", (2 * width + 20, height), "white")
    for place, drawn in enumerate(pictures):
        both.paste(drawn, (place * (width + 20), 0))
    both.thumbnail((1600, 1600))
    both.quantize(128).save(path, optimize=True)


def main() -> int:
    """Measure and print."""
    parser = machine.parser(__doc__, rounds=5)
    parser.add_argument("--picture", type=Path, help="draw this picture, and measure nothing")
    args = parser.parse_args()
    if args.picture:
        draw_picture(args.picture)
        return 0
    lines = [line for num, taken in CASES for line in qualities(num, taken)]
    header = ("taken", "draw", "least between two", "farthest from one", "rim against by chance")
    print(table(lines, header, right=[2, 3, 4]))
    coords, _ = made_up(50_000)
    parts = {name: lambda draw=draw: draw("slide", coords, 1000, 0) for name, draw in DRAWS.items()}
    rounds = machine.measure_rounds(parts, wanted=args.rounds, patience=args.patience)
    print(table([(name, f"{rounds.seconds(name):.4f}") for name in parts], ("1,000 of 50,000", "s"), right=[1]))
    print(rounds.words())
    ratio = rounds.ratio(["farthest points"], ["spread"])
    return machine.conclude(ratio, at_least=NEEDED, quiet=rounds.quiet)


if __name__ == "__main__":
    raise SystemExit(main())
