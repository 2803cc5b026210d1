"""Every option of every command, once: name, type, default, bounds and help. Flags, TOML files and records are made
from these.

A configuration is frozen and is dumped with every output; a record can be fed back with `--config`. In a TOML file each
command has a table of its own, so that one file can hold a whole project:

    [plan]
    patches_per_slide = 500
    [train-student]
    epochs = 20
"""

import re
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.base import outside
from pipeline.base.errors import ConfigError, did_you_mean
from pipeline.base.outside import reading
from pipeline.base.units import MAX_MPP, MIN_MPP
from pipeline.config.model_names import absolute_weights
from pipeline.disk.files import sha256_json

COMMANDS = (
    "make-manifest",
    "plan",
    "extract-teacher",
    "import-features",
    "train-student",
    "export",
    "embed",
    "inspect",
    "verify",
    "evaluate",
    "models",
    "demo",
)
"""Names that a table in a TOML file may have."""


class Config(BaseModel):
    """Base of all configurations: frozen, checked, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
    panels: ClassVar[dict[str, str]] = {}
    """Headings of the help by the field that each begins with, in the order of the fields; none for a short list."""

    @classmethod
    def build(cls, values: dict[str, Any]) -> Self:
        """A configuration from plain values.

        Raises:
            ConfigError: a value is missing, unknown, of the wrong type or out of bounds; all of them are listed.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            lines = []
            for problem in error.errors():
                name = ".".join(str(part) for part in problem["loc"])
                given = "" if problem["type"] == "missing" else f" (got {problem['input']!r})"
                meant = ""
                if problem["type"] == "extra_forbidden":
                    meant = did_you_mean(name, cls.model_fields)
                elif problem["type"] == "literal_error":
                    meant = did_you_mean(str(problem["input"]), re.findall(r"'([^']*)'", problem["ctx"]["expected"]))
                lines.append(f"  {name}: {problem['msg']}{given}{meant}")
            raise ConfigError("these options are wrong:\n" + "\n".join(lines)) from None

    def record(self) -> dict[str, Any]:
        """All values as plain JSON or TOML types; options that are off (`None`) are left out."""
        return self.model_dump(mode="json", exclude_none=True)

    def absolute(self) -> Self:
        """The same with absolute paths, as they are from the present working folder: fit for a record, which is read
        from other folders.
        """
        paths = {name: value.absolute() for name, value in self if isinstance(value, Path)}
        return self.model_copy(update=paths)

    def hash(self) -> str:
        """Hex SHA-256 of the whole configuration."""
        return sha256_json(self.record())


def to_toml(tables: dict[str, dict[str, Any]]) -> str:
    """Records as a TOML text, one table a command, that `--config` reads back.

    Raises:
        ConfigError: a path in it is not UTF-8, which TOML cannot hold.
    """
    for table in tables.values():
        for name, value in table.items():
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, str) and not is_utf8(item):
                    raise ConfigError(f"{name}: {item!a} is not UTF-8, and cannot stand in the record of the "
                                      "options. Rename it, or lead to it by a link")  # fmt: skip
    return str(tomli_w.dumps(tables))


def is_utf8(text: str) -> bool:
    """Whether a path, as Python decodes it, is UTF-8 on disk."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def read_toml(path: Path, command: str) -> dict[str, Any]:
    """The table of `command` in a TOML file; empty when the file has none.

    Raises:
        ConfigError: the file is missing or no TOML, or it has options outside the tables of commands, or a table of
            another name.
    """
    with reading(f"--config {path}", "not a TOML file", ConfigError):
        try:
            tables = outside.read_toml(path)
        except OSError as error:
            raise ConfigError(f"--config {path}: {error.strerror}") from None
    loose = [name for name, value in tables.items() if not isinstance(value, dict)]
    if loose:
        raise ConfigError(
            f"--config {path}: {', '.join(loose)} must stand in the table of a command, such as [{command}]"
        )
    unknown = sorted(tables.keys() - set(COMMANDS))
    if unknown:
        raise ConfigError(f"--config {path}: [{unknown[0]}] is no command"
                          f"{did_you_mean(unknown[0], COMMANDS)}; tables are {', '.join(COMMANDS)}")  # fmt: skip
    return dict(tables.get(command, {}))


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between two records, a line each: `name: old -> new`; nested records by dotted name."""
    lines: list[str] = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += [f"{name}.{line}" for line in differences(before, after)]
        elif before != after:
            lines.append(f"{name}: {before!r} -> {after!r}")
    return lines


