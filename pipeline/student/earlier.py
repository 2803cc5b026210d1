"""Student folders of versions before `student.json`: what it says was read from the card, and still is for these.

projector.safetensors   beside the weights in version 0.1.0, in `projector/` since 0.2.0
projectors.json         files of projectors by teachers' names, of a student of several teachers; still written, for
                        programs that read it
README.md               the card: hashes of the teachers' weights and of the plan
"""

import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.base.errors import EncoderError
from pipeline.base.outside import is_there, read_bytes, read_json, reading
from pipeline.disk.files import write_json, write_text
from pipeline.student.student_json import FIRST_PROJECTOR, PROJECTOR_FOLDER

PROJECTORS_JSON = "projectors.json"
BESIDE = "projector.safetensors"
"""The first teacher's projector where it lies beside the weights."""
PROJECTOR = re.compile(rf"^({PROJECTOR_FOLDER}/)?[A-Za-z0-9._-]+\.safetensors\Z")
"""What `projectors.json` may name."""
CARD = "README.md"
PLAN = re.compile(r"\bPlan ([0-9a-f]{64})\b")
FIRST_TEACHER = re.compile(r"^- Teacher weights ([0-9a-f]{64})\b", re.MULTILINE)
FURTHER_TEACHER = re.compile(r"^- Further teacher (.+): weights ([0-9a-f]{64})\b", re.MULTILINE)
"""How cards name the plan and the teachers' weights (`card.teacher_lines`)."""


def first_projector(folder: Path) -> str:
    """The file of the first teacher's projector in a student's folder, whether it exists or not."""
    return BESIDE if (folder / BESIDE).is_file() else FIRST_PROJECTOR


def named_projectors(folder: Path) -> dict[str, str]:
    """Files of projectors by teachers' names, of a student of several teachers; empty for one teacher.

    Raises:
        EncoderError: `projectors.json` is damaged.
    """
    path = folder / PROJECTORS_JSON
    if not is_there(path):
        return {}
    with reading(path, "damaged", EncoderError):
        files: dict[str, str] = read_json(path)
        if wrong := [name for name in files.values() if not PROJECTOR.match(name)]:
            raise ValueError(f"{wrong[0]!r} is no file name")
    return files


def read_card(folder: Path) -> str:
    """The text of a student's card; "" without one.

    Raises:
        EncoderError: it cannot be read.
    """
    path = folder / CARD
    with reading(path, "not a student's card", EncoderError):
        return read_bytes(path).decode(errors="replace") if path.is_file() else ""


def teachers_in_card(card: str, names: Sequence[str]) -> dict[str, str]:
    """Hashes of the teachers' weights by the teachers' names, as a card says them; "" for one that is not known.

    Args:
        names: of the teachers in the order of `named_projectors`; empty for a student of one, whose name is then "".
    """
    match, further = FIRST_TEACHER.search(card), dict(FURTHER_TEACHER.findall(card))
    first, *others = names or [""]
    return {first: match[1] if match else ""} | {name: further.get(name, "") for name in others}


def plan_in_card(card: str) -> str:
    """Hash of the plan that a card names; "" if it names none."""
    match = PLAN.search(card)
    return match[1] if match else ""


def move_projectors(folder: Path) -> None:
    """Move projectors that lie beside the weights into their folder. The card and `projectors.json` then name them by
    their new places.

    Raises:
        OSError: it cannot be written.
        EncoderError: `projectors.json` or the card is damaged.
    """
    if not (folder / BESIDE).is_file():
        return
    (folder / PROJECTOR_FOLDER).mkdir(exist_ok=True)
    files = named_projectors(folder)
    moved = dict.fromkeys([BESIDE, *files.values()])
    for name in moved:
        (folder / name).rename(folder / PROJECTOR_FOLDER / name)
    if files:
        write_json(folder / PROJECTORS_JSON, {teacher: f"{PROJECTOR_FOLDER}/{name}" for teacher, name in files.items()})
    card = folder / CARD
    with reading(card, "no text", EncoderError):
        text = read_bytes(card).decode()
    for name in moved:
        text = text.replace(f"`{name}`", f"`{PROJECTOR_FOLDER}/{name}`")
    write_text(card, text)
