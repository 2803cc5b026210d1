"""Report of `g2l embed`; without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pipeline.base.console import counted
from pipeline.base.units import format_seconds
from pipeline.features.embed_names import FAILURES_FILE

NAMED = 5
"""Failed slides to name in the report; the file lists all. Our choice: enough to see what is wrong."""
COUNTED = ("width", "num_slides", "num_patches", "failed_patches")
"""Counts in the record of a finished folder."""


@dataclass
class Tally:
    """Counts of a run of `g2l embed`.

    Attributes:
        folder, where: the output, and the folder in it that readers of features need.
        width: dimension of the embeddings.
        num_slides, num_patches: with embeddings, from this run or earlier ones.
        num_before: slides finished by earlier runs.
        new_patches, seconds: patches embedded by this run, and its time.
        failed_patches: patches left out of finished slides.
        reasons: why slides failed, by slide id.
        warnings: warnings about slides embedded by this run, by slide id.
    """

    folder: Path
    where: Path
    width: int = 0
    num_slides: int = 0
    num_patches: int = 0
    num_before: int = 0
    new_patches: int = 0
    seconds: float = 0.0
    failed_patches: int = 0
    reasons: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)

    @property
    def is_partial(self) -> bool:
        """Whether slides or patches failed."""
        return bool(self.reasons or self.failed_patches)

    def add(self, rows: int, failed: int) -> None:
        """Count a finished slide with its patches and those left out."""
        self.num_slides += 1
        self.num_patches += rows
        self.failed_patches += failed

    def record(self) -> dict[str, str | int]:
        """Counts over all runs, for `from_record`."""
        where = self.where.relative_to(self.folder).as_posix()
        return {"where": where, **{name: getattr(self, name) for name in COUNTED}}

    @classmethod
    def from_record(cls, folder: Path, record: Mapping[str, Any]) -> Self:
        """Tally of a finished folder, with nothing new.

        Raises:
            KeyError, TypeError, ValueError: the record is damaged.
        """
        width, slides, patches, failed = (int(record[name]) for name in COUNTED)
        return cls(folder, folder / str(record["where"]), width, slides, patches, slides, failed_patches=failed)


def embed_report(tally: Tally) -> str:
    """Report for the terminal."""
    patches = counted(tally.num_patches, "patch", "patches")
    lines = [f"{tally.where}: {patches} of {tally.width} dimensions (slides: {tally.num_slides:,})"]
    if tally.new_patches:
        rate = tally.new_patches / max(tally.seconds, 1e-9)
        new = counted(tally.new_patches, "patch", "patches")
        lines.append(f"{new} in {format_seconds(tally.seconds)}, {rate:.1f} a second")
    elif not tally.reasons:
        lines.append("nothing was left to do")
    if tally.num_before:
        lines.append(f"slides finished before: {tally.num_before:,}")
    lines += [f"warning: {slide_id}: {words}" for slide_id, words in list(tally.warnings.items())[:NAMED]]
    if len(tally.warnings) > NAMED:
        lines.append(f"... and {len(tally.warnings) - NAMED:,} more slides with warnings; g2l plan lists them")
    if tally.is_partial:
        failed = f"failed slides: {len(tally.reasons):,}, patches left out of the others: {tally.failed_patches:,}"
        lines.append(f"{failed}; listed in {tally.folder / FAILURES_FILE}")
        lines += [f"  {slide_id}: {reason}" for slide_id, reason in list(tally.reasons.items())[:NAMED]]
        if tally.failed_patches:
            lines.append("--retry-failures embeds slides with left-out patches again")
    return "\n".join(lines)
