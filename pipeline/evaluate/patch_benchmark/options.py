"""Options of the patch benchmark."""

from pathlib import Path
from typing import ClassVar

from pipeline.config.base import option
from pipeline.evaluate.options.shared import ImageOptions, ProbeOptions, ResampleOptions


class PatchOptions(ProbeOptions, ResampleOptions, ImageOptions):
    """Which labelled patches are classified, and how."""

    panels: ClassVar[dict[str, str]] = {"patches": "Patch benchmark"}

    patches: Path | None = option(
        None, description="CSV of path, label, optionally group, center, split; or an image folder."
    )
    draws: int = option(100, ge=1, description="Random draws of few-shot examples.")


OPTIONS = PatchOptions
