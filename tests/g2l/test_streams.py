"""Commands whose standard streams are closed."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import child_environment
from support.places import ROOT
from support.stores import make_store


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
