"""Versions of the packages that numbers depend on: recorded with every output, compared when one is continued."""

import platform
from collections.abc import Mapping
from importlib import metadata

RECORDED = ("g2l", "torch", "timm", "numpy", "openslide-python", "openslide-bin", "pillow", "imagecodecs", "zarr",
            "scikit-learn", "scipy", "croma")  # fmt: skip
"""Packages whose versions stand in a record."""
DECIDING = ("torch", "timm", "numpy", "openslide-python", "openslide-bin", "pillow", "imagecodecs")
"""Those by which an embedding or a pixel may differ: arithmetic, architectures, resampling, decoders."""


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on, by package; one that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in RECORDED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def other_versions(recorded: Mapping[str, str]) -> list[str]:
    """The `DECIDING` packages of another version than was recorded, as `torch 2.6 -> 2.8`; those that are not recorded
    are passed over.
    """
    now = versions()
    return [
        f"{name} {recorded[name]} -> {now.get(name, 'none')}"
        for name in DECIDING
        if name in recorded and recorded[name] != now.get(name)
    ]


def continued_note(what: object, recorded: Mapping[str, str]) -> str:
    """The words when `what` is continued under other versions than it was begun with; "" if they are the same."""
    others = other_versions(recorded)
    if not others:
        return ""
    return (
        f"note: {what} is continued under other versions (begun with -> now): {', '.join(others)}. What is added may "
        "differ in the last digits from what is there; for one and the same arithmetic, continue with the versions it "
        "was begun with"
    )
