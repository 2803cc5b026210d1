"""Options of the fidelity benchmark."""

from pathlib import Path
from typing import ClassVar

from pipeline.config.base import option
from pipeline.evaluate.options.shared import ResampleOptions


class FidelityOptions(ResampleOptions):
    """Which store's held-out rows are scored, and how many."""

    panels: ClassVar[dict[str, str]] = {"store": "Fidelity to the teacher"}

    store: Path | None = option(None, description="Store whose held-out rows are scored.")
    teacher: str | None = option(None, description="Teacher to compare with, in a store of several [the first].")
    store_rows: int = option(
        4096, ge=2, description="Maximum number of held-out rows scored, and of rows that linear maps are fitted on."
    )
    slides_root: Path | None = option(
        None, description="Folder of the slides, for a store without pixels [as planned]."
    )


OPTIONS = FidelityOptions
