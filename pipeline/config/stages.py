"""Every option of the two stages and of planning, export and checks, once: name, type, default, bounds and help. Flags,
TOML files and records are made from these.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pipeline.base.units import MAX_MPP, MIN_MPP
from pipeline.config.base import Config, OneOf, option
from pipeline.config.losses import LOSSES
from pipeline.config.model_names import absolute_weights


class PlanConfig(Config):
    """What `g2l plan` decides by. Where the paper is silent the defaults are our choice."""

    slides_root: Path | None = option(
        None, description="Folder that relative paths hang below [the manifest's folder].", decides="nothing"
    )
    patches_per_slide: int = option(1000, ge=1, description="At most this many patches are sampled from a slide.")
    max_slides: int | None = option(None, ge=1, description="Take a random subset of this many slides [all].")
    patch_px: int = option(224, ge=16, le=4096, description="Side of a patch, pixels.")
    mpp: float = option(0.5, ge=MIN_MPP, le=MAX_MPP, description="Resolution of a patch, um a pixel.")
    stride_px: int | None = option(None, ge=1, description="Grid spacing in patch pixels [patch-px: no overlap].")
    min_tissue: float = option(0.5, ge=0, le=1, description="A patch needs this fraction of its area on tissue.")
    allow_upsampling: bool = option(False, description="Take slides coarser than --mpp by more than 5 %.")
    val_fraction: float = option(
        0.1, ge=0, lt=1, description="Held-out fraction of the cases, by a hash of the case id."
    )
    val_strip: float | None = option(
        None,
        gt=0,
        lt=1,
        description="Hold out a strip of this size across every slide instead of whole cases: for one slide.",
    )
    check_files: bool = option(
        True, description="Compare each slide with the manifest's sha256, where it gives one.", decides="effect"
    )
    workers: int | None = option(
        None, ge=1, description="Threads that look at slides [number of cores].", decides="nothing"
    )
    overlays: Path | None = option(None, description="Folder for a picture of every slide [none].", decides="nothing")
    seed: int = option(0, ge=0, description="Seed of the sample.")

    def without_free(self) -> Self:
        """This configuration without what a plan must not depend on."""
        return self.model_copy(update={"workers": None, "overlays": None})


class ExtractConfig(Config):
    """What `g2l extract-teacher` decides by, beside the plan."""

    teacher: str = option(description="Encoder that makes the embeddings; `g2l models` lists them.", decides="effect")
    weights: Path | None = option(
        None, description="Weights from a file (safetensors or a PyTorch state dict) [the hub].", decides="effect"
    )
    batch_size: int | None = option(
        None, ge=1, description="Patches a forward pass [by the device's memory].", decides="effect"
    )
    device: str = option("auto", description="cuda, cuda:1, mps, cpu or auto.", decides="nothing")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto",
        description="Arithmetic of the forward pass; auto: bfloat16 on a GPU, float32 on a CPU.",
        decides="effect",
    )
    dtype: Literal["float16", "float32"] = option(
        "float16", description="Type that embeddings are stored in.", decides="effect"
    )
    rows_per_shard: int = option(
        2048, ge=1, description="Patches a shard: the unit of work and of resuming.", decides="effect"
    )
    pixels: Literal["jpegxl", "jpeg", "none"] = option(
        "jpegxl",
        description="How patches are kept: lossless JPEG XL, JPEG (the teacher then sees it too), or not.",
        decides="effect",
    )
    workers: int | None = option(
        None, ge=1, description="Threads that read slides and encode pixels [number of cores].", decides="nothing"
    )
    slides_root: Path | None = option(None, description="Where the slides are now [as planned].", decides="nothing")
    max_failures: int | None = option(
        None, ge=0, description="Stop when more rows than this have failed [never].", decides="nothing"
    )
    retry_failures: bool = option(
        False, description="Do the shards that hold failed rows again.", decides="nothing", stored=False
    )
    views: int | None = option(
        None,
        ge=1,
        le=64,
        description="Views of a patch that are embedded: itself, and seeded flips, turns and mild stain changes [1].",
        decides="effect",
    )
    views_seed: int | None = option(None, ge=0, description="Seed of the views [0].", decides="effect")
    preflight: bool = option(
        True, description="Look at the teacher and the memory that it takes before the run.", decides="nothing"
    )


class TrainConfig(Config):
    """What `g2l train-student` decides by, beside the store."""

    panels: ClassVar[dict[str, str]] = {
        "student": "Student and teachers",
        "epochs": "Optimisation",
        "loss": "Loss and augmentation",
        "checkpoint_every": "Checkpoints and held-out figures",
        "device": "Running",
    }

    student: str = option(description="Encoder that is trained; `g2l models` lists them.")
    weights: str = option(
        "pretrained",
        description="Where it starts: pretrained, scratch, a file, or a finished run or its student, to train that "
        "and its projector longer.",
        decides="effect",
        in_card=False,
    )
    teacher: list[str] | None = option(
        None,
        description="Teacher of the store to learn from; repeat for several [the store's only one].",
        decides="effect",
        in_card=False,
    )
    teacher_weight: list[float] | None = option(
        None,
        description="Weight of a teacher's loss, once for each --teacher in its order; only ratios count [equal].",
        decides="effect",
        in_card=False,
    )
    epochs: int = option(10, ge=1, description="Passes over the training rows.")
    batch_size: int = option(256, ge=2, description="Rows a step, over all processes.")
    lr: float = option(1e-4, gt=0, description="Peak learning rate of AdamW.")
    weight_decay: float = option(0.05, ge=0, description="Weight decay of matrices; vectors have none.")
    warmup: float = option(0.05, ge=0, lt=1, description="Fraction of all steps in which the learning rate rises.")
    clip: float = option(1.0, gt=0, description="Largest norm of the gradient.")
    loss: Annotated[str, OneOf(LOSSES.keys)] = option(
        "log-sum", description="log-sum is the paper's; others for ablation."
    )
    alpha: float = option(4.0, ge=1, description="Exponent of the log-sum loss.")
    augment: Literal["none", "flips", "flips+jitter"] = option(
        "flips",
        description="flips: the eight flips and quarter turns; jitter: mild colour changes. Without this option, a "
        "store with views has none beside them.",
    )
    checkpoint_every: int = option(
        500, ge=1, description="Steps between checkpoints; each epoch ends with one.", decides="nothing"
    )
    keep: Literal["last", "best"] = option(
        "last",
        description="Which student is exported: of the last step, or of the smallest held-out loss.",
        decides="effect",
    )
    val_every: int = option(1, ge=1, description="Epochs between validations.")
    val_rows: int = option(4096, ge=2, description="At most this many held-out rows are scored.")
    device: str = option("auto", description="cuda, cuda:1, mps, cpu or auto.", decides="nothing")
    precision: Literal["auto", "float32", "bfloat16"] = option(
        "auto",
        description="Arithmetic of the student's passes; auto: bfloat16 on a GPU, float32 on a CPU.",
    )
    workers: int | None = option(
        None, ge=1, description="Threads that decode and augment [number of cores].", decides="nothing"
    )
    deterministic: bool = option(True, description="Only reproducible kernels, so that resuming is bit for bit.")
    slides_root: Path | None = option(
        None,
        description="Where the slides are, for a store without pixels [as planned].",
        decides="nothing",
        in_card=False,
    )
    seed: int = option(0, ge=0, description="Seed of initial weights, order and augmentation.")

    def absolute(self) -> Self:
        """As for all, weights in a file or folder as well."""
        return super().absolute().model_copy(update={"weights": absolute_weights(self.weights)})


class ExportConfig(Config):
    """What `g2l export` writes beside the timm folder, which is always there."""

    format: list[Literal["timm", "onnx", "torch-export"]] = option(
        ["timm"],
        description="Files beside the timm folder: onnx adds model.onnx, torch-export model.pt2; repeat for several.",
    )


class VerifyConfig(Config):
    """How `g2l verify` checks a store."""

    teacher: str | None = option(None, description="Teacher whose sample is embedded again [the store's first].")
    weights: Path | None = option(None, description="The teacher's weights [as in the store].")
    sample: int = option(64, ge=0, description="Rows to embed again; 0 for none.")
    device: str = option("auto", description="cuda, cuda:1, mps, cpu or auto.")
    slides_root: Path | None = option(
        None, description="Where the slides are, for a store without pixels [as planned]."
    )


class NoOptions(Config):
    """For commands with nothing but paths."""