class PlanConfig(Config):
    """What `g2l plan` decides by. Where the paper is silent the defaults are our choice."""

    slides_root: Path | None = Field(None, description="Folder that relative paths hang below [the manifest's folder].")
    patches_per_slide: int = Field(1000, ge=1, description="At most this many patches are sampled from a slide.")
    max_slides: int | None = Field(None, ge=1, description="Take a random subset of this many slides [all].")
    patch_px: int = Field(224, ge=16, le=4096, description="Side of a patch, pixels.")
    mpp: float = Field(0.5, ge=MIN_MPP, le=MAX_MPP, description="Resolution of a patch, um a pixel.")
    stride_px: int | None = Field(None, ge=1, description="Grid spacing in patch pixels [patch-px: no overlap].")
    min_tissue: float = Field(0.5, ge=0, le=1, description="A patch needs this fraction of its area on tissue.")
    allow_upsampling: bool = Field(False, description="Take slides coarser than --mpp by more than 5 %.")
    val_fraction: float = Field(
        0.1, ge=0, lt=1, description="Held-out fraction of the cases, by a hash of the case id."
    )
    val_strip: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Hold out a strip of this size across every slide instead of whole cases: for one slide.",
    )
    check_files: bool = Field(True, description="Compare each slide with the manifest's sha256, where it gives one.")
    workers: int | None = Field(None, ge=1, description="Threads that look at slides [number of cores].")
    overlays: Path | None = Field(None, description="Folder for a picture of every slide [none].")
    seed: int = Field(0, ge=0, description="Seed of the sample.")

    def deciding(self) -> dict[str, Any]:
        """The options that decide what the plan is."""
        return {name: value for name, value in self.record().items() if name not in PLAN_FREE}

    def without_free(self) -> Self:
        """This configuration without what a plan must not depend on."""
        return self.model_copy(update={"workers": None, "overlays": None})


PLAN_FREE = frozenset({"slides_root", "check_files", "workers", "overlays"})
"""Options of a plan that decide nothing: where slides are, how they are checked, how the work is done."""


class ExtractConfig(Config):
    """What `g2l extract-teacher` decides by, beside the plan."""

    teacher: str = Field(description="Encoder that makes the embeddings; `g2l models` lists them.")
    weights: Path | None = Field(
        None, description="Weights from a file (safetensors or a PyTorch state dict) [the hub]."
    )
    batch_size: int | None = Field(None, ge=1, description="Patches a forward pass [by the device's memory].")
    device: str = Field("auto", description="cuda, cuda:1, mps, cpu or auto.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Arithmetic of the forward pass; auto: bfloat16 on a GPU, float32 on a CPU."
    )
    dtype: Literal["float16", "float32"] = Field("float16", description="Type that embeddings are stored in.")
    rows_per_shard: int = Field(2048, ge=1, description="Patches a shard: the unit of work and of resuming.")
    pixels: Literal["jpegxl", "jpeg", "none"] = Field(
        "jpegxl",
        description="How patches are kept: lossless JPEG XL, JPEG (the teacher then sees it too), or not.",
    )
    workers: int | None = Field(None, ge=1, description="Threads that read slides and encode pixels [number of cores].")
    slides_root: Path | None = Field(None, description="Where the slides are now [as planned].")
    max_failures: int | None = Field(None, ge=0, description="Stop when more rows than this have failed [never].")
    retry_failures: bool = Field(False, description="Do the shards that hold failed rows again.")
    views: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Views of a patch that are embedded: itself, and seeded flips, turns and mild stain changes [1].",
    )
    views_seed: int | None = Field(None, ge=0, description="Seed of the views [0].")
    preflight: bool = Field(True, description="Look at the teacher and the memory that it takes before the run.")


