"""The exported student: a folder that timm loads, with the projectors beside it and a card that says where it comes
from.

model.safetensors, config.json             timm.create_model("local-dir:student", pretrained=True)
projector/projector.safetensors            linear map and statistics: the student in place of its (first) teacher
projector/projector-<teacher>.safetensors  the same for each further teacher
student.json                               what programs need to know: encoder, teachers, plan, training
projectors.json                            files of projectors by teachers' names, of several: for earlier versions
README.md                                  the card, for people

timm takes files by their names, or any weights that lie beside them before 1.0.29 (decision 0037): JSON never.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pipeline.base import interrupts
from pipeline.base.errors import EncoderError, G2LError, first_line
from pipeline.base.outside import is_there
from pipeline.disk.asides import aside_name, remove, remove_asides_of
from pipeline.disk.files import sha256_file, sync_folder, write_text, written_by_library
from pipeline.disk.folders import move
from pipeline.encoders.build import BuiltEncoder
from pipeline.encoders.load import require_numbers, timm_config
from pipeline.encoders.model_config import read_model_config, stated_side
from pipeline.encoders.table import EncoderSpec
from pipeline.encoders.weight_files import read_weight_file, require_plain_types
from pipeline.projector import Projector
from pipeline.student.describe import STUDENT_WEIGHTS, weights_file_hash
from pipeline.student.earlier import PROJECTORS_JSON
from pipeline.student.exported import ExportedStudent, read_student
from pipeline.student.student_json import (
    PROJECTOR_FOLDER,
    RENEW,
    STUDENT_JSON,
    StudentJson,
    projector_files,
    read_student_json,
    write_student_json,
)
from pipeline.training.run_folder import STEP


def timm_json(model: nn.Module, spec: EncoderSpec) -> dict[str, Any]:
    """timm's `config.json` for a student: it takes the whole patch, neither resized nor cropped, with its own
    statistics.

    A class token is timm's own output with `global_pool="token"`; a class token with the mean of patch tokens is none
    of timm's, and the card says how to take it. "embedding" names the rule for `build_encoder`, "mpp" the resolution of
    its patches (um/px); timm passes over them.
    """
    arguments = {**spec.arguments, "num_classes": 0}
    if spec.embedding == "cls":
        arguments["global_pool"] = "token"
    return {
        "architecture": spec.architecture,
        "num_classes": 0,
        "num_features": spec.width,
        "embedding": spec.embedding,
        **({"mpp": spec.mpp} if spec.mpp else {}),
        "model_args": arguments,
        "pretrained_cfg": {
            "architecture": spec.architecture,
            "input_size": [3, spec.patch_px, spec.patch_px],
            "fixed_input_size": bool(timm_config(model).get("fixed_input_size", False)),
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": list(spec.mean),
            "std": list(spec.std),
            "num_classes": 0,
            "pool_size": None,
            "first_conv": timm_config(model).get("first_conv"),
            "classifier": timm_config(model).get("classifier"),
            "license": "see README.md",
        },
    }


def write_student(
    folder: Path,
    model: nn.Module,
    spec: EncoderSpec,
    projectors: Mapping[str, Projector],
    card: str,
    describe: Callable[[Path], StudentJson],
    step: int | None = None,
) -> None:
    """Write the folder, complete or absent; one that is there is replaced as a whole.

    Args:
        projectors: by their teachers' names, the first teacher first.
        describe: gives the content of `student.json` when the folder that is passed to it has all other files.
        step: after which step the student stood, for `config.json`; `None` leaves it out.

    Raises:
        G2LError: the place cannot be written.
    """
    remove_asides_of(folder)
    aside, old = (folder.with_name(aside_name(name)) for name in (folder.name, f"{folder.name}.old"))
    key = interrupts.undo_at_end(lambda: remove(aside), aside)
    try:
        aside.mkdir(parents=True)
        save_tensors(model, aside / STUDENT_WEIGHTS)
        _write_projectors(aside, projectors)
        config = timm_json(model, spec) | ({} if step is None else {STEP: step})
        write_text(aside / "config.json", json.dumps(config, indent=2) + "\n")
        write_text(aside / "README.md", card)
        write_student_json(aside, describe(aside))
        with interrupts.guard:
            if folder.exists():
                move(folder, old)
            os.rename(aside, folder)
        sync_folder(folder.parent)
    except (OSError, safetensors.SafetensorError) as error:
        remove(aside)
        if old.exists() and not folder.exists():
            os.rename(old, folder)
        reason = error.strerror if isinstance(error, OSError) else None
        raise G2LError(f"cannot write the student to {folder}: {reason or error}") from error
    finally:
        remove(aside)  # after an error of `describe`
        if folder.exists():
            remove(old)
        interrupts.settled(key)


def _write_projectors(folder: Path, projectors: Mapping[str, Projector]) -> None:
    """Write each teacher's projector, and of several teachers the list of files."""
    (folder / PROJECTOR_FOLDER).mkdir()
    files = projector_files(list(projectors))
    for name, projector in projectors.items():
        save_tensors(projector, folder / files[name])
    if len(projectors) > 1:
        write_text(folder / PROJECTORS_JSON, json.dumps(files, indent=2) + "\n")


def save_tensors(module: nn.Module, path: Path) -> None:
    """A module's state as safetensors, contiguous, on the CPU; synced, readable by whom the umask says."""
    state = {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}
    with written_by_library(path) as aside:
        safetensors.torch.save_file(state, aside)


