"""The exported student: a folder that timm loads, with the projector beside it and a card that says where it comes
from.

model.safetensors, config.json   timm.create_model("local-dir:student", pretrained=True)
projector/projector.safetensors            linear map and statistics: the student in the teacher's stead
projector/projector-<teacher>.safetensors  the same for each further teacher; projectors.json: files by teachers' names
README.md                                  the card

timm is alone with its file in the folder: before 1.0.29 it took others that lay beside it (decision 0037).
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.base import interrupts
from pipeline.base.devices import versions
from pipeline.base.errors import EncoderError, G2LError, first_line
from pipeline.cohort.cases import case_facts
from pipeline.config.stages import TrainConfig
from pipeline.disk.asides import aside_name, remove, remove_asides_of
from pipeline.disk.files import sync_folder, write_text, written_by_library
from pipeline.encoders.build import BuiltEncoder, require_numbers, timm_config
from pipeline.encoders.table import EncoderSpec
from pipeline.encoders.weight_files import read_weight_file
from pipeline.projector import Projector
from pipeline.sampling import VAL
from pipeline.store.store import StoredTeacher
from pipeline.student.card import in_markdown, split_words, terms_section
from pipeline.student.teacher_projectors import (
    FIRST,
    FOLDER,
    PROJECTORS,
    further_sources,
    named_projectors,
    projector_files,
    projector_path,
    projectors_note,
    teacher_source,
)
from pipeline.training.augment import beyond_the_teacher
from pipeline.training.held_out import FIGURES, MEANINGS, figures_of
from pipeline.training.run_folder import STEP

JSON_BACKTICK = "\\u0060"
"""A backtick as JSON may have it, so that no value ends the block of settings."""
USAGE = {
    "pooled": "embedding = model(images)",
    "cls": "embedding = model(images)",
    "cls+mean": (
        "tokens = model.forward_features(images)\n"
        "    embedding = torch.cat([tokens[:, 0], tokens[:, model.num_prefix_tokens :].mean(1)], dim=1)"
    ),
}
"""How a card says that the embedding is taken, by the rule."""


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
    projector: Projector,
    card: str,
    teachers: Mapping[str, Projector] = MappingProxyType({}),
    step: int | None = None,
) -> None:
    """Write the folder, complete or absent; one that is there is replaced as a whole.

    `teachers` are the projectors of several teachers by name, of which `projector` is the first. `step`, after which
    the student stood, is written into `config.json`.

    Raises:
        G2LError: the place cannot be written.
    """
    remove_asides_of(folder)
    aside, old = (folder.with_name(aside_name(name)) for name in (folder.name, f"{folder.name}.old"))
    key = interrupts.undo_at_end(lambda: remove(aside), aside)
    try:
        aside.mkdir(parents=True)
        save_tensors(model, aside / "model.safetensors")
        (aside / FOLDER).mkdir()
        save_tensors(projector, aside / FOLDER / FIRST)
        files = projector_files(list(teachers))
        for name in list(teachers)[1:]:
            save_tensors(teachers[name], aside / files[name])
        if len(teachers) > 1:
            write_text(aside / PROJECTORS, json.dumps(files, indent=2) + "\n")
        described = timm_json(model, spec) | ({} if step is None else {STEP: step})
        write_text(aside / "config.json", json.dumps(described, indent=2) + "\n")
        write_text(aside / "README.md", card)
        with interrupts.guard:
            if folder.exists():
                os.rename(folder, old)
            os.rename(aside, folder)
        sync_folder(folder.parent)
    except (OSError, safetensors.SafetensorError) as error:
        remove(aside)
        if old.exists() and not folder.exists():
            os.rename(old, folder)
        reason = error.strerror if isinstance(error, OSError) else None
        raise G2LError(f"cannot write the student to {folder}: {reason or error}") from error
    finally:
        if folder.exists():
            remove(old)
        interrupts.settled(key)


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
        EncoderError: there is none, or it is damaged.
    """
    path = projector_path(folder)
    if teacher is not None:
        files = named_projectors(folder)
        if teacher not in files:
            raise EncoderError(f"{folder}: no projector of a teacher {teacher}; there are those of "
                               f"{', '.join(files)}" if files else f"{folder}: a student of one teacher, whose only "
                               "projector is loaded without a name")  # fmt: skip
        path = folder / files[teacher]
    try:
        state = read_weight_file(path)
        teacher_width, student_width = state["linear.weight"].shape
        projector = Projector(student_width, teacher_width)
        projector.load_state_dict(state)
        require_numbers(projector.state_dict(), str(path))
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise EncoderError(f"{path}: not the projector of an exported student ({first_line(error)})") from None
    return projector.eval().requires_grad_(False)


