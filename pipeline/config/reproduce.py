"""Options of `g2l reproduce`."""

from pathlib import Path
from typing import ClassVar, Literal, Self

from pipeline.config.base import Config, option
from pipeline.config.model_names import absolute_folder, absolute_model


class ReproduceConfig(Config):
    """Which models are scored on a public set, and how; what the set's recipe says is no option."""

    panels: ClassVar[dict[str, str]] = {
        "root": "The set",
        "models": "What is compared",
        "protocol": "Scores",
        "patch_px": "Running",
    }

    root: Path = option(description="Folder of the set, as its recipe says (`--list`).")
    models: list[str] = option(
        min_length=1,
        description="[LABEL=]ENCODER[@WEIGHTS], as for `g2l evaluate`; repeat for several. A label that is a published "
        "model's name, such as g2l, asks to be compared with it.",
    )
    features: list[str] | None = option(
        None, description="[LABEL=]DIR with a feature file per slide, for sets of slides; repeat for several models."
    )
    reference: str | None = option(None, description="Label of the model to compare with [the first].")
    beside: list[str] | None = option(
        None,
        description="Folder of another `g2l reproduce`, whose values join the paper's tables; repeat for several.",
        decides="nothing",
    )
    protocol: str | None = option(None, description="Protocol of the probes, as for `g2l evaluate` [the set's].")
    resamples: int = option(1000, ge=100, description="Bootstrap resamples of an interval.")
    seed: int = option(0, ge=0, description="Seed of folds, draws, resamples and training.")
    cost: bool = option(True, description="Measure time and memory, for Figure 1.")
    patch_px: int | None = option(
        None, ge=16, le=4096, description="Input size of encoders that accept any [the run's, else 224]."
    )
    cache: Path | None = option(
        None, description="Folder that keeps the embeddings [OUT/report/embeddings].", decides="nothing"
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
        """As in `Config`, and files and folders among models, features and folders beside as well."""
        changed = {
            "models": [absolute_model(text) for text in self.models],
            "features": None if self.features is None else [absolute_folder(text) for text in self.features],
            "beside": None if self.beside is None else [str(Path(text).absolute()) for text in self.beside],
        }
        return super().absolute().model_copy(update=changed)
