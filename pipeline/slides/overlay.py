"""Draw overlays of a plan: the slide, the outline of its tissue, what rules dropped, the eligible grid, and the sampled
patches.

The legend's swatches are painted as the picture is, by the same functions: what is seen through there is seen through
in the legend, over white.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import binary_erosion
from skimage import measure

from pipeline.disk.files import write_bytes
from pipeline.report.letters import font_for
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
VEIL_ALPHA = 60
"""Of what rules dropped, between its stripes. Our choice: the slide below can still be judged."""
STRIPE_PX, STRIPE_STEP_PX = 2, 9
"""Width and distance of the stripes over what rules dropped, in the rule's full colour. Our choice: a veil alone takes
on the stain's colour.
"""
OUTLINE_PX = 2
"""Width of the outline of what rules dropped."""
SWATCH_PX = 16
Rgb = tuple[int, int, int]
MIN_OUTLINED_PX = 10
"""Smallest side of a patch in the picture that gets an outline; smaller ones get a dot, so that the tissue stays
visible. Our choice."""


@dataclass(frozen=True)
class Swatch:
    """An entry of the legend: what it names, in which colour, and how that is painted."""

    text: str
    colour: Rgb
    kind: Literal["line", "grid", "patch", "area", "solid"]

    def painted(self) -> Image.Image:
        """A square of it (RGB), over white."""
        layer = Image.new("RGBA", (SWATCH_PX, SWATCH_PX))
        draw = ImageDraw.Draw(layer)
        inside = (1, 1, SWATCH_PX - 2, SWATCH_PX - 2)
        if self.kind == "area":
            area = np.zeros((SWATCH_PX, SWATCH_PX), bool)
            area[1:-1, 1:-1] = True
            layer = painted_area(area, self.colour)
        elif self.kind == "line":
            draw.line((0, SWATCH_PX // 2, SWATCH_PX, SWATCH_PX // 2), fill=self.colour, width=6)
        elif self.kind == "solid":
            draw.rectangle(inside, fill=self.colour)
        else:
            alpha, width = (GRID_ALPHA, 1) if self.kind == "grid" else (255, 3)
            draw.rectangle(inside, outline=(*self.colour, alpha), width=width)
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


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
    unreadable areas black, and what a rule dropped outlined and striped with the rule's colour. Patches are outlines,
    or dots if small, so that the stain stays visible. The legend names what is in the picture.

    Args:
        available_l0_px: (M, 2) corners of all eligible patches.
        taken_l0_px: (N, 2) corners of the sampled patches, with their `split` codes (N,).
    """
    height, width = tissue.mask.shape
    long_side = min(max(max(width, height), MIN_LONG_SIDE_PX), MAX_LONG_SIDE_PX)
    scale = long_side / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = Image.fromarray(tissue.thumbnail).resize(size, Image.Resampling.BICUBIC).convert("RGBA")
    dropped = {rule.name: rule.colour for rule in DROPPING if rule.colour and tissue.dropped_by(rule.name).any()}
    for name, colour in dropped.items():
        area = Image.fromarray(tissue.dropped_by(name)).resize(size, Image.Resampling.NEAREST)
        image = Image.alpha_composite(image, painted_area(np.asarray(area), colour))
    to_picture = scale / tissue.pixel_l0_px
    side = patch_l0_px * to_picture
    trained, held_out = (taken_l0_px[chosen] * to_picture for chosen in (split == TRAIN, split != TRAIN))
    layer = painted_patches(size, available_l0_px * to_picture, trained, held_out, side)
    draw = ImageDraw.Draw(layer)
    for contour in measure.find_contours(np.pad(tissue.mask, 1).astype(float), 0.5):
        points = [((x - 0.5) * scale, (y - 0.5) * scale) for y, x in contour]  # pad shifts by 1, pixel centres by half
        draw.line(points, fill=(*CONTOUR, 255), width=2)
    shown = {
        Swatch("tissue", CONTOUR, "line"): True,
        Swatch("eligible grid", GRID, "grid"): side >= MIN_OUTLINED_PX,
        Swatch("sampled: train", TRAINED, "patch"): len(trained) > 0,
        Swatch("sampled: held out", HELD_OUT, "patch"): len(held_out) > 0,
        **{Swatch(f"dropped: {name}", colour, "area"): True for name, colour in dropped.items()},
        Swatch("cannot be read", UNREADABLE, "solid"): bool(tissue.unreadable.any()),
    }
    legend = [swatch for swatch, is_shown in shown.items() if is_shown]
    _write_captioned(Image.alpha_composite(image, layer).convert("RGB"), title, legend, path)


