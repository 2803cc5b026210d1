"""A leader and its helpers: who waits for whom, who speaks, and what a process that was started again finds."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from support.commands import child_environment
from support.launched import MemoryStore, beating_in_a_thread, free_port
from support.places import ROOT
from torch.distributed import HashStore, TCPStore

from pipeline.base import console
from pipeline.base.console import Progress
from pipeline.base.launched import claims, group
from pipeline.base.launched.group import GroupError, LaunchedGroup, ReachedStore

PROCESS = """
import time
from pathlib import Path
from pipeline.base.console import Progress, say
from pipeline.base.launched.group import join

group = join("test", Path("out"))
say(f"process {group.member.rank} of {group.world}")
done = []
if group.is_leader:
    with group.leading():
        say("the same note")
        group.call({"units": list(range(40))})
        with Progress("testing", 40, "units") as progress, group.showing(progress):
            shared = group.share(range(40), lambda unit: False)
            for claimed in shared.rounds():
                for unit in claimed:
                    time.sleep(0.05)
                    done.append(unit)
                    shared.step()
                    shared.done(unit)
        assert progress._done == 40, progress._done
else:
    with group.helping() as calls:
        call = next(calls)
        say("the same note")
        say(f"a note of {group.member.rank}")
        shared = group.share(call["units"], lambda unit: False)
        for claimed in shared.rounds():
            for unit in claimed:
                time.sleep(0.05)
                done.append(unit)
                shared.step()
                shared.done(unit)
print("done", *done)
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(group, "BEAT_SECONDS", 0.01)


@pytest.mark.slow
def test_processes_share_the_work_and_one_speaks() -> None:
    """Without torchrun: whatever sets the four variables will do."""
    port = str(free_port())
    processes = []
    for rank in range(3):
        launched = {"RANK": str(rank), "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = child_environment() | {"PYTHONPATH": str(ROOT)} | launched
        command = [sys.executable, "-c", PROCESS]
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment))
    ends = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], ends
    done = [int(unit) for out, _ in ends for unit in out.split()[1:]]
    assert sorted(done) == list(range(40))
    assert all(len(out.split()) > 1 for out, _ in ends)
    notes = [err.splitlines() for _, err in ends]
    assert notes[1:] == [["process 1 of 3"], ["process 2 of 3"]]
    assert sorted(notes[0]) == ["a note of 1", "a note of 2", "process 0 of 3", "the same note"]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def leading(store: MemoryStore) -> Iterator[LaunchedGroup]:
    """A leader that beats, without the end that `leading` has."""
    leader = LaunchedGroup(store, 0, 2)
    thread = threading.Thread(target=leader._keep_beating)
    thread.start()
    yield leader
    leader._stop.set()
    thread.join()


def test_a_call_that_a_dead_leader_has_left_is_not_heard(store: MemoryStore) -> None:
    """All processes were started again, and a helper is there before the new leader."""
    dead = LaunchedGroup(store, 0, 2)
    dead.store.add("beat/1", 5)
    dead.call({"pending": [1]})
    found: list[object] = []
    helper = LaunchedGroup(store, 1, 2)
    thread = threading.Thread(target=lambda: found.append(helper._await_call()))
    thread.start()
    time.sleep(0.1)
    assert found == []
    leader = LaunchedGroup(store, 0, 2)
    leader.call({"pending": [2]})
    while thread.is_alive():
        leader._beat()
        time.sleep(0.005)
    assert (found, helper.session) == ([{"pending": [2]}], "2")


def test_a_helper_that_is_started_again_alone_joins_what_goes_on(store: MemoryStore, leading: LaunchedGroup) -> None:
    leading.call({"pending": [1]})
    for _ in range(2):
        with LaunchedGroup(store, 1, 2).helping() as calls:
            assert next(calls) == {"pending": [1]}


def test_a_leader_that_ends_without_a_call_lets_the_helpers_go(store: MemoryStore) -> None:
    with LaunchedGroup(store, 0, 2).leading():
        pass
    with LaunchedGroup(store, 1, 2).helping() as calls:
        assert list(calls) == []


def test_helpers_end_with_a_leader_that_fails(store: MemoryStore, leading: LaunchedGroup) -> None:
    leading.call({})
    helper = LaunchedGroup(store, 1, 2)
    with helper.helping() as calls:
        next(calls)
        helper.look()
        leading.store.set("over/1", "failed")
        with pytest.raises(GroupError, match="the first process has failed"):
            list(helper.share([1], lambda _: False).rounds())


def test_a_failure_that_a_dead_leader_has_left_is_not_heard(store: MemoryStore) -> None:
    leader = LaunchedGroup(store, 0, 2)
    with pytest.raises(ZeroDivisionError), leader.leading():
        raise ZeroDivisionError
    helper, found = LaunchedGroup(store, 1, 2), []
    thread = threading.Thread(target=lambda: found.append(helper._await_call()))
    thread.start()
    time.sleep(0.05)
    assert found == []
    with LaunchedGroup(store, 0, 2).leading():
        pass
    thread.join(10)
    assert found == [None]


def test_nothing_is_heard_of_the_leader(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "PATIENCE_SECONDS", 0.05)
    with (
        pytest.raises(GroupError, match="nothing was heard of the first process"),
        LaunchedGroup(store, 1, 2).helping() as calls,
    ):
        next(calls)


