"""A part of a plan's shards, done by a job of its own into a store of its own, without any word between the jobs.

Part I of N has the shards from S*(I-1)//N to S*I//N of S: neighbours, so that each part reads few slides. Its store is
that of the whole plan, with the shards of the part; the attribute `part` says so.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pipeline.base.errors import ConfigError, StoreError
from pipeline.cohort.plan import Plan, SlidePlan

PART = "part"
"""Attribute of a store that is a part: [number, how many there are]."""


@dataclass(frozen=True)
class StorePart:
    """Part `number`, from 1, of `count`."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """A part from "I/N".

        Raises:
            ConfigError: it is none.
        """
        found = re.fullmatch(r"([0-9]{1,7})/([0-9]{1,7})", text)
        part = cls(*map(int, found.groups())) if found else None
        if part is None or not 1 <= part.number <= part.count:
            raise ConfigError(f"--part {text}: a part is I/N, such as 1/8 for the first of eight")
        return part

    def shards(self, num_shards: int) -> range:
        """The part's shards, of `num_shards`.

        Raises:
            ConfigError: there are fewer shards than parts.
        """
        if num_shards < self.count:
            raise ConfigError(
                f"--part {self}: the plan has {num_shards} shards, which cannot be divided into {self.count} parts. "
                "Make fewer parts, or smaller shards with --rows-per-shard"
            )
        return range(num_shards * (self.number - 1) // self.count, num_shards * self.number // self.count)

    def rows(self, num_rows: int, rows_per_shard: int) -> range:
        """The part's rows, of `num_rows`; raises as `shards`."""
        rows_per_shard = min(rows_per_shard, num_rows)
        shards = self.shards(-(-num_rows // rows_per_shard))
        return range(shards.start * rows_per_shard, min(shards.stop * rows_per_shard, num_rows))

    def slides(self, plan: Plan, rows_per_shard: int) -> list[SlidePlan]:
        """The slides that a part of a plan reads."""
        rows, slide_of_row = self.rows(plan.num_rows, rows_per_shard), plan.slide_of_row()
        return list(plan.slides[int(slide_of_row[rows[0]]) : int(slide_of_row[rows[-1]]) + 1])

    def note(self) -> dict[str, list[int]]:
        """What a store says of the part that it is."""
        return {PART: [self.number, self.count]}


def part_of(attributes: Mapping[str, Any]) -> StorePart | None:
    """The part that a store is, by its attributes; `None` for a whole one.

    Raises:
        ValueError: the attribute is no part.
    """
    if PART not in attributes:
        return None
    match attributes[PART]:
        case [int(number), int(count)] if 1 <= number <= count:
            return StorePart(number, count)
    raise ValueError(f"part is {attributes[PART]!r}")


def require_part(folder: Path, there: StorePart | None, part: StorePart | None) -> None:
    """See that the store in `folder`, which is the part `there`, is this part; `None` is a whole store.

    Raises:
        StoreError: it is not; says what it is.
    """
    if there == part:
        return
    if there is None:
        raise StoreError(f"{folder} is not a part of a store, and --part does not continue it. Choose another --out")
    raise StoreError(
        f"{folder} is part {there} of a store. Continue it with --part {there}, or make one store of all parts with "
        "`g2l merge`" + (f"; part {part} needs an --out of its own" if part else "")
    )
