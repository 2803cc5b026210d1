"""A tiny teacher, a tiny cohort and its plan, and stage one over it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import timm
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline.cohort.manifest.read import read_manifest
from pipeline.cohort.plan import Plan, SlidePlan
from pipeline.cohort.plan_hdf5 import write_plan
from pipeline.config.plan import PlanConfig
from pipeline.config.stages import ExtractConfig
from pipeline.encoders.load import load_weights
from pipeline.sampling import TRAIN, VAL
from pipeline.slides.geometry import PatchGeometry
from stages.extract_teacher import extract_teacher
from stages.plan import plan_slides
from stages.reports.extract import Extracted
from support.slides import make_slide

torch.set_num_threads(1)  # threads that spin for work make tiny models slow where processes share the cores

TEACHER = "test_resnet"
"""A CNN of 0.37 M parameters and 96 dimensions that takes patches of any size."""
FURTHER = "test_efficientnet"
"""Another such one."""
PATCH_PX = 64


def tiny_model(name: str = TEACHER, *, seed: int = 0, **arguments: Any) -> torch.nn.Module:
    """A random timm model with its classifier, the same for the same seed; statistics of norms are no identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: torch.nn.Module = timm.create_model(name, **arguments)
        for key, value in model.state_dict().items():
            if key.endswith("running_mean"):
                value.normal_(0, 0.1)
            elif key.endswith("running_var"):
                value.uniform_(0.5, 2)
    return model.eval()


def write_teacher(path: Path, name: str = TEACHER, *, seed: int = 0, **arguments: Any) -> Path:
    """Weights of `tiny_model` as a safetensors file; returns `path`."""
    safetensors.torch.save_file(tiny_model(name, seed=seed, **arguments).state_dict(), path)
    return path


def reference_model(name: str, weights: Path, **arguments: Any) -> torch.nn.Module:
    """timm's own model of an encoder whose weights are in a file, without a classifier."""
    model: torch.nn.Module = timm.create_model(name, num_classes=0, **arguments)
    load_weights(model, safetensors.torch.load_file(weights), str(weights))
    return model.eval()


def timm_transform(patch_px: int, mean: Any, std: Any, interpolation: str = "bicubic") -> Callable[[Any], torch.Tensor]:
    """timm's evaluation transform of images with sides of `patch_px`, which it neither scales nor cuts."""
    size = (3, patch_px, patch_px)
    transform: Callable[[Any], torch.Tensor] = timm.data.create_transform(
        size, is_training=False, mean=mean, std=std, crop_pct=1.0, interpolation=interpolation
    )
    return transform


def embed_by_timm(
    model: Any, transform: Callable[[Any], torch.Tensor], patches: NDArray[np.uint8], embedding: str = "pooled"
) -> NDArray[np.float32]:
    """Embeddings (N, D) of patches (N, P, P, 3) by timm's own transform and model, one after the other.

    Args:
        embedding: `pooled`, as the model gives them; `cls`, the class token; `cls+mean`, with the patches' mean.
    """
    found = []
    with torch.inference_mode():
        for patch in patches:
            image = transform(Image.fromarray(patch))[None]
            if embedding == "pooled":
                found.append(model(image))
                continue
            tokens = model.forward_features(image)
            mean = [tokens[:, model.num_prefix_tokens :].mean(1)] if embedding == "cls+mean" else []
            found.append(torch.cat([tokens[:, 0], *mean], dim=1))
    return np.asarray(torch.cat(found))


def write_cohort(folder: Path, num_slides: int = 2, **slide: Any) -> Path:
    """Slides of one small JPEG tissue level at 0.5 um/px, one case each, and their manifest; returns the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["slide_id,path,case_id"]
    for i in range(num_slides):
        options = {"width": 512, "height": 448, "mpp": 0.5, "downsamples": (1,), "tile": 64, "seed": i, **slide}
        make_slide(folder / f"s{i}.svs", **options)
        lines.append(f"s{i},s{i}.svs,c{i}")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def big_slide(path: Path, seed: int) -> Path:
    """A slide that OpenSlide gives no quickhash: its one level has more than 5 MiB."""
    return make_slide(path, width=1600, height=1280, mpp=0.5, downsamples=(1,), compression="none", seed=seed)


def as_earlier_version(plan: Plan) -> Plan:
    """The plan as versions wrote it that kept no identity of slides."""
    return replace(plan, slides=tuple(replace(s, identity_facts=None) for s in plan.slides))


def plan_cohort(manifest: Path, **options: Any) -> Plan:
    """The plan of a manifest: patches of 64 px all over the slides unless said otherwise."""
    values = {"patch_px": PATCH_PX, "min_tissue": 0.0, "val_fraction": 0.5, "patches_per_slide": 12} | options
    config = PlanConfig.build(values)
    return plan_slides(read_manifest(manifest, config.slides_root), config, workers=2, overlays=None)


def made_up_plan(num_rows: int = 22, patch_px: int = 16) -> Plan:
    """A plan of two slides that do not exist."""
    geometry = PatchGeometry(patch_px, 0.5, 0.5, 0, 1.0)
    slides = []
    for name, rows in (("a", num_rows // 3), ("b", num_rows - num_rows // 3)):
        coords = np.stack([np.arange(rows) * patch_px, np.zeros(rows, np.int64)], axis=1)
        split = np.where(np.arange(rows) % 4 == 0, VAL, TRAIN).astype(np.uint8)
        slides.append(
            SlidePlan(name, f"{name}.svs", f"case {name}", None, None, "0" * 8, (9999, 99), geometry, coords, split)
        )
    return Plan(tuple(slides), Path("/nowhere"), PlanConfig(patch_px=patch_px), ())


def extract(plan: Plan, out: Path, weights: Path, **options: Any) -> Extracted:
    """Stage one in this process, on the CPU; 8 rows a shard and 4 a batch unless said otherwise."""
    values = {"teacher": TEACHER, "weights": weights, "device": "cpu", "rows_per_shard": 8, "batch_size": 4} | options
    return extract_teacher(plan, out, ExtractConfig.build(values))


def spoiling(rows: slice, value: float) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    """In place of `Encoder.forward`: one dimension of these rows of every batch is `value`."""

    def forward(encoder: Any, patches: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = encoder.embed(encoder.normalise(patches)).clone()
        output[rows, 7] = value
        return output

    return forward


def array_files(store: Path) -> dict[str, bytes]:
    """Every file of a store that holds rows, by name: bytes that must not depend on how the run went."""
    names = ("embedding", "pixels", "status", "plan")
    return {
        str(path.relative_to(store)): path.read_bytes()
        for name in names
        for path in sorted((store / name).rglob("*"))
        if path.is_file() and (name == "plan" or path.name != "zarr.json")
    }


def write_store_for_two(folder: Path) -> Path:
    """A plan, the weights of two teachers, `first` and `further`, and `store.zarr` with the first one's embeddings;
    returns the folder.
    """
    plan = plan_cohort(write_cohort(folder / "slides"))
    write_plan(plan, folder / "plan.h5")
    extract(plan, folder / "store.zarr", write_teacher(folder / "first.safetensors"))
    write_teacher(folder / "further.safetensors", FURTHER, seed=3)
    (folder / "slides").rename(folder / "gone")  # whoever has the store needs no slides
    return folder


def store_files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by name; of a ledger entry without its seconds."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if path.parent.name == "shards":
                data = json.dumps(json.loads(data) | {"seconds": 0}).encode()
            found[path.relative_to(folder).as_posix()] = data
    return found
