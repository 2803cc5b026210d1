"""Find patches that are the same picture: refuse copies that give an answer away, count the others.

A patch that is on both sides of a fold, or under two labels, makes every score wrong, and no column shows it. Two
patches are copies if their RGB pixels are the same, however the files are called or compressed. Patches of one colour
throughout, such as blank background, are alike by nature and tell nothing of their case: they are counted only. Left
out: pictures that are nearly the same, such as shifted or recompressed ones.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import BenchmarkError
from pipeline.evaluate.groups import GROUP_WORDS
from pipeline.evaluate.images import ScannedImages
from pipeline.evaluate.patch_benchmark.data import PatchSet

MAX_SHOWN = 20
"""Pairs that an error lists. Our choice: enough to see what is wrong."""


def require_no_leak(patch_set: PatchSet, scanned: ScannedImages) -> PatchSet:
    """The set with its pictures and with notes on copies; its images are the usable ones of `scanned`.

    Raises:
        BenchmarkError: copies of a picture are of different labels, groups or splits; lists pairs.
    """
    usable = scanned.usable()
    codes = np.unique(np.array([scanned.pixels[i] for i in usable]), return_inverse=True)[1].astype(np.int64)
    plain = np.array([i in scanned.plain for i in usable], dtype=np.bool_)
    pairs = _pairs(codes)
    differing = _differing(patch_set, pairs)
    if leaks := {pair: names for pair, names in differing.items() if not plain[pair[0]]}:
        raise BenchmarkError(_error(patch_set, leaks))
    num_plain = sum(bool(plain[first]) for first, _ in differing)
    num_copies = sum(not plain[first] for first, _ in pairs)
    notes = [*_notes_on_copies(patch_set, num_copies), *_notes_on_plain(num_plain, len(patch_set))]
    return replace(
        patch_set, pictures=np.where(plain, -1, codes), notes_on_pictures=(*patch_set.notes_on_pictures, *notes)
    )


def _pairs(codes: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Each row that has the code of an earlier one, behind the first of these."""
    first_row, inverse = np.unique(codes, return_index=True, return_inverse=True)[1:]
    first = first_row[inverse]
    return [(int(first[row]), int(row)) for row in np.flatnonzero(first != np.arange(len(codes)))]


def _differing(patch_set: PatchSet, pairs: Sequence[tuple[int, int]]) -> dict[tuple[int, int], list[str]]:
    """The columns in which both rows of a pair differ, by pair; pairs that differ in none are left out."""
    columns = {"label": patch_set.labels, patch_set.group_column: patch_set.groups, "split": patch_set.splits}
    given = {name: column for name, column in columns.items() if column is not None}
    names = {(a, b): [name for name, column in given.items() if column[a] != column[b]] for a, b in pairs}
    return {pair: of_pair for pair, of_pair in names.items() if of_pair}


def _error(patch_set: PatchSet, leaks: dict[tuple[int, int], list[str]]) -> str:
    """What is wrong with copies, and how to fix it; `leaks` are pairs of rows and the columns in which they differ."""
    names = list(dict.fromkeys(name for of_pair in leaks.values() for name in of_pair))

    def described(row: int, differing: Sequence[str]) -> str:
        columns = {"label": patch_set.labels, "split": patch_set.splits, patch_set.group_column: patch_set.groups}
        values = [f"{name} {str(column[row])!r}" for name in differing if (column := columns[name]) is not None]
        return f"{patch_set.paths[row]} ({', '.join(values)})"

    shown = list(leaks.items())[:MAX_SHOWN]
    lines = [f"\n  {described(a, differing)} and {described(b, differing)}" for (a, b), differing in shown]
    more = f"\n  and {len(leaks) - len(shown):,} more" if len(leaks) > len(shown) else ""
    copies = f"{len(leaks):,} {'patch is a copy' if len(leaks) == 1 else 'patches are copies'}"
    return (
        f"{patch_set.source}: {copies}, pixel for pixel, of another with a different {' or '.join(names)}:"
        f"{''.join(lines)}{more}\nA picture that is both learned from and asked for makes every score wrong. Take one "
        f"of each pair out, or give both the same {' and '.join(names)}."
    )


def _notes_on_copies(patch_set: PatchSet, count: int) -> list[str]:
    """What to know of copies that are no leak."""
    if not count:
        return []
    what = "patches is a copy" if count == 1 else "patches are copies"
    alike = "class" if patch_set.groups is None else f"class and of the same {GROUP_WORDS[patch_set.group_column][:-1]}"
    kept = "Copies are kept on one side and resampled together" if patch_set.groups is None else "Each counts"
    return [f"{count:,} of {len(patch_set):,} {what}, pixel for pixel, of another of the same {alike}. {kept}."]


def _notes_on_plain(count: int, num_patches: int) -> list[str]:
    """What to know of patches of one colour."""
    if not count:
        return []
    return [
        f"{count:,} of {num_patches:,} patches are of one colour throughout, and the same as one of another label, "
        "group or split. Blank patches are alike by nature and count; nothing can tell them apart."
    ]
