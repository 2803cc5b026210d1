"""Slide files for the tests: Aperio, Leica and generic TIFF pyramids that OpenSlide reads, and ways to damage them.

Slides are deterministic: the same arguments give the same bytes. What it leaves
out: associated images, ICC profiles, other vendors.

Facts about OpenSlide 4.0.1 (openslide-python 1.4.7), found with these files; test_slides.py keeps those that the
project leans on.

Opening
- Missing, empty, not a slide, cut before a page directory: OpenSlideUnsupportedFormatError, always the same words
  ("Unsupported or missing image file").
- Truncated to 60 %: directories at the end, or one before each level: does not open (as above). So does
  the real CMU region, even cut to 99 %. All directories at the front: OpenSlideError "Cannot hash TIFF tiles: Short
  read" when the coarsest level is cut and hashed; else it opens, reads before the cut are right to the byte, and
  reads behind it raise.
- `openslide.quickhash-1` is there if the compressed tiles of the coarsest level are at most 5 MiB: a bigger
  single-level slide has none. It covers the coarsest level only: damage to level 0 of a pyramid leaves it unchanged.
- mpp-x is absent without `MPP` (Aperio) or a resolution in a real unit (generic TIFF).

Reading a damaged tile (`damage_tiles`)
- JPEG: zero, garbage, truncate, outside raise OpenSlideError; scramble raised for 298 of 300 seeds and gave wrong
  pixels silently for 2. One flipped bit: 396 of 400 gave wrong pixels silently, 4 raised (`flip` on 30 tiles: 24
  and 6). So a read without an error is no proof of right pixels.
- Lossless codecs hide damage more often (libtiff checks no Adler-32): scramble was silent for 23 of 60 seeds with
  deflate, 60 with JPEG 2000, 0 with LZW. Without compression only truncate and outside raise.
- missing (byte count 0) never raises: transparent black, RGBA (0, 0, 0, 0). On Aperio, the coarser tiles above
  a missing tile are rendered from level 0 too, hole included, and a missing coarse tile is filled from the finer level.
- A region that touches one bad tile raises as a whole.
- An error sticks: the handle raises the same error for every other read and for dimensions, level_count and
  properties; close() works. A fresh handle reads the undamaged tiles.

Where pixels come from
- A location between two pixels of a level is interpolated bilinearly: at downsample 4 and x = 401 pixel i is
  0.75 * level[100 + i] + 0.25 * level[101 + i]. It lands on the right place to a subpixel, but is smoother (white noise
  of deviation 74 comes back with 59 at a quarter, 53 at half a pixel), and alpha is partial (192) at the right edge.
- A negative location is truncated towards 0 at coarse levels: -3 to -1 read as 0, -7 to -4 as -4.
- Outside the slide: transparent black.
- A level's downsample is the mean of both sides' ratios: 1501 x 1203 over 375 x 300 is 4.0063, so a location of
  1400 reads 2 level-0 pixels beside the exact place, and every location but 0 is interpolated.
"""

import math
import shutil
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from support.jpeg2000 import tiles_of_422

Rgb = npt.NDArray[np.uint8]
"""An RGB image: uint8 (height, width, 3)."""
Pattern = Literal["tissue", "blank", "coordinates", "zigzag"]
Compression = Literal["jpeg", "deflate", "lzw", "none", "jpeg2000", "jpeg2000-ycbcr", "jpeg2000-422"]
Vendor = Literal["aperio", "generic-tiff"]
Ifds = Literal["front", "end", "spread"]
Damage = Literal["zero", "garbage", "scramble", "flip", "truncate", "missing", "outside"]

BACKGROUND = 243
"""Grey of empty glass, with +-2 of noise."""
COORDINATE_BLUE = 160
"""Blue of the coordinate patterns: constant, so that saturation finds tissue nearly everywhere."""
ZIGZAG_PERIOD = 510
"""Level-0 pixels after which the zigzag pattern repeats: 255 up, 255 down, one grey level a pixel."""

_TIFFFILE_COMPRESSION = {
    "jpeg": "jpeg",
    "deflate": "adobe_deflate",
    "lzw": "lzw",
    "none": None,
    "jpeg2000": "aperio_jp2000_rgb",
    "jpeg2000-ycbcr": "aperio_jp2000_ycbc",
    "jpeg2000-422": "aperio_jp2000_ycbc",
}
_STRIPE_ROWS = 256


