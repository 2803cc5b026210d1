"""Draw the pictures of docs/tissue.md, docs/sampling.md, docs/annotations.md and docs/cluster-sampling.md.

Run as `python docs/images/demo_slide.py` in a checkout with G2L installed. All are of the demo's slide, and drawn by
`g2l plan`: overlay.png and sampling.png of one plan and its counterpart by `--sample spread`. Artefacts are planted at
level 0 of the slide, mirrored to four times its area so that there is clean tissue beside them: ink by the law of Beer
and Lambert, a fold as a second layer of the tissue beside it, blur as a Gaussian.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from pipeline.cohort.manifest.read import read_manifest, write_manifest
from pipeline.cohort.manifest.rows import Manifest, ManifestRow
from pipeline.config.plan import PlanConfig
from pipeline.demo_data import fetch_slide
from pipeline.slides.artefacts.dropped import DROPPED_SHEET
from pipeline.slides.artefacts.rules import DROPPING
from pipeline.slides.overlay import CONTOUR, HELD_OUT, TRAINED
from pipeline.slides.reader import Slide
from stages.plan import plan_slides

HERE = Path(__file__).resolve().parent
SMALL = {"patch_px": 48, "patches_per_slide": 100, "val_fraction": 0.0}
"""Small patches, so that so small a slide has enough of them."""
UNIT = 16
"""Pixels of level 0 a pixel of the maps in which artefacts are drawn: 8 um."""
INKS = {"black": (1.2, 1.35, 1.25), "blue": (1.6, 1.05, 0.35), "green": (1.3, 0.45, 0.6), "red": (0.1, 1.6, 1.55)}
"""Densities of red, green and blue, as in benchmarks/artefacts.py."""
STROKES: dict[str, list[tuple[float, float]]] = {
    "black": [(0.30, 0.64), (0.38, 0.60), (0.44, 0.66)],
    "blue": [(0.05, 0.28), (0.22, 0.22), (0.36, 0.30)],
    "green": [(0.66, 0.04), (0.72, 0.14), (0.70, 0.26)],
    "red": [(0.60, 0.90), (0.72, 0.84), (0.86, 0.92)],
}
"""Where strokes run, as shares of width and height."""
FOLD = [(0.70, 0.55), (0.83, 0.60)]
BLUR = (0.30, 0.86, 0.12)
"""Its middle, as shares of width and height, and its radius as one of the width."""
BLUR_PX = 30.0
"""Standard deviation of the Gaussian, pixels of level 0: 15 um."""
REGIONS: dict[str, list[tuple[float, float]]] = {
    "Region": [(880, 1240), (1720, 1180), (1900, 1900), (1820, 2560), (560, 2560), (700, 1800)],
    "Strands": [(1080, 1300), (1560, 1240), (1400, 1700), (1260, 2060), (1000, 1960)],
}
"""Annotations: outlines by class, pixels of level 0."""
EXACT = [CONTOUR, HELD_OUT, TRAINED, (255, 255, 255), *(rule.colour for rule in DROPPING if rule.colour)]
"""Colours that a palette keeps."""

Rgb = NDArray[np.uint8]
Map = NDArray[np.float64]


def whole_slide() -> tuple[Rgb, float]:
    """Level 0 of the demo's slide, and its um a pixel."""
    slide = Slide(fetch_slide())
    return np.asarray(slide.read_region(0, (0, 0), slide.info.size_l0_px).convert("RGB")), slide.info.mpp


def line_of(size: tuple[int, int], points: Sequence[tuple[float, float]], width_um: float) -> Map:
    """A line with soft edges, 0..1, in a map of (width, height)."""
    drawn = Image.new("L", size)
    corners = [(x * size[0], y * size[1]) for x, y in points]
    ImageDraw.Draw(drawn).line(corners, fill=255, width=round(width_um / 8), joint="curve")
    return np.asarray(ndimage.gaussian_filter(np.asarray(drawn, float) / 255, 1))