class TrainConfig(Config):
    """What `g2l train-student` decides by, beside the store."""

    panels: ClassVar[dict[str, str]] = {
        "student": "Student and teachers",
        "epochs": "Optimisation",
        "loss": "Loss and augmentation",
        "checkpoint_every": "Checkpoints and held-out figures",
        "device": "Running",
    }

    student: str = Field(description="Encoder that is trained; `g2l models` lists them.")
    weights: str = Field(
        "pretrained",
        description="Where it starts: pretrained, scratch, a file, or a finished run or its student, to train that "
        "and its projector longer.",
    )
    teacher: list[str] | None = Field(
        None, description="Teacher of the store to learn from; repeat for several [the store's only one]."
    )
    teacher_weight: list[float] | None = Field(
        None, description="Weight of a teacher's loss, once for each --teacher in its order; only ratios count [equal]."
    )
    epochs: int = Field(10, ge=1, description="Passes over the training rows.")
    batch_size: int = Field(256, ge=2, description="Rows a step, over all processes.")
    lr: float = Field(1e-4, gt=0, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(0.05, ge=0, description="Weight decay of matrices; vectors have none.")
    warmup: float = Field(0.05, ge=0, lt=1, description="Fraction of all steps in which the learning rate rises.")
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    loss: Literal["log-sum", "mse", "cosine"] = Field(
        "log-sum", description="log-sum is the paper's; others for ablation."
    )
    alpha: float = Field(4.0, ge=1, description="Exponent of the log-sum loss.")
    augment: Literal["none", "flips", "flips+jitter"] = Field(
        "flips",
        description="flips: the eight flips and quarter turns; jitter: mild colour changes. Without this option, a "
        "store with views has none beside them.",
    )
    checkpoint_every: int = Field(500, ge=1, description="Steps between checkpoints; each epoch ends with one.")
    keep: Literal["last", "best"] = Field(
        "last", description="Which student is exported: of the last step, or of the smallest held-out loss."
    )
    val_every: int = Field(1, ge=1, description="Epochs between validations.")
    val_rows: int = Field(4096, ge=2, description="At most this many held-out rows are scored.")
    device: str = Field("auto", description="cuda, cuda:1, mps, cpu or auto.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Arithmetic of the student's passes; auto: bfloat16 on a GPU, float32 on a CPU.",
    )
    workers: int | None = Field(None, ge=1, description="Threads that decode and augment [number of cores].")
    deterministic: bool = Field(True, description="Only reproducible kernels, so that resuming is bit for bit.")
    slides_root: Path | None = Field(None, description="Where the slides are, for a store without pixels [as planned].")
    seed: int = Field(0, ge=0, description="Seed of initial weights, order and augmentation.")

    def absolute(self) -> Self:
        """As for all, weights in a file or folder as well."""
        return super().absolute().model_copy(update={"weights": absolute_weights(self.weights)})


class ExportConfig(Config):
    """What `g2l export` writes beside the timm folder, which is always there."""

    format: list[Literal["timm", "onnx", "torch-export"]] = Field(
        ["timm"],
        description="Files beside the timm folder: onnx adds model.onnx, torch-export model.pt2; repeat for several.",
    )


class VerifyConfig(Config):
    """How `g2l verify` checks a store."""

    teacher: str | None = Field(None, description="Teacher whose sample is embedded again [the store's first].")
    weights: Path | None = Field(None, description="The teacher's weights [as in the store].")
    sample: int = Field(64, ge=0, description="Rows to embed again; 0 for none.")
    device: str = Field("auto", description="cuda, cuda:1, mps, cpu or auto.")
    slides_root: Path | None = Field(None, description="Where the slides are, for a store without pixels [as planned].")


class NoOptions(Config):
    """For commands with nothing but paths."""


IDENTITY_FREE = frozenset(
    {"workers", "device", "slides_root", "max_failures", "retry_failures", "weights", "checkpoint_every", "keep"}
)
"""Options that may change when an output is continued: they do not change a byte of it. (`weights` counts by their
hash.)
"""
