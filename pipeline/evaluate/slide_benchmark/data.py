"""Read the slides of a benchmark: the label, case and feature files of each, and what is left out and why.

A CSV gives labels of slides or cases (TP53 status, subtype, ...) and folders give a feature file a slide, one folder a
model. All models are scored on the same slides: one that any folder lacks is left out for all, and listed.

What is predicted is the *unit*, by its *bag*, the patches of all of its slides. The unit is the case, unless the CSV
gives slides of one case different labels: then it is the slide, and folds still keep cases together. Left out: what
the files hold; `score` reads them.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.console import counted
from pipeline.base.errors import BenchmarkError, ManifestError
from pipeline.cohort.barcodes import find_barcode
from pipeline.disk.label_words import cell_value, is_unknown, missing_notes, numeric_notes, spelling_notes
from pipeline.disk.tables import Problem, Record, read_table, refuse, unused_columns_note
from pipeline.evaluate.folds import SPLITS
from pipeline.evaluate.groups import groups_in_several_centers_note, parted_patients_note
from pipeline.evaluate.slide_benchmark.bags import Bag, SlideSet, Unit, named
from pipeline.evaluate.slide_benchmark.columns import Columns, find_columns
from pipeline.features.find import FeatureTree
from pipeline.features.slide_files import SlideFiles, files_by_name, files_of_slides, read_trees
from pipeline.report.content import Exclusion


@dataclass(frozen=True)
class _Row:
    """A row of the CSV; `slide_id` is empty where the CSV has no such column, `label` where the label is unknown.

    `group` is what folds keep together. With slides it is the case; without, the patient may hold several cases.
    """

    line: int
    slide_id: str
    case_id: str
    group: str
    label: str
    center: str
    split: str


def read_slide_set(path: Path, label: str, features: Sequence[tuple[str, Path]]) -> SlideSet:
    """The benchmark that a CSV and folders of features make; `features` are pairs of a model's label and its folder.

    The CSV has `slide_id`, `case_id` or both, the column `label`, and optionally `center` and `split`. With `case_id`
    alone, a case has the slides whose feature files are named by the case id and then nothing or something that is no
    letter or digit, as `TCGA-3C-AALI-01Z-00-DX1` belongs to `TCGA-3C-AALI`; of several cases it is the longest. TCGA
    barcodes are the same in small letters, and may stand behind a prefix. With `slide_id` alone, every slide is a case
    of its own. Of columns of cases and patients the coarsest counts, and in its
    gaps the others: slides that share a case or a patient are never parted. Columns may have the names that
    `columns` knows; a `slide_id` may name the slide's file or its feature file.

    Raises:
        BenchmarkError: the CSV or a folder cannot be used, one case or slide has different labels or splits, or an id
            is missing; with the lines. What has no label or no features is no error but an exclusion.
    """
    try:
        records, problems = read_table(path, (label,), ",")
        columns = find_columns(records, label, problems)
        has_slides, has_cases = (name in columns.written for name in ("slide_id", "case_id"))
        trees = read_trees(features)
        if not (has_slides or has_cases) and not problems:
            raise BenchmarkError(f"{path}: no column slide_id or case_id; one of them must say what a label is of")
        records, files = _with_files(columns.records, trees, by_slide=has_slides)
        rows, exclusions = _rows(columns, records, label, problems)
        labelled = [row for row in rows if row.label]
        unit = _unit_of(labelled, has_slides, has_cases, problems)
        problems += _wrong_splits(labelled)
        refuse(path, problems)
    except ManifestError as error:
        raise BenchmarkError(str(error)) from None
    slides_of = _slides_by_case(rows, has_slides, files.names)
    bags, incomplete, lacking = _bags(rows, unit, None if has_slides else slides_of, files)
    notes = [
        columns.note,
        *_notes_on_units(unit, rows, columns),
        *missing_notes(label, (record[label] for _, record in records)),
        *_notes_on_words(label, labelled),
        groups_in_several_centers_note([row.group for row in labelled], [row.center for row in labelled], "cases"),
        *_notes_on_files(slides_of, files),
        unused_columns_note(columns.unused),
    ]
    return SlideSet(
        path=path,
        label=label,
        unit=unit,
        bags=tuple(bags),
        files=_files_of(bags, files),
        exclusions=(*exclusions, *lacking),
        notes=tuple(filter(None, notes)),
        incomplete=tuple(incomplete),
        center_of=_center_of(rows),
    )


def _center_of(rows: Iterable[_Row]) -> dict[str, str]:
    """The centre of each slide, "" of none; nothing where rows are of cases."""
    return {row.slide_id: row.center for row in rows if row.slide_id}


def _with_files(
    records: list[Record], trees: Mapping[str, FeatureTree], *, by_slide: bool
) -> tuple[list[Record], SlideFiles]:
    """The records with ids of slides as the feature files spell them, and these files; without slides in the table
    (`by_slide`), the files by their names.
    """
    if not by_slide:
        return records, files_by_name(trees)
    files = files_of_slides([cells["slide_id"].strip() for _, cells in records], trees)
    named_alike = [(line, cells | {"slide_id": slide}) for (line, cells), slide in zip(records, files.ids, strict=True)]
    return named_alike, files


def _files_of(bags: Sequence[Bag], files: SlideFiles) -> dict[str, dict[str, Path]]:
    """By the models' labels, the feature file of every slide of the bags, in the order of the slides."""
    used = sorted({slide for bag in bags for slide in bag.slides})
    return {model: {slide: of_model[slide] for slide in used} for model, of_model in files.files.items()}


