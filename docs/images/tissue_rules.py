"""Draw docs/images/tissue_rules.png: a synthesised slide, its tissue as earlier versions found it, and as it is found.

Run as `python docs/images/tissue_rules.py` in a checkout with G2L installed. The slide has what the rules are for: pale
tissue beside dark, stain that ran out over the glass, a pen, and a scanner's border.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from pipeline.config.tissue_rules import EARLIER_RULES, RuleName, rules_in_use
from pipeline.slides.artefacts.rules import DROPPING, drop_artefacts
from pipeline.slides.tissue import TissueMask, look_for_tissue

HEIGHT, WIDTH, PIXEL_UM = 420, 400, 8.0
GLASS, DARK, PALE, INK = (243, 243, 242), (190, 110, 165), (236, 216, 227), (60, 160, 130)


def piece(y: float, x: float, radius_y: float, radius_x: float, seed: int) -> NDArray[np.bool_]:
    """A piece of tissue with an uneven outline."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    uneven = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(HEIGHT, WIDTH)), 12) * 8
    return np.asarray(((rows - y) / radius_y) ** 2 + ((columns - x) / radius_x) ** 2 + uneven < 1)


def stain(image: NDArray[np.float64], where: NDArray[np.bool_], colour: tuple[int, int, int], seed: int) -> None:
    """Stain some places: light passes by the law of Beer and Lambert."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.normal(size=where.shape), width) for width in (0.8, 2, 6)]
    uneven = np.sum([field / field.std() for field in fields], axis=0)
    density = np.clip(1 + 0.4 * uneven / uneven.std(), 0.2, 3) * where
    image *= np.exp(np.log(np.array(colour) / 243) * density[..., None])


def make_slide() -> NDArray[np.uint8]:
    """The picture of the slide."""
    rng = np.random.default_rng(0)
    image = np.array(GLASS, float) + rng.normal(0, 1, (HEIGHT, WIDTH, 3))
    stain(image, piece(150, 120, 90, 75, 1), DARK, 1)
    stain(image, piece(190, 200, 70, 90, 2), PALE, 2)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    haze = np.exp(-((rows - 340) ** 2 + (columns - 110) ** 2) / 3500)
    image *= 1 - haze[..., None] * (0.02, 0.12, 0.05)
    stroke = np.abs(np.hypot(rows - 340, columns - 310) - 42) < 6
    image[stroke] = np.array(INK) + rng.normal(0, 3, (int(stroke.sum()), 3))
    image[:30] = image[:, -20:] = (48, 54, 62)
    image[:30] += rng.normal(0, 4, image[:30].shape)
    image[:, -20:] += rng.normal(0, 4, image[:, -20:].shape)
    return image.round().clip(0, 255).astype(np.uint8)


def judged(image: NDArray[np.uint8], rules: tuple[RuleName, ...]) -> Image.Image:
    """The picture with what is no tissue greyed, and what rules dropped in their colours."""
    nothing = np.zeros(image.shape[:2], bool)
    found = look_for_tissue(image, PIXEL_UM, nothing, rules)
    mask = TissueMask(found.mask, 1.0, nothing, image, found.reasons, tuple(found.glass), rules)
    mask = drop_artefacts(mask, PIXEL_UM)
    shown = image.copy()
    shown[~mask.mask] = shown[~mask.mask] // 4 + 150
    for rule in DROPPING:
        if rule.colour is not None and rule.name not in EARLIER_RULES:
            shown[mask.dropped_by(rule.name)] = rule.colour
    return Image.fromarray(shown)


def main() -> None:
    """Draw the picture."""
    image = make_slide()
    panels = {
        "the slide": Image.fromarray(image),
        "tissue, earlier versions": judged(image, EARLIER_RULES),
        "tissue, now": judged(image, rules_in_use([], [])),
    }
    gap, top = 16, 30
    page = Image.new("RGB", (3 * WIDTH + 2 * gap, HEIGHT + top + 30), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=17)
    for number, (title, panel) in enumerate(panels.items()):
        page.paste(panel, (number * (WIDTH + gap), top))
        draw.text((number * (WIDTH + gap), 4), title, fill=(25, 25, 25), font=font)
    x = page.width - 460
    for rule in DROPPING:
        if rule.name in ("border", "haze", "pen"):
            draw.rectangle((x, HEIGHT + top + 10, x + 13, HEIGHT + top + 23), fill=rule.colour)
            draw.text((x + 20, HEIGHT + top + 6), f"dropped: {rule.name}", fill=(25, 25, 25), font=font)
            x += 155
    page.save(Path(__file__).with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    main()
