"""Options that are the same wherever they are used: the grid of patches, the sample that is drawn from it, `--log`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from pipeline.config.base import option
from pipeline.config.class_rules import ClassRules
from pipeline.config.tissue_rules import EARLIER_RULES, RuleName

Tiling = Literal["level0"]
"""How a grid is laid other than at one resolution: at level 0, whatever that is, as the paper's authors do."""

Resampling = Literal["lanczos-pillow", "lanczos-torch"]
"""Who reduces a patch: one filter, Lanczos with support 3 that grows with the reduction, and two programs."""

Decode = Literal["full", "half"]
"""At which size the JPEG tiles under a patch are decoded."""

SampleMethod = Literal["uniform", "spread", "class", "cluster"]
"""How the patches of a slide are drawn (docs/sampling.md, docs/annotations.md, docs/cluster-sampling.md)."""
ClassOverlap = Literal["smaller", "most"]
"""Which class a patch counts for where classes overlap: see `ClassRules`."""

AnnotationOrigin = Literal["auto", "slide", "scan"]
"""Where the coordinates of annotations count from: as the program does that wrote the file; the corner of the slide;
that of its scanned area, of which formats such as MIRAX and SCN say where it lies on the slide.
"""

TrackingService = Literal["wandb", "mlflow"]
"""Where runs and reports can be logged (`report.logs`)."""


def require_tracking_services(value: Any) -> Any:
    """Check the words of `--log` for the one that is no service; for use before other checks.

    Raises:
        ValueError: it is among them.
    """
    if isinstance(value, list) and any(str(each).lower() == "tensorboard" for each in value):
        raise ValueError(
            "TensorBoard's files are no service, and need no --log: train-student writes them to "
            "RUN/tensorboard wherever the package is installed (pip install 'g2l[tensorboard]')"
        )
    return value


TrackingServices = Annotated[list[TrackingService] | None, BeforeValidator(require_tracking_services)]
"""What `--log` takes."""


def log_option(what: str, otherwise: str) -> Any:
    """Define the option `--log` of a command that makes a run or a report; `otherwise` says where else it is seen."""
    return option(
        None,
        description=f"Log the {what} to Weights & Biases or MLflow as well; repeat for both. Both stay on this machine "
        f"unless WANDB_MODE or MLFLOW_TRACKING_URI says otherwise [{otherwise}].",
        decides="nothing",
        stored=False,
    )


@dataclass(frozen=True)
class Grid:
    """The patches that a slide is cut into, and which of them count.

    Attributes:
        patch_px: side of a patch, pixels.
        mpp: resolution of a patch, um per pixel.
        stride_px: distance between neighbouring patches, in their pixels.
        min_tissue: minimum share of a patch's area that must be tissue.
        allow_upsampling: whether slides more than 5 % coarser than `mpp` may be used.
        tiling: "level0" if each slide is cut at the resolution of its level 0; `mpp` then means nothing.
        resampling: who reduces a patch, where that can.
        decode: "half" to decode JPEG tiles at half their size where a patch is reduced by 2 or more.
        rules: the rules by which tissue is found, in the order in which they run.
        max_artefact: maximum share of a patch's area that rules for artefacts may have dropped.
    """

    patch_px: int
    mpp: float
    stride_px: int
    min_tissue: float
    allow_upsampling: bool
    tiling: Tiling | None = None
    resampling: Resampling = "lanczos-pillow"
    decode: Decode = "full"
    rules: tuple[RuleName, ...] = EARLIER_RULES
    max_artefact: float = 1.0

    @property
    def overlap_px(self) -> int:
        """Pixels that neighbouring patches share; 0 if there is a gap."""
        return max(self.patch_px - self.stride_px, 0)


@dataclass(frozen=True)
class TissueFiles:
    """Folders with a file of each slide's tissue.

    Attributes:
        read_from: the tissue is taken from there; `None` to find it.
        write_to: the tissue is written there; `None` not to.
        origin: where coordinates count from, in these files and in those of annotations.
    """

    read_from: Path | None = None
    write_to: Path | None = None
    origin: AnnotationOrigin = "auto"


@dataclass(frozen=True)
class Sampling:
    """How many patches of a slide are taken, and which are held out.

    Attributes:
        patches_per_slide: maximum number of patches; `None` for all.
        seed: of the sample.
        val_fraction: held-out fraction of the cases.
        val_strip: held-out fraction of every slide; `None` to hold out cases.
        method: how they are drawn.
        classes: what the classes of annotations decide.
        candidates: with "cluster", patches described for each one that is taken.
        clusters: with "cluster", most clusters of the first level.
        by_encoder: with "cluster", whether an encoder describes the candidates, once all slides are audited.
    """

    patches_per_slide: int | None
    seed: int
    val_fraction: float
    val_strip: float | None = None
    method: SampleMethod = "uniform"
    classes: ClassRules = field(default_factory=ClassRules)
    candidates: int = 4
    clusters: int = 16
    by_encoder: bool = False

    @property
    def looks_at_once(self) -> bool:
        """Whether the candidates of a slide are described while it is audited."""
        return self.method == "cluster" and not self.by_encoder

    @property
    def num_drawn(self) -> int | None:
        """Most patches that are drawn of a slide: the sample, or the candidates for it; `None`: all."""
        if self.method != "cluster" or self.patches_per_slide is None:
            return self.patches_per_slide
        return self.patches_per_slide * self.candidates
