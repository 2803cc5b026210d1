"""The slides of a benchmark: which label, which case, which feature files, and what is left out and why.

A CSV gives labels of slides or cases (TP53 status, subtype, ...) and folders give a feature file a slide, one folder a
model. All models are scored on the same slides: one that any folder lacks is left out for all, and listed.

What is predicted is the *unit*, by its *bag*, the patches of all of its slides. The unit is the case, unless the CSV
gives slides of one case different labels: then it is the slide, and folds still keep cases together. What it leaves
out: what the files hold; `slide_benchmark` reads them.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.bags import Bag, SlideSet, Unit, named
from pipeline.errors import BenchmarkError, ManifestError
from pipeline.feature_files import FEATURE_SUFFIXES
from pipeline.feature_folders import find_feature_files
from pipeline.folds import SPLITS
from pipeline.label_words import is_unknown, numeric_notes, spelling_notes
from pipeline.manifest import Problem, Record, read_table, refuse, unused_columns_note
from pipeline.manifest_sources import SLIDE_SUFFIXES
from pipeline.patch_groups import coarsest
from pipeline.report import Exclusion

COLUMNS = ("slide_id", "case_id", "center", "split")
"""Columns that have a meaning beside that of the labels."""
SYNONYMS = {
    "slide_id": ("filename",),
    "case_id": ("case", "patient_id", "patient"),
    "center": ("centre", "medical_center"),
}
"""Other names of columns, which count where the first name is not there. STAMP's slide table has FILENAME, the feature
file, and PATIENT.
"""


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
    `slide_id` alone, every slide is a case of its own. Of columns of cases and patients the coarsest counts. Columns
    may have the names of `SYNONYMS`, in capitals or not; a `slide_id` may name the slide's file or its feature file.

    Raises:
        BenchmarkError: the CSV or a folder cannot be used, one case or slide has different labels or splits, or an id
            is missing; with the lines. What has no label or no features is no error but an exclusion.
    """
    try:
        records, problems = read_table(path, (label,), ",")
        records, note_on_cases = _renamed(records, label, problems)
        has_slides, has_cases = (any(name in cells for _, cells in records) for name in ("slide_id", "case_id"))
        files = {model: find_feature_files(folder) for model, folder in features}
        records = _without_endings(records, files.values())
        if not (has_slides or has_cases) and not problems:
            raise BenchmarkError(f"{path}: no column slide_id or case_id; one of them must say what a label is of")
        rows, exclusions = _rows(records, label, problems)
        labelled = [row for row in rows if row.label]
        unit = _unit_of(labelled, has_slides, has_cases, problems)
        problems += _wrong_splits(labelled)
        refuse(path, problems)
    except ManifestError as error:
        raise BenchmarkError(str(error)) from None
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
    used = {slide for bag in bags for slide in bag.slides}
    return SlideSet(
        path=path,
        label=label,
        unit=unit,
        bags=tuple(bags),
        files={model: {s: file for s, file in found.items() if s in used} for model, found in files.items()},
        exclusions=tuple(exclusions),
        notes=(
            *filter(None, [note_on_cases]),
            *_notes_on_units(unit, labelled, has_cases, records),
            *_notes_on_words(label, labelled),
            *_notes_on_files(slides_of, files),
            *filter(None, [unused_columns_note(name for name in records[0][1] if name not in (*COLUMNS, label))]),
        ),
        incomplete=tuple(incomplete),
    )


