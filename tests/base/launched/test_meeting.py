"""Processes that live agree on one name that no earlier ones had, whoever was started again, in whatever order."""

import itertools
import random
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from support.launched import MemoryStore

from pipeline.base.launched import meeting
from pipeline.base.launched.claims import KeyValue, register
from pipeline.base.launched.group import GroupError
from pipeline.base.launched.meeting import _starts_of_all, meet


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "LOOK_SECONDS", 0.001)


def tcp_store() -> dist.TCPStore:
    return dist.TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=20))


class Started:
    """Threads in the place of processes."""

    def __init__(self, store: KeyValue, world: int) -> None:
        self.store, self.world = store, world
        self.names: dict[int, str] = {}
        self.threads: list[threading.Thread] = []

    def start(self, *ranks: int) -> None:
        for rank in ranks:
            self.threads.append(threading.Thread(target=self._meet, args=(rank,)))
            self.threads[-1].start()

    def _meet(self, rank: int) -> None:
        self.names[rank] = meet(self.store, rank, self.world)

    def name(self) -> str:
        """The one name of all, once they have met."""
        for thread in self.threads:
            thread.join(20)
        assert sorted(self.names) == list(range(self.world))
        (name,) = set(self.names.values())
        return name


@pytest.mark.parametrize("make_store", [MemoryStore, tcp_store])
def test_each_launch_of_all_has_a_name_of_its_own(make_store: Callable[[], KeyValue]) -> None:
    store, names = make_store(), []
    for order in itertools.permutations(range(3)):
        started = Started(store, 3)
        for rank in order:
            started.start(rank)
            time.sleep(0.003)
        names.append(started.name())
    assert len(set(names)) == 6


def test_who_is_started_again_waits_for_the_next_leader() -> None:
    """On two nodes in the static form, the processes of the other node go on until they miss the dead one."""
    store, started = MemoryStore(), Started(MemoryStore(), 2)
    started.store = store
    started.start(0, 1)
    first = started.name()
    again = Started(store, 2)
    again.start(1)
    time.sleep(0.02)
    assert again.names == {}
    again.start(0)
    assert again.name() != first


@given(seed=st.integers(0, 2**32), world=st.integers(2, 4))
def test_whoever_dies_at_whatever_moment_those_who_live_meet(seed: int, world: int) -> None:
    """Processes look in a random order; some are replaced while they wait, or when only some of them have met. Then, as
    the launcher does sooner or later, all who have met are replaced as well.
    """
    store, draw = MemoryStore(), random.Random(seed)
    alive = {rank: register(store, rank) for rank in draw.sample(range(world), world)}
    met: dict[int, tuple[str, ...]] = {}
    for _ in range(draw.randrange(60)):
        rank = draw.randrange(world)
        if draw.random() < 0.2:
            alive[rank] = register(store, rank)
            for other in met:
                alive[other] = register(store, other)
            met = {}
        elif rank not in met and (starts := _starts_of_all(store, alive[rank], world)):
            met[rank] = tuple(starts)
        assert len(set(met.values())) <= 1
    for rank in met:  # of those who were replaced, some have met without them
        alive[rank] = register(store, rank)
    met = {}
    for rank in [*range(1, world), *range(world)]:
        if starts := _starts_of_all(store, alive[rank], world):
            met[rank] = tuple(starts)
    assert sorted(met) == list(range(world))
    assert set(met.values()) == {tuple(str(alive[rank].incarnation) for rank in range(world))}


def test_who_waits_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "MEETING_SECONDS", 0.0)
    for rank in (0, 1):
        with pytest.raises(GroupError, match=f"process {rank} has waited for the others"):
            meet(MemoryStore(), rank, 2)
