"""A Hamamatsu VMS slide that OpenSlide 4.0.1 reads: an index, 2 x 2 images of level 0, and the map, its coarse level.

Left out: focus layers, the overview, hints where tiles begin.
"""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from support.slides import Rgb, area_average

MAP_DOWNSAMPLE = 4
INTERVAL = 5
"""Blocks between restart markers: a tile of 40 x 8 pixels."""


def make_vms_slide(path: Path, pixels: Rgb, *, mpp: float) -> list[Path]:
    """Write a slide of the level-0 `pixels`, whose sides are multiples of 320 and 64; returns its four images."""
    height, width = pixels.shape[:2]
    lines = ["[Virtual Microscope Specimen]", "NoLayers=1", "NoJpegColumns=2", "NoJpegRows=2", "SourceLens=20"]
    lines += [f"PhysicalWidth={round(width * mpp * 1000)}", f"PhysicalHeight={round(height * mpp * 1000)}"]
    images = []
    for row, column in np.ndindex(2, 2):
        place = f"({column},{row})" if (column, row) != (0, 0) else ""
        image = path.with_name(f"{path.stem}{place}.jpg")
        rows = slice(row * height // 2, (row + 1) * height // 2)
        columns = slice(column * width // 2, (column + 1) * width // 2)
        _write_jpeg(image, pixels[rows, columns])
        lines.append(f"ImageFile{place}={image.name}")
        images.append(image)
    coarse = path.with_name(f"{path.stem}_map2.jpg")
    _write_jpeg(coarse, area_average(pixels, MAP_DOWNSAMPLE))
    path.write_text("\n".join([*lines, f"MapFile={coarse.name}", ""]))
    return images


def _write_jpeg(path: Path, pixels: Rgb) -> None:
    """With restart markers, from which OpenSlide takes tiles."""
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(
        buffer, "JPEG", quality=90, subsampling=0, restart_marker_blocks=INTERVAL
    )
    path.write_bytes(buffer.getvalue())
