"""Which column says what is independent: against trying all columns, and on columns that contradict each other."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import BenchmarkError
from pipeline.evaluate.groups import coarsest, groups_in_several_centers_note, parted_patients_note


@pytest.mark.parametrize(
    ("columns", "chosen", "words"),
    [
        ({}, "", ""),
        ({"slide_id": "1 2 3"}, "slide_id", ""),
        ({"group": "a b c d", "case_id": "A A B B"}, "case_id", "The column group divides cases"),
        ({"group": "a a a b", "case_id": "A A B C"}, "group", ""),
        ({"group": "a a b b", "case_id": "A A B B"}, "group", ""),
        (
            {"group": "r1 r2 r3 r4", "case": "A B C C", "patient": "P P Q Q", "slide_id": "1 2 3 3"},
            "patient",
            "The column group divides patients",
        ),
        ({"case_id": "A A B B", "slide_id": "1 2 3 3"}, "case_id", ""),
        ({"group": "a b - d", "case_id": "A A B -"}, "case_id", "go by case_id, not by it"),
        ({"group": "- - -", "case_id": "A A B"}, "case_id", ""),
        ({"group": "- - -"}, "group", ""),
    ],
)
def test_the_coarsest_counts(columns: dict[str, str], chosen: str, words: str) -> None:
    cells = {name: ["" if cell == "-" else cell for cell in text.split()] for name, text in columns.items()}
    found = coarsest(cells)
    assert found.column == chosen
    assert words in found.note
    assert bool(words) == bool(found.note)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"group": "A A B B", "slide_id": "1 2 2 3"}, "group 'A' is of slide_id '1' and '2'; give every slide an id"),
        ({"case_id": "A A B", "patient": "P Q R"}, "case_id 'A' is of patient 'P' and 'Q'"),
        (
            {"group": "x x y y", "case_id": "A B B A"},
            "group 'x' is of case_id 'A' and 'B'; .*leave group or case_id out",
        ),
    ],
)
def test_columns_that_cross_are_an_error(columns: dict[str, str], words: str) -> None:
    with pytest.raises(BenchmarkError, match=words):
        coarsest({name: text.split() for name, text in columns.items()})


def rows_of(columns: dict[str, str]) -> dict[str, list[str]]:
    return {name: ["" if cell == "-" else cell for cell in text.split()] for name, text in columns.items()}


@pytest.mark.parametrize(
    ("columns", "chosen", "names", "words"),
    [
        # the patient of a case is that of its other rows
        ({"case_id": "A A B B C", "patient": "P - P - Q"}, "patient", "P P P P Q", "2 of 5 rows have no patient, and"),
        ({"slide_id": "1 1 2", "case_id": "A - B"}, "case_id", "A A B", "1 of 3 rows have no case_id, and that of"),
        # no row of cases B and C has one
        ({"case_id": "A B C", "patient": "P - -"}, "case_id", "A B C", ""),
        ({"case_id": "A B C D", "patient": "P P - -"}, "patient", "P P C D", "2 of 4 rows have no patient and go by"),
        ({"case_id": "A B P", "patient": "P P -"}, "patient", "P P case_id:P", "1 of 3 rows have no patient and go by"),
        # of two that divide alike the one without gaps
        ({"case_id": "A A - -", "patient": "P P Q Q"}, "patient", "P P Q Q", ""),
        ({"case_id": "A A - -", "patient": "- - Q Q"}, "case_id", "A A Q Q", "2 of 4 rows have no case_id and go by"),
        # what only a slide or a group names stays open
        ({"slide_id": "1 2 3", "group": "x y z", "case_id": "A A -"}, "case_id", "A A -", "go by case_id, not by it"),
        ({"slide_id": "1 2", "case_id": "A -"}, "case_id", "A -", ""),
        # a tissue microarray
        (
            {"slide_id": "1 1 2 2", "patient": "P Q P Q"},
            "patient",
            "P Q P Q",
            "2 of 2 slides hold several patients (slide_id '1' is of patient 'P' and 'Q')",
        ),
        ({"slide_id": "1 1 2", "case_id": "A B C"}, "case_id", "A B C", "1 of 2 slides hold several cases"),
        ({"slide_id": "1 1 1", "case_id": "A B -"}, "case_id", "A B -", "1 of 1 slides hold several cases"),
    ],
)
def test_the_groups_of_columns_with_gaps(columns: dict[str, str], chosen: str, names: str, words: str) -> None:
    found = coarsest(rows_of(columns))
    expected = ["" if name == "-" else name.replace(":", " ") for name in names.split()]
    assert (found.column, list(found.names)) == (chosen, expected)
    assert words in found.note
    assert bool(words) == bool(found.note)


def test_two_groups_that_share_a_value_through_a_gap_are_an_error() -> None:
    columns = {"slide_id": "1 1 2", "case_id": "- A A", "patient": "P - Q"}
    with pytest.raises(BenchmarkError, match=r"patient 'P' and 'Q': both share .* have no patient; give patient on"):
        coarsest(rows_of(columns))


def test_groups_in_several_centers_are_named() -> None:
    groups, centers = ["1", "1", "2", "2", "3", ""], ["x", "y", "x", "x", "", "y"]
    note = groups_in_several_centers_note(groups, centers, "cases")
    assert note.startswith("1 of 3 cases are of several centres: '1' (x, y). If numbers start again at each centre")
    assert groups_in_several_centers_note(groups[2:], centers[2:], "cases") == ""
    many = [str(i) for i in range(7)]
    assert "and 2 more. If" in groups_in_several_centers_note(many * 2, ["x"] * 7 + ["y"] * 7, "cases")


CELLS = st.sampled_from(["a", "b", "c", "d", ""])
NAMES = ("group", "case_id", "patient", "slide_id")


@given(st.lists(st.tuples(*[CELLS] * 4), min_size=1, max_size=8))
def test_nothing_that_belongs_together_is_parted(rows: list[tuple[str, ...]]) -> None:
    """Rows that share a value of any column are of one group, but for slides that hold several cases."""
    columns = {name: list(cells) for name, cells in zip(NAMES, zip(*rows, strict=True), strict=True)}
    try:
        found = coarsest(columns)
    except BenchmarkError:

        def parted(a: str, b: str) -> bool:
            pairs = {(x, y) for x, y in zip(columns[a], columns[b], strict=True) if x and y}
            return len({x for x, _ in pairs}) < len(pairs)

        assert any(parted(a, b) for a, b in permutations(NAMES, 2))
        return
    for name in NAMES:
        if name == "slide_id" and "slides hold several" in found.note:
            continue
        of: dict[str, str] = {}
        for value, group in zip(columns[name], found.names, strict=True):
            if value:
                assert of.setdefault(value, group) == group
    for value, group in zip(columns[found.column], found.names, strict=True) if found.column else ():
        assert value in ("", group)


def test_a_patient_of_several_groups_is_told() -> None:
    groups = ["TCGA-3C-AALI-01A", "TCGA-3C-AALI-01A", "tcga-3c-aali-11A", "P3", ""]
    names = ["a", "b", "c", "TCGA-3C-AALK-01Z", "TCGA-3C-AALK-02Z"]
    note = parted_patients_note(groups, names, "cases")
    assert note.startswith(
        "By TCGA barcodes 1 patient has several names among the cases: TCGA-3C-AALI (TCGA-3C-AALI-01A, "
        "tcga-3c-aali-11A). They may"
    )
    by_slide = parted_patients_note(["s1", "s2"], ["TCGA-3C-AALI-01Z", "TCGA-3C-AALI-02Z"], "slides")
    assert "1 patient has several names among the slides: TCGA-3C-AALI (s1, s2)" in by_slide
    assert parted_patients_note(["TCGA-3C-AALI"] * 2, ["a", "b"], "cases") == ""
