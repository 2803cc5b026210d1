"""The command `g2l` in forks of a process in which everything is imported, and signals to it at given moments.

A start costs milliseconds instead of seconds, so that hundreds can be killed or fed damaged files. Each run is a real
process: own session, own standard files, the interpreter's own end (threads joined, `atexit` called). The entry point
is imported in the fork, so that what it does when it is imported is done there. `fresh` runs start the installed
command instead, imports included.

The parent has one thread and runs no operation of torch: a fork of it is as good as a new process.
"""

import atexit
import contextlib
import faulthandler
import gc
import importlib
import json
import os
import pkgutil
import resource
import runpy
import signal
import subprocess
import sys
import threading
import time
import tomllib
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

G2L = Path(sys.executable).with_name("g2l")
"""The installed command."""

ROOT = Path(__file__).resolve().parents[2]
"""Of the project; this file is also run by itself, where `support` cannot be imported."""
IMPORTED_LATE = (
    "croma",
    "cv2",
    "h5py",
    "imagecodecs",
    "matplotlib.figure",
    "openslide",
    "pandas",
    "safetensors.torch",
    "scipy.stats",
    "skimage.filters",
    "skimage.morphology",
    "sklearn.linear_model",
    "sklearn.metrics",
    "timm",
    "torch",
    "torchvision",
    "torch.utils.flop_counter",
    "torch.utils.tensorboard",
    "zarr",
    "zarr.codecs",
    "zarr.storage",
)
"""What modules of the project import in functions only."""
END_SECONDS = 10.0
"""A command must be gone this long after INT, TERM or HUP, unless the machine is known to be slow."""
ORPHAN_SECONDS = 5.0
"""Processes that a command started must be gone this long after it."""
STOPS = {"INT": signal.SIGINT, "TERM": signal.SIGTERM, "HUP": signal.SIGHUP, "KILL": signal.SIGKILL}
FROM_TERMINAL = (signal.SIGINT, signal.SIGHUP)
"""Signals that a terminal sends to all processes of a command; the others go to the command alone."""


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        code: its exit code; minus the signal's number if it died of one.
        stopped: whether the signal was sent before it ended by itself.
        seconds: from its start to its end.
        seconds_after: from the signal to its end, 0 without one.
        hung: it was still there after the time that it had, and was killed.
        orphans: processes of its session that stayed behind, by command line.
        out, err: what it said.
    """

    code: int
    stopped: bool
    seconds: float
    seconds_after: float
    hung: bool
    orphans: list[str]
    out: str
    err: str

    @property
    def shell_code(self) -> int:
        """The exit code as a shell shows it: 128 and the signal's number if it died of one."""
        return self.code if self.code >= 0 else 128 - self.code


def made_up_end(code: int = 0, **facts: Any) -> Ended:
    """The end of no real run: not stopped, without orphans and without a word but for `facts`."""
    usual = {"stopped": False, "seconds": 1.0, "seconds_after": 0.0, "hung": False, "orphans": [], "out": "", "err": ""}
    return Ended(code, **usual | facts)


class WarmCommands:
    """Runs the command, one at a time."""

    def __init__(self, logs: Path, end_seconds: float = END_SECONDS) -> None:
        """What the runs say goes to files in the folder `logs`; they have `end_seconds` to end after a signal."""
        logs.mkdir(parents=True, exist_ok=True)
        self.logs, self.end_seconds = logs, end_seconds
        # OpenBLAS makes its threads when it loads, OpenMP spins for work: one thread each
        variables = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | variables | {"PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C of whoever waits for it is not its own
        )
        self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the parent process."""
        self._server.communicate("")

    def run(
        self,
        arguments: list[object],
        *,
        stop: signal.Signals | None = None,
        after: float = 0.0,
        once: Sequence[Path] = (),
        timeout: float = 120.0,
        memory_bytes: int | None = None,
        folder: Path | None = None,
        fresh: bool = False,
        quick_end: bool = False,
        variables: Mapping[str, str] | None = None,
        hook: Path | None = None,
    ) -> Ended:
        """Run `g2l ARGUMENTS` to its end, or send it `stop` so many seconds `after` its start.

        With `once` the signal waits, beyond that, until one of these paths is there: how long a run takes is no measure
        of when it makes a file, for the next one may be quicker or slower.
        `timeout` is for a run that is not stopped, `memory_bytes` bounds what it may allocate, `folder` is its working
        folder. A run that hangs says in `err` where each thread was (not a fresh one). `quick_end` leaves out that the
        interpreter takes itself apart, half a second. `variables` are added to its environment, and the program `hook`
        is run in it before the command.
        """
        job = {
            "arguments": [str(word) for word in arguments],
            "stop": stop,
            "after": after,
            "once": [str(path) for path in once],
            "timeout": timeout,
            "end_seconds": self.end_seconds,
            "memory_bytes": memory_bytes,
            "folder": str(folder or self.logs),
            "fresh": fresh,
            "quick_end": quick_end,
            "variables": dict(variables or {}),
            "hook": hook and str(hook),
            "out": str(self.logs / "out"),
            "err": str(self.logs / "err"),
        }
        assert self._server.stdin is not None
        print(json.dumps(job), file=self._server.stdin, flush=True)
        said = {name: (self.logs / name) for name in ("out", "err")}
        facts = self._answer()
        return Ended(**facts, **{name: path.read_text(errors="replace") for name, path in said.items()})

    def _answer(self) -> dict[str, Any]:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        assert line, f"the parent of all runs ended with {self._server.wait()}"
        answer: dict[str, Any] = json.loads(line)
        return answer


# --- the parent of all runs -----------------------------------------------------------------------------------


def entry_point() -> tuple[str, str]:
    """Module and function of the command, as the project's file has them."""
    module, function = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["g2l"].split(":")
    return module, function


