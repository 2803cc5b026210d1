"""Merge the stores of a plan's parts (`extract-teacher --part`) into one."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.base.console import Progress, counted, say
from pipeline.store.parts.merge import Merged, merge_parts
from pipeline.store.store import Store


def merge(folders: Sequence[Path], out: Path, *, link: bool) -> Merged:
    """Merge the parts in `folders` into the store `out`, with progress.

    Raises:
        G2LError: as `store.parts.merge.merge_parts`.
    """
    total = sum(Store(folder).first.num_rows_here for folder in folders)
    with Progress("merging", total, "patches") as progress:
        merged = merge_parts(folders, out, link=link, step=progress.step)
    if link and merged.num_copied:
        say(f"note: {counted(merged.num_copied, 'file')} copied: hard links cannot be made from the parts to {out}")
    return merged
