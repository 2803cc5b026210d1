"""The description of a run's student, `student.json`, from the run's records and the files of the student's folder."""

from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import safetensors

from pipeline.base.errors import CheckpointError, EncoderError
from pipeline.base.outside import reading
from pipeline.cohort.cases import CaseFacts
from pipeline.config.base import RECIPE
from pipeline.config.groups import Decode, Resampling
from pipeline.config.losses import LOSSES
from pipeline.disk.files import sha256_file
from pipeline.encoders.model_config import CONFIG_FILE, read_model_config
from pipeline.store.fresh_views import read_shown
from pipeline.student.student_json import SeenBeforeJson, StudentJson, build_student_json, projector_files
from pipeline.training.identity import recorded_teachers
from pipeline.training.run_folder import RunFolder

STUDENT_WEIGHTS = "model.safetensors"
"""The weights of an exported student, by the name that timm looks for."""


def describe_run_student(
    run: RunFolder,
    folder: Path,
    step: int,
    split: dict[str, Any] | None,
    resampling: Resampling,
    decode: Decode = "full",
    seen: SeenBeforeJson | None = None,
) -> StudentJson:
    """What `student.json` says of a run's student.

    Args:
        folder: of the student, with `config.json`, the weights, and the projectors in their folder.
        step: after which step of the run it stood.
        split: how rows were split (`split_facts`); `None` where that is not known.
        resampling: who reduced the patches.
        decode: at which size their tiles were decoded.
        seen: what is known of held-out cases that the student was trained on before.

    Raises:
        CheckpointError: the run's records are damaged.
        EncoderError: the folder's files are damaged.
    """
    identity = run.read_identity()
    encoder = _of_config(folder)
    with reading(run.identity_path, "damaged", CheckpointError):
        values = {
            "g2l": metadata.version("g2l"),
            "encoder": encoder | _of_start(identity) | {"resampling": resampling, "decode": decode},
            "teachers": _of_teachers(identity, folder),
            "plan_hash": identity["plan"],
            "training": _of_training(run, identity, step)
            | {"seen_before": seen.model_dump() if seen and seen.words() else None},
            "split": split,
        }
        return build_student_json(values)


def split_facts(store: dict[str, Any]) -> dict[str, Any]:
    """How rows were split; `store` is of `card.card_facts`."""
    cases = CaseFacts(**store["cases"])
    strip = store["val_strip"]
    counts = ("train_rows", "train_slides", "val_rows", "val_slides")
    return {
        "by": "none" if not store["val_rows"] else "strip" if strip else "case",
        "val_strip": strip,
        **{name: store[name] for name in counts},
        "cases": {
            "known": cases.all_known,
            "slides": cases.slides,
            "unknown": cases.unknown,
            "not_recorded": cases.not_recorded,
            "repeats_ids": cases.repeats_ids,
        },
    }


def projector_shape(path: Path) -> tuple[int, int]:
    """Widths of teacher and student of a projector's file, from its header.

    Raises:
        EncoderError: it is damaged or missing.
    """
    with reading(path, "not the projector of an exported student", EncoderError):
        with safetensors.safe_open(path, "numpy") as f:
            teacher_width, student_width = f.get_slice("linear.weight").get_shape()
        return teacher_width, student_width


def takes_alpha(loss: str) -> bool:
    """Whether a loss has an exponent; one that is not registered any more has none."""
    return loss in LOSSES and LOSSES[loss].takes_alpha


def _of_config(folder: Path) -> dict[str, Any]:
    """What timm's `config.json` says of the student, and the hash of its weights."""
    config = read_model_config(folder)
    with reading(folder / CONFIG_FILE, "damaged", EncoderError):
        pretrained = config["pretrained_cfg"]
        return {
            "architecture": config["architecture"],
            "embedding": config["embedding"],
            "width": config["num_features"],
            "patch_px": pretrained["input_size"][-1],
            "mpp": config.get("mpp") or None,
            "mean": pretrained["mean"],
            "std": pretrained["std"],
            "weights_sha256": weights_file_hash(folder / STUDENT_WEIGHTS),
        }


def weights_file_hash(path: Path) -> str:
    """`encoders.build.weights_hash` of the model that a file of weights fills.

    Raises:
        EncoderError: it is damaged or missing.
    """
    from pipeline.encoders.build import tensors_hash  # loads torch

    with reading(path, "not the weights of an exported student", EncoderError), safetensors.safe_open(path, "pt") as f:
        return tensors_hash((name, f.get_tensor(name)) for name in sorted(f.keys()))


def _of_start(identity: dict[str, Any]) -> dict[str, Any]:
    """What the run's record says of the student, and of what it started from."""
    student = identity["student"]
    start = {name: student[name] for name in ("source", "weights", "weights_sha256")}
    return {
        "name": student["name"],
        "num_params": student["num_params"],
        "start": start | {"projectors": sorted(identity.get("start", {}))},
    }


def _of_teachers(identity: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """The run's teachers with the projectors in the student's folder."""
    teachers = recorded_teachers(identity)
    files = projector_files([teacher.name for teacher in teachers])
    return [
        {
            **{key: teacher.record[key] for key in ("name", "source", "weights")},
            "weights_sha256": teacher.record["weights_sha256"] or None,
            "width": projector_shape(folder / file)[0],
            "loss_weight": teacher.weight,
            "store_content": teacher.content,
            "projector": file,
            "projector_sha256": sha256_file(folder / file),
        }
        for teacher, file in zip(teachers, files.values(), strict=True)
    ]


def _of_training(run: RunFolder, identity: dict[str, Any], step: int) -> dict[str, Any]:
    """How the run was trained, and which epoch `step` is the end of: that of the best validation, or the last."""
    options, best, stop = identity["options"], run.best(), run.stop()
    last_epoch = options["epochs"] if stop is None else stop.epoch + 1
    return {
        "loss": options["loss"],
        "alpha": options["alpha"] if takes_alpha(options["loss"]) else None,
        "step": step,
        "epoch": best.epoch if best is not None and best.step == step else last_epoch,
        "best": None if best is None else {"step": best.step, "epoch": best.epoch, "loss": best.loss},
        "stopped": None if stop is None else asdict(stop),
        "recipe": identity.get(RECIPE),
        "fresh_views": read_shown(run.shown_views_path) or None,
    }
