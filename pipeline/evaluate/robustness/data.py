"""Read the CSV of a robustness benchmark: which image is which patch of which slide, and what it shows.

Two kinds of set, in one file if it has the columns of both. For the robustness index, the columns of PathoROB
(slide_id, patch_id, biological_class, medical_center, subset). For paired robustness, as in plismbench: the same tissue
scanned by several scanners or stained in several ways (slide_id, patch_id, scanner, staining), where `patch_id` names
the place in the tissue. Both need `path`, for embeddings are computed from the images. A patch may stand in several
subsets; its image is embedded once. A column of cases (`case_id`, ...) is read where it is asked for. Blanks around a
cell do not count; capitals do, and a warning says where names differ in nothing else. Left out: looking into the
images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import BenchmarkError, ConfigError, ManifestError
from pipeline.cohort.barcodes import find_barcode
from pipeline.cohort.cases import CASE_COLUMNS
from pipeline.disk.file_names import file_named
from pipeline.disk.label_words import case_value, is_unknown, spelling_notes
from pipeline.disk.tables import Problem, Record, alike_columns, read_table, refuse
from pipeline.evaluate.groups import GROUP_WORDS, coarsest, parted_patients_note
from pipeline.evaluate.images import path_problems, require_images_root

REQUIRED = ("slide_id", "patch_id", "path")
INDEX_COLUMNS = ("biological_class", "medical_center")
PAIRED_COLUMNS = ("scanner", "staining")
SUBSET = "subset"
OUT_OF_DOMAIN = "OOD"
"""Subset whose patches PathoROB leaves out of the index; they are for its other metrics. In any capitals."""
NEEDS = (
    f"The robustness index needs the columns {', '.join((*REQUIRED, *INDEX_COLUMNS))}, and may have {SUBSET}; paired "
    f"robustness needs {', '.join(REQUIRED)} and {' or '.join(PAIRED_COLUMNS)}"
)

Names = NDArray[np.str_]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class IndexRows:
    """Patches for the robustness index, one row for each subset that a patch is in; columns are (N,).

    `images` are indices into the set's `paths`. `subsets` is `None` if the file has no such column, `cases` unless they
    were asked for: the patient where the file or a TCGA barcode says so, else the slide.
    """

    images: Ints
    slides: Names
    classes: Names
    centers: Names
    subsets: Names | None
    cases: Names | None = None


@dataclass(frozen=True, eq=False)
class PairedRows:
    """Patches for paired robustness, each once; columns are (N,).

    `places` name the tissue under a patch, the same on every slide that shows it. A column that the file lacks is "".
    """

    images: Ints
    slides: Names
    places: Names
    scanners: Names
    stainings: Names


@dataclass(frozen=True, eq=False)
class RobustnessSet:
    """What a CSV holds.

    Attributes:
        path: the CSV.
        paths: the image files that are needed, each once, in the order of their names; they may be missing.
        index, paired: rows for each evaluation; `None` if the file lacks its columns.
        num_out_of_domain: rows that the index leaves out because their subset is "OOD".
        unused_columns: columns of the file that mean nothing here.
        notes: what a reader must know about the names in the file, and about copies among the images.
    """

    path: Path
    paths: list[Path]
    index: IndexRows | None
    paired: PairedRows | None
    num_out_of_domain: int
    unused_columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def select(self, usable: NDArray[np.bool_]) -> "RobustnessSet":
        """The set without the images that are not `usable`, one flag for each of `paths`.

        Raises:
            BenchmarkError: what is left cannot be evaluated.
        """
        new_index = np.cumsum(usable) - 1
        left = f"{self.path}, without {int((~usable).sum())} of {len(usable)} images that cannot be used"
        index, paired = self.index, self.paired
        if index is not None:
            rows = usable[index.images]
            index = IndexRows(
                new_index[index.images[rows]],
                index.slides[rows],
                index.classes[rows],
                index.centers[rows],
                None if index.subsets is None else index.subsets[rows],
                None if index.cases is None else index.cases[rows],
            )
            _check_index(index, left)
        if paired is not None:
            rows = usable[paired.images]
            columns = (paired.slides, paired.places, paired.scanners, paired.stainings)
            paired = PairedRows(new_index[paired.images[rows]], *(column[rows] for column in columns))
            _check_paired(paired, left)
        paths = [image for image, keep in zip(self.paths, usable, strict=True) if keep]
        return replace(self, paths=paths, index=index, paired=paired)


def read_robustness_set(path: Path, images_root: Path | None = None, *, with_cases: bool = False) -> RobustnessSet:
    """Read and check a CSV; relative image paths hang below `images_root`, else below the CSV's folder.

    Ids and names are text, kept as they are written but for blanks around them; the names of columns may be in
    capitals.

    Args:
        with_cases: also read a column of cases; otherwise it means nothing.

    Raises:
        BenchmarkError: columns for neither evaluation, empty cells, rows that contradict each other (with their lines),
            too few classes, centres or slides.
    """
    require_images_root(images_root)
    root = path.parent if images_root is None else images_root
    try:
        records, columns = _read(path, root, CASE_COLUMNS if with_cases else ())
    except ManifestError as error:
        raise BenchmarkError(str(error)) from None
    has_index, has_paired = set(INDEX_COLUMNS) <= columns, bool(columns & set(PAIRED_COLUMNS))
    in_domain = _in_domain(records) if has_index else []
    once = list({(row["slide_id"], row["patch_id"]): row for row in records}.values()) if has_paired else []
    paths, image_of = _number_images(root, [*in_domain, *once])
    index = _index_rows(in_domain, image_of, str(path), has_subsets=SUBSET in columns) if has_index else None
    index, notes = _with_cases(index, in_domain) if with_cases else (index, ())
    paired = _paired_rows(once, image_of, str(path)) if has_paired else None
    num_out_of_domain = len(records) - len(in_domain) if has_index else 0
    unused = tuple(name for name in records[0] if name not in columns)
    notes = (*_spelling_notes(records, columns), *notes)
    return RobustnessSet(path, paths, index, paired, num_out_of_domain, unused, notes)


def _with_cases(index: IndexRows | None, rows: Sequence[Mapping[str, str]]) -> tuple[IndexRows | None, tuple[str, ...]]:
    """The index with the case of each row: by the columns of cases, else by TCGA barcodes of slides, else the slide;
    and what a reader must know of them.

    Raises:
        BenchmarkError: columns cross each other.
    """
    if index is None:
        return None, ()
    columns = {name: [case_value(row[name]) for row in rows] for name in CASE_COLUMNS if name in rows[0]}
    if not any(map(any, columns.values())):
        barcodes = [find_barcode(row["slide_id"]) for row in rows]
        columns = {CASE_COLUMNS[0]: ["" if barcode is None else barcode.case_id for barcode in barcodes]}
    slides = [row["slide_id"] for row in rows]
    grouping = coarsest({**columns, "slide_id": slides})
    parted = parted_patients_note(grouping.names, slides, GROUP_WORDS[grouping.column])
    cases = np.array(grouping.names, dtype=np.str_)
    return replace(index, cases=cases), tuple(filter(None, (grouping.note, parted)))


def _number_images(root: Path, rows: Sequence[Mapping[str, str]]) -> tuple[list[Path], dict[str, int]]:
    """The images of the rows, each once, by name; and the place of each path's image among them."""
    file_of = {row["path"]: file_named(root / row["path"]) for row in rows}
    paths = sorted(set(file_of.values()))
    number = {image: index for index, image in enumerate(paths)}
    return paths, {written: number[file] for written, file in file_of.items()}


