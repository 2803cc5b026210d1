"""`import g2l`: light, complete, and without a trace in the process of whoever imports it."""

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support.commands import child_environment
from support.places import ROOT, parsed

import g2l

INIT = ROOT / "g2l" / "__init__.py"
STATE = """
import json, logging, os, signal, sys, threading, warnings

def state():
    return {
        "environment": dict(os.environ),
        "path": list(sys.path),
        "folder": os.getcwd(),
        "signals": [str(signal.getsignal(number)) for number in signal.valid_signals()],
        "threads": [thread.name for thread in threading.enumerate()],
        "loggers": [logging.root.level, str(logging.root.handlers), str(logging.getLogger("g2l").handlers)],
        "warnings": [str(each) for each in warnings.filters],
        "hooks": [str(sys.excepthook), str(threading.excepthook), str(sys.stdout), str(sys.stderr)],
    }
"""
IMPORT_ALL = """
import h5py, imagecodecs, openslide, pydantic, scipy.special, shapely, skimage, tifffile, timm, torch, tqdm, typer, zarr
before = state()  # what these change when they are imported is theirs
import g2l
for name in dir(g2l):
    getattr(g2l, name)
after = state()
print(json.dumps([[name, before[name], after[name]] for name in before if before[name] != after[name]]))
"""


def run_python(code: str, cwd: Path) -> str:
    environment = {k: v for k, v in child_environment().items() if k != "MPLCONFIGDIR"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_the_import_loads_nothing_else(tmp_path: Path) -> None:
    """Neither torch, zarr and OpenSlide nor any other module, of Python's own included."""
    code = "import sys; before = set(sys.modules); import g2l; print(*sorted(set(sys.modules) - before))"
    assert run_python(code, tmp_path).split() == ["g2l"]


@pytest.mark.slow
def test_a_script_that_set_up_no_logging_gets_the_warnings_and_no_notes(tmp_path: Path) -> None:
    code = "from g2l.guest import as_guest, tell\nwith as_guest(): tell('note: one'); tell('warning: two')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=child_environment(), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "warning: two\n")


@pytest.mark.slow
def test_the_names_of_the_commands_load_nothing_heavy(tmp_path: Path) -> None:
    heavy = ("torch", "timm", "numpy", "h5py", "zarr", "openslide", "matplotlib", "skimage", "PIL", "sklearn", "pandas")
    code = f"import sys, g2l; g2l.plan, g2l.evaluate, g2l.G2LError; print(*(set({heavy}) & set(sys.modules)))"
    assert run_python(code, tmp_path).split() == []


@pytest.mark.slow
def test_importing_all_of_it_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    """Environment, module path, signals, threads, loggers, filters of warnings and hooks."""
    assert json.loads(run_python(STATE + IMPORT_ALL, tmp_path)) == []


@pytest.mark.parametrize("name", g2l.__all__)
def test_every_name_is_there_and_described(name: str) -> None:
    assert name in dir(g2l)
    value = getattr(g2l, name)
    assert name == "__version__" or value.__doc__


def test_type_checkers_see_the_names_that_are_there() -> None:
    """The imports for type checkers, the list of homes and `__all__` agree."""
    (block,) = [node for node in parsed(INIT).body if isinstance(node, ast.If)]
    imports = [node for node in ast.walk(block) if isinstance(node, ast.ImportFrom)]
    seen = {(node.module, alias.name) for node in imports for alias in node.names}
    assert seen == {(home, name) for home, names in g2l._HOMES.items() for name in names}
    assert sorted(name for _, name in seen) == sorted({*g2l.__all__} - {"__version__"})


def test_types_are_there_wherever_a_name_comes_from() -> None:
    """Results are classes of `stages` and `pipeline`: without their mark they are `Any` to users."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for package in ("g2l", "pipeline", "stages"):
        assert (ROOT / package / "py.typed").exists()
        assert "py.typed" in data[package]


def test_no_module_has_the_name_of_a_function() -> None:
    """Importing `g2l.plan` as a module would put it in the function's place."""
    assert not {path.stem for path in (ROOT / "g2l").iterdir()} & {*g2l.__all__}


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    assert not hasattr(g2l, "no_such_name")
    with pytest.raises(AttributeError, match="no_such_name"):
        g2l.no_such_name  # type: ignore[attr-defined]  # noqa: B018
