"""Options of the robustness benchmark."""

from pathlib import Path
from typing import ClassVar, Literal

from pipeline.config.base import option
from pipeline.evaluate.options.shared import ImageOptions, ResampleOptions


class RobustnessOptions(ResampleOptions, ImageOptions):
    """Which patches are compared across centres, scanners and stains, and how."""

    panels: ClassVar[dict[str, str]] = {"robustness": "Robustness"}

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
    robustness_sweep: Literal["own", "pathorob"] | None = option(
        None,
        description="Also measure what it costs that class and centre go together in training (APD, nIPD); minutes a "
        "model. own: our schedule, for any set; pathorob: PathoROB's, for one of its three sets [not measured].",
        added=True,
    )
    sweep_repeats: int = option(
        20, ge=2, description="Draws of cases that the sweep is repeated on; 20 are PathoROB's.", added=True
    )


OPTIONS = RobustnessOptions