def _index_rows(
    rows: Sequence[Mapping[str, str]], image_of: Mapping[str, int], where: str, *, has_subsets: bool
) -> IndexRows:
    """The rows for the robustness index; `image_of` gives the place of each path's image.

    Raises:
        BenchmarkError: too few classes, centres or slides.
    """
    slides, classes, centers, subsets = _names(rows, "slide_id", *INDEX_COLUMNS, SUBSET)
    index = IndexRows(_images(rows, image_of), slides, classes, centers, subsets if has_subsets else None)
    _check_index(index, where)
    return index


def _paired_rows(rows: Sequence[Mapping[str, str]], image_of: Mapping[str, int], where: str) -> PairedRows:
    """The rows for paired robustness.

    Raises:
        BenchmarkError: no place is on two slides.
    """
    paired = PairedRows(_images(rows, image_of), *_names(rows, "slide_id", "patch_id", *PAIRED_COLUMNS))
    _check_paired(paired, where)
    return paired


def _images(rows: Sequence[Mapping[str, str]], image_of: Mapping[str, int]) -> Ints:
    """Which image each row shows, (N,)."""
    return np.array([image_of[row["path"]] for row in rows], dtype=np.int64)


def _names(rows: Sequence[Mapping[str, str]], *columns: str) -> list[Names]:
    """The cells of each column, (N,); "" where the file lacks it."""
    return [np.array([row.get(column, "") for row in rows], dtype=np.str_) for column in columns]


