"""Codecs for the store's pixels: bytes, and milliseconds to encode and to decode, a patch.

Fair because all codecs get the same patches, one thread each, at the settings that the pipeline would use, in turn and
in CPU time, which other processes disturb least. The patches are crops of the synthesised tissue that went through JPEG
and the pipeline's own resampling, as a scanner's slide does: raw noise would favour none, smooth drawings would favour
prediction. Ratios are to the codec that the pipeline uses.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import imagecodecs
import inputs
import machine
import numpy as np
from numpy.typing import NDArray

from pipeline.base.console import table
from pipeline.base.images import JPEGXL_EFFORT, decode_image, encode_image
from pipeline.store.patches import PlannedPatches

Patch = NDArray[np.uint8]
ROUNDS = 7


@dataclass(frozen=True)
class Codec:
    """One way to keep a patch."""

    name: str
    lossless: bool
    encode: Callable[[Patch], bytes]
    decode: Callable[[bytes], Patch]


def jpegxl(effort: int) -> Codec:
    """Lossless JPEG XL at an effort."""
    return Codec(
        f"JPEG XL, effort {effort}",
        True,
        lambda patch: bytes(imagecodecs.jpegxl_encode(patch, lossless=True, effort=effort, numthreads=1)),
        lambda data: imagecodecs.jpegxl_decode(data, numthreads=1),
    )


CHOSEN = f"JPEG XL, effort {JPEGXL_EFFORT}"
CODECS = (
    *(jpegxl(effort) for effort in (1, 2, 3)),
    Codec("PNG, level 1", True, lambda patch: bytes(imagecodecs.png_encode(patch, level=1)), imagecodecs.png_decode),
    Codec("PNG, level 6", True, lambda patch: bytes(imagecodecs.png_encode(patch, level=6)), imagecodecs.png_decode),
    Codec(
        "WebP, lossless",
        True,
        lambda patch: bytes(imagecodecs.webp_encode(patch, lossless=True, numthreads=1)),
        imagecodecs.webp_decode,
    ),
    Codec(
        "JPEG, quality 95",
        False,
        lambda patch: encode_image(patch, "jpeg"),
        lambda data: decode_image(data, "jpeg", inputs.PATCH_PX),
    ),
)


def thread_ms(work: Callable[[Any], object], items: list[Any]) -> float:
    """CPU milliseconds of this thread for each of the items."""
    start = time.thread_time()
    for item in items:
        work(item)
    return (time.thread_time() - start) / len(items) * 1000


def read_patches(num_rows: int) -> list[Patch]:
    """Patches as the pipeline reads them."""
    with tempfile.TemporaryDirectory() as folder:
        plan = inputs.make_plan(Path(folder), num_rows)
        patches = np.empty((num_rows, plan.config.patch_px, plan.config.patch_px, 3), np.uint8)
        source = PlannedPatches(plan, None, tell=print)
        for row in range(num_rows):
            source.read(row, patches[row])
    return list(patches)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64, help="patches [%(default)s]")
    args = parser.parse_args()
    patches = read_patches(args.rows)
    encoded = {codec.name: [codec.encode(patch) for patch in patches] for codec in CODECS}
    assert encoded[CHOSEN] == [encode_image(patch, "jpegxl") for patch in patches], "not what the store does"
    for codec in CODECS:
        back = [codec.decode(data) for data in encoded[codec.name]]
        same = all(np.array_equal(a, b) for a, b in zip(patches, back, strict=True))
        assert same or not codec.lossless, f"{codec.name} is not lossless"
    encoding: dict[str, list[float]] = {codec.name: [] for codec in CODECS}
    decoding: dict[str, list[float]] = {codec.name: [] for codec in CODECS}
    for _ in range(ROUNDS):
        for codec in CODECS:
            encoding[codec.name].append(thread_ms(codec.encode, patches))
            decoding[codec.name].append(thread_ms(codec.decode, encoded[codec.name]))
    figures = {
        codec.name: (
            float(np.mean([len(data) for data in encoded[codec.name]])) / 1000,
            median(encoding[codec.name]),
            median(decoding[codec.name]),
        )
        for codec in CODECS
    }
    chosen = figures[CHOSEN]
    lines = [
        (
            name,
            f"{size:.1f}",
            f"{enc:.2f}",
            f"{dec:.2f}",
            *(f"{a / b:.2f}" for a, b in zip(values, chosen, strict=True)),
        )
        for name, values in figures.items()
        for size, enc, dec in [values]
    ]
    header = ("codec", "kB a patch", "encode ms", "decode ms", "bytes x", "encode x", "decode x")
    print(f"{args.rows} patches of 224 px, {patches[0].nbytes / 1000:.1f} kB raw; one thread, CPU time")
    print(table(lines, header, right=range(1, len(header))))
    fastest = min(enc + dec for name, (_, enc, dec) in figures.items() if name.startswith(("PNG", "WebP")))
    print("the rival: the fastest of PNG and WebP, encoding and decoding together")
    return machine.conclude(fastest / (chosen[1] + chosen[2]), at_least=1.0)


if __name__ == "__main__":
    sys.exit(main())
