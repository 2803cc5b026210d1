"""How much of what others drew as artefact on real slides is dropped.

The artefacts of the other scripts are planted by ours, and rules may suit what their authors plant. Here the masks are
another tool's, of pen and coverslip edges that are really there. The folder has a table `overviews.csv` whose columns
`path` and `artefact_mask` name pictures of slides and masks of the same size, in which 255 is artefact. Tissue is found
and the rules that are on by default drop what they find, as `g2l plan` does, at several scales, because the um per
pixel of such pictures is not known. By picture and scale: the share of the drawn area that is not left as tissue, what
would be left of it without the rules, and what each rule drops beyond it, in % of the picture: a mask of pen says
nothing about borders and haze.
"""

import csv
import sys
from pathlib import Path

import machine
import numpy as np
from artefacts import DROPPED, Mask, percent
from numpy.typing import NDArray
from PIL import Image

from pipeline.base.console import table
from pipeline.config.tissue_rules import RuleName, rules_in_use
from pipeline.slides.artefacts.rules import DROPPING, drop_artefacts
from pipeline.slides.tissue import TissueMask, look_for_tissue

WITHOUT: tuple[RuleName, ...] = tuple(rule.name for rule in DROPPING)


def read_table(folder: Path) -> list[tuple[str, NDArray[np.uint8], Mask]]:
    """Name, picture (H, W, 3) and drawn artefacts (H, W) of each picture that has a mask."""
    with (folder / "overviews.csv").open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["artefact_mask"]]
    return [
        (
            Path(row["path"]).stem,
            np.asarray(Image.open(folder / row["path"]).convert("RGB")),
            np.asarray(Image.open(folder / row["artefact_mask"]).convert("L")) > 127,
        )
        for row in rows
    ]


def find(image: NDArray[np.uint8], pixel_um: float, skipped: tuple[RuleName, ...]) -> TissueMask:
    """The tissue of a picture by the rules that are on by default, without some."""
    rules, unreadable = rules_in_use(skipped, ()), np.zeros(image.shape[:2], bool)
    seen = look_for_tissue(image, pixel_um, unreadable, rules)
    found = TissueMask(seen.mask, pixel_um, unreadable, image, seen.reasons, tuple(seen.glass), rules)
    return drop_artefacts(found, pixel_um)


def main() -> int:
    """Find, compare and print."""
    parser = machine.parser(__doc__, rounds=0)
    parser.add_argument("folder", type=Path, help="with overviews.csv")
    parser.add_argument("--mpp", type=float, nargs="+", default=[4, 8, 16, 32], help="um per pixel [%(default)s]")
    args = parser.parse_args()
    lines, dropped = [], []
    for name, image, drawn in read_table(args.folder):
        for pixel_um in args.mpp:
            found = find(image, pixel_um, ())
            without = find(image, pixel_um, WITHOUT)
            dropped.append(float((~found.mask)[drawn].mean()))
            beyond = {rule.name: float((found.dropped_by(rule.name) & ~drawn).mean()) for rule in DROPPING}
            words = ", ".join(f"{rule} {percent(share)}" for rule, share in beyond.items() if share >= 0.001)
            left = float(without.mask[drawn].mean())
            lines.append(
                (name, f"{pixel_um:g}", percent(dropped[-1]), percent(left), percent(found.mask.mean()), words)
            )
    header = ("picture", "um/px", "dropped, %", "left without rules, %", "tissue, %", "dropped beyond it, %")
    print(table(lines, header, right=range(1, 5)))
    return machine.conclude(min(dropped, default=0.0) / DROPPED, at_least=1.0)


if __name__ == "__main__":
    sys.exit(main())
