"""Types of the options of each function, for editors and type checkers; `None`: not given.

Made of the configurations by `python tests/support/option_types.py`: change an option there, not here.
"""

from os import PathLike
from typing import Literal, TypedDict

AnyFile = str | PathLike[str]


class PlanOptions(TypedDict, total=False):
    recipe: str | None
    slides_root: AnyFile | None
    patches_per_slide: int | None
    sample: Literal["uniform", "spread", "class", "cluster"] | None
    candidates: int | None
    clusters: int | None
    sampler_encoder: str | None
    device: str | None
    budget: str | None
    budget_width: int | None
    budget_pixels: Literal["jpegxl", "jpeg", "none"] | None
    rate: float | None
    rate_from: AnyFile | None
    max_slides: int | None
    patch_px: int | None
    tile_px: int | None
    mpp: float | None
    stride_px: int | None
    min_tissue: float | None
    max_artefact: float | None
    allow_upsampling: bool | None
    tiling: Literal["level0"] | None
    resampling: Literal["lanczos-pillow", "lanczos-torch"] | None
    decode: Literal["full", "half"] | None
    skip_rule: (
        list[
            Literal[
                "border", "dark", "faint", "grey", "specks", "haze", "pen", "edges", "folds", "blank", "blur", "fat"
            ]
        ]
        | None
    )
    use_rule: (
        list[
            Literal[
                "border", "dark", "faint", "grey", "specks", "haze", "pen", "edges", "folds", "blank", "blur", "fat"
            ]
        ]
        | None
    )
    val_fraction: float | None
    val_strip: float | None
    include: list[str] | None
    exclude: list[str] | None
    min_class: float | None
    max_excluded: float | None
    class_quota: list[str] | None
    class_overlap: Literal["smaller", "most"] | None
    annotation_origin: Literal["auto", "slide", "scan"] | None
    tissue_from: AnyFile | None
    tissue_geojson: AnyFile | None
    balance: Literal["center"] | None
    exclude_cases: list[str] | None
    check_files: bool | None
    workers: int | None
    stage_dir: AnyFile | None
    stage_gb: float | None
    overlays: AnyFile | None
    seed: int | None


class ExtractOptions(TypedDict, total=False):
    recipe: str | None
    teacher: str | None
    weights: AnyFile | None
    batch_size: int | None
    device: str | None
    precision: Literal["auto", "float32", "bfloat16", "float16"] | None
    dtype: Literal["float16", "float32"] | None
    rows_per_shard: int | None
    pixels: Literal["jpegxl", "jpeg", "none"] | None
    workers: int | None
    slides_root: AnyFile | None
    stage_dir: AnyFile | None
    stage_gb: float | None
    max_failures: int | None
    retry_failures: bool | None
    views: int | None
    views_per_epoch: Literal["turn", "fresh"] | None
    views_seed: int | None
    views_strength: Literal["none", "flips", "mild", "paper", "strong"] | None
    patch_qc: bool | None
    part: str | None
    preflight: bool | None
    patches_per_slide: int | None
    sample: Literal["uniform", "spread", "class", "cluster"] | None
    candidates: int | None
    clusters: int | None
    sampler_encoder: str | None
    budget: str | None
    budget_width: int | None
    budget_pixels: Literal["jpegxl", "jpeg", "none"] | None
    rate: float | None
    rate_from: AnyFile | None
    max_slides: int | None
    patch_px: int | None
    tile_px: int | None
    mpp: float | None
    stride_px: int | None
    min_tissue: float | None
    max_artefact: float | None
    allow_upsampling: bool | None
    tiling: Literal["level0"] | None
    resampling: Literal["lanczos-pillow", "lanczos-torch"] | None
    decode: Literal["full", "half"] | None
    skip_rule: (
        list[
            Literal[
                "border", "dark", "faint", "grey", "specks", "haze", "pen", "edges", "folds", "blank", "blur", "fat"
            ]
        ]
        | None
    )
    use_rule: (
        list[
            Literal[
                "border", "dark", "faint", "grey", "specks", "haze", "pen", "edges", "folds", "blank", "blur", "fat"
            ]
        ]
        | None
    )
    val_fraction: float | None
    val_strip: float | None
    include: list[str] | None
    exclude: list[str] | None
    min_class: float | None
    max_excluded: float | None
    class_quota: list[str] | None
    class_overlap: Literal["smaller", "most"] | None
    annotation_origin: Literal["auto", "slide", "scan"] | None
    tissue_from: AnyFile | None
    tissue_geojson: AnyFile | None
    balance: Literal["center"] | None
    exclude_cases: list[str] | None
    check_files: bool | None
    overlays: AnyFile | None
    seed: int | None


class MergeOptions(TypedDict, total=False):
    link: bool | None


