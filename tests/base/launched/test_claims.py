"""Units of work among processes: each is done once, and again exactly if its process died before it was on disk."""

import contextlib
import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from support.launched import MemoryStore

from pipeline.base.launched import claims
from pipeline.base.launched.claims import Claims, KeyValue, Member, is_void, register, runs_of_neighbours


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "POLL_SECONDS", 0.001)


def tcp_store() -> dist.TCPStore:
    return dist.TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=20))


class StuckError(Exception):
    """Others have what is left, and do not end."""


def stuck_after(looks: int) -> Callable[[], None]:
    """For processes that would wait for the dead."""
    counted = itertools.count()

    def look() -> None:
        if next(counted) >= looks:
            raise StuckError

    return look


def work(store: KeyValue, rank: int, units: list[int], done: list[int], **options: Any) -> None:
    """A process that does what it gets, in its incarnation of now."""
    mine = Claims(store, register(store, rank), "1", units, lambda unit: unit in done, **options)
    for claimed in mine.rounds():
        for unit in claimed:
            done.append(unit)
            mine.done(unit)


def in_threads(store: KeyValue, ranks: Iterator[int] | range, units: list[int], done: list[int]) -> None:
    threads = [threading.Thread(target=work, args=(store, rank, units, done)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


@pytest.mark.parametrize("make", [MemoryStore, tcp_store])
@pytest.mark.parametrize("processes", [1, 2, 5])
def test_each_unit_is_done_once(make: type[MemoryStore], processes: int) -> None:
    units = random.Random(0).sample(range(1000), 97)
    done: list[int] = []
    in_threads(make(), range(processes), units, done)
    assert sorted(done) == sorted(units)


def test_nothing_to_do_ends_at_once() -> None:
    store = MemoryStore()
    assert list(Claims(store, register(store, 0), "1", [], lambda _: False).rounds()) == []


def test_the_store_of_torch_answers_as_the_one_of_the_tests() -> None:
    """What `KeyValue` says of `compare_set`, `add` and `check`."""
    for store in (MemoryStore(), tcp_store()):
        assert store.compare_set("a", "", "1") == b"1"
        assert store.compare_set("a", "", "2") == b"1"
        assert store.compare_set("a", "3", "2") == b"1"
        assert store.compare_set("a", "1", "2") == b"2"
        assert store.get("a") == b"2"
        assert [store.add("n", 0), store.add("n", 2), store.add("n", 1)] == [0, 2, 3]
        assert [store.check(["a"]), store.check(["a", "b"])] == [True, False]
        assert [store.delete_key("a"), store.delete_key("a"), store.check(["a"])] == [True, False, False]
        assert store.compare_set("a", "", "4") == b"4"


def test_a_claim_is_void_once_its_process_is_started_again() -> None:
    store = MemoryStore()
    first = register(store, 3)
    assert (str(first), is_void(store, str(first))) == ("3:1", False)
    assert register(store, 3) == Member(3, 2)
    assert (is_void(store, "3:1"), is_void(store, "3:2")) == (True, False)


def test_what_others_do_is_waited_for_and_looked_at() -> None:
    """Of a process that has claimed a unit and lives nobody takes it."""
    store, looks = MemoryStore(), []
    other = Claims(store, register(store, 1), "1", [7], lambda _: False)
    assert list(next(other.rounds())) == [7]

    def look() -> None:
        looks.append(1)
        if len(looks) == 3:
            other.done(7)

    mine = Claims(store, register(store, 0), "1", [7], lambda _: False, look)
    assert list(mine.rounds()) == []
    assert len(looks) == 3


def test_a_unit_that_was_on_disk_when_its_process_died_is_not_done_again() -> None:
    store = MemoryStore()
    dead = Claims(store, register(store, 1), "1", [7, 8], lambda _: False)
    assert list(next(dead.rounds())) == [7, 8]  # it has written 7, and was killed before it could say so
    done = [7]
    register(store, 1)
    work(store, 0, [7, 8], done)
    assert done == [7, 8]
    assert store.check(["done/7", "done/8"])


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.booleans()), max_size=8), st.booleans())
def test_however_processes_die_all_is_done(deaths: list[tuple[int, int, bool]], together: bool) -> None:
    """Each death: a process takes some units and dies; what it has finished is on disk, said or not. Then it alone is
    started again, or all are.
    """
    store, units, done = MemoryStore(), list(range(20)), []
    for session, (rank, count, said) in enumerate(deaths):
        pending = [unit for unit in units if unit not in done] if together else units
        name, claimed = str(session if together else 0), iter(())
        mine = Claims(store, register(store, rank), name, pending, lambda u: u in done, stuck_after(30))
        with contextlib.suppress(StuckError):
            claimed = next(mine.rounds(), claimed)
        for unit, _ in zip(claimed, range(count), strict=False):
            done.append(unit)
            if said:
                mine.done(unit)
        for _ in range(2):
            next(claimed, None)  # taken ahead of the work, and lost
    for rank in range(4):
        register(store, rank)
    left = [unit for unit in units if unit not in done] if together else units
    last = Claims(store, register(store, 0), "last" if together else "0", left, lambda u: u in done)
    for round_ in last.rounds():
        for unit in round_:
            done.append(unit)
            last.done(unit)
    assert {unit: number for unit, number in Counter(done).items() if number > 1} == {}
    assert sorted(done) == units


@given(st.lists(st.integers(), max_size=300), st.integers(1, 70))
def test_runs_are_the_units_in_order_and_grow_shorter(units: list[int], processes: int) -> None:
    runs = runs_of_neighbours(units, processes)
    assert [unit for run in runs for unit in run] == units
    lengths = [len(run) for run in runs]
    assert lengths == sorted(lengths, reverse=True)
    assert all(length == 1 or length * 2 * processes <= len(units) for length in lengths)
    assert lengths[-1:] in ([], [1])


def test_a_run_is_of_one_process_until_others_have_nothing_to_do() -> None:
    """Whoever is first takes neighbours; the end of its run is taken by the other one, which it then passes over."""
    store, units = MemoryStore(), list(range(16))
    first, second = (
        Claims(store, register(store, rank), "1", units, lambda _: False, processes=2) for rank in range(2)
    )
    mine = next(first.rounds())
    taken = [next(mine), next(mine)]
    rounds = second.rounds()
    others = list(next(rounds))
    assert (taken, others) == ([0, 1], list(range(4, 16)))
    for unit in others:
        second.done(unit)
    assert list(next(rounds)) == [2, 3]
    assert list(mine) == []


def test_units_of_two_kinds_are_apart() -> None:
    store, plain, round_1 = MemoryStore(), list[int](), list[int]()
    work(store, 0, [0, 1], plain)
    mine = Claims(store, register(store, 0), "2", [0, 1], lambda _: False, space="view-1/")
    for claimed in mine.rounds():
        for unit in claimed:
            round_1.append(unit)
            mine.done(unit)
    assert plain == round_1 == [0, 1]


def test_what_was_withdrawn_is_done_again_and_nothing_else() -> None:
    """The store remembers all three as done; one is no longer on disk, and who did it lives."""
    store, done, again = MemoryStore(), list[int](), list[int]()
    work(store, 0, [7, 8, 9], done)
    leader = Claims(store, register(store, 1), "2", [7, 8, 9], lambda unit: unit != 8)
    leader.take_back()
    for claimed in leader.rounds():
        for unit in claimed:
            again.append(unit)
            leader.done(unit)
    assert again == [8]
