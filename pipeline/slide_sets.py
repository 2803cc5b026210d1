"""The slides of a benchmark: which label, which case, which feature files, and what is left out and why.

A CSV gives labels of slides or cases (TP53 status, subtype, ...) and folders give a feature file a slide, one folder a
model. All models are scored on the same slides: one that any folder lacks is left out for all, and listed.

What is predicted is the *unit*, by its *bag*, the patches of all of its slides. The unit is the case, unless the CSV
gives slides of one case different labels: then it is the slide, and folds still keep cases together. What it leaves
out: what the files hold; `slide_benchmark` reads them.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BenchmarkError, ManifestError
from pipeline.feature_folders import find_feature_files
from pipeline.manifest import Problem, Record, read_table, refuse, unused_columns_note
from pipeline.report import Exclusion

UNKNOWN_LABELS = frozenset(
    {"", "-", "--", "'--", "na", "n/a", "nan", "null", "missing", "unknown", "not available", "not evaluated",
     "not reported", "not applicable", "indeterminate"}
)  # fmt: skip
"""Labels that say that there is none, in any case and in square brackets or not: what pandas writes, and what the GDC's
and cBioPortal's clinical tables hold. "none" is not among them: it may be a class.
"""
COLUMNS = ("slide_id", "case_id", "center", "split")
"""Columns that have a meaning beside that of the labels."""
MAX_NAMED = 5
"""Exclusions or cases that an error or a note names. Our choice: enough to see what is wrong."""

Unit = Literal["case", "slide"]


@dataclass(frozen=True)
class Bag:
    """What is predicted at once.

    Attributes:
        name: id of the unit, a case or a slide.
        case_id: the case it belongs to; folds and resamples keep cases together.
        label: its class.
        center: where it comes from, "" if the CSV does not say; several are joined by " + ".
        split: the CSV's split, "" if it gives none.
        slides: ids of the slides whose patches it holds.
    """

    name: str
    case_id: str
    label: str
    center: str
    split: str
    slides: tuple[str, ...]


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
    """

    path: Path
    label: str
    unit: Unit
    bags: tuple[Bag, ...]
    files: Mapping[str, Mapping[str, Path]]
    exclusions: tuple[Exclusion, ...]
    notes: tuple[str, ...]
    incomplete: tuple[str, ...]

    @property
    def labels(self) -> NDArray[np.str_]:
        """Each bag's class; (N,)."""
        return np.array([bag.label for bag in self.bags], dtype=np.str_)

    @property
    def cases(self) -> NDArray[np.str_]:
        """Each bag's case; (N,)."""
        return np.array([bag.case_id for bag in self.bags], dtype=np.str_)

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
            if kept and (len(kept) < len(bag.slides) or bag.name in self.incomplete):
                incomplete.append(bag.name)
            if kept:
                bags.append(replace(bag, slides=kept))
            elif self.unit == "case":
                exclusions.append(Exclusion(f"case {bag.name}", "no slide of it is left"))
        files = {model: {s: f for s, f in found.items() if s not in broken} for model, found in self.files.items()}
        return replace(
            self,
            bags=tuple(bags),
            files=files,
            exclusions=(*self.exclusions, *exclusions),
            incomplete=tuple(incomplete),
        )

    def require_scorable(self, num_folds: int | None) -> None:
        """Refuse a set that gives no number; `num_folds` is `None` where the CSV gives the split.

        Raises:
            BenchmarkError: no bag is left, all are of one class, or a class has fewer cases than there are folds.
        """
        source = f"{self.path}, column {self.label}"
        if not self.bags:
            named = "".join(f"\n  {e.what}: {e.why}" for e in self.exclusions[:MAX_NAMED])
            raise BenchmarkError(
                f"{source}: no {self.unit} has both a label and features of every model; {len(self.exclusions)} are "
                f"left out:{named}\nCompare the ids of the CSV with the names of the feature files."
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
                f"{source}: {num_folds} folds need at least {num_folds} cases of every class, but {', '.join(few)}. "
                f"Take fewer with --folds, or take rare classes out of the CSV"
            )


@dataclass(frozen=True)
class _Row:
    """A row of the CSV; `slide_id` is empty where the CSV has no such column, `label` where the label is unknown."""

    line: int
    slide_id: str
    case_id: str
    label: str
    center: str
    split: str