def _bags(
    rows: Sequence[_Row], unit: Unit, slides_of: Mapping[str, Sequence[str]] | None, files: SlideFiles
) -> tuple[list[Bag], list[str], list[Exclusion]]:
    """The bags of the rows with a label, names of those that lack a slide, and what has no features. `slides_of` are
    the slides of each case where rows are of cases, `None` where they are of slides.
    """
    without_label = set() if slides_of is not None else {row.case_id for row in rows if not row.label}
    bags, incomplete, exclusions = [], [], []
    for name, group in _rows_by_unit(rows, unit).items():
        slides = [row.slide_id for row in group] if slides_of is None else slides_of.get(name, [])
        lacking = _without_features(slides, files)
        exclusions += [Exclusion(named(slide, group[0].case_id), why) for slide, why in lacking.items()]
        if set(slides) - lacking.keys():
            bags.append(_bag(name, group, slides, lacking))
            incomplete += [name] if lacking or name in without_label else []
        elif unit == "case":
            why = "no slide of it has features of every model" if slides else "no feature file is named after it"
            exclusions.append(Exclusion(f"case {name}", why))
    return bags, incomplete, exclusions


def _rows_by_unit(rows: Sequence[_Row], unit: Unit) -> dict[str, list[_Row]]:
    """The rows with a label by the case or slide they are of, in the order of its name."""
    grouped: dict[str, list[_Row]] = {}
    for row in sorted(rows, key=lambda row: (row.slide_id, row.line)):
        if row.label:
            grouped.setdefault(row.case_id if unit == "case" else row.slide_id, []).append(row)
    return dict(sorted(grouped.items()))


def _without_features(slides: Sequence[str], files: SlideFiles) -> dict[str, str]:
    """Which slides have no feature file of some model, and why."""
    return {slide: why for slide in slides if (why := _why_no_features(slide, files))}


def _why_no_features(slide: str, files: SlideFiles) -> str:
    """Why a slide has no feature file of some model; "" if it has one of each."""
    lacking = [model for model, of_model in files.files.items() if slide not in of_model]
    return files.unclear.get(slide, f"no feature file for {', '.join(lacking)}") if lacking else ""


def case_of_stem(stem: str, cases: Container[str]) -> str | None:
    """The longest of `cases` that a file's name starts with, up to its end or to a mark that is no letter or digit."""
    ends = [len(stem), *(i for i in range(len(stem) - 1, 0, -1) if not stem[i].isalnum())]
    return next((stem[:end] for end in ends if stem[:end] in cases), None)


