"""Rules by the classes of annotations: which patches of a slide are kept, and how many of each class. Pure."""

import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

ZERO_WIDTH = str.maketrans("", "", "\u200b\u2060\ufeff")
"""Characters that no one sees in a name: zero-width spaces, which Python does not count as white space."""


def clean_class(written: str) -> str:
    """The name of a class in the one spelling that counts: accents composed (NFC), each run of white space one space,
    and none at its ends. Capitals count.
    """
    return unicodedata.normalize("NFC", " ".join(written.translate(ZERO_WIDTH).split()))


def ordered_classes(names: Iterable[str]) -> list[str]:
    """Each class once, by its clean name, and in order."""
    return sorted({clean_class(name) for name in names})


def ordered_quotas(texts: Iterable[str]) -> list[str]:
    """Quotas, each in one spelling, in order.

    Raises:
        ValueError: one is none (`parse_quota`), or a class has two.
    """
    shares = [parse_quota(text) for text in texts]
    if len({name for name, _ in shares}) < len(shares):
        raise ValueError("gives a class two shares")
    return [f"{name}={share!r}" for name, share in sorted(shares)]


def kept_quotas(texts: list[str]) -> list[str]:
    """Quotas as they are.

    Raises:
        ValueError: one is none (`parse_quota`).
    """
    for text in texts:
        parse_quota(text)
    return texts


def capitals_apart(name: str, classes: Iterable[str]) -> str:
    """ "; there is NAME, and capitals count" if only its capitals set a class apart from others; "" otherwise."""
    alike = [other for other in classes if other != name and other.casefold() == name.casefold()]
    return f"; there is {', '.join(alike)}, and capitals count" if alike else ""


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
        is_smaller_on_top: whether the smaller of two classes that overlap lies on top for quotas; else a patch counts
            for the class that has most of it, the first by name of equal ones, as in earlier versions.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    min_class: float = 0.5
    max_excluded: float = 0.0
    quotas: tuple[tuple[str, float], ...] = ()
    is_smaller_on_top: bool = False

    @property
    def named(self) -> dict[str, str]:
        """The classes that options name, each with its option."""
        quotas = [name for name, _ in self.quotas]
        pairs = (("--include", self.include), ("--exclude", self.exclude), ("--class-quota", quotas))
        return {name: flag for flag, names in reversed(pairs) for name in names}


def parse_quota(text: str) -> tuple[str, float]:
    """A class, by its clean name, and its share, from CLASS=SHARE.

    Raises:
        ValueError: it is not of that form, or the share is not a number above 0.
    """
    written, _, share = text.rpartition("=")
    name = clean_class(written)
    try:
        value = float(share)
    except ValueError:
        value = math.nan
    if not name or not 0 < value < math.inf:
        raise ValueError(f"{text!r} is not CLASS=SHARE with a share above 0, such as tumour=2")
    return name, value
