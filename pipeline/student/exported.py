"""What an exported student's folder says of its teachers, plan and projectors: the one reader of the project.

It reads `student.json`; in folders of earlier versions, which have none, the card.
"""

from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import EncoderError
from pipeline.base.outside import is_there
from pipeline.student.earlier import first_projector, named_projectors, plan_in_card, read_card, teachers_in_card
from pipeline.student.student_json import RENEW, STUDENT_JSON, StudentJson, read_student_json


@dataclass(frozen=True)
class StudentTeacher:
    """A teacher of an exported student.

    Attributes:
        name: "" where a card does not say it: the only teacher's, in a folder of an earlier version.
        weights_sha256: of its weights; "" where they are not known.
        projector: the projector's file in the folder.
        projector_sha256: of that file; "" in a folder of an earlier version.
    """

    name: str
    weights_sha256: str
    projector: str
    projector_sha256: str = ""


@dataclass(frozen=True)
class ExportedStudent:
    """An exported student's folder.

    Attributes:
        folder: where it is.
        teachers: in the order of training.
        plan_hash: of the plan that it was trained on; "" where it is not known.
        described: the content of `student.json`; `None` in a folder of an earlier version.
    """

    folder: Path
    teachers: tuple[StudentTeacher, ...]
    plan_hash: str
    described: StudentJson | None

    def teacher(self, name: str | None) -> StudentTeacher:
        """The teacher of that name; `None` for the first.

        Raises:
            EncoderError: there is none of that name.
        """
        if name is None:
            return self.teachers[0]
        for teacher in self.teachers:
            if teacher.name == name:
                return teacher
        names = ", ".join(teacher.name for teacher in self.teachers)
        are = "are those" if len(self.teachers) > 1 else "is that"
        raise EncoderError(f"{self.folder}: no projector of a teacher {name}; there {are} of {names}")

    def projector_files(self) -> dict[str, str]:
        """Files of projectors by teachers' names, of a student of several teachers; empty for one teacher."""
        return {each.name: each.projector for each in self.teachers} if len(self.teachers) > 1 else {}

    def note(self) -> str:
        """For the user: that the card had to be read, and what to do; "" where `student.json` was read."""
        if self.described is not None:
            return ""
        return (
            f"{self.folder} has no {STUDENT_JSON}, for an earlier version exported it: its teachers and plan are read "
            "from its card, README.md. Run `g2l export` on its run again to get a folder that has one"
        )


def is_student(folder: Path) -> bool:
    """Whether a model's folder is that of an exported student: it has `student.json`, or (of earlier versions) a
    projector.
    """
    return is_there(folder / STUDENT_JSON) or (folder / first_projector(folder)).is_file()


def read_student(folder: Path) -> ExportedStudent:
    """What a student's folder says of itself.

    Raises:
        EncoderError: `student.json`, or in its stead the card or `projectors.json`, is damaged; or a projector that
            `student.json` names is missing.
    """
    if not is_there(folder / STUDENT_JSON):
        return _read_earlier(folder)
    described = read_student_json(folder)
    for teacher in described.teachers:
        if not (folder / teacher.projector).is_file():
            raise EncoderError(f"{folder / teacher.projector}: no such file, but {STUDENT_JSON} names it. {RENEW}")
    teachers = tuple(
        StudentTeacher(each.name, each.weights_sha256 or "", each.projector, each.projector_sha256)
        for each in described.teachers
    )
    return ExportedStudent(folder, teachers, described.plan_hash, described)


def _read_earlier(folder: Path) -> ExportedStudent:
    """The same of a folder without `student.json`."""
    files = named_projectors(folder)
    card = read_card(folder)
    hashes = teachers_in_card(card, list(files))
    teachers = tuple(
        StudentTeacher(name, sha256, files.get(name, first_projector(folder))) for name, sha256 in hashes.items()
    )
    return ExportedStudent(folder, teachers, plan_in_card(card), None)
