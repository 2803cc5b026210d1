"""Which table of a report holds which metric; `tests/stages/studies` looks into a report as it is made."""

from collections.abc import Sequence

from pipeline.public_sets.measured import feature_labels, measured_values, milliseconds, num_failed
from pipeline.report.content import Cell, Column, Exclusion, Interval, Report, Section, Table


def report(*sections: Section) -> Report:
    return Report("", [], "", sections, {}, {})


def section(
    key: str, *tables: Table, exclusions: Sequence[Exclusion] = (), ms: dict[str, float] | None = None
) -> Section:
    return Section(key, "", "", {}, tables, exclusions=exclusions, ms_per_patch=ms or {})


def table(title: str, columns: Sequence[str], *rows: Sequence[Cell]) -> Table:
    return Table(title, [Column(name) for name in columns], rows)


VALUE = Interval(0.9, 0.8, 1.0)
LINEAR = table("Linear probe", ["model", "balanced accuracy", "accuracy", "AUROC"], ["a", VALUE, 0.7, 0.95])
LESS = table("Linear probe by centre", ["centre", "model", "AUROC"], ["x", "a", 0.1])
KNN = table("kNN, 20 neighbours", ["model", "balanced accuracy", "accuracy"], ["a", 0.5, VALUE], ["b", 0.6, None])


def test_table_and_column_say_what_a_value_is() -> None:
    made = report(section("patches", LINEAR, LESS, KNN))
    assert measured_values(made, "kNN accuracy") == {"a": VALUE}
    assert measured_values(made, "linear probe balanced accuracy") == {"a": VALUE}
    assert measured_values(made, "kNN balanced accuracy")["b"].value == 0.6
    auroc = measured_values(made, "linear probe AUROC")["a"]
    assert auroc.record() == {"value": 0.95, "low": None, "high": None}


def test_a_report_without_the_metric_gives_nothing() -> None:
    assert measured_values(report(section("patches", LINEAR)), "kNN accuracy") == {}
    assert measured_values(report(section("slides", KNN)), "kNN accuracy") == {}
    assert measured_values(report(), "robustness index") == {}


def test_a_table_of_differences_is_not_taken_for_the_values() -> None:
    names = ["model", "own slide", "k = 3"]
    ratio = table("Same class over same centre", names, ["a", "left out", None])
    less = table("Same class over same centre, difference from b", names, ["a", "left out", 0.1])
    assert measured_values(report(section("robustness", ratio, less)), "class to centre, k = 3") == {}
    ratio = table("Same class over same centre", names, ["a", "left out", VALUE], ["a", "counted", 0.2])
    assert measured_values(report(section("robustness", less, ratio)), "class to centre, k = 3") == {"a": VALUE}


def test_the_predictor_of_slides_counts() -> None:
    head = ["features", "predictor", "balanced accuracy", "AUROC"]
    cells = (
        [name, 0.5, auroc]
        for name, auroc in (("attention MIL", 0.6), ("mean embedding", 0.7), ("kNN of the mean", 0.8))
    )
    rows = table("tp53, predicted", head, *(["a", *row] for row in cells))
    assert measured_values(report(section("slides", rows)), "slides, AUROC of the mean")["a"].value == 0.7


def test_the_feature_sets_are_known_where_nothing_is_measured() -> None:
    sets = table("Feature sets", ["features", "width"], ["a", 4], ["b", 4])
    assert feature_labels(report(section("slides", sets), section("patches", KNN))) == ["a", "b"]


def test_failures_and_times() -> None:
    exclusions = [Exclusion("a", "", by_rule=True), Exclusion("b", "", count=3)]
    made = report(section("patches", exclusions=exclusions), section("cost", ms={"a": 2.0}))
    assert (num_failed(made), milliseconds(made), milliseconds(report())) == (3, {"a": 2.0}, None)