def painted_patches(
    size: tuple[int, int],
    available: NDArray[np.float64],
    trained: NDArray[np.float64],
    held_out: NDArray[np.float64],
    side: float,
) -> Image.Image:
    """Squares with their corners at (N, 2) pixels of the picture, in a layer (RGBA) of its own: overlapping lines do
    not add up.
    """
    layer = Image.new("RGBA", size)
    draw = ImageDraw.Draw(layer)
    line_px = 1 if side < 24 else 2
    for corners, colour, alpha, outline_px in (
        (available, GRID, GRID_ALPHA, 1),
        (trained, TRAINED, 255, line_px),
        (held_out, HELD_OUT, 255, line_px),
    ):
        for x, y in corners:
            if side >= MIN_OUTLINED_PX:
                draw.rectangle((x, y, x + side, y + side), outline=(*colour, alpha), width=outline_px)
            elif colour != GRID:  # a grid of such small cells would be a grey veil
                middle, radius = (x + side / 2, y + side / 2), max(side / 6, 1)
                draw.ellipse(
                    (middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius),
                    fill=(*colour, alpha),
                )
    return layer


def painted_area(area: NDArray[np.bool_], colour: Rgb) -> Image.Image:
    """A layer (RGBA) with an area (H, W): its outline and stripes in full colour, and a thin veil between."""
    rows, columns = np.ogrid[: area.shape[0], : area.shape[1]]
    lines = (rows + columns) % STRIPE_STEP_PX < STRIPE_PX
    lines = lines | ~binary_erosion(area, iterations=OUTLINE_PX)
    layer = np.zeros((*area.shape, 4), np.uint8)
    layer[area] = (*colour, VEIL_ALPHA)
    layer[area & lines] = (*colour, 255)
    return Image.fromarray(layer)


def _write_captioned(image: Image.Image, title: str, legend: Iterable[Swatch], path: Path) -> None:
    """Write the picture with the title and the legend below it."""
    legend = list(legend)
    font = font_for([title, *(swatch.text for swatch in legend)], 18)
    pad, line_px, gap = 10, 26, 22
    measure_draw = ImageDraw.Draw(image)
    lines: list[list[Swatch]] = [[]]
    used = 0
    for swatch in legend:
        wide = int(measure_draw.textlength(swatch.text, font)) + SWATCH_PX + 6 + gap
        if lines[-1] and used + wide > max(image.width, MIN_LONG_SIDE_PX):
            lines.append([])
            used = 0
        lines[-1].append(swatch)
        used += wide
    widths = [sum(int(measure_draw.textlength(s.text, font)) + SWATCH_PX + 6 + gap for s in line) for line in lines]
    width = max(image.width, int(measure_draw.textlength(title, font)) + 2 * pad, *(2 * pad + wide for wide in widths))
    page = Image.new("RGB", (width, image.height + (len(lines) + 1) * line_px + 2 * pad), "white")
    page.paste(image, (0, 0))
    draw = ImageDraw.Draw(page)
    draw.text((pad, image.height + pad), title, fill=TEXT, font=font)
    for number, line in enumerate(lines, 1):
        x, y = pad, image.height + pad + number * line_px
        for swatch in line:
            page.paste(swatch.painted(), (x, y + 3))
            draw.text((x + SWATCH_PX + 6, y), swatch.text, fill=TEXT, font=font)
            x += int(draw.textlength(swatch.text, font)) + SWATCH_PX + 6 + gap
    buffer = BytesIO()
    page.save(buffer, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())
