"""Identify a process so that another can tell later whether it still runs, also across reboots and containers.

The system reuses process numbers, but not together with the start time. Both are meaningful only within one boot and
one process table: their `scope`. Read here as well: how many processes `torchrun` started, and which of them this is.
"""

import contextlib
import hashlib
import os
import re
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pipeline.base.errors import ConfigError

START_FIELD = 22
"""Field of /proc/PID/stat, counted from 1, that holds the start time in clock ticks since boot (proc(5))."""


@dataclass(frozen=True)
class ProcessIdentity:
    """A process.

    Attributes:
        scope: the boot and process table in which `pid` and `started` are valid, hex.
        pid: its number.
        started: its start in clock ticks since boot; "" if the system does not say.
    """

    scope: str
    pid: int
    started: str

    @classmethod
    def current(cls) -> Self:
        """This process."""
        return cls(scope(), os.getpid(), start_of(os.getpid()) or "")

    @classmethod
    def read(cls, record: Any) -> Self | None:
        """The inverse of `record`; `None` for anything else."""
        try:
            return cls(str(record["scope"]), int(record["pid"]), str(record["started"]))
        except (KeyError, TypeError, ValueError):
            return None

    def record(self) -> dict[str, Any]:
        """This identity as JSON types."""
        return asdict(self)

    def is_running(self) -> bool | None:
        """Whether it still runs; `None` if unknown: it belongs to another machine, boot or container."""
        if self.scope != scope():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # another user's process
        started = start_of(self.pid)
        return started is None or not self.started or started == self.started


def scope() -> str:
    """This boot of this machine, and this container's process table; 8 hex digits."""
    facts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # not on every system
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        facts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(facts).encode("utf-8", "surrogateescape")).hexdigest()[:8]


def start_of(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; `None` if the system does not say."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2]  # a name may hold spaces and brackets
    except OSError:
        return None
    return after_name.split()[START_FIELD - 3].decode()


def launched_processes() -> int:
    """Number of processes that `torchrun` started; 1 without it.

    Raises:
        ConfigError: WORLD_SIZE is no such number.
    """
    return launch_number("WORLD_SIZE", 1, least=1)


def launch_number(name: str, default: int, least: int = 0) -> int:
    """A number that `torchrun` gives a process in its environment; the default where it is not set.

    Raises:
        ConfigError: it is no whole number, or less than `least`.
    """
    text = os.environ.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < least:
        raise ConfigError(
            f"{name}={text}: torchrun sets this variable to a whole number of {least} or more. Without torchrun, "
            f"remove it: unset {name}"
        )
    return int(text)
