"""Options of the slide benchmark."""

from pathlib import Path
from typing import ClassVar, Self

from pipeline.config.base import option
from pipeline.config.model_names import absolute_folder
from pipeline.evaluate.options.shared import ProbeOptions, ResampleOptions


class SlideOptions(ProbeOptions, ResampleOptions):
    """Which labels are predicted from which features, and how."""

    panels: ClassVar[dict[str, str]] = {"slides": "Slide benchmark"}

    slides: Path | None = option(None, description="CSV of slide_id or case_id (or both) and labels; needs --features.")
    features: list[str] | None = option(
        None, description="[LABEL=]DIR with a feature file per slide; repeat for several models."
    )
    label: str = option("label", description="Column of --slides to predict.")
    mil_epochs: int | None = option(
        None, ge=1, description="Epochs of attention MIL [30, or as many as make 1,000 steps]."
    )

    def absolute(self) -> Self:
        """As in `Config`, and the folders of features as well."""
        folders = None if self.features is None else [absolute_folder(text) for text in self.features]
        return super().absolute().model_copy(update={"features": folders})


OPTIONS = SlideOptions