def _rows(
    columns: Columns, records: Sequence[Record], label: str, problems: list[Problem]
) -> tuple[list[_Row], list[Exclusion]]:
    """All rows, and those without a label as exclusions, but not rows of a case that another row labels; missing ids
    are added to `problems`.
    """
    rows = []
    for (line, record), group in zip(records, columns.groups, strict=True):
        cells = {name: cell.strip() for name, cell in record.items()}
        problems += _missing_id_problems(line, cells, columns.written)
        case_id = _case_id(cells, group)
        value, center, split = (cell_value(cells.get(name, "")) for name in (label, "center", "split"))
        rows.append(_Row(line, cells.get("slide_id", ""), case_id, group or case_id, value, center, split.lower()))
    with_label = {row.case_id for row in rows if row.label and not row.slide_id}
    exclusions = [
        _unlabelled(row, label, record[label].strip())
        for row, (_, record) in zip(rows, records, strict=True)
        if not row.label and row.case_id not in with_label
    ]
    return rows, exclusions


def _case_id(cells: Mapping[str, str], group: str) -> str:
    """The case of a row: with slides that which folds keep together, else the slide itself; without, as it is named."""
    if "slide_id" in cells:
        return group or cells["slide_id"]
    return cell_value(cells["case_id"]) if "case_id" in cells else group


def _unlabelled(row: _Row, label: str, cell: str) -> Exclusion:
    """A row that is left out because its `cell` in the column `label` is no label."""
    what = named(row.slide_id, row.case_id) if row.slide_id else f"case {row.case_id}"
    return Exclusion(what, f"{label} is {cell!r}: no label (line {row.line})", by_rule=True)


def _missing_id_problems(line: int, cells: Mapping[str, str], written: Mapping[str, str]) -> list[Problem]:
    """The slide of a row that names none; of a table without slides, the case."""
    slide_id, case_id = cells.get("slide_id"), cells.get("case_id")
    if slide_id is not None and is_unknown(slide_id):
        what = f"{slide_id!r} stands for a missing value" if slide_id else "is empty"
        return [(line, f"{written['slide_id']} {what}; fill it, or leave the column out to go by the case")]
    if slide_id is None and case_id is not None and is_unknown(case_id):
        what = repr(case_id) if case_id else "empty"
        return [
            (line, f"{written['case_id']} is {what}; fill it in on every line, for feature files are named after it")
        ]
    return []


def _wrong_splits(rows: Sequence[_Row]) -> list[Problem]:
    """Rows with a label that a given split does not part: all or none must say train, val or test."""
    if not any(row.split for row in rows):
        return []
    fix = f"give {', '.join(SPLITS[:-1])} or {SPLITS[-1]} on every line, or leave the column out for folds"
    return [
        (
            row.line,
            f"split {row.split!r} is not one of {', '.join(SPLITS)}; {fix}" if row.split else f"split is empty; {fix}",
        )
        for row in rows
        if row.split not in SPLITS
    ]


def _unit_of(rows: Sequence[_Row], has_slides: bool, has_cases: bool, problems: list[Problem]) -> Unit:
    """What is predicted; slides and cases that contradict themselves are added to `problems`."""
    problems += _several_splits(rows)
    problems += _slides_given_twice(rows) if has_slides else []
    mixed = {case_id: group for case_id, group in _by(rows, "case_id").items() if len({r.label for r in group}) > 1}
    if not has_slides:
        for case_id, group in mixed.items():
            labels = ", ".join(f"{row.label!r} (line {row.line})" for row in group)
            problems.append((group[0].line, f"case {case_id} has several labels: {labels}; keep one"))
        return "case"
    return "slide" if mixed or not has_cases else "case"


def _by(rows: Sequence[_Row], name: str) -> dict[str, list[_Row]]:
    """The rows by one of their values, in the order in which these occur."""
    grouped: dict[str, list[_Row]] = {}
    for row in rows:
        grouped.setdefault(getattr(row, name), []).append(row)
    return grouped


def _several_splits(rows: Sequence[_Row]) -> list[Problem]:
    """Cases whose rows are of several splits."""
    problems = []
    for case_id, group in _by(rows, "group").items():
        splits = sorted({row.split or "none" for row in group})
        if len(splits) > 1:
            problems.append((group[0].line, f"case {case_id} has several splits: {', '.join(splits)}"))
    return problems


