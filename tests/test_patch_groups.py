"""Which column says what is independent: against trying all columns, and on columns that contradict each other."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import BenchmarkError
from pipeline.patch_groups import coarsest


@pytest.mark.parametrize(
    ("columns", "chosen", "words"),
    [
        ({}, "", ""),
        ({"slide_id": "1 2 3"}, "slide_id", ""),
        ({"group": "a b c d", "case_id": "A A B B"}, "case_id", "The column group divides cases"),
        ({"group": "a a a b", "case_id": "A A B C"}, "group", ""),
        ({"group": "a a b b", "case_id": "A A B B"}, "group", ""),
        ({"group": "r1 r2 r3 r4", "case": "A B C C", "patient": "P P Q Q", "slide_id": "1 2 3 3"}, "patient",
         "The column group divides patients"),
        ({"case_id": "A A B B", "slide_id": "1 2 3 3"}, "case_id", ""),
        ({"group": "a b - d", "case_id": "A A B -"}, "case_id", "go by case_id, not by it"),
        ({"group": "- - -", "case_id": "A A B"}, "case_id", ""),
        ({"group": "- - -"}, "group", ""),
    ],
)  # fmt: skip
def test_the_coarsest_counts(columns: dict[str, str], chosen: str, words: str) -> None:
    cells = {name: ["" if cell == "-" else cell for cell in text.split()] for name, text in columns.items()}
    found, note = coarsest(cells)
    assert found == chosen
    assert words in note
    assert bool(words) == bool(note)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"case_id": "A A B B", "slide_id": "1 2 2 3"}, "case_id 'A' is of slide_id '1' and '2'"),
        ({"case_id": "A B C", "slide_id": "1 1 2"}, "slide_id '1' is of case_id 'A' and 'B'; give every slide an id"),
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


@given(st.lists(st.tuples(*[st.sampled_from("abc")] * 3), min_size=1, max_size=8))
def test_nothing_that_belongs_together_is_parted(rows: list[tuple[str, ...]]) -> None:
    names = ("group", "case_id", "slide_id")
    columns = {name: list(cells) for name, cells in zip(names, zip(*rows, strict=True), strict=True)}
    try:
        chosen, _ = coarsest(columns)
    except BenchmarkError:

        def parted(a: str, b: str) -> bool:
            pairs = set(zip(columns[a], columns[b], strict=True))
            return len({x for x, _ in pairs}) < len(pairs)

        assert any(parted(a, b) for a, b in permutations(names, 2))
        return
    for name in names:
        of = {}
        for value, group in zip(columns[name], columns[chosen], strict=True):
            assert of.setdefault(value, group) == group
