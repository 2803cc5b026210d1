"""What a kind of damaged input is, and what the words of its command stand for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from support.extraction import PATCH_PX, TEACHER
from support.fuzz_damage import Damage

WORLD, OUT = "{world}", "{out}"
"""In a kind's words: the folder of its inputs, of which one is damaged, and an empty folder for its outputs."""
ORIGIN = "{origin}"
"""In a kind's words: the folder that `WORLD` is a copy of, for what a kept result is told by its path."""
CPU = ("--device", "cpu", "--workers", "2")
MODEL = f"tiny={TEACHER}@{WORLD}/teacher.safetensors"
TEACHING = ("--teacher", TEACHER, "--weights", f"{WORLD}/teacher.safetensors")
STUDENT, STUDIED = "{student}", "{studied}"
"""In a kind's words: the options of the run, and those of the study, which are continued under no others."""
WEIGHTS = ("teacher.safetensors",)

MANIFEST = ("--out", f"{OUT}/manifest.csv")
PLAN = (
    "plan",
    f"{WORLD}/slides/manifest.csv",
    "--out",
    f"{OUT}/plan.h5",
    "--patch-px",
    str(PATCH_PX),
    "--workers",
    "2",
    "--min-tissue",
    "0",
)


@dataclass(frozen=True)
class Kind:
    """A kind of input, and a command that reads it.

    Attributes:
        name: of the input, and how it is read.
        damaged: patterns below the world; one of the files is damaged.
        takes: what of the world the command needs.
        words: the command, with `WORLD`, `OUT`, `ORIGIN`, `STUDENT` and `STUDIED`.
        decides: whether the command reads all of each file, so that it must notice what makes a file unusable.
        more: ways to damage these files besides those of their names.
    """

    name: str
    damaged: tuple[str, ...]
    takes: tuple[str, ...]
    words: tuple[str, ...]
    decides: bool = True
    more: tuple[Damage, ...] = ()


def spoken(words: tuple[str, ...], places: Mapping[str, Path], options: Mapping[str, list[str]]) -> list[str]:
    """A command's words, with a folder for each of `places`, and several words for each of `options`."""
    said: list[str] = []
    for word in words:
        for mark, place in places.items():
            word = word.replace(mark, str(place))
        said += options.get(word, [word])
    return said
