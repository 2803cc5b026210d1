"""The exported student: a folder that timm loads, with the projector beside it and a card that says where it comes
from.

model.safetensors, config.json   timm.create_model("local-dir:student", pretrained=True)
projector.safetensors            linear map and statistics: the student in the teacher's stead
README.md                        the card
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from pipeline.encoders import EncoderSpec
from pipeline.errors import G2LError
from pipeline.files import ASIDE_SUFFIX, write_text
from pipeline.models import timm_config
from pipeline.projector import Projector


def timm_json(model: nn.Module, spec: EncoderSpec) -> dict[str, Any]:
    """timm's `config.json` for a student: it takes the whole patch, neither resized nor cropped, with its own
    statistics.
    """
    return {
        "architecture": spec.architecture,
        "num_classes": 0,
        "num_features": spec.width,
        "model_args": {"num_classes": 0, **spec.arguments},
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


def write_student(folder: Path, model: nn.Module, spec: EncoderSpec, projector: Projector, card: str) -> None:
    """Write the folder, complete or absent; one that is there is replaced.

    Raises:
        G2LError: the place cannot be written.
    """
    aside = folder.with_name(folder.name + ASIDE_SUFFIX)
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        save_tensors(model, aside / "model.safetensors")
        save_tensors(projector, aside / "projector.safetensors")
        write_text(aside / "config.json", json.dumps(timm_json(model, spec), indent=2) + "\n")
        write_text(aside / "README.md", card)
        if folder.exists():
            shutil.rmtree(folder)
        os.rename(aside, folder)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise G2LError(f"cannot write the student to {folder}: {error.strerror or error}") from error


def save_tensors(module: nn.Module, path: Path) -> None:
    """A module's state as safetensors, contiguous, on the CPU."""
    state = {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}
    safetensors.torch.save_file(state, path)


def load_projector(folder: Path) -> Projector:
    """The projector of an exported student, ready for `as_teacher`."""
    state = safetensors.torch.load_file(folder / "projector.safetensors")
    teacher_width, student_width = state["linear.weight"].shape
    projector = Projector(student_width, teacher_width)
    projector.load_state_dict(state)
    return projector.eval().requires_grad_(False)


def model_card(summary: dict[str, Any]) -> str:
    """The card: what the student is, what it was made from, how well it stands in, how it is used, and under which
    terms.

    `summary` has: student, teacher (encoder records), store (facts), config (record), fidelity (before, after; may be
    absent), steps, versions.
    """
    student, teacher, store, config = (summary[name] for name in ("student", "teacher", "store", "config"))
    figures = figures_table(summary["fidelity_before"], summary["fidelity_after"])
    share = student["num_params"] / teacher["num_params"]
    return f"""# {student["name"]} distilled from {teacher["name"]}

{student["num_params"] / 1e6:.2f} M parameters, {share:.1%} of the teacher's {teacher["num_params"] / 1e6:.2f} M.
Embedding: {student["embedding"]}, {student["width"]} dimensions. Input: RGB patches of {student["patch_px"]} px at
{store["mpp"]:g} um/px, mean {student["mean"]}, std {student["std"]}.

## Use

```python
import timm, torch
model = timm.create_model("local-dir:PATH", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
```

`projector.safetensors` maps the embedding into the teacher's space: `linear`, then `student_norm` (subtract the mean,
divide by the root of the variance plus 1e-5), then `teacher_norm` backwards. `pipeline.export.load_projector` does it.

## Made from

- {store["train_rows"]:,} patches of {store["train_slides"]:,} slides of {store["train_cases"]:,} cases; held out: \
{store["val_rows"]:,} patches of {store["val_slides"]:,} slides.
- Plan {store["plan_hash"]}, store content {store["content_hash"]}.
- Teacher weights {teacher["weights_sha256"]} ({teacher["source"]}, {teacher["weights"]}).
- Student started from {student["source"]}, {student["weights"]}; {summary["steps"]:,} steps.

## Held-out figures

{figures}

## Settings

```json
{json.dumps(config, indent=2)}
```

Versions: {", ".join(f"{name} {version}" for name, version in summary["versions"].items())}.

## Terms

A student inherits its teacher's terms. Teacher: {teacher["licence"] or "unknown"}.
Student's start: {student["licence"] or "unknown"}. Not a medical device; for research.
"""


def figures_table(before: dict[str, float] | None, after: dict[str, float] | None) -> str:
    """Held-out figures as a Markdown table."""
    if before is None or after is None:
        return "No rows were held out: nothing is known of how well this student stands in."
    names = [name for name in after if name != "rows"]
    lines = [f"On {after['rows']:,.0f} patches that were not trained on.", "", "| | before | after |", "|---|---|---|"]
    lines += [f"| {name.replace('_', ' ')} | {before[name]:.4f} | {after[name]:.4f} |" for name in names]
    return "\n".join(lines)


@torch.no_grad()
def same_embeddings(first: nn.Module, second: nn.Module, images: torch.Tensor) -> float:
    """Largest absolute difference of two models' outputs."""
    return float((first(images) - second(images)).abs().max())