def load_projector(folder: Path, teacher: str | None = None) -> Projector:
    """The projector of an exported student, ready for `as_teacher`.

    Args:
        teacher: which teacher's, of a student that learnt from several; `None` for the first.

    Raises:
        EncoderError: there is none, it is damaged, or it is not the one that `student.json` names.
    """
    student = read_student(folder)
    wanted = student.teacher(teacher)
    path = folder / wanted.projector
    try:
        state = read_weight_file(path)
        require_plain_types(state, str(path))
        teacher_width, student_width = state["linear.weight"].shape
        projector = Projector(student_width, teacher_width)
        projector.load_state_dict(state)
        require_numbers(projector.state_dict(), str(path))
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise EncoderError(f"{path}: not the projector of an exported student ({first_line(error)})") from None
    _check_projector(student, path, wanted.projector, projector)
    return projector.eval().requires_grad_(False)


def check_projectors(folder: Path) -> None:
    """Load every projector of an exported student.

    Raises:
        EncoderError: one is missing, damaged, or not the one that `student.json` names.
    """
    student = read_student(folder)
    for name in student.projector_files() or [None]:
        load_projector(folder, name)


def _check_projector(student: ExportedStudent, path: Path, file: str, projector: Projector) -> None:
    """Compare a projector with what `student.json` says of it; of an earlier version's folder nothing is known.

    Raises:
        EncoderError: it is another one.
    """
    if student.described is None:
        return
    (teacher,) = (each for each in student.described.teachers if each.projector == file)
    widths, expected = projector.linear.weight.shape, (teacher.width, student.described.encoder.width)
    if tuple(widths) != expected:
        raise EncoderError(
            f"{path}: maps {widths[1]} dimensions to {widths[0]}, but {STUDENT_JSON} says "
            f"{expected[1]} to {expected[0]}. {RENEW}"
        )
    if (sha256 := sha256_file(path)) != teacher.projector_sha256:
        raise EncoderError(
            f"{path}: not the projector that {STUDENT_JSON} names: SHA-256 {sha256[:12]}, not "
            f"{teacher.projector_sha256[:12]}. {RENEW}"
        )


def stated_mpp(folder: Path) -> float | None:
    """um/px of the patches that the model in a folder was trained on: by its `config.json`, or, if that does not say
    it (timm's own functions that save a model leave it out), by its `student.json`; `None` if neither does.

    Raises:
        EncoderError: one of them is damaged.
    """
    value = read_model_config(folder).get("mpp")
    if not value and is_there(folder / STUDENT_JSON):
        value = read_student_json(folder).encoder.mpp
    return float(value) if value else None


def changed_since_export(folder: Path, built: BuiltEncoder, *, weights_only: bool = False) -> str:
    """A warning that a student is not as it was exported, and how it differs from `student.json`; "" if it is the
    same, and for what a folder of an earlier version does not say.

    A student may be trained further by other programs, which save it into a copy of its folder; its projectors, card
    and figures are then another model's.

    Args:
        built: the student as it was built from its folder, perhaps for patches of another side.
        weights_only: whether its weights were loaded into an encoder that the user described, not the folder.

    Raises:
        EncoderError: the folder's description is damaged.
    """
    described = read_student(folder).described
    if described is None:
        return ""
    was = described.encoder
    pairs: list[tuple[str, Any, Any]] = []
    if not weights_only:
        names = ("architecture", "mean", "std")
        pairs = [(name, getattr(was, name), getattr(built.spec, name)) for name in names]
        pairs += [("embedding", was.embedding, _embedding_of(built.spec, was.embedding))]
        pairs += [("patch_px", was.patch_px, stated_side(folder) or was.patch_px), ("mpp", was.mpp, stated_mpp(folder))]
    pairs = [(name, then, now) for name, then, now in pairs if then != now]
    changes = [f"{name} {_in_words(now)}, not {_in_words(then)}" for name, then, now in pairs]
    if (written := was.weights_sha256) is not None and _has_other_weights(folder, built, written):
        changes.append(f"its weights (SHA-256 {built.weights_sha256[:12]}, not {written[:12]})")
    if not changes:
        return ""
    return (
        f"warning: {folder} is not as it was exported: {'; '.join(changes)}. It is used as it is; its projectors, "
        f"{STUDENT_JSON} and card are those of the student as exported"
    )


def _embedding_of(spec: EncoderSpec, was: str) -> str:
    """How an encoder's embedding is taken. timm's own functions that save a model do not keep the word for it; with
    `global_pool="token"` the model's own output is the class token all the same.
    """
    is_token = (was, spec.embedding, spec.arguments.get("global_pool")) == ("cls", "pooled", "token")
    return was if is_token else spec.embedding


def _has_other_weights(folder: Path, built: BuiltEncoder, written: str) -> bool:
    """Whether a student's weights are not those that were `written`, by their hash.

    The model that the file fills may have other bytes all the same: positions for patches of another side, or names of
    another version of timm. So the file is asked before anything is said, which reads it once more.

    Raises:
        EncoderError: the file is damaged.
    """
    if written == built.weights_sha256:
        return False
    path = folder / STUDENT_WEIGHTS
    return not is_there(path) or weights_file_hash(path) != written


def _in_words(value: Any) -> str:
    """A value of `student.json` in a sentence."""
    return ", ".join(f"{number:g}" for number in value) if isinstance(value, tuple) else str(value)


@torch.no_grad()
def same_embeddings(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor], images: Tensor) -> float:
    """Largest absolute difference of two models' outputs; infinite if either gives NaN."""
    return float((first(images) - second(images)).abs().nan_to_num(nan=torch.inf, posinf=torch.inf).max())
