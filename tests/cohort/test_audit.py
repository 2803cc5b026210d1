"""The audit's table, and columns of it that a later version wrote."""

import csv
from pathlib import Path

from support.plans import assert_same_plan, plan_with_labels

from pipeline.cohort.audit import write_audit
from pipeline.cohort.plan import Plan
from pipeline.cohort.plan_records import plan_from_records, plan_records


def test_audit_csv(plan: Plan, tmp_path: Path) -> None:
    write_audit(plan.audit, tmp_path / "audit.csv")
    with open(tmp_path / "audit.csv", newline="") as f:
        lines = list(csv.DictReader(f))
    assert [line["slide_id"] for line in lines] == ["slide_1", "slide_2", "slide_3", "slide_4"]
    for line, row in zip(lines, plan.audit, strict=True):
        assert line == {name: "" if value is None else str(value) for name, value in row.record().items()}
    assert (lines[0]["vendor"], lines[0]["width"], lines[0]["levels"]) == ("aperio", "1500", "2")
    assert int(lines[0]["pixel_bytes"]) > 1000


def test_columns_of_a_later_audit_are_left_out() -> None:
    """They decide nothing and are not in the hash; a plan with one was called damaged."""
    plan = plan_with_labels(2)
    records = plan_records(plan)
    records["audit"] = [row | {"later": 1} for row in records["audit"]]
    assert_same_plan(plan_from_records(records, plan.slides, Path("p.h5")), plan)
