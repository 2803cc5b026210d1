"""Python code in processes of its own: several that form a group, as `torchrun` starts them, over gloo on loopback; and
one with a number of threads.
"""

import os
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

from support.forked import ForkedRun, fork_program
from support.places import ROOT, TESTS


def free_port() -> str:
    """A port that nobody listens at now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def start_processes(world: int, arguments: Sequence[object]) -> list[ForkedRun]:
    """Start `python ARGUMENTS` in `world` processes, each with a rank; one says who of them has which.

    They are forks of a process that has torch loaded, which each would load for seconds.
    """
    shared = {
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT}:{TESTS}",
    }
    return [
        forked(arguments, os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(world)
    ]


def forked(arguments: Sequence[object], environment: dict[str, str]) -> ForkedRun:
    """Start `python ARGUMENTS` in a fork; the file of what it says is gone with the result."""
    file, name = tempfile.mkstemp()
    os.close(file)
    run = fork_program(arguments, Path(name), environment)
    weakref.finalize(run, Path(name).unlink)
    return run


def finish_processes(processes: Sequence[ForkedRun], timeout: float = 400) -> list[str]:
    """Wait for all; returns what each said. An error of one is an error of the test, with what it said."""
    said = []
    try:
        for process in processes:
            said.append(process.communicate(timeout=timeout)[0])
            assert process.returncode == 0, said[-1]
        return said
    finally:
        for process in processes:
            process.kill()
            process.wait()


def said_with_threads(threads: int, code: str, folder: Path, **variables: str) -> str:
    """What Python code prints that is run in `folder`, whose modules it can import, with so many threads of each
    library; they sleep while they have nothing to do, as other tests need the cores.
    """
    counts = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    waiting = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_THREAD_TIMEOUT": "4"}
    environment = os.environ | counts | waiting | {"PYTHONPATH": f"{ROOT}:{TESTS}"} | variables
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
