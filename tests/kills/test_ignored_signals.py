"""The suite passes under `nohup make test &`, where children inherit that SIGINT and SIGHUP are ignored."""

import os
import signal
import subprocess
import sys

import pytest
from support.places import ROOT, TESTS

IGNORED = (signal.SIGINT, signal.SIGHUP)


def ignore() -> None:
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_child_of_the_tests_can_be_interrupted_where_they_ignore_it() -> None:
    """The test that failed there: it sends SIGINT to a child."""
    test = f"{TESTS / 'kills' / 'test_extract.py'}::test_an_interrupt_leaves_nothing_half_done"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    done = subprocess.run(command, cwd=ROOT, env=environment, preexec_fn=ignore, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
