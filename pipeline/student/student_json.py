"""`student.json`: what a program needs to know of an exported student. The card says the same to people.

Its schema is the classes below, one an object of the file; `StudentJson` is the whole. Reading passes over keys that it
does not know, so that a later version may add some; `version` rises where a key changes its meaning. Every string and
number is bounded, and a projector's file name cannot lead out of the folder. The file holds nothing of clock, machine
or processor: the same run gives the same bytes.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from pipeline.base.errors import EncoderError
from pipeline.base.outside import parse_object, read_bytes, reading
from pipeline.config.groups import Decode, Resampling
from pipeline.config.recipes import Departure
from pipeline.disk.files import write_text
from pipeline.encoders.table import EmbeddingRule
from pipeline.slides.geometry import PILLOW
from pipeline.store.format import teacher_folder

STUDENT_JSON = "student.json"
FORMAT, VERSION = "g2l-student", 1
PROJECTOR_FOLDER = "projector"
"""Folder of projectors in an exported student. In a folder with two `.safetensors` files, timm 1.0.16 to 1.0.28 stumble
(NameError) or take the one that comes first by name; decision 0037.
"""
FIRST_PROJECTOR = f"{PROJECTOR_FOLDER}/projector.safetensors"
LARGEST_BYTES = 1 << 20
"""1 MiB. Our choice: with a hundred teachers the file has 60 kB."""
MOST_TEACHERS = 100
LARGEST_SIDE = 1 << 16
"""Largest side or width. Our choice, as for `config.json` (`encoders.model_config`)."""
RENEW = "Copy the folder again, or write a new one with `g2l export`"

Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""Hex SHA-256."""
Text = Annotated[str, StringConstraints(max_length=4096)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
ProjectorFile = Annotated[
    str, StringConstraints(pattern=rf"^{PROJECTOR_FOLDER}/[A-Za-z0-9._-]+\.safetensors$", max_length=300)
]
Count = Annotated[int, Field(ge=0)]
Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
Value = bool | int | float | Text | None
"""Value of an option."""
Rgb = tuple[float, float, float]


class _Object(BaseModel):
    """An object of the file: frozen, every type as it stands, numbers finite."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class StartJson(_Object):
    """What training started from.

    Attributes:
        source: the encoder, as `EncoderSpec.source`.
        weights: "pretrained", "scratch" or the name of a file.
        weights_sha256: of these weights, as `encoders.build.weights_hash` gives it.
        projectors: teachers whose projectors were trained on, too.
    """

    source: Text
    weights: Text
    weights_sha256: Hash
    projectors: tuple[Name, ...]


class EncoderJson(_Object):
    """The student as an encoder; `config.json` says the same to timm.

    Attributes:
        name: as `--student` named it.
        architecture: timm's name.
        num_params: how many parameters it has.
        embedding: how the embedding is taken from the forward pass ("cls", "cls+mean", "pooled").
        width: dimensions of the embedding.
        patch_px: side of its input, pixels.
        mpp: resolution of its patches, um/px; null where it is not known.
        resampling: who reduced the patches that it was trained on (`plan --resampling`); the key is absent for Pillow.
        decode: "half" if their tiles were decoded at half their size (`plan --decode`); else the key is absent.
        mean, std: statistics of RGB in 0..1 that patches are normalised with.
        weights_sha256: of the student's weights, as in `StartJson`; the key is absent in files of earlier versions.
        start: what training started from.
    """

    name: Name
    architecture: Name
    num_params: Count
    embedding: EmbeddingRule
    width: Side
    patch_px: Side
    mpp: Annotated[float, Field(gt=0)] | None
    resampling: Resampling = PILLOW
    decode: Decode = "full"
    mean: Rgb
    std: Rgb
    weights_sha256: Hash | None = None
    start: StartJson


class TeacherJson(_Object):
    """A teacher and the student's projector into its space.

    Attributes:
        name: as the store names it.
        source, weights: where its weights came from, as `StartJson` has them.
        weights_sha256: of its weights; null where they are not known (features that were imported without them).
        width: dimensions of its embedding.
        loss_weight: weight of its loss; those of all teachers sum to 1.
        store_content: hash of its embeddings in the store.
        projector: the projector's file, in the student's folder.
        projector_sha256: of that file's bytes.
    """

    name: Name
    source: Text
    weights: Text
    weights_sha256: Hash | None
    width: Side
    loss_weight: Annotated[float, Field(ge=0, le=1)]
    store_content: Hash
    projector: ProjectorFile
    projector_sha256: Hash


class BestJson(_Object):
    """The epoch of the smallest held-out loss."""

    step: Count
    epoch: Count
    loss: float


class StoppedJson(_Object):
    """Why a run ended before the last of its epochs (`training.early_stop.Stop`).

    Attributes:
        step, epoch: the last step, and its epoch from 0.
        loss: of that step.
        mean: of the losses of the steps before it.
        times: steps whose losses were above their mean, which were too many.
    """

    step: Count
    epoch: Count
    loss: float
    mean: float
    times: Count


class DepartureJson(_Object):
    """An option whose value is not the recipe's (`config.recipes.Departure`).

    Attributes:
        command, option: whose option it is, and its name.
        recipe: the recipe's value.
        used: the value that was used; null for an option that was off.
    """

    command: Name
    option: Name
    recipe: Value
    used: Value


class RecipeJson(_Object):
    """The recipe that the run named.

    Attributes:
        name: as `--recipe` took it.
        departures: options of all stages that are not the recipe's; empty if all are.
    """

    name: Name
    departures: tuple[DepartureJson, ...]


class SeenBeforeJson(_Object):
    """What is known of held-out cases that the student was trained on before, by other plans (`student.start`).

    Attributes:
        cases: held-out cases.
        shared: those of them that a plan which was at hand trained on.
        is_unknown: whether there was a plan that was not at hand, so that there may be others.
    """

    cases: Count
    shared: Count
    is_unknown: bool

    def words(self) -> str:
        """For the run that is begun from this student; "" if there is nothing to tell."""
        if self.shared:
            return (
                f"{self.shared:,} of {self.cases:,} held-out cases were trained on before, by a plan that --weights "
                "come from: held-out figures are too good"
            )
        if self.is_unknown:
            return (
                "--weights were trained on another plan, which is not at hand: they may have seen the held-out cases, "
                "and held-out figures may be too good"
            )
        return ""

    def warning(self) -> str:
        """The same as a warning; "" if there is nothing to tell."""
        return f"warning: {words}" if (words := self.words()) else ""


NOTHING_SEEN = SeenBeforeJson(cases=0, shared=0, is_unknown=False)
"""Of a student that no other plan trained."""


class TrainingJson(_Object):
    """How the student was trained, and which of its states this is.

    Attributes:
        loss: name of the loss.
        alpha: its exponent; null for a loss that has none.
        step, epoch: after how many steps and epochs the exported student stood.
        best: the epoch of the smallest held-out loss; null where nothing was held out.
        stopped: why the run ended early; the key is absent where it did not.
        fresh_views: for each epoch the content hashes of the rounds of views that it showed, a hash a teacher that made
            them in rounds; the key is absent unless each epoch had a view of its own.
        recipe: the recipe that the run named, and what departs from it; the key is absent where none was named.
        seen_before: held-out cases that `--weights` had been trained on; the key is absent where there are none.
    """

    loss: Name
    alpha: float | None
    step: Count
    epoch: Count
    best: BestJson | None
    stopped: StoppedJson | None = None
    fresh_views: tuple[tuple[Hash, ...], ...] | None = None
    recipe: RecipeJson | None = None
    seen_before: SeenBeforeJson | None = None

    @property
    def recorded_recipe(self) -> tuple[str, list[Departure]] | None:
        """The recipe's name and the departures from it, as `training.identity.recorded_departures` gives them."""
        if self.recipe is None:
            return None
        return self.recipe.name, [Departure(**each.model_dump()) for each in self.recipe.departures]


class CasesJson(_Object):
    """What is known of the cases (patients) of the plan's slides (`cohort.cases.CaseFacts`).

    Attributes:
        known: whether a case was given for every slide, and says more than the slide's id.
        slides: how many slides there are.
        unknown: those of which no case was given.
        not_recorded: those of which the plan does not say whether one was given.
        repeats_ids: whether every case is called as its slide.
    """

    known: bool
    slides: Count
    unknown: Count
    not_recorded: Count
    repeats_ids: bool


class SplitJson(_Object):
    """How rows were split.

    Attributes:
        by: "case", "strip" (a strip of each slide is held out), or "none" (nothing is held out).
        val_strip: share of each slide that the strip takes; null without one.
        train_rows, train_slides, val_rows, val_slides: rows and slides that were trained on, and held out.
        cases: what is known of cases.
    """

    by: Literal["case", "strip", "none"]
    val_strip: float | None
    train_rows: Count
    train_slides: Count
    val_rows: Count
    val_slides: Count
    cases: CasesJson


class StudentJson(_Object):
    """The whole file.

    Attributes:
        format: always "g2l-student".
        version: of the schema.
        g2l: version of G2L that wrote the file.
        encoder: the student.
        teachers: in the order of training, the first one first.
        plan_hash: of the plan that the student was trained on.
        training: how it was trained, and which state this is.
        split: how rows were split; null for a run of a version that did not record it.
    """

    format: Literal["g2l-student"]
    version: Literal[1]
    g2l: Text
    encoder: EncoderJson
    teachers: Annotated[tuple[TeacherJson, ...], Field(min_length=1, max_length=MOST_TEACHERS)]
    plan_hash: Hash
    training: TrainingJson
    split: SplitJson | None

    @model_validator(mode="after")
    def _teachers_differ(self) -> Self:
        for what in ("name", "projector"):
            values = [getattr(teacher, what) for teacher in self.teachers]
            if twice := [value for value in values if values.count(value) > 1]:
                raise ValueError(f"two teachers have the {what} {twice[0]}")
        return self


def projector_files(teachers: Sequence[str]) -> dict[str, str]:
    """The file of each teacher's projector by the teacher's name, in the student's folder, the first teacher first."""
    files: dict[str, str] = {}
    for number, name in enumerate(teachers, start=1):
        file = f"{PROJECTOR_FOLDER}/projector-{teacher_folder(name)}"
        if file.lower() in (other.removesuffix(".safetensors").lower() for other in files.values()):
            file += f"-{number}"
        files[name] = f"{file}.safetensors" if files else FIRST_PROJECTOR
    return files


def build_student_json(values: dict[str, Any]) -> StudentJson:
    """A description from plain values: the keys of `StudentJson` but for format and version.

    Raises:
        ValueError: they do not fit the schema; says where.
    """
    return _checked(json.dumps({"format": FORMAT, "version": VERSION, **values}).encode())


def write_student_json(folder: Path, student: StudentJson) -> None:
    """Write the file into a student's folder.

    Raises:
        OSError: it cannot be written.
    """
    values = student.model_dump(mode="json")
    for name in ("stopped", "fresh_views", "recipe", "seen_before"):  # as in files of versions that had none of them
        if values["training"][name] is None:
            del values["training"][name]
    if student.encoder.resampling == PILLOW:  # as in files of versions that had no other
        del values["encoder"]["resampling"]
    if student.encoder.decode == "full":
        del values["encoder"]["decode"]
    if student.encoder.weights_sha256 is None:
        del values["encoder"]["weights_sha256"]
    write_text(folder / STUDENT_JSON, json.dumps(values, indent=2) + "\n")


def read_student_json(folder: Path) -> StudentJson:
    """The file of a student's folder, checked.

    Raises:
        EncoderError: missing, too large, no JSON, of a later version, or a value is missing, of the wrong type or out
            of bounds; names the file and the value.
    """
    path = folder / STUDENT_JSON
    with reading(path, "damaged", EncoderError, RENEW):
        data = read_bytes(path, LARGEST_BYTES)
        head = parse_object(data)
        if head.get("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        version = head.get("version")
        if type(version) is not int or version < 1:
            raise ValueError("version: not a whole number from 1 on")
        if version > VERSION:
            raise EncoderError(f"{path}: of version {version}; this G2L reads version {VERSION}. Use a newer G2L")
        return _checked(data)


def _checked(data: bytes) -> StudentJson:
    """The content of the file.

    Raises:
        ValueError: it does not fit the schema; says where.
    """
    try:
        return StudentJson.model_validate_json(data)
    except ValidationError as error:
        raise ValueError(_first_problem(error)) from None


def _first_problem(error: ValidationError) -> str:
    """The first thing that does not fit, in a line."""
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    reason = problem["msg"].removeprefix("Value error, ")
    return f"{place}: {reason}" if place else reason
