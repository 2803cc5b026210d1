"""Every command that can be continued, stopped at random moments; and that the campaign would see what it looks for."""

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import support.warm as warm_module
from support.kill_runs import Campaign, Tally, difference
from support.kill_workloads import CLOCKED_FILES, WORK, Workload, make_workload, matches
from support.warm import Ended, WarmCommands, end_orphans, made_up_end

from pipeline.base.processes import scope
from pipeline.disk.asides import ASIDE_SUFFIX

SEED, KILLS, INTERRUPTS = 0, 1, 3
"""So few for the time that it takes; `benchmarks/kill_campaign.py` does hundreds."""
FRESH = ("train-student", "evaluate")
"""Commands that are also stopped while they import. They import most; the others do it in the same entry point."""


SHARES = (0.25, 0.1, 0.0)
"""Of an undisturbed run's time, when to kill it at the earliest, as soon as it has made a folder for its results."""
WHOLE_FOLDERS = ("images",)
"""Folders that are written aside as a whole and never after, so that no file in them can be half written."""


@pytest.mark.slow
@pytest.mark.parametrize("command", WORK)
def test_stopped_at_random_moments_and_with_files_half_written(
    warm: WarmCommands, tmp_path: Path, command: str
) -> None:
    print(f"seed {SEED}")
    fresh_share = 1 / INTERRUPTS if command in FRESH else 0
    campaign = Campaign(make_workload(command, tmp_path), warm, SEED)
    tally = campaign.run(KILLS, INTERRUPTS, fresh_share)
    assert tally.stops == {"SIGKILL": KILLS, "SIGINT": 1, "SIGTERM": 1, "SIGHUP": 1}
    assert tally.finished >= 2
    assert not tally.faults, "\n\n".join(tally.faults)
    check_files_that_a_kill_left_half_written(campaign)


def check_files_that_a_kill_left_half_written(campaign: Campaign) -> None:
    """They go wherever they lie. A kill rarely meets the moment of a write, so that each file's half is put there
    after it.
    """
    work, warm = campaign.work, campaign.warm
    files = [work.place / name for name, content in campaign.reference.items() if is_file(name, content)]
    tag = f".{scope()}-{process_that_ended()}-1-0123abcd{ASIDE_SUFFIX}"
    asides = [path.with_name(path.name + tag) for path in files if path.parent.name not in WHOLE_FOLDERS]
    folders = [path.parent for path in asides]
    for share in SHARES:  # the next only where a run was so much quicker than the first
        work.empty()
        after = share * campaign.seconds[False]
        stopped = warm.run(work.arguments, stop=signal.SIGKILL, after=after, once=folders).stopped
        if stopped:
            break
    assert stopped
    planted = [path for path in asides if path.parent.is_dir()]
    assert planted
    for path in planted:
        path.touch()
    assert warm.run(work.arguments, quick_end=True).code == 0
    assert not work.passing()


def is_file(name: str, content: object) -> bool:
    """Whether this result is a file: folders have no content, as have files that hold the time."""
    return content is not None or matches(name, CLOCKED_FILES)


def process_that_ended() -> int:
    """Its number."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    return ended.pid


@pytest.mark.slow
def test_a_run_is_a_process_with_files_and_an_end_of_its_own(warm: WarmCommands, tmp_path: Path) -> None:
    said = warm.run(["--version"])
    assert (said.code, said.hung, said.stopped, said.orphans, said.err) == (0, False, False, [], "")
    assert said.out.startswith("g2l ")
    assert warm.run(["--version"], fresh=True).out == said.out
    assert warm.run(["--version"], quick_end=True).out == said.out
    wrong = warm.run(["inspect", tmp_path / "none"])
    assert wrong.code == 1
    assert "none" in wrong.err
    killed = warm.run(["models"], stop=signal.SIGKILL)
    assert (killed.code, killed.shell_code, killed.stopped) == (-9, 137, True)


@pytest.mark.slow
def test_a_hanging_run_says_where(warm: WarmCommands) -> None:
    """Any run that has not ended in time counts as hanging."""
    hung = warm.run(["models"], timeout=0.01)
    assert (hung.hung, hung.stopped) == (True, False)
    assert "most recent call first" in hung.err


# --- the campaign, with made-up runs ----------------------------------------------------------------------------


class MadeUp:
    """In place of `WarmCommands`: an undisturbed run writes `a.json`; a stopped one does what `behave` does."""

    def __init__(self, place: Path, behave: Callable[[Path], Ended]) -> None:
        self.place, self.behave = place, behave

    def run(self, arguments: list[object], *, stop: signal.Signals | None = None, **_: object) -> Ended:
        if stop is not None:
            return self.behave(self.place)
        (self.place / "a.json").write_text('{"a": 1, "seconds": 2}')
        return made_up_end(0)


def run_made_up(tmp_path: Path, behave: Callable[[Path], Ended], kills: int = 0, interrupts: int = 3) -> Tally:
    place = tmp_path / "place"
    work = Workload("made-up", [], place)
    return Campaign(work, MadeUp(place, behave), 1).run(kills, interrupts)  # type: ignore[arg-type]


def leave(name: str, code: int = -15) -> Callable[[Path], Ended]:
    def behave(place: Path) -> Ended:
        (place / name).touch()
        return made_up_end(code, stopped=True)

    return behave


def test_a_command_that_ends_as_it_should(tmp_path: Path) -> None:
    codes = iter((130, 143, 129, 130, 143, 129))
    tally = run_made_up(tmp_path, lambda place: made_up_end(0, stopped=True))
    assert tally.faults == []
    assert sum(tally.stops.values()) == 3
    assert 1 <= tally.finished <= 3
    with mock.patch("support.kill_runs.random.Random.shuffle"):  # INT, TERM and HUP in turn
        assert run_made_up(tmp_path, lambda place: made_up_end(next(codes), stopped=True)).faults == []


@pytest.mark.parametrize(
    ("behave", "fault"),
    [
        (leave("store.g2l-lock", 0), "left behind"),
        (leave(".probe", 0), "left behind"),
        (leave("unknown", 0), "too many unknown"),
        (lambda place: made_up_end(1, stopped=True, err="error: no"), "exit code 1"),
        (lambda place: made_up_end(0, stopped=True, err="Traceback (most recent call last):"), "traceback"),
        (lambda place: made_up_end(0, stopped=True, err="Exception ignored in: x"), "traceback"),
        (lambda place: made_up_end(-9, stopped=True, hung=True), "hangs"),
        (lambda place: made_up_end(0, stopped=True, orphans=["sleep 60"]), "sleep 60"),
    ],
)
def test_what_counts_as_a_fault(tmp_path: Path, behave: Callable[[Path], Ended], fault: str) -> None:
    assert any(fault in found for found in run_made_up(tmp_path, behave).faults)


def test_a_kill_may_leave_files_but_not_after_it_is_continued(tmp_path: Path) -> None:
    (fault, *_) = run_made_up(tmp_path, leave("a.g2l-part", -9), kills=1, interrupts=0).faults
    assert "continued to something else" in fault
    assert "too many a.g2l-part" in fault


def test_the_clock_decides_nothing_and_all_else_does() -> None:
    assert difference({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 3, "d": 4}) == "differs b, missing c, too many d"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked for in /proc")
def test_processes_that_stay_are_found_and_ended() -> None:
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    with mock.patch.object(warm_module, "ORPHAN_SECONDS", 0.1):
        assert end_orphans(child.pid) == ["sleep 60"]
    assert child.wait(5) == -signal.SIGKILL