def read_slide_set(path: Path, label: str, features: Sequence[tuple[str, Path]]) -> SlideSet:
    """The benchmark that a CSV and folders of features make; `features` are pairs of a model's label and its folder.

    The CSV has `slide_id`, `case_id` or both, the column `label`, and optionally `center` and `split`. With `case_id`
    alone, a case has the slides whose feature files are named by the case id and then nothing or something that is no
    letter or digit, as `TCGA-3C-AALI-01Z-00-DX1` belongs to `TCGA-3C-AALI`; of several cases it is the longest. With
    `slide_id` alone, every slide is a case of its own.

    Raises:
        BenchmarkError: the CSV or a folder cannot be used, one case or slide has different labels or splits, or an id
            is missing; with the lines. What has no label or no features is no error but an exclusion.
    """
    try:
        records, problems = read_table(path, (label,), ",")
        records = _renamed(records, label)
        has_slides, has_cases = (any(name in cells for _, cells in records) for name in ("slide_id", "case_id"))
        if not (has_slides or has_cases) and not problems:
            raise BenchmarkError(f"{path}: no column slide_id or case_id; one of them must say what a label is of")
        rows, exclusions = _rows(records, label, problems)
        labelled = [row for row in rows if row.label]
        unit = _unit_of(labelled, has_slides, has_cases, problems)
        refuse(path, problems)
    except ManifestError as error:
        raise BenchmarkError(str(error)) from None
    files = {model: find_feature_files(folder) for model, folder in features}
    slides_of = _slides_by_case(rows, has_slides, files)
    grouped: dict[str, list[_Row]] = {}
    for row in sorted(labelled, key=lambda row: (row.slide_id, row.line)):
        grouped.setdefault(row.case_id if unit == "case" else row.slide_id, []).append(row)
    without_label = {row.case_id for row in rows if has_slides and not row.label}
    bags, incomplete = [], []
    for name, group in sorted(grouped.items()):
        wanted = [row.slide_id for row in group] if has_slides else slides_of.get(name, [])
        kept = []
        for slide in wanted:
            lacking = [model for model, found in files.items() if slide not in found]
            if lacking:
                what = named(slide, group[0].case_id)
                exclusions.append(Exclusion(what, f"no feature file for {', '.join(lacking)}"))
            else:
                kept.append(slide)
        if kept:
            bags.append(_bag(name, group, kept))
            if len(kept) < len(wanted) or name in without_label:
                incomplete.append(name)
        elif unit == "case":
            why = "no slide of it has features of every model" if wanted else "no feature file is named after it"
            exclusions.append(Exclusion(f"case {name}", why))
    unused = unused_columns_note(name for name in records[0][1] if name not in (*COLUMNS, label))
    used = {slide for bag in bags for slide in bag.slides}
    return SlideSet(
        path=path,
        label=label,
        unit=unit,
        bags=tuple(bags),
        files={model: {s: file for s, file in found.items() if s in used} for model, found in files.items()},
        exclusions=tuple(exclusions),
        notes=(*_notes_on_units(unit, has_cases), *_notes_on_files(slides_of, files), *filter(None, [unused])),
        incomplete=tuple(incomplete),
    )


SYNONYMS = {"case_id": ("case", "patient_id", "patient"), "center": ("centre", "medical_center")}
"""Other names of columns, which count where the first name is not there."""


def _renamed(records: Sequence[Record], label: str) -> list[Record]:
    """The records with the first of each column's other names under its own; the label's column stays."""
    names = {name for _, cells in records for name in cells}
    of = {
        other: own
        for own, others in SYNONYMS.items()
        if own not in names and (other := next((name for name in others if name in names and name != label), ""))
    }
    return [(line, {of.get(name, name): cell for name, cell in cells.items()}) for line, cells in records]


def is_unknown(cell: str) -> bool:
    """Whether a cell says that there is no label, see `UNKNOWN_LABELS`."""
    return cell.strip().strip("[]").strip().lower() in UNKNOWN_LABELS


def named(slide: str, case_id: str) -> str:
    """A slide as exclusions name it."""
    return f"slide {slide}" if slide == case_id else f"slide {slide} of case {case_id}"


def case_of_stem(stem: str, cases: Container[str]) -> str | None:
    """The longest of `cases` that a file's name starts with, up to its end or to what is no letter or digit."""
    ends = [len(stem), *(i for i in range(len(stem) - 1, 0, -1) if not stem[i].isalnum())]
    return next((stem[:end] for end in ends if stem[:end] in cases), None)


