"""A student that learnt from several teachers: the files of its projectors, and what its card says."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.base.errors import EncoderError
from pipeline.base.outside import read_json, reading
from pipeline.disk.files import write_json, write_text
from pipeline.store.format import folder_name
from pipeline.store.teachers import ChosenTeachers
from pipeline.training.run_folder import HeldOut

PROJECTORS = "projectors.json"
"""File of an exported student that names its projectors' files by teacher."""
FIRST_SAYS = re.compile(r"^- Teacher weights ([0-9a-f]{64})\b", re.MULTILINE)
FURTHER_SAYS = re.compile(r"^- Further teacher (.+): weights ([0-9a-f]{64})\b", re.MULTILINE)
"""How a card names the weights of its teachers (`teacher_source`, `further_sources`)."""


FOLDER = "projector"
"""Folder of projectors in an exported student. In a folder with two `.safetensors` files, timm 1.0.16 to 1.0.28 stumble
(NameError) or take the one that comes first by name; decision 0037.
"""
FIRST = "projector.safetensors"


def projector_path(folder: Path) -> Path:
    """The file of the first teacher's projector in a student's folder, whether it exists or not.

    Students of earlier versions have it beside their weights.
    """
    beside = folder / FIRST
    return beside if beside.is_file() else folder / FOLDER / FIRST


def projector_files(teachers: Sequence[str]) -> dict[str, str]:
    """The file of each teacher's projector by the teacher's name, in the student's folder; the first is `FIRST`."""
    return {
        name: f"{FOLDER}/{FIRST if name == teachers[0] else f'projector-{folder_name(name)}.safetensors'}"
        for name in teachers
    }


def place_projectors(folder: Path) -> None:
    """Bring a student's folder of an earlier version into the present form: its projectors into `FOLDER`.

    The card and `projectors.json` name them by their new places.

    Raises:
        OSError: it cannot be written.
        EncoderError: the list of projectors is damaged.
    """
    if not (folder / FIRST).is_file():
        return
    (folder / FOLDER).mkdir(exist_ok=True)
    files = named_projectors(folder)
    moved = dict.fromkeys([FIRST, *files.values()])
    for name in moved:
        (folder / name).rename(folder / FOLDER / name)
    if files:
        write_json(folder / PROJECTORS, {teacher: f"{FOLDER}/{name}" for teacher, name in files.items()})
    card = folder / "README.md"
    with reading(card, "no text", EncoderError):
        text = card.read_text(encoding="utf-8")
    for name in moved:
        text = text.replace(f"`{name}`", f"`{FOLDER}/{name}`")
    write_text(card, text)


def named_projectors(folder: Path) -> dict[str, str]:
    """Files of projectors by teachers' names, of a student that learnt from several; empty for one teacher.

    Raises:
        EncoderError: the list is damaged.
    """
    path = folder / PROJECTORS
    if not path.exists():
        return {}
    with reading(path, "damaged", EncoderError):
        files: dict[str, str] = read_json(path)
        if wrong := [name for name in files.values() if name.removeprefix(f"{FOLDER}/") != Path(name).name]:
            raise ValueError(f"{wrong[0]} is no file name")
    return files


def projectors_note(teacher: dict[str, Any], further: Sequence[dict[str, Any]]) -> str:
    """Where the projectors of several teachers are; nothing for one."""
    if not further:
        return ""
    files = projector_files([teacher["name"], *(other["teacher"]["name"] for other in further)])
    listing = "".join(f"- {name}: `{file}`\n" for name, file in files.items())
    return f"\nThis student learnt from several teachers. The projector into the space of\n\n{listing}"


def teacher_source(teacher: dict[str, Any]) -> str:
    """Which weights a teacher has and where they came from."""
    if not teacher["weights_sha256"]:  # features that were imported without them
        return f"weights not known ({teacher['source']})"
    return f"weights {teacher['weights_sha256']} ({teacher['source']}, {teacher['weights']})"


def teachers_in_card(card: str, names: Sequence[str]) -> dict[str, str]:
    """Hashes of the weights of a student's teachers by name, as its card says them; "" for one that is not known.

    Args:
        names: of the teachers in the order of `named_projectors`; empty for a student of one, whose name is then "".
    """
    match, further = FIRST_SAYS.search(card), dict(FURTHER_SAYS.findall(card))
    first, *others = names or [""]
    return {first: match[1] if match else ""} | {name: further.get(name, "") for name in others}


def further_sources(further: Sequence[dict[str, Any]]) -> str:
    """Lines on further teachers below the first one's weights, with the weight of each loss."""
    lines = [
        f"- Further teacher {other['teacher']['name']}: {teacher_source(other['teacher'])}, {other['weight']:.4g} "
        f"of the loss; content {other['content']}."
        for other in further
    ]
    return "".join(f"\n{line}" for line in lines)


def further_facts(teachers: ChosenTeachers, figures: Mapping[str, HeldOut]) -> list[dict[str, Any]]:
    """What the card says of further teachers; `figures` are held-out ones before and after, by name."""
    return [
        {
            "teacher": store.spec.teacher,
            "weight": weight,
            "content": store.content_hash(),
            "fidelity_before": figures[store.spec.teacher["name"]][0],
            "fidelity_after": figures[store.spec.teacher["name"]][1],
        }
        for store, weight in teachers.further
    ]
