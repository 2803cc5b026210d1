"""Balance a sample between groups of slides, such as centres: how many patches each slide gives. Pure.

Water filling: a number of patches is shared equally between the groups, those that have fewer give all of theirs, and
what is left over is shared between the others, and so on; within a group likewise between its slides. What does not
divide goes to groups and slides by a hash of their names, so that neither order nor workers matter. Left out: weights.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.cohort.draws.filling import fill_evenly


@dataclass(frozen=True)
class Candidates:
    """A slide as far as its share matters: its name, its group, and how many patches it has to choose from."""

    slide_id: str
    group: str
    available: int


def balanced_counts(slides: Sequence[Candidates], total: int, seed: int) -> dict[str, int]:
    """The number of patches of each slide, by its id, so that the groups give equally many as far as they can.

    Their sum is `total`, or all that there is if that is less.

    Args:
        slides: each with its own id.
        total: number of patches over all slides.
        seed: of the draw of what does not divide.
    """
    groups: dict[str, list[Candidates]] = {}
    for slide in slides:
        groups.setdefault(slide.group, []).append(slide)
    of_group = fill({name: sum(slide.available for slide in group) for name, group in groups.items()}, total, seed)
    counts: dict[str, int] = {}
    for name, group in groups.items():
        counts |= fill({slide.slide_id: slide.available for slide in group}, of_group[name], seed)
    return counts


def fill(room: Mapping[str, int], total: int, seed: int) -> dict[str, int]:
    """Share `total` equally between names that hold at most `room` each; the sum is `total`, or all the room there is.

    Raises:
        ValueError: a negative number.
    """
    if total < 0 or any(value < 0 for value in room.values()):
        raise ValueError("numbers of patches are not negative")
    names = sorted(room, key=lambda name: _place(name, seed))
    counts = fill_evenly([room[name] for name in names], [1] * len(names), total, range(len(names)))
    return dict(zip(names, counts, strict=True))


def _place(name: str, seed: int) -> bytes:
    """Where a name comes in the draw."""
    return hashlib.sha256(f"balance\0{seed}\0{name}".encode()).digest()
