"""Find the nearest rows exactly, with fewer of the expensive products.

Products of directions on the grid (see `directions`) are exact in float64, and take most of the time of a search. Two
shortcuts give the same neighbours as the plain search, down to the last tie:

- few neighbours: products in float32, whose error is bounded, leave a few candidates of each row; only these are
  multiplied exactly;
- many neighbours, of all rows among themselves: a product counts for both of its rows, so half of them are enough.

Where embeddings are so alike that there are too many candidates, the plain search takes over. Threads share the work by
blocks of rows; products are exact, so the number of threads changes nothing.

Training finds neighbours in another way (`training.similarity.nearest_neighbours`): in float32, on any device, with
ties in whatever order torch leaves them. Its figures and those of fidelity keep that search, so that their digits stay
comparable. Here ties go to the lower row, because the index and the kNN probe must not depend on threads. Pure.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pipeline.base.cores import usable_cores
from pipeline.evaluate.directions import GRID_BITS, Floats, nearest, row_blocks

MAX_WORKERS = 4
"""Our choice: each holds a block of products."""
GROUPS_A_NEIGHBOUR = 12
"""Groups of columns whose largest products tell about where the last neighbour lies. Our choice."""
MAX_CANDIDATES = 8
"""As many times the neighbours are multiplied one row at a time. Our choice."""
SAMPLE_SHARE = 16
"""One of so many rows is looked at to tell about where the last of many neighbours lies. Our choice."""
SAMPLE_ERRORS = 4.0
"""Standard errors of that place which are added. Our choice: of 20,000 rows about one then has too few candidates."""
MIN_SHARED_ROWS = 4096
"""With fewer rows the plain search is quick enough. Our choice."""
MAX_SHARED_PART = 8
"""Above one of so many rows as neighbours, the candidates would take more memory than they save time. Our choice."""
WAVE = 4
"""Blocks for each thread before their candidates are looked through. Our choice."""

Ints = NDArray[np.int64]
Use = Callable[[slice, Ints, Floats], None]
Piece = tuple[NDArray[np.int16], NDArray[np.int32], Floats]
"""Candidates of one block: row within it, column, product."""


def float32_directions(grid: Floats) -> NDArray[np.float32]:
    """`grid` (N, D) at length 1, in float32."""
    unit: NDArray[np.float32] = (grid * 2.0**-GRID_BITS).astype(np.float32)
    return unit


def product_error(width: int) -> float:
    """How far a product of two `float32_directions` of so many dimensions may be from the exact one at most.

    That is `width` roundings of sums of at most 1, in whatever order they are added, and one of each factor (Higham,
    "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1), with a tenth for what is of second order.
    """
    return 1.1 * (width + 4) * 2.0**-24


def nearest_among(
    grid: Floats, unit: NDArray[np.float32], rows: Ints, among: Ints, count: int
) -> Iterator[tuple[slice, Ints]]:
    """Blocks of `rows` (M,), each with the places in `among` (n,) of its `count` nearest, (B, count), nearest first.

    Of equally near ones the first of `among` comes first. `grid` (N, D) and `unit`, its `float32_directions`, are of
    all rows.
    """
    columns = unit[among]
    for block in row_blocks(len(rows), len(among)):
        yield block, _few_nearest(grid, unit[rows[block]] @ columns.T, rows[block], among, count)


def _few_nearest(grid: Floats, cosines: NDArray[np.float32], rows: Ints, among: Ints, count: int) -> Ints:
    """Places of the nearest by the exact products, found by the float32 ones (B, n): (B, count)."""
    least = _about_last(cosines, count) - (2 * product_error(grid.shape[1]) + 2.0**-23)
    candidates = cosines >= least.astype(np.float32)[:, None]
    crowded = np.count_nonzero(candidates, axis=1) > MAX_CANDIDATES * count
    near = np.empty((len(rows), count), np.int64)
    for row in np.flatnonzero(~crowded):
        places = np.flatnonzero(candidates[row])
        exact = grid[among[places]] @ grid[rows[row]]
        near[row] = places[np.argsort(-exact, kind="stable")[:count]]
    many = np.flatnonzero(crowded)
    for block in row_blocks(len(many), len(among)):
        near[many[block]] = nearest(_products(grid, rows[many[block]], among), count)
    return near


def _about_last(cosines: NDArray[np.float32], count: int) -> Floats:
    """No more than the `count`-th largest of each row of `cosines` (B, n), and close to it where there are many: (B,).

    Of the largest of each group of columns, the `count`-th: so many columns are at least as large.
    """
    num_groups = GROUPS_A_NEIGHBOUR * count
    size = cosines.shape[1] // num_groups
    if size > 1:
        cosines = cosines[:, : size * num_groups].reshape(len(cosines), size, num_groups).max(1)
    last = cosines.shape[1] - count
    return np.partition(cosines, last, axis=1)[:, last].astype(np.float64)


def _products(grid: Floats, rows: Ints, among: Ints) -> Floats:
    """Exact products of `rows` (B,) with `among` (n,): (B, n); without a copy of all of `grid`."""
    asked, products = grid[rows], np.empty((len(rows), len(among)))
    for start in range(0, len(among), MIN_SHARED_ROWS):
        part = slice(start, start + MIN_SHARED_ROWS)
        products[:, part] = asked @ grid[among[part]].T
    return products


def nearest_of_all(grid: Floats, count: int, use: Use) -> None:
    """Give `use` each block of the rows of `grid` (n, D), with the `count` nearest of each among all, itself included.

    `use(block, columns, products)`: columns and products are (B, count), nearest first, of equally near ones the lower
    column. It is called in threads, for every block once, in no order.
    """
    blocks = list(row_blocks(len(grid), len(grid)))
    workers = min(MAX_WORKERS, usable_cores())
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(workers) as pool:
        if len(grid) < MIN_SHARED_ROWS or count * MAX_SHARED_PART > len(grid):
            list(pool.map(lambda block: use(block, *_plain(grid, np.arange(len(grid))[block], count)), blocks))
            return
        search = _SharedSearch(grid, count, blocks)
        list(pool.map(search.look, blocks))
        for start in range(0, len(blocks), WAVE * workers):
            wave = range(start, min(start + WAVE * workers, len(blocks)))
            for number, pieces in zip(wave, pool.map(search.multiply, wave), strict=True):
                search.keep(number, pieces)
            list(pool.map(lambda number: use(blocks[number], *search.take(number)), wave))


def _plain(grid: Floats, rows: Ints, count: int) -> tuple[Ints, Floats]:
    """Columns and products of the nearest of `rows` (B,) among all, each (B, count)."""
    products = grid[rows] @ grid.T
    columns = nearest(products, count)
    return columns, np.take_along_axis(products, columns, 1)


class _SharedSearch:
    """Each block is multiplied with itself and the later ones; a product is kept where it may count, for either row.

    May count: it is no less than the row's floor, which a sample of the rows sets a little lower than the `count`-th
    largest. Whatever the floors are, the result is exact: rows with too few candidates are searched plainly.
    """

    def __init__(self, grid: Floats, count: int, blocks: Sequence[slice]) -> None:
        self.grid, self.count, self.blocks = grid, count, blocks
        num_rows = len(grid)
        size = num_rows // SAMPLE_SHARE
        self.sample = float32_directions(grid[np.random.default_rng(0).choice(num_rows, size, replace=False)])
        expected = count / SAMPLE_SHARE
        self.place = min(size, int(expected + SAMPLE_ERRORS * expected**0.5) + 2)
        self.floors = np.empty(num_rows)
        self.pieces: list[list[Piece]] = [[] for _ in blocks]

    def look(self, block: slice) -> None:
        """Set the floors of a block; none is low enough where about all are equally near."""
        cosines = float32_directions(self.grid[block]) @ self.sample.T
        last = len(self.sample) - self.place
        floors = np.partition(cosines, last, axis=1)[:, last]
        crowded = np.count_nonzero(cosines >= floors[:, None], axis=1) > 2 * self.place
        self.floors[block] = np.where(crowded, np.inf, floors * 4.0**GRID_BITS)

    def multiply(self, number: int) -> list[Piece]:
        """Candidates from a block's products with itself and the later ones: of its own rows, then of each later's."""
        block = self.blocks[number]
        products = self.grid[block] @ self.grid[block.start :].T
        places = np.flatnonzero(products >= self.floors[block, None])
        rows, columns = np.divmod(places, products.shape[1])
        pieces = [_piece(rows, columns + block.start, products.ravel()[places])]
        for later in self.blocks[number + 1 :]:
            part = products[:, later.start - block.start : later.stop - block.start]
            places = np.flatnonzero(part >= self.floors[later])
            columns, rows = np.divmod(places, part.shape[1])
            pieces.append(_piece(rows, columns + block.start, part[columns, rows]))
        return pieces

    def keep(self, number: int, pieces: Sequence[Piece]) -> None:
        """Give the candidates of block `number` to the blocks that they are of; in the order of the blocks."""
        for of_block, piece in zip(self.pieces[number:], pieces, strict=True):
            of_block.append(piece)

    def take(self, number: int) -> tuple[Ints, Floats]:
        """Columns and products of the nearest of a block, whose candidates go."""
        block = self.blocks[number]
        num_rows = block.stop - block.start
        rows, columns, products = (np.concatenate(parts) for parts in zip(*self.pieces[number], strict=True))
        self.pieces[number] = []
        order = np.argsort(rows, kind="stable")  # columns of a row are ascending, and stay so
        counts = np.bincount(rows, minlength=num_rows)
        width = max(int(counts.max()), self.count)
        filled = np.arange(width) < counts[:, None]
        table, names = np.full((num_rows, width), -np.inf), np.zeros((num_rows, width), np.int64)
        table[filled], names[filled] = products[order], columns[order]
        near = nearest(table, self.count)
        columns, values = np.take_along_axis(names, near, 1), np.take_along_axis(table, near, 1)
        short = np.flatnonzero(counts < self.count)
        if len(short):
            columns[short], values[short] = _plain(self.grid, short + block.start, self.count)
        return columns, values


def _piece(rows: Ints, columns: Ints, products: Floats) -> Piece:
    """Candidates in little memory."""
    return rows.astype(np.int16), columns.astype(np.int32), products