# --- pixels -------------------------------------------------------------------------------------------------


def make_pixels(pattern: Pattern, width: int, height: int, *, seed: int = 0, mpp: float = 0.25) -> Rgb:
    """Level-0 pixels of a pattern: uint8 (height, width, 3); `mpp` (um/px) sets the size of nuclei.

    Raises:
        ValueError: there is no such pattern.
    """
    if pattern == "tissue":
        return _tissue(width, height, seed, mpp)
    if pattern == "blank":
        return _wrap(_glass(np.random.default_rng(seed)), 0, height, width).copy()
    if pattern in ("coordinates", "zigzag"):
        rgb = np.full((height, width, 3), COORDINATE_BLUE, np.uint8)
        if pattern == "coordinates":
            step = ramp_step_l0_px(width, height)
            rgb[..., 0] = np.arange(width) // step
            rgb[..., 1] = (np.arange(height) // step)[:, None]
        else:
            rgb[..., 0] = zigzag(np.arange(width))
            rgb[..., 1] = zigzag(np.arange(height))[:, None]
        return rgb
    raise ValueError(f"no pattern {pattern!r}")


def ramp_step_l0_px(width: int, height: int) -> int:
    """Level-0 pixels a grey level in pattern "coordinates": pixel (x, y) is (x // step, y // step, 160).

    A slide of up to 1024 pixels has step 4: then level 1 at downsample 4 holds exactly (column, row, 160).
    """
    return math.ceil(max(width, height) / 256)


def zigzag(position_l0_px: npt.ArrayLike) -> npt.NDArray[Any]:
    """Grey level of pattern "zigzag" at a level-0 position: a triangle wave, one grey level a pixel.

    Unlike the ramp it shows a shift of one pixel. A level of downsample d holds the mean over its d pixels, so its
    pixel i is zigzag(i * d + (d - 1) / 2), rounded half up, away from the turning points at multiples of 255.
    """
    phase = np.asarray(position_l0_px) % ZIGZAG_PERIOD
    level: npt.NDArray[Any] = np.minimum(phase, ZIGZAG_PERIOD - phase)
    return level


def area_average(rgb: Rgb, downsample: int) -> Rgb:
    """Mean over squares of `downsample` pixels, rounded half up; what does not fill a square is dropped."""
    if downsample == 1:
        return rgb
    height, width = rgb.shape[0] // downsample, rgb.shape[1] // downsample
    cropped = rgb[: height * downsample, : width * downsample]
    squares, half = downsample**2, downsample**2 // 2
    rows = cropped.reshape(height, downsample, width * downsample * 3).sum(axis=1, dtype=np.uint32)
    sums = rows.reshape(height, width, downsample, 3).sum(axis=2, dtype=np.uint32)
    means: Rgb = ((sums + half) // squares).astype(np.uint8)
    return means


def _tissue(width: int, height: int, seed: int, mpp: float) -> Rgb:
    """Blobs of stroma (pink, fibrous) and tumour (purple, full of nuclei) on glass."""
    rng = np.random.default_rng(seed)
    stroma, tumour, glass = _stroma(rng, mpp), _tumour(rng, mpp), _glass(rng)
    inside = _resize(_blobs(rng, width, height), width, height)
    mix = _resize(_smooth_field(rng, width, height), width, height)
    rgb = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _STRIPE_ROWS):  # stripes stay in the processor's cache
        rows = slice(top, min(top + _STRIPE_ROWS, height))
        count = rows.stop - top
        background = _wrap(glass, top, count, width)
        if not inside[rows].any():
            rgb[rows] = background
            continue
        tissue = _blend(_wrap(stroma, top, count, width), _wrap(tumour, top, count, width), mix[rows])
        rgb[rows] = _blend(background, tissue, inside[rows])
    return rgb


def _blend(a: Rgb, b: Rgb, weight: npt.NDArray[np.uint8]) -> Rgb:
    """`a` where the weight (H, W) is 0, `b` where it is 255."""
    share = weight.astype(np.uint16)[..., None]
    share += share >> 7  # 0 to 256
    return ((a * (256 - share) + b * share) >> 8).astype(np.uint8)


def _wrap(block: Rgb, top: int, num_rows: int, width: int) -> Rgb:
    """Rows of a plane that repeats `block`, starting at its row `top`."""
    rows = np.arange(top, top + num_rows) % block.shape[0]
    repeats = math.ceil(width / block.shape[1])
    return np.tile(block[rows], (1, repeats, 1))[:, :width]


def _resize(field: npt.NDArray[np.float32], width: int, height: int) -> npt.NDArray[np.uint8]:
    """A coarse field of 0 to 1 as smooth uint8 (height, width)."""
    image = Image.fromarray((field.clip(0, 1) * 255).astype(np.uint8))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def _noise(rng: np.random.Generator, size: int, cell_x: int, cell_y: int) -> npt.NDArray[np.float32]:
    """Smooth periodic noise of deviation about 1: float32 (size, size, 1), one random value a cell."""
    grid = rng.standard_normal((size // cell_y, size // cell_x), np.float32)
    image = Image.fromarray(np.pad(grid, 2, mode="wrap"))
    scaled = image.resize((size + 4 * cell_x, size + 4 * cell_y), Image.Resampling.BICUBIC)
    return np.asarray(scaled)[2 * cell_y : -2 * cell_y, 2 * cell_x : -2 * cell_x, None]


def _colour(*values: float) -> npt.NDArray[np.float32]:
    return np.array(values, np.float32)


def _glass(rng: np.random.Generator) -> Rgb:
    return rng.integers(BACKGROUND - 2, BACKGROUND + 3, (256, 256, 1), np.uint8).repeat(3, axis=2)


def _stroma(rng: np.random.Generator, mpp: float) -> Rgb:
    """A periodic block of eosin-pink fibres with few, thin nuclei."""
    size = 480
    block = _colour(224, 158, 192) + _colour(4, 6, 5) * _noise(rng, size, 1, 1)
    block += _colour(8, 18, 12) * _noise(rng, size, 32, 4)
    block += _colour(7, 14, 9) * _noise(rng, size, 16, 16)
    block += _colour(5, 12, 6) * _noise(rng, size, 60, 60)
    _stamp_nuclei(rng, block, mpp, num=round(40 * (mpp / 0.25) ** 2), length_um=6.0, aspect=3.0)
    return block.clip(0, 255).astype(np.uint8)


def _tumour(rng: np.random.Generator, mpp: float) -> Rgb:
    """A periodic block of purple cells packed with dark nuclei."""
    size = 512
    block = _colour(186, 128, 182) + _colour(5, 5, 4) * _noise(rng, size, 1, 1)
    block += _colour(12, 14, 9) * _noise(rng, size, 4, 4)
    block += _colour(10, 12, 7) * _noise(rng, size, 16, 16)
    block += _colour(9, 10, 5) * _noise(rng, size, 64, 64)
    _stamp_nuclei(rng, block, mpp, num=round(170 * (mpp / 0.25) ** 2), length_um=4.0, aspect=1.3)
    return block.clip(0, 255).astype(np.uint8)


def _stamp_nuclei(
    rng: np.random.Generator, block: npt.NDArray[np.float32], mpp: float, *, num: int, length_um: float, aspect: float
) -> None:
    """Paint soft dark ellipses of about this half length on a periodic block, in place."""
    size, half = block.shape[0], math.ceil(1.4 * length_um / mpp)
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    offsets = np.arange(-half, half + 1)
    for _ in range(min(num, 1000)):
        angle, length = rng.uniform(0, math.pi), length_um / mpp * rng.uniform(0.7, 1.3)
        along = (x * math.cos(angle) + y * math.sin(angle)) / length
        across = (y * math.cos(angle) - x * math.sin(angle)) / length * aspect
        weight = (3 * (1 - along**2 - across**2)).clip(0, 0.85).astype(np.float32)[..., None]
        colour = _colour(82, 48, 122) + np.float32(rng.uniform(-18, 18))
        rows, columns = (rng.integers(size, size=2)[:, None] + offsets) % size
        where = np.ix_(rows, columns)
        block[where] += weight * (colour - block[where])


def _coarse_shape(width: int, height: int) -> tuple[int, int]:
    return max(4, height // 24), max(4, width // 24)


def _smooth_field(rng: np.random.Generator, width: int, height: int) -> npt.NDArray[np.float32]:
    """A field of 0 to 1 that varies over some hundred level-0 pixels, mostly near its ends."""
    rows, columns = _coarse_shape(width, height)
    field = np.zeros((rows, columns), np.float32)
    for cells, amplitude in ((16, 0.35), (5, 0.6)):  # coarse pixels a random value
        grid = rng.standard_normal((max(2, rows // cells + 1), max(2, columns // cells + 1)), np.float32)
        image = Image.fromarray(grid).resize((columns, rows), Image.Resampling.BICUBIC)
        field += np.float32(amplitude) * np.asarray(image)
    return (0.5 + field).clip(0, 1)


def _blobs(rng: np.random.Generator, width: int, height: int) -> npt.NDArray[np.float32]:
    """A big blob near the middle and up to two smaller ones, with wavy soft edges, as 1 inside and 0 outside."""
    rows, columns = _coarse_shape(width, height)
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    y, x = (y + 0.5) / rows, (x + 0.5) / columns
    level = np.full((rows, columns), -9, np.float32)
    centres = [(rng.uniform(0.42, 0.58), rng.uniform(0.42, 0.58), rng.uniform(0.28, 0.36))]
    for _ in range(int(rng.integers(0, 3))):
        centres.append((rng.uniform(0.15, 0.85), rng.uniform(0.15, 0.85), rng.uniform(0.08, 0.14)))
    for cx, cy, radius in centres:
        angle = np.arctan2(y - cy, x - cx)
        wave = sum(rng.uniform(0.02, 0.08) * np.sin(k * angle + rng.uniform(0, 6.3)) for k in (2, 3, 5, 7))
        level = np.maximum(level, 1 + wave - np.hypot(x - cx, y - cy) / radius)
    return (0.5 + 12 * level).clip(0, 1).astype(np.float32)


# --- slides -------------------------------------------------------------------------------------------------


def make_slide(
    path: Path,
    *,
    width: int = 4096,
    height: int = 3072,
    mpp: float | None = 0.25,
    downsamples: Sequence[int] = (1, 4),
    tile: int | tuple[int, int] = 256,
    pattern: Pattern = "tissue",
    seed: int = 0,
    quality: int = 90,
    compression: Compression | None = None,
    vendor: Vendor | None = None,
    ifds: Ifds = "spread",
    sampling: tuple[int, int] | None = None,
) -> Path:
    """Write a pyramid that OpenSlide reads; returns `path`.

    Args:
        width, height: level-0 pixels. Level d has width // d by height // d pixels, the exact mean of level 0.
        mpp: um/px of level 0, with 4 decimals as Aperio writes it; None writes none.
        downsamples: of the levels; the first is 1.
        tile: its side, or its height and width, pixels; multiples of 16. quality: of JPEG, 1 to 100.
        compression: JPEG (4:2:0), or "deflate" for the coordinate patterns, unless given. "jpeg2000" is lossless, of
            RGB or YCbCr, and for Aperio only; "422" has chroma half as wide, and is lossy.
        vendor: Aperio if there is an mpp, else generic TIFF, unless given. An Aperio slide may lack mpp; a generic
            TIFF tells it by its resolution tags.
        ifds: the page directories before all pixels, behind all pixels (as scanners do), or each before its level.
        sampling: of the chroma of JPEG, across and down: (2, 2) is 4:2:0. Without it components are RGB.

    Raises:
        ValueError: `downsamples` does not begin with 1, or a level would be empty.
    """
    if tuple(downsamples[:1]) != (1,):
        raise ValueError(f"downsamples must begin with 1, got {tuple(downsamples)}")
    if min(width, height) < max(downsamples):
        raise ValueError(f"{width} x {height} has no level of downsample {max(downsamples)}")
    vendor = vendor or ("aperio" if mpp is not None else "generic-tiff")
    compression = compression or ("deflate" if pattern in ("coordinates", "zigzag") else "jpeg")
    pixels = make_pixels(pattern, width, height, seed=seed, mpp=mpp or 0.25)
    options: dict[str, Any] = {"photometric": "rgb", "compression": _TIFFFILE_COMPRESSION[compression]}
    if compression == "jpeg":
        options["compressionargs"] = {"level": quality}
        options |= {"photometric": "ycbcr", "subsampling": sampling} if sampling else {}
    elif compression == "deflate":
        options["compressionargs"] = {"level": 1}
    elif compression.startswith("jpeg2000"):
        options["compressionargs"] = {"level": 0}  # lossless
    with tifffile.TiffWriter(path) as writer:
        for downsample in downsamples:
            level = area_average(pixels, downsample)
            tags = _page_tags(vendor, width, height, level.shape[1], level.shape[0], mpp, downsample)
            if compression in ("jpeg2000-ycbcr", "jpeg2000-422"):
                level = np.asarray(Image.fromarray(level).convert("YCbCr"))
            sides = tile if isinstance(tile, tuple) else (tile, tile)
            content = tiles_of_422(level, sides) if compression == "jpeg2000-422" else level
            writer.write(content, shape=level.shape, dtype=np.uint8, tile=sides, **options, **tags)
    if ifds != "spread":
        _move_ifds(path, ifds)
    return path


def write_slide(path: Path, pixels: Rgb, *, mpp: float, downsamples: Sequence[int] = (1, 4)) -> Path:
    """Write given level-0 pixels as an Aperio pyramid of JPEG tiles; returns `path`."""
    height, width = pixels.shape[:2]
    with tifffile.TiffWriter(path) as writer:
        for downsample in downsamples:
            level = area_average(pixels, downsample)
            tags = _page_tags("aperio", width, height, level.shape[1], level.shape[0], mpp, downsample)
            writer.write(
                level, tile=(256, 256), photometric="rgb", compression="jpeg", compressionargs={"level": 90}, **tags
            )
    return path


def make_leica_slide(
    path: Path,
    *,
    scanned_l0_px: tuple[int, int, int, int],
    width: int = 2000,
    height: int = 1500,
    mpp: float = 0.5,
    pattern: Pattern = "tissue",
    seed: int = 0,
) -> Path:
    """Write a Leica SCN of which only `scanned_l0_px` (x, y, width, height) was scanned, as its bounds say; lossless.

    Two levels, downsamples 1 and 4. The pixels of `pattern` begin at the scanned corner; all else is transparent.
    """
    x, y, w, h = scanned_l0_px
    nm = round(mpp * 1000)

    def image(pixels: str, size: tuple[int, int], offset: tuple[int, int], objective: int) -> str:
        view = f'sizeX="{size[0] * nm}" sizeY="{size[1] * nm}" offsetX="{offset[0] * nm}" offsetY="{offset[1] * nm}"'
        return (
            f'<image><device model="G2L test slide"/><pixels sizeX="{w}" sizeY="{h}">{pixels}</pixels>'
            f"<view {view}/><scanSettings><objectiveSettings><objective>{objective}</objective></objectiveSettings>"
            "<illuminationSettings><illuminationSource>brightfield</illuminationSource></illuminationSettings>"
            "</scanSettings></image>"
        )

    level = '<dimension sizeX="{}" sizeY="{}" r="{}" ifd="{}"/>'
    macro = image(level.format(256, 256, 0, 0), (width, height), (0, 0), 1)
    main = image(level.format(w, h, 0, 1) + level.format(w // 4, h // 4, 1, 2), (w, h), (x, y), 20)
    xml = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection name="" sizeX="{width * nm}" sizeY="{height * nm}">{macro}{main}</collection></scn>'
    )
    rgb = make_pixels(pattern, w, h, seed=seed, mpp=mpp)
    pages = (np.full((256, 256, 3), BACKGROUND, np.uint8), rgb, area_average(rgb, 4))
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for page, per_cm in zip(pages, (1e7 / nm, 1e7 / nm, 2.5e6 / nm), strict=True):
            writer.write(
                page,
                tile=(256, 256),
                photometric="rgb",
                compression="adobe_deflate",
                metadata=None,
                software=False,
                description=xml if page is pages[0] else None,
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
            )
    return path


def make_big_slide(
    path: Path,
    *,
    width: int = 20_000,
    height: int = 20_000,
    mpp: float = 0.25,
    downsamples: Sequence[int] = (1, 4, 16),
    seed: int = 0,
    quality: int = 80,
    block: int = 4096,
) -> Path:
    """Write a big Aperio slide in a second or so by repeating one block of tissue; returns `path`.

    Every tile is a real 256-pixel JPEG (4:2:0) with bytes of its own in the file, encoded once a block; so
    reading costs what it costs on a scanner's slide.

    Raises:
        ValueError: a level of the block is not made of whole tiles.
    """
    tile = 256
    if any(block % (downsample * tile) for downsample in downsamples):
        raise ValueError(f"a block of {block} px has no whole tiles at every downsample of {tuple(downsamples)}")
    pixels = make_pixels("tissue", block, block, seed=seed, mpp=mpp)
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for downsample in downsamples:
            level = area_average(pixels, downsample)
            encoded = _encode_tiles(level, tile, quality)
            w, h = width // downsample, height // downsample
            writer.write(
                _repeat_tiles(encoded, math.ceil(h / tile), math.ceil(w / tile)),
                shape=(h, w, 3),
                dtype=np.uint8,
                tile=(tile, tile),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                **_page_tags("aperio", width, height, w, h, mpp, downsample),
            )
    return path


def make_vast_slide(
    path: Path,
    *,
    width: int = 100_000,
    height: int = 80_000,
    mpp: float = 0.25,
    downsamples: Sequence[int] = (1,),
    seed: int = 0,
    tiles_seed: int | None = None,
    tile: int = 256,
) -> Path:
    """Write an Aperio slide as vast as any in a few MB; returns `path`.

    Tiles are real JPEGs (4:2:0), but the directory names the same few at many places: glass, and tissue in an ellipse
    in the middle and in small pieces around it. Slides of different seeds differ; of the same `tiles_seed` they differ
    in where their tiles lie, and are made in a few milliseconds.
    """
    rng = np.random.default_rng(seed)
    kinds = _vast_tiles(seed if tiles_seed is None else tiles_seed, tile)
    offsets = 8 + np.concatenate([[0], np.cumsum([len(each) + len(each) % 2 for each in kinds])])
    data = b"".join(each + b"\0" * (len(each) % 2) for each in kinds)
    pieces = rng.random((32, 32)) < 0.05
    pages = []
    for downsample in downsamples:
        w, h = width // downsample, height // downsample
        rows, columns = math.ceil(h / tile), math.ceil(w / tile)
        y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
        is_tissue = (x / 0.5) ** 2 + (y / 0.6) ** 2 < 1
        is_tissue |= pieces[((y + 1) * 15.99).astype(int), ((x + 1) * 15.99).astype(int)]
        kind = np.where(is_tissue, rng.integers(0, len(kinds) - 1, is_tissue.shape), len(kinds) - 1).ravel()
        sizes = np.array([len(each) for each in kinds])[kind]
        tags = _page_tags("aperio", width, height, w, h, mpp, downsample)
        pages.append(
            [
                (256, 4, 1, struct.pack("<I", w)),
                (257, 4, 1, struct.pack("<I", h)),
                (258, 3, 3, struct.pack("<3H", 8, 8, 8)),
                (259, 3, 1, struct.pack("<H", 7)),
                (262, 3, 1, struct.pack("<H", 6)),
                (270, 2, len(tags["description"]) + 1, tags["description"].encode() + b"\0"),
                (277, 3, 1, struct.pack("<H", 3)),
                (322, 4, 1, struct.pack("<I", tile)),
                (323, 4, 1, struct.pack("<I", tile)),
                (324, 4, len(kind), offsets[kind].astype("<u4").tobytes()),
                (325, 4, len(kind), sizes.astype("<u4").tobytes()),
                (530, 3, 2, struct.pack("<2H", 2, 2)),
            ]
        )
    start = 8 + len(data)
    path.write_bytes(b"II" + struct.pack("<HI", 42, start) + data + _pack_ifds(pages, start, 0))
    return path


@lru_cache(maxsize=4)
def _vast_tiles(seed: int, tile: int) -> list[bytes]:
    """The tiles of a vast slide: 16 of tissue, and the last one of glass."""
    tissue = make_pixels("tissue", 4000, 4000, seed=seed, mpp=0.5)[1300 : 1300 + 4 * tile, 1300 : 1300 + 4 * tile]
    glass = make_pixels("blank", tile, tile, seed=seed)
    kinds = [bytes(each) for row in _encode_tiles(tissue, tile, 80) for each in row]
    return [*kinds, bytes(_encode_tiles(glass, tile, 80)[0][0])]


def _encode_tiles(rgb: Rgb, tile: int, quality: int) -> list[list[bytes]]:
    rows, columns = rgb.shape[0] // tile, rgb.shape[1] // tile
    tiles = rgb.reshape(rows, tile, columns, tile, 3).swapaxes(1, 2)
    return [
        [
            bytes(
                imagecodecs.jpeg8_encode(
                    np.ascontiguousarray(pixels),
                    level=quality,
                    colorspace="rgb",
                    outcolorspace="ycbcr",
                    subsampling="420",
                )
            )
            for pixels in row
        ]
        for row in tiles
    ]


def _repeat_tiles(encoded: list[list[bytes]], num_rows: int, num_columns: int) -> Iterator[bytes]:
    for row in range(num_rows):
        source = encoded[row % len(encoded)]
        for column in range(num_columns):
            yield source[column % len(source)]


def _page_tags(
    vendor: Vendor, width: int, height: int, level_width: int, level_height: int, mpp: float | None, downsample: int
) -> dict[str, Any]:
    """Arguments of `TiffWriter.write` that make a page a level of this vendor's slide."""
    tags: dict[str, Any] = {"metadata": None, "software": False, "subfiletype": 0 if downsample == 1 else 1}
    if vendor == "generic-tiff":
        if mpp is not None:
            per_cm = 1e4 / (mpp * downsample)
            tags |= {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"}
        return tags
    size = f"{width}x{height} [0,0 {width}x{height}]"
    if downsample != 1:
        size += f" -> {level_width}x{level_height}"
    description = f"Aperio Image Library v12.0.15\n{size} G2L test slide"
    if mpp is not None:
        description += f"|AppMag = {10 / mpp:g}|MPP = {mpp:.4f}"
    return tags | {"description": description}


# --- damage: each writes a copy and returns its path --------------------------------------------------------


def truncate(path: Path, fraction: float = 0.6, out: Path | None = None) -> Path:
    """Copy the first `fraction` of a file."""
    out = _copy(path, out, "truncated")
    with open(out, "r+b") as f:
        f.truncate(int(path.stat().st_size * fraction))
    return out


def damage_tiles(
    path: Path,
    tiles: Iterable[tuple[int, int]],
    *,
    level: int = 0,
    how: Damage = "garbage",
    seed: int = 0,
    out: Path | None = None,
) -> Path:
    """Copy a slide and damage some of its tiles.

    Args:
        tiles: (column, row) of each tile in its level.
        level: counted as OpenSlide does, finest first.
        how: "zero" and "garbage" overwrite all bytes of the tile; "scramble" keeps the first half and overwrites
            the rest with random bytes free of 0xFF (no JPEG marker); "flip" flips one bit in the middle;
            "truncate" halves the tile's byte count; "missing" sets it to 0; "outside" moves the tile's offset past
            the file's end.

    Raises:
        IndexError: no such level or tile.
    """
    rng = np.random.default_rng(seed)
    with tifffile.TiffFile(path) as tiff:
        pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage) and page.is_tiled]
        page = sorted(pages, key=lambda page: -page.imagewidth)[level]
        order = tiff.byteorder
        num_columns = math.ceil(page.imagewidth / page.tilewidth)
        num_rows = math.ceil(page.imagelength / page.tilelength)
        offsets, counts = page.dataoffsets, page.databytecounts
        offset_tag, count_tag = page.tags["TileOffsets"], page.tags["TileByteCounts"]
    out = _copy(path, out, how)
    with open(out, "r+b") as f:
        for column, row in tiles:
            if not (0 <= column < num_columns and 0 <= row < num_rows):
                raise IndexError(f"level {level} has {num_columns} x {num_rows} tiles, none at {(column, row)}")
            index = row * num_columns + column
            offset, count = offsets[index], counts[index]
            if how in ("zero", "garbage", "scramble"):
                kept = count // 2 if how == "scramble" else 0
                last = {"zero": 1, "garbage": 256, "scramble": 255}[how]
                f.seek(offset + kept)
                f.write(rng.integers(0, last, count - kept, np.uint8).tobytes())
                continue
            if how == "flip":
                f.seek(offset)
                content = f.read(count)
                # neither take away nor add a byte 0xFF, which could begin a JPEG marker
                at = next(i for i in range(count // 2, count) if content[i] not in (0x00, 0xEF, 0xFF))
                f.seek(offset + at)
                f.write(bytes([content[at] ^ 0x10]))
                continue
            tag = offset_tag if how == "outside" else count_tag
            code = {3: "H", 4: "I", 16: "Q"}[int(tag.dtype)]
            value = {"truncate": count // 2, "missing": 0, "outside": path.stat().st_size + 1000}[how]
            f.seek(tag.valueoffset + index * struct.calcsize(code))
            f.write(struct.pack(order + code, value))
    return out


def damage_header(path: Path, words: dict[int, int], *, level: int = 0, out: Path | None = None) -> Path:
    """Copy a slide and overwrite words of a level's page directory: the 4 bytes of a tag's value or of its place.

    TileLength (323) of 2**30 - 1 makes OpenSlide 4.0.1 abort the process when the level is read.

    Args:
        words: new 32-bit words by tag.
    """
    with tifffile.TiffFile(path) as tiff:
        pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage) and page.is_tiled]
        page = sorted(pages, key=lambda page: -page.imagewidth)[level]
        order, places = tiff.byteorder, {tag: page.tags[tag].offset + 8 for tag in words}
    out = _copy(path, out, "header")
    with open(out, "r+b") as f:
        for tag, word in words.items():
            f.seek(places[tag])
            f.write(struct.pack(order + "I", word))
    return out


def rename_property(path: Path, old: bytes, new: bytes) -> Path:
    """Overwrite bytes of a slide's description with as many others, in place."""
    data = path.read_bytes()
    assert old in data
    assert len(old) == len(new)
    path.write_bytes(data.replace(old, new))
    return path


def not_a_slide(path: Path) -> Path:
    """Write a file that is no slide, whatever its name says."""
    path.write_text("This is not a slide.\n" * 100)
    return path


def _copy(path: Path, out: Path | None, what: str) -> Path:
    out = out or path.with_name(f"{path.stem}-{what}{path.suffix}")
    shutil.copyfile(path, out)
    return out


# --- page directories ---------------------------------------------------------------------------------------

_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_TILE_OFFSETS = 324


def _move_ifds(path: Path, to: Literal["front", "end"]) -> None:
    """Rewrite a classic little-endian tiled TIFF with all its page directories at one place.

    The old directories stay behind as dead bytes.
    """
    data = path.read_bytes()
    assert data[:4] == b"II*\0", "a classic little-endian TIFF"
    pages: list[list[tuple[int, int, int, bytes]]] = []
    (at,) = struct.unpack_from("<I", data, 4)
    while at:
        (num_tags,) = struct.unpack_from("<H", data, at)
        tags = []
        for i in range(num_tags):
            code, kind, count = struct.unpack_from("<HHI", data, at + 2 + 12 * i)
            size = _TYPE_BYTES[kind] * count
            where = at + 10 + 12 * i
            if size > 4:
                (where,) = struct.unpack_from("<I", data, where)
            tags.append((code, kind, count, data[where : where + size]))
        pages.append(tags)
        (at,) = struct.unpack_from("<I", data, at + 2 + 12 * num_tags)
    if to == "end":
        data += bytes(-len(data) % 2)
        block = _pack_ifds(pages, len(data), 0)
        path.write_bytes(data[:4] + struct.pack("<I", len(data)) + data[8:] + block)
    else:
        shift = len(_pack_ifds(pages, 8, 0))
        path.write_bytes(data[:4] + struct.pack("<I", 8) + _pack_ifds(pages, 8, shift) + data[8:])


def _pack_ifds(pages: list[list[tuple[int, int, int, bytes]]], base: int, shift: int) -> bytes:
    """Chained page directories that begin at `base`, each with its values, for pixels that moved by `shift` bytes."""
    block = b""
    for page_index, tags in enumerate(pages):
        start = base + len(block)
        entries, values = b"", b""
        values_at = start + 2 + 12 * len(tags) + 4
        for code, kind, count, value in tags:
            if code == _TILE_OFFSETS:
                assert kind == 4, "32-bit offsets"
                value = (np.frombuffer(value, "<u4") + np.uint32(shift)).astype("<u4").tobytes()
            if len(value) <= 4:
                entries += struct.pack("<HHI", code, kind, count) + value.ljust(4, b"\0")
            else:
                entries += struct.pack("<HHII", code, kind, count, values_at + len(values))
                values += value + bytes(len(value) % 2)
        after = values_at + len(values) if page_index + 1 < len(pages) else 0
        block += struct.pack("<H", len(tags)) + entries + struct.pack("<I", after) + values
    return block
