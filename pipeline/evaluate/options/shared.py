"""Options of `g2l evaluate` that belong to no benchmark, or to several.

A benchmark's options are a class of its own room, `evaluate/NAME/options.py`. It inherits what it shares from here.
Imports nothing heavy: the command's help reads these modules.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator

from pipeline.config.base import Config, option
from pipeline.config.groups import TrackingServices, log_option
from pipeline.config.model_names import absolute_model


class ComparedOptions(Config):
    """What is compared."""

    panels: ClassVar[dict[str, str]] = {"models": "What is compared"}

    models: list[str] | None = option(
        None,
        min_length=1,
        description="[LABEL=]ENCODER[@WEIGHTS]; repeat for several. ENCODER: of `g2l models`, a timm name, a student "
        "folder, or a run (RUN, RUN@before, RUN@teacher). WEIGHTS: pretrained (the default), scratch, or a file. Not "
        "needed for --slides alone, whose features are made already.",
    )
    reference: str | None = option(
        None,
        description="Label of the model or features to compare with [the teacher of the store or run, else the first].",
    )

    @property
    def names(self) -> list[str]:
        """The models; none where only features are compared."""
        return self.models or []

    def absolute(self) -> Self:
        """As in `Config`, and files and folders among the models as well."""
        models = None if self.models is None else [absolute_model(text) for text in self.models]
        return super().absolute().model_copy(update={"models": models})


EARLIER_NAMES = {"balanced": "g2l"}
"""The name of a protocol now, by its name in earlier versions."""


def _current_name(protocol: str) -> str:
    """The name of a protocol now."""
    return EARLIER_NAMES.get(protocol, protocol)


class ProbeOptions(Config):
    """How classes are learnt from embeddings."""

    panels: ClassVar[dict[str, str]] = {"protocol": "Scores of the benchmarks"}

    protocol: Annotated[Literal["g2l", "plain", "eva", "pathorob", "balanced"], AfterValidator(_current_name)] = option(
        "g2l",
        description="Settings of the probes. g2l: classes count equally, C is chosen by the reported score (earlier "
        "called balanced); plain: they count by frequency, C is chosen by log loss, as in earlier reports; eva, "
        "pathorob: the linear probes of kaiko-eva and PathoROB, minutes a model.",
    )
    probe_c: float | None = option(
        None, gt=0, description="Linear probe: fixed inverse strength C [chosen within the training part]."
    )
    knn: int = option(20, ge=1, description="Neighbours of the kNN probe.")
    folds: int = option(5, ge=2, description="Folds if there is no split; a group is never on both sides.")

    def notes_on_folds(self, source: Path, *, has_split: bool) -> tuple[str, ...]:
        """That another number of folds than the default was given for a table with a split, where it has no effect."""
        if not has_split or self.folds == type(self).model_fields["folds"].default:
            return ()
        return (f"--folds {self.folds}: no effect, for {source} gives a split",)


class ResampleOptions(Config):
    """What intervals and random draws rest on."""

    resamples: int = option(1000, ge=100, description="Bootstrap resamples of an interval.")
    seed: int = option(0, ge=0, description="Seed of folds, draws, resamples and training.")


class ImageOptions(Config):
    """Where the images of a table lie."""

    panels: ClassVar[dict[str, str]] = {"images_root": "Running"}

    images_root: Path | None = option(None, description="Folder that image paths start from [the CSV's folder].")


class RunOptions(Config):
    """How models are run."""

    patch_px: int | None = option(
        None, ge=16, le=4096, description="Input size of encoders that accept any [the store's or run's, else 224]."
    )
    cache: Path | None = option(
        None, description="Folder that keeps the embeddings [`embeddings` beside the report].", decides="nothing"
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
    log: TrackingServices = log_option("report", "neither")


SHARED: tuple[type[Config], ...] = (ProbeOptions, ResampleOptions, ImageOptions, RunOptions)
"""What the command lists behind the options of the benchmarks, in this order."""
