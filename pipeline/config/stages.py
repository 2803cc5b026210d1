"""Options of the two stages, export and checks, each defined once: name, type, default, bounds and help.
Flags, TOML files and records are made from these definitions.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import field_validator

from pipeline.base.errors import ConfigError
from pipeline.config.base import Config, OneOf, option
from pipeline.config.groups import TrackingServices, log_option
from pipeline.config.losses import LOSSES
from pipeline.config.model_names import absolute_weights
from pipeline.config.recipes import RecipeName, recipe_option
from pipeline.config.staging import (
    STAGES_STORE,
    StageFolder,
    check_place,
    check_stage_gb,
    stage_dir_option,
    stage_folder,
    stage_gb_option,
)

MOST_VIEWS_AT_ONCE = 64
"""Views of a patch that are made in one pass, and are in memory together. Our choice."""
MOST_ROUNDS = 4096
"""Views of a patch in all. Our choice: more epochs than anybody trains."""


class ExtractConfig(Config):
    """Options of `g2l extract-teacher`, besides the plan."""

    in_buckets: ClassVar[frozenset[str]] = frozenset({"slides_root"})

    recipe: RecipeName = recipe_option()
    teacher: str = option(description="Encoder to embed with; `g2l models` lists them.", decides="effect")
    weights: Path | None = option(
        None, description="Weights from a file (safetensors or a PyTorch state dict) [the hub].", decides="effect"
    )
    batch_size: int | None = option(
        None, ge=1, description="Patches per forward pass [by the device's memory].", decides="effect"
    )
    device: str = option("auto", description="cuda, cuda:1, mps, cpu or auto.", decides="nothing")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto",
        description="Arithmetic of the forward pass; auto: bfloat16 on a GPU, float32 on a CPU.",
        decides="effect",
    )
    dtype: Literal["float16", "float32"] = option(
        "float16", description="Number type of the stored embeddings.", decides="effect"
    )
    rows_per_shard: int = option(
        2048, ge=1, description="Patches per shard, the unit of work and of resuming.", decides="effect"
    )
    pixels: Literal["jpegxl", "jpeg", "none"] = option(
        "jpegxl",
        description="How to store patches: lossless JPEG XL, JPEG (the teacher then sees it too), or not at all.",
        decides="effect",
    )
    workers: int | None = option(
        None, ge=1, description="Threads that read slides and encode pixels [number of cores].", decides="nothing"
    )
    slides_root: Path | None = option(
        None, description="Folder, or s3://BUCKET/..., that the slides are in now [as planned].", decides="nothing"
    )
    stage_dir: Path | None = stage_dir_option()
    stage_gb: float | None = stage_gb_option()
    max_failures: int | None = option(
        None, ge=0, description="Stop when more than this many rows have failed [never].", decides="nothing"
    )
    retry_failures: bool = option(
        False,
        description="Redo shards that have failed rows; reads slides whose files were repaired since the plan.",
        decides="nothing",
        stored=False,
    )
    views: int | None = option(
        None,
        ge=1,
        le=MOST_ROUNDS,
        description="Views of a patch to embed: itself, and seeded changes of it; at most 64 at once [1].",
        decides="effect",
    )
    views_per_epoch: Literal["turn", "fresh"] = option(
        "turn",
        description="turn: all views are made at once, and training shows them in turn; fresh: each is made in a round "
        "of its own, for an epoch of its own, and rounds can be added later.",
        decides="effect",
        added=True,
    )
    views_seed: int | None = option(None, ge=0, description="Seed of the views [0].", decides="effect")
    views_strength: Literal["none", "flips", "mild", "paper", "strong"] | None = option(
        None,
        description="Changes in a view: none (crops only), flips, mild (flips, turns, stain), paper (flips, colours, "
        "blur) or strong (all of them, rescaling and JPEG); each crops if the plan has tiles [mild].",
        decides="effect",
    )
    patch_qc: bool = option(
        False,
        description="Check each patch at its own resolution before it is embedded, and drop it if it is out of focus, "
        "under pen, without tissue, of one colour or there twice; dropped.csv lists them.",
        decides="effect",
        added=True,
    )
    part: str | None = option(
        None,
        description="I/N: do part I of N of the shards, in a store of its own; `g2l merge` makes one of all [all].",
    )
    preflight: bool = option(
        True, description="Check the teacher and its memory use before the run.", decides="nothing"
    )

    _check_slides_root = field_validator("slides_root")(check_place)
    _check_stage_gb = field_validator("stage_gb")(check_stage_gb)

    @property
    def stage_folder(self) -> StageFolder | None:
        """The folder that slides are staged in; `None` if they are read where they are."""
        return stage_folder(self.stage_dir, self.stage_gb)

    @property
    def views_after_rounds(self) -> int:
        """Views that there are to be when all rounds are made; 1 if none are. Raises as `makes_rounds`."""
        return (self.views or 1) if self.makes_rounds else 1

    @property
    def makes_rounds(self) -> bool:
        """Whether views are made in rounds.

        Raises:
            ConfigError: the number of views does not fit.
        """
        fresh = self.views_per_epoch == "fresh"
        if fresh and (self.views or 1) < 2:
            raise ConfigError(
                "--views-per-epoch fresh: say with --views how many views there are to be, the patch itself among them"
            )
        if not fresh and (self.views or 1) > MOST_VIEWS_AT_ONCE:
            raise ConfigError(
                f"--views {self.views}: at most {MOST_VIEWS_AT_ONCE} are made at once; --views-per-epoch fresh makes "
                "more, each in a round of its own"
            )
        return fresh


class MergeConfig(Config):
    """Options of `g2l merge`, besides the parts."""

    link: bool = option(True, description="Use hard links where the file system can, else copies.", decides="nothing")


class TrainConfig(Config):
    """Options of `g2l train-student`, besides the store."""

    panels: ClassVar[dict[str, str]] = {
        "recipe": "Recipe, student and teachers",
        "train_slides": "Rows to train on",
        "epochs": "Optimisation",
        "loss": "Loss and augmentation",
        "checkpoint_every": "Checkpoints and held-out figures",
        "device": "Running",
    }

    recipe: RecipeName = recipe_option()
    student: str = option(description="Encoder to train; `g2l models` lists them.")
    weights: str = option(
        "pretrained",
        description="Initial weights: pretrained, scratch, a file, or a finished run or its student, to train it and "
        "its projector longer.",
        decides="effect",
        in_card=False,
    )
    teacher: list[str] | None = option(
        None,
        description="Teacher of the store to learn from; repeat for several [the store's only teacher].",
        decides="effect",
        in_card=False,
    )
    teacher_weight: list[float] | None = option(
        None,
        description="Weight of a teacher's loss, once per --teacher in the same order; only ratios count [equal].",
        decides="effect",
        in_card=False,
    )
    train_slides: int | None = option(
        None, ge=1, description="Train on this many slides, whole cases first; held-out rows stay the same [all]."
    )
    train_patches_per_slide: int | None = option(
        None, ge=1, description="Train on at most this many patches of a slide [all]."
    )
    epochs: int = option(10, ge=1, description="Passes over the training rows.")
    batch_size: int = option(256, ge=2, description="Rows per step, over all processes.")
    lr: float = option(1e-4, gt=0, description="Peak learning rate of AdamW.")
    final_lr: float = option(
        0.01, ge=0, le=1, description="Share of the peak that the cosine of the learning rate ends at.", added=True
    )
    weight_decay: float = option(0.05, ge=0, description="Weight decay of matrices; vectors have none.")
    weight_decay_schedule: Literal["constant", "cosine"] = option(
        "constant", description="cosine: the weight decay falls with the learning rate, to the same share.", added=True
    )
    warmup: float = option(0.05, ge=0, lt=1, description="Fraction of the steps in which the learning rate rises.")
    clip: float = option(1.0, ge=0, description="Largest norm of the gradient; larger ones are clipped. 0: none is.")
    early_stop: Literal["off", "consecutive", "total"] = option(
        "off",
        description="Stop when the loss of a step has exceeded the mean of the steps before it too often: in "
        "consecutive steps, or in total.",
        added=True,
    )
    early_stop_window: int = option(
        100, ge=1, description="Steps that --early-stop takes the mean of; it begins after as many.", added=True
    )
    early_stop_patience: int = option(
        10, ge=0, description="Steps above the mean that --early-stop lets pass.", added=True
    )
    loss: Annotated[str, OneOf(LOSSES.keys)] = option(
        "log-sum", description="log-sum is the paper's; others for ablation."
    )
    alpha: float = option(4.0, ge=1, description="Exponent of the log-sum loss.")
    augment: Literal["none", "flips", "flips+jitter"] = option(
        "flips",
        description="flips: the eight flips and quarter turns; jitter: mild colour changes. Stores with views get "
        "none unless this option is given.",
    )
    use_plain_view: bool = option(
        True,
        description="Show the patch itself in training, as one of the views of a store that has several.",
        added=True,
    )
    views_per_epoch: Literal["turn", "fresh"] = option(
        "turn",
        description="turn: each row shows the store's views in an order of its own; fresh: an epoch shows one view "
        "throughout that no other epoch shows.",
        added=True,
    )
    checkpoint_every: int = option(
        500, ge=1, description="Steps between checkpoints; every epoch ends with one.", decides="nothing"
    )
    keep: Literal["last", "best"] = option(
        "last", description="Student to export: of the last step, or of the smallest held-out loss.", decides="effect"
    )
    val_every: int = option(1, ge=1, description="Epochs between validations.")
    val_rows: int = option(4096, ge=2, description="Maximum number of held-out rows that are scored.")
    device: str = option("auto", description="cuda, cuda:1, mps, cpu or auto.", decides="nothing")
    precision: Literal["auto", "float32", "bfloat16"] = option(
        "auto", description="Arithmetic of the student's passes; auto: bfloat16 on a GPU, float32 on a CPU."
    )
    micro_batch: int | None = option(
        None,
        ge=1,
        description="Rows in a pass of the student, for less memory; a step is still of the whole batch [all of a "
        "process's].",
        decides="nothing",
        in_card=False,
    )
    compile: bool = option(False, description="Compile the student with torch.compile.", added=True)
    shard_student: bool = option(
        False,
        description="Split the student over the processes (FSDP2), for one that is larger than a card; each writes its "
        "part of a checkpoint. In one process nothing is split.",
        decides="nothing",
        in_card=False,
        added=True,
    )
    workers: int | None = option(
        None, ge=1, description="Threads that decode and, without a GPU, augment [number of cores].", decides="nothing"
    )
    deterministic: bool = option(True, description="Use only reproducible kernels: resuming is then exact to the bit.")
    slides_root: Path | None = option(
        None,
        description="Folder of the slides, for a store without pixels [as planned].",
        decides="nothing",
        in_card=False,
    )
    stage_dir: Path | None = stage_dir_option(STAGES_STORE)
    stage_gb: float | None = stage_gb_option("files")
    log: TrackingServices = log_option("run", "TensorBoard's files, which need no --log")
    seed: int = option(0, ge=0, description="Seed of initial weights, order and augmentation.")

    _stage_gb = field_validator("stage_gb")(check_stage_gb)

    def stage_folder(self) -> StageFolder | None:
        """The folder for what is fetched of a store in a bucket; `None` for a temporary one."""
        return stage_folder(self.stage_dir, self.stage_gb)

    def absolute(self) -> Self:
        """As in `Config`, and weights in a file or folder as well."""
        return super().absolute().model_copy(update={"weights": absolute_weights(self.weights)})

    def for_views(self, num_views: int) -> Self:
        """Resolve the default of `augment`: a store with views gets no augmentation unless the user asks for it.

        Raises:
            ConfigError: nothing is left to show.
        """
        if num_views == 1 and not self.use_plain_view:
            raise ConfigError(
                "--no-use-plain-view: the teacher has embedded no view but the patch itself. Make the store with "
                "--views, or train with --use-plain-view"
            )
        if num_views > 1 and "augment" not in self.model_fields_set:
            return self.model_copy(update={"augment": "none"})
        return self


class ExportConfig(Config):
    """Options of `g2l export`: files to write besides the timm folder, which is always written."""

    format: list[Literal["timm", "onnx", "torch-export"]] = option(
        ["timm"],
        description="Files besides the timm folder: onnx adds model.onnx, torch-export model.pt2; repeat for several.",
    )
    hub_card: bool = option(
        False, description="Give the card the header of the Hugging Face Hub, with the run's held-out figures."
    )
    report: Path | None = option(
        None,
        description="With --hub-card: folder of `g2l evaluate` whose scores of this student go into it [none].",
        in_card=False,
    )
    dataset: list[str] = option(
        [], description="With --hub-card: data set on the hub (OWNER/NAME) that it was trained on; repeat for several."
    )


class VerifyConfig(Config):
    """Options of `g2l verify`."""

    teacher: str | None = option(None, description="Teacher to embed a sample with again [the store's first].")
    weights: Path | None = option(None, description="The teacher's weights [as in the store].")
    sample: int = option(64, ge=0, description="Rows to embed again; 0 for none.")
    device: str = option("auto", description="cuda, cuda:1, mps, cpu or auto.")
    slides_root: Path | None = option(
        None, description="Folder of the slides, for a store without pixels [as planned]."
    )
    stage_dir: Path | None = stage_dir_option(STAGES_STORE)
    stage_gb: float | None = stage_gb_option("files")

    _stage_gb = field_validator("stage_gb")(check_stage_gb)

    def stage_folder(self) -> StageFolder | None:
        """As in `TrainConfig`."""
        return stage_folder(self.stage_dir, self.stage_gb)


class NoOptions(Config):
    """For commands that take only paths."""
