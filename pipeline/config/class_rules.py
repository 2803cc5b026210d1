"""Rules by the classes of annotations: which patches of a slide are kept, and how many of each class. Pure."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ClassRules:
    """What the classes of annotations decide about a slide's patches.

    Attributes:
        include: a patch needs `min_class` of its area in these classes together; empty: no such rule.
        exclude: a patch may have `max_excluded` of its area in these classes together.
        min_class: share of a patch's area from which on it is of a class, 0 to 1.
        max_excluded: largest share of a patch's area in excluded classes, 0 to 1.
        quotas: (class, share) of a sample by class; shares are relative to each other. Empty: equal shares of the
            classes that the slide has.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    min_class: float = 0.5
    max_excluded: float = 0.0
    quotas: tuple[tuple[str, float], ...] = ()

    @property
    def named(self) -> dict[str, str]:
        """The classes that options name, each with its option."""
        quotas = [name for name, _ in self.quotas]
        pairs = (("--include", self.include), ("--exclude", self.exclude), ("--class-quota", quotas))
        return {name: flag for flag, names in reversed(pairs) for name in names}


def parse_quota(text: str) -> tuple[str, float]:
    """A class and its share, from CLASS=SHARE.

    Raises:
        ValueError: it is not of that form, or the share is not a number above 0.
    """
    name, _, share = text.rpartition("=")
    try:
        value = float(share)
    except ValueError:
        value = math.nan
    if not name or not 0 < value < math.inf:
        raise ValueError(f"{text!r} is not CLASS=SHARE with a share above 0, such as tumour=2")
    return name, value