def test_the_leader_waits_for_helpers_that_live(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "LEAVE_SECONDS", 5.0)
    leader = LaunchedGroup(store, 0, 4)
    left, killed, slow = (LaunchedGroup(store, rank, 4) for rank in (1, 2, 3))
    for helper in (left, killed, slow):
        helper._count_up_to_me("came")
    left._count_up_to_me("left")
    LaunchedGroup(store, 2, 4)  # started again, and not yet there
    assert [leader._is_here(rank) for rank in (1, 2, 3)] == [False, False, True]
    threading.Timer(0.1, lambda: slow._count_up_to_me("left")).start()
    started = time.monotonic()
    leader._wait_for_the_others()
    assert 0.05 < time.monotonic() - started < 4


def test_a_note_that_never_comes_holds_up_no_other(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leader, helper = LaunchedGroup(store, 0, 2), LaunchedGroup(store, 1, 2)
    store.add("said", 1)  # its process was killed before it said so
    helper._send("later")
    for _ in range(group.MISSED_BEATS):
        leader._beat()
    assert capsys.readouterr().err == ""
    leader._beat()
    assert capsys.readouterr().err == "later\n"


def test_failures_count_over_all_processes(store: MemoryStore) -> None:
    leader, helper = LaunchedGroup(store, 0, 2), LaunchedGroup(store, 1, 2)
    mine, others = leader.share([1], lambda _: True, failed=3), helper.share([1], lambda _: True, failed=3)
    assert [mine.add_failed(2), others.add_failed(4), mine.add_failed(0)] == [5, 9, 9]
    with Progress("testing", 10, "units") as progress, leader.showing(progress):
        mine.step(4)
        others.step(2)
        others.note(failed=1)
    assert (progress._done, progress._note) == (6, "failed 6, processes 2")


def test_reports_are_taken_in_once_while_the_leader_works_and_waits(store: MemoryStore) -> None:
    """One that was announced and has not come holds up no other, and is taken in once it is there."""
    leader, helper = LaunchedGroup(store, 0, 2), LaunchedGroup(store, 1, 2)
    taken: list[str] = []

    def take_in() -> None:
        taken.extend(report["came"] for report in leader.new_reports())

    mine = leader.share([1, 2, 3], lambda _: True, meanwhile=take_in)
    others = helper.share([1, 2, 3], lambda _: True)
    others.report(1, {"came": "a"})
    others.step()
    assert taken == []
    mine.step()
    assert taken == ["a"]
    store.add("reported", 1)
    others.report(3, {"came": "c"})
    assert next(next(mine.rounds())) == 1
    assert taken == ["a", "c"]
    store.set("report/2", '{"came": "b"}')
    store.set("reported/2", "2")
    mine.step()
    assert taken == ["a", "c", "b"]
    assert [report["came"] for report in LaunchedGroup(store, 0, 2).new_reports()] == ["a", "b", "c"]


def test_a_store_that_does_not_answer_is_an_error_for_the_user() -> None:
    class Gone:
        def add(self, key: str, amount: int) -> int:
            raise RuntimeError("Connection reset by peer\nC++ frames")

    with pytest.raises(GroupError, match=r"does not answer \(Connection reset by peer\)") as error:
        ReachedStore(Gone()).add("a", 1)
    assert "C++" not in str(error.value)


def test_what_is_said_goes_to_the_listener(capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[str] = []
    with console.said_to(heard.append):
        console.say("a")
    console.say("b")
    assert (heard, capsys.readouterr().err) == (["a"], "b\n")


def test_a_leader_calls_again_and_helpers_follow_its_successor(store: MemoryStore) -> None:
    """The second call is to other counters; of a successor the first call is the next one."""
    leader, heard = LaunchedGroup(store, 0, 2), list[tuple[str, object]]()
    helper = LaunchedGroup(store, 1, 2)

    def follow() -> None:
        heard.extend((helper.work, call["n"]) for call in helper._calls())
        helper._count_up_to_me("left")

    thread = threading.Thread(target=follow)
    thread.start()

    def until(count: int) -> None:
        while len(heard) < count and thread.is_alive():
            leader._beat()
            time.sleep(0.002)

    leader.call({"n": 1})
    until(1)
    leader.call({"n": 2})
    leader.share([], lambda _: True).step(3)
    until(2)
    leader = LaunchedGroup(store, 0, 2)
    with leader.leading():
        leader.call({"n": 3})
        until(3)
    thread.join(10)
    assert heard == [("1/1", 1), ("1/2", 2), ("2/1", 3)]
    assert (store.add("1/1/steps", 0), store.add("1/2/steps", 0)) == (0, 3)
    assert store.add("2/left/1", 0) == 1


def test_a_note_with_a_name_that_is_not_utf_8_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """The launcher's store takes text only; a link may lead to such a folder."""
    store = ReachedStore(HashStore())
    leader, helper = LaunchedGroup(store, 0, 2), LaunchedGroup(store, 1, 2)
    with helper.helping():
        console.say("note: /slides/caf\udce9 has no room")
    leader._beat()
    assert r"note: /slides/caf\udce9 has no room" in capsys.readouterr().err


def test_long_calls_and_reports_come_whole_through_torchs_store() -> None:
    """It drops whoever sends more than 8 MiB: an import of 20,000 slides, or a slide with as many patches left out."""
    store = ReachedStore(TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=20)))
    leader, helper = LaunchedGroup(store, 0, 2), LaunchedGroup(store, 1, 2)
    slides = {f"Präparat {number}": ["x" * 4_000] for number in range(2_300)}
    leader.call({"slides": slides})
    with beating_in_a_thread(leader), helper.helping() as calls:
        assert next(calls) == {"slides": slides}
    shared = leader.share([0], lambda unit: False)
    for reasons in ([["a" * 4_000] * 2_300, "b"], [["c" * 4_000] * 2_200]):  # the process was replaced
        shared.report(0, {"failures": reasons})
        assert shared.reports([0]) == {0: {"failures": reasons}}
    assert store.get(f"call/{leader.work}").decode().isascii()