def import_all() -> None:
    """Import what the commands do, but for their entry point."""
    importlib.import_module("pipeline")  # first, as in the command: it says where others may write
    for name in IMPORTED_LATE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for package in ("pipeline", "stages"):
        folders = importlib.import_module(package).__path__
        for found in pkgutil.walk_packages(folders, package + "."):
            if found.name != entry_point()[0] and not found.name.endswith("__main__"):
                importlib.import_module(found.name)


def serve() -> dict[str, Any] | None:
    """Answer jobs until there are no more; in a fork that has one to do, return it."""
    for name in ("INT", "TERM", "HUP"):  # a parent that ignores them (nohup, a job in the background) hands that on
        signal.signal(STOPS[name], signal.default_int_handler if name == "INT" else signal.SIG_DFL)
    import_all()
    gc.freeze()  # or each fork looks through all of it when it ends, which takes seconds
    threads = len(list(Path("/proc/self/task").iterdir())) if Path("/proc/self/task").is_dir() else 1
    assert threads == 1, f"{threads} threads: a fork would miss all but one"
    print("{}", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        ready, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(ready)
            become_command(job, tell)
            return dict(job)
        os.close(tell)
        os.read(ready, 1)  # from here on the fork is the command
        os.close(ready)
        print(json.dumps(watch(pid, job)), flush=True)
    return None


def become_command(job: dict[str, Any], tell: int) -> None:
    """Give the fork a session, a working folder and standard files of its own; a fresh one becomes the command."""
    os.setsid()
    os.chdir(job["folder"])
    os.environ.update(job["variables"])
    files = [
        os.open(os.devnull, os.O_RDONLY),
        *(os.open(job[n], os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for n in ("out", "err")),
    ]
    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    if job["memory_bytes"]:
        resource.setrlimit(resource.RLIMIT_DATA, (job["memory_bytes"],) * 2)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the command's first line, as before Python has its own handler
    os.write(tell, b".")
    os.close(tell)
    if job["fresh"]:
        os.execv(G2L, [str(G2L), *job["arguments"]])
    sys.argv = [str(G2L), *job["arguments"]]


def watch(pid: int, job: dict[str, Any]) -> dict[str, Any]:
    """Send the signal when it is due, wait for the end, and look for what stays behind."""
    started = time.monotonic()
    stop, stopped_at, hung = job["stop"], 0.0, False
    status = wait(pid, job["after"] if stop else job["timeout"])
    if status is None and job["once"]:
        status = wait(pid, job["timeout"], until_one_of=job["once"])
    if status is None and stop:
        stopped_at = time.monotonic()
        (os.killpg if stop in FROM_TERMINAL else os.kill)(pid, stop)
        status = wait(pid, job["end_seconds"])
    if status is None:
        hung = True
        if not job["fresh"]:
            os.kill(pid, signal.SIGUSR1)  # says where it is
            time.sleep(0.5)
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
    ended = time.monotonic()
    return {
        "code": os.waitstatus_to_exitcode(status),
        "stopped": stopped_at > 0,
        "seconds": ended - started,
        "seconds_after": ended - stopped_at if stopped_at else 0.0,
        "hung": hung,
        "orphans": end_orphans(pid),
    }


def wait(pid: int, seconds: float, until_one_of: Sequence[str] = ()) -> int | None:
    """The status of a child that ended within so many seconds, and before one of these paths was there, else `None`."""
    until = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        left = until - time.monotonic()
        if left <= 0 or any(map(os.path.exists, until_one_of)):
            return None
        time.sleep(min(left, 0.001 if until_one_of else 0.005))


def end_orphans(session: int) -> list[str]:
    """Command lines of processes of a session that stay although its first one has ended; they are killed."""
    until = time.monotonic() + ORPHAN_SECONDS
    while (found := processes_of(session)) and time.monotonic() < until:
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        if found:
            os.killpg(session, signal.SIGKILL)
    return list(found.values())


def processes_of(session: int) -> dict[int, str]:
    """Command lines of the processes of a session, by id; none where the system does not tell (not Linux)."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ").strip()
    return found


def end_quickly(command: Callable[[], object]) -> NoReturn:
    """Run the command; join its threads and call what it registered for the end, but leave its memory to the system."""
    code: Any = 0
    try:
        code = command()
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001  (shown as the interpreter would)
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).resolve().parent))  # as in the installed command
    if (job := serve()) is not None:
        if job["hook"]:
            runpy.run_path(job["hook"])
        name, function = entry_point()
        run_command = getattr(importlib.import_module(name), function)
        sys.exit(end_quickly(run_command) if job["quick_end"] else run_command())
