"""The steps of both recipes, replayed without a daemon: from exactly the files that they copy, in a fresh environment,
up to `g2l demo`. Downloads torch: minutes and gigabytes, so it runs only where G2L_TOOLS is set (`make test-tools`).

The Dockerfile comes first, from nothing. %post of g2l.def comes second in the same environment, where its packages are
there already: `tests/test_containers.py` shows that both ask pip for the same. With G2L_CONTAINER_LOG it writes
what was printed, shortened, to that file.

The demo runs as a user whom nothing knows, in a home and a working folder such as the Dockerfile makes, and %test where
nothing can be written, each where this machine lets a test do so.

Not replayed: the base image, the entry point as a process 1.
"""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pytest
from support.places import ROOT
from support.recipes import (
    ANYBODY,
    WITHIN,
    apptainer_copies,
    can_be_anybody,
    docker_copies,
    docker_steps,
    open_folders,
    read_only,
    section,
    why_not_read_only,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(os.environ.get("G2L_TOOLS") != "1", reason="downloads torch: set G2L_TOOLS=1"),
]
NEEDS_ROOT = ("useradd",)
"""Commands of the recipe that a test may not run."""
STANDS_FOR = {"/home/g2l": "home", "/work": "work"}
"""Folders of the replay by those of the image."""
LEFT_OUT = re.compile(
    r"\s*(Looking in|Stored in|Collecting|Downloading|Using cached|Requirement already|━|\[notice\]|WARNING: R).*"
)
"""Lines of pip that the log leaves out: where packages came from, how fast."""
LONGEST = 400
"""Characters of a line of the log."""


@dataclass
class Replay:
    """A folder that stands in for the image: `place` is /opt/g2l of the recipe."""

    root: Path
    said: list[str] = field(default_factory=list)

    @property
    def place(self) -> Path:
        return self.root / "opt"

    @property
    def binaries(self) -> Path:
        return self.root / "environment" / "bin"

    @property
    def variables(self) -> dict[str, str]:
        """Those of the image, and those with which pip reaches its index here."""
        kept = ("PIP_", "SSL_", "HTTP", "http", "NO_")
        keep = {name: value for name, value in os.environ.items() if name.startswith(kept)}
        return keep | {"PATH": f"{self.binaries}:/usr/bin:/bin", "HOME": str(self.root / "home")}

    def copy(self, targets: dict[str, str]) -> None:
        """Copy the project's files, and no others, to where a recipe wants them."""
        for source, target in targets.items():
            to = self.place / target.removeprefix(f"{WITHIN}/")
            to.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copyfile
            copy(ROOT / source, to)

    def run(self, command: list[object], folder: Path, variables: dict[str, str]) -> str:
        """Run a command with these variables and no others; it must end well. Prints what it says, and returns it."""
        words = [str(word) for word in command]
        self.said.append(f"$ {shlex.join(words)}")
        print(self.said[-1], flush=True)
        done = subprocess.run(
            words, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.said.append(f"{done.stdout}\n[exit code {done.returncode}]\n")
        print(self.said[-1], flush=True)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def log(self) -> str:
        """What was said, without places of this machine, pip's lines on where it fetches from, ends of long lines."""
        text = "\n".join(self.said).replace(str(self.place), WITHIN).replace(f"{self.binaries}/", "")
        text = text.replace(f"{self.root}/", "").replace(str(self.root), ".")
        lines = [line.split("\r")[-1].rstrip() for line in text.splitlines()]
        kept = [line for line in lines if line and not LEFT_OUT.match(line)]
        head = f"tests/tools/test_container_recipe.py, {date.today()}, Python {platform.python_version()}, shortened\n"
        return "\n".join([head, *(line if len(line) <= LONGEST else f"{line[:LONGEST]} ..." for line in kept)])


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replay]:
    replay = Replay(tmp_path_factory.mktemp("image"))
    for name in ("home", "work", "tmp"):
        (replay.root / name).mkdir()
    subprocess.run([sys.executable, "-m", "venv", replay.root / "environment"], check=True)
    yield replay
    if to := os.environ.get("G2L_CONTAINER_LOG"):
        Path(to).write_text(replay.log() + "\n")


def test_the_steps_of_the_dockerfile_lead_to_the_demo(replay: Replay) -> None:
    """With G2L_TORCH_INDEX another index for torch than the recipe's, as with `--build-arg TORCH_INDEX=`."""
    variables = replay.variables
    replay.copy(docker_copies())
    entry: list[str] = []
    for name, words in docker_steps():
        if name == "ARG":
            key, value = words.split("=", 1)
            variables[key] = os.environ.get(f"G2L_{key}", value)
        elif name == "RUN" and not words.startswith(NEEDS_ROOT):
            replay.run(["/bin/bash", "-o", "pipefail", "-c", words], replay.place, variables)
        elif name == "ENTRYPOINT":
            entry = [str(replay.binaries / word) for word in re.findall(r'"([^"]+)"', words)]
    shutil.rmtree(replay.place)  # what was installed does without it
    assert entry
    for folder in open_folders():
        (replay.root / STANDS_FOR[folder]).chmod(0o1777)
    anybody = ANYBODY if can_be_anybody() else ()
    said = replay.run([*anybody, *entry, "demo"], replay.root / "work", variables)
    assert "on 241 held-out patches" in said
    assert (replay.root / "work" / "demo-out" / "report" / "report.html").is_file()


def test_the_sections_of_the_apptainer_recipe_install_test_and_run(replay: Replay) -> None:
    """Without G2L, %post must install it again; %test and %runscript then run what is installed."""
    variables, shell = replay.variables, ["/bin/sh", "-c"]  # the shell that Apptainer takes
    if (replay.binaries / "g2l").exists():
        replay.run(["python", "-m", "pip", "uninstall", "--yes", "g2l"], replay.root, variables)
    assert not (replay.binaries / "g2l").exists()
    replay.copy(apptainer_copies())
    (default,) = re.findall(r"torch_index=(\S+)", section("arguments"))
    index = os.environ.get("G2L_TORCH_INDEX", default)
    post = section("post", torch_index=index).replace(WITHIN, str(replay.place))
    replay.run([*shell, post], replay.root, variables)
    shutil.rmtree(replay.place)
    cannot = why_not_read_only(replay.root / "tmp")
    test = [*shell, section("test")] if cannot else read_only(section("test"), replay.root / "tmp")
    replay.run(test, replay.root, variables)
    # words of the user reach the command as they are
    said = replay.run([*shell, section("runscript"), "g2l.sif", "models", "--help"], replay.root, variables)
    assert said.startswith("Usage: g2l models")
    missing = replay.root / "no such plan.h5"
    with pytest.raises(AssertionError, match=r"no such plan\.h5"):
        replay.run([*shell, section("runscript"), "g2l.sif", "inspect", missing], replay.root, variables)
