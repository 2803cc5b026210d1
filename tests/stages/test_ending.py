"""How a command ends."""

import errno
import os

import pytest
import torch
from support.commands import run_g2l
from support.limits import little_memory_left

from pipeline.base.errors import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_OK, ConfigError
from stages.ending import ended, show


@pytest.mark.parametrize(("code", "expected"), [(None, EXIT_OK), (0, EXIT_OK), (3, 3), (4, 4)])
def test_a_command_that_is_done_has_its_own_code(
    capsys: pytest.CaptureFixture[str], code: int | None, expected: int
) -> None:
    def done() -> int | None:
        show("a\x1bb")
        return code

    assert ended(done) == expected
    assert capsys.readouterr() == ("a\\x1bb\n", "")


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (ConfigError("--mpp is missing"), "error: --mpp is missing", EXIT_ERROR),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out.h5"), "No space left on device", EXIT_ERROR),
        (KeyboardInterrupt(), "stopped; run the same command again to continue", EXIT_INTERRUPTED),
        (UnicodeEncodeError("utf-8", "a\udcffb", 1, 2, "surrogates"), "not UTF-8", EXIT_ERROR),
    ],
)
def test_an_error_is_a_line_and_a_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, said: str, code: int
) -> None:
    def failing() -> None:
        raise error

    assert ended(failing) == code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line


@pytest.mark.slow
def test_a_traceback_is_shown_when_asked_for() -> None:
    done = run_g2l("inspect", "nowhere", G2L_TRACEBACK="1")
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB\nmore"), "Tried to allocate 9.00 GiB"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "can't allocate memory"),
        (MemoryError(), "MemoryError"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "libtorch_cpu"),
    ],
)
def test_too_little_memory_is_told_wherever_it_is_noticed(
    capsys: pytest.CaptureFixture[str], error: Exception, words: str
) -> None:
    """As where a model is larger than the GPU; other errors that nobody expects show where they come from."""

    def failing() -> None:
        raise error

    assert ended(failing) == EXIT_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: too little memory, here or on the GPU (")
    assert words in line
    with little_memory_left():
        assert ended(failing) == EXIT_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert "this process has no memory left" in line
    error = RuntimeError("shapes do not fit")
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        ended(failing)
    with little_memory_left():  # whatever a library makes of that
        assert ended(failing) == EXIT_ERROR
    assert capsys.readouterr().err.startswith("error: shapes do not fit: this process has no memory left")
