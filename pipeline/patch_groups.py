"""Which patches belong together: the coarsest of the columns that say so, for a patient's slides share the patient.

A table may name groups, cases, patients and slides. Folds and the bootstrap go by the one that all others divide, so
that nothing which belongs together is parted; the others are counted. Columns that cross each other are an error: then
no column tells what is independent. Pure.
"""

from collections.abc import Mapping, Sequence

from pipeline.errors import BenchmarkError

GROUP_COLUMNS = ("group", "case_id", "case", "patient_id", "patient", "slide_id")
"""Columns that may say which patches belong together; of columns that divide alike the first counts."""
GROUP_WORDS = {
    "group": "groups", "case_id": "cases", "case": "cases", "patient_id": "patients", "patient": "patients",
    "slide_id": "slides", "": "patches",
}  # fmt: skip
"""What the groups of a column are called."""
LEVELS = {"slide_id": 0, "case_id": 1, "case": 1, "patient_id": 2, "patient": 2}
"""What holds what: a slide is of one case, a case of one patient. A group may be anything."""


def coarsest(columns: Mapping[str, Sequence[str]]) -> tuple[str, str]:
    """The column that says what is independent, "" of none, and a note where it is not the first, else "".

    `columns` are cells of `GROUP_COLUMNS`, all of the same rows, "" where a cell gives nothing; a column without any
    counts only if there is no other.

    Raises:
        BenchmarkError: two columns cross each other, or a slide is of several cases or a case of several patients.
    """
    present = [name for name in GROUP_COLUMNS if name in columns]
    filled = [name for name in present if any(columns[name])] or present[:1]
    if not filled:
        return "", ""
    chosen = filled[0]
    for other in filled[1:]:
        wider = _crossing(columns[chosen], columns[other])  # a value of the chosen that holds two of the other
        narrower = _crossing(columns[other], columns[chosen])
        if wider and (narrower or _is_below(chosen, other)):
            raise BenchmarkError(f"{_words(chosen, other, wider)}; {_mend(chosen, other)}")
        if narrower and _is_below(other, chosen):
            raise BenchmarkError(f"{_words(other, chosen, narrower)}; {_mend(chosen, other)}")
        chosen = other if narrower else chosen
    if chosen == filled[0]:
        return chosen, ""
    word = GROUP_WORDS[chosen]
    return chosen, f"The column {filled[0]} divides {word}, so that folds and intervals go by {chosen}, not by it."


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


def _mend(first: str, second: str) -> str:
    """How columns that cross each other are mended."""
    if "slide_id" in (first, second):
        return (
            "give every slide an id of its own, or leave the column slide_id out, as where a slide holds the tissue of "
            "several cases"
        )
    return f"give each a name of its own, or leave {first} or {second} out: the one that is left decides what is apart"
