"""How much of a rare class `plan --sample cluster` takes, beside the uniform draw of the same number.

Labelled tiles (a table with `path` and `label`, of `evaluate`'s patches) are cut into quarters and dealt to made-up
slides. The class --rare is thinned to 3 % of all patches and lies on half of the slides. A tenth of each slide's
patches is taken: uniformly; by clusters of colour and texture; and, with --encoder, by clusters of the embeddings of
the demo's teacher, projected at random to 32 numbers. Each seed deals and draws anew. Recall is the share of the rare
patches that are taken; seen, the share of the slides with rare patches of which one is taken. 95 % intervals of
Student's t over the seeds.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import t as student_t

from pipeline.base.console import table
from pipeline.cohort.draws.by_cluster import cut_by_cluster
from pipeline.cohort.draws.descriptors import describe_patch
from pipeline.cohort.plan import AuditRow, SlidePlan
from pipeline.config.groups import Sampling
from pipeline.demo_data import convert_teacher_weights
from pipeline.sampling import sample_patches
from pipeline.slides.geometry import PatchGeometry

SEEDS = 5
RARE_SHARE = 0.03
NUM_SLIDES = 10
PROJECTED = 32
Patches = list[NDArray[np.uint8]]


def read_quarters(csv: Path) -> tuple[Patches, NDArray[np.str_]]:
    """Quarters of the tiles and their labels."""
    tiles = pd.read_csv(csv)
    patches, labels = Patches(), []
    for path, label in zip(tiles["path"], tiles["label"], strict=True):
        with Image.open(csv.parent / path) as image:
            pixels = np.asarray(image.convert("RGB"))
        side = min(pixels.shape[:2]) // 2
        patches += [pixels[y : y + side, x : x + side] for y in (0, side) for x in (0, side)]
        labels += [str(label)] * 4
    return patches, np.array(labels)


def describe_all(patches: Patches) -> NDArray[np.uint16]:
    """What `plan` describes them by."""
    return np.array([describe_patch(patch) for patch in patches])


def embed(patches: Patches) -> NDArray[np.uint16]:
    """Embeddings of the demo's teacher, projected at random."""
    import timm
    import torch
    from safetensors.torch import load_file

    model = timm.create_model("tf_efficientnet_lite2", num_classes=0).eval()
    model.load_state_dict(load_file(convert_teacher_weights()), strict=False)
    rows = []
    with torch.inference_mode():
        for start in range(0, len(patches), 64):
            pixels = torch.from_numpy(np.stack(patches[start : start + 64])).permute(0, 3, 1, 2).float()
            rows.append(model(pixels / 127.5 - 1).numpy())
    embeddings = np.concatenate(rows)
    projected = embeddings @ np.random.default_rng(0).standard_normal((embeddings.shape[1], PROJECTED))
    scaled = (projected - projected.mean(axis=0)) / projected.std(axis=0)
    return np.array(np.clip(np.rint(scaled * 3000 + 32768), 0, 65535), np.uint16)


def deal(labels: NDArray[np.str_], rare: str, seed: int) -> list[NDArray[np.int64]]:
    """Numbers of the patches of each slide."""
    random = np.random.default_rng(seed)
    is_rare = labels == rare
    common = random.permutation(np.flatnonzero(~is_rare))
    num_rare = round(len(common) * RARE_SHARE / (1 - RARE_SHARE))
    few = random.permutation(np.flatnonzero(is_rare))[:num_rare]
    halves = np.array_split(few, NUM_SLIDES // 2) + [np.zeros(0, np.int64)] * (NUM_SLIDES - NUM_SLIDES // 2)
    return [np.concatenate(pair) for pair in zip(np.array_split(common, NUM_SLIDES), halves, strict=True)]


def draw(dealt: list[NDArray[np.int64]], facts: NDArray[np.uint16] | None, seed: int) -> NDArray[np.int64]:
    """Numbers of the patches taken: by clusters of what describes them, or uniformly if that is `None`."""
    each = round(sum(map(len, dealt)) / len(dealt) / 10)
    sampling = Sampling(each, seed, 0, method="uniform" if facts is None else "cluster")
    slides, audit, looks = [], [], {}
    for number, members in enumerate(dealt):
        name = f"slide{number:02}"
        coords = np.stack([np.arange(len(members)), np.zeros(len(members), np.int64)], axis=1) * 448
        chosen = sample_patches(name, coords, sampling.num_drawn, seed)
        split, geometry = np.zeros(len(chosen), np.uint8), PatchGeometry(128, 0.5, 0.5, 0, 1.0)
        slides.append(SlidePlan(name, name, name, None, None, None, (1, 1), geometry, coords[chosen], split))
        audit.append(AuditRow(name, "ok"))
        looks[name] = np.zeros((len(chosen), 1), np.uint16) if facts is None else facts[members[chosen]]
    kept = slides if facts is None else cut_by_cluster(slides, audit, looks, sampling).slides
    return np.concatenate([d[part.coords_l0_px[:, 0] // 448] for d, part in zip(dealt, kept, strict=True)])


def interval(values: list[float]) -> str:
    """Mean and half-width of the 95 % interval."""
    half = student_t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{np.mean(values):.3f} +- {half:.3f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", type=Path, action="append", required=True, help="table of tiles; repeatable")
    parser.add_argument("--rare", action="append", required=True, help="its rare class; one for each --set")
    parser.add_argument("--encoder", action="store_true", help="also by the demo's teacher")
    args = parser.parse_args()
    lines = []
    for csv, rare in zip(args.set, args.rare, strict=True):
        patches, labels = read_quarters(csv)
        if rare not in labels:
            parser.error(f"--rare {rare}: {csv} has {', '.join(sorted(set(labels)))}")
        ways: dict[str, Callable[[Patches], NDArray[np.uint16]] | None] = {
            "uniform": None,
            "cluster, colour and texture": describe_all,
            **({"cluster, encoder": embed} if args.encoder else {}),
        }
        for way, describe in ways.items():
            facts = describe(patches) if describe else None
            recalls, seens = [], []
            for seed in range(SEEDS):
                dealt = deal(labels, rare, seed)
                taken = draw(dealt, facts, seed)
                of_rare = [members[labels[members] == rare] for members in dealt]
                whole = np.concatenate(of_rare)
                recalls.append(float(np.isin(whole, taken).mean()))
                seens.append(float(np.mean([np.isin(some, taken).any() for some in of_rare if len(some)])))
            number = f"{len(taken):,} of {sum(map(len, dealt)):,}"
            lines.append((f"{csv.parent.name} {csv.stem}: {rare}", number, way, interval(recalls), interval(seens)))
    print(table(lines, ("set and rare class", "taken", "draw", "recall of the rare class", "slides seen")))


if __name__ == "__main__":
    main()