def card_facts(
    store: StoredTeacher,
    student: BuiltEncoder,
    config: TrainConfig,
    train_rows: NDArray[np.int64],
    num_steps: int,
    before: dict[str, float] | None,
    after: dict[str, float] | None,
    further: Sequence[dict[str, Any]] = (),
    num_views: int = 1,
) -> dict[str, Any]:
    """What `model_card` says; `before` and `after` are the held-out figures, `None` where no rows are held out.

    `further` teachers, if any: teacher, weight, content, and their fidelity_before and fidelity_after.
    """
    plan, slide_of_row = store.plan, store.plan.slide_of_row()
    train_slides, val_rows = np.unique(slide_of_row[train_rows]).tolist(), store.ok_rows(VAL)
    val_slides = np.unique(slide_of_row[val_rows]).tolist()
    cases = case_facts(plan.slides)
    return {
        "student": student.record(),
        "teacher": store.spec.teacher,
        "store": {
            "mpp": plan.config.mpp,
            "plan_hash": plan.hash,
            "content_hash": store.content_hash(),
            "train_rows": len(train_rows),
            "train_slides": len(train_slides),
            "train_cases": cases.count(len({plan.slides[i].case_id for i in train_slides})),
            "val_rows": len(val_rows),
            "val_slides": len(val_slides),
            "val_cases": cases.count(len({plan.slides[i].case_id for i in val_slides})),
            "cases": asdict(cases),
            "val_strip": plan.config.val_strip,
        },
        "config": config.for_card(),
        "fidelity_before": before,
        "fidelity_after": after,
        "steps": num_steps,
        "versions": versions(),
        "further_teachers": list(further),
        "views": num_views,
    }


def model_card(summary: dict[str, Any]) -> str:
    """The card: what the student is, what it was made from, how well it stands in, how it is used, and under which
    terms.

    `summary` is made by `card_facts`.
    """
    config = summary["config"]
    summary = in_markdown({name: value for name, value in summary.items() if name != "config"})
    student, teacher, store = (summary[name] for name in ("student", "teacher", "store"))
    further = summary["further_teachers"]
    names = " and ".join([teacher["name"], *(other["teacher"]["name"] for other in further)])
    whose = f"{teacher['name']}'s" if further else "the teacher's"
    share = student["num_params"] / teacher["num_params"]
    return f"""---
library_name: timm
license: other
tags: [image-feature-extraction, timm, pathology, knowledge-distillation]
---

# {student["name"]} distilled from {names}

{student["num_params"] / 1e6:.2f} M parameters, {share:.1%} of {whose} {teacher["num_params"] / 1e6:.2f} M.
Embedding: {student["embedding"]}, {student["width"]} dimensions. Input: RGB patches of {student["patch_px"]} px at
{store["mpp"]:g} um/px, mean {student["mean"]}, std {student["std"]}.

## Use

```python
import timm
import torch

model = timm.create_model("local-dir:PATH", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
with torch.inference_mode():
    images = transform(patch)[None]  # patch: a PIL image, RGB
    {USAGE[student["embedding"]]}
```

This takes timm 1.0.16 or later, and with 1.0.16 to 1.0.25 a torch whose `torch.load` reads safetensors. The adapters,
where this folder has some, build it with older ones, too.

`{FOLDER}/{FIRST}` maps the embedding into {whose} space: `linear`, then `student_norm` (subtract
the mean, divide by the root of the variance plus 1e-5), then `teacher_norm` backwards.
`pipeline.export.load_projector(Path("PATH"))` of G2L does it.
{projectors_note(teacher, further)}
## Made from

- Trained on: {store["train_rows"]:,} patches (slides: {store["train_slides"]:,}, cases: {store["train_cases"]}). \
Held out: {store["val_rows"]:,} patches (slides: {store["val_slides"]:,}, cases: {store["val_cases"]}).
- {split_words(store)}
- Plan {store["plan_hash"]}, store content {store["content_hash"]}.
- Teacher {teacher_source(teacher)}.{further_sources(further)}
- Student started from {student["source"]}, {student["weights"]}{start_note(summary.get("start", ()))}; \
{summary["steps"]:,} steps.
{views_note(config["augment"], summary["views"])}\

## Held-out figures

{all_figures(summary)}

## Settings

```json
{json.dumps(config, indent=2).replace("`", JSON_BACKTICK)}
```

Versions: {", ".join(f"{name} {version}" for name, version in summary["versions"].items())}.

{terms_section([teacher, *(other["teacher"] for other in further)], student)}
"""


