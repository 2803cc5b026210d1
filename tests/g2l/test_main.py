"""The process of the command: no file of the user's takes the place of a module, and any locale will do."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import G2L, child_environment
from support.places import ROOT
from support.stores import flags, make_store, plain_vit, run_files, train_config

from g2l import __main__ as entry

HOSTILE = ("pipeline", "stages", "torch", "numpy", "typer", "json", "tqdm", "timm", "logging")
ODD = os.fsdecode(b"caf\xe9 \xff")
"""A name of Latin-1, which is no UTF-8."""
LOCALES = [
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "latin-1"},
    {"LC_ALL": "C"},
]


def run(*words: object, cwd: Path, module: bool = True, **variables: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "g2l"] if module else [str(G2L)]
    environment = child_environment() | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run([*command, *map(os.fspath, words)], cwd=cwd, env=environment, capture_output=True)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A working folder with scripts of a user's that have the names of modules."""
    for name in HOSTILE:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a script of the user was run')\n")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "module"),
    [("", True), pytest.param(":", True, marks=pytest.mark.slow), pytest.param("", False, marks=pytest.mark.slow)],
)
def test_scripts_in_the_working_folder_are_not_modules(hostile: Path, module: bool, path: str) -> None:
    """Neither for `python -m` nor where PYTHONPATH has an empty entry, as in `export PYTHONPATH=$PYTHONPATH:/x`. (With
    the installed script, the interpreter itself reads such a path before the script's first line.)
    """
    done = run("inspect", hostile / "none", cwd=hostile, module=module, PYTHONPATH=str(ROOT) + path)
    assert b"does not exist" in done.stderr, done.stderr
    assert done.returncode == 1


def test_the_first_lines_import_nothing_of_the_users(tmp_path: Path) -> None:
    """Before the path is cleaned, nothing is imported that the interpreter has not loaded by itself."""
    (tmp_path / "signal.py").write_text("raise SystemExit('a script of the user was run')\n")
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").write_text("raise SystemExit('a package of the user was run')\n")
    code = "import sys, g2l.__main__ as m; m.use_utf8 = lambda: sys.exit('set up'); m.main()"
    environment = child_environment() | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]  # as with -m, the working folder is first on the path
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stderr == "set up\n"


@pytest.mark.slow
@pytest.mark.parametrize("how", [["--no-python", str(G2L)], ["-m", "g2l"]])
def test_torchrun_in_a_folder_of_scripts_trains(hostile: Path, how: list[str]) -> None:
    """As the guide writes it."""
    hostile.joinpath("json.py").unlink()  # torchrun's own workers are started with the folder on their path
    hostile.joinpath("logging.py").unlink()
    place = hostile / "place"
    store = make_store(place / "store.zarr")
    config = train_config(plain_vit(place / "student"), epochs=1)
    words = ["train-student", str(store.folder), "--out", str(place / "run"), *flags(config)]
    torchrun = Path(sys.executable).with_name("torchrun")
    command = [torchrun, "--standalone", "--nproc-per-node", "2", *how, *words]
    environment = child_environment() | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=hostile, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert run_files(place / "run")


@pytest.mark.slow
@pytest.mark.parametrize("locale", LOCALES)
def test_paths_that_are_not_utf8_and_locales_that_are_not(tmp_path: Path, locale: dict[str, str]) -> None:
    folder = tmp_path / ODD
    folder.mkdir()
    (folder / "é.svs").write_bytes(b"no slide")
    manifest = folder / "m.csv"
    made = run("make-manifest", folder, "--out", manifest, cwd=tmp_path, **locale)
    assert (made.returncode, made.stderr) == (0, b""), made.stderr
    assert manifest.read_text("utf-8").splitlines()[1].startswith("é,é.svs,")
    assert made.stdout
    words = ("train-student", folder / "s.zarr", "--out", tmp_path / "run", "--student", "x")
    refused = run(*words, cwd=tmp_path, **locale)
    assert refused.returncode == 1
    assert b"is not UTF-8" in refused.stderr
    assert not (tmp_path / "run").exists()
    shown = run("inspect", folder, cwd=tmp_path, **locale)
    assert (shown.returncode, b"caf" in shown.stderr) == (1, True)
    for done in (made, shown, refused):
        assert b"Traceback" not in done.stderr, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("encoding", "shown"), [("ascii", rb"\xe9.csv"), ("latin-1", b"\xe9.csv")])
def test_what_the_terminal_cannot_show_is_escaped(tmp_path: Path, encoding: str, shown: bytes) -> None:
    (tmp_path / "a.svs").write_bytes(b"no slide")
    words = ("make-manifest", tmp_path, "--out", tmp_path / "é.csv")
    done = run(*words, cwd=tmp_path, LC_ALL="C.UTF-8", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr, shown in done.stdout) == (0, b"", True), done


@pytest.mark.slow
def test_output_that_nobody_reads_or_that_finds_no_room(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "g2l", "models"]
    environment = child_environment() | {"PYTHONPATH": str(ROOT)}
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environment, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: standard output: No space left on device\n"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, env=environment, text=True, check=False)
    os.close(write)
    assert done.returncode == 141
    assert done.stderr == ""


def test_the_working_folder_leaves_the_path_and_nothing_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), "/elsewhere", ".", str(tmp_path / "sub")])
    entry.ignore_modules_here()
    assert sys.path == ["/elsewhere", str(tmp_path / "sub")]


@pytest.mark.parametrize("name", ["site-packages", "dist-packages", ""])
def test_the_folder_of_the_packages_stays_on_the_path(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the command is run in the folder that it is installed in, or in the project's own."""
    here = tmp_path / name if name else ROOT
    here.mkdir(exist_ok=True)
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", ["", str(here)])
    entry.ignore_modules_here()
    assert sys.path == ["", str(here)]


def test_a_working_folder_that_is_gone_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setattr(sys, "path", ["", "/elsewhere"])
    entry.ignore_modules_here()
    assert sys.path == ["", "/elsewhere"]


@pytest.mark.parametrize(
    ("before", "after"), [(signal.SIG_IGN, signal.SIG_IGN), (signal.default_int_handler, signal.SIG_DFL)]
)
def test_ctrl_c_ends_the_process_unless_it_was_ignored(before: signal.Handlers, after: signal.Handlers) -> None:
    kept = signal.signal(signal.SIGINT, before)
    try:
        entry.end_without_traceback()
        assert signal.getsignal(signal.SIGINT) == after
    finally:
        signal.signal(signal.SIGINT, kept)


def test_a_command_with_too_few_addresses_ends_at_once() -> None:
    """With 270 MB SciPy's OpenBLAS asked for memory without end when it loaded, and no SIGTERM ended that."""
    call = f"ulimit -v 270000; exec {sys.executable} -m g2l plan none.csv --out none.h5"
    environment = child_environment() | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", call], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: this process may have 263 MiB of memory (ulimit -v), and needs 512 MiB to start")
    for words in ("--version", "plan --help", "models"):  # nothing of the kind is loaded for these
        done = subprocess.run(
            ["bash", "-c", f"ulimit -v 270000; exec {sys.executable} -m g2l {words}"], env=environment
        )
        assert done.returncode == 0
