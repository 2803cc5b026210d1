"""Claim units of work among processes that a launcher started: whoever is free takes the next shard or slide.

Processes share a key-value store, `torch.distributed`'s, and nothing else: no call waits for another process.

    rank/R    how often process R was started; the last of these, its incarnation, is the one that lives
    S/next    how many runs of units of the list of session S were handed out
    claim/U   "R:I": unit U was taken by process R in its incarnation I
    done/U    unit U is on disk

A claim by an earlier incarnation is void, and whoever meets it takes it over. So a unit is done again exactly if its
process died before the unit was on disk, whether the launcher replaces that process alone or all of them.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

POLL_SECONDS = 0.5
"""Between two looks at what others still do. Our choice: short beside a shard."""
CHECKED_AT_ONCE = 1000
"""Units that one question to the store asks about."""


class KeyValue(Protocol):
    """The part of `torch.distributed.Store` that claims need. All of it returns at once; `get` asks for a key that is
    there.
    """

    def add(self, key: str, amount: int, /) -> int:
        """Add to a counter, which starts at 0; returns the sum."""

    def set(self, key: str, value: str, /) -> None:
        """Set a value."""

    def get(self, key: str, /) -> bytes:
        """The value of a key that is there."""

    def check(self, keys: list[str], /) -> bool:
        """Whether all these keys are there."""

    def compare_set(self, key: str, expected: str, desired: str, /) -> bytes:
        """Set a value if it is `expected`, "" for a key that is not there; returns the value then."""

    def delete_key(self, key: str, /) -> bool:
        """Remove a key; whether it was there."""


@dataclass(frozen=True)
class Member:
    """A process of the launched group.

    Attributes:
        rank: its number, from 0.
        incarnation: how often a process of this number was started, itself included.
    """

    rank: int
    incarnation: int

    def __str__(self) -> str:
        return f"{self.rank}:{self.incarnation}"


def register(store: KeyValue, rank: int) -> Member:
    """Say that process `rank` has been started; claims of its earlier incarnations are void from now on."""
    return Member(rank, store.add(f"rank/{rank}", 1))


def is_void(store: KeyValue, holder: str) -> bool:
    """Whether a claim's holder, "R:I", has been replaced by another process."""
    rank, _, incarnation = holder.partition(":")
    return store.add(f"rank/{rank}", 0) > int(incarnation)


def runs_of_neighbours(units: Sequence[int], processes: int) -> list[Sequence[int]]:
    """The units in runs that grow shorter, each half of a process's share of what is left (guided self-scheduling,
    Polychronopoulos and Kuck 1987). Who takes a run meets what neighbours share once.
    """
    runs, start = [], 0
    while start < len(units):
        length = max((len(units) - start) // (2 * processes), 1)
        runs.append(units[start : start + length])
        start += length
    return runs


class Claims:
    """The claims of one process on the units of a session.

    Args:
        store: shared by all processes.
        member: this process.
        session: name of the list of units; all processes of a session have the same.
        units: what is to be done, in the order in which it is handed out.
        is_on_disk: whether a unit is done, whatever the store says: asked when a dead process's claim is taken over.
        look: called between two looks at what others do; raises to end the waiting.
        space: prefix of the keys of units, for units of several kinds that are numbered alike.
        processes: if neighbours are handed out together, to how many.
    """

    def __init__(
        self,
        store: KeyValue,
        member: Member,
        session: str,
        units: Sequence[int],
        is_on_disk: Callable[[int], bool],
        look: Callable[[], None] = lambda: None,
        *,
        space: str = "",
        processes: int | None = None,
    ) -> None:
        self._store, self._me, self._session, self._space = store, str(member), session, space
        self._units, self._is_on_disk, self._look = units, is_on_disk, look
        self._runs = [[unit] for unit in units] if processes is None else runs_of_neighbours(units, processes)

    def rounds(self) -> Iterator[Iterator[int]]:
        """Iterators of units for this process to do, none of them empty; the last one ends when all units of the list
        are done, whoever does them.

        The caller calls `done` for each unit of an iterator before it asks for the next iterator. An iterator never
        waits for other processes, so that units may be taken ahead of the work.
        """
        handed_out = self._handed_out()
        if (first := next(handed_out, None)) is not None:
            yield chain([first], handed_out)
        left = list(self._units)
        while left := self._not_done(left):
            void = self._void(left)
            if (first := next(void, None)) is not None:
                yield chain([first], void)
            elif left := self._not_done(left):
                time.sleep(POLL_SECONDS)
                self._look()

    def done(self, unit: int) -> None:
        """Say that a unit is on disk."""
        self._store.set(self._done(unit), "1")

    def take_back(self) -> None:
        """Let those units of the list be done that are said to be done, and are not on disk: they were withdrawn. For
        one process, before the others begin.
        """
        for unit in self._units:
            if self._store.check([self._done(unit)]) and not self._is_on_disk(unit):
                self._store.delete_key(self._done(unit))
                self._store.delete_key(self._claim(unit))

    def _claim(self, unit: int) -> str:
        return f"claim/{self._space}{unit}"

    def _done(self, unit: int) -> str:
        return f"done/{self._space}{unit}"

    def _handed_out(self) -> Iterator[int]:
        """Units from the list, each to one process, as long as there are some. Of a run that this process has taken,
        others may take the end once the list is at its end.
        """
        while (place := self._store.add(f"{self._session}/next", 1)) <= len(self._runs):
            for unit in self._runs[place - 1]:
                self._look()
                if self._take(unit):
                    yield unit

    def _void(self, left: Sequence[int]) -> Iterator[int]:
        """Units that nobody has, or only a process that is gone."""
        for unit in left:
            if self._take(unit):
                yield unit

    def _take(self, unit: int) -> bool:
        """Claim a unit that nobody has or a dead process had; false if it is another's or on disk already."""
        key = self._claim(unit)
        holder = self._store.compare_set(key, "", self._me).decode()
        if holder == self._me:
            return True
        if not is_void(self._store, holder) or self._store.check([self._done(unit)]):
            return False
        if self._store.compare_set(key, holder, self._me).decode() != self._me:
            return False
        if self._is_on_disk(unit):
            self.done(unit)
            return False
        return True

    def _not_done(self, units: Sequence[int]) -> list[int]:
        """Those of the units that nobody has finished."""
        left = []
        for start in range(0, len(units), CHECKED_AT_ONCE):
            some = units[start : start + CHECKED_AT_ONCE]
            if not self._store.check([self._done(unit) for unit in some]):
                left += [unit for unit in some if not self._store.check([self._done(unit)])]
        return left
