"""Choose the examples that a classifier is fitted on and those it is scored on: folds never share a group (a case).

Patches of one case on both sides of a split make every encoder look good. Folds are those of scikit-learn's
StratifiedGroupKFold, or StratifiedKFold where every example is a group of its own; both depend on the examples' labels,
groups and the seed, never on their order. A split that comes with the data is checked and used as it is. Pure.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from pipeline.base.draws import draw_seed
from pipeline.base.errors import BenchmarkError

ATTEMPTS = 10
"""Shuffles that are tried until every class is in every training part. Our choice: the first one mostly does."""
MAX_SHOWN = 5
"""Names that a message lists. Our choice."""
SPLITS = ("train", "val", "test")
"""Splits that a benchmark's table may name."""

Rows = NDArray[np.int64]


def _no_rows() -> Rows:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class Fold:
    """Rows to fit on and to score, ascending; `val` are rows that only a given split has, to choose settings by."""

    train: Rows
    test: Rows
    val: Rows = field(default_factory=_no_rows)


def group_folds(
    labels: NDArray[np.str_], groups: NDArray[np.str_], num_folds: int, seed: int, purpose: str = "folds"
) -> list[Fold]:
    """Folds of rows with `labels` (N,) and `groups` (N,): every row is in exactly one test part, a group in one.

    Classes are spread over the test parts as evenly as whole groups allow; a test part may lack a class, a training
    part may not.

    Raises:
        BenchmarkError: no rows, a single class, fewer groups than folds, or a class that some training part would
            lack, because all of its rows are of one group or because no assignment was found.
    """
    classes = _classes_of(labels)
    group_names, group_of_row = np.unique(groups, return_inverse=True)
    if len(group_names) < num_folds:
        raise BenchmarkError(
            f"{num_folds} folds need as many groups (cases), and there are {len(group_names)}: "
            f"{_some(group_names)}; ask for fewer folds or give more cases"
        )
    held_by = {str(name): len(np.unique(group_of_row[labels == name])) for name in classes}
    short = [name for name, count in held_by.items() if count < 2]
    if short:
        raise BenchmarkError(
            f"each class needs examples of at least 2 groups (cases), so that it can be learnt from one and scored on "
            f"another; of 1 group only: {_some(short)}; leave the class out or give more cases"
        )
    order = np.lexsort((labels, groups))
    for shuffle in np.random.SeedSequence(draw_seed(purpose, seed)).generate_state(ATTEMPTS):
        folds = _shuffled_folds(labels[order], groups[order], num_folds, int(shuffle))
        folds = [Fold(np.sort(order[fold.train]), np.sort(order[fold.test])) for fold in folds]
        if all(len(np.unique(labels[fold.train])) == len(classes) for fold in folds):
            return folds
    counts = ", ".join(f"{name!r} {count}" for name, count in list(held_by.items())[:MAX_SHOWN])
    raise BenchmarkError(
        f"no assignment of {len(group_names)} groups (cases) to {num_folds} folds keeps every class in every training "
        f"part; groups of a class: {counts}; ask for fewer folds or give more cases"
    )


def given_split(
    labels: NDArray[np.str_], groups: NDArray[np.str_], splits: NDArray[np.str_], source: str
) -> list[Fold]:
    """The one fold of a split that comes with the data: `splits` (N,) says train, val or test for each row.

    Rows of val are neither fitted on nor scored: a setting, such as the strength of a regularisation, is chosen by
    them. `source` names the file in messages.

    Raises:
        BenchmarkError: an unknown name, no rows to train on or to test on, a group in two splits, a class of test or
            val that train lacks, or a single class in test.
    """
    unknown = [index for index, name in enumerate(splits) if name not in SPLITS]
    if unknown:
        shown = ", ".join(f"{str(splits[i])!r} (example {i + 1})" for i in unknown[:MAX_SHOWN])
        raise BenchmarkError(
            f"{source}: the split of {len(unknown)} of {len(splits)} examples is none of {', '.join(SPLITS)}: {shown}; "
            "give every example one of these, or leave the column out for folds"
        )
    train, val, test = (np.flatnonzero(splits == name) for name in SPLITS)
    for name, rows in (("train", train), ("test", test)):
        if len(rows) == 0:
            raise BenchmarkError(f"{source}: no example is of the split {name!r}; there must be some of train and test")
    for first, second in (("train", "test"), ("train", "val"), ("val", "test")):
        shared = np.intersect1d(groups[splits == first], groups[splits == second])
        if len(shared):
            raise BenchmarkError(
                f"{source}: {len(shared)} groups (cases) are both in {first} and in {second}: {_some(shared)}; "
                "move each to one side, or leave the split out for folds"
            )
    for name, rows in (("test", test), ("val", val)):
        lacking = np.setdiff1d(labels[rows], labels[train])
        if len(lacking):
            raise BenchmarkError(
                f"{source}: {name} has classes that train lacks: {_some(lacking)}; nothing can learn these"
            )
    try:
        _classes_of(labels[test])
    except BenchmarkError as error:
        raise BenchmarkError(f"{source}: test: {error}") from None
    return [Fold(train, test, val)]


def parts_of_rows(folds: Sequence[Fold], num_rows: int) -> Rows:
    """Index of the fold that scores each row, (N,); -1 for rows that none does."""
    parts = np.full(num_rows, -1, np.int64)
    for index, fold in enumerate(folds):
        parts[fold.test] = index
    return parts


def _shuffled_folds(labels: NDArray[np.str_], groups: NDArray[np.str_], num_folds: int, shuffle: int) -> list[Fold]:
    """Scikit-learn's folds of rows in the order of their groups.

    Raises:
        BenchmarkError: no class has as many rows as there are folds.
    """
    largest = int(np.unique(labels, return_counts=True)[1].max())
    if largest < num_folds:
        raise BenchmarkError(f"{num_folds} folds need a class of as many examples, and the largest has {largest}")
    alone = len(np.unique(groups)) == len(groups)
    made = (StratifiedKFold if alone else StratifiedGroupKFold)(num_folds, shuffle=True, random_state=shuffle)
    with warnings.catch_warnings():
        # A class of fewer rows than folds is no problem as long as every training part has it, which the caller checks.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        return [Fold(train, test) for train, test in made.split(labels, labels, None if alone else groups)]


def _classes_of(labels: NDArray[np.str_]) -> NDArray[np.str_]:
    """The classes in order.

    Raises:
        BenchmarkError: no rows or a single class.
    """
    if len(labels) == 0:
        raise BenchmarkError("there are no examples")
    classes = np.unique(labels)
    if len(classes) < 2:
        raise BenchmarkError(
            f"all {len(labels)} examples are of one class, {str(classes[0])!r}: there is nothing to tell apart"
        )
    return classes


def _some(names: Sequence[str] | NDArray[np.str_]) -> str:
    """A few names, and how many more."""
    more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return ", ".join(repr(str(name)) for name in names[:MAX_SHOWN]) + more
