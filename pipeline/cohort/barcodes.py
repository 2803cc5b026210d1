"""Find TCGA barcodes in file names: the slide's case and source site. Pure.

The barcode may be in lower case, follow a prefix (`BRCA_TCGA-3C-AALI-...`, `brcaTCGA-3C-AALI`), have dots or
underscores for dashes, as R writes names, or run into the sample's code (`TCGA-3C-AALI01A`).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

BARCODE = re.compile(
    r"TCGA([-._ ])([A-Z0-9]{2})\1([A-Z0-9]{4})(?=(?:[0-9]{2}[A-Z]?)?(?:[^A-Z0-9]|$))", re.IGNORECASE | re.ASCII
)
"""Source site (group 2) and participant (group 3), optionally followed by the sample's two digits and vial;
docs.gdc.cancer.gov/Encyclopedia/pages/TCGA_Barcode.
"""


@dataclass(frozen=True)
class Barcode:
    """A barcode's case, as TCGA writes it, and the code of its source site."""

    case_id: str
    site: str


def find_barcode(text: str) -> Barcode | None:
    """The barcode in a name; `None` if there is none, or if there are several of different cases."""
    barcodes = {
        Barcode(f"TCGA-{site}-{participant}".upper(), site.upper()) for _, site, participant in BARCODE.findall(text)
    }
    return barcodes.pop() if len(barcodes) == 1 else None


def barcode_of_path(parts: Iterable[str]) -> Barcode | None:
    """The barcode in a file's name or, failing that, of the nearest folder that has one; `parts` are the path's."""
    with_barcode = (part for part in reversed(list(parts)) if BARCODE.search(part))
    return find_barcode(next(with_barcode, ""))
