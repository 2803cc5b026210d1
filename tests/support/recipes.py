"""The recipes of containers as data: the steps of the Dockerfile, the sections of g2l.def, what each copies."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from support.places import ROOT

DOCKER, APPTAINER = (ROOT / "Dockerfile").read_text(), (ROOT / "g2l.def").read_text()
WITHIN = "/opt/g2l"
"""The folder of both recipes in which the package is installed."""


def docker_steps(text: str = DOCKER) -> Iterator[tuple[str, str]]:
    """The instructions of the Dockerfile, each with its words."""
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(str.strip, text.splitlines()):
        name, words = line.split(maxsplit=1)
        yield name, words


def docker_copies(text: str = DOCKER) -> dict[str, str]:
    """Where the Dockerfile copies each file or folder of the project."""
    copies = {}
    for name, words in docker_steps(text):
        if name == "COPY":
            *sources, target = words.split()
            copies |= {source: f"{WITHIN}/{source if target == './' else target}" for source in sources}
    return copies


def section(name: str, text: str = APPTAINER, **values: str) -> str:
    """The lines of a section of g2l.def, with these values for the arguments of the build; empty where it has none."""
    found = re.search(rf"^%{name}\n(.*?)(?=^%|\Z)", text, re.MULTILINE | re.DOTALL)
    lines = found[1] if found else ""
    for key, value in values.items():
        lines = lines.replace(f"{{{{ {key} }}}}", value)
    return lines


def apptainer_copies(text: str = APPTAINER) -> dict[str, str]:
    """Where g2l.def copies each file or folder of the project."""
    pairs = (line.split() for line in section("files", text).splitlines() if line.strip())
    return {source: target for source, target in pairs}  # noqa: C416


def installs(script: str) -> list[str]:
    """The commands of a script that call pip, with one name for the index of torch."""
    one_line = re.sub(r"\s+", " ", re.sub(r"\\\n", " ", script).replace("\n", " ; "))
    one_line = one_line.replace("{{ torch_index }}", "$TORCH_INDEX")
    return [words.strip().removeprefix("*) ") for words in re.findall(r"[^;&]*\bpip\b[^;&]*", one_line)]


def commands(script: str) -> list[str]:
    """The lines of a script that are no comments."""
    return [line for line in map(str.strip, script.splitlines()) if line and not line.startswith("#")]


READS = "-all,+dac_read_search"
ANYBODY = (
    *("setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups"),
    *(f"--inh-caps={READS}", f"--ambient-caps={READS}", f"--bounding-set={READS}"),
)
"""Begins a command that runs as a user whom no list of users has. It reads what root reads, as the interpreter may lie
in a folder that is closed to others, and writes only where everybody may.
"""


def open_folders(text: str = DOCKER) -> set[str]:
    """The folders that the Dockerfile makes everybody's."""
    (run,) = (words for name, words in docker_steps(text) if name == "RUN" and "useradd" in words)
    return {folder for words in re.findall(r"chmod 1777 ([^&;]+)", run) for folder in words.split()}


def can_be_anybody() -> bool:
    """Whether a test may run a command as another user."""
    return os.geteuid() == 0 and shutil.which("setpriv") is not None


def read_only(script: str, writable: Path) -> list[str]:
    """The command that runs a script in /, with all of / but `writable` read-only, as Apptainer runs %test."""
    start = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    mounts = 'mount --bind "$2" "$2" && mount -o remount,bind,ro / && cd /'
    return [*start, "/bin/sh", "-c", f'{mounts} && exec /bin/sh -ec "$1"', "sh", script, str(writable)]


def why_not_read_only(writable: Path) -> str:
    """Why `read_only` does not do what it says on this machine; empty if it does."""
    if shutil.which("unshare") is None:
        return "util-linux's unshare is not installed"
    script = f"! touch /written 2> /dev/null && touch {writable}/written"
    done = subprocess.run(read_only(script, writable), capture_output=True, text=True)
    return f"/ cannot be mounted read-only: {done.stderr.strip()}" if done.returncode else ""
