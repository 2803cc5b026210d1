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
from support.recipes import APPTAINER, DOCKER, apptainer_copies, docker_copies, docker_steps, installs, section

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_both_copy_the_same_and_the_build_context_has_it() -> None:
    assert docker_copies() == apptainer_copies()
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name, target in docker_copies().items():
        assert target == f"/opt/g2l/{name}"
        path = ROOT / name
        assert path.exists(), name
        inside = f"{name}/__init__.py" if path.is_dir() else name
        assert any(fnmatch(inside, pattern) for pattern in allowed), name


def test_what_is_copied_is_all_that_the_package_needs() -> None:
    packages = {name.split(".")[0] for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages | {"pyproject.toml", *PROJECT["project"]["license-files"]} == set(docker_copies())
    assert PROJECT["project"]["readme"].split("/")[0] in packages


def same_as_docker(recipe: str) -> bool:
    """Whether the shell understands the sections of a g2l.def, pip is asked for what the Dockerfile asks for, under the
    same condition and default, and what it runs is g2l with all words.
    """
    scripts = {name: section(name, recipe) for name in ("post", "test", "runscript")}
    for script in scripts.values():
        if subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True).returncode:
            return False
    (run,) = (words for name, words in docker_steps() if name == "RUN" and "pip" in words)
    (default,) = (words.split("=", 1)[1] for name, words in docker_steps() if name == "ARG")
    return (
        len(installs(run)) == 2
        and installs(scripts["post"]) == installs(run)
        and not re.search(r"&&|\|\|", scripts["post"])  # each line by itself: `set -e` ends at the first that fails
        and scripts["post"].split()[:4] == ["set", "-eu", "cd", "/opt/g2l"]
        and 'if [ -n "{{ torch_index }}" ]; then' in scripts["post"]
        and section("arguments", recipe).strip() == f"torch_index={default}"
        and not section("environment", recipe)
        and not any(name == "ENV" for name, _ in docker_steps())
        and scripts["test"].split("\n")[0].strip() == "g2l --version"
        and scripts["runscript"].strip() == 'exec g2l "$@"'
        and re.search(r"^ENTRYPOINT \[\"g2l\"\]$", DOCKER, re.MULTILINE) is not None
        and re.findall(r"^From(?:: | )(\S+)$", recipe, re.MULTILINE)
        == re.findall(r"^FROM (\S+)$", DOCKER, re.MULTILINE)
    )


def test_the_apptainer_recipe_does_what_the_dockerfile_does() -> None:
    assert same_as_docker(APPTAINER)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("    fi\n", "    && fi\n"),
        ("    fi\n", ""),
        ("pip install", "pip instal"),
        ("tensorboard,", ""),
        ('"torchvision>=0.27" ', ""),
        ("cd /opt/g2l", "cd /opt"),
        ("exec g2l", "exec g21"),
        ('"$@"', "$@"),
        ("set -eu\n", "\n"),
        ("whl/cpu", "whl/cu130"),
        ("3.12-slim", "3.13-slim"),
    ],
)
def test_a_broken_apptainer_recipe_is_seen(right: str, wrong: str) -> None:
    assert right in APPTAINER
    assert not same_as_docker(APPTAINER.replace(right, wrong))


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
    for name in docker_copies():
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
