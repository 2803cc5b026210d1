"""The content of a report: plain data, and the same in JSON with every digit."""

import json
from dataclasses import replace
from math import inf, nan

import pytest

from pipeline.report.content import (
    Column,
    Exclusion,
    Figure,
    Interval,
    Report,
    ReportModel,
    Score,
    Section,
    Table,
    plain,
)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (0.1 + 0.2, 0.30000000000000004),
        (nan, None),
        (inf, None),
        (None, None),
        (7, 7),
        ("nan", "nan"),
        (Interval(0.5, nan, inf), {"value": 0.5, "low": None, "high": None}),
    ],
)
def test_cells_keep_their_digits_and_what_is_not_finite_is_null(cell: object, expected: object) -> None:
    assert plain(cell) == expected  # type: ignore[arg-type]


def test_a_row_has_a_cell_for_every_column() -> None:
    with pytest.raises(AssertionError, match="Scores: 1 cells for 2 columns"):
        Table("Scores", [Column("model"), Column("x")], [["a", 1.0], ["b"]])


def test_a_table_is_a_dictionary_a_row_and_says_what_its_columns_are() -> None:
    columns = [Column("model"), Column("x", "What x is.", digits=1)]
    table = Table("Scores", columns, [["a", 0.123456789], ["b", None]], note="A note.")
    assert table.record() == {
        "title": "Scores",
        "rows": [{"model": "a", "x": 0.123456789}, {"model": "b", "x": None}],
        "what": {"x": "What x is."},
        "note": "A note.",
    }


def test_an_exclusion_has_a_count_where_it_stands_for_several() -> None:
    assert Exclusion("a.png", "damaged", by_rule=True).record() == {"what": "a.png", "why": "damaged"}
    assert Exclusion("patches", "damaged", count=3).record() == {"what": "patches", "why": "damaged", "count": 3}


def test_a_section_lists_scores_and_only_differences_that_there_are() -> None:
    scores = [
        Score("first", {"a": Interval(1, 0, 2), "b": Interval(3, nan, nan)}, 0.5, {"b": Interval(2, 1, 3)}),
        Score("second", {"a": Interval(1, 0, 2)}),
    ]
    section = Section(
        "k",
        "T",
        "W",
        {"patches": 3},
        [],
        [Figure("f.png", "c", "a")],
        scores,
        notes=("n",),
        exclusions=[Exclusion("x", "y")],
        ms_per_patch={"a": 1.0},
    )
    record = section.record()
    assert record["scores"] == {
        "first": {"a": {"value": 1, "low": 0, "high": 2}, "b": {"value": 3, "low": None, "high": None}},
        "second": {"a": {"value": 1, "low": 0, "high": 2}},
    }
    assert record["differences"] == {"first": {"b": {"value": 2, "low": 1, "high": 3}}}
    assert (record["figures"], record["notes"], record["basis"]) == (["f.png"], ["n"], {"patches": 3})
    assert not {"key", "ms_per_patch", "references"} & record.keys()
    scores[0] = replace(scores[0], reference="a")  # not the report's
    assert replace(section, scores=scores).record()["references"] == {"first": "a"}
    json.dumps(record, allow_nan=False)


def test_a_report_has_its_models_with_what_they_are_and_its_sections_by_key() -> None:
    models = [ReportModel("m", "teacher", {"source": "timm:x", "mpp": None}, 5)]
    sections = [Section(key, key.upper(), "", {}, []) for key in ("b", "a")]
    report = Report("R", models, "m", sections, {"seed": 0}, {"machine": "cpu"})
    assert repr(report) == "Report('R', 1 models, 2 sections)"  # at a prompt, not all that it holds
    record = report.record()
    assert record["format"] == 1
    assert record["models"] == [{"label": "m", "role": "teacher", "num_params": 5, "source": "timm:x", "mpp": None}]
    assert list(record["sections"]) == ["b", "a"]
    assert record["sections"]["a"]["title"] == "A"
    assert (record["reference"], record["settings"], record["run"]) == ("m", {"seed": 0}, {"machine": "cpu"})
