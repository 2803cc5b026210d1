"""Is a student that learnt from half the patches, chosen by clusters, as good as one that learnt from all of uniform?

Tiles of images (a table with path, mask, image, case_id, x, y; masks are above 0 where the class is, such as GlaS with
its glands) are put together again into one TIFF an image, as in docs/ablation.md. Patients are dealt into two halves;
a student learns from one, and is scored on the other, both ways. It is `test_vit` from random weights, the teacher is
EfficientNet-Lite2 with its ImageNet weights, also where an encoder chooses. Plan, stage one, training and the linear
probe (classes and folds of `g2l evaluate --patches`) are the commands' own code.

Scored are patches of the held-out patients: class (65 % of the patch or more) or background (25 % or less), told apart
by a linear probe that is fitted on other held-out patients. All arms take equally many steps, but for less than an
epoch. Intervals are over seeds and patients, differences are paired.
"""

import argparse
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from inputs import DEVICE, silence
from numpy.typing import NDArray
from PIL import Image
from resampled import in_words, share_draws

from pipeline.base.console import table
from pipeline.base.loader import one_by_one
from pipeline.cohort.manifest.read import read_manifest
from pipeline.config.plan import PlanConfig
from pipeline.config.stages import ExtractConfig, TrainConfig
from pipeline.demo_data import TEACHER_MODEL, convert_teacher_weights
from pipeline.encoders.embed import embed_rows
from pipeline.evaluate.images import read_image
from pipeline.evaluate.patch_benchmark.benchmark import PatchBenchmark
from pipeline.evaluate.patch_benchmark.options import PatchOptions
from pipeline.evaluate.probes.linear_probe import linear_probe
from pipeline.student.resolve import name_model
from stages.extract_teacher import extract_teacher
from stages.plan import plan_slides
from stages.train_student import train_student

