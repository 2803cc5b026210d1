"""Resolve what `--models` names: a model on disk or in the table of encoders, and build it.

    [LABEL=]ENCODER[@WEIGHTS]

A label takes no "/", "@" or ":".

ENCODER is a name of the table, any timm name, an exported student's folder, or a run of stage two. A run stands for its
student after distillation; RUN@before is that student as it started, RUN@teacher its teacher, the
first of several.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.base.console import say
from pipeline.base.errors import BenchmarkError, CheckpointError, ConfigError, EncoderError, did_you_mean
from pipeline.base.outside import read_toml, reading
from pipeline.config.groups import Decode
from pipeline.config.model_names import (
    FOLDER_PREFIX,
    HUB_PREFIX,
    PRETRAINED,
    SCRATCH,
    is_run,
    recorded_encoder,
    recorded_path,
    split_model,
)
from pipeline.encoders.build import BuiltEncoder, build_encoder
from pipeline.encoders.model_config import input_side
from pipeline.encoders.table import named_spec
from pipeline.projector import Projector
from pipeline.report.content import AFTER, BEFORE, TEACHER
from pipeline.student.exported import is_student, read_student
from pipeline.student.folder import changed_since_export, load_projector
from pipeline.student.weights_place import weights_of_run
from pipeline.training.identity import recorded_teachers
from pipeline.training.run_folder import RunFolder

DEFAULT_PATCH_PX = 224
LARGEST_LABEL = 60


@dataclass(frozen=True)
class NamedModel:
    """A model that the user named: resolved, not yet built.

    Attributes:
        label: its name in the report.
        encoder: name that `build_encoder` takes.
        weights: `PRETRAINED`, `SCRATCH` or a file.
        patch_px: side of its input.
        role: one of the roles, or "".
        seed: of random weights.
        student: folder of the exported student, which has the projector; `None` for others.
        expected_sha256: of the weights, where a run says which they were; "" otherwise.
        teachers: hashes of the weights of the teachers that a student was distilled from, by name, the first one's
            first; a hash is "" where it is not known, the name where the only teacher's is not.
        plan_hash: of the plan that a student was trained on; "" if that is not known.
        note: what the user should know of it; "" for nothing.
    """

    label: str
    encoder: str
    weights: str | Path
    patch_px: int
    role: str = ""
    seed: int = 0
    student: Path | None = None
    expected_sha256: str = ""
    teachers: Mapping[str, str] = field(default_factory=dict)
    plan_hash: str = ""
    note: str = ""

    @property
    def decode(self) -> Decode:
        """At which size the tiles under a student's patches were decoded; "full" of other models.

        Raises:
            EncoderError: the student's description is damaged.
        """
        described = None if self.student is None else read_student(self.student).described
        return "full" if described is None else described.encoder.decode

    def build(self) -> BuiltEncoder:
        """The encoder with its weights, on the CPU.

        Raises:
            EncoderError: it cannot be built, or its weights are not those that the run names.
        """
        built = build_encoder(self.encoder, self.weights, self.patch_px, seed=self.seed)
        if self.expected_sha256 not in ("", built.weights_sha256):
            actual, expected = built.weights_sha256[:12], self.expected_sha256[:12]
            if self.weights == SCRATCH:  # by the same seed; other versions and processors draw other last bits
                say(
                    f"note: {self.label}: random weights of this seed come out otherwise here than where the run was "
                    f"begun (SHA-256 {actual}, not {expected}): other versions or another processor"
                )
                return built
            raise EncoderError(
                f"{self.label}: its weights are not those that the run names: SHA-256 {actual}, not {expected}"
            )
        if self.student is not None and (warning := changed_since_export(self.student, built)):
            say(warning)
        return built

    def projector(self, teacher: str | None = None) -> Projector | None:
        """The student's projector into the space of the teacher of that name; `None` for the first.

        Raises:
            EncoderError: it has none of that teacher, or it is damaged.
        """
        return load_projector(self.student, teacher) if self.student else None

    def projector_into(self, weights_sha256: str) -> Projector | None:
        """The student's projector into the space of the teacher of these weights; `None` if it did not learn from it,
        and for weights that are not known (""), which are nobody's.
        """
        if not weights_sha256:
            return None
        names = [name for name, teacher in self.teachers.items() if teacher == weights_sha256]
        return self.projector(names[0] if len(self.teachers) > 1 else None) if names else None

    def why_no_projector(self, weights_sha256: str) -> str:
        """Why `projector_into` gives a student none, as a sentence; "" if it gives one, and for what is no student."""
        if self.student is None or weights_sha256 in set(self.teachers.values()) - {""}:
            return ""
        if not weights_sha256:
            return f"The store does not know its teacher's weights: {self.label}'s own projector is not used."
        if not all(self.teachers.values()) or not self.teachers:
            other = "a teacher whose weights its folder does not name"
        else:
            other = "another teacher" if len(self.teachers) == 1 else "other teachers"
        return f"{self.label} was distilled from {other}: its own projector is not used."


def name_models(names: Sequence[str], patch_px: int | None, store: Path | None = None) -> list[NamedModel]:
    """Resolve all models that the user named, in their order.

    Args:
        patch_px: side of the input of encoders that take any size; `None` for that of the runs and students among the
            models, else `DEFAULT_PATCH_PX`.
        store: the store that is evaluated, which may know where the file of a teacher's weights is.

    Raises:
        ConfigError: a name that is no model, or two models of one label.
        G2LError: a run or student is damaged.
    """
    models = [name_model(name, patch_px, store) for name in names]
    distilled = {model.patch_px for model in models if model.role}
    if patch_px is None and len(distilled) == 1:
        (side,) = distilled
        models = [
            model if model.role else name_model(name, side, store) for model, name in zip(models, names, strict=True)
        ]
    labels = [model.label for model in models]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ConfigError(f"--models: two are called {twice[0]}; give one another name: --models NAME={twice[0]}")
    return models


def name_model(text: str, patch_px: int | None, store: Path | None = None, option: str = "--models") -> NamedModel:
    """Resolve one model: see `name_models`. Error messages begin with `option`, where the user named it."""
    name = split_model(text)
    label, encoder, weights, folder = name.label, name.encoder, name.weights, name.folder
    if len(label) > LARGEST_LABEL:
        raise ConfigError(f"{option}: the label {label[:20]}... has more than {LARGEST_LABEL} characters")
    if is_run(folder):
        run = RunFolder(folder)
        with reading(run.identity_path, "damaged", CheckpointError):
            return _of_run(run, weights, label, store, option)
    if (folder / "config.json").is_file():
        if weights:
            raise ConfigError(f"{option} {text}: a student's folder has its own weights; leave out @{weights}")
        return _of_student(folder, label)
    if folder.is_dir():
        raise ConfigError(
            f"{option} {text}: {folder} is neither a run nor an exported student, and no model with a config.json"
        )
    before, equals, _ = encoder.partition("=")
    if equals and not before.startswith((HUB_PREFIX, FOLDER_PREFIX)):
        raise ConfigError(
            f"{option} {text}: {before!r} cannot be a label, which takes no / @ or :, and there is no folder {folder}"
        )
    chosen = weights if weights in (PRETRAINED, SCRATCH) else Path(weights) if weights else PRETRAINED
    side = named_spec(encoder).patch_px or patch_px or DEFAULT_PATCH_PX
    return NamedModel(label or encoder.removeprefix(HUB_PREFIX), encoder, chosen, side)


def _of_student(folder: Path, label: str) -> NamedModel:
    """The model of a folder that timm loads: an exported student's, or another without a projector."""
    model = NamedModel(
        label or os.path.basename(os.path.realpath(folder)), f"{FOLDER_PREFIX}{folder}", PRETRAINED, input_side(folder)
    )
    if not is_student(folder):
        return model
    student = read_student(folder)
    teachers = {teacher.name: teacher.weights_sha256 for teacher in student.teachers}
    return replace(
        model, role=AFTER, student=folder, teachers=teachers, plan_hash=student.plan_hash, note=student.note()
    )


