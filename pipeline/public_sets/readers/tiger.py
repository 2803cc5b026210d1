"""Read TIGER: annotated regions of breast cancer, cut into tiles, for robustness.

`wsirois/roi-level-annotations/tissue-bcss/images/SLIDE_[x1, y1, x2, y2].png`, regions at 0.5 um/px, and a mask of the
same name in `masks`: 1 is invasive tumour, 2 and 6 are stroma, 3, 4, 5 and 7 are the rest, and 0 is not annotated
(tiger.grand-challenge.org, Data and Evaluation). Slides are TCGA's: case and centre (the tissue source site) are from
the barcode. Regions of the other two centres, in `tissue-cells`, are not read: no documentation says which names are
whose. How the paper cut its patches is not known: tiles of 224 px without overlap of which one class covers more than
half are our choice.
"""

import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.base.errors import BenchmarkError
from pipeline.base.outside import UnsafeError, read_bytes, reading
from pipeline.cohort.barcodes import find_barcode
from pipeline.cohort.gdc import source_sites
from pipeline.evaluate.images import MOST_IMAGE_BYTES, MOST_PIXELS
from pipeline.public_sets.cut_images import Picture, write_pictures
from pipeline.public_sets.members import Members, Row, first_folder, images_below, require_members, unparsed
from pipeline.report.content import Exclusion

PLACE = re.compile(r"(?P<slide>TCGA-[^/\[\]]+)_\[\d+, \d+, \d+, \d+\]\.png", re.ASCII)
EXPECTED = "TCGA-..._[x1, y1, x2, y2].png"
CLASS_OF_MASK = ("", "invasive tumour", "stroma", "rest", "rest", "rest", "stroma", "rest")
"""By the mask's value."""
CLASSES = ("invasive tumour", "stroma", "rest")
TILE_PX = 224
LEAST_SHARE = 0.5
"""Of a tile that its class must exceed. Our choice: the smallest that leaves no tie."""
REGIONS = "wsirois/roi-level-annotations/tissue-bcss"


def read_members(root: Path, images: Path, _options: Mapping[str, str]) -> Members:
    """The tiles, with PathoROB's columns.

    Raises:
        BenchmarkError: a part of the set is missing, or no region can be used.
    """
    folder = first_folder(root, (f"training/{REGIONS}", REGIONS), "TIGER's training data")
    for part in ("images", "masks"):
        first_folder(folder, (part,), "TIGER's annotated regions")
    rows: list[Row] = []
    left_out: list[Exclusion] = []
    regions: list[PurePosixPath] = []
    for path in images_below(folder / "images", left_out, (".png",)):
        match, barcode = PLACE.fullmatch(str(path)), find_barcode(path.name)
        if match is None or barcode is None:
            left_out.append(unparsed(path, EXPECTED))
            continue
        try:
            tiles = _tiles(folder, path)
        except BenchmarkError as error:
            left_out.append(Exclusion(str(path), str(error)))
            continue
        regions.append(path)
        center = source_sites().get(barcode.site, barcode.site)
        of_slide = {"slide_id": match["slide"], "medical_center": center}
        rows += [of_slide | {"path": n, "patch_id": Path(n).stem, "biological_class": c} for n, c, _ in tiles]
    members = require_members(Members(tuple(rows), images, tuple(left_out)), folder, "tile of one class")
    sources = [folder / part / path for part in ("images", "masks") for path in regions]
    write_pictures(images, sources, lambda: _pictures(folder, regions))
    return members


def _pictures(folder: Path, regions: list[PurePosixPath]) -> Iterator[Picture]:
    """The tiles of all regions."""
    for path in regions:
        yield from ((name, pixels) for name, _, pixels in _tiles(folder, path))


def _tiles(folder: Path, path: PurePosixPath) -> list[tuple[str, str, NDArray[np.uint8]]]:
    """Name, class and pixels of each tile of a region of which one class covers enough.

    Raises:
        BenchmarkError: region or mask cannot be read, or they differ in size.
    """
    pixels, mask = _decoded(folder / "images" / path, "RGB"), _decoded(folder / "masks" / path, "L")
    if pixels.shape[:2] != mask.shape:
        raise BenchmarkError(f"region of {pixels.shape[:2]} px, mask of {mask.shape} px")
    if mask.size and mask.max() >= len(CLASS_OF_MASK):
        raise BenchmarkError(f"the mask has the value {mask.max()}; the set documents 0 to {len(CLASS_OF_MASK) - 1}")
    tiles = []
    for top in range(0, mask.shape[0] - TILE_PX + 1, TILE_PX):
        for left in range(0, mask.shape[1] - TILE_PX + 1, TILE_PX):
            box = (slice(top, top + TILE_PX), slice(left, left + TILE_PX))
            counts = np.bincount(mask[box].ravel(), minlength=len(CLASS_OF_MASK))
            shares = {name: sum(counts[i] for i, of in enumerate(CLASS_OF_MASK) if of == name) for name in CLASSES}
            label = max(shares, key=lambda name: shares[name])
            if shares[label] > LEAST_SHARE * TILE_PX**2:
                tiles.append((f"{path.stem}_{left}_{top}.png", label, pixels[box]))
    return tiles


def _decoded(path: Path, mode: str) -> NDArray[np.uint8]:
    """The pixels of a PNG.

    Raises:
        BenchmarkError: it is missing or damaged, or no PNG of that mode (a mask may have a palette).
    """
    with (
        reading(f"{path.parent.name}/{path.name}", "not a readable image", BenchmarkError),
        Image.open(io.BytesIO(read_bytes(path, MOST_IMAGE_BYTES)), formats=("PNG",)) as image,
    ):
        if image.width * image.height > MOST_PIXELS:
            raise UnsafeError(f"{image.width:,} x {image.height:,} pixels; at most {MOST_PIXELS:,} are read")
        if mode == "L" and image.mode not in ("L", "P"):
            raise ValueError(f"a mask of {image.mode} pixels, not of one number each")
        image.load()
        return np.asarray(image if mode == "L" else image.convert(mode))