def _renamed(records: Sequence[Record], label: str, problems: list[Problem]) -> tuple[list[Record], str]:
    """The records with the columns that have a meaning under their own names, however they are spelled, and a note on
    columns of cases that divide each other, else "". The label's column stays. Columns that differ in capitals only are
    added to `problems`.

    Raises:
        BenchmarkError: two columns of cases cross each other.
    """
    header = list(records[0][1]) if records else []
    known = {*COLUMNS, *(other for others in SYNONYMS.values() for other in others)}
    by_name: dict[str, list[str]] = {}
    for name in header:
        if name != label and name.lower() in known:
            by_name.setdefault(name.lower(), []).append(name)
    problems += [
        (1, f"columns {', '.join(names)} are spelled alike; keep one of them")
        for names in by_name.values()
        if len(names) > 1
    ]
    of_cases = {
        name: ["" if is_unknown(cells[by_name[name][0]]) else cells[by_name[name][0]].strip() for _, cells in records]
        for name in ("case_id", *SYNONYMS["case_id"])
        if name in by_name
    }
    case, note = coarsest(of_cases) if label != "case_id" else ("", "")
    if note and not by_name.keys() & {"slide_id", *SYNONYMS["slide_id"]}:
        named_after = next(name for name, cells in of_cases.items() if any(cells))
        note = (
            f"Folds go by {named_after}, which feature files are named after, though it divides {case}: parts of one "
            f"are on both sides, and the numbers are too good. Give slide_id to go by {case}."
        )
        case = named_after
    of = {by_name[case][0]: "case_id"} if case else {}
    for own in COLUMNS:
        found = next((name for name in (own, *SYNONYMS.get(own, ())) if name in by_name), "")
        if found and own not in ("case_id", label):
            of[by_name[found][0]] = own
    taken = set(of.values()) - of.keys()  # a column whose name another one has now
    renamed = [
        (line, {of.get(name, name): cell for name, cell in cells.items() if name not in taken})
        for line, cells in records
    ]
    return renamed, note


def _without_endings(records: Sequence[Record], files: Iterable[Mapping[str, Path]]) -> list[Record]:
    """The records with `slide_id` as the feature files are named, where a cell names a slide's file or a feature file
    instead: a folder before it and an ending are left out if there is no feature file otherwise.
    """
    stems = {stem for of_model in files for stem in of_model}

    def slide(cell: str) -> str:
        name = PurePosixPath(cell).name
        short = PurePosixPath(name)
        known = short.suffix.lower() in SLIDE_SUFFIXES or short.suffix.lower() in FEATURE_SUFFIXES
        return next((one for one in (cell, name, short.stem if known else name) if one in stems), cell)

    return [
        (line, cells | {"slide_id": slide(cells["slide_id"].strip())} if "slide_id" in cells else cells)
        for line, cells in records
    ]


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
        rows.append(_Row(line, slide_id, case_id, value, center, cells.get("split", "").lower()))
    return rows, exclusions


def _wrong_splits(rows: Sequence[_Row]) -> list[Problem]:
    """Rows with a label that a given split does not part: all or none must say train, val or test."""
    if not any(row.split for row in rows):
        return []
    mend = f"give {', '.join(SPLITS[:-1])} or {SPLITS[-1]} on every line, or leave the column out for folds"
    return [
        (
            row.line,
            f"split {row.split!r} is not one of {', '.join(SPLITS)}; {mend}"
            if row.split
            else f"split is empty; {mend}",
        )
        for row in rows
        if row.split not in SPLITS
    ]


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


def _notes_on_units(unit: Unit, rows: Sequence[_Row], has_cases: bool, records: Sequence[Record]) -> list[str]:
    """What a reader of the numbers must know about how `rows` became bags."""
    with_case = {line for line, cells in records if cells.get("case_id", "").strip()}
    own = sum(row.line not in with_case for row in rows)
    if not with_case:
        lacking = "has no case in its column case_id" if has_cases else "has no case_id"
        return [
            f"The CSV {lacking}: every slide counts as a case of its own. If patients have several slides, give "
            "case_id; otherwise the numbers are too good."
        ]
    notes = []
    if own:
        notes.append(f"{own:,} of {len(rows):,} slides have no case_id, and each counts as a case of its own.")
    if unit == "slide":
        notes.append("Slides of one case have different labels: each slide is predicted by itself, in folds by case.")
    return notes


def _notes_on_words(label: str, rows: Sequence[_Row]) -> list[str]:
    """What the cells of `rows` say that may not be meant."""
    columns = (("labels", "label"), ("cases", "case_id"), ("centres", "center"))
    spelled = [note for what, name in columns for note in spelling_notes(what, (getattr(row, name) for row in rows))]
    return [*spelled, *numeric_notes(label, (row.label for row in rows))]


def _notes_on_files(slides_of: Mapping[str, Sequence[str]], files: Mapping[str, Mapping[str, Path]]) -> list[str]:
    """How many feature files belong to no row."""
    listed = {slide for slides in slides_of.values() for slide in slides}
    others = {model: len(found.keys() - listed) for model, found in files.items()}
    return [f"{model}: {count} feature files belong to no row of the CSV." for model, count in others.items() if count]
