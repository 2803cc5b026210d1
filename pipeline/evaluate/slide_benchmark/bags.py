"""The bags of a slide benchmark: which units are predicted from which feature files, and what is left out and why.

A *unit* (a case or a slide) is predicted from its *bag*, the patches of all of its slides. `data` reads bags from a
table.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import BenchmarkError
from pipeline.report.content import Exclusion

MOST_NAMED = 5
"""Exclusions or cases that an error or a note names. Our choice: enough to see what is wrong."""

Unit = Literal["case", "slide"]


@dataclass(frozen=True)
class Bag:
    """The patches that one prediction is made from.

    Attributes:
        name: id of the unit, a case or a slide.
        case_id: the case or patient it belongs to; folds and resamples keep cases together.
        label: its class.
        centers: where it comes from, sorted; none if the CSV does not say, several if the slides below are of several.
        split: the CSV's split, "" if it gives none.
        slides: ids of the slides whose patches it holds.
    """

    name: str
    case_id: str
    label: str
    centers: tuple[str, ...]
    split: str
    slides: tuple[str, ...]

    @property
    def center(self) -> str:
        """Its centre, "" of none; several are joined by " + ", which is the name of no centre."""
        return " + ".join(self.centers)


@dataclass(frozen=True)
class SlideSet:
    """The bags of a benchmark.

    Attributes:
        path: the CSV.
        label: its column that is predicted.
        unit: what a bag is.
        bags: in the order of their names.
        files: by the models' labels, the feature file of every slide of the bags.
        exclusions: rows, slides and cases that are left out, and why.
        notes: what a reader of the numbers must know.
        incomplete: names of the bags that lack a slide of their case, which is among the exclusions.
        center_of: the centre of each slide, "" of none; nothing where the CSV is of cases.
    """

    path: Path
    label: str
    unit: Unit
    bags: tuple[Bag, ...]
    files: Mapping[str, Mapping[str, Path]]
    exclusions: tuple[Exclusion, ...]
    notes: tuple[str, ...]
    incomplete: tuple[str, ...]
    center_of: Mapping[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> NDArray[np.str_]:
        """Each bag's class; (N,)."""
        return np.array([bag.label for bag in self.bags], dtype=np.str_)

    @property
    def cases(self) -> NDArray[np.str_]:
        """Each bag's case; (N,)."""
        return np.array([bag.case_id for bag in self.bags], dtype=np.str_)

    @property
    def has_split(self) -> bool:
        """Whether the CSV gives the split."""
        return any(bag.split for bag in self.bags)

    @property
    def slides(self) -> list[str]:
        """All slides, in the order of the bags."""
        return [slide for bag in self.bags for slide in bag.slides]

    def without(self, broken: Mapping[str, str]) -> "SlideSet":
        """The set without slides whose features cannot be used; `broken` says why, by slide."""
        case_of = {slide: bag.case_id for bag in self.bags for slide in bag.slides}
        exclusions = [Exclusion(named(slide, case_of[slide]), why) for slide, why in sorted(broken.items())]
        bags, incomplete = [], []
        for bag in self.bags:
            kept = tuple(slide for slide in bag.slides if slide not in broken)
            if kept:
                bags.append(replace(bag, slides=kept, centers=self._centers(bag, kept)))
                incomplete += [bag.name] if len(kept) < len(bag.slides) or bag.name in self.incomplete else []
            elif self.unit == "case":
                exclusions.append(Exclusion(f"case {bag.name}", "no slide of it is left"))
        return replace(
            self,
            bags=tuple(bags),
            files={model: _without(of_model, broken) for model, of_model in self.files.items()},
            exclusions=(*self.exclusions, *exclusions),
            incomplete=tuple(incomplete),
        )

    def _centers(self, bag: Bag, slides: Sequence[str]) -> tuple[str, ...]:
        """The centres of these slides of a bag; of a table of cases, those of the bag."""
        if not self.center_of:
            return bag.centers
        return tuple(sorted({self.center_of[slide] for slide in slides if self.center_of[slide]}))

    def require_scorable(self, num_folds: int | None) -> None:
        """Refuse a set that gives no number; `num_folds` is `None` where the CSV gives the split.

        Raises:
            BenchmarkError: no bag is left, all are of one class, or a class has fewer cases than there are folds.
        """
        source = f"{self.path}, column {self.label}"
        if not self.bags:
            listed = "".join(f"\n  {e.what}: {e.why}" for e in self.exclusions[:MOST_NAMED])
            unmatched = any("no feature file" in exclusion.why for exclusion in self.exclusions)
            hint = "\nCompare the ids of the CSV with the names of the feature files." if unmatched else ""
            raise BenchmarkError(
                f"{source}: no {self.unit} has both a label and features of every model; {len(self.exclusions)} are "
                f"left out:{listed}{hint}"
            )
        cases_of = {
            name: len({bag.case_id for bag in self.bags if bag.label == name})
            for name in sorted(set(self.labels.tolist()))
        }
        if len(cases_of) < 2:
            raise BenchmarkError(
                f"{source}: all {len(self.bags)} {self.unit}s that are left have the label {self.bags[0].label!r}; "
                f"a benchmark needs two classes. Name another column with --label"
            )
        few = [f"{name!r} has {count}" for name, count in cases_of.items() if num_folds and count < num_folds]
        if few:
            raise BenchmarkError(
                f"{source}: {num_folds} folds need at least {num_folds} cases of every class, but {_few_words(few)}. "
                f"Take fewer with --folds, or take rare classes out of the CSV"
            )


def _few_words(few: Sequence[str]) -> str:
    """Classes with too few cases; of many, as where the label is a number, the first."""
    more = f" and {len(few) - MOST_NAMED:,} more classes have too few" if len(few) > MOST_NAMED else ""
    return ", ".join(few[:MOST_NAMED]) + more


def _without(files: Mapping[str, Path], broken: Container[str]) -> dict[str, Path]:
    """The files of the slides that are not `broken`."""
    return {slide: file for slide, file in files.items() if slide not in broken}


def named(slide: str, case_id: str) -> str:
    """A slide as exclusions name it."""
    return f"slide {slide}" if slide == case_id else f"slide {slide} of case {case_id}"
