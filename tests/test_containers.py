"""The recipes of containers: they copy what is there and is needed, and install what pyproject.toml allows."""

import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from support.places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKER, APPTAINER = (ROOT / "Dockerfile").read_text(), (ROOT / "g2l.def").read_text()


def copied() -> list[str]:
    """What the Dockerfile copies."""
    return [name for line in re.findall(r"^COPY (.+) \S+$", DOCKER, re.MULTILINE) for name in line.split()]


def test_both_copy_the_same_and_the_build_context_has_it() -> None:
    of_apptainer = re.findall(r"^    (\S+) /opt/g2l/\1$", APPTAINER, re.MULTILINE)
    assert copied() == of_apptainer
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in copied():
        path = ROOT / name
        assert path.exists(), name
        inside = f"{name}/__init__.py" if path.is_dir() else name
        assert any(fnmatch(inside, pattern) for pattern in allowed), name


def test_what_is_copied_is_all_that_the_package_needs() -> None:
    packages = {name.split(".")[0] for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages | {"pyproject.toml", *PROJECT["project"]["license-files"]} == set(copied())
    assert PROJECT["project"]["readme"].split("/")[0] in packages


@pytest.mark.parametrize("recipe", [DOCKER, APPTAINER])
def test_versions_and_extras_are_those_of_the_project(recipe: str) -> None:
    for name in ("torch", "torchvision"):
        (needed,) = (line for line in PROJECT["project"]["dependencies"] if re.match(rf"{name}\b", line))
        assert f'"{needed}"' in recipe
    (extras,) = re.findall(r"\.\[([a-z,]+)\]", recipe)
    assert set(extras.split(",")) <= PROJECT["project"]["optional-dependencies"].keys()
    assert not re.search(r"\n(USER (root|0)|ENV .*TOKEN)", recipe)


def test_examples_write_as_the_user_into_folders_that_are_there() -> None:
    """The image runs as user 1000, and docker makes a missing folder as root: without both, nothing can be written."""
    examples = re.findall(r"`([^`]*docker run[^`]*)`", DOCKER)
    assert len(examples) == 2
    for example in examples:
        assert '--user "$(id -u):$(id -g)"' in example
        for folder in re.findall(r'-v "\$PWD/(\w+):', example):
            assert example.startswith(f"mkdir -p {folder} && ")


@pytest.mark.slow
def test_the_dockerfile_passes_its_linter() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.exists():
        pytest.skip("hadolint is not installed")
    done = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_what_is_copied_installs_and_starts(tmp_path: Path) -> None:
    """The steps of the recipes but for the packages that they fetch: those of this environment stand in."""
    for name in copied():
        target = tmp_path / "g2l" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", ROOT / name, target], check=True)
    wheel = f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", wheel], cwd=tmp_path / "g2l", check=True, capture_output=True)
    (made,) = tmp_path.glob("*.whl")
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        tmp_path / "there",
    ]
    subprocess.run([*install, made], check=True, capture_output=True)
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "there")}
    for words in (["--version"], ["--help"], ["models"]):
        done = subprocess.run(
            [sys.executable, "-m", "g2l", *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
