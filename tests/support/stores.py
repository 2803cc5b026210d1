"""Small finished stores and small students for the tests of stage two, made in well under a second without a slide.

A store goes through `create_store` and `StoreWriter`, as stage one's do; its plan, pixels and embeddings are synthetic.
The embeddings are a smooth function of the pixels, so that a student can learn them.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.images import encode_image
from pipeline.base.versions import versions
from pipeline.cohort.plan import Plan, SlidePlan, in_order
from pipeline.config.plan import PlanConfig
from pipeline.config.stages import TrainConfig
from pipeline.encoders.table import EncoderSpec
from pipeline.sampling import TRAIN, VAL
from pipeline.slides.geometry import PatchGeometry
from pipeline.store.create import create_store
from pipeline.store.format import TEACHER_FORMAT, Status, StoreSpec
from pipeline.store.patches import PatchRead
from pipeline.store.store import Store
from pipeline.store.writer import StoreWriter

PATCH_PX = 32
WIDTH = 12
TEACHER = EncoderSpec("test-teacher", "timm:none", "none", width=WIDTH, patch_px=PATCH_PX, licence="Test-1.0")


def plan_of_rows(
    train: Sequence[int] = (16, 16, 16), val: Sequence[int] = (16,), patch_px: int = PATCH_PX, seed: int = 0
) -> Plan:
    """A plan of slides that do not exist: one slide and case for each number of rows, to train on and held out."""
    geometry = PatchGeometry(patch_px, 0.5, 0.5, 0, 1.0)
    slides = []
    for i, (rows, split) in enumerate([*((n, TRAIN) for n in train), *((n, VAL) for n in val)]):
        coords = np.stack([np.arange(rows) * patch_px, np.full(rows, i * patch_px)], axis=1).astype(np.int64)
        name, splits = f"slide_{i}", np.full(rows, split, np.uint8)
        slides.append(
            SlidePlan(name, f"{name}.svs", f"case_{i}", None, None, None, (9999, 9999), geometry, coords, splits)
        )
    in_plan, audit = in_order(slides, [])
    return Plan(in_plan, Path("/no/slides"), PlanConfig(patch_px=patch_px, seed=seed), audit)


def make_patches(count: int, patch_px: int = PATCH_PX, seed: int = 0) -> NDArray[np.uint8]:
    """Patches of a few smooth blobs of random colour: uint8 (count, P, P, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:patch_px, :patch_px] / patch_px
    images = np.empty((count, patch_px, patch_px, 3), np.uint8)
    for i in range(count):
        image = np.full((patch_px, patch_px, 3), rng.uniform(60, 200, 3))
        for _ in range(3):
            cx, cy, size = (*rng.uniform(0.1, 0.9, 2).tolist(), rng.uniform(0.1, 0.4))
            blob = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / size**2)[..., None]
            image += blob * rng.uniform(-90, 90, 3)
        images[i] = image.clip(0, 255)
    return images


def embed_patches(patches: NDArray[np.uint8], width: int = WIDTH) -> NDArray[np.float32]:
    """A teacher for `make_patches`: a fixed smooth function of mean colours and contrasts, float32 (N, width)."""
    flat = patches.reshape(len(patches), -1, 3).astype(np.float64) / 255
    facts = np.concatenate([flat.mean(1), 4 * flat.std(1)], axis=1)
    mixing = np.random.default_rng(1).normal(size=(facts.shape[1], width))
    return (3 * np.tanh(facts @ mixing - 1)).astype(np.float32)


