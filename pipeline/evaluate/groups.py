"""Find out which rows belong together: by the coarsest of the columns that say so, such as the patient.

A table may name groups, cases, patients and slides. Folds and the bootstrap go by the column that all others divide, so
that nothing which belongs together is split up; the others are counted. Rows that share a value of any such column stay
together, also where the coarsest has gaps. Columns that cross each other are an error, because then none says what is
independent; only a slide may hold several cases, as a tissue microarray does. Pure.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.base.errors import BenchmarkError
from pipeline.cohort.cases import CASE_COLUMNS, parted_patients, patients_have

GROUP_COLUMNS = ("group", *CASE_COLUMNS, "slide_id")
"""Columns that may say which patches belong together; of columns that divide alike the first counts."""
GROUP_WORDS = {
    "group": "groups",
    "case_id": "cases",
    "case": "cases",
    "patient_id": "patients",
    "patient": "patients",
    "slide_id": "slides",
    "": "patches",
}
"""What the groups of a column are called."""
LEVELS = {"slide_id": 0, "case_id": 1, "case": 1, "patient_id": 2, "patient": 2}
"""What holds what: a slide is of one case, a case of one patient. A group may be anything."""


SLIDE = "slide_id"
MAX_SHOWN = 5
"""Groups that a note names. Our choice."""


@dataclass(frozen=True)
class Grouping:
    """What is independent.

    Attributes:
        column: the one that names the groups, "" of none.
        names: the group of each row; "" where no column of cases says it (N,), and where there is no column.
        note: what a reader must know of how they came about, else "".
    """

    column: str
    names: tuple[str, ...]
    note: str


def coarsest(columns: Mapping[str, Sequence[str]]) -> Grouping:
    """The groups of the rows by the column that says what is independent, and by the others where it has gaps.

    `columns` are cells of `GROUP_COLUMNS`, all of the same rows, "" where a cell gives nothing; a column without any
    counts only if there is no other. Of two that divide alike the first counts, or the column of cases with fewer gaps.
    A row without a value is of the group of the rows that it shares another value with; if none of them has one, they
    are a group by their own patient or case.

    Raises:
        BenchmarkError: two columns cross each other, a case is of several patients, or rows of two groups share a
            value with one that has gaps.
    """
    present = [name for name in GROUP_COLUMNS if name in columns]
    filled = [name for name in present if any(columns[name])] or present[:1]
    if not filled:
        return Grouping("", ("",) * max((len(cells) for cells in columns.values()), default=0), "")
    note = _note_on_shared_slides(columns, filled)
    filled = [name for name in filled if name != SLIDE] if note else filled
    chosen = _chosen(columns, filled)
    notes = [note]
    if _crossing(columns[chosen], columns[filled[0]]):
        word = GROUP_WORDS[chosen]
        notes.append(f"The column {filled[0]} divides {word}, so that folds and intervals go by {chosen}, not by it.")
    names, note = _named(columns, filled, chosen)
    return Grouping(chosen, names, " ".join(filter(None, [*notes, note])))


def groups_in_several_centers_note(groups: Sequence[str], centers: Sequence[str], word: str) -> str:
    """A note on groups whose rows are of several centres, by name; "" of none. `word` is what groups are called, such
    as cases; "" is no group, and no centre.
    """
    of_group: dict[str, set[str]] = {}
    for group, center in zip(groups, centers, strict=True):
        if group and center:
            of_group.setdefault(group, set()).add(center)
    several = {group: sorted(names) for group, names in sorted(of_group.items()) if len(names) > 1}
    if not several:
        return ""
    listed = "; ".join(f"{group!r} ({', '.join(names)})" for group, names in list(several.items())[:MAX_SHOWN])
    more = f" and {len(several) - MAX_SHOWN:,} more" if len(several) > MAX_SHOWN else ""
    return (
        f"{len(several):,} of {len(set(filter(None, groups))):,} {word} are of several centres: {listed}{more}. If "
        "numbers start again at each centre, the same id stands for different patients, who count as one here: put "
        "the centre's name before the id."
    )


def parted_patients_note(groups: Sequence[str], names: Sequence[str], word: str) -> str:
    """A note on patients whose rows are of several groups, by TCGA barcodes in the groups or else in the `names` of the
    rows, such as slides; "" of none. `word` is what groups are called, such as cases; "" is no group.
    """
    rows = ((group, (name,)) for group, name in zip(groups, names, strict=True) if group)
    parted = parted_patients(rows)
    if not parted:
        return ""
    listed = "; ".join(f"{patient} ({', '.join(of[:MAX_SHOWN])})" for patient, of in list(parted.items())[:MAX_SHOWN])
    more = f" and {len(parted) - MAX_SHOWN:,} more" if len(parted) > MAX_SHOWN else ""
    return (
        f"By TCGA barcodes {patients_have(len(parted))} several names among the {word}: {listed}{more}. They may stand "
        "on both sides, so that scores are too high and intervals too narrow; give the patient, TCGA-XX-XXXX."
    )


def _note_on_shared_slides(columns: Mapping[str, Sequence[str]], filled: Sequence[str]) -> str:
    """Slides that hold several cases or patients, in words; "" if there are none."""
    for name in filled:
        if SLIDE in filled and LEVELS.get(name, 0) > LEVELS[SLIDE]:
            of_slide: dict[str, set[str]] = {}
            for slide, value in zip(columns[SLIDE], columns[name], strict=True):
                if slide and value:
                    of_slide.setdefault(slide, set()).add(value)
            shared = sum(len(values) > 1 for values in of_slide.values())
            if shared and (crossing := _crossing(columns[SLIDE], columns[name])):
                return (
                    f"{shared:,} of {len(of_slide):,} slides hold several {GROUP_WORDS[name]} "
                    f"({_words(SLIDE, name, crossing)}), as tissue microarrays do: slides keep nothing together here. "
                    "If a slide is named wrongly, correct its id."
                )
    return ""


def _chosen(columns: Mapping[str, Sequence[str]], filled: Sequence[str]) -> str:
    """The coarsest of the columns `filled`; of two that divide alike a column of cases if it has fewer gaps.

    Raises:
        BenchmarkError: two cross each other.
    """
    chosen = filled[0]
    for other in filled[1:]:
        wider = _crossing(columns[chosen], columns[other])  # a value of the chosen that holds two of the other
        narrower = _crossing(columns[other], columns[chosen])
        if wider and (narrower or _is_below(chosen, other)):
            raise BenchmarkError(f"{_words(chosen, other, wider)}; {_how_to_fix(chosen, other)}")
        if narrower and _is_below(other, chosen):
            raise BenchmarkError(f"{_words(other, chosen, narrower)}; {_how_to_fix(chosen, other)}")
        fuller = sum(map(bool, columns[other])) > sum(map(bool, columns[chosen])) and other in LEVELS and other != SLIDE
        chosen = other if narrower or (fuller and not wider) else chosen
    return chosen


def _named(columns: Mapping[str, Sequence[str]], filled: Sequence[str], chosen: str) -> tuple[tuple[str, ...], str]:
    """The group of each row, and a note on rows that have no value of `chosen`.

    Raises:
        BenchmarkError: rows of two groups share a value with one that has none.
    """
    roots = _joined([columns[name] for name in filled])
    for higher in filled:
        if higher != chosen and _is_below(chosen, higher):
            _require_one(roots, columns, filled, higher)
    names = _require_one(roots, columns, filled, chosen)
    named_by = dict.fromkeys(names, chosen)
    case_columns = [name for name in filled if name != chosen and LEVELS.get(name, 0) > LEVELS[SLIDE]]
    for column in sorted(case_columns, key=lambda name: -LEVELS[name]):
        more = _named_by(column, roots, columns[column], names)
        named_by |= dict.fromkeys(more, column)
        names |= more
    gaps = Counter(named_by.get(root, "") for root, value in zip(roots, columns[chosen], strict=True) if not value)
    return tuple(names.get(root, "") for root in roots), _note_on_gaps(gaps, len(roots), chosen, filled)


def _named_by(column: str, roots: Sequence[int], cells: Sequence[str], names: Mapping[int, str]) -> dict[int, str]:
    """Names, by the first of their rows, of groups that have none among `names`: the first value of a column of cases,
    behind the column's name where another group is called so.
    """
    more: dict[int, str] = {}
    taken = set(names.values())
    for root, value in zip(roots, cells, strict=True):
        if value and root not in names and root not in more:
            more[root] = f"{column} {value}" if value in taken else value
            taken.add(more[root])
    return more


def _note_on_gaps(gaps: Counter[str], num_rows: int, chosen: str, filled: Sequence[str]) -> str:
    """How many rows have no value of `chosen`, by the column that names their groups in its place; "" of none."""
    notes = []
    if gaps[chosen]:
        notes.append(
            f"{gaps[chosen]:,} of {num_rows:,} rows have no {chosen}, and that of rows of the same "
            f"{' or '.join(name for name in filled if name != chosen)}."
        )
    notes += [
        f"{count:,} of {num_rows:,} rows have no {chosen} and go by {column}: if some are of one {chosen}, they "
        "may stand on both sides."
        for column, count in sorted(gaps.items())
        if column not in (chosen, "")
    ]
    return " ".join(notes)


def _require_one(
    roots: Sequence[int], columns: Mapping[str, Sequence[str]], filled: Sequence[str], column: str
) -> dict[int, str]:
    """The value of `column` of rows that hang together, by the first of them (`roots`), where they have one.

    Raises:
        BenchmarkError: they have two.
    """
    names: dict[int, str] = {}
    for root, value in zip(roots, columns[column], strict=True):
        if value and names.setdefault(root, value) != value:
            others = ", ".join(name for name in filled if name != column)
            raise BenchmarkError(
                f"{column} {names[root]!r} and {value!r}: both share a value of {others} with rows that have no "
                f"{column}; give {column} on every line"
            )
    return names


def _joined(columns: Sequence[Sequence[str]]) -> list[int]:
    """For each row the first of all rows that it hangs together with, by values that rows share in any column."""
    parent = list(range(len(columns[0])))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for cells in columns:
        first: dict[str, int] = {}
        for row, value in enumerate(cells):
            if value:
                one, other = root(row), root(first.setdefault(value, row))
                parent[max(one, other)] = min(one, other)
    return [root(row) for row in range(len(parent))]


def _crossing(fine: Sequence[str], coarse: Sequence[str]) -> tuple[str, str, str] | None:
    """The first value of `fine` that has two values of `coarse`, and these; `None` if each has one."""
    first: dict[str, str] = {}
    for value, of in zip(fine, coarse, strict=True):
        if value and of and first.setdefault(value, of) != of:
            return value, first[value], of
    return None


def _is_below(first: str, second: str) -> bool:
    """Whether a value of `first` must be of one value of `second`."""
    return first in LEVELS and second in LEVELS and LEVELS[first] < LEVELS[second]


def _words(fine: str, coarse: str, crossing: tuple[str, str, str]) -> str:
    """What crosses."""
    value, first, second = crossing
    return f"{fine} {value!r} is of {coarse} {first!r} and {second!r}"


def _how_to_fix(first: str, second: str) -> str:
    """How to fix columns that cross each other."""
    if "slide_id" in (first, second):
        return (
            "give every slide an id of its own, or leave the column slide_id out, as where a slide holds the tissue of "
            "several cases"
        )
    return f"give each a name of its own, or leave {first} or {second} out: the one that is left decides what is apart"
