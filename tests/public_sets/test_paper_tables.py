"""The paper's tables: its columns, and whose value stands where."""

from dataclasses import replace
from pathlib import Path

from PIL import Image

from pipeline.public_sets.compare import Comparison
from pipeline.public_sets.paper_tables import draw_table, paper_tables, shared_places
from pipeline.public_sets.published import published_values
from pipeline.report.content import Interval


def comparisons(name: str, metric: str, ours: dict[str, tuple[str, float]]) -> list[Comparison]:
    """All published values of a set, and `ours`: by label the published name and a value."""
    published = {each.model: each for each in published_values() if (each.set, each.metric) == (name, metric)}
    nothing = float("nan")
    rows = [
        Comparison(name, metric, label, Interval(value, nothing, nothing), published.get(theirs), 0.02, "")
        for label, (theirs, value) in ours.items()
    ]
    others = [each for model, each in published.items() if model not in {theirs for theirs, _ in ours.values()}]
    return rows + [Comparison(name, metric, "", None, each, 0.02, "") for each in others]


def test_a_column_a_model_and_two_rows_a_set() -> None:
    rows = comparisons("tils", "kNN accuracy", {"teacher": ("h-optimus-0", 0.93), "mine": ("", 0.5)})
    rows += comparisons("idc", "kNN accuracy", {"g2l": ("g2l", 0.92)})
    (table,) = paper_tables(rows)
    assert table.columns == ("set", "values", "G2L", "H-optimus-0", "UNI2-h", "Hibou-L", "mine")
    assert table.rows == (
        ("tils", "published", 0.9362, 0.9344, 0.9291, 0.9214, None),
        ("tils", "ours", None, 0.93, None, None, 0.5),
        ("idc", "published", 0.9232, 0.9141, 0.9165, 0.9074, None),
        ("idc", "ours", 0.92, None, None, None, None),
    )
    assert table.name == "table_knn_accuracy"


def test_values_that_must_not_be_compared_say_so() -> None:
    rows = [replace(row, reason="a part") for row in comparisons("tils", "kNN accuracy", {"mine": ("", 0.5)})]
    (table,) = paper_tables([*rows, *comparisons("idc", "kNN accuracy", {"mine": ("", 0.5)})])
    assert [row[1] for row in table.rows] == ["published", "ours, not comparable", "published", "ours"]
    unpublished = Comparison("tils", "kNN accuracy", "mine", Interval(0.5, 0.4, 0.6), None, 0.02, "", reason="a part")
    assert [row[1] for row in paper_tables([unpublished])[0].rows] == ["published", "ours"]
    metric = "class to centre, k = 3"
    (table,) = paper_tables([replace(row, reason="a part") for row in comparisons("tiger", metric, {"a": ("", 1.0)})])
    assert ("a", "ours, not comparable", 1.0) in table.rows


def test_cka_has_before_and_after() -> None:
    (table,) = paper_tables(comparisons("breakhis", "CKA with the teacher", {"start": ("hibou-l", 0.88)}))
    assert table.columns == ("set", "values", "before", "after")
    assert table.rows == (("breakhis", "published", 0.8909, 0.9558), ("breakhis", "ours", 0.88, None))


def test_labels_that_are_the_paper_s_columns_stand_there_once() -> None:
    """As README.md names the models: `--models before=run@before --models after=run`."""
    (table,) = paper_tables(comparisons("breakhis", "CKA with the teacher", {"before": ("", 0.7), "After": ("", 0.8)}))
    assert table.columns == ("set", "values", "before", "after")
    assert table.rows == (("breakhis", "published", 0.8909, 0.9558), ("breakhis", "ours", 0.7, 0.8))


def test_a_value_that_is_not_defined_is_none() -> None:
    """Such as an AUROC where no fold has two classes; it was written as nan."""
    (table,) = paper_tables(comparisons("tils", "kNN accuracy", {"g2l": ("g2l", float("nan")), "mine": ("", 0.5)}))
    assert table.rows[1] == ("tils", "ours", None, None, None, None, 0.5)


def test_this_call_s_value_is_not_that_of_the_same_model_beside_it() -> None:
    """Two students are compared with the paper's under its name, g2l, one after the other."""
    for metric, label in (("kNN accuracy", "g2l"), ("class to centre, k = 3", "a")):
        name = "tils" if label == "g2l" else "tiger"
        now, before = (comparisons(name, metric, {label: (label, value)}) for value in (0.6, 0.5))
        (table,) = paper_tables([*now, *before])
        assert [row[2] for row in table.rows if "ours" in row[1]] == [0.6]
        assert shared_places([*now, *before]) == [f"{name}: {label}"]
        assert shared_places(now) == []
    others = comparisons("idc", "kNN accuracy", {"g2l": ("g2l", 0.5), "mine": ("", 0.4)})
    assert shared_places([*comparisons("tils", "kNN accuracy", {"g2l": ("g2l", 0.6)}), *others]) == []


def test_the_ratio_has_a_column_a_k() -> None:
    rows = [row for k in (3, 5, 10, 20) for row in comparisons("tiger", f"class to centre, k = {k}", {"a": ("", 1.0)})]
    (table,) = paper_tables(rows)
    assert table.columns == ("model", "values", "k = 3", "k = 5", "k = 10", "k = 20")
    assert ("G2L", "published", 1.0891, 1.3002, 1.5021, 2.0316) in table.rows
    assert ("a", "ours", 1.0, 1.0, 1.0, 1.0) in table.rows
    assert len(table.rows) == 5


def test_a_table_is_drawn(tmp_path: Path) -> None:
    (table,) = paper_tables(comparisons("tils", "kNN accuracy", {"mine": ("", 0.5)}))
    draw_table(table, tmp_path / "t.png")
    with Image.open(tmp_path / "t.png") as image:
        assert image.width > 1000
        assert len(image.convert("L").getcolors()) > 10
    (tmp_path / "u.png").write_bytes(b"")
    draw_table(table, tmp_path / "u.png")
    assert (tmp_path / "u.png").read_bytes() == (tmp_path / "t.png").read_bytes()
