"""The classes of annotations on the patches of a slide: which share of a patch's area lies in each. Pure."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASS_DECIMALS = 4
"""Decimals of a class's share of a patch. Our choice: five pixels of a patch of 224, far finer than anyone draws, and
far coarser than what two versions of a geometry library may differ by; so that a plan is the same on every machine.
"""


@dataclass(frozen=True, eq=False)
class PatchClasses:
    """The classes of a slide's annotations on N patches.

    Attributes:
        names: the slide's C classes, sorted.
        fractions: float32 (N, C), the share of each patch's area in each class, 0 to 1. Regions of different classes
            may overlap, so that a row may sum to more than 1.
    """

    names: tuple[str, ...]
    fractions: NDArray[np.float32]

    def take(self, which: NDArray[Any]) -> "PatchClasses":
        """Those of some patches, by indices or by a mask."""
        return PatchClasses(self.names, self.fractions[which])

    def of(self, names: Sequence[str]) -> NDArray[np.float64]:
        """The shares of these classes: float64 (N, len(names)), of `CLASS_DECIMALS`, so that a stored 0.9 is not less
        than 0.9; 0 of a class that the slide lacks.
        """
        columns = np.zeros((len(self.fractions), len(names)))
        for index, name in enumerate(names):
            if name in self.names:
                columns[:, index] = self.fractions[:, self.names.index(name)]
        return columns.round(CLASS_DECIMALS)

    def content(self) -> dict[str, Any]:
        """The part of a plan's hash that covers them."""
        digest = hashlib.sha256(np.ascontiguousarray(self.fractions, "<f4").data).hexdigest()
        return {"names": list(self.names), "fractions": digest}


def checked_classes(names: Any, fractions: NDArray[Any], num_patches: int) -> PatchClasses:
    """The classes of N patches out of a file.

    Raises:
        ValueError: they are not what `PatchClasses` holds.
    """
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("the names of classes are not a list of texts")
    if fractions.shape != (num_patches, len(names)) or fractions.dtype != np.float32:
        raise ValueError(f"class fractions of shape {fractions.shape} and type {fractions.dtype}")
    return PatchClasses(tuple(names), fractions)