def _slides_given_twice(rows: Sequence[_Row]) -> list[Problem]:
    """Slides with several rows."""
    problems = []
    for slide_id, group in _by(rows, "slide_id").items():
        if len(group) > 1:
            lines = ", ".join(str(row.line) for row in group)
            problems.append((group[0].line, f"slide_id {slide_id} is given on lines {lines}; keep one"))
    return problems


def _slides_by_case(rows: Sequence[_Row], has_slides: bool, names: Iterable[str]) -> dict[str, list[str]]:
    """Slides of every case of the CSV, with a label or not, sorted: those that the CSV names, or else those of any
    folder whose file's name belongs to the case.
    """
    slides_of: dict[str, set[str]] = {row.case_id: set() for row in rows}
    if has_slides:
        for row in rows:
            slides_of[row.case_id].add(row.slide_id)
    else:
        by_barcode = {barcode: case_id for case_id in slides_of if (barcode := find_barcode(case_id))}
        for stem in names:
            case_id = case_of_stem(stem, slides_of)
            if case_id is None and (barcode := find_barcode(stem)):  # in small letters, or behind a prefix
                case_id = by_barcode.get(barcode)
            if case_id is not None:
                slides_of[case_id].add(stem)
    return {case_id: sorted(slides) for case_id, slides in slides_of.items()}


def _bag(name: str, group: Sequence[_Row], slides: Sequence[str], lacking: Container[str]) -> Bag:
    """The bag of the rows of one unit, of its slides but the `lacking` ones."""
    centers = sorted({row.center for row in group if row.center and row.slide_id not in lacking})
    kept = tuple(slide for slide in slides if slide not in lacking)
    return Bag(name, group[0].group, group[0].label, tuple(centers), group[0].split, kept)


def _notes_on_units(unit: Unit, rows: Sequence[_Row], columns: Columns) -> list[str]:
    """What a reader of the numbers must know about how `rows` became bags."""
    case_words = " or ".join(columns.case_columns)
    labelled = [(row, group) for row, group in zip(rows, columns.groups, strict=True) if row.label]
    if not any(group for _, group in labelled):
        lacking = f"has no case in its column {case_words}" if case_words else "has no case_id"
        return [
            f"The CSV {lacking}: every slide counts as a case of its own. If patients have several slides, give "
            "case_id; otherwise the numbers are too good."
        ]
    notes = []
    if own := sum(not group for _, group in labelled):
        notes.append(f"{own:,} of {len(labelled):,} slides have no {case_words}, and each counts as a case of its own.")
    if unit == "slide":
        notes.append("Slides of one case have different labels: each slide is predicted by itself, in folds by case.")
    if silent := _num_silent(rows):
        without = counted(silent, "row has no label, but is", "rows have no label, but are")
        notes.append(
            f"{without} of cases that other rows label, and {'counts' if silent == 1 else 'count'} for nothing."
        )
    return notes


def _num_silent(rows: Sequence[_Row]) -> int:
    """Rows of no slide and no label whose case has a label in another row."""
    with_label = {row.case_id for row in rows if row.label}
    return sum(not row.label and not row.slide_id and row.case_id in with_label for row in rows)


def _notes_on_words(label: str, rows: Sequence[_Row]) -> list[str]:
    """Notes on cells of `rows` that may be mistakes."""
    columns = (("labels", "label"), ("cases", "case_id"), ("centres", "center"))
    spelled = [note for what, name in columns for note in spelling_notes(what, (getattr(row, name) for row in rows))]
    parted = parted_patients_note([row.group for row in rows], [row.slide_id for row in rows], "cases")
    return [*spelled, parted, *numeric_notes(label, (row.label for row in rows))]


def _notes_on_files(slides_of: Mapping[str, Sequence[str]], files: SlideFiles) -> list[str]:
    """How many feature files belong to no row."""
    listed = {slide for slides in slides_of.values() for slide in slides}
    others = {model: files.num_files[model] - len(of_model.keys() & listed) for model, of_model in files.files.items()}
    return [f"{model}: {count} feature files belong to no row of the CSV." for model, count in others.items() if count]
