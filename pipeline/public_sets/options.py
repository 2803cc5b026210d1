"""Options of `g2l reproduce`: its own, and those that it shares with `g2l evaluate`."""

from pathlib import Path
from typing import ClassVar, Self

from pipeline.config.base import Config, option
from pipeline.config.model_names import absolute_folder, absolute_model
from pipeline.evaluate.options.shared import ResampleOptions, RunOptions

REPRODUCE_OPTIONS_FILE = "reproduce.toml"
"""The record of the options, which marks the folder of a reproduction."""


class SetOptions(Config):
    """The set, and what is compared on it."""

    panels: ClassVar[dict[str, str]] = {"root": "The set", "models": "What is compared", "protocol": "Scores"}

    root: Path = option(description="Folder of the set, as its recipe says (`--list`).")
    models: list[str] | None = option(
        None,
        min_length=1,
        description="[LABEL=]ENCODER[@WEIGHTS], as for `g2l evaluate`; repeat for several. A label that is a published "
        "model's name, such as g2l, asks to be compared with it. Sets of slides need none.",
    )
    features: list[str] | None = option(
        None,
        description="[LABEL=]DIR with a feature file per slide, for sets of slides; repeat for several models. The "
        "label is compared with the published model of that name, such as h-optimus-0.",
    )
    reference: str | None = option(None, description="Label of the model or features to compare with [the first].")
    beside: list[str] | None = option(
        None,
        description="Folder of another `g2l reproduce`, whose values join the paper's tables; repeat for several.",
        decides="nothing",
    )
    protocol: str | None = option(None, description="Protocol of the probes, as for `g2l evaluate` [the set's].")
    knn: int = option(20, ge=1, description="Neighbours of the kNN probe.")
    cost: bool = option(True, description="Measure time and memory, for Figure 1.")
    sweep: bool = option(
        False,
        description="Sets for robustness: also measure what it costs that class and centre go together in training, by "
        "PathoROB's schedule for its sets, else by ours; minutes a model.",
        added=True,
    )


class ReproduceConfig(RunOptions, ResampleOptions, SetOptions):
    """Which models are scored on a public set, and how; what the set's recipe says is no option."""

    panels: ClassVar[dict[str, str]] = SetOptions.panels | {"patch_px": "Running"}

    def absolute(self) -> Self:
        """As in `Config`, and files and folders among models, features and folders beside as well."""
        changed = {
            "models": None if self.models is None else [absolute_model(text) for text in self.models],
            "features": None if self.features is None else [absolute_folder(text) for text in self.features],
            "beside": None if self.beside is None else [str(Path(text).absolute()) for text in self.beside],
        }
        return super().absolute().model_copy(update=changed)
