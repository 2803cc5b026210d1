"""How much faster tissue is found than by scipy's median filter and glass that is looked for among all pixels.

Both sides are `segment` on the same synthesised mask image of 3,125 x 2,500 pixels, a slide of 100,000 x 80,000 at 0.25
um/px, in one process, in turn; they give the same mask, which is checked. The slower side is the plain code that the
tests compare with: what earlier versions ran. Reading the slide is not in it.
"""

import sys
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import machine
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.base.console import table
from pipeline.slides.tissue import segment

NEEDED = 1.5
"""From the issue."""
PIXEL_UM = 8.0

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support import plain_glass as plain  # noqa: E402  (of the tests)
from support.slides import make_pixels  # noqa: E402  (likewise)


def plain_median(image: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """scipy's."""
    return np.asarray(ndimage.median_filter(image, (side, side, *(1,) * (image.ndim - 2)), mode="nearest"))


def segment_plainly(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """As earlier versions did."""
    parts = {
        "find_glass": plain.plain_glass,
        "find_background": plain.plain_background,
        "saturation_against_glass": plain.plain_saturation,
        "median_filter": plain_median,
        "brightest": lambda image: image.max(axis=2),
    }
    with ExitStack() as stack:
        for name, function in parts.items():
            stack.enter_context(mock.patch(f"pipeline.slides.tissue.{name}", function))
        return segment(image, PIXEL_UM)


def main() -> int:
    """Measure and print."""
    args = machine.parser(__doc__, rounds=5).parse_args()
    image = make_pixels("tissue", 3125, 2500, mpp=PIXEL_UM)
    assert np.array_equal(segment(image, PIXEL_UM), segment_plainly(image))
    parts = {"plain": lambda: segment_plainly(image), "as it is": lambda: segment(image, PIXEL_UM)}
    rounds = machine.measure_rounds(parts, wanted=args.rounds, patience=args.patience)
    print(table([(name, f"{rounds.seconds(name):.2f}") for name in parts], ("tissue finder", "s"), right=[1]))
    print(rounds.words())
    return machine.conclude(rounds.ratio(["plain"], ["as it is"]), at_least=NEEDED, quiet=rounds.quiet)


if __name__ == "__main__":
    sys.exit(main())
