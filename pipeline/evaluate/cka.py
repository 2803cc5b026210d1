"""Linear CKA of a model with the reference on the patches of a benchmark, with intervals over cases.

Centred kernel alignment (Kornblith et al., "Similarity of neural network representations revisited", ICML 2019) of two
sets of embeddings of the same patches: HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)), with linear kernels.

Two estimators are given. The debiased one has the unbiased estimator of HSIC (Song et al., "Feature selection via
dependence maximization", JMLR 2012): about 0 for embeddings that have nothing in common, whatever the number of patches
and the widths. The plain one, Kornblith's and what papers mostly print, is biased upwards where patches are few for the
widths. Intervals are of the debiased one. They come from resamples of cases, where a row counts as often as its case
was drawn; as in the estimator itself, a row makes no pair with itself, nor with its copies: those would look like
evidence of agreement. All sums over pairs go by moments of cases,

    sum over rows i of case g and j of case h of (x_i . x_j) (y_i . y_j) = <X_g' Y_g, X_h' Y_h>,

so that no matrix of patches by patches is needed. Pure.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pipeline.base.cores import usable_cores
from pipeline.base.draws import draw_seed
from pipeline.evaluate.bootstrap import Draws, GroupResamples, interval, statistic_draws
from pipeline.report.content import Cell, Column, Table

MOST_RESAMPLED = 100
"""Groups that are resampled one by one. Our choice: the work grows with their square. More groups are put, at random
and whole, into so many bins of about equally many groups, and bins are resampled instead.
"""
BLOCK_CELLS = 1 << 22
"""Numbers of the groups' moments in work at once. Our choice: 16 MB in float32."""
BLOCK_RESAMPLES = 64
"""In work at once. Our choice: with 100 groups 5 MB."""
MAX_WORKERS = 4
"""Our choice: each holds a block of the groups' moments."""
SMALLEST_STRUCTURE = 1e-6
"""A debiased HSIC of a model with itself below this share of the plain one is the rounding of float32: of a model that
embeds all patches the same, or nearly so.
"""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Cka:
    """Linear CKA of one model with the reference.

    Attributes:
        debiased: with its resamples; NaN where it is not defined.
        plain: the biased estimate over the same patches; NaN likewise.
    """

    debiased: Draws
    plain: float


@dataclass(frozen=True, eq=False)
class _Side:
    """Embeddings of one model, centred and scaled so that their mean squared length is 1.

    Attributes:
        rows: float32 (N, D).
        squares: squared length of each, (N,).
        sums: of the rows of each group, (G, D).
    """

    rows: NDArray[np.float32]
    squares: Floats
    sums: Floats


def cka_with(
    embeddings: Mapping[str, NDArray[np.float32]], reference: str, groups: NDArray[np.str_], resamples: int, seed: int
) -> dict[str, Cka]:
    """CKA of each model but the reference with it, by label; `embeddings` (N, D) are of patches of `groups` (N,)."""
    if len(embeddings) < 2:
        return {}
    drawn = GroupResamples(resampled_groups(groups, seed), resamples, seed)
    with threadpool_limits(1, "blas"):  # float32 sums: their digits must not depend on the number of cores
        base = _side(embeddings[reference], drawn)
        itself = _alignments(base, base, drawn)
        found = {}
        for label, values in embeddings.items():
            if label != reference:
                side = _side(values, drawn)
                found[label] = _cka(_alignments(side, base, drawn), _alignments(side, side, drawn), itself, drawn)
    return found


def cka_table(ckas: Mapping[str, Cka], reference: str, unit: str) -> list[Table]:
    """A line a model; none without models to compare. `unit` is what is resampled, in the plural."""
    if not ckas:
        return []
    columns = [
        Column("model"),
        Column(
            "CKA, debiased",
            f"Linear centred kernel alignment with {reference}, by the unbiased estimator of HSIC (Song et al., 2012): "
            "1 if the embeddings are the same but for turning, moving and scaling, about 0 if they share nothing.",
            better="higher",
        ),
        Column(
            "CKA, plain",
            "By the biased estimator (Kornblith et al., 2019), as most papers print it: too high where patches are few "
            "for the widths.",
            better="higher",
        ),
    ]
    rows: list[list[Cell]] = [
        [label, interval(cka.debiased), None if np.isnan(cka.plain) else cka.plain] for label, cka in ckas.items()
    ]
    note = (
        f"Over all patches of the set. Intervals are of the debiased estimate, over {unit}; of more than "
        f"{MOST_RESAMPLED}, {unit} are resampled in {MOST_RESAMPLED} random bins. No patch makes a pair with its own "
        "copies in a resample."
    )
    return [Table(f"Linear CKA with {reference}", columns, rows, note)]


def resampled_groups(groups: NDArray[np.str_], seed: int) -> NDArray[np.str_]:
    """The groups (N,) that are resampled: as they are, or bins of them where there are more than `MOST_RESAMPLED`."""
    names, group_of_row = np.unique(groups, return_inverse=True)
    if len(names) <= MOST_RESAMPLED:
        return groups
    order = np.random.default_rng(draw_seed("bins of groups", seed)).permutation(len(names))
    bins = np.empty(len(names), np.int64)
    bins[order] = np.arange(len(names)) % MOST_RESAMPLED
    return bins[group_of_row].astype(np.str_)


def _cka(with_base: Floats, itself: Floats, of_base: Floats, drawn: GroupResamples) -> Cka:
    """CKA from the alignments (2, 1 + B): debiased and plain, of the data and of each resample."""
    defined = (itself[0] > SMALLEST_STRUCTURE * itself[1]) & (of_base[0] > SMALLEST_STRUCTURE * of_base[1])
    scale = np.sqrt(np.where(defined, itself[0] * of_base[0], 1))
    debiased = np.where(defined, with_base[0] / scale, np.nan)
    alike = itself[1, 0] * of_base[1, 0]
    plain = float(with_base[1, 0] / np.sqrt(alike)) if defined[0] else float("nan")
    return Cka(statistic_draws(debiased, drawn), plain)


