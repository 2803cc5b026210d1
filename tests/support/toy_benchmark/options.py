"""Options of the toy benchmark."""

from pathlib import Path
from typing import ClassVar

from pipeline.config.base import option
from pipeline.evaluate.options.shared import ResampleOptions


class SpreadOptions(ResampleOptions):
    """Which images are embedded."""

    panels: ClassVar[dict[str, str]] = {"spread": "Spread"}

    spread: Path | None = option(None, description="Folder of images whose embeddings' spread is measured.")
    spread_least: int = option(2, ge=1, description="Images that there must be.")


OPTIONS = SpreadOptions