def enlarged(values: Map, height: int, width: int) -> Map:
    """A map at level 0, (H, W, 1)."""
    large = Image.fromarray(values.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(large, np.float64)[..., None]


def plant(clean: Rgb) -> Rgb:
    """The slide with pen in four colours, a fold, and a place that is out of focus."""
    height, width = clean.shape[:2]
    size = (width // UNIT, height // UNIT)
    image = clean.astype(np.float64)
    x, y, radius = BLUR
    columns, rows = np.meshgrid(np.arange(size[0]) - x * size[0], np.arange(size[1]) - y * size[1])
    share = np.clip((radius * size[0] - np.hypot(rows, columns)) / 4, 0, 1)
    share = enlarged(share, height, width)
    image = image * (1 - share) + ndimage.gaussian_filter(image, (BLUR_PX, BLUR_PX, 0)) * share
    second = np.roll(clean, (400, 160), axis=(0, 1)).astype(np.float64) / 243
    fold = enlarged(line_of(size, FOLD, 150), height, width)
    image *= np.exp(fold * np.log(np.clip(second, 0.02, 1)))
    for ink, points in STROKES.items():
        amount = enlarged(line_of(size, points, 250), height, width)
        image *= np.exp(-amount * np.array(INKS[ink]))
    return np.asarray(image.round().clip(0, 255), np.uint8)


def write_slide(path: Path, pixels: Rgb, mpp: float) -> Path:
    """The pixels as a tiled pyramid that OpenSlide reads."""
    with tifffile.TiffWriter(path) as writer:
        for level, factor in enumerate((1, 4)):
            shown = pixels if factor == 1 else np.asarray(Image.fromarray(pixels).reduce(factor))
            writer.write(
                shown,
                tile=(256, 256),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 90},
                resolution=(1e4 / mpp / factor,) * 2,
                resolutionunit="CENTIMETER",
                subfiletype=int(level > 0),
            )
    return path


def manifest_of(folder: Path, slide: Path, name: str, annotations: Path | None = None) -> Manifest:
    """A manifest of one slide."""
    labels = {"annotations": str(annotations)} if annotations else {}
    table = folder / f"{name}.csv"
    write_manifest(table, [ManifestRow(name, str(slide), name, labels=labels)])
    return read_manifest(table)


def planned(manifest: Manifest, options: dict[str, object], overlays: Path) -> Path:
    """Plan, and return the folder of overlays."""
    plan_slides(manifest, PlanConfig.build(options), workers=1, overlays=overlays)
    return overlays


def opened(path: Path) -> Image.Image:
    """A picture."""
    with Image.open(path) as picture:
        return picture.convert("RGB")


def beside(pictures: dict[str, Image.Image], longest_px: int) -> Image.Image:
    """Pictures in a row, each with its title above, at most so large."""
    gap, top = 16, 34
    height = top + max(picture.height for picture in pictures.values())
    page = Image.new("RGB", (sum(p.width for p in pictures.values()) + gap * (len(pictures) - 1), height), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=24)
    left = 0
    for title, picture in pictures.items():
        draw.text((left + 8, 2), title, fill=(20, 20, 20), font=font)
        page.paste(picture, (left, top))
        left += picture.width + gap
    page.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
    return page


def save(image: Image.Image, name: str) -> None:
    """Write a picture into this folder, as JPEG or with a palette, and say how large it is."""
    path = HERE / name
    if path.suffix == ".jpg":
        image.save(path, quality=82, optimize=True)
    else:
        number = 128 - len(EXACT)
        colours = (image.quantize(number).getpalette() or [])[: 3 * number]
        palette = Image.new("P", (1, 1))
        palette.putpalette([*(value for colour in EXACT for value in colour), *colours])
        drawn = image.quantize(palette=palette, dither=Image.Dither.NONE)
        numbers, pixels = np.array(drawn), np.asarray(image)
        for number, colour in enumerate(EXACT):  # the nearest colour is looked for coarsely
            numbers[(pixels == colour).all(axis=2)] = number
        drawn.putdata(numbers.ravel().tolist())
        drawn.save(path, optimize=True)
    print(f"{name}: {image.width} x {image.height}, {path.stat().st_size / 1000:.0f} kB")


def draw_samples(folder: Path) -> None:
    """overlay.png and sampling.png: one grid, drawn uniformly and spread."""
    manifest = manifest_of(folder, fetch_slide(), "demo")
    drawn = {
        sample: opened(planned(manifest, SMALL | {"sample": sample}, folder / sample) / "demo.png")
        for sample in ("uniform", "spread")
    }
    save(drawn["uniform"], "overlay.png")
    save(beside({f"--sample {sample}": picture for sample, picture in drawn.items()}, 1300), "sampling.png")


def draw_artefacts(folder: Path) -> None:
    """artefacts_planted.jpg: before, and what was dropped; dropped_patches.jpg: the sheet of the same plan."""
    clean, mpp = whole_slide()
    clean = np.concatenate([clean, clean[:, ::-1]], axis=1)
    clean = np.concatenate([clean, clean[::-1]])
    slide = write_slide(folder / "planted.tif", plant(clean), mpp)
    options: dict[str, object] = {"patch_px": 112, "patches_per_slide": 60, "val_fraction": 0.0, "use_rule": ["folds"]}
    overlays = planned(manifest_of(folder, slide, "planted"), options, folder / "planted")
    after = opened(overlays / "planted.png")
    before = Image.fromarray(np.asarray(Slide(slide).read_region(1, (0, 0), Slide(slide).info.level_sizes_px[1])))
    width, height = before.size
    before = before.resize((round(1000 * width / height), 1000), Image.Resampling.LANCZOS)
    save(beside({"the slide": before, "as g2l plan drew it": after}, 1450), "artefacts_planted.jpg")
    save(opened(overlays / DROPPED_SHEET), "dropped_patches.jpg")


def polygon(name: str, points: Sequence[tuple[float, float]]) -> dict[str, object]:
    """A region of a GeoJSON file, as QuPath writes it."""
    ring = [list(point) for point in (*points, points[0])]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": name}},
    }


