"""What `extract-teacher --patch-qc` finds and costs, on real patches of the demo's slide with planted faults.

Planted, each on every clean patch: blur (Gaussian, and reduced and enlarged again), pen of four inks in a stroke across
the patch, and further layers of tissue in a band, slightly out of focus. Colours of inks and layers are added as
optical densities, with noise of one grey level. Clean patches are those without any real pen: the slide's margins are
inked, and patches with green ink (red much more absorbed than green) are set aside first, by a rule that shares no code
with the checks. A patch counts as dropped whatever the reason. Strokes are drawn `--draws` times on each patch.
Cost: checks and hash of a patch against reading and encoding it (lossless), in turn within a round, one thread.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import artefacts
import inputs
import machine
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from pipeline.base.console import table
from pipeline.base.images import encode_image
from pipeline.cohort.manifest.rows import Manifest, ManifestRow
from pipeline.cohort.plan import SlidePlan
from pipeline.config.plan import PlanConfig
from pipeline.demo_data import fetch_slide
from pipeline.slides.artefacts.patch_checks import build_reference, check_patch, measure_patch
from pipeline.slides.artefacts.patch_qc import REFERENCE_PATCHES, PatchChecks
from pipeline.slides.reader import Slide
from stages.plan import plan_slides

MPP = 0.5
INKS = {"black": (1.3, 1.3, 1.25), "blue": (1.5, 0.9, 0.25), "green": (1.4, 0.5, 0.8), "red": (0.1, 1.2, 1.0)}
"""Densities of red, green and blue of a full stroke. Our choice, of ink that we inspected."""
MOST_MS = 0.3
"""Milliseconds a patch that its checks may take. Our choice: a tenth of what a slide at 0.25 um/px takes to read."""

Rgb = NDArray[np.uint8]
Values = NDArray[np.float64]


def plan_slide(path: Path, stride_px: int) -> SlidePlan:
    """The slide's part of a plan of all its patches on tissue."""
    row = ManifestRow(slide_id="slide", path=path.name, case_id="case")
    options = {"patches_per_slide": 10**9, "val_fraction": 0, "mpp": MPP, "patch_px": inputs.PATCH_PX}
    config = PlanConfig.build(options | {"stride_px": stride_px})
    (planned,) = plan_slides(Manifest((row,), path.parent / "manifest.csv", path.parent), config, workers=1).slides
    return planned


def densities(pixels: Rgb) -> Values:
    """Optical densities."""
    return np.asarray(-np.log((pixels + 1.0) / 256))


def pixels_of(values: Values, rng: np.random.Generator) -> Rgb:
    """The pixels of densities, with noise."""
    return (256 * np.exp(-values) - 1 + rng.normal(0, 1, values.shape)).clip(0, 255).astype(np.uint8)


def draw_band(size: int, width: tuple[float, float], rng: np.random.Generator) -> Values:
    """A band across a patch, of a width in pixels between two bounds: 0 to 1, (P, P, 1)."""
    angle = rng.uniform(0, np.pi)
    y, x = np.mgrid[:size, :size] - size / 2
    across = x * np.cos(angle) + y * np.sin(angle) + rng.uniform(-size / 4, size / 4)
    along = y * np.cos(angle) - x * np.sin(angle)
    inside = np.abs(across + 6 * np.sin(along / 25)) < rng.uniform(*width) / 2
    return np.asarray(gaussian_filter(inside.astype(float), 2))[..., None]


def blurred(_: int, patch: Rgb, sigma_px: float) -> Rgb:
    """A Gaussian blur."""
    return np.asarray(gaussian_filter(patch, (sigma_px, sigma_px, 0)))


def rescaled(_: int, patch: Rgb, times: float) -> Rgb:
    """Reduced, and enlarged again."""
    side, image = int(len(patch) / times), Image.fromarray(patch)
    small = image.resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(small.resize(image.size, Image.Resampling.BICUBIC))


