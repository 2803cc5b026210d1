"""An exported student in words, for `g2l inspect`: what it is, how it is loaded, and what it was made from."""

from pathlib import Path

from pipeline.base.console import table
from pipeline.base.errors import EncoderError
from pipeline.base.outside import reading
from pipeline.base.units import format_bytes
from pipeline.config.model_names import FOLDER_PREFIX
from pipeline.encoders.model_config import CONFIG_FILE, input_side, read_model_config
from pipeline.student.adapters import ADAPTERS_FOLDER
from pipeline.student.describe import projector_shape
from pipeline.student.exported import ExportedStudent, read_student
from pipeline.student.portable_names import ONNX_FILE, PROGRAM_FILE
from stages.inspecting.recipe import recipe_rows
from stages.inspecting.run import loss_words

STUDENT_FILES = (CONFIG_FILE, "model.safetensors")
"""By these, and `student.json` or a projector, an exported student is known."""
OTHER_FILES = (ONNX_FILE, PROGRAM_FILE, ADAPTERS_FOLDER)
"""What `g2l export` may add."""


def describe_student(folder: Path) -> str:
    """An exported student in words.

    Raises:
        EncoderError: its files are damaged.
    """
    student = read_student(folder)
    with reading(folder, "a damaged student", EncoderError):
        config, side = read_model_config(folder), input_side(folder)
        projector = folder / student.teachers[0].projector
        teacher_width, student_width = projector_shape(projector)
        size = sum(path.stat().st_size for path in (*(folder / name for name in STUDENT_FILES), projector))
    rows: list[tuple[str, object]] = [
        ("student", folder),
        ("architecture", config["architecture"]),
        ("embedding", f"{student_width} dimensions"),
        ("patch", f"{side} px"),
        ("teacher", f"{teacher_width} dimensions"),
        *_history(student),
        ("files", format_bytes(size)),
        ("beside it", ", ".join(name for name in OTHER_FILES if (folder / name).exists()) or "nothing"),
        ("student loads by", f"timm.create_model('{FOLDER_PREFIX}{folder}', pretrained=True); see its README.md"),
        ("projector by", f"model, transform, projector = g2l.load_student({str(folder)!r})"),
        *(("teacher's projector", f"{name}: {file}") for name, file in student.projector_files().items()),
    ]
    return table(rows)


def _history(student: ExportedStudent) -> list[tuple[str, object]]:
    """What an exported student was made from: of `student.json`, or that there is none."""
    described = student.described
    if described is None:
        return [("plan", student.plan_hash or "not known"), ("note", student.note())]
    training = described.training
    teachers = [each.name for each in described.teachers]
    if len(teachers) > 1:
        teachers = [f"{each.name}, {each.loss_weight:.4g} of the loss" for each in described.teachers]
    return [
        *(("distilled from", teacher) for teacher in teachers),
        ("loss", loss_words(training.loss, training.alpha)),
        ("exported", f"epoch {training.epoch}, step {training.step:,}"),
        *recipe_rows(training.recorded_recipe),
        *([("early stop", f"after step {training.stopped.step:,}")] if training.stopped else []),
        ("plan", described.plan_hash),
        ("made by", f"g2l {described.g2l}"),
    ]
