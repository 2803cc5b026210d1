"""A plan in words, for `g2l inspect`: its slides and patches, and what it was made with."""

from pathlib import Path

from pipeline.base.console import counted, table
from pipeline.cohort.audit import STATUSES
from pipeline.cohort.cases import counted_cases
from pipeline.cohort.draws.spent import budget_lines
from pipeline.cohort.plan import Plan
from pipeline.sampling import TRAIN, VAL
from stages.inspecting.recipe import recipe_of_plan
from stages.reports.classes import class_table
from stages.reports.plan_options import area_lines, cluster_table, plan_choices


def describe_plan(plan: Plan, path: Path) -> str:
    """A plan in words."""
    statuses = [row.status for row in plan.audit]
    rows: list[tuple[str, object]] = [
        ("plan", path),
        ("hash", plan.hash),
        *recipe_of_plan(plan),
        *plan_facts(plan),
        ("audit", ", ".join(f"{statuses.count(s)} {s}" for s in STATUSES if s in statuses)),
        ("slides below", plan.slides_root),
    ]
    return with_tables(plan, table(rows), "\n".join(area_lines(plan.audit)))


def with_tables(plan: Plan, *texts: str) -> str:
    """Texts and the tables of the plan's classes and clusters, as far as there are any."""
    return "\n\n".join(filter(None, (*texts, class_table(plan), cluster_table(plan))))


def plan_facts(plan: Plan, *, is_imported: bool = False) -> list[tuple[str, object]]:
    """What a plan holds and was made with, without what it is called and where it lies."""
    centers = {s.center for s in plan.slides if s.center}
    config = plan.config
    return [
        ("slides", f"{len(plan.slides):,} of {counted_cases(plan.slides)} and {counted(len(centers), 'centre')}"),
        ("patches", f"{plan.num_rows:,}: {plan.count(TRAIN):,} to train on, {plan.count(VAL):,} held out"),
        ("patch", f"{config.patch_px} px at {plan.resolution}, every {config.grid.stride_px} px"),
        *([("tile", f"{config.tile_px} px, the patch in its middle")] if config.has_tiles else []),
        *plan_choices(plan, is_imported=is_imported),
        *(("budget", line) for line in budget_lines(plan.budget)),
    ]
