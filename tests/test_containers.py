"""The recipes of containers: they copy what is there and is needed, and install what pyproject.toml allows."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from support.places import ROOT
from support.recipes import (
    ANYBODY,
    APPTAINER,
    DOCKER,
    WITHIN,
    apptainer_copies,
    can_be_anybody,
    commands,
    docker_copies,
    docker_steps,
    installs,
    open_folders,
    read_only,
    section,
    why_not_read_only,
)

from pipeline.config.base import COMMANDS

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


RECORD = """#!/bin/sh
[ "$1" = -m ] && echo "$@" >> {log}
exit 0
"""


def asked_of_pip(script: str, folder: Path, index: str) -> list[str]:
    """What a script asks pip for where the index of torch is this; it runs, with programs that only note it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in ("python", "g2l"):
        (folder / name).write_text(RECORD.format(log=folder / "asked"))
        (folder / name).chmod(0o755)
    (folder / "asked").touch()
    variables = {"PATH": f"{folder}:/usr/bin:/bin", "TORCH_INDEX": index}
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=variables, capture_output=True, text=True)
    return [*(folder / "asked").read_text().splitlines(), *(["failed"] if done.returncode else [])]


def same_as_docker(recipe: str, folder: Path) -> bool:
    """Whether the shell understands the sections of a g2l.def, pip is asked for what the Dockerfile asks for, whatever
    the index and with the same default, and what it runs is g2l with all words. The home is the user's own there.
    """
    scripts = {name: section(name, recipe) for name in ("post", "test", "runscript")}
    for script in scripts.values():
        if subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True).returncode:
            return False
    (run,) = (words for name, words in docker_steps() if name == "RUN" and "pip" in words)
    (default,) = (words.split("=", 1)[1] for name, words in docker_steps() if name == "ARG")
    for index in ("", "pypi", default):
        post = section("post", recipe, torch_index=index).replace(WITHIN, str(folder))
        asked = asked_of_pip(post, folder, index)
        if asked != asked_of_pip(run, folder, index) or len(asked) != (2 if index == default else 1):
            return False
    return (
        installs(scripts["post"]) == installs(run)
        and not re.search(r"&&|\|\|", scripts["post"])  # each line by itself: `set -e` ends at the first that fails
        and scripts["post"].split()[:4] == ["set", "-eu", "cd", WITHIN]
        and section("arguments", recipe).strip() == f"torch_index={default}"
        and not section("environment", recipe)
        and [words.split("=")[0] for name, words in docker_steps() if name == "ENV"] == ["HOME"]
        and commands(scripts["test"])[0] == "g2l --version"
        and all(known(line) for line in commands(scripts["test"]))
        and scripts["runscript"].strip() == 'exec g2l "$@"'
        and re.search(r"^ENTRYPOINT \[\"g2l\"\]$", DOCKER, re.MULTILINE) is not None
        and re.findall(r"^From(?:: | )(\S+)$", recipe, re.MULTILINE)
        == re.findall(r"^FROM (\S+)$", DOCKER, re.MULTILINE)
    )


def known(line: str) -> bool:
    """Whether a line of a script is g2l with a command that it has."""
    program, command, *_ = line.split()
    return program == "g2l" and command in ("--version", "--help", *COMMANDS)


def test_the_apptainer_recipe_does_what_the_dockerfile_does(tmp_path: Path) -> None:
    assert same_as_docker(APPTAINER, tmp_path / "here")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("    esac\n", "    && esac\n"),
        ("    esac\n", ""),
        ('""|pypi)', '"")'),
        ('""|pypi)', "pypi)"),
        ("        *)\n", "        https:*)\n            ;;\n        *)\n"),
        ("g2l models >", "false >"),
        ("g2l models >", "g2l model >"),
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
def test_a_broken_apptainer_recipe_is_seen(right: str, wrong: str, tmp_path: Path) -> None:
    assert right in APPTAINER
    assert not same_as_docker(APPTAINER.replace(right, wrong), tmp_path / "here")


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


def test_home_and_working_folder_are_everybodys() -> None:
    """`--user` names a user of the host, whom the image need not know: docker would take / for the home."""
    steps = list(docker_steps())
    (home,) = (words.removeprefix("HOME=") for name, words in steps if name == "ENV")
    *_, work = (words for name, words in steps if name == "WORKDIR")
    assert open_folders() == {home, work}


KEEPS = """
import os
from pipeline import demo_data
from pipeline.base.errors import G2LError

for home in HOMES:
    os.environ["HOME"] = home
    try:
        demo_data.keep(demo_data.cache_folder() / "slide.svs", b"a slide")
    except G2LError as error:
        print(error)
"""


@pytest.mark.slow
def test_anybody_has_a_cache_in_the_image_and_is_told_where_there_is_none() -> None:
    """A folder as the Dockerfile makes it; then /, the home that docker gives to an unknown user otherwise."""
    if not can_be_anybody():
        pytest.skip("only root, with setpriv of util-linux, can run a command as another user")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        home = Path(folder, "home")
        home.mkdir()
        home.chmod(0o1777)
        variables = [f"PYTHONPATH={ROOT}", "PATH=/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE=1"]
        code = KEEPS.replace("HOMES", repr([str(home), "/"]))
        command = [*ANYBODY, "env", "-i", *variables, sys.executable, "-c", code]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        kept = home / ".cache" / "g2l" / "slide.svs"
        assert kept.read_bytes() == b"a slide"
        assert kept.stat().st_uid == 12345
    (refused,) = done.stdout.splitlines()
    assert "/.cache/g2l: Permission denied. Set HOME" in refused


@pytest.mark.slow
def test_the_test_of_the_apptainer_recipe_needs_no_place_to_write(tmp_path: Path) -> None:
    """The build runs it in / of an image that is read-only; there `doctor` finds trouble, which was in %test once."""
    if reason := why_not_read_only(tmp_path):
        pytest.skip(reason)
    program = tmp_path / "g2l"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m g2l "$@"\n')
    program.chmod(0o755)
    variables = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": "/"}

    def run(script: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(read_only(script, tmp_path), env=variables | more, capture_output=True, text=True)

    done = run(section("test"))
    assert done.returncode == 0, done.stdout + done.stderr
    before = run("g2l --version\ng2l doctor\n", TMPDIR=str(tmp_path))
    assert before.returncode == 1
    assert "cannot write to /" in before.stdout


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
