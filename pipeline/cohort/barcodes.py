"""TCGA barcodes in names of files: whose slide it is, and where it is from. Pure.

A name may have the barcode in small letters, behind a prefix (`BRCA_TCGA-3C-AALI-...`, `brcaTCGA-3C-AALI`), with dots
or underscores in place of the dashes, as R writes names, or with the sample's code right behind it (`TCGA-3C-AALI01A`).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

BARCODE = re.compile(
    r"TCGA([-._ ])([A-Z0-9]{2})\1([A-Z0-9]{4})(?=(?:[0-9]{2}[A-Z]?)?(?:[^A-Z0-9]|$))", re.IGNORECASE | re.ASCII
)
"""Source site (2) and participant (3), perhaps with the sample's two digits and vial behind them;
docs.gdc.cancer.gov/Encyclopedia/pages/TCGA_Barcode.
"""


@dataclass(frozen=True)
class Barcode:
    """What a barcode says: the case, as TCGA writes it, and the code of its source site."""

    case_id: str
    site: str


def find_barcode(text: str) -> Barcode | None:
    """The barcode in a name; `None` if there is none, or there are several of different cases."""
    found = {
        Barcode(f"TCGA-{site}-{participant}".upper(), site.upper()) for _, site, participant in BARCODE.findall(text)
    }
    return found.pop() if len(found) == 1 else None


def barcode_of_path(parts: Iterable[str]) -> Barcode | None:
    """The barcode in a file's name or, if that has none, in the nearest folder that has one; `parts` is the path."""
    with_barcode = (part for part in reversed(list(parts)) if BARCODE.search(part))
    return find_barcode(next(with_barcode, ""))