def make_store(
    folder: Path,
    *,
    train: Sequence[int] = (16, 16, 16),
    val: Sequence[int] = (16,),
    rows_per_shard: int = 16,
    patch_px: int = PATCH_PX,
    dtype: str = "float16",
    pixels: str = "jpegxl",
    failed: Sequence[int] = (),
    shards: int | None = None,
    seed: int = 0,
    patches: NDArray[np.uint8] | None = None,
) -> Store:
    """Write a store; rows in `failed` are unreadable, and only the first `shards` are done unless it is `None`."""
    plan = plan_of_rows(train, val, patch_px, seed)
    teacher = TEACHER.record() | {
        "patch_px": patch_px,
        "weights": "test",
        "weights_sha256": "0" * 64,
        "num_params": 1_000_000,
    }
    settings = {
        "rows_per_shard": rows_per_shard,
        "pixels": pixels,
        "dtype": dtype,
        "precision": "float32",
        "batch_size": rows_per_shard,
    }
    create_store(folder, plan, StoreSpec(teacher, settings), versions())
    store = Store(folder)
    patches = make_patches(plan.num_rows, patch_px, seed) if patches is None else patches
    embeddings = embed_patches(patches)
    with StoreWriter(store.first, lambda row: {"row": row, "slide_id": "?", "x": 0, "y": 0}, "test") as writer:
        for shard in range(store.first.num_shards if shards is None else shards):
            rows = store.first.ledger.rows(shard)
            reads = [
                PatchRead(Status.UNREADABLE, reason="test")
                if row in failed
                else PatchRead(Status.OK, encode_image(patches[row], "jpegxl") if pixels != "none" else None)
                for row in rows
            ]
            writer.put(rows, embeddings[rows.start : rows.stop], reads)
    return Store(folder)


def student_folder(folder: Path, architecture: str, patch_px: int = PATCH_PX, **model_args: Any) -> str:
    """A timm model with these arguments as a `local-dir:` student, to be started from scratch; returns its name."""
    folder.mkdir()
    size = [3, patch_px, patch_px]
    config = {
        "architecture": architecture,
        "num_classes": 0,
        "model_args": model_args,
        "pretrained_cfg": {
            "architecture": architecture,
            "input_size": size,
            "fixed_input_size": "img_size" in model_args,
            "mean": [0.6, 0.5, 0.55],
            "std": [0.25, 0.2, 0.3],
            "num_classes": 0,
            "classifier": "head" if "vit" in architecture else "classifier",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    return f"local-dir:{folder}"


def dropping_cnn(folder: Path) -> str:
    """A student whose steps depend on random states and on running statistics: drop-path, dropout and batch norm."""
    return student_folder(folder, "test_efficientnet", drop_path_rate=0.3, drop_rate=0.2)


def dropping_vit(folder: Path) -> str:
    """A student of one layer, for hundreds of runs, whose steps depend on random states: drop-path and dropout."""
    sizes = {"img_size": PATCH_PX, "depth": 1, "embed_dim": 32, "num_heads": 2}
    return student_folder(folder, "test_vit", **sizes, drop_path_rate=0.3, proj_drop_rate=0.2)


def plain_vit(folder: Path) -> str:
    """A student without batch normalisation and without random numbers."""
    return student_folder(folder, "test_vit", img_size=PATCH_PX, depth=2, embed_dim=32, num_heads=2)


def train_config(student: str, **options: Any) -> TrainConfig:
    """Options for a few quick steps on a CPU."""
    defaults = {
        "weights": "scratch",
        "epochs": 2,
        "batch_size": 8,
        "lr": 1e-3,
        "device": "cpu",
        "workers": 2,
        "checkpoint_every": 4,
    }
    return TrainConfig(student=student, **(defaults | options))


def flags(config: TrainConfig) -> list[str]:
    """The options as flags of `g2l train-student`."""
    words: list[str] = []
    for name, value in config.record().items():
        flag = "--" + name.replace("_", "-")
        words += [flag if value else flag.replace("--", "--no-", 1)] if isinstance(value, bool) else [flag, str(value)]
    return words


def run_files(run: Path) -> dict[str, bytes]:
    """What must not depend on how often a run was stopped: bytes by name."""
    names = (
        "student/model.safetensors",
        "student/projector/projector.safetensors",
        "student/config.json",
        "student/README.md",
        "student/student.json",
        "metrics.jsonl",
    )
    return {name: (run / name).read_bytes() for name in names}


def copy_with_teacher(store: Path, folder: Path, name: str) -> Path:
    """A copy of a store in a new `folder` that has its embeddings again as those of a further teacher."""
    shutil.copytree(store, folder)
    further = folder / "teachers" / name
    shutil.copytree(store, further, ignore=shutil.ignore_patterns("plan", "pixels", "teachers", "config.toml"))
    metadata = json.loads((further / "zarr.json").read_text())
    metadata["attributes"]["g2l"]["format"] = TEACHER_FORMAT
    metadata["attributes"]["g2l"]["teacher"]["name"] = name
    (further / "zarr.json").write_text(json.dumps(metadata))
    return folder
