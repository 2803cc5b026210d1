"""The cores that a process may use: by affinity and by its control group's quota."""

import gc
import os
import resource
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
from support.limits import few_files_left

from pipeline.base import outside
from pipeline.base.cores import (
    MOST_FILES,
    ask_for_files,
    cgroup_quota,
    few_objects_to_look_at,
    free_group_bytes,
    give_back_memory,
    group_folders,
    own_cores,
    require_addresses,
    require_descriptors,
    usable_cores,
)
from pipeline.base.errors import LimitError

CASES: list[tuple[str, dict[str, str], float | None]] = [
    ("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n"}, 1.5),
    ("0::/a/b\n", {"a/cpu.max": "50000 100000\n", "a/b/cpu.max": "max 100000\n"}, 0.5),
    ("0::/\n", {"cpu.max": "200000 100000\n"}, 2.0),  # as a container sees it
    ("0::/a\n", {"a/cpu.max": "max 100000\n"}, None),
    (
        "5:cpu,cpuacct:/x\n1:memory:/y\n",
        {"cpu,cpuacct/x/cpu.cfs_quota_us": "300000\n", "cpu,cpuacct/x/cpu.cfs_period_us": "100000\n"},
        3.0,
    ),
    ("5:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "-1\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, None),
    ("0::/a\n", {"a/cpu.max": "nonsense\n"}, None),
    ("", {}, None),
]


@pytest.mark.parametrize(("own", "files", "expected"), CASES)
def test_quota(tmp_path: Path, own: str, files: dict[str, str], expected: float | None) -> None:
    (tmp_path / "own").write_text(own)
    root = tmp_path / "root"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    assert cgroup_quota(root, tmp_path / "own") == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_process_held_to_one_core_uses_one() -> None:
    code = (
        "import os\nfrom pipeline.base.cores import usable_cores\n"
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\nprint(usable_cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_a_quota_counts_and_at_least_one_core_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.base.cores.cgroup_quota", lambda: 0.3)
    assert usable_cores() == 1
    monkeypatch.setattr("pipeline.base.cores.cgroup_quota", lambda: 10_000.0)
    assert usable_cores() == len(os.sched_getaffinity(0))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and glibc's allocator is asked")
def test_freed_memory_is_given_back() -> None:
    """Small arrays below one that is still in use: glibc keeps them until it is asked."""
    code = (
        "import numpy as np\nfrom pipeline.base.cores import give_back_memory\n"
        "def held():\n    return int(open('/proc/self/statm').read().split()[1]) * 4096\n"
        "arrays = [np.ones(100_000, np.uint8) for _ in range(1000)]\nlast = arrays.pop()\ncycle = [arrays]\n"
        "cycle.append(cycle)\nmost = held()\ndel arrays, cycle\n"
        "give_back_memory()\nassert held() < most - 80_000_000, (most, held())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    give_back_memory()  # again, with nothing to give


def test_processes_of_one_launcher_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.base.cores.usable_cores", lambda: 10)
    shares = {}
    for processes in ("1", "3", "64"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        shares[processes] = own_cores()
    assert shares == {"1": 10, "3": 3, "64": 1}
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert own_cores() == 10


class Ring:
    """An object that refers to itself."""

    def __init__(self) -> None:
        self.me = self


@pytest.mark.slow
def test_only_new_objects_are_looked_at_for_cycles() -> None:
    frozen = gc.get_freeze_count() > 0  # by conftest.py, for the suite
    gc.unfreeze()
    try:
        with few_objects_to_look_at():
            assert gc.get_freeze_count() > 1000
            ring = weakref.ref(Ring())
            with few_objects_to_look_at():
                give_back_memory()
            assert ring() is None
            assert gc.get_freeze_count() > 1000
        assert gc.get_freeze_count() == 0
    finally:
        if frozen:
            gc.freeze()


def test_a_process_asks_for_as_many_files_as_it_may_have() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        ask_for_files()
        most = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_that_a_process_can_open_no_more_files_is_said() -> None:
    require_descriptors()
    with few_files_left(spare=2):
        with pytest.raises(LimitError, match=r"ulimit -n"):
            require_descriptors()
        require_descriptors(2)  # those that were opened are closed again


def test_addresses_that_libraries_take_without_end_are_asked_for_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenBLAS asks again for ever, and no signal ends that. Each of its threads takes some."""
    for name in ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    limit = [0]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit[0], resource.RLIM_INFINITY))
    for cores, threads, least in ((200, None, 64), (200, "9", 9), (3, "64", 3), (200, "1", 1)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        if threads:
            monkeypatch.setenv("OMP_NUM_THREADS", threads)
        mib = 512 + 64 * (least - 1)
        limit[0] = (mib << 20) - 1
        with pytest.raises(LimitError, match=rf"-v\), and needs {mib:,} MiB to start with {least} thread") as told:
            require_addresses()
        assert ("or set OMP_NUM_THREADS to less" in str(told.value)) == (least > 1)
        limit[0] += 1
        require_addresses()
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")  # counts first
    limit[0] = 512 << 20
    with pytest.raises(LimitError, match=r"Raise the limit, or set OPENBLAS_NUM_THREADS to less than 2"):
        require_addresses()
    limit[0] = resource.RLIM_INFINITY
    require_addresses()


STAT = "anon 100\ninactive_file 30\nactive_file 20\nshmem 7\nslab_reclaimable 5\nslab_unreclaimable 9\n"
MEMORY_CASES: list[tuple[str, dict[str, str], int | None]] = [
    ("0::/\n", {"memory.max": "1000\n", "memory.current": "600\n", "memory.stat": STAT}, 455),  # as a container sees it
    ("0::/\n", {"memory.max": "1000\n", "memory.current": "1000\n"}, 0),
    ("0::/\n", {"memory.max": "1000\n"}, 1000),
    ("0::/\n", {"memory.max": "max\n", "memory.current": "600\n"}, None),
    (  # the group above has less left
        "0::/a/b\n",
        {"a/b/memory.max": "900", "a/b/memory.current": "100", "a/memory.max": "1000", "a/memory.current": "950"},
        50,
    ),
    (
        "4:memory:/job\n1:cpu:/\n",
        {
            "memory/job/memory.limit_in_bytes": "1000\n",
            "memory/job/memory.usage_in_bytes": "700\n",
            "memory/job/memory.stat": "active_file 1\ntotal_inactive_file 100\ntotal_active_file 50\n",
        },
        450,
    ),
    ("4:memory:/of/the/host\n", {"memory/memory.limit_in_bytes": "8", "memory/memory.usage_in_bytes": "3"}, 5),
    ("5:cpu:/x\n", {"cpu/x/memory.max": "10"}, None),
    ("", {}, None),
]


@pytest.mark.parametrize(("own", "files", "expected"), MEMORY_CASES)
def test_what_is_used_already_is_not_free(
    tmp_path: Path, own: str, files: dict[str, str], expected: int | None
) -> None:
    """The whole limit of a container counted as free, also where nearly all of it was used."""
    (tmp_path / "own").write_text(own)
    root = tmp_path / "root"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    assert free_group_bytes(root, tmp_path / "own") == expected


def test_a_group_s_folders_are_its_own_and_those_above(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("0::/a/b\n")
    root = tmp_path / "root"
    assert list(group_folders("cpu", root, tmp_path / "own")) == [root / "a" / "b", root / "a", root]


def test_free_memory_is_that_of_the_group_if_that_is_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "free_group_bytes", lambda: 12345)
    assert outside.free_memory_bytes() == 12345
