"""Which process that is, so that another one can tell later whether it still runs; also across reboots and containers.

A process number alone is given out again; with the time of the process's start it is not. Both mean something only
within one boot and one table of processes: their `scope`.
"""

import contextlib
import hashlib
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

START_FIELD = 22
"""Field of /proc/PID/stat that is the start in clock ticks since boot, from 1 (proc(5))."""


@dataclass(frozen=True)
class ProcessIdentity:
    """A process.

    Attributes:
        scope: the boot and the table of processes that `pid` and `started` belong to, hex.
        pid: its number.
        started: its start in clock ticks since boot; "" where the system does not tell.
    """

    scope: str
    pid: int
    started: str

    @classmethod
    def own(cls) -> Self:
        """This process."""
        return cls(scope(), os.getpid(), start_of(os.getpid()) or "")

    @classmethod
    def read(cls, record: Any) -> Self | None:
        """What `record` made; `None` for anything else."""
        try:
            return cls(str(record["scope"]), int(record["pid"]), str(record["started"]))
        except (KeyError, TypeError, ValueError):
            return None

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    def is_running(self) -> bool | None:
        """Whether it still runs; `None` if that cannot be known here: of another machine, boot or container."""
        if self.scope != scope():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # somebody else's
        started = start_of(self.pid)
        return started is None or not self.started or started == self.started


def scope() -> str:
    """This boot of this machine, and this container's table of processes; 8 hex digits."""
    said = [socket.gethostname()]
    with contextlib.suppress(OSError):  # a system without them
        said.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        said.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(said).encode("utf-8", "surrogateescape")).hexdigest()[:8]


def start_of(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; `None` where the system does not tell."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2]  # a name may hold spaces and brackets
    except OSError:
        return None
    return after_name.split()[START_FIELD - 3].decode()