def _of_run(run: RunFolder, which: str, label: str, store: Path | None, option: str) -> NamedModel:
    """The student of a run, after or before distillation, or its teacher."""
    identity = run.read_identity()
    recorded, student = recorded_teachers(identity), identity["student"]
    teachers = {each.name: each.record["weights_sha256"] for each in recorded}
    name = label or os.path.basename(os.path.realpath(run.folder)) + (f" {which}" if which else "")
    if which == "teacher":
        teacher = recorded[0].record
        source = weights_of_run(run, teacher, store)
        if source is None:
            raise ConfigError(
                f"{option} {run.folder}@teacher: the teacher's weights came from {teacher['weights']}; say where that "
                f"file is: {option} {teacher['name']}@FILE"
            )
        encoder = recorded_encoder(teacher["name"], run.config_path, _options(run)["out"])
        return NamedModel(
            name, encoder, source, teacher["patch_px"], role=TEACHER, expected_sha256=teacher["weights_sha256"]
        )
    if which == "before":
        options = _options(run)
        start, out = options["weights"], options["out"]
        return NamedModel(
            label=name,
            encoder=recorded_encoder(student["name"], run.config_path, out),
            weights=start if start in (PRETRAINED, SCRATCH) else recorded_path(start, run.config_path, out),
            patch_px=student["patch_px"],
            role=BEFORE,
            seed=options["seed"],
            expected_sha256=student["weights_sha256"],
            teachers=teachers,
            plan_hash=identity["plan"],
        )
    if which not in ("", "after"):
        raise ConfigError(
            f"{option} {run.folder}@{which}: of a run there are @before, @after and @teacher"
            f"{did_you_mean(which, ('before', 'after', 'teacher'))}"
        )
    if not (run.student / "config.json").is_file():
        raise BenchmarkError(f"{run.folder}: training is not finished; run g2l train-student again to continue it")
    return NamedModel(
        name,
        f"{FOLDER_PREFIX}{run.student}",
        PRETRAINED,
        student["patch_px"],
        role=AFTER,
        student=run.student,
        teachers=teachers,
        plan_hash=identity["plan"],
    )


def _options(run: RunFolder) -> dict[str, Any]:
    """The options that a run was started with."""
    with reading(run.config_path, "damaged", BenchmarkError):
        table = read_toml(run.config_path)["train-student"]
        return {"weights": table["weights"], "seed": table["seed"], "out": str(table.get("out", ""))}


def reference_of(labels: Sequence[str], roles: Sequence[str], wanted: str | None) -> str:
    """The label of the model that others are compared with: the wanted one, else the teacher, else the first.

    Raises:
        ConfigError: there is no such label.
    """
    if wanted is not None:
        if wanted not in labels:
            raise ConfigError(f"--reference {wanted}: the models are {', '.join(labels)}{did_you_mean(wanted, labels)}")
        return wanted
    return labels[roles.index(TEACHER)] if TEACHER in roles else labels[0]
