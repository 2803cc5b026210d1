"""Find TCGA barcodes in file names: the slide's case and source site, and whether it is a frozen section. Pure.

The barcode may be in lower case, follow a prefix (`BRCA_TCGA-3C-AALI-...`, `brcaTCGA-3C-AALI`), have dots or
underscores for dashes, as R writes names, or the dashes of word processors, or run into the sample's code
(`TCGA-3C-AALI01A`). Left out: names without separators (`TCGA3CAALI`), which any word may begin like.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

BARCODE = re.compile(
    r"TCGA(?:([-._ ])\1*([A-Z0-9]{2})\1+([A-Z0-9]{4})(?=(?:[0-9]{2}[A-Z]?)?(?:[^A-Z0-9]|$))"
    r"|[-._ ]+([A-Z0-9]{2})[-._ ]+([A-Z0-9]{4})(?=[-._ ]+[0-9]{2}[A-Z]?(?:[^A-Z0-9]|$)))",
    re.IGNORECASE | re.ASCII,
)
"""Source site (group 2 or 4) and participant (3 or 5), optionally followed by the sample's two digits and vial;
docs.gdc.cancer.gov/Encyclopedia/pages/TCGA_Barcode. Where separators are mixed, the sample must follow: `TCGA-LU_scan`
is no barcode.
"""
SECTION = re.compile(r"[-._ ](DX|TS|BS|MS)[0-9A-Z]{1,2}(?=[^A-Z0-9]|$)", re.IGNORECASE | re.ASCII)
"""The slide of a barcode: DX, a diagnostic one, fixed in formalin; TS, BS and MS, the top, bottom and middle section
of a frozen sample. docs.gdc.cancer.gov/Encyclopedia/pages/TCGA_Barcode.
"""
GDC_UUID = re.compile(r"\.[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12}$", re.IGNORECASE | re.ASCII)
"""What follows the barcode in the names of the GDC's slide files: `TCGA-3C-AALI-01Z-00-DX1.F6E9A5DF-D8FB-....svs`."""
DIAGNOSTIC, TISSUE = "DX", "tissue slide"
SLIDE_TYPES = {"diagnostic slide": DIAGNOSTIC, "tissue slide": TISSUE}
"""What the GDC calls slides (`experimental_strategy`), in lower case, and the kinds that are told apart here."""
NAMED = 3
"""Slides that a warning names. Our choice."""
DASHES = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63", "-")
    | {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
)
"""Dashes and minus signs of word processors, and full-width characters, which Chinese and Japanese keyboards write."""


@dataclass(frozen=True)
class Barcode:
    """A barcode's case, as TCGA writes it, and the code of its source site."""

    case_id: str
    site: str


def find_barcode(text: str) -> Barcode | None:
    """The barcode in a name; `None` if there is none, or if there are several of different cases."""
    barcodes = barcodes_in(text)
    return barcodes.pop() if len(barcodes) == 1 else None


def barcode_of_path(parts: Iterable[str]) -> Barcode | None:
    """The barcode in a file's name or, failing that, of the nearest folder that has one; `parts` are the path's."""
    with_barcode = (part for part in reversed(list(parts)) if barcodes_in(part))
    return find_barcode(next(with_barcode, ""))


def without_uuid(name: str) -> str:
    """A slide's name without the UUID that the GDC puts behind its barcode; any other name as it is."""
    return GDC_UUID.sub("", name) if find_barcode(name) else name


def frozen_sections(slides: Iterable[tuple[str, str]]) -> list[str]:
    """Warnings of frozen sections, beside diagnostic slides or alone, and of tissue slides beside diagnostic ones.

    Args:
        slides: path, and the kind of slide that the GDC gives (`slide_type`), "" where there is none. A barcode's
            section says more and comes first. Tissue slides alone are not warned of: a project may file all of its
            slides so.
    """
    kinds: dict[str, list[str]] = {}
    for path, slide_type in slides:
        name = path.rpartition("/")[2]
        sections = SECTION.findall(name.translate(DASHES)) if find_barcode(name) else []
        kind = sections[0].upper() if sections else SLIDE_TYPES.get(slide_type.strip().lower(), "")
        kinds.setdefault(kind, []).append(name)
    kinds.pop("", None)
    tissue, diagnostic = kinds.pop(TISSUE, []), kinds.pop(DIAGNOSTIC, [])
    frozen = [name for names in kinds.values() for name in names]
    beside = f" beside {len(diagnostic)} diagnostic ones" if diagnostic else ""
    warnings = []
    if frozen:
        warnings.append(
            f"{len(frozen)} of the slides are frozen sections ({', '.join(sorted(kinds))} in the name){beside}: "
            f"{_some(frozen)}. Ice crystals change how tissue looks; remove one of the two kinds unless you want both"
        )
    if tissue and diagnostic:
        warnings.append(
            f"{len(tissue)} of the slides are tissue slides by slide_type{beside}: {_some(tissue)}. In TCGA these are "
            "frozen sections, in which ice crystals change how tissue looks; other projects may file any slide so. "
            "Look at some, and remove one of the two kinds unless you want both"
        )
    return warnings


def _some(names: Iterable[str]) -> str:
    """The first names, and whether there are more."""
    ordered = sorted(names)
    return ", ".join(ordered[:NAMED]) + (", ..." if len(ordered) > NAMED else "")


def barcodes_in(text: str) -> set[Barcode]:
    """All barcodes in a name, of one case or of several."""
    text = text if text.isascii() else text.translate(DASHES)
    if "TCGA" not in text.upper():  # most cells of a table: quicker than the expression
        return set()
    codes = {(match[2] or match[4], match[3] or match[5]) for match in BARCODE.finditer(text)}
    return {Barcode(f"TCGA-{site}-{participant}".upper(), site.upper()) for site, participant in codes}
