"""Round the directions of embeddings to a grid of whole numbers, so that comparing them is exact.

Which patch is nearest must not depend on the order of rows, the number of threads or the machine; in floating point it
does, as soon as two patches are about equally near. Rows of length 1 are therefore rounded to multiples of 2**-26. All
sums within a dot product are then whole numbers of at most 2**52 (Cauchy-Schwarz), which float64 holds exactly in
whatever order they are added. The rounding moves a cosine by about 4e-9, less than the last digit of a float32. Pure.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import BenchmarkError

GRID_BITS = 26
"""The finest grid whose dot products are exact: 2 * 26 bits are within the 53 of a float64."""
BLOCK_CELLS = 1 << 23
"""Cosines in work at once. Our choice: 64 MB."""

Floats = NDArray[np.float64]


def grid_directions(embeddings: NDArray[np.floating]) -> Floats:
    """The directions of `embeddings` (N, D) as whole numbers in float64 (N, D), of length 2**26.

    Products of two of them, summed over D, are exact; between rows of length 1 their order is that of the cosine, and
    the reverse of that of the Euclidean distance.

    Raises:
        BenchmarkError: an embedding is not finite, or is zero and has no direction.
    """
    bad = np.flatnonzero(~np.isfinite(embeddings).all(1))
    if len(bad):
        raise BenchmarkError(
            f"{len(bad):,} of {len(embeddings):,} embeddings hold NaN or infinity, the first is number {bad[0] + 1}. "
            "Try --precision float32, or other weights"
        )
    values = embeddings.astype(np.float64)
    values /= np.maximum(np.abs(values).max(1, keepdims=True), np.finfo(np.float64).tiny)  # no square is lost
    lengths = np.sqrt(np.square(values).sum(1, keepdims=True))
    zero = np.flatnonzero(lengths[:, 0] == 0)
    if len(zero):
        raise BenchmarkError(
            f"{len(zero):,} of {len(embeddings):,} embeddings are zero and point nowhere, the first is number "
            f"{zero[0] + 1}; this model cannot be compared by direction"
        )
    directions: Floats = np.rint(values * (2.0**GRID_BITS / lengths))
    return directions


def canonical_order(
    values: NDArray[np.floating], rows: NDArray[np.int64], *columns: NDArray[np.str_]
) -> NDArray[np.int64]:
    """`rows` in an order that does not depend on the table's: by `columns` (N,), then by the bytes of `values` (N, D).

    Rows that are equal in all of these keep their order; they are interchangeable.
    """
    keys = {row: (*(str(column[row]) for column in columns), values[row].tobytes()) for row in rows.tolist()}
    return np.array(sorted(keys, key=keys.__getitem__), dtype=np.int64)


def row_blocks(num_rows: int, num_columns: int) -> Iterator[slice]:
    """Slices of the rows of a (num_rows, num_columns) matrix that hold about `BLOCK_CELLS` cells each."""
    size = max(1, BLOCK_CELLS // max(1, num_columns))
    return (slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size))


def nearest(similarity: Floats, count: int) -> NDArray[np.int64]:
    """Columns of the `count` largest values of each row of `similarity` (B, N), largest first: (B, count).

    Of equal values the one with the lower column comes first.
    """
    num_rows, num_columns = similarity.shape
    if count < num_columns:
        least = np.partition(similarity, num_columns - count, axis=1)[:, num_columns - count, None]
        taken = similarity >= least
        for row in np.flatnonzero(taken.sum(1) > count):
            equal = np.flatnonzero(similarity[row] == least[row])
            taken[row, equal[count - int(taken[row].sum()) :]] = False
        columns = np.nonzero(taken)[1].reshape(num_rows, count)
    else:
        columns = np.broadcast_to(np.arange(num_columns), similarity.shape)
    order = np.argsort(-np.take_along_axis(similarity, columns, 1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, 1).astype(np.int64)
