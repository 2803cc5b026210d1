"""The lines `g2l ...` that documents show, and what the command makes of one short of running it."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from unittest import mock

from pipeline.base.errors import EXIT_OK
from stages.options import Call
from support.commands import call_g2l
from support.places import ROOT

PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "NOTICE", "Makefile")),
    *(ROOT / name for name in ("Dockerfile", "g2l.def", "data_manifests/README.md", "benchmarks/RESULTS.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "pipeline" / "data").rglob("*.md")),
)
"""What tells users of commands today; decisions tell what was thought of then."""

FENCED = re.compile(r"^ *```(?P<language>\w*)\n(?P<text>.*?)^ *```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^(?: {4}|\t\$\(BIN\)/)(?P<text>g2l [a-z-].*)$", re.MULTILINE)
INLINE = re.compile(r"`(?P<text>[^`\n]*\bg2l [^`\n]+)`")
SHELL = ("", "bash", "sh", "shell")
ENDS = ("&&", "||", "|", ";", ">")
"""Words that end a command."""
PLACEHOLDERS = {"COMMAND": "plan", "SET": "tils", "NAME": "uni"}
"""Words in capitals that stand for one of a list, and one of that list."""


@dataclass(frozen=True)
class CommandLine:
    """A line of a document.

    Attributes:
        page: the document, from the project's root.
        words: what comes after `g2l`.
        is_whole: whether it can be run as it stands: it is in a block, and nothing of it is left out (`...`).
    """

    page: str
    words: tuple[str, ...]
    is_whole: bool

    def __str__(self) -> str:
        return f"{self.page}: g2l {shlex.join(self.words)}"


def shell_blocks(text: str) -> list[str]:
    """The blocks of shell commands of a page, in their order."""
    return [found["text"] for found in FENCED.finditer(text) if found["language"] in SHELL]


def lines_of(block: str) -> list[str]:
    """The commands of a block, with those that go over several lines joined, and without comments."""
    joined = block.replace("\\\n", " ")
    return [line for each in joined.splitlines() if (line := re.sub(r"(^|\s)#(\s.*|!.*|SBATCH.*)?$", "", each).strip())]


def as_read(page: str, text: str, *, in_block: bool) -> CommandLine | None:
    """The command `g2l` that a line calls, also by `torchrun`; `None` if it calls another one."""
    words = shlex.split(re.sub(r"\$\{?\w+\}?", "1", text))
    if "g2l" not in words or words[:2] == ["docker", "build"]:  # there it is the image's name
        return None
    words = words[words.index("g2l") + 1 :]
    words = words[: next((i for i, word in enumerate(words) if word in ENDS), len(words))]
    if words in ([], ["..."]):
        return None
    kept = tuple(PLACEHOLDERS.get(word, word) for word in words if word != "...")
    return CommandLine(page, kept, in_block and "..." not in words)


def command_lines() -> Iterator[CommandLine]:
    """Every line of the documents that calls `g2l`, once."""
    seen = set()
    for path in PAGES:
        page, text = str(path.relative_to(ROOT)), path.read_text()
        rest = FENCED.sub("", text)
        found = [as_read(page, line, in_block=True) for block in shell_blocks(text) for line in lines_of(block)]
        found += [as_read(page, line["text"], in_block=True) for line in INDENTED.finditer(rest)]
        found += [as_read(page, line["text"], in_block=False) for line in INLINE.finditer(rest)]
        for line in found:
            if line is not None and line not in seen:
                seen.add(line)
                yield line


class Understood(BaseException):
    """The command has read all of its words and would begin to work."""


def refusal(line: CommandLine) -> str:
    """What the command says against its words: unknown commands and options, wrong values, missing arguments. Empty if
    it would begin to work. Nothing is run. What a line leaves out is not held against it.
    """
    resolve, resolve_study = Call.resolve, Call.resolve_study

    def stop(*args: object, **kwargs: object) -> None:
        resolve(*args, **kwargs)  # type: ignore[arg-type]
        raise Understood

    def stop_study(*args: object, **kwargs: object) -> None:
        with mock.patch.object(Call, "resolve", resolve):
            resolve_study(*args, **kwargs)  # type: ignore[arg-type]
        raise Understood

    with mock.patch.object(Call, "resolve", stop), mock.patch.object(Call, "resolve_study", stop_study):
        try:
            code, out, errors = call_g2l(*line.words)
        except Understood:
            return ""
    if code == EXIT_OK:
        return ""
    said = (out + errors).strip()
    left_out = ("error: missing: ", "Missing argument", "missing; it must be given", "requires an argument")
    return "" if not line.is_whole and any(words in said for words in left_out) else said
