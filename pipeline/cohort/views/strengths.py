"""How strong the views of a patch are: the table behind `extract-teacher --views-strength`. Pure.

A name stands for these numbers in every store that says it: to change a number, add a name. A view is made in the order
of the fields of `Strength`; each part happens with its own probability, by a draw of its own.
"""

from dataclasses import dataclass
from typing import Final

EARLIER: Final = "mild"
"""Strength of stores that name none; without a tile around the patch its views are theirs to the bit."""


@dataclass(frozen=True)
class Rescale:
    """The part of the tile that becomes the patch has another side, drawn uniformly among the whole pixels between
    `smallest` and `largest` times the patch's, and never more than the tile's; it is resampled to the patch.
    """

    probability: float
    smallest: float
    largest: float


@dataclass(frozen=True)
class Stain:
    """The amounts of haematoxylin, eosin and residual change by a factor each, uniform in 1 -+ `change`. `word` is the
    purpose of its draw.
    """

    probability: float
    change: float
    word: str


@dataclass(frozen=True)
class Colours:
    """Brightness, contrast and saturation change by a factor each, uniform in 1 -+ their number; hue turns by a share
    of a full turn, uniform in -+ `hue`. The four follow each other in a random order.
    """

    probability: float
    brightness: float
    contrast: float
    saturation: float
    hue: float


@dataclass(frozen=True)
class Blur:
    """A Gaussian of 9 x 9 pixels whose standard deviation is uniform between two numbers of thousandths of a pixel."""

    probability: float
    smallest_milli_px: int
    largest_milli_px: int


@dataclass(frozen=True)
class Compression:
    """What JPEG leaves at a quality that is uniform between two whole numbers."""

    probability: float
    lowest: int
    highest: int


@dataclass(frozen=True)
class Strength:
    """What happens to a patch, in this order; `None` or false where it does not. A store that keeps tiles crops each
    view at a place of its own, whatever the strength.

    Attributes:
        rescale: another side of the part that is cropped.
        flips: left and right, and top and bottom, each exchanged with probability 0.5.
        turn: purpose of the draw of one of the eight flips and quarter turns, all equally likely.
        stain, colours, blur, compression: what their classes say.
    """

    rescale: Rescale | None = None
    flips: bool = False
    turn: str | None = None
    stain: Stain | None = None
    colours: Colours | None = None
    blur: Blur | None = None
    compression: Compression | None = None


VIEW_STRENGTHS: Final = {
    "none": Strength(),
    "flips": Strength(flips=True),
    "mild": Strength(turn="view", stain=Stain(1.0, 0.05, "view")),
    "paper": Strength(flips=True, colours=Colours(0.5, 0.15, 0.15, 0.1, 0.05), blur=Blur(0.1, 100, 2000)),
    "strong": Strength(
        rescale=Rescale(0.5, 0.8, 1.25),
        turn="view turn",
        stain=Stain(0.5, 0.2, "view stain"),
        colours=Colours(0.8, 0.3, 0.3, 0.2, 0.1),
        blur=Blur(0.2, 100, 2000),
        compression=Compression(0.3, 40, 95),
    ),
}
"""The strengths by name.

none: crops only. flips: those of the paper and nothing else, so that an ablation can tell what they are worth.
mild: `change` is the multiplicative part of HED-light, Tellez et al., "Quantifying the effects of data augmentation and
stain color normalization in convolutional neural networks for computational pathology", Medical Image Analysis, 2019;
turn and stain share one draw, as in every store made before there were strengths.
paper: G2L (arXiv 2510.11176), whose text gives the probabilities, the four numbers of the colours and the kernel; the
range of the standard deviation is our choice, the default of torchvision's `GaussianBlur`.
strong: our choice. Twice the paper's colours, the stain of HED-strong of Tellez et al., the qualities that scanners and
archives use, and a quarter more or a fifth less tissue in the patch.
"""
