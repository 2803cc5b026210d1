"""The steps of the Dockerfile, replayed without a daemon: from exactly the files that it copies, in a fresh
environment, up to `g2l demo`. Downloads torch: minutes and gigabytes, so it runs only where G2L_TOOLS is set (`make
test-tools`).

What a daemon alone can do is not replayed: the base image, the user without rights, the entry point as a process 1.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.places import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(os.environ.get("G2L_TOOLS") != "1", reason="downloads torch: set G2L_TOOLS=1"),
]
NEEDS_ROOT = ("useradd",)
"""Commands of the recipe that a test may not run."""


def steps() -> Iterator[tuple[str, str]]:
    """The instructions of the Dockerfile, each with its words."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(str.strip, text.splitlines()):
        name, words = line.split(maxsplit=1)
        yield name, words


def run(command: list[object], folder: Path, variables: dict[str, str]) -> str:
    """Run a command with these variables and no others; it must end well. Prints what it says, and returns it."""
    words = [str(word) for word in command]
    print("$", shlex.join(words), flush=True)
    done = subprocess.run(words, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout, flush=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_steps_of_the_dockerfile_lead_to_the_demo(tmp_path: Path) -> None:
    """With G2L_TORCH_INDEX another index for torch than the recipe's, as with `--build-arg TORCH_INDEX=`."""
    place, home = tmp_path / "opt", tmp_path / "home"
    place.mkdir()
    home.mkdir()
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "environment"], check=True)
    keep = {
        name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "HTTP", "http", "NO_"))
    }
    variables = keep | {"PATH": f"{tmp_path}/environment/bin:/usr/bin:/bin", "HOME": str(home)}
    entry: list[str] = []
    for name, words in steps():
        if name == "ARG":
            key, value = words.split("=", 1)
            variables[key] = os.environ.get(f"G2L_{key}", value)
        elif name == "COPY":
            *sources, target = words.split()
            for source in sources:
                copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copyfile
                copy(ROOT / source, place / (source if target == "./" else target))
        elif name == "RUN" and not words.startswith(NEEDS_ROOT):
            run(["/bin/bash", "-o", "pipefail", "-c", words], place, variables)
        elif name == "ENTRYPOINT":
            entry = [str(Path(f"{tmp_path}/environment/bin") / word) for word in re.findall(r'"([^"]+)"', words)]
    shutil.rmtree(place)  # what was installed does without it
    assert entry
    said = run([*entry, "demo", "--out", tmp_path / "out" / "demo"], tmp_path, variables)
    assert "on 241 held-out patches" in said
    assert (tmp_path / "out" / "demo" / "report" / "report.html").is_file()