def start_note(projectors: Sequence[str]) -> str:
    """That a student was trained on from an earlier one: with its projectors into the spaces of these teachers."""
    return f" with its projector into the space of {' and '.join(projectors)}" if projectors else ""


def views_note(augment: str, num_views: int) -> str:
    """Lines of a card on the views of a patch, and on augmentation beyond them."""
    views = [f"{num_views} views of each patch, each compared with the teacher's embedding of that view."]
    beyond = beyond_the_teacher(augment, num_views)
    lines = [*(views if num_views > 1 else []), *([beyond[0].upper() + beyond[1:] + "."] if beyond else [])]
    return "".join(f"- {line}\n" for line in lines)


def all_figures(summary: dict[str, Any]) -> str:
    """`figures_table`, of several teachers under a heading each."""
    num_rows, before, after = summary["store"]["val_rows"], summary["fidelity_before"], summary["fidelity_after"]
    parts = [figures_table(before, after, num_rows)]
    if summary["further_teachers"]:
        parts = [f"### {summary['teacher']['name']}\n\n{parts[0]}"]
    for other in summary["further_teachers"]:
        table = figures_table(other["fidelity_before"], other["fidelity_after"], num_rows)
        parts.append(f"### {other['teacher']['name']}\n\n{table}")
    if after is not None:
        parts.append("\n".join(f"- {FIGURES[key]}: {MEANINGS[key]}." for key in figures_of(after)))
        parts += [summary["best"]] if summary.get("best") else []
    return "\n\n".join(parts)


def figures_table(before: dict[str, float] | None, after: dict[str, float] | None, num_rows: int = 0) -> str:
    """Held-out figures as a Markdown table; `num_rows` are held out, which may be too few to be scored."""
    if before is None or after is None:
        why = "One row was held out, too few to be scored" if num_rows == 1 else "No rows were held out"
        return f"{why}: nothing is known of how well this student stands in."
    keys = [key for key in figures_of(after) if key in before]
    lines = [f"On {after['rows']:,.0f} patches that were not trained on.", "", "| | before | after |", "|---|---|---|"]
    lines += [f"| {FIGURES[key]} | {before[key]:.4f} | {after[key]:.4f} |" for key in keys]
    return "\n".join(lines)


@torch.no_grad()
def same_embeddings(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor], images: Tensor) -> float:
    """Largest absolute difference of two models' outputs; infinite if either gives NaN."""
    return float((first(images) - second(images)).abs().nan_to_num(nan=torch.inf, posinf=torch.inf).max())