def inked(_: int, patch: Rgb, ink: str, rng: np.random.Generator) -> Rgb:
    """A stroke of pen of 30 to 100 um."""
    stroke = draw_band(len(patch), (60, 200), rng) * rng.uniform(0.6, 1.2)
    return pixels_of(densities(patch) + stroke * np.array(INKS[ink]), rng)


def has_green_ink(patch: Rgb) -> bool:
    """Whether some of a patch absorbs red much more than green and blue."""
    red, green, blue = np.moveaxis(patch.astype(int), 2, 0)
    return bool(((green - red > 25) & (blue - red > 20)).mean() > 0.002)


def main() -> int:
    """Measure and print."""
    parser = machine.parser(__doc__, rounds=5)
    parser.add_argument("--stride-px", type=int, default=112, help="between patches [%(default)s]")
    parser.add_argument("--draws", type=int, default=8, help="strokes of each ink on each patch [%(default)s]")
    args = parser.parse_args()
    path = fetch_slide()
    planned = plan_slide(path, args.stride_px)
    slide, geometry = Slide(path), planned.geometry
    coords = planned.coords_l0_px.tolist()
    every = [slide.read_patch(x, y, geometry) for x, y in coords]
    patches = [patch for patch in every if not has_green_ink(patch)]
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(every))[:REFERENCE_PATCHES]
    reference = build_reference([measure_patch(every[i], MPP) for i in chosen])

    def dropped(work: Callable[[int, Rgb], Rgb], draws: int = 1) -> float:
        found = [check_patch(work(i, patch), MPP, reference) for i, patch in enumerate(patches * draws)]
        return sum(finding is not None for finding in found) / len(found)

    works: dict[str, Callable[[int, Rgb], Rgb]] = {"clean": lambda _, patch: patch}
    works |= {f"blur, sigma {sigma} px": partial(blurred, sigma_px=sigma) for sigma in (1, 1.5, 2, 3, 4)}
    works |= {f"reduced {times} times": partial(rescaled, times=times) for times in (2, 3)}
    pens: dict[str, Callable[[int, Rgb], Rgb]] = {f"pen, {ink}": partial(inked, ink=ink, rng=rng) for ink in INKS}
    shares = {name: dropped(work) for name, work in works.items()}
    shares |= {name: dropped(work, args.draws) for name, work in pens.items()}
    lines = [(name, f"{100 * share:.1f}") for name, share in shares.items()]
    print(f"{len(patches)} patches of {len(every)} of the demo's slide, {inputs.PATCH_PX} px at {MPP} um/px")
    print(table(lines, ("planted", "dropped, %"), right=range(1, 2)))
    good = min(artefacts.goal_met(share, shares["clean"]) for name, share in shares.items() if name != "clean")
    print(f"of the goal, 98 % dropped and 1 % of clean patches lost: {good:.3f}")

    checks = PatchChecks(inputs.PATCH_PX)

    def check_all() -> None:
        for patch in every:
            check_patch(patch, MPP, reference)
            checks.digest("slide", patch)

    def read_all() -> None:
        fresh = Slide(path)
        for x, y in coords:
            encode_image(fresh.read_patch(x, y, geometry), "jpegxl")

    parts = {"checks": check_all, "reading": read_all}
    rounds = machine.measure_rounds(parts, wanted=args.rounds, patience=args.patience)
    per_patch = {name: 1000 * rounds.seconds(name) / len(every) for name in parts}
    print(f"ms a patch: {', '.join(f'{name} {ms:.2f}' for name, ms in per_patch.items())}; {rounds.words()}")
    print(
        f"checks over reading and encoding: {rounds.ratio(['checks'], ['reading']):.2f}; the last line has ms a patch"
    )
    return machine.conclude(per_patch["checks"], at_most=MOST_MS, quiet=rounds.quiet) or int(good < 1)


if __name__ == "__main__":
    sys.exit(main())
