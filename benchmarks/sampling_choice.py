"""How much of a rare class `plan --sample cluster` takes, beside the uniform draw of the same number.

Tiles with masks (a table with path, mask, image, x, y and perhaps case_id) are cut into quarters; an image is a slide,
its case_id the case, and a quarter is of a class by its mask. The class --rare is thinned to 3 % of all patches, which
stay in the slides they are from; slides that are mostly of it are left out, as thinning would leave nothing of them.
A tenth of each slide's patches is taken: uniformly; by clusters of colour and
texture; and by clusters of what `--sampler-encoder` describes patches by, with the demo's teacher. The draws are the
command's own code; only slides and their tissue are not read. Each seed thins and draws anew.

Recall is the share of the rare patches that are taken; seen, the share of the slides with rare patches of which one is
taken. Intervals are over seeds and cases (slides where cases are not known), differences are paired.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from resampled import Floats, in_words, share_draws

from pipeline.base.console import table
from pipeline.base.loader import one_by_one
from pipeline.cohort.audit import AuditRow
from pipeline.cohort.draws.by_cluster import cut_by_cluster
from pipeline.cohort.draws.descriptors import describe_patch
from pipeline.cohort.plan import SlidePlan
from pipeline.config.groups import Sampling
from pipeline.demo_data import TEACHER_MODEL, convert_teacher_weights
from pipeline.encoders.build import build_encoder
from pipeline.sampling import sample_patches
from pipeline.slides.geometry import PatchGeometry
from stages.planning.sampler import encoder_sampler

RARE_SHARE = 0.03
TAKEN_SHARE = 0.1
SIDE = 128
Facts = NDArray[np.uint16]
CLASSES: dict[str, Callable[[NDArray[np.uint8]], bool]] = {
    "gland": lambda mask: bool((mask > 0).mean() >= 0.65),
    "no gland": lambda mask: not mask.any(),
    "inflammatory": lambda mask: _mostly(mask, 2),
    "epithelial": lambda mask: _mostly(mask, 3),
    "spindle-shaped": lambda mask: _mostly(mask, 4),
}
"""Whether a quarter is of a class, by its mask; of nuclei, whether 5 % of it are nuclei and most of these of one."""


def _mostly(mask: NDArray[np.uint8], kind: int) -> bool:
    nuclei = (mask > 0).mean()
    return bool(nuclei >= 0.05 and (mask == kind).mean() >= 0.7 * nuclei)


@dataclass(frozen=True)
class Quarters:
    """Quarters of the tiles of a set: pixels (N, SIDE, SIDE, 3), masks (N, SIDE, SIDE), slide and case of each (N,)."""

    pixels: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    slides: NDArray[np.str_]
    cases: NDArray[np.str_]


def read_quarters(csv: Path) -> Quarters:
    """The quarters of all tiles but those that overlap others."""
    tiles = pd.read_csv(csv)
    if "overlap" in tiles:
        tiles = tiles[tiles["overlap"] == "no"]
    pixels, masks, slides, cases = [], [], [], []
    for tile in tiles.to_dict("records"):
        whole = np.asarray(Image.open(csv.parent / tile["path"]).convert("RGB"))
        mask = np.asarray(Image.open(csv.parent / tile["mask"]))
        for y, x in ((0, 0), (0, SIDE), (SIDE, 0), (SIDE, SIDE)):
            pixels.append(whole[y : y + SIDE, x : x + SIDE])
            masks.append(np.minimum(mask[y : y + SIDE, x : x + SIDE], 255).astype(np.uint8))
            slides.append(str(tile["image"]))
            cases.append(str(tile.get("case_id", tile["image"])))
    return Quarters(np.stack(pixels), np.stack(masks), np.array(slides), np.array(cases))


def by_encoder(pixels: NDArray[np.uint8]) -> Facts:
    """What `--sampler-encoder` describes them by; the weights are loaded strictly, as the command loads them."""
    sampler = encoder_sampler(
        build_encoder(TEACHER_MODEL, convert_teacher_weights(), SIDE), SIDE, torch.device("cpu"), 1
    )

    def read(row: int, out: NDArray[np.uint8]) -> bool:
        out[:] = pixels[row]
        return True

    return sampler.embed(one_by_one(read), len(pixels), lambda _: None)[0]


def thin(slides: NDArray[np.str_], is_rare: NDArray[np.bool_], seed: int) -> NDArray[np.int64]:
    """Patches that are there, ascending: of slides of which less than half is rare, all but most of the rare ones, so
    that these are 3 % of all.
    """
    names, of_slide = np.unique(slides, return_inverse=True)
    rarely = (np.bincount(of_slide[is_rare], minlength=len(names)) < np.bincount(of_slide) / 2)[of_slide]
    few, common = np.flatnonzero(is_rare & rarely), np.flatnonzero(~is_rare & rarely)
    num = min(round(len(common) * RARE_SHARE / (1 - RARE_SHARE)), len(few))
    return np.sort(np.concatenate([common, np.random.default_rng(seed).permutation(few)[:num]]))


def draw(there: NDArray[np.int64], quarters: Quarters, facts: Facts | None, seed: int) -> NDArray[np.int64]:
    """Numbers of the patches taken: by clusters of what describes them, or uniformly if that is `None`."""
    names = np.unique(quarters.slides[there])
    each = round(len(there) / len(names) * TAKEN_SHARE)
    sampling = Sampling(each, seed, 0, method="uniform" if facts is None else "cluster")
    slides, audit, looks = [], [], {}
    for name in names.tolist():
        members = there[quarters.slides[there] == name]
        coords = np.stack([members, np.zeros_like(members)], axis=1) * SIDE  # so that they say which patch it is
        taken = sample_patches(name, coords, sampling.num_drawn, seed)
        split, geometry = np.zeros(len(taken), np.uint8), PatchGeometry(SIDE, 0.5, 0.5, 0, 1.0)
        case = str(quarters.cases[members[0]])
        slides.append(SlidePlan(name, name, case, None, None, None, (1, 1), geometry, coords[taken], split))
        audit.append(AuditRow(name, "ok"))
        looks[name] = np.zeros((len(taken), 1), np.uint16) if facts is None else facts[members[taken]]
    kept = slides if facts is None else cut_by_cluster(slides, audit, looks, sampling).slides
    return np.concatenate([part.coords_l0_px[:, 0] // SIDE for part in kept])


def measure(quarters: Quarters, is_rare: NDArray[np.bool_], facts: Facts | None, seeds: int) -> tuple[Floats, ...]:
    """Of each seed and case (S, 1, G): rare patches taken and there are, slides seen and with rare patches; and how
    many patches were taken and are there, in the last seed (2,).
    """
    cases, of_case = np.unique(quarters.cases, return_inverse=True)
    sums = np.zeros((4, seeds, 1, len(cases)))
    for seed in range(seeds):
        there = thin(quarters.slides, is_rare, seed)
        taken = draw(there, quarters, facts, seed)
        rare, hit = there[is_rare[there]], taken[is_rare[taken]]
        for index, rows in enumerate((hit, rare)):
            sums[index, seed, 0] = np.bincount(of_case[rows], minlength=len(cases))
            firsts = rows[np.unique(quarters.slides[rows], return_index=True)[1]]
            sums[2 + index, seed, 0] = np.bincount(of_case[firsts], minlength=len(cases))
    return (*sums, np.array([len(taken), len(there)]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, action="append", required=True, help="table of tiles; repeatable")
    parser.add_argument(
        "--rare", action="append", required=True, choices=CLASSES, help="its rare class; one for each --set"
    )
    parser.add_argument("--seeds", type=int, default=5, help="of thinning and draw [5]")
    args = parser.parse_args()
    lines, described = [], dict[Path, tuple[Quarters, dict[str, Facts | None]]]()
    for csv, rare in zip(args.set, args.rare, strict=True):
        if csv not in described:
            quarters = read_quarters(csv)
            colour = np.array([describe_patch(patch) for patch in quarters.pixels])
            ways = {"uniform": None, "cluster": colour, "cluster, encoder": by_encoder(quarters.pixels)}
            described[csv] = quarters, ways
        quarters, ways = described[csv]
        is_rare = np.array([CLASSES[rare](mask) for mask in quarters.masks])
        uniform: list[Floats] = []
        for way, facts in ways.items():
            hit, of, seen, of_slides, number = measure(quarters, is_rare, facts, args.seeds)
            draws = [share_draws(hit, of), share_draws(seen, of_slides)]
            uniform = uniform or draws
            less = [
                "" if way == "uniform" else in_words(d - u, signed=True) for d, u in zip(draws, uniform, strict=True)
            ]
            what = f"{csv.parent.name}: {rare}, {of.sum() / args.seeds:.0f} in {(of.sum((0, 1)) > 0).sum()} cases"
            cells = (in_words(draws[0]), less[0], in_words(draws[1]), less[1])
            lines.append((what, f"{number[0]:,} of {number[1]:,}", way, *cells))
    header = ("set and rare class", "taken", "draw", "recall", "less uniform", "slides seen", "less uniform")
    print(table(lines, header))


if __name__ == "__main__":
    main()
