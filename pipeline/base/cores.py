"""What this process takes of the machine: how many cores it may use, fewer than there are if a scheduler or container
limits them; how many files it may have open; memory that a container leaves to it; and memory that it no longer needs.
"""

import ctypes
import gc
import math
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.base.errors import LimitError, raise_if_limit
from pipeline.base.processes import launch_number

MOST_FILES = 1 << 16
"""Files that a process asks to have open at once. Our choice: many more than any command opens; where the system allows
a thousand million, programs that close all numbers one by one take minutes.
"""
LEAST_ADDRESSES = 1 << 29
"""512 MiB of addresses (`ulimit -v`), which commands that load SciPy need. Measured: `g2l plan` of small slides takes
580 MB.
"""
BUFFER_BYTES = 1 << 26
"""Addresses that OpenBLAS takes for each thread when it loads, once for NumPy and once for SciPy: 32 MiB each. Where it
gets none it asks again without end, and no signal ends that.
"""
MOST_BLAS_THREADS = 64
"""Threads for which OpenBLAS is built in the packages of NumPy and SciPy."""
SPARE_FILES = 4
"""Files that opening a slide takes for a moment, about. Our choice."""

CGROUPS = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")
MEMORY_FILES = (
    ("memory.max", "memory.current", ("inactive_file", "active_file", "slab_reclaimable")),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
)
"""Files of a group's limit and of what it uses, and the names in its `memory.stat` of what the system takes back when
there is need, which are copies of files, and what it has noted of files and folders: of version 2, and of version 1,
which does not say the latter.
"""


def usable_cores() -> int:
    """Number of cores this process may use: the smaller of its CPU affinity and its control group's quota; at least
    1.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota()
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def ask_for_files() -> None:
    """Raise this process's own limit of open files (`ulimit -n`) as far as the system lets it: macOS begins with 256,
    and many schedulers with 1,024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    while soft != resource.RLIM_INFINITY and soft < most:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        except (OSError, ValueError):  # macOS names no limit, and lets a process have 10,240 or so
            most //= 2
        else:
            return


def require_addresses() -> None:
    """Check that this process may have the addresses that NumPy and SciPy take when they load; before they do.

    Raises:
        LimitError: it may not.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return
    threads, name = _blas_threads()
    least = LEAST_ADDRESSES + BUFFER_BYTES * (threads - 1)
    if soft < least:
        words = "1 thread" if threads == 1 else f"{threads} threads"
        fewer = f", or set {name} to less than {threads}" if threads > 1 else ""
        raise LimitError(
            f"this process may have {soft >> 20:,} MiB of memory (ulimit -v), and needs {least >> 20:,} MiB to start "
            f"with {words}; with a model it needs more than 4,096. Raise the limit{fewer}"
        )


def _blas_threads() -> tuple[int, str]:
    """Number of threads that OpenBLAS prepares for, of the cores that it may use, and the variable that says so."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = min(allowed, MOST_BLAS_THREADS)
    for name in ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "")
        if text.isdecimal() and int(text):
            return min(int(text), most), name
    return most, name


def require_descriptors(spare: int = SPARE_FILES) -> None:
    """Check that this process may open a few more files.

    Raises:
        LimitError: it may not.
    """
    opened: list[int] = []
    try:
        for _ in range(spare):
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise_if_limit(error)
        raise
    finally:
        for descriptor in opened:
            os.close(descriptor)


def give_back_memory() -> None:
    """Free what only cycles of objects still hold, and, with glibc, give freed memory back to the system.

    Python looks for cycles after many new objects, however large they are: tifffile's pages of a slide of 120,000 tiles
    are few, and take 10 MB. And glibc keeps what a thread frees for that thread (decision 0052). Takes tens of
    milliseconds.
    """
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


@contextmanager
def few_objects_to_look_at() -> Iterator[None]:
    """While the block runs, Python looks for cycles among the objects that are made in it only, not among those of all
    imported packages: with torch these are 0.2 s each time, in which no other thread gets on.
    """
    is_first = not gc.get_freeze_count()
    if is_first:
        gc.collect()
        gc.freeze()
    try:
        yield
    finally:
        if is_first:
            gc.unfreeze()


def own_cores() -> int:
    """Number of cores for this process: its share, if `torchrun` started several on this machine; at least 1."""
    return max(1, usable_cores() // launch_number("LOCAL_WORLD_SIZE", 1, least=1))


def cgroup_quota(root: Path = CGROUPS, groups: Path = OWN_GROUP) -> float | None:
    """CPU quota of this process in cores: the smallest of its control group and the groups above it; `None` without a
    limit. Read from `cpu.max` (version 2), or `cpu.cfs_quota_us` and `cpu.cfs_period_us` (version 1).
    """
    quotas = [quota for folder in group_folders("cpu", root, groups) for quota in _quota_of(folder)]
    return min(quotas, default=None)


def _quota_of(folder: Path) -> list[float]:
    """The quota of one control group, in cores; empty without a limit."""
    words = _read(folder / "cpu.max").split() or [
        _read(folder / "cpu.cfs_quota_us").strip(),
        _read(folder / "cpu.cfs_period_us").strip(),
    ]
    try:
        quota, period = float(words[0]), float(words[1])
    except (ValueError, IndexError):  # "max", or no such files
        return []
    return [quota / period] if quota > 0 and period > 0 else []


def group_folders(controller: str, root: Path = CGROUPS, groups: Path = OWN_GROUP) -> Iterator[Path]:
    """The folders of this process's control group and of those above it, whose limits all count; of both versions.

    Where a container does not show its group's own folder, that of the container is the root.
    """
    for line in _read(groups).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        for base in (root,) if not controllers else (root / controllers, root / controller):
            group_folder = base / group.lstrip("/")
            for folder in (group_folder, *group_folder.parents):
                if folder.is_relative_to(base):
                    yield folder


def free_group_bytes(root: Path = CGROUPS, groups: Path = OWN_GROUP) -> int | None:
    """Memory that the control groups leave to this process: the smallest of their limits, each less what its processes
    use already; `None` without a limit.
    """
    free = [each for folder in group_folders("memory", root, groups) if (each := _free_bytes(folder)) is not None]
    return min(free, default=None)


def _free_bytes(folder: Path) -> int | None:
    """What one group's limit leaves; all of it where the system does not say what is used, `None` without a limit."""
    for limit_file, used_file, taken_back in MEMORY_FILES:
        try:
            limit = int(_read(folder / limit_file))
        except ValueError:  # "max", or no such file
            continue
        try:
            used = int(_read(folder / used_file))
        except ValueError:
            return limit
        pairs = (line.partition(" ") for line in _read(folder / "memory.stat").splitlines())
        used -= sum(int(number) for name, _, number in pairs if name in taken_back and number.isdigit())
        return min(limit, max(limit - used, 0))
    return None


def _read(path: Path) -> str:
    """What a file of the system says; "" if it is not there."""
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
