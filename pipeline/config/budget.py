"""Parse the budget of a plan: a number of patches, bytes of a store, or hours of a teacher. Pure."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

BYTES = {
    **{f"{prefix}B": 1000**power for power, prefix in enumerate(("M", "G", "T", "P"), 2)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate(("M", "G", "T", "P"), 2)},
}
"""Units of a store's size; a store of kilobytes is a slip of the pen."""
SECONDS = {"min": 60, "h": 3600, "d": 86_400}
"""Units of time."""
FORMS = "a number of patches (500000), bytes of the store (200GB, 1.5TB, 800GiB), or time of stage one (90min, 12h, 2d)"
AMOUNT = re.compile(r"(\d+(?:[,_]\d{3})*(?:\.\d+)?) *([A-Za-z]*)", re.ASCII)
LARGEST = 10**21
"""A budget beyond this is a slip of the pen. Our choice: a thousand exabytes."""

BudgetKind = Literal["patches", "bytes", "seconds"]


@dataclass(frozen=True)
class Budget:
    """What a cohort's patches may come to.

    Attributes:
        text: as the user wrote it, without spaces and separators of thousands; the same for the same budget and unit.
        kind: what is limited.
        amount: how many of these.
    """

    text: str
    kind: BudgetKind
    amount: int


def parse_budget(text: str) -> Budget:
    """Parse a budget. Units are taken in the usual capitals or in small letters only: 200Gb would be bits.

    Raises:
        ValueError: it is none of `FORMS`, nothing, or not a whole number of patches.
    """
    match = AMOUNT.fullmatch(text.strip())
    if not match:
        raise ValueError(f"should be {FORMS}")
    digits, unit = re.sub("[,_]", "", match[1]), match[2]
    kinds: dict[str, tuple[BudgetKind, int]] = {"": ("patches", 1)}
    kinds |= {name: ("bytes", size) for name, size in BYTES.items()}
    kinds |= {name: ("seconds", length) for name, length in SECONDS.items()}
    spelled = {name.lower(): name for name in kinds} | {name: name for name in kinds}
    if unit not in spelled:
        raise ValueError(f"has the unit {unit!r}; should be {FORMS}")
    kind, size = kinds[spelled[unit]]
    exact = Fraction(digits) * size
    if kind == "patches" and exact.denominator != 1:
        raise ValueError("should be a whole number of patches")
    if not 1 <= exact <= LARGEST:
        one = {"patches": "patch", "bytes": "byte", "seconds": "second"}[kind]
        raise ValueError(f"should be at least 1 {one}: {FORMS}" if exact < 1 else "is too much to mean anything")
    return Budget(digits + spelled[unit], kind, int(exact))