class ImportOptions(TypedDict, total=False):
    slides_root: AnyFile | None
    teacher: str | None
    weights: AnyFile | None
    manifest: AnyFile | None
    exclude_cases: list[str] | None
    coords: AnyFile | None
    patch_px: int | None
    mpp: float | None
    patches_per_slide: int | None
    allow_upsampling: bool | None
    val_fraction: float | None
    check_rows: int | None
    min_cosine: float | None
    dtype: Literal["float16", "float32"] | None
    rows_per_shard: int | None
    pixels: Literal["jpegxl", "jpeg", "none"] | None
    device: str | None
    workers: int | None
    stage_dir: AnyFile | None
    stage_gb: float | None
    retry_failures: bool | None
    seed: int | None


class TrainOptions(TypedDict, total=False):
    recipe: str | None
    student: str | None
    weights: str | None
    teacher: list[str] | None
    teacher_weight: list[float] | None
    train_slides: int | None
    train_patches_per_slide: int | None
    epochs: int | None
    batch_size: int | None
    lr: float | None
    final_lr: float | None
    weight_decay: float | None
    weight_decay_schedule: Literal["constant", "cosine"] | None
    warmup: float | None
    clip: float | None
    early_stop: Literal["off", "consecutive", "total"] | None
    early_stop_window: int | None
    early_stop_patience: int | None
    loss: str | None
    alpha: float | None
    augment: Literal["none", "flips", "flips+jitter"] | None
    use_plain_view: bool | None
    views_per_epoch: Literal["turn", "fresh"] | None
    checkpoint_every: int | None
    keep: Literal["last", "best"] | None
    val_every: int | None
    val_rows: int | None
    device: str | None
    precision: Literal["auto", "float32", "bfloat16"] | None
    micro_batch: int | None
    compile: bool | None
    shard_student: bool | None
    workers: int | None
    deterministic: bool | None
    slides_root: AnyFile | None
    stage_dir: AnyFile | None
    stage_gb: float | None
    log: list[Literal["wandb", "mlflow"]] | None
    seed: int | None


class ExportOptions(TypedDict, total=False):
    format: list[Literal["timm", "onnx", "torch-export"]] | None
    hub_card: bool | None
    report: AnyFile | None
    dataset: list[str] | None


class EmbedOptions(TypedDict, total=False):
    layout: str | None
    dtype: Literal["float16", "float32"] | None
    as_teacher: bool | None
    teacher: str | None
    patch_px: int | None
    mpp: float | None
    stride_px: int | None
    min_tissue: float | None
    max_artefact: float | None
    allow_upsampling: bool | None
    resampling: Literal["lanczos-pillow", "lanczos-torch"] | None
    decode: Literal["full", "half"] | None
    skip_rule: (
        list[
            Literal[
                "border", "dark", "faint", "grey", "specks", "haze", "pen", "edges", "folds", "blank", "blur", "fat"
            ]
        ]
        | None
    )
    use_rule: (
        list[
            Literal[
                "border", "dark", "faint", "grey", "specks", "haze", "pen", "edges", "folds", "blank", "blur", "fat"
            ]
        ]
        | None
    )
    slides_root: AnyFile | None
    check_files: bool | None
    retry_failures: bool | None
    batch_size: int | None
    device: str | None
    precision: Literal["auto", "float32", "bfloat16", "float16"] | None
    workers: int | None
    stage_dir: AnyFile | None
    stage_gb: float | None


class EvaluateOptions(TypedDict, total=False):
    models: list[str] | None
    reference: str | None
    store: AnyFile | None
    teacher: str | None
    store_rows: int | None
    slides_root: AnyFile | None
    patches: AnyFile | None
    draws: int | None
    slides: AnyFile | None
    features: list[str] | None
    label: str | None
    mil_epochs: int | None
    robustness: AnyFile | None
    ri_k: int | None
    margins: bool | None
    robustness_sweep: Literal["own", "pathorob"] | None
    sweep_repeats: int | None
    cost: bool | None
    cost_batch_sizes: list[int] | None
    cost_precisions: list[Literal["float32", "bfloat16", "float16"]] | None
    cost_rounds: int | None
    protocol: Literal["g2l", "plain", "eva", "pathorob", "balanced"] | None
    probe_c: float | None
    knn: int | None
    folds: int | None
    resamples: int | None
    seed: int | None
    images_root: AnyFile | None
    patch_px: int | None
    cache: AnyFile | None
    batch_size: int | None
    precision: Literal["auto", "float32", "bfloat16", "float16"] | None
    device: str | None
    workers: int | None
    log: list[Literal["wandb", "mlflow"]] | None


class VerifyOptions(TypedDict, total=False):
    teacher: str | None
    weights: AnyFile | None
    sample: int | None
    device: str | None
    slides_root: AnyFile | None
    stage_dir: AnyFile | None
    stage_gb: float | None
