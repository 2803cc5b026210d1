"""Tables of a plan: what all slides, each centre and each class have in cases and patches.

They show what a student will see most of, and which centre or class is hardly there. A class is a value of a label of
the manifest (its columns beyond the known ones) that has few values; identifiers are none.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from pipeline.base.console import table
from pipeline.cohort.plan import SlidePlan
from pipeline.disk.label_words import cell_value
from pipeline.sampling import TRAIN

MOST_CLASSES = 10
"""Values of a label up to which it counts as classes. Our choice."""
MOST_GROUPS = 20
"""Centres that are listed, those with most patches first. Our choice: a screenful."""
NOT_KNOWN = "(not known)"
TABLE_HEAD = ("slides", "cases", "patches", "to train on", "a case: least", "median", "most")


def balance_tables(slides: Sequence[SlidePlan]) -> str:
    """The tables for the terminal: over all slides, by centre if any is known, and by each label of classes."""
    tables = [_group_table("all", {"all": list(slides)})]
    if any(slide.center for slide in slides):
        tables.append(_group_table("centre", _grouped(slides, lambda slide: slide.center or "")))
    for label in class_labels(slides):
        tables.append(_group_table(label, _grouped(slides, partial(_class_of, label=label))))
    return "\n".join(tables)


def class_labels(slides: Sequence[SlidePlan]) -> list[str]:
    """Labels of two or more classes, at most `MOST_CLASSES` of them, and fewer than there are labelled slides."""
    labels = dict.fromkeys(name for slide in slides for name in slide.labels)
    cells = {name: [value for slide in slides if (value := _class_of(slide, name))] for name in labels}
    return [name for name, values in cells.items() if 2 <= len(set(values)) <= min(MOST_CLASSES, len(values) - 1)]


def _class_of(slide: SlidePlan, label: str) -> str:
    """The slide's class; "" if it has none."""
    return cell_value(slide.labels.get(label, ""))


def _grouped(slides: Sequence[SlidePlan], key: Callable[[SlidePlan], str]) -> dict[str, list[SlidePlan]]:
    """Slides by a key, those with most patches first."""
    groups: dict[str, list[SlidePlan]] = {}
    for slide in slides:
        groups.setdefault(key(slide) or NOT_KNOWN, []).append(slide)
    return dict(sorted(groups.items(), key=lambda item: (-sum(len(slide.split) for slide in item[1]), item[0])))


def _group_table(kind: str, groups: dict[str, list[SlidePlan]]) -> str:
    """A table with a line a group, and how many more groups there are."""
    names = list(groups)[:MOST_GROUPS]
    lines = table(
        [_line(name, groups[name]) for name in names], (kind, *TABLE_HEAD), right=range(1, len(TABLE_HEAD) + 1)
    )
    hidden = [slide for name in list(groups)[MOST_GROUPS:] for slide in groups[name]]
    if not hidden:
        return lines
    patches = sum(len(slide.split) for slide in hidden)
    return f"{lines}\n... and {len(groups) - MOST_GROUPS:,} more with {patches:,} patches; the CSV has all"


def _line(name: str, slides: Sequence[SlidePlan]) -> tuple[str, ...]:
    """The line of a group."""
    of_case: dict[str, int] = {}
    for slide in slides:
        of_case[slide.case_id] = of_case.get(slide.case_id, 0) + len(slide.split)
    total, train = sum(of_case.values()), sum(int((slide.split == TRAIN).sum()) for slide in slides)
    spread = [f"{value:,.0f}" for value in np.quantile(list(of_case.values()), (0, 0.5, 1))]
    return name, f"{len(slides):,}", f"{len(of_case):,}", f"{total:,}", f"{train:,}", *spread
