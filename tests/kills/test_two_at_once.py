"""Two calls of one command on one output: one is refused, the other ends as if it were alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.kill_workloads import Workload, make_workload
from support.two_at_once import REFUSED, faults_of, run_together
from support.warm import Ended, WarmCommands, made_up_end

SEED, PAIRS = 0, 2
COMMANDS = ("reproduce", "ablate", "curve")
"""The others have tests of their own."""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WarmCommands, WarmCommands]]:
    folder = tmp_path_factory.mktemp("warm")
    with WarmCommands(folder / "first") as first, WarmCommands(folder / "second") as second:
        yield first, second


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_one_is_refused_and_the_other_ends(
    two: tuple[WarmCommands, WarmCommands], tmp_path: Path, command: str
) -> None:
    together = run_together(make_workload(command, tmp_path), *two, PAIRS, SEED)
    assert not together.faults, "\n\n".join(together.faults)
    assert sum(together.calls.values()) == 2 * PAIRS
    assert together.calls["refused"] >= 1


DONE, BUSY = made_up_end(), made_up_end(1, err="error: out is in use by g2l")


@pytest.mark.parametrize(
    ("ends", "fault"),
    [
        ([DONE, BUSY], ""),
        ([DONE, DONE], ""),
        ([BUSY, BUSY], "neither succeeds"),
        ([DONE, made_up_end(1, err="error: no")], "without the reason"),
        ([DONE, made_up_end(0, err="Traceback (most recent call last):")], "traceback"),
        ([DONE, made_up_end(-9, hung=True, err=REFUSED[0])], "hangs"),
        ([DONE, made_up_end(0, orphans=["g2l"])], "stays behind"),
    ],
)
def test_what_counts_as_a_fault(tmp_path: Path, ends: list[Ended], fault: str) -> None:
    work = Workload("made-up", [], tmp_path)
    (tmp_path / "a.json").write_text('{"a": 1}')
    found = faults_of(ends, work, work.results())
    assert any(fault in each for each in found) if fault else not found
    assert any("something else is left" in each for each in faults_of([DONE, BUSY], work, {}))