def require_neighbours(robustness_set: RobustnessSet, k: int | None) -> None:
    """See early that every patch has `k` patches of other slides within each of its subsets; `None`: k is chosen later.

    Raises:
        ConfigError: some patch has fewer.
    """
    rows = robustness_set.index
    if rows is None or k is None:
        return
    subsets = np.full(len(rows.slides), "") if rows.subsets is None else rows.subsets
    others = {
        str(name): int(len(slides) - np.unique(slides, return_counts=True)[1].max())
        for name in np.unique(subsets)
        if len(slides := rows.slides[subsets == name])
    }
    fewest = min(others, key=others.__getitem__)
    if k > others[fewest]:
        within = f" within subset {fewest!r}" if fewest else ""
        raise ConfigError(
            f"--ri-k {k}: some patch of {robustness_set.path} has only {others[fewest]} patches of other slides"
            f"{within}; take a k of at most {others[fewest]}, or leave it out for one that is chosen"
        )


def _in_domain(records: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The rows that the index counts."""
    return [row for row in records if not _is_out_of_domain(row)]


def _is_out_of_domain(row: Mapping[str, str]) -> bool:
    """Whether the index leaves the row out."""
    return row.get(SUBSET, "").upper() == OUT_OF_DOMAIN


def _spelling_notes(records: Sequence[dict[str, str]], columns: set[str]) -> tuple[str, ...]:
    """Notes on names of a column that differ in capitals only: they count as different, which may be a mistake.

    Names of places in the tissue and of files are free.
    """
    notes: list[str] = []
    for column in (name for name in records[0] if name in columns - {"path", "patch_id"}):
        names = {row[column] for row in records}
        if column == SUBSET:
            names = {name for name in names if name.upper() != OUT_OF_DOMAIN}  # the same in any capitals
        notes += spelling_notes(f"names of {column}", names)
    return tuple(notes)


def _read(path: Path, root: Path, of_cases: Sequence[str]) -> tuple[list[dict[str, str]], set[str]]:
    """Rows that do not contradict each other, and the columns that have a meaning here, among them those `of_cases`.
    Paths hang below `root`.

    Raises:
        ManifestError: anything is wrong; says which columns are needed, or lists the lines.
    """
    try:
        records, problems = read_table(path, REQUIRED, ",")
    except ManifestError as error:
        raise ManifestError(f"{error}\n{NEEDS}") from None
    refuse(path, problems)
    refuse(path, alike_columns(list(records[0][1])))
    records = [(line, {name.lower(): cell.strip() for name, cell in row.items()}) for line, row in records]
    given = records[0][1].keys()
    for_index = INDEX_COLUMNS if set(INDEX_COLUMNS) <= given else ()
    for_pairs = tuple(column for column in PAIRED_COLUMNS if column in given)
    if not for_index and not for_pairs:
        raise ManifestError(
            f"{path} has the columns {', '.join(given)}, which are enough for neither evaluation.\n{NEEDS}"
        )
    subset = (SUBSET,) if for_index and SUBSET in given else ()
    about = (*for_index, *for_pairs)
    problems = [*_missing_cells(records, about, subset), *_contradictions(records, about), *_repeated(records, subset)]
    first_of_path = {record[1]["path"]: record for record in reversed(records)}
    refuse(path, [*problems, *path_problems(root, first_of_path.values())])
    with_meaning = {*REQUIRED, *for_index, *for_pairs, *subset, *(given & set(of_cases))}
    return [row for _, row in records], with_meaning


def _missing_cells(records: Sequence[Record], about: Sequence[str], subset: Sequence[str]) -> list[Problem]:
    """Cells that are empty or stand for a missing value; class and centre do not matter out of domain."""
    problems = []
    for line, row in records:
        free = INDEX_COLUMNS if subset and _is_out_of_domain(row) else ()
        for column in (*REQUIRED, *about, *subset):
            if not row[column]:
                problems.append((line, f"{column} is empty"))
            elif is_unknown(row[column]) and column not in free:
                problems.append(
                    (
                        line,
                        f"{column} is {row[column]!r}, which stands for a missing value; name it, or take the row out",
                    )
                )
    return problems


def _contradictions(records: Sequence[Record], about: Sequence[str]) -> list[Problem]:
    """Rows that say something else of a patch, a slide or an image than an earlier row."""
    of_slide = [column for column in about if column != "biological_class"]
    of_patch = ["path", *(column for column in about if column not in of_slide)]
    problems: list[Problem] = []
    first: dict[tuple[str, ...], tuple[int, str]] = {}

    def must_agree(line: int, what: str, column: str, value: str, *key: str) -> None:
        earlier_line, earlier = first.setdefault((column, *key), (line, value))
        if earlier != value:
            problems.append((line, f"{what} has {column} {value!r} here and {earlier!r} on line {earlier_line}"))

    for line, row in records:
        slide, patch = row["slide_id"], row["patch_id"]
        for column in of_patch:
            must_agree(line, _patch_in_words(row), column, row[column], slide, patch)
        for column in of_slide:
            must_agree(line, f"slide {slide!r}", column, row[column], slide)
        must_agree(line, f"image {row['path']!r}", "patch", f"{slide} {patch}", row["path"])
    return problems


def _repeated(records: Sequence[Record], subset: Sequence[str]) -> list[Problem]:
    """Rows of a patch that has an earlier row, in the same subset if there are subsets."""
    problems = []
    first: dict[tuple[str, str, str], int] = {}
    for line, row in records:
        where = row[SUBSET] if subset else ""
        earlier = first.setdefault((row["slide_id"], row["patch_id"], where), line)
        if earlier != line:
            within = f" in subset {where!r}" if subset else ""
            problems.append((line, f"{_patch_in_words(row)} stands on line {earlier} already{within}; keep one row"))
    return problems


def _patch_in_words(row: Mapping[str, str]) -> str:
    return f"patch {row['patch_id']!r} of slide {row['slide_id']!r}"


def _check_index(rows: IndexRows, where: str) -> None:
    """Refuse sets on which the index can only be 0 or 1.

    Raises:
        BenchmarkError: says which subset, and what it lacks.
    """
    if not len(rows.images):
        raise BenchmarkError(f"{where}: no patches for the robustness index ({OUT_OF_DOMAIN} rows do not count)")
    for name in [None] if rows.subsets is None else np.unique(rows.subsets).tolist():
        chosen = np.ones(len(rows.images), np.bool_) if rows.subsets is None else rows.subsets == name
        classes, centers = rows.classes[chosen], rows.centers[chosen]
        pairs = sorted(set(zip(classes.tolist(), centers.tolist(), strict=True)))
        of_class, of_center = [label for label, _ in pairs], [center for _, center in pairs]
        subset = where if name is None else f"{where}, subset {name!r}"
        if len(set(of_class)) < 2 or len(set(of_center)) < 2:
            raise BenchmarkError(
                f"{subset}: the robustness index needs at least two classes and two centres, not "
                f"{len(set(of_class))} and {len(set(of_center))}"
            )
        if len(set(of_class)) == len(pairs) or len(set(of_center)) == len(pairs):
            which = "class is of more than one centre" if len(set(of_class)) == len(pairs) else "centre has two classes"
            raise BenchmarkError(f"{subset}: no {which}, so that the robustness index could take one value only")


def _check_paired(rows: PairedRows, where: str) -> None:
    """Refuse sets without two slides of the same tissue.

    Raises:
        BenchmarkError: no place is on two slides.
    """
    if len(np.unique(rows.places)) == len(rows.places):
        raise BenchmarkError(
            f"{where}: no patch_id is on two slides; paired robustness needs the same tissue on several slides, and "
            "patch_id names the place in the tissue"
        )
