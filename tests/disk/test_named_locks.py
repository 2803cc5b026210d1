"""Locks where there is no flock: one writer at a time all the same, and a dead holder's lock is free."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.locks import nothing_left, refused

from pipeline.disk.locks import LOCK_SUFFIX, exclusive, is_held


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def no_flock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    def fail(*_: Any) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", fail)
    return os.strerror(request.param)


@pytest.mark.usefixtures("no_flock")
@pytest.mark.parametrize("exists", [True, False])
def test_without_flock_one_writer_at_a_time_all_the_same(
    tmp_path: Path, exists: bool, no_flock: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    if exists:
        store.mkdir()
    with exclusive(store, "first"):
        assert no_flock in capsys.readouterr().err
        assert is_held(tmp_path / ("store" + LOCK_SUFFIX))
        refused(store)
    assert nothing_left(tmp_path)
    with exclusive(store, "me"):
        pass


def test_a_file_system_that_really_has_no_flock(tmp_path: Path) -> None:
    """A library in front of the system's own answers as Lustre without `-o flock` does."""
    source, library = tmp_path / "noflock.c", tmp_path / "noflock.so"
    source.write_text("#include <errno.h>\nint flock(int fd, int how) { errno = ENOSYS; return -1; }\n")
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no C compiler here")
    code = "import os, sys\nfrom pathlib import Path\nfrom pipeline.disk.locks import exclusive\n"
    code += "out = Path(sys.argv[1])\n"
    hold = code + "with exclusive(out, 'first'):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    environment = os.environ | {"LD_PRELOAD": str(library)}
    command = [sys.executable, "-c", hold, str(tmp_path / "out")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment) as first:
        assert first.stdout
        assert first.stdout.readline() == "held\n"
        second = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, input="")
        assert "BusyError" in second.stderr
        assert f"in use by first (process {first.pid} on " in second.stderr
        refused(tmp_path / "out")  # by one that has flock, too
        first.kill()
    third = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, input="")
    assert (third.returncode, third.stdout) == (0, "held\n"), third.stderr
    assert "Function not implemented" in third.stderr
    assert nothing_left(tmp_path)
