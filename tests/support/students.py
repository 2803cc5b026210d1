"""Exported students that no run has made, with their projectors and descriptions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.disk.files import sha256_file
from pipeline.encoders.table import SWIGLU_GIANT, EncoderSpec
from pipeline.projector import Projector
from pipeline.student.folder import write_student
from pipeline.student.student_json import SeenBeforeJson, StudentJson, build_student_json, projector_files

TINY = {"depth": 2, "embed_dim": 32, "num_heads": 2, "img_size": 42}
SPECS = {
    "tiny-swiglu": EncoderSpec(
        "tiny-swiglu",
        "hf-hub:none/none",
        SWIGLU_GIANT,
        {**TINY, "mlp_ratio": 4.0, "global_pool": ""},
        "cls",
        patch_px=42,
        mean=(0.7, 0.55, 0.7),
        std=(0.2, 0.23, 0.18),
    ),
    "tiny-mean": EncoderSpec(
        "tiny-mean",
        "hf-hub:none/none",
        SWIGLU_GIANT,
        {**TINY, "mlp_ratio": 4.0, "global_pool": ""},
        "cls+mean",
        patch_px=42,
    ),
}
EXPORTED = {
    "vit, pooled": ("vit_small_patch14_reg4_dinov2", 42),
    "vit of any size": ("test_vit", 42),
    "cnn": ("test_efficientnet", 40),
    "class token": ("tiny-swiglu", 42),
    "class token and mean": ("tiny-mean", 42),
}
"""Students that are written in every format: how `build_encoder` calls them, and their patch side."""
ARGUMENTS: dict[str, dict[str, Any]] = {
    "vit, pooled": TINY,
    "vit of any size": TINY | {"dynamic_img_size": True, "patch_size": 14},
    "cnn": {},
}


def random_projector(student_width: int, teacher_width: int = 7) -> Projector:
    projector = Projector(student_width, teacher_width).train()
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        projector(torch.randn(16, student_width, generator=generator), torch.randn(16, teacher_width))
    projector.teacher_norm.set_statistics(torch.arange(1.0, 8.0), torch.arange(2.0, 9.0))
    return projector


def described(folder: Path, spec: EncoderSpec, projectors: Mapping[str, Projector]) -> StudentJson:
    """A description of a student that no run has made."""
    files = projector_files(list(projectors))
    teachers = [
        {
            "name": name,
            "source": f"timm:{name}",
            "weights": "w.bin",
            "weights_sha256": f"{i:064x}",
            "width": projector.linear.out_features,
            "loss_weight": 1 / len(projectors),
            "store_content": "c" * 64,
            "projector": files[name],
            "projector_sha256": sha256_file(folder / files[name]),
        }
        for i, (name, projector) in enumerate(projectors.items(), start=1)
    ]
    start = {"source": spec.source, "weights": "scratch", "weights_sha256": "a" * 64, "projectors": []}
    encoder = {name: getattr(spec, name) for name in ("name", "architecture", "embedding", "width", "patch_px")}
    encoder |= {"num_params": 6, "mpp": spec.mpp or None, "start": start}
    encoder |= {"mean": list(spec.mean), "std": list(spec.std)}
    training = {"loss": "log-sum", "alpha": 4.0, "step": 12, "epoch": 2, "best": {"step": 6, "epoch": 1, "loss": 0.5}}
    cases = {"known": False, "slides": 3, "unknown": 2, "not_recorded": 0, "repeats_ids": False}
    split = {"by": "case", "val_strip": None, "train_rows": 8, "train_slides": 2, "val_rows": 4, "val_slides": 1}
    return build_student_json(
        {
            "g2l": "0.0",
            "encoder": encoder,
            "teachers": teachers,
            "plan_hash": "b" * 64,
            "training": training,
            "split": split | {"cases": cases},
        }
    )


def seen_cases(cases: int, shared: int = 0, *, is_unknown: bool = False) -> SeenBeforeJson:
    """What is known of held-out cases that a student was trained on before."""
    return SeenBeforeJson(cases=cases, shared=shared, is_unknown=is_unknown)


def write_exported(
    folder: Path,
    model: torch.nn.Module,
    spec: EncoderSpec,
    projectors: Mapping[str, Projector] | Projector,
    card: str = "card",
) -> None:
    """A student's folder as a run writes it."""
    named = {"teacher": projectors} if isinstance(projectors, Projector) else projectors
    write_student(folder, model, spec, named, card, lambda student: described(student, spec, named))


def disturb(model: torch.nn.Module) -> None:
    """Move every weight and statistic a little: a student fresh from its seed could be made again without its file."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value += 0.1 * (torch.rand(value.shape, generator=generator) - 0.5)


def small_student(value: float) -> tuple[torch.nn.Module, EncoderSpec, Projector]:
    model = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(model.weight, value)
    model.pretrained_cfg = {}  # type: ignore[assignment]
    return model, EncoderSpec("x", "timm:x", "x", width=2), random_projector(2)
