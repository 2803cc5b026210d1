"""What `extract-teacher --patch-qc` would drop of labelled tiles of real sections, on which nobody planted faults.

A table (CSV) names the tiles in its column `path`, relative to its own folder, and in another column what they are of:
a case, or an image. The tiles of each are judged by one reference, of up to 32 of them that a hash chooses. The
reference of a slide is of that slide alone. Prints how many are dropped by reason, and may draw them, to be judged.
"""

import argparse
import csv
import hashlib
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from artefacts import percent
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipeline.base.console import table
from pipeline.slides.artefacts.patch_checks import PatchFault, build_reference, check_patch, measure_patch
from pipeline.slides.artefacts.patch_qc import REFERENCE_PATCHES

CELL_PX, LINE_PX, COLUMNS = 128, 16, 12
"""Of the picture: side of a tile, height of the words below it, tiles in a row."""

Found = list[tuple[str, PatchFault | None]]


def read_groups(path: Path, column: str) -> dict[str, list[str]]:
    """The tiles of each group, as the table names them."""
    groups = defaultdict(list)
    with path.open(newline="") as lines:
        for row in csv.DictReader(lines):
            groups[row[column]].append(row["path"])
    return groups


def read_tile(path: Path) -> NDArray[np.uint8]:
    """A tile (H, W, 3)."""
    return np.asarray(Image.open(path).convert("RGB"))


def judge(folder: Path, names: list[str], mpp: float) -> Found:
    """Each tile of a group with why it would be dropped."""
    tiles = {name: read_tile(folder / name) for name in names}
    by_hash = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    reference = build_reference([measure_patch(tiles[name], mpp) for name in by_hash[:REFERENCE_PATCHES]])
    return [(name, check_patch(tile, mpp, reference)) for name, tile in tiles.items()]


def draw(folder: Path, dropped: list[tuple[str, PatchFault]], out: Path) -> None:
    """The tiles that would be dropped, each with the reason below it."""
    rows = -(-len(dropped) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (CELL_PX + 2), rows * (CELL_PX + LINE_PX)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (name, fault) in enumerate(dropped):
        x, y = number % COLUMNS * (CELL_PX + 2), number // COLUMNS * (CELL_PX + LINE_PX)
        sheet.paste(Image.fromarray(read_tile(folder / name)).resize((CELL_PX, CELL_PX)), (x, y))
        pen.text((x + 2, y + CELL_PX + 2), f"{fault.reason} {fault.value:.2f}", "black")
    sheet.save(out)


def main() -> int:
    """Judge, print and draw. There is no need to meet: whether a tile was rightly dropped is for a person to say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="CSV with a column path")
    parser.add_argument("--group", required=True, help="column of what tiles are of, such as case_id")
    parser.add_argument("--mpp", type=float, required=True, help="um per pixel of the tiles")
    parser.add_argument("--picture", type=Path, help="draw the dropped tiles there")
    args = parser.parse_args()
    folder = args.table.parent
    found = [each for names in read_groups(args.table, args.group).values() for each in judge(folder, names, args.mpp)]
    dropped = sorted(
        ((name, fault) for name, fault in found if fault), key=lambda each: (each[1].reason, -each[1].value)
    )
    counts = Counter(fault.reason for _, fault in dropped)
    lines = [(reason, number, percent(number / len(found))) for reason, number in counts.most_common()]
    print(f"{len(found):,} tiles")
    print(
        table(
            [*lines, ("all", len(dropped), percent(len(dropped) / len(found)))],
            ("reason", "dropped", "%"),
            right=(1, 2),
        )
    )
    if args.picture and dropped:
        draw(folder, dropped, args.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