def draw_annotations(folder: Path) -> None:
    """annotations.png: without annotations, and with --include and --exclude."""
    regions = [polygon(name, points) for name, points in REGIONS.items()]
    path = folder / "demo.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": regions}))
    manifest = manifest_of(folder, fetch_slide(), "demo", path)
    options = SMALL | {"patches_per_slide": 400}
    without = planned(manifest, options, folder / "all")
    chosen = options | {"include": ["Region"], "exclude": ["Strands"], "max_excluded": 0.25}
    kept = planned(manifest, chosen, folder / "classes")
    panels = {"all of the tissue": without, "--include Region --exclude Strands": kept}
    pictures = {title: with_regions(opened(folder / "demo.png")) for title, folder in panels.items()}
    save(beside(pictures, 1300), "annotations.png")


def with_regions(picture: Image.Image) -> Image.Image:
    """An overlay of the demo's slide with the regions' outlines and names."""
    scale = picture.width / Slide(fetch_slide()).info.size_l0_px[0]
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=20)
    for (name, points), colour in zip(REGIONS.items(), ((0, 0, 0), (200, 0, 60)), strict=True):
        corners = [(x * scale, y * scale) for x, y in points]
        draw.line([*corners, corners[0]], fill=colour, width=4)
        right = max(corners)
        draw.text((right[0] + 8, right[1] - 8), name, fill=colour, font=font, stroke_width=2, stroke_fill="white")
    return picture


def draw_clusters(folder: Path) -> None:
    """clusters.jpg: the sheet of clusters."""
    manifest = manifest_of(folder, fetch_slide(), "demo")
    options = {"patch_px": 96, "stride_px": 48, "patches_per_slide": 80, "val_fraction": 0.0}
    overlays = planned(manifest, options | {"sample": "cluster", "clusters": 8}, folder / "cluster")
    save(opened(overlays / "clusters" / "sheet.png"), "clusters.jpg")


def main() -> None:
    """Draw all of them."""
    with TemporaryDirectory() as name:
        for number, draw in enumerate((draw_samples, draw_artefacts, draw_annotations, draw_clusters)):
            folder = Path(name) / str(number)
            folder.mkdir()
            draw(folder)


if __name__ == "__main__":
    main()
