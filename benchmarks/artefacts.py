"""How much of planted pen, folds, blur, bubbles, coverslip edges and blank tiles is dropped, and how much clean tissue.

Artefacts are drawn on real tissue: ink and folds by Beer and Lambert's law, blur as a Gaussian. Then the tissue is
found and the rules drop what they find, as `g2l plan` does. By kind: the share of the planted area that is not left as
tissue, by all rules together and by the kind's own; and the share of the tissue without anything planted that the rules
drop: the margins of what is planted are most of it, and weigh more on a small section. Medians over seeds and slides,
and the worst. Stain on the glass, that the finder drops with nothing planted, is no clean tissue. The goal, 98 % and
1 %, is that of the issue for pen, folds and blur.

By default the tissue is that of the demo's slide, 1.1 by 1.5 mm, mirrored to a section of 4.4 by 5.9 mm; with
--folder it is that of all slides and pictures there.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import machine
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from pipeline.base.console import table
from pipeline.config.tissue_rules import RuleName, rules_in_use
from pipeline.demo_data import fetch_slide
from pipeline.slides.artefacts.rules import drop_artefacts
from pipeline.slides.glass import brightest, find_glass
from pipeline.slides.reader import Slide
from pipeline.slides.tissue import MIN_BRIGHTNESS, TissueMask, look_for_tissue, reason_of, segment
from pipeline.slides.whole_slide import read_whole

DROPPED, LOST = 0.98, 0.01
"""From the issue."""
PIXEL_UM = 8.0
RULES: dict[str, RuleName] = {"pen": "pen", "edge": "edges", "fold": "folds", "blank": "blank", "blur": "blur"}
"""A plan's rule for each family of artefacts, in the order in which they run."""
COLOURS = {
    "pen": (255, 220, 0),
    "fold": (0, 170, 60),
    "blur": (0, 120, 255),
    "edge": (255, 110, 0),
    "blank": (200, 0, 200),
}
PICTURE_PX = 320
INKS = {"black": (1.2, 1.35, 1.25), "blue": (1.6, 1.05, 0.35), "green": (1.3, 0.45, 0.6), "red": (0.1, 1.6, 1.55)}
"""Densities of ink as measured on real slides: strong, not the strongest."""

Pixels = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Field:
    """A clean thumbnail, its tissue and its glass. `tissue` may hold stain on the glass, which `haze` is."""

    name: str
    image: NDArray[np.uint8]
    pixel_um: float
    tissue: Mask
    haze: Mask
    glass: NDArray[np.float64]

    @property
    def clean(self) -> Mask:
        """Tissue without stain on the glass: bool (H, W)."""
        return self.tissue & ~self.haze

    @property
    def density(self) -> Pixels:
        """Of each channel, (H, W, 3)."""
        return np.asarray(np.log(self.glass / np.maximum(self.image, 0.5)).clip(min=0))

    def light(self, density: Pixels) -> NDArray[np.uint8]:
        """The picture of densities (H, W, 3); what has the density of before keeps its pixels."""
        change = density - self.density
        return np.asarray((self.image * np.exp(-change)).round().clip(0, 255), np.uint8)


def make_field(name: str, image: NDArray[np.uint8], pixel_um: float) -> Field:
    """A field of a thumbnail (H, W, 3)."""
    known = brightest(image) >= MIN_BRIGHTNESS
    glass = find_glass(image, known)
    seen = look_for_tissue(image, pixel_um, np.zeros(image.shape[:2], bool), rules_in_use((), ()))
    haze = seen.reasons == reason_of("haze")
    return Field(name, image, pixel_um, segment(image, pixel_um), haze, np.array(glass[0] if glass else (243.0,) * 3))


