"""A plan in words: its facts, which a store says of its plan as well, and its tables."""

from dataclasses import replace
from pathlib import Path

from support.extraction import made_up_plan

from pipeline.cohort.audit import AuditRow
from stages.inspecting.plan import describe_plan, plan_facts, with_tables


def test_a_plan_says_its_facts_and_where_its_slides_lie() -> None:
    audit = (AuditRow("a", "ok"), AuditRow("b", "ok"), AuditRow("c", "failed", reason="gone"))
    plan = replace(made_up_plan(), audit=audit)
    lines = [line.split(maxsplit=1) for line in describe_plan(plan, Path("p.h5")).splitlines() if line]
    for name, value in (("hash", plan.hash), ("audit", "2 ok, 1 failed"), ("slides", "below  /nowhere")):
        assert [name, value] in lines
    for name, value in plan_facts(plan):
        assert any(line == [name, str(value)] for line in lines)


def test_without_classes_and_clusters_there_are_no_tables() -> None:
    assert with_tables(made_up_plan(), "one", "", "two") == "one\n\ntwo"
