"""How far apart `plan --sample spread` puts patches, how much of the rim it takes, and how long it needs, beside the
uniform draw and greedy farthest points.

Made-up tissue of several pieces on a grid, by smoothed noise; 40 seeds. Distances are in patches: the least between two
that were taken, and the greatest from any patch to one that was taken. The rim is what lies beside a place without
tissue. Time is of the largest slide, measured in turn.
"""

from statistics import median

import machine
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, gaussian_filter
from scipy.spatial import cKDTree

from pipeline.base.console import table
from pipeline.cohort.draws.spread import spread_patches
from pipeline.sampling import patch_keys, sample_patches

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


def main() -> int:
    """Measure and print."""
    parser = machine.parser(__doc__, rounds=5)
    args = parser.parse_args()
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
