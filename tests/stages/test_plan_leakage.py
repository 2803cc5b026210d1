"""Plans without the cases of a benchmark, with scans of one slide named, and balanced by centre."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.commands import call_g2l, succeed
from support.plans import SMALL, make_plan

from pipeline.base.errors import ConfigError, PlanError
from pipeline.cohort.audit import EXCLUDED
from pipeline.cohort.manifest.read import read_manifest
from pipeline.cohort.plan import Plan
from pipeline.cohort.plan_hdf5 import read_plan, write_plan
from pipeline.config.plan import PlanConfig
from pipeline.disk.tables import read_table
from pipeline.sampling import patch_keys
from stages.plan import plan_slides
from stages.planning.to_extract import plan_beside
from stages.planning.write import failed_slides

FLAGS = ("--patch-px", "64", "--patches-per-slide", "12")


@pytest.fixture
def case_2(tmp_path: Path) -> Path:
    (tmp_path / "listed.txt").write_text("# of a benchmark\ncase_2\nsomeone\n")
    return tmp_path / "listed.txt"


def test_excluded_cases_are_not_planned_and_no_failure(cohort: Path, case_2: Path, tmp_path: Path) -> None:
    out = tmp_path / "plan.h5"
    said = succeed("plan", cohort, "--out", out, *FLAGS, "--exclude-cases", case_2)
    assert "1 slide of 1 case left out of the plan, by 2 listed" in said
    assert "of 1 listed there is no slide: someone" in said
    assert "slide_2: --exclude-cases: case_2 is in listed.txt" in said
    plan = read_plan(out)
    assert [slide.slide_id for slide in plan.slides] == ["slide_1", "slide_3", "slide_4"]
    assert failed_slides(plan) == 0
    (row,) = [
        record for _, record in read_table(tmp_path / "plan.audit.csv", (), ",")[0] if record["status"] == EXCLUDED
    ]
    assert (row["slide_id"], row["case_id"], row["reason"][:15]) == ("slide_2", "case_2", "--exclude-cases")
    assert "3 ok, 1 excluded" in succeed("inspect", out)
    record = (tmp_path / "plan.config.toml").read_text()
    assert str(case_2) in record
    again = tmp_path / "again.h5"
    succeed("plan", "--config", tmp_path / "plan.config.toml", "--out", again)
    assert again.read_bytes() == out.read_bytes()


@pytest.mark.slow
def test_the_hash_is_of_what_is_planned(cohort: Path, plan: Plan, case_2: Path, tmp_path: Path) -> None:
    manifest = read_manifest(cohort)
    (tmp_path / "nobody.txt").write_text("someone\n")
    for listed, rows in ((case_2, [0, 2, 3]), (tmp_path / "nobody.txt", [0, 1, 2, 3])):
        config = PlanConfig.build(SMALL | {"exclude_cases": [str(listed)]})
        without = plan_slides(manifest, config, workers=1)
        of_rows = replace(manifest, rows=tuple(manifest.rows[i] for i in rows))
        assert without.hash == plan_slides(of_rows, PlanConfig.build(SMALL), workers=2).hash
        assert (without.hash == plan.hash) == (len(rows) == 4)
        assert without.config == plan.config


def test_a_list_that_cannot_be_used_ends_the_command(cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    code, _, errors = call_g2l("plan", cohort, "--out", tmp_path / "p.h5", "--exclude-cases", tmp_path / "empty.txt")
    assert code == 1
    assert "lists no case" in errors
    assert not (tmp_path / "p.h5").exists()


@pytest.mark.slow
def test_max_slides_counts_those_that_are_left(cohort: Path, case_2: Path) -> None:
    plan = make_plan(cohort, max_slides=3, exclude_cases=[str(case_2)])
    assert [slide.slide_id for slide in plan.slides] == ["slide_1", "slide_3", "slide_4"]


@pytest.mark.slow
def test_a_plan_of_other_exclusions_is_not_continued(cohort: Path, plan: Plan, case_2: Path, tmp_path: Path) -> None:
    write_plan(plan, tmp_path / "store.plan.h5")
    config = PlanConfig.build(SMALL | {"exclude_cases": [str(case_2)]})
    with pytest.raises(PlanError, match="slide_2: excluded now"):
        plan_beside(cohort, config, tmp_path / "store.zarr")
    write_plan(plan_slides(read_manifest(cohort), config, workers=1), tmp_path / "other.plan.h5")
    assert len(plan_beside(cohort, config, tmp_path / "other.zarr")[0].slides) == 3
    with pytest.raises(PlanError, match="slide_2: no longer excluded"):
        plan_beside(cohort, PlanConfig.build(SMALL), tmp_path / "other.zarr")


def test_annotations_of_excluded_slides_change_nothing_and_their_classes_are_unknown(
    cohort: Path, case_2: Path, tmp_path: Path
) -> None:
    ring = [[0, 0], [600, 0], [600, 500], [0, 500], [0, 0]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}}
    manifest = tmp_path / "annotated.csv"
    lines = cohort.read_text().splitlines()
    for number, line in enumerate(lines[1:], 1):
        kind = "rare" if line.startswith("slide_2,") else "common"
        named = feature | {"properties": {"classification": {"name": kind}}}
        (tmp_path / f"{number}.geojson").write_text(json.dumps(named))
    cells = [f"{line},{tmp_path / f'{number}.geojson'}" for number, line in enumerate(lines[1:], 1)]
    manifest.write_text("\n".join([f"{lines[0]},annotations", *cells]) + "\n")
    options = SMALL | {"exclude_cases": [str(case_2)], "slides_root": cohort.parent}
    config = PlanConfig.build(options | {"include": ["common"]})
    first, path = plan_beside(manifest, config, tmp_path / "s.zarr")
    assert plan_beside(manifest, config, tmp_path / "s.zarr")[0].hash == first.hash
    path.unlink()
    with pytest.raises(PlanError, match="--include rare: no slide has this class"):
        plan_slides(
            read_manifest(manifest, cohort.parent), PlanConfig.build(options | {"include": ["rare"]}), workers=1
        )


# Balance


def of_center(plan: Plan) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for slide in plan.slides:
        numbers[slide.center or ""] = numbers.get(slide.center or "", 0) + len(slide.split)
    return numbers


@pytest.fixture
def uneven(cohort: Path, tmp_path: Path) -> Path:
    """The cohort with three slides of one centre and one of another."""
    text = cohort.read_text().replace("case_3,south", "case_3,north")
    for number in range(1, 5):
        text = text.replace(f"slide_{number}.svs", str(cohort.with_name(f"slide_{number}.svs")))
    (tmp_path / "uneven.csv").write_text(text)
    return tmp_path / "uneven.csv"


@pytest.mark.slow
def test_centres_give_equally_many_and_no_more_in_all(uneven: Path) -> None:
    usual = make_plan(uneven, val_fraction=0)
    assert of_center(usual) == {"north": 36, "south": 12}
    plans = [make_plan(uneven, workers, val_fraction=0, balance="center") for workers in (1, 3)]
    assert of_center(plans[0]) == {"north": 24, "south": 24}
    assert plans[0].hash == plans[1].hash != usual.hash
    assert [row.patches_taken for row in plans[0].audit] == [8, 8, 8, 24]
    for slide, more in zip(plans[0].slides[:3], usual.slides, strict=False):
        keys = [set(patch_keys(each.slide_id, each.coords_l0_px, 0).tolist()) for each in (slide, more)]
        assert keys[0] < keys[1]


def test_balance_and_budget_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="does not go with --budget"):
        PlanConfig.build({"balance": "center", "budget": "500"})


@pytest.mark.slow
def test_the_plan_keeps_that_it_is_balanced(uneven: Path, tmp_path: Path) -> None:
    out, pictures = tmp_path / "plan.h5", tmp_path / "overlays"
    said = succeed(
        "plan", uneven, "--out", out, *FLAGS, "--val-fraction", "0", "--balance", "center", "--overlays", pictures
    )
    assert "2 centres, 24 patches each; from 1 slide come more than --patches-per-slide 12, at most 24" in said
    assert read_plan(out).config.balance == "center"
    assert len(list(pictures.glob("*.png"))) == 4
    assert "balance" not in PlanConfig.build({}).deciding()
