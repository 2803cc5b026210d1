"""What a plan was made with: nothing for the defaults, a line for each other choice, in plans and stores."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.commands import succeed
from support.extraction import made_up_plan

from pipeline.base.errors import PlanError
from pipeline.cohort.audit import EXCLUDED, AuditRow
from pipeline.cohort.plan import Plan
from pipeline.cohort.plan_hdf5 import write_plan
from pipeline.config.plan import PlanConfig
from pipeline.config.tissue_rules import LATER_RULES
from stages.reports.plan_options import cluster_table, plan_choices


def made_with(**options: Any) -> Plan:
    return replace(made_up_plan(), config=PlanConfig.build(options))


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ({}, []),
        ({"seed": 3, "patches_per_slide": 5, "min_tissue": 0.1}, []),
        (
            {"skip_rule": ["pen", "blur"], "use_rule": ["fat"]},
            [("tissue rules off", "pen, blur"), ("tissue rules on", "fat")],
        ),
        ({"skip_rule": LATER_RULES}, [("tissue rules", "dark and specks alone, as in earlier versions")]),
        ({"max_artefact": 0.25}, [("artefacts", "on at most 25 % of a patch's area")]),
        ({"max_artefact": 0.1}, []),
        ({"annotation_origin": "scan"}, [("annotations", "coordinates count from the scanned area's corner")]),
        ({"annotation_origin": "slide"}, [("annotations", "coordinates count from the slide's corner")]),
        (
            {"include": ["tumour", "stroma"], "min_class": 0.25, "exclude": ["necrosis"]},
            [
                ("include", "stroma, tumour: at least 25 % of a patch's area"),
                ("exclude", "necrosis: at most 0 % of a patch's area"),
            ],
        ),
        ({"sample": "class", "class_quota": ["a=2"]}, [("sample", "class; quotas a=2.0")]),
        ({"sample": "spread", "balance": "center"}, [("sample", "spread"), ("balance", "between centers")]),
        ({"sample": "cluster", "clusters": 5}, [("sample", "cluster; 4 candidates for each patch; up to 5 clusters")]),
        ({"decode": "half"}, [("decode", "half")]),
    ],
)
def test_only_what_is_no_default_has_a_line(options: dict[str, Any], lines: list[tuple[str, str]]) -> None:
    assert plan_choices(made_with(**options)) == lines


def test_what_the_audit_knows_is_counted_and_shown_by_inspect(tmp_path: Path) -> None:
    plan = made_up_plan()
    audit = [AuditRow(name, "ok", tissue_sha256="0") for name in ("a", "b", "c")]
    audit += [AuditRow(name, EXCLUDED, "--exclude-cases: 1 is in bcss", case_id="1") for name in ("x", "y")]
    plan = replace(plan, audit=tuple(audit), config=plan.config.model_copy(update={"use_rule": ["folds"]}))
    write_plan(plan, tmp_path / "p.h5")
    shown = " ".join(succeed("inspect", tmp_path / "p.h5").split())
    assert "excluded cases 2 slides of 1 case, left out by --exclude-cases" in shown
    assert "tissue from files of 3 slides" in shown
    assert "tissue rules on folds" in shown
    assert [name for name, _ in plan_choices(plan, is_imported=True)] == ["excluded cases"]


def test_clusters_are_summed_over_the_slides_and_a_damaged_count_is_named() -> None:
    columns = ('{"1": [4, 2], "3": [5, 5]}', '{"3": [1, 0]}', "")
    audit = [AuditRow(str(number), "ok", cluster_patches=column) for number, column in enumerate(columns)]
    plan = replace(made_up_plan(), audit=tuple(audit))
    assert [line.split() for line in cluster_table(plan).splitlines()[2:]] == [
        ["1", "4", "2", "1"],
        ["3", "6", "5", "2"],
    ]
    assert cluster_table(made_up_plan()) == ""
    for column in ('{"1": 3}', "[]", '{"1": ["x", 2]}'):
        with pytest.raises(PlanError, match="the plan is damaged"):
            cluster_table(replace(plan, audit=(AuditRow("a", "ok", cluster_patches=column),)))
