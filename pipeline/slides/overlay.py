"""Draw overlays of a plan: the slide, the outline of its tissue, what rules dropped, the eligible grid, and the sampled
patches.
"""

from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage import measure

from pipeline.disk.files import write_bytes
from pipeline.sampling import TRAIN
from pipeline.slides.artefacts.rules import DROPPING
from pipeline.slides.tissue import TissueMask

MIN_LONG_SIDE_PX, MAX_LONG_SIDE_PX = 1000, 2000
CONTOUR, GRID, TRAINED, HELD_OUT = (0, 150, 60), (90, 90, 90), (30, 90, 220), (230, 110, 0)
TEXT = (20, 20, 20)
UNREADABLE = (0, 0, 0)
"""As in the thumbnail."""
GRID_ALPHA = 70
"""Our choice: visible on glass and on tissue, and hides neither."""
REASON_ALPHA = 90
"""Of what rules dropped. Our choice: the slide below can still be judged."""
MIN_OUTLINED_PX = 10
"""Smallest side of a patch in the picture that gets an outline; smaller ones get a dot, so that the tissue stays
visible. Our choice."""


def draw_overlay(
    tissue: TissueMask,
    available_l0_px: NDArray[np.int64],
    taken_l0_px: NDArray[np.int64],
    split: NDArray[np.uint8],
    patch_l0_px: float,
    title: str,
    path: Path,
) -> None:
    """Write the picture (PNG): tissue outline green, eligible grid grey, train patches blue, held-out patches orange,
    unreadable areas black, and what a rule dropped filled with the rule's colour. Patches are outlines, or dots if
    small, so that the stain stays visible.

    Args:
        available_l0_px: (M, 2) corners of all eligible patches.
        taken_l0_px: (N, 2) corners of the sampled patches, with their `split` codes (N,).
    """
    height, width = tissue.mask.shape
    long_side = min(max(max(width, height), MIN_LONG_SIDE_PX), MAX_LONG_SIDE_PX)
    scale = long_side / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = Image.fromarray(tissue.thumbnail).resize(size, Image.Resampling.BICUBIC)
    image, legend_of_rules = _with_reasons(image, tissue)
    layer = Image.new("RGBA", size)  # overlapping lines do not add up; composited onto the slide once
    draw = ImageDraw.Draw(layer)
    to_picture = scale / tissue.pixel_l0_px
    side = patch_l0_px * to_picture
    line_px = 1 if side < 24 else 2
    trained, held_out = taken_l0_px[split == TRAIN], taken_l0_px[split != TRAIN]
    for corners, colour, alpha, outline_px in (
        (available_l0_px, GRID, GRID_ALPHA, 1),
        (trained, TRAINED, 255, line_px),
        (held_out, HELD_OUT, 255, line_px),
    ):
        for x, y in corners * to_picture:
            if side >= MIN_OUTLINED_PX:
                draw.rectangle((x, y, x + side, y + side), outline=(*colour, alpha), width=outline_px)
            elif colour != GRID:  # a grid of such small cells would be a grey veil
                middle, radius = (x + side / 2, y + side / 2), max(side / 6, 1)
                draw.ellipse(
                    (middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius),
                    fill=(*colour, alpha),
                )
    for contour in measure.find_contours(np.pad(tissue.mask, 1).astype(float), 0.5):
        points = [((x - 0.5) * scale, (y - 0.5) * scale) for y, x in contour]  # pad shifts by 1, pixel centres by half
        draw.line(points, fill=(*CONTOUR, 255), width=2)
    image = Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")
    grid = {"eligible grid": GRID} if side >= MIN_OUTLINED_PX else {}
    legend = {"tissue": CONTOUR} | grid | {"sampled: train": TRAINED, "sampled: held out": HELD_OUT}
    legend |= legend_of_rules
    if tissue.unreadable.any():
        legend["cannot be read"] = UNREADABLE
    _write_captioned(image, title, legend, path)


def _with_reasons(image: Image.Image, tissue: TissueMask) -> tuple[Image.Image, dict[str, tuple[int, int, int]]]:
    """The picture with what rules dropped in their colours, and the legend of the rules that are seen."""
    legend = {}
    for rule in DROPPING:
        area = tissue.dropped_by(rule.name)
        if rule.colour is not None and area.any():
            veil = Image.fromarray(area.astype(np.uint8) * REASON_ALPHA).resize(image.size, Image.Resampling.NEAREST)
            image = Image.composite(Image.new("RGB", image.size, rule.colour), image, veil)
            legend[f"dropped: {rule.name}"] = rule.colour
    return image, legend


def _write_captioned(image: Image.Image, title: str, legend: dict[str, tuple[int, int, int]], path: Path) -> None:
    """Write the picture with the title and the legend (colours by text) below it."""
    font = ImageFont.load_default(size=18)
    pad, line_px = 10, 26
    measure_draw = ImageDraw.Draw(image)
    lines: list[list[tuple[str, tuple[int, int, int]]]] = [[(title, TEXT)], []]
    used = 0
    for text, colour in legend.items():
        wide = int(measure_draw.textlength(text, font)) + 44
        if lines[-1] and used + wide > max(image.width, MIN_LONG_SIDE_PX):
            lines.append([])
            used = 0
        lines[-1].append((text, colour))
        used += wide
    width = max([image.width] + [sum(int(measure_draw.textlength(t, font)) + 44 for t, _ in line) for line in lines])
    page = Image.new("RGB", (width, image.height + len(lines) * line_px + 2 * pad), "white")
    page.paste(image, (0, 0))
    draw = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        x, y = pad, image.height + pad + number * line_px
        for text, colour in line:
            if number:
                draw.rectangle((x, y + 4, x + 14, y + 18), fill=colour)
                x += 22
            draw.text((x, y), text, fill=TEXT, font=font)
            x += int(draw.textlength(text, font)) + 22
    buffer = BytesIO()
    page.save(buffer, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())
