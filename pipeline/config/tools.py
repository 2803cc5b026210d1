"""Options of the commands around the two stages: importing features, embedding slides.

The options of the stages themselves are in `config.stages`, those of evaluating models in `evaluate.options`.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import field_validator

from pipeline.base.units import MAX_MPP, MIN_MPP
from pipeline.config.base import Config, OneOf, option
from pipeline.config.case_lists import absolute_lists, exclude_cases_option
from pipeline.config.feature_tools import layouts
from pipeline.config.groups import Decode, Resampling, Sampling
from pipeline.config.staging import (
    StageFolder,
    check_place,
    check_stage_gb,
    stage_dir_option,
    stage_folder,
    stage_gb_option,
)
from pipeline.config.tissue_rules import RuleName


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
    exclude_cases: list[str] | None = exclude_cases_option(decides="effect")
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
    stage_dir: Path | None = stage_dir_option()
    stage_gb: float | None = stage_gb_option()
    retry_failures: bool = option(
        False,
        description="Redo shards that have failed rows; reads slides whose files were repaired since the plan.",
        decides="nothing",
        stored=False,
    )
    seed: int = option(0, ge=0, description="Seed of the sample.")

    _check_stage_gb = field_validator("stage_gb")(check_stage_gb)

    @property
    def stage_folder(self) -> StageFolder | None:
        """The folder that slides are staged in; `None` if they are read where they are."""
        return stage_folder(self.stage_dir, self.stage_gb)

    @property
    def sampling(self) -> Sampling:
        """How many patches of a slide are taken, and which are held out."""
        return Sampling(self.patches_per_slide, self.seed, self.val_fraction)

    def absolute(self) -> Self:
        """As in `Config`; the files of `exclude_cases` as well, but not the names of lists that are here."""
        return super().absolute().model_copy(update={"exclude_cases": absolute_lists(self.exclude_cases)})


class EmbedConfig(Config):
    """Options of `g2l embed`, besides the model and the slides."""

    in_buckets: ClassVar[frozenset[str]] = frozenset({"slides_root"})
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
    max_artefact: float | None = option(
        None,
        ge=0,
        le=1,
        description="Most of a patch's area that rules for artefacts may have dropped, as for g2l plan [0.1].",
        decides="effect",
    )
    allow_upsampling: bool = option(False, description="Use slides more than 5 % coarser than --mpp.", decides="value")
    resampling: Resampling | None = option(
        None,
        description="Who reduces patches, as for g2l plan [a student: as in its training; others: torch].",
        decides="effect",
    )
    decode: Decode | None = option(
        None,
        description="half: decode JPEG tiles at half their size, as for g2l plan [a student: as in its training; "
        "others: full].",
        decides="effect",
    )
    skip_rule: list[RuleName] | None = option(
        None,
        description="A rule of the tissue finder that is not to run, as for g2l plan; repeatable [none].",
        decides="effect",
    )
    use_rule: list[RuleName] | None = option(
        None, description="A rule to run that is off by default, as for g2l plan; repeatable [none].", decides="effect"
    )
    slides_root: Path | None = option(
        None,
        description="Folder, or s3://BUCKET/..., that a manifest's relative paths start from [the manifest's folder].",
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
    stage_dir: Path | None = stage_dir_option()
    stage_gb: float | None = stage_gb_option()

    _check_slides_root = field_validator("slides_root")(check_place)
    _check_stage_gb = field_validator("stage_gb")(check_stage_gb)

    @property
    def stage_folder(self) -> StageFolder | None:
        """The folder that slides are staged in; `None` if they are read where they are."""
        return stage_folder(self.stage_dir, self.stage_gb)


class DoctorConfig(Config):
    """Options of `g2l doctor`."""

    slides_root: Path | None = option(
        None,
        description="Folder, or s3://BUCKET/..., that a manifest's relative paths start from, or that a store's slides "
        "are in now [of the table plan, else the manifest's folder, or as planned].",
        decides="nothing",
    )
    place: Path | None = option(
        None, description="Folder that outputs will go to [the input's, or this one].", decides="nothing"
    )
    teacher: str | None = option(
        None, description="Encoder to time here with random weights, for the estimate [none].", decides="nothing"
    )


class ModelsConfig(Config):
    """Options of `g2l models`."""

    all: bool = option(
        False, description="List also encoders that are known and not in the table, and why.", decides="nothing"
    )
    check: bool = option(
        False, description="Embed the built-in test patch, and compare with --values.", decides="nothing"
    )
    values: Path | None = option(
        None,
        description="Values of the test patch: JSON of --record, or .npy of another tool [none].",
        decides="nothing",
    )
    patch_out: Path | None = option(
        None, description="Write the test patch as PNG, to embed it with another tool [none].", decides="nothing"
    )
    weights: Path | None = option(
        None, description="The encoder's weights [published, from the hub or its cache].", decides="nothing"
    )
    device: str = option("auto", description="cuda, cuda:1, mps, cpu or auto.", decides="nothing")
    precision: Literal["float32", "bfloat16", "float16"] = option(
        "float32", description="Arithmetic of the check.", decides="nothing"
    )


class PublishConfig(Config):
    """Options of `g2l publish`."""

    repo: str = option(description="Repository on the hub, OWNER/NAME; made if there is none.", decides="nothing")
    public: bool = option(False, description="Show it to everybody; else the repository is private.", decides="nothing")
    i_may_share: bool = option(
        False, description="You have read the terms that hold for it, and may share it.", decides="nothing"
    )
    slides_terms: str = option(
        "", description="Of a store: licence of its slides, such as CC-BY-4.0, or terms in words.", decides="nothing"
    )
    yes: bool = option(False, description="Send it; without this, only what would be sent is said.", decides="nothing")