def _side(embeddings: NDArray[np.float32], drawn: GroupResamples) -> _Side:
    """A model's embeddings (N, D) as the sums need them."""
    centred = embeddings - embeddings.mean(0, dtype=np.float64).astype(np.float32)
    length = np.sqrt(np.square(centred, dtype=np.float64).sum() / len(centred))
    rows = np.asarray(centred / (length if length > 0 else 1), np.float32)
    sums = np.stack([rows[of_group].sum(0, dtype=np.float64) for of_group in _rows_of_groups(drawn)])
    return _Side(rows, np.square(rows, dtype=np.float64).sum(1), sums)


def _alignments(first: _Side, second: _Side, drawn: GroupResamples) -> Floats:
    """HSIC without its common factor, debiased and plain, of the data and of each resample: (2, 1 + B).

    NaN where a resample has fewer than four rows.
    """
    num_groups = drawn.num_groups
    own = np.bincount(drawn.group_of_row, first.squares * second.squares, num_groups)
    pairs, triples = _pairs(first.rows, second.rows, drawn), _triples(first, second, drawn, with_own=True)
    others = _triples(first, second, drawn, with_own=False)
    wholes = [side.sums @ side.sums.T for side in (first, second)]
    diagonals = [np.bincount(drawn.group_of_row, side.squares, num_groups) for side in (first, second)]
    rows_of_group = np.bincount(drawn.group_of_row, minlength=num_groups).astype(np.float64)
    blocks = [np.ones((1, num_groups))]
    for start in range(0, len(drawn), BLOCK_RESAMPLES):
        blocks.append(drawn.counts[start : start + BLOCK_RESAMPLES].astype(np.float64))
    found = []
    for weights in blocks:
        squared, n = np.square(weights), weights @ rows_of_group
        both = _quadratic(weights, pairs)
        of_sides = [_quadratic(weights, whole) for whole in wholes]
        plain = both - 2 * _cubic(weights, triples) / n + of_sides[0] * of_sides[1] / np.square(n)
        # A row and its copies are no pair: their terms are those of the kernels' diagonals.
        both = both - squared @ own
        of_sides = [whole - squared @ diagonal for whole, diagonal in zip(of_sides, diagonals, strict=True)]
        m = np.maximum(n, 4)
        debiased = both + of_sides[0] * of_sides[1] / ((m - 1) * (m - 2)) - 2 * _cubic(weights, others) / (m - 2)
        found.append(np.where(n > 3, np.stack([debiased * m / (m - 3), plain]), np.nan))
    return np.concatenate(found, axis=1)


def _quadratic(weights: Floats, form: Floats) -> Floats:
    """w' F w of each of the weights (B, G) and a form (G, G): (B,)."""
    return np.asarray(((weights @ form) * weights).sum(1))


def _cubic(weights: Floats, form: Floats) -> Floats:
    """Sum over g, h and k of w_g w_h w_k F_ghk of each of the weights (B, G) and a form (G, G, G): (B,)."""
    num_groups = weights.shape[1]
    by_group = (weights @ form.reshape(num_groups, -1)).reshape(-1, num_groups, num_groups)
    return np.asarray(np.einsum("bhk,bh,bk->b", by_group, weights, weights, optimize=True))


def _pairs(first: NDArray[np.float32], second: NDArray[np.float32], drawn: GroupResamples) -> Floats:
    """For two groups, the sum over their rows of the product of both kernels, (G, G)."""
    rows_of = _rows_of_groups(drawn)
    size = max(1, BLOCK_CELLS // (len(rows_of) * second.shape[1]))

    def of_columns(start: int) -> Floats:
        part, beside = first[:, start : start + size], second
        if first is second:  # half of a symmetric form is enough: what is beyond its diagonal block counts twice
            beside = second[:, start:].copy()
            beside[:, part.shape[1] :] *= np.float32(2**0.5)
        crossed = np.stack([(part[rows].T @ beside[rows]).ravel() for rows in rows_of])
        return np.asarray(crossed @ crossed.T, np.float64)

    with ThreadPoolExecutor(min(MAX_WORKERS, usable_cores())) as pool:
        blocks = list(pool.map(of_columns, range(0, first.shape[1], size)))
    return np.asarray(np.sum(blocks, axis=0))


def _triples(first: _Side, second: _Side, drawn: GroupResamples, *, with_own: bool) -> Floats:
    """For groups g, h and k, the sum over rows of g of the products of their kernels' sums with the rows of h (of the
    first side) and of k (of the second): (G, G, G). `with_own`: a row's kernel with itself counts.
    """
    num_groups = drawn.num_groups
    kernels = []
    for side in (first, second):
        kernel = np.asarray(side.rows @ side.sums.T.astype(np.float32), np.float64)
        if not with_own:
            kernel[np.arange(len(kernel)), drawn.group_of_row] -= side.squares
        kernels.append(kernel)
    triples = np.empty((num_groups, num_groups, num_groups))
    for group, rows in enumerate(_rows_of_groups(drawn)):
        triples[group] = kernels[0][rows].T @ kernels[1][rows]
    return triples


def _rows_of_groups(drawn: GroupResamples) -> list[Ints]:
    """The rows of each group, ascending."""
    order = np.argsort(drawn.group_of_row, kind="stable")
    ends = np.cumsum(np.bincount(drawn.group_of_row, minlength=drawn.num_groups))
    return np.split(order, ends[:-1])
