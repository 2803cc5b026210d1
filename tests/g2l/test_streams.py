"""Commands whose standard streams are closed."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import child_environment
from support.extraction import write_cohort
from support.places import ROOT
from support.stores import make_store

from g2l import streams
from g2l.streams import _Lasting


@pytest.mark.parametrize(
    ("start", "closed"),
    [
        ("-m g2l", "<&- >&- 2>&-"),
        *(pytest.param("-m g2l", closed, marks=pytest.mark.slow) for closed in (">&-", "2>&-", "<&-")),
        pytest.param("-m stages.cli", ">&- 2>&-", marks=pytest.mark.slow),
    ],
)
def test_closed_streams_are_as_dev_null(tmp_path: Path, closed: str, start: str) -> None:
    """As some starters of daemons leave them. A file that is opened must not become standard output or error."""
    (tmp_path / "a.svs").write_bytes(b"no slide")
    command = f'"{sys.executable}" {start} make-manifest . --out m.csv {closed}'
    environment = child_environment() | {"PYTHONPATH": str(ROOT), "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("m.csv" in done.stdout) == (">&-" not in closed.split())
    assert (tmp_path / "m.csv").read_text().splitlines()[1].startswith("a,a.svs,")
    wrong = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert ("m.csv exists" in wrong.stderr) == ("2>&-" not in closed)


@pytest.mark.slow
def test_commands_with_a_progress_bar_work_without_standard_error(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store.zarr")  # of a teacher without weights: 3, done as far as possible
    command = f'"{sys.executable}" -m g2l verify "{store.folder}" >&- 2>&-'
    environment = child_environment() | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, shell=True, cwd=tmp_path, env=environment, check=False).returncode == 3


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_what_cannot_be_written_to_standard_error_is_dropped() -> None:
    """Where the reader of a pipe has gone, a command ends as others do."""
    with open("/dev/full", "wb") as full, _Lasting(full.fileno(), "w", closefd=False) as lasting:
        assert lasting.write(memoryview(b"a note\n")) == 7
    read, write = os.pipe()
    with _Lasting(write, "w") as lasting:
        assert lasting.write(b"a note\n") == 7
        assert os.read(read, 9) == b"a note\n"
        os.close(read)
        with pytest.raises(BrokenPipeError):
            lasting.write(b"a note\n")


def test_what_a_pipe_that_does_not_block_has_no_room_for_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "WAIT_SECONDS", 0.01)
    read, write = os.pipe()
    os.set_blocking(write, False)
    os.set_blocking(read, False)
    with _Lasting(write, "w") as lasting, io.BufferedWriter(lasting) as notes:
        for _ in range(40):
            notes.write(b"a note\n" * 1000)
            notes.flush()
        assert 0 < len(os.read(read, 1 << 20)) < 40 * 7000, "no more than a pipe holds"
        notes.write(b"later\n")
        notes.flush()
        assert os.read(read, 99) == b"later\n"
    os.close(read)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_work_goes_on_where_notes_cannot_be_written(tmp_path: Path) -> None:
    """A log on a full disk, or the closed terminal of a job in the background."""
    manifest = write_cohort(tmp_path / "slides", 2, width=640, height=640)
    environment = child_environment() | {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "g2l", "plan", manifest, "--patch-px", "64", "--out"]
    with open("/dev/full", "w") as full:
        done = subprocess.run([*words, tmp_path / "p.h5"], stderr=full, stdout=subprocess.PIPE, env=environment)
    assert done.returncode == 0
    assert (tmp_path / "p.h5").exists()
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*words, tmp_path / "q.h5"], stderr=write, stdout=subprocess.PIPE, env=environment)
    os.close(write)
    assert done.returncode == 141