MPP, TILE_PX, PATCH_PX = 0.62, 256, 64
OF_ALL = 32
"""Patches of an image in "all"; half of it is a quarter of what clusters choose from."""
BATCH = 64
CLASS_SHARE, BACKGROUND_SHARE = 0.65, 0.25
ARMS: Mapping[str, dict[str, object]] = {
    "uniform, all": {"patches_per_slide": OF_ALL},
    "uniform, half": {"patches_per_slide": OF_ALL // 2},
    "cluster, half, colour and texture": {"patches_per_slide": OF_ALL // 2, "sample": "cluster"},
    "cluster, half, encoder": {"patches_per_slide": OF_ALL // 2, "sample": "cluster", "sampler_encoder": ""},
}


@dataclass(frozen=True)
class Half:
    """Patients: the manifest of their images, and the table of their labelled patches."""

    manifest: Path
    patches: Path


def write_half(tiles: pd.DataFrame, root: Path, folder: Path) -> Half:
    """Write images as TIFF and their labelled patches, 2 x PATCH_PX of the image reduced to PATCH_PX, as PNG."""
    folder.mkdir()
    slides, patches, side = [], [], 2 * PATCH_PX
    for image, part in tiles.groupby("image", sort=True):
        left, top = int(part["x"].min()), int(part["y"].min())
        size = (int(part["y"].max()) - top + TILE_PX, int(part["x"].max()) - left + TILE_PX)
        pixels, mask = np.full((*size, 3), 255, np.uint8), np.zeros(size, bool)
        for tile in part.itertuples():
            box = np.s_[tile.y - top : tile.y - top + TILE_PX, tile.x - left : tile.x - left + TILE_PX]
            pixels[box] = np.asarray(Image.open(root / str(tile.path)).convert("RGB"))
            mask[box] = np.asarray(Image.open(root / str(tile.mask))) > 0
        case = str(part["case_id"].iloc[0])
        tifffile.imwrite(
            folder / f"{image}.tif",
            pixels,
            tile=(TILE_PX, TILE_PX),
            photometric="rgb",
            compression="deflate",
            resolution=(1e4 / MPP, 1e4 / MPP),
            resolutionunit="CENTIMETER",
        )
        slides.append((image, f"{image}.tif", case))
        for y in range(0, size[0] - side + 1, side):
            for x in range(0, size[1] - side + 1, side):
                share = mask[y : y + side, x : x + side].mean()
                if BACKGROUND_SHARE < share < CLASS_SHARE:
                    continue
                name = f"{image}_{y}_{x}.png"
                patch = Image.fromarray(pixels[y : y + side, x : x + side])
                patch.resize((PATCH_PX, PATCH_PX), Image.Resampling.LANCZOS).save(folder / name)
                patches.append((name, "class" if share >= CLASS_SHARE else "background", case))
    half = Half(folder / "manifest.csv", folder / "patches.csv")
    pd.DataFrame(slides, columns=["slide_id", "path", "case_id"]).to_csv(half.manifest, index=False)
    pd.DataFrame(patches, columns=["path", "label", "group"]).to_csv(half.patches, index=False)
    return half


def write_halves(tiles: Path, folder: Path) -> list[Half]:
    """Deal the patients of a table of tiles into two halves: the one with most tiles first, in turn."""
    listed = pd.read_csv(tiles)
    cases = [str(case) for case in listed["case_id"].value_counts(sort=True).index]
    halves = (listed[listed["case_id"].isin(cases[number::2])] for number in range(2))
    return [write_half(half, tiles.parent, folder / f"half{number}") for number, half in enumerate(halves)]


def train(arm: Mapping[str, object], half: Half, seed: int, steps: int, weights: Path, out: Path) -> str:
    """A student of one arm; returns what was taken, in words."""
    options: dict[str, object] = {"patch_px": PATCH_PX, "stride_px": PATCH_PX // 2, "mpp": 2 * MPP, "min_tissue": 0.3}
    options |= {"val_fraction": 0, "seed": seed, "resampling": "lanczos-pillow", "device": "cpu", **arm}
    if "sampler_encoder" in arm:
        options["sampler_encoder"] = f"{TEACHER_MODEL}@{weights}"
    plan = plan_slides(read_manifest(half.manifest), PlanConfig.build(options), workers=1)
    extract = {"teacher": TEACHER_MODEL, "weights": weights, "device": "cpu", "workers": 1, "preflight": False}
    store = extract_teacher(plan, out / "store.zarr", ExtractConfig.build(extract)).store
    epochs = max(round(steps / (plan.num_rows // BATCH)), 1)
    values = {"student": "test_vit", "weights": "scratch", "epochs": epochs, "batch_size": BATCH, "lr": 2e-3}
    values |= {"seed": seed, "device": "cpu", "workers": 1}
    trained = train_student(store, out / "run", TrainConfig.build(values), estimate=False)
    return f"{plan.num_rows} patches, {trained.step} steps"


def right_by_group(model: str, half: Half, groups: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of the half's labelled patches how many a probe on this model's embeddings gets right, and how many there are,
    each (2, G), by class and patient.
    """
    bench = PatchBenchmark.look(PatchOptions(patches=half.patches, folds=4), 1)
    built = name_model(model, PATCH_PX).build()
    paths = bench.bench.patch_set.paths

    def read(row: int, out: NDArray[np.uint8]) -> None:
        read_image(paths[row], out)

    embeddings = embed_rows(
        built.module,
        one_by_one(read),
        range(len(paths)),
        patch_px=PATCH_PX,
        batch_size=BATCH,
        workers=1,
        device=DEVICE,
        precision="float32",
        what="probing",
    )
    task = bench.bench.task
    right = linear_probe(embeddings, task).probabilities.argmax(1) == task.truth
    hits, counts = np.zeros((2, len(groups))), np.zeros((2, len(groups)))
    for row in task.scored:
        place = int(task.truth[row]), groups.index(str(bench.bench.groups[row]))
        hits[place] += right[row]
        counts[place] += 1
    return hits, counts


def main() -> None:
    """Train, score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=Path, required=True, help="table of tiles with masks, such as GlaS's tiles.csv")
    parser.add_argument("--seeds", type=int, default=5, help="of draw and training [5]")
    parser.add_argument("--steps", type=int, default=220, help=f"of training, {BATCH} patches each [220]")
    args = parser.parse_args()
    weights, groups = convert_teacher_weights(), sorted(pd.read_csv(args.tiles)["case_id"].astype(str).unique())
    models = [*ARMS, "untrained student", "teacher"]
    hits = {name: np.zeros((args.seeds, 2, len(groups))) for name in models}
    counts, words = np.zeros((args.seeds, 2, len(groups))), dict[str, set[str]]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        halves = write_halves(args.tiles, folder)
        for seed in range(args.seeds):
            for number, (learnt, held_out) in enumerate([halves, halves[::-1]]):
                for arm, options in ARMS.items():
                    out = folder / f"{seed}-{number}-{list(ARMS).index(arm)}"
                    out.mkdir()
                    with silence():
                        words.setdefault(arm, set()).add(train(options, learnt, seed, args.steps, weights, out))
                        right, of = right_by_group(str(out / "run"), held_out, groups)
                        before = right_by_group(str(out / "run@before"), held_out, groups)[0]
                    hits[arm][seed] += right
                    if arm == next(iter(ARMS)):
                        counts[seed] += of
                        hits["untrained student"][seed] += before
                        hits["teacher"][seed] += right_by_group(f"{TEACHER_MODEL}@{weights}", held_out, groups)[0]
                    shutil.rmtree(out)
                    print(f"seed {seed}, half {number}, {arm}: {(right.sum(1) / of.sum(1)).mean():.3f}", flush=True)
    draws = {name: share_draws(hits[name], counts) for name in models}
    whole, half = (draws[name] for name in list(ARMS)[:2])
    rows = [
        (
            name,
            "; ".join(sorted(words.get(name, ()))),
            in_words(draws[name]),
            "" if draws[name] is whole else in_words(draws[name] - whole, signed=True),
            "" if draws[name] is half else in_words(draws[name] - half, signed=True),
        )
        for name in models
    ]
    print(table(rows, ("student", "learnt from", "balanced accuracy", "less uniform, all", "less uniform, half")))


if __name__ == "__main__":
    main()