def curve(field: Field, rng: np.random.Generator, length_um: float) -> tuple[Pixels, Pixels]:
    """A curve through a random place of the tissue: for every pixel the distance to it, um, and the part of its length
    that is nearest, 0 to 1.
    """
    places = np.argwhere(field.tissue)
    middle = places[int(rng.integers(len(places)))]
    angle, bend = rng.uniform(0, np.pi), rng.uniform(-1.5, 1.5)
    along = np.linspace(-0.5, 0.5, 200)
    turn = angle + bend * along
    step = length_um / field.pixel_um / len(along)
    path = np.stack([np.cumsum(np.sin(turn)), np.cumsum(np.cos(turn))], axis=1) * step
    path += middle - path[len(path) // 2]
    marks: NDArray[np.int64] = np.full(field.tissue.shape, -1, np.int64)
    rows, columns = (path[:, axis].round().astype(int) for axis in (0, 1))
    inside = (rows >= 0) & (rows < marks.shape[0]) & (columns >= 0) & (columns < marks.shape[1])
    marks[rows[inside], columns[inside]] = np.arange(len(path))[inside]
    distance, nearest = ndimage.distance_transform_edt(marks < 0, return_indices=True)
    return np.asarray(distance * field.pixel_um), np.asarray(marks[tuple(nearest)] / len(path))


def strip(distance_um: Pixels, width_um: float, soft_um: float) -> Pixels:
    """1 within a strip around a curve, 0 outside, with a soft edge."""
    return np.asarray(((width_um / 2 - distance_um) / soft_um + 0.5).clip(0, 1))


Plant = Callable[[Field, np.random.Generator], tuple[NDArray[np.uint8], Mask]]
"""Draws on a field: the picture, and where something is planted."""


def draw_stroke(field: Field, rng: np.random.Generator) -> Pixels:
    """How much of an ink's density a stroke of 0.3 to 2 mm has at every pixel, unevenly: (H, W)."""
    distance, along = curve(field, rng, rng.uniform(3000, 10_000))
    amount = strip(distance, rng.uniform(300, 2000), 30.0) * rng.uniform(0.7, 1.3)
    return np.asarray(amount * (1 + 0.2 * np.sin(along * rng.uniform(5, 20))))


def plant_pen(ink: str) -> Plant:
    """A stroke of pen."""

    def plant(field: Field, rng: np.random.Generator) -> tuple[NDArray[np.uint8], Mask]:
        amount = draw_stroke(field, rng)
        return field.light(field.density + amount[..., None] * np.array(INKS[ink])), amount > 0.1

    return plant


def draw_fold(
    field: Field, rng: np.random.Generator, least_um: float, most_um: float
) -> tuple[Pixels, NDArray[np.int64]]:
    """How much of a second layer there is, (H, W), and from how far away it is, in rows and columns."""
    distance, _ = curve(field, rng, rng.uniform(1500, 5000))
    amount = strip(distance, rng.uniform(least_um, most_um), field.pixel_um) * field.tissue
    return amount, rng.integers(-25, 26, 2)


def plant_fold(least_um: float, most_um: float) -> Plant:
    """A strip under which the section lies twice: the second layer is tissue from near by."""

    def plant(field: Field, rng: np.random.Generator) -> tuple[NDArray[np.uint8], Mask]:
        amount, shift = draw_fold(field, rng, least_um, most_um)
        density, (down, right) = field.density, shift.tolist()
        layer = np.roll(density, (down, right), axis=(0, 1))
        layer = np.where(np.roll(field.tissue, (down, right), axis=(0, 1))[..., None], layer, density)
        return field.light(density + amount[..., None] * layer), amount > 0.5

    return plant


def blob(field: Field, rng: np.random.Generator, least_um: float, most_um: float) -> tuple[Pixels, Pixels]:
    """An ellipse around a random place of the tissue: the signed distance to its edge in um, negative inside, roughly;
    and nothing else.
    """
    places = np.argwhere(field.tissue)
    row, column = places[rng.integers(len(places))]
    rows, columns = np.ogrid[: field.tissue.shape[0], : field.tissue.shape[1]]
    a, b = rng.uniform(least_um, most_um, 2) / field.pixel_um
    angle = rng.uniform(0, np.pi)
    u = (columns - column) * np.cos(angle) + (rows - row) * np.sin(angle)
    v = (rows - row) * np.cos(angle) - (columns - column) * np.sin(angle)
    radius = np.sqrt((u / a) ** 2 + (v / b) ** 2)
    return (radius - 1) * min(a, b) * field.pixel_um, radius


def blurred(field: Field, image: NDArray[np.uint8], sigma_um: float, share: Pixels) -> NDArray[np.uint8]:
    """The picture under a Gaussian where `share` (H, W) is 1."""
    sigma = sigma_um / field.pixel_um
    smooth = ndimage.gaussian_filter(image.astype(np.float64), (sigma, sigma, 0))
    return np.asarray((image + share[..., None] * (smooth - image)).round(), np.uint8)


def draw_blur(field: Field, rng: np.random.Generator, least_um: float, most_um: float) -> tuple[Pixels, float]:
    """How much of a blob is out of focus at every pixel, (H, W), and by how many um."""
    away, _ = blob(field, rng, 400, 1500)
    return np.asarray((0.5 - away / 60).clip(0, 1)), rng.uniform(least_um, most_um)


def plant_blur(least_um: float, most_um: float) -> Plant:
    """A blob under a Gaussian of so many um, with a soft edge."""

    def plant(field: Field, rng: np.random.Generator) -> tuple[NDArray[np.uint8], Mask]:
        share, sigma_um = draw_blur(field, rng, least_um, most_um)
        return blurred(field, field.image, sigma_um, share), share > 0.5

    return plant


def plant_bubble(field: Field, rng: np.random.Generator) -> tuple[NDArray[np.uint8], Mask]:
    """A dark ring, and out of focus within."""
    away, _ = blob(field, rng, 400, 1500)
    width = rng.uniform(50, 150)
    ring = strip(np.abs(away), width, 20.0) * rng.uniform(0.7, 1.5)
    image = blurred(field, field.image, rng.uniform(8, 20), (0.5 - away / 20).clip(0, 1))
    light = image * np.exp(-ring)[..., None]
    return np.asarray(light.round(), np.uint8), away < width / 2


def plant_coverslip(field: Field, rng: np.random.Generator) -> tuple[NDArray[np.uint8], Mask]:
    """A nearly straight dark line across the slide."""
    rows, columns = np.ogrid[: field.tissue.shape[0], : field.tissue.shape[1]]
    places = np.argwhere(field.tissue)
    row, column = places[rng.integers(len(places))]
    angle = rng.uniform(-0.2, 0.2) + rng.integers(2) * np.pi / 2
    distance = np.abs((rows - row) * np.cos(angle) - (columns - column) * np.sin(angle)) * field.pixel_um
    amount = strip(distance, rng.uniform(40, 150), 15.0) * rng.uniform(0.7, 1.5)
    return np.asarray((field.image * np.exp(-amount)[..., None]).round(), np.uint8), amount > 0.3


def plant_blank(field: Field, rng: np.random.Generator) -> tuple[NDArray[np.uint8], Mask]:
    """Some tiles of 64 to 250 um, white, grey, or of the tissue's mean colour."""
    image, planted = field.image.copy(), np.zeros(field.tissue.shape, bool)
    places = np.argwhere(field.tissue)
    colours = ((255, 255, 255), (200, 200, 200), (128, 128, 128), field.image[field.tissue].mean(axis=0))
    for _ in range(8):
        row, column = places[rng.integers(len(places))]
        tall, wide = (rng.uniform(64, 250, 2) / field.pixel_um).round().astype(int)
        area = np.s_[row : row + tall, column : column + wide]
        image[area] = colours[rng.integers(4)]
        planted[area] = True
    return image, planted


KINDS: dict[str, tuple[str, Plant, bool]] = {
    **{f"pen, {ink}": ("pen", plant_pen(ink), True) for ink in INKS},
    "fold, 100 to 300 um": ("fold", plant_fold(100, 300), True),
    "fold, 50 to 100 um": ("fold", plant_fold(50, 100), True),
    "fold, 30 to 50 um": ("fold", plant_fold(30, 50), True),
    "blur, 10 to 30 um": ("blur", plant_blur(10, 30), True),
    "blur, 8 to 10 um": ("blur", plant_blur(8, 10), True),
    "blur, 5 to 8 um": ("blur", plant_blur(5, 8), True),
    "air bubble": ("edge", plant_bubble, False),
    "coverslip edge": ("edge", plant_coverslip, False),
    "blank tiles": ("blank", plant_blank, False),
}
"""The rule of each kind, what plants it, and whether the goal is for it."""


@dataclass(frozen=True)
class Outcome:
    """Shares (0..1) of one planting: of what is planted that all rules drop, and that the kind's own drops; of the rest
    of the tissue that all rules drop.
    """

    dropped: float
    own: float
    lost: float


def find_all(field: Field, image: NDArray[np.uint8]) -> tuple[Mask, dict[str, Mask]]:
    """The tissue of a picture of the field as a plan finds it, with `folds` on, and what each rule for artefacts drops
    of it.
    """
    rules, unreadable = rules_in_use((), (RULES["fold"],)), np.zeros(image.shape[:2], bool)
    seen = look_for_tissue(image, field.pixel_um, unreadable, rules)
    tissue = TissueMask(seen.mask, field.pixel_um, unreadable, image, seen.reasons, tuple(seen.glass), rules)
    kept = drop_artefacts(tissue, field.pixel_um)
    return tissue.mask, {name: kept.dropped_by(rule) for name, rule in RULES.items()}


def judge(field: Field, rule: str, plant: Plant, rng: np.random.Generator) -> Outcome | None:
    """Plant, find, and compare; `None` if hardly anything was planted on tissue."""
    image, planted = plant(field, rng)
    tissue, found = find_all(field, image)
    concerned = planted & (field.clean | tissue)
    clean = field.clean & ~planted
    if concerned.sum() < 50 or clean.sum() < 0.3 * field.tissue.sum():
        return None
    left = tissue & ~np.any(list(found.values()), axis=0)
    return Outcome(
        float((~left)[concerned].mean()),
        float((~tissue | found[rule])[concerned].mean()),
        float(np.any(list(found.values()), axis=0)[clean].mean()),
    )


def fields_of(folder: Path | None, mpp: float) -> Iterator[Field]:
    """The demo's section, or those of a folder's slides and pictures."""
    if folder is None:
        slide = Slide(fetch_slide())
        whole = read_whole(slide)
        image, pixel = whole.image, whole.pixel_l0_px
        turned = np.concatenate([image, image[:, ::-1]], axis=1)
        block = np.concatenate([turned, turned[::-1]], axis=0)
        yield make_field("demo", np.ascontiguousarray(np.tile(block, (2, 2, 1))), pixel * slide.info.mpp)
        return
    for path in sorted(folder.iterdir()):
        if path.suffix in (".png", ".jpg"):
            picture = Image.open(path).convert("RGB")
            yield make_field(path.stem, np.asarray(picture), mpp)
        elif path.suffix in (".tif", ".svs"):
            slide = Slide(path, mpp, mpp_overrides=True)
            whole = read_whole(slide)
            image, pixel = whole.image, whole.pixel_l0_px
            yield make_field(path.stem, image, pixel * slide.info.mpp)


def measure_kind(fields: list[Field], kind: str, seeds: range) -> list[Outcome]:
    """The outcomes of a kind on all fields and seeds."""
    rule, plant, _ = KINDS[kind]
    number = list(KINDS).index(kind)
    draws = (judge(field, rule, plant, np.random.default_rng((seed, number))) for field in fields for seed in seeds)
    return [outcome for outcome in draws if outcome is not None]


def draw_picture(field: Field, path: Path, first_seed: int) -> None:
    """Write a picture: of each kind what is planted, and beside it what is dropped, by the rule's colour."""
    tiles = []
    for number, (rule, plant, _) in enumerate(KINDS.values()):
        image, _ = plant(field, np.random.default_rng((first_seed, number)))
        _, found = find_all(field, image)
        shown = image.copy()
        for name, mask in reversed(found.items()):  # the first rule that finds a place has it
            shown[mask] = (0.25 * shown[mask] + 0.75 * np.array(COLOURS[name])).astype(np.uint8)
        pair = Image.fromarray(np.concatenate([image, shown], axis=1))
        tile = Image.new("RGB", (PICTURE_PX, PICTURE_PX * pair.height // pair.width + 16), "white")
        tile.paste(pair.resize((PICTURE_PX - 4, tile.height - 16), Image.Resampling.LANCZOS), (0, 16))
        ImageDraw.Draw(tile).text((2, 2), list(KINDS)[number] + f" (rule: {rule})", fill="black")
        tiles.append(np.asarray(tile))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % 4)
    rows = [np.concatenate(tiles[i : i + 4], axis=1) for i in range(0, len(tiles), 4)]
    Image.fromarray(np.concatenate(rows)).quantize(192).save(path, optimize=True)


def percent(value: float) -> str:
    """A share in percent."""
    return f"{100 * value:.1f}"


def goal_met(dropped: float, lost: float) -> float:
    """How near two shares come to the goal, at most 1: dropped to `DROPPED`, and clean tissue lost to `LOST`."""
    return min(dropped / DROPPED, LOST / max(lost, LOST), 1.0)


def main() -> int:
    """Plant, find, and print."""
    parser = machine.parser(__doc__, rounds=0)
    parser.add_argument("--folder", type=Path, help="slides and pictures in place of the demo's slide")
    parser.add_argument("--mpp", type=float, default=PIXEL_UM, help="um/px of level 0 of those [%(default)s]")
    parser.add_argument("--seeds", type=int, default=20, help="plantings of each kind on each [%(default)s]")
    parser.add_argument("--first-seed", type=int, default=1000, help="the rules were made with 0 to 9 [%(default)s]")
    parser.add_argument("--kinds", help="only kinds that begin so")
    parser.add_argument("--picture", type=Path, help="draw each kind on the first field into this PNG, and end")
    args = parser.parse_args()
    fields = list(fields_of(args.folder, args.mpp))
    if args.picture:
        draw_picture(fields[0], args.picture, args.first_seed)
        return 0
    for field in fields:
        tissue, found = find_all(field, field.image)
        shares = ", ".join(f"{name} {percent(float(mask[tissue].mean()))}" for name, mask in found.items())
        area = tissue.sum() * (field.pixel_um / 1000) ** 2
        print(
            f"{field.name}: {area:.1f} mm2 of tissue at {field.pixel_um:.2f} um/px; found without planting, %: {shares}"
        )
    lines, met = [], []
    for kind in KINDS:
        if args.kinds and not kind.startswith(args.kinds):
            continue
        outcomes = measure_kind(fields, kind, range(args.first_seed, args.first_seed + args.seeds))
        if not outcomes:
            continue
        dropped, own, lost = ([getattr(o, part) for o in outcomes] for part in ("dropped", "own", "lost"))
        met += [goal_met(median(dropped), median(lost))] if KINDS[kind][2] else []
        shown = (median(dropped), min(dropped), median(own), median(lost), max(lost))
        good = "yes" if median(dropped) >= DROPPED and median(lost) <= LOST else "no"
        lines.append((kind, len(outcomes), *map(percent, shown), good))
    header = ("planted", "times", "dropped, %", "worst", "by its rule", "clean lost, %", "worst", "98 and 1")
    print(table(lines, header, right=range(1, 7)))
    return machine.conclude(min(met, default=1.0), at_least=1.0)


if __name__ == "__main__":
    sys.exit(main())
