"""The wheel, installed by pip with all that it depends on into an empty environment: it runs, and its extras resolve.

This takes minutes, gigabytes and a package index, so that only `make test-tools` runs it. `tests/test_package.py` has
the wheel beside packages that are there already.
"""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support.places import ROOT
from support.slides import make_slide

PACKAGES = ("g2l", "pipeline", "stages")
FILES = ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "CITATION.cff", "MANIFEST.in")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LIBRARY = """
import g2l, sys
assert "torch" not in sys.modules
print(g2l.__file__, *(callable(getattr(g2l, name)) for name in ("plan", "embed", "evaluate", "load_student")))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(os.environ.get("G2L_TOOLS") != "1", reason="fetches gigabytes; make test-tools runs it"),
]


def run(*command: object, folder: Path) -> str:
    """What a command says that must end well, in `folder`, away from this project's modules."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copyfile(ROOT / name, tree / name)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out, tree, folder=tree)
    (made,) = out.glob("g2l-*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment that held nothing but pip."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", folder, folder=folder)
    binaries = folder / ("Scripts" if os.name == "nt" else "bin")
    listed = run(binaries / "python", "-m", "pip", "list", "--format", "freeze", folder=folder)
    assert {line.split("==")[0] for line in listed.split()} <= {"pip", "setuptools"}
    run(binaries / "python", "-m", "pip", "install", "--quiet", "--no-cache-dir", wheel, folder=folder)
    return binaries


def test_the_command_and_the_library_run(installed: Path, tmp_path: Path) -> None:
    assert run(installed / "python", "-m", "pip", "check", folder=tmp_path).startswith("No broken requirements")
    assert run(installed / "g2l", "--version", folder=tmp_path).split()[:2] == ["g2l", PROJECT["version"]]
    place, *callables = run(installed / "python", "-c", LIBRARY, folder=tmp_path).split()
    assert place.startswith(str(installed.parent))
    assert callables == ["True"] * 4


def test_a_slide_is_planned(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    for name in "ab":
        make_slide(tmp_path / "slides" / f"{name}.svs", width=1000, height=800, mpp=0.5, seed=ord(name))
    g2l = installed / "g2l"
    run(g2l, "make-manifest", "slides", "--out", "manifest.csv", folder=tmp_path)
    run(g2l, "plan", "manifest.csv", "--slides-root", "slides", "--val-strip", 0.2, "--out", "plan.h5", folder=tmp_path)
    said = run(g2l, "inspect", "plan.h5", folder=tmp_path)
    print(said)
    assert "slides" in said


@pytest.mark.parametrize("extra", PROJECT["optional-dependencies"])
def test_an_extra_resolves(wheel: Path, installed: Path, tmp_path: Path, extra: str) -> None:
    command = ("-m", "pip", "install", "--dry-run", "--no-cache-dir", f"g2l[{extra}] @ {wheel.as_uri()}")
    said = run(installed / "python", *command, folder=tmp_path)
    print(f"{extra}: {said.splitlines()[-1][:200]}")
    assert "Would install" in said
