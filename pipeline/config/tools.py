"""Options of the commands around the two stages: importing features, embedding slides, evaluating models.

The options of the stages themselves are in `config.stages`.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pipeline.base.units import MAX_MPP, MIN_MPP
from pipeline.config.base import Config, OneOf, option
from pipeline.config.feature_tools import layouts
from pipeline.config.groups import Sampling
from pipeline.config.model_names import absolute_folder, absolute_model


class ImportConfig(Config):
    """Options of `g2l import-features`."""

    panels: ClassVar[dict[str, str]] = {
        "slides_root": "Features and slides",
        "patch_px": "Patches",
        "val_fraction": "Held-out cases",
        "check_rows": "Proof that the features are the teacher's",
        "dtype": "Store",
        "device": "Running",
    }

    slides_root: Path = option(
        description="Folder of the slides; relative paths in --manifest start from it.", decides="effect"
    )
    teacher: str = option(description="Encoder that made the features; `g2l models` lists them.", decides="effect")
    weights: Path | None = option(
        None,
        description="The teacher's weights, to embed a sample again [from the hub's cache, if they are there].",
        decides="effect",
    )
    manifest: Path | None = option(
        None,
        description="CSV of slide_id, path, case_id, center, mpp, split [all slides below --slides-root].",
        decides="effect",
    )
    coords: Path | None = option(
        None, description="Folder of coordinate files, if they lie apart from the features.", decides="effect"
    )
    patch_px: int | None = option(
        None,
        ge=16,
        le=4096,
        description="Side of the encoder's input, pixels [the teacher's, else from the files].",
        decides="effect",
    )
    mpp: float | None = option(
        None,
        ge=MIN_MPP,
        le=MAX_MPP,
        description="Resolution of the encoder's input, um per pixel, for files that lack it or give it in whole "
        "pixels only [from the files].",
    )
    patches_per_slide: int | None = option(None, ge=1, description="Use a random sample of each slide's patches [all].")
    allow_upsampling: bool = option(False, description="Use slides more than 5 % coarser than their patches.")
    val_fraction: float = option(
        0.1, ge=0, lt=1, description="Held-out fraction of the cases, by a hash of the case id."
    )
    check_rows: int = option(4, ge=0, description="Patches of each slide to embed again; 0 for none.", decides="effect")
    min_cosine: float = option(
        0.9,
        ge=-1,
        le=1,
        description="A slide is refused if the median cosine of its patches' embeddings with the files' features, both "
        "less the features' mean, is below this.",
    )
    dtype: Literal["float16", "float32"] = option(
        "float16", description="Number type of the stored embeddings.", decides="effect"
    )
    rows_per_shard: int = option(
        2048, ge=1, description="Patches per shard, the unit of work and of resuming.", decides="effect"
    )
    pixels: Literal["jpegxl", "jpeg", "none"] = option(
        "jpegxl",
        description="How to store patches: lossless JPEG XL, JPEG (not quite what the teacher saw), or not at all.",
        decides="effect",
    )
    device: str = option(
        "auto", description="Device to embed the sample on: cuda, cuda:1, mps, cpu or auto.", decides="nothing"
    )
    workers: int | None = option(
        None, ge=1, description="Threads that read slides and encode pixels [number of cores].", decides="nothing"
    )
    retry_failures: bool = option(
        False, description="Redo shards that have failed rows.", decides="nothing", stored=False
    )
    seed: int = option(0, ge=0, description="Seed of the sample.")

    @property
    def sampling(self) -> Sampling:
        """How many patches of a slide are taken, and which are held out."""
        return Sampling(self.patches_per_slide, self.seed, self.val_fraction)


class EmbedConfig(Config):
    """Options of `g2l embed`, besides the model and the slides."""

    panels: ClassVar[dict[str, str]] = {
        "layout": "Files",
        "as_teacher": "A student in its teacher's place",
        "patch_px": "Patches",
        "slides_root": "Slides",
        "batch_size": "Running",
    }

    layout: Annotated[str, OneOf(layouts)] = option(
        description=f"Whose file layout to write: {', '.join(f'{name} ({tool})' for name, tool in layouts().items())}.",
        decides="value",
    )
    dtype: Literal["float16", "float32"] | None = option(
        None,
        description="Number type of the stored embeddings [float32, or the only one that the layout has].",
        decides="effect",
    )
    as_teacher: bool = option(
        False,
        description="Map a student's embeddings into its teacher's space, for heads made for the teacher.",
        decides="value",
    )
    teacher: str | None = option(
        None,
        description="With --as-teacher: the teacher whose space to use, for a student of several teachers.",
        decides="value",
    )
    patch_px: int | None = option(
        None,
        ge=16,
        le=4096,
        description="Side of a patch, pixels, for encoders that accept any size [the model's, else 224].",
        decides="effect",
    )
    mpp: float | None = option(
        None, ge=MIN_MPP, le=MAX_MPP, description="Resolution of a patch, um per pixel [the model's].", decides="effect"
    )
    stride_px: int | None = option(
        None, ge=1, description="Grid spacing in patch pixels [patch-px: no overlap].", decides="effect"
    )
    min_tissue: float = option(
        0.5, ge=0, le=1, description="Minimum share of a patch's area that must be tissue.", decides="value"
    )
    allow_upsampling: bool = option(False, description="Use slides more than 5 % coarser than --mpp.", decides="value")
    slides_root: Path | None = option(
        None,
        description="Folder that a manifest's relative paths start from [the manifest's folder].",
        decides="effect",
    )
    check_files: bool = option(
        True, description="Compare each slide with the manifest's sha256, if it gives one.", decides="effect"
    )
    retry_failures: bool = option(
        False, description="Embed slides again if patches of them failed.", decides="nothing", stored=False
    )
    batch_size: int | None = option(
        None, ge=1, description="Patches per forward pass [by the device's memory].", decides="nothing"
    )
    device: str = option("auto", description="cuda, cuda:1, mps, cpu or auto.", decides="nothing")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto",
        description="Arithmetic of the forward pass; auto: bfloat16 on a GPU, float32 on a CPU.",
        decides="effect",
    )
    workers: int | None = option(
        None, ge=1, description="Threads that read slides [number of cores].", decides="nothing"
    )


class EvaluateConfig(Config):
    """Options of `g2l evaluate`."""

    panels: ClassVar[dict[str, str]] = {
        "models": "What is compared",
        "store": "Fidelity to the teacher",
        "patches": "Patch benchmark",
        "slides": "Slide benchmark",
        "robustness": "Robustness",
        "cost": "Cost",
        "protocol": "Scores of the benchmarks",
        "images_root": "Running",
    }

    models: list[str] = option(
        min_length=1,
        description="[LABEL=]ENCODER[@WEIGHTS]; repeat for several. ENCODER: of `g2l models`, a timm name, a student "
        "folder, or a run (RUN, RUN@before, RUN@teacher). WEIGHTS: pretrained (the default), scratch, or a file.",
    )
    reference: str | None = option(
        None, description="Label of the model to compare with [the teacher of the store or run, else the first]."
    )
    store: Path | None = option(None, description="Store whose held-out rows are scored.")
    teacher: str | None = option(None, description="Teacher to compare with, in a store of several [the first].")
    store_rows: int = option(
        4096, ge=2, description="Maximum number of held-out rows scored, and of rows that linear maps are fitted on."
    )
    slides_root: Path | None = option(
        None, description="Folder of the slides, for a store without pixels [as planned]."
    )
    patches: Path | None = option(
        None, description="CSV of path, label, optionally group, center, split; or an image folder."
    )
    knn: int = option(20, ge=1, description="Neighbours of the kNN probe.")
    draws: int = option(100, ge=1, description="Random draws of few-shot examples.")
    slides: Path | None = option(None, description="CSV of slide_id or case_id (or both) and labels; needs --features.")
    features: list[str] | None = option(
        None, description="[LABEL=]DIR with a feature file per slide; repeat for several models."
    )
    label: str = option("label", description="Column of --slides to predict.")
    mil_epochs: int | None = option(
        None, ge=1, description="Epochs of attention MIL [30, or as many as make 1,000 steps]."
    )
    robustness: Path | None = option(
        None,
        description="CSV with PathoROB's columns (slide_id, patch_id, biological_class, medical_center, subset) and "
        "path; or slide_id, patch_id, scanner, staining, path for the same tissue rescanned or restained.",
    )
    ri_k: int | None = option(
        None,
        ge=1,
        description="Number of neighbours of the robustness index [that at which kNN has the best balanced accuracy].",
    )
    margins: bool = option(True, description="Croma's margins besides the index; minutes per model for 20,000 patches.")
    cost: bool = option(True, description="Measure parameters, FLOPs, time and memory.")
    cost_batch_sizes: list[int] = option([1, 32], description="Batch sizes to time; repeat for several.")
    cost_precisions: list[Literal["float32", "bfloat16", "float16"]] | None = option(
        None, description="Precisions to time; repeat for several [--precision]."
    )
    cost_rounds: int = option(7, ge=1, description="Timing rounds, each with every model once; medians are shown.")
    protocol: Literal["balanced", "plain"] = option(
        "balanced",
        description="Linear probe and kNN. balanced: classes count equally, C is chosen by the reported score; plain: "
        "they count by frequency, C is chosen by log loss, as in earlier reports.",
    )
    probe_c: float | None = option(
        None, gt=0, description="Linear probe: fixed inverse strength C [chosen within the training part]."
    )
    folds: int = option(5, ge=2, description="Folds if there is no split; a group is never on both sides.")
    resamples: int = option(1000, ge=100, description="Bootstrap resamples of an interval.")
    seed: int = option(0, ge=0, description="Seed of folds, draws, resamples and training.")
    images_root: Path | None = option(None, description="Folder that image paths start from [the CSV's folder].")
    patch_px: int | None = option(
        None, ge=16, le=4096, description="Input size of encoders that accept any [the store's or run's, else 224]."
    )
    cache: Path | None = option(
        None, description="Folder that keeps the embeddings [OUT/embeddings].", decides="nothing"
    )
    batch_size: int | None = option(
        None, ge=1, description="Patches per forward pass [by the device's memory].", decides="nothing"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", description="Arithmetic of the forward pass; auto: bfloat16 on a GPU, float32 on a CPU."
    )
    device: str = option("auto", description="cuda, cuda:1, mps, cpu or auto.", decides="nothing")
    workers: int | None = option(
        None, ge=1, description="Threads that read images [number of cores].", decides="nothing"
    )

    def absolute(self) -> Self:
        """As in `Config`, and files and folders among models and features as well."""
        lists = {"models": [absolute_model(text) for text in self.models]}
        if self.features is not None:
            lists["features"] = [absolute_folder(text) for text in self.features]
        return super().absolute().model_copy(update=lists)
