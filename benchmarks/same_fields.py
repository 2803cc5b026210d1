"""Whether a field that is there twice can be told from even tissue by its pixels alone, and what `verify` pays for it.

Patches of 96 px are cut from tiles: made-up even tissue (noise at several scales and little contrast), or the images of
`--folder`. Each is there again: copied, compressed to JPEG at quality 80, shifted by one pixel and by a sixth of its
side, and scanned again (half a pixel off, darker by 3 %, noise of two grey levels). Compared are equal pixels, which
`g2l verify` reports, and a difference hash of 64 bits with up to 4 bits apart, which it does not: share found, and
other patches taken for one field, of all and of the evener half. Measured in turn: the search in a store of made-up
patches, and the checks that `verify` makes anyway, each twenty times.
"""

import io
import sys
import tempfile
from pathlib import Path

import inputs  # noqa: F401  (the path of the tests' support)
import machine
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from support.stores import make_patches, make_store

from pipeline.base.console import table
from pipeline.store.check import check_shard
from pipeline.store.repeats.same_fields import find_same_fields

SIDE, MARGIN = 96, 16
BITS_APART = 4
TIMES = 20
STORED = 1000
"""Rows of the store, of 224 px."""
NEEDED = 0.25
"""Share of the time of the checks that the search may take. Our choice."""
Rgb = NDArray[np.uint8]


def even_tile(seed: int) -> Rgb:
    """Tissue of little contrast, some pixels larger than a patch."""
    rng, side = np.random.default_rng(seed), SIDE + 2 * MARGIN
    grey = np.zeros((side, side))
    for cell in (2, 8, 32):
        grey += ndimage.zoom(rng.standard_normal((side // cell + 2,) * 2), cell, order=1)[:side, :side]
    rgb: Rgb = np.clip(np.array([215, 150, 185]) + 6 * grey[..., None], 0, 255).astype(np.uint8)
    return rgb


def tiles_of(folder: Path) -> list[Rgb]:
    """Tiles of the images below a folder, side by side."""
    side, tiles = SIDE + 2 * MARGIN, []
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".jpg", ".tif")):
        rgb = np.asarray(Image.open(path).convert("RGB"))
        places = [(y, x) for y in range(0, len(rgb) - side + 1, side) for x in range(0, rgb.shape[1] - side + 1, side)]
        tiles += [rgb[y : y + side, x : x + side] for y, x in places]
    return tiles


def middle(tile: Rgb, off: int = 0) -> Rgb:
    """The patch in a tile, `off` pixels to the right and down."""
    return tile[MARGIN + off : MARGIN + off + SIDE, MARGIN + off : MARGIN + off + SIDE]


def as_jpeg(rgb: Rgb) -> Rgb:
    """Compressed and decoded again."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=80)
    return np.asarray(Image.open(file))


def scanned_again(tile: Rgb, seed: int) -> Rgb:
    """The patch by another scan."""
    shifted = ndimage.shift(tile.astype(float), (0.5, 0.5, 0), order=1, mode="nearest") * 0.97
    noisy = shifted + np.random.default_rng(seed).normal(0, 2, tile.shape)
    return middle(np.clip(noisy, 0, 255).astype(np.uint8))


def difference_hash(patch: Rgb) -> NDArray[np.bool_]:
    """64 bits: whether each cell of 8 x 9 is darker than the next one."""
    small = np.asarray(Image.fromarray(patch).convert("L").resize((9, 8), Image.Resampling.BOX), int)
    return np.diff(small, axis=1).ravel() > 0


def pairs_within(hashes: NDArray[np.bool_]) -> int:
    """Pairs of hashes (N, 64) that are up to `BITS_APART` bits apart."""
    signs = np.where(hashes, 1, -1).astype(np.float32)
    near = signs @ signs.T >= 64 - 2 * BITS_APART
    return int(np.triu(near, 1).sum())


def compare(tiles: list[Rgb]) -> None:
    """Print what is found and what is taken for it."""
    patches = [middle(tile) for tile in tiles]
    hashes = np.array([difference_hash(patch) for patch in patches])
    again = {
        "copied": patches,
        "JPEG, quality 80": [as_jpeg(patch) for patch in patches],
        "shifted by 1 px": [middle(tile, 1) for tile in tiles],
        f"shifted by {MARGIN} px": [middle(tile, MARGIN) for tile in tiles],
        "scanned again": [scanned_again(tile, seed) for seed, tile in enumerate(tiles)],
    }
    rows = []
    for what, others in again.items():
        same = np.mean([np.array_equal(a, b) for a, b in zip(patches, others, strict=True)])
        apart = (np.array([difference_hash(other) for other in others]) != hashes).sum(axis=1)
        rows.append((what, f"{same:.1%}", f"{(apart <= BITS_APART).mean():.1%}"))
    print(table(rows, ("there again", "equal pixels", "difference hash"), right=[1, 2]))
    spread = np.array([patch.std() for patch in patches])
    for name, chosen in (
        ("all", np.arange(len(patches))),
        ("the evener half", np.argsort(spread)[: len(patches) // 2]),
    ):
        equal = len(chosen) - len({patches[index].tobytes() for index in chosen})
        pairs = len(chosen) * (len(chosen) - 1) // 2
        near = pairs_within(hashes[chosen])
        print(f"{name}: wrongly taken for one field of {pairs:,} pairs: equal pixels {equal}, difference hash {near:,}")


def main() -> int:
    """Measure and print."""
    parser = machine.parser(__doc__, rounds=5)
    parser.add_argument("--patches", type=int, default=4000, help="made-up patches")
    parser.add_argument("--folder", type=Path, help="images in place of made-up tissue")
    args = parser.parse_args()
    compare(tiles_of(args.folder) if args.folder else [even_tile(seed) for seed in range(args.patches)])
    with tempfile.TemporaryDirectory() as folder:
        patches = make_patches(STORED, 224)
        store = make_store(
            Path(folder) / "s.zarr", train=[STORED], val=[], rows_per_shard=STORED // 4, patch_px=224, patches=patches
        )
        parts = {
            "checks": lambda: [check_shard(store.first, shard) for _ in range(TIMES) for shard in store.first.shards],
            "search": lambda: [find_same_fields(store) for _ in range(TIMES)],
        }
        rounds = machine.measure_rounds(parts, wanted=args.rounds, patience=args.patience)
        print(table([(name, f"{rounds.seconds(name):.4f}") for name in parts], ("", "s"), right=[1]))
        print(rounds.words())
        return machine.conclude(rounds.ratio(["search"], ["checks"]), at_most=NEEDED, quiet=rounds.quiet)


if __name__ == "__main__":
    sys.exit(main())
