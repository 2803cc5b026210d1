"""How much faster tissue is found than by scipy's median filter and glass that is looked for among all pixels; and with
`--rules`, how much longer a slide's audit takes by all rules that are on than by those of earlier versions.

Without `--rules` both sides are `segment` on the same synthesised mask image of 3,125 x 2,500 pixels, a slide of
100,000 x 80,000 at 0.25 um/px, in one process, in turn; they give the same mask, which is checked. The slower side is
the plain code that the tests compare with: what earlier versions ran. Reading the slide is not in it.

With `--rules` both sides are what `g2l plan` does for one slide: open it, read it at 8 um/px, find tissue, lay the
grid, sample and measure patches. The slide is synthesised, 100,000 x 80,000 pixels at 0.25 um/px in three levels: of
smaller ones the tissue finder has a smaller part.
"""

import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import machine
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.base.console import table
from pipeline.cohort.manifest.rows import Manifest, ManifestRow
from pipeline.config.plan import PlanConfig
from pipeline.config.tissue_rules import LATER_RULES, RuleName
from pipeline.slides.tissue import segment
from stages.planning.audit_slide import audit_slide

NEEDED = 1.5
"""From the issue."""
RULES_MOST = 1.5
"""Times the audit by earlier rules; from the issue."""
PATCHES_MEASURED = 24
"""Of each slide; as `g2l plan` does for few slides."""
PIXEL_UM = 8.0

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support import plain_glass as plain  # noqa: E402  (of the tests)
from support.slides import make_pixels, make_vast_slide  # noqa: E402  (likewise)


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


def compare_rules(wanted: int, patience: float) -> int:
    """Measure the audit of a slide by all rules and by the earlier ones."""
    with TemporaryDirectory() as folder:
        path = make_vast_slide(Path(folder) / "a.svs", downsamples=(1, 4, 16))
        row = ManifestRow("a", path.name, "a")
        manifest = Manifest((row,), Path(folder) / "m.csv", Path(folder))

        def audit(skipped: list[RuleName]) -> object:
            config = PlanConfig(skip_rule=skipped)
            audited = audit_slide(row, manifest, config.grid, config.sampling, False, None, PATCHES_MEASURED)
            assert audited.audit.status == "ok", audited.audit.reason
            return audited

        parts = {"earlier rules": lambda: audit(LATER_RULES), "all rules": lambda: audit([])}
        rounds = machine.measure_rounds(parts, wanted=wanted, patience=patience)
    print(table([(name, f"{rounds.seconds(name):.2f}") for name in parts], ("audit of a slide", "s"), right=[1]))
    print(rounds.words())
    return machine.conclude(rounds.ratio(["all rules"], ["earlier rules"]), at_most=RULES_MOST, quiet=rounds.quiet)


def main() -> int:
    """Measure and print."""
    parser = machine.parser(__doc__, rounds=5)
    parser.add_argument("--rules", action="store_true", help="compare all rules with the earlier ones")
    args = parser.parse_args()
    if args.rules:
        return compare_rules(args.rounds, args.patience)
    image = make_pixels("tissue", 3125, 2500, mpp=PIXEL_UM)
    assert np.array_equal(segment(image, PIXEL_UM), segment_plainly(image))
    parts = {"plain": lambda: segment_plainly(image), "as it is": lambda: segment(image, PIXEL_UM)}
    rounds = machine.measure_rounds(parts, wanted=args.rounds, patience=args.patience)
    print(table([(name, f"{rounds.seconds(name):.2f}") for name in parts], ("tissue finder", "s"), right=[1]))
    print(rounds.words())
    return machine.conclude(rounds.ratio(["plain"], ["as it is"]), at_least=NEEDED, quiet=rounds.quiet)


if __name__ == "__main__":
    sys.exit(main())
