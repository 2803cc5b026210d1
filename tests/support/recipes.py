"""The recipes of containers as data: the steps of the Dockerfile, the sections of g2l.def, what each copies."""

import re
from collections.abc import Iterator

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
    return [words.strip().removeprefix("then ") for words in re.findall(r"[^;&]*\bpip\b[^;&]*", one_line)]
