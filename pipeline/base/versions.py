"""Versions of the packages that results depend on: recorded with every output, compared when one is continued."""

import platform
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata

RECORDED = (
    "g2l",
    "torch",
    "timm",
    "numpy",
    "openslide-python",
    "openslide-bin",
    "pillow",
    "imagecodecs",
    "zarr",
    "scikit-learn",
    "scipy",
    "croma",
)
"""Packages whose versions are recorded."""
DECIDING = ("torch", "timm", "numpy", "openslide-python", "openslide-bin", "pillow", "imagecodecs")
"""Packages that may change an embedding or a pixel: arithmetic, architectures, resampling, decoders."""


def versions() -> dict[str, str]:
    """Installed versions of `RECORDED`, by package, and of Python; leaves out packages that are not installed."""
    installed = {"python": platform.python_version()}
    return installed | {name: version for name in RECORDED if (version := _installed(name)) is not None}


@cache
def _installed(name: str) -> str | None:
    """A package's version, `None` if it is not installed; 10 ms, the first time."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def other_versions(recorded: Mapping[str, str], packages: Sequence[str] = DECIDING) -> list[str]:
    """Those of `packages` whose version differs from the recorded one, as `torch 2.6 -> 2.8`; skips packages that were
    not recorded.
    """
    now = versions()
    return [
        f"{name} {recorded[name]} -> {now.get(name, 'none')}"
        for name in packages
        if name in recorded and recorded[name] != now.get(name)
    ]


def continued_note(what: object, recorded: Mapping[str, str]) -> str:
    """The note that `what` is continued under other versions than it was begun with; "" if they are the same."""
    others = other_versions(recorded)
    if not others:
        return ""
    return (
        f"note: {what} is continued under other versions (begun with -> now): {', '.join(others)}. New results may "
        "differ from the earlier ones in the last digits; to avoid this, continue with the versions it was begun with"
    )