def _rows(records: Sequence[Record], label: str, problems: list[Problem]) -> tuple[list[_Row], list[Exclusion]]:
    """All rows, and those without a label as exclusions; missing ids are added to `problems`."""
    rows, exclusions = [], []
    for line, record in records:
        cells = {name: cell.strip() for name, cell in record.items()}
        slide_id = cells.get("slide_id", "")
        case_id = cells.get("case_id", "") or slide_id
        if "slide_id" in cells and not slide_id:
            problems.append((line, "slide_id is empty; fill it, or leave the column out to go by case_id"))
        elif not case_id:
            problems.append((line, "case_id is empty"))
        elif is_unknown(cells.get("case_id", "")) and cells.get("case_id"):
            problems.append((line, f"case_id {case_id!r} stands for a missing value; give the case, or leave the cell "
                             "empty for a slide that is a case of its own"))  # fmt: skip
        known = not is_unknown(cells[label])
        if not known:
            what = named(slide_id, case_id) if slide_id else f"case {case_id}"
            exclusions.append(Exclusion(what, f"{label} is {cells[label]!r}: no label (line {line})", by_rule=True))
        value = cells[label] if known else ""
        center = "" if is_unknown(cells.get("center", "")) else cells["center"]
        rows.append(_Row(line, slide_id, case_id, value, center, cells.get("split", "")))
    return rows, exclusions


def _unit_of(rows: Sequence[_Row], has_slides: bool, has_cases: bool, problems: list[Problem]) -> Unit:
    """What is predicted; slides and cases that contradict themselves are added to `problems`."""
    by_case: dict[str, list[_Row]] = {}
    by_slide: dict[str, list[_Row]] = {}
    for row in rows:
        by_case.setdefault(row.case_id, []).append(row)
        by_slide.setdefault(row.slide_id, []).append(row)
    for case_id, group in by_case.items():
        splits = sorted({row.split or "none" for row in group})
        if len(splits) > 1:
            problems.append((group[0].line, f"case {case_id} has several splits: {', '.join(splits)}"))
    if has_slides:
        for slide_id, group in by_slide.items():
            if len(group) > 1:
                lines = ", ".join(str(row.line) for row in group)
                problems.append((group[0].line, f"slide_id {slide_id} is given on lines {lines}; keep one"))
    mixed = [(case_id, group) for case_id, group in by_case.items() if len({row.label for row in group}) > 1]
    if not has_slides:
        for case_id, group in mixed:
            labels = ", ".join(f"{row.label!r} (line {row.line})" for row in group)
            problems.append((group[0].line, f"case {case_id} has several labels: {labels}; keep one"))
        return "case"
    return "slide" if mixed or not has_cases else "case"


def _slides_by_case(
    rows: Sequence[_Row], has_slides: bool, files: Mapping[str, Mapping[str, Path]]
) -> dict[str, list[str]]:
    """Slides of every case of the CSV, with a label or not, sorted: those that the CSV names, or else those of any
    folder whose file's name belongs to the case.
    """
    found: dict[str, set[str]] = {row.case_id: set() for row in rows}
    if has_slides:
        for row in rows:
            found[row.case_id].add(row.slide_id)
    else:
        for stem in {stem for of_model in files.values() for stem in of_model}:
            case_id = case_of_stem(stem, found)
            if case_id is not None:
                found[case_id].add(stem)
    return {case_id: sorted(slides) for case_id, slides in found.items()}


def _bag(name: str, group: Sequence[_Row], slides: Sequence[str]) -> Bag:
    """The bag of the rows of one unit."""
    centers = sorted({row.center for row in group if row.center})
    return Bag(name, group[0].case_id, group[0].label, " + ".join(centers), group[0].split, tuple(slides))


def _notes_on_units(unit: Unit, has_cases: bool) -> list[str]:
    """What a reader of the numbers must know about how rows became bags."""
    if not has_cases:
        return [
            "The CSV has no case_id: every slide counts as a case of its own. If patients have several slides, give "
            "case_id; otherwise the numbers are too good."
        ]
    if unit == "slide":
        return ["Slides of one case have different labels: each slide is predicted by itself, in folds by case."]
    return []


def _notes_on_files(slides_of: Mapping[str, Sequence[str]], files: Mapping[str, Mapping[str, Path]]) -> list[str]:
    """How many feature files belong to no row."""
    listed = {slide for slides in slides_of.values() for slide in slides}
    others = {model: len(found.keys() - listed) for model, found in files.items()}
    return [f"{model}: {count} feature files belong to no row of the CSV." for model, count in others.items() if count]
