"""Slides of listed cases are left out of an import: with and without features, counted, and the same when continued."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.base.errors import ConfigError, StoreError
from pipeline.cohort.audit import AuditRow
from pipeline.cohort.plan import Plan
from pipeline.config.plan import PlanConfig
from pipeline.features.excluded import leave_out_cases, require_same_exclusions
from pipeline.features.find import FeatureTree
from pipeline.features.match import Matched, match_slides


@pytest.fixture
def matched(tmp_path: Path) -> Matched:
    """Slides a to d of cases 1, 1, 2 and 3; b has no file of features, and `x` no slide."""
    rows = "a,a.svs,1\nb,b.svs,1\nc,c.svs,2\nd,d.svs,3\n"
    (tmp_path / "m.csv").write_text(f"slide_id,path,case_id\n{rows}")
    for name in "abcd":
        (tmp_path / f"{name}.svs").touch()
    tree = FeatureTree(Path("f"), {name: Path(f"f/{name}.h5") for name in "acdx"})
    return match_slides(tree, tmp_path / "m.csv", tmp_path)


def listed(folder: Path, *cases: str) -> list[str]:
    (folder / "listed.txt").write_text("\n".join(cases))
    return [str(folder / "listed.txt")]


def store_plan(matched: Matched) -> Plan:
    audit = [AuditRow(row.slide_id, "ok") for row, _ in matched.pairs]
    audit += [slide.audit for slide in matched.failed]
    return Plan((), Path(), PlanConfig.build({}), (*audit, *matched.excluded))


def test_a_case_is_left_out_whole_and_told(matched: Matched, tmp_path: Path) -> None:
    assert leave_out_cases(matched, None) == matched
    left = leave_out_cases(matched, listed(tmp_path, "a", "nobody"))
    assert [row.slide_id for row, _ in left.pairs] == ["c", "d"]
    assert [slide.audit.slide_id for slide in left.failed] == ["x"]
    assert [(row.slide_id, row.status, row.case_id) for row in left.excluded] == [
        ("a", "excluded", "1"),
        ("b", "excluded", "1"),
    ]
    assert "listed.txt" in left.excluded[1].reason
    assert "2 slides of 1 case left out of the plan, by 2 listed" in left.notes[-2]
    assert left.notes[-1].endswith("of 1 listed there is no slide: nobody")
    with pytest.raises(ConfigError, match="no such file, nor one of the lists"):
        leave_out_cases(matched, ["bccs"])


def test_a_store_goes_on_with_the_same_exclusions_only(matched: Matched, tmp_path: Path) -> None:
    first = leave_out_cases(matched, listed(tmp_path, "2"))
    plan, out = store_plan(first), tmp_path / "s.zarr"
    require_same_exclusions(first, plan, out)
    require_same_exclusions(leave_out_cases(matched, listed(tmp_path, "c", "nobody")), plan, out)
    with pytest.raises(StoreError, match=r"(?s)s\.zarr was made with other inputs.*  c: no longer excluded") as error:
        require_same_exclusions(leave_out_cases(matched, listed(tmp_path, "3")), plan, out)
    assert "  d: excluded now (--exclude-cases)" in str(error.value)
    require_same_exclusions(matched, store_plan(matched), out)
    many = replace(matched, rows=(), excluded=tuple(AuditRow(f"s{i}", "excluded") for i in range(30)))
    plan = replace(plan, audit=tuple(AuditRow(f"s{i}", "ok") for i in range(30)))
    with pytest.raises(StoreError, match=r"and 10 more\nGive the same --exclude-cases"):
        require_same_exclusions(many, plan, out)
