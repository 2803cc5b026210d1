"""The plan of a store of features: the slides that are well, with the patches that their files have."""

import os
from pathlib import Path

from pipeline.base.console import say
from pipeline.base.images import require_lanczos
from pipeline.base.units import resolution_note
from pipeline.cohort.plan import Plan, in_order
from pipeline.config.groups import Resampling
from pipeline.config.plan import PlanConfig
from pipeline.config.tissue_rules import LATER_RULES
from pipeline.config.tools import ImportConfig
from pipeline.encoders.table import named_spec
from pipeline.features.proof import Proof, read_refused
from pipeline.slides.geometry import PILLOW
from pipeline.store.store import Store
from stages.importing.look import Looked
from stages.reports.plan import audit_table, estimate


def leave_out_refused(looked: Looked, plan: Plan, proof: Proof | None) -> tuple[Looked, Plan]:
    """The slides and their plan, without the slides that the proof refuses.

    Raises:
        PlanError: no slide is left.
    """
    if proof is None or not proof.refused:
        return looked, plan
    looked = looked.without(proof.refused)
    for refused in proof.refused:
        say(f"refused: {refused.slide_id}: {looked.reason(refused.slide_id)}")
    return looked, plan_import(looked)


def plan_again(looked: Looked, before: Store) -> tuple[Looked, Plan]:
    """The plan of a store that is continued; what was refused when it was made stays refused.

    Raises:
        PlanError: no slide is left.
    """
    looked = looked.without(read_refused(before)).reduced_as(before.plan)
    plan = plan_import(looked, before.plan.config.resampling).as_known_to(before.plan)
    say_audit(plan, looked.expected.teacher)
    return looked, plan


def plan_import(looked: Looked, resampling: Resampling | None = None) -> Plan:
    """The plan of the slides that are well, with the audit of all.

    Args:
        resampling: who reduces patches according to the plan's options, if a store has them already; else who reduced
            those of all files, or Pillow if that was not one.

    Raises:
        PlanError: no slide is well.
        ConfigError: torch reduced their patches, and the one that is installed cannot.
    """
    parts = [slide.slide for slide in looked.slides if slide.slide is not None]
    if any(part.geometry.resampling != PILLOW for part in parts):
        require_lanczos("torch reduced the patches of these features", "embed")
    reducers = {slide.resampling for slide in looked.accepted.values()}
    most = max((len(part.coords_l0_px) for part in parts), default=1)
    expected, sampling = looked.expected, looked.expected.sampling
    options = PlanConfig.build(
        {
            "patches_per_slide": sampling.patches_per_slide or most,
            "patch_px": expected.patch_px,
            "mpp": looked.mpp,
            "min_tissue": 0.0,
            "max_artefact": 1.0,
            "val_fraction": sampling.val_fraction,
            "allow_upsampling": expected.allow_upsampling,
            "seed": sampling.seed,
            "resampling": resampling or (reducers.pop() if len(reducers) == 1 else PILLOW),
            "skip_rule": LATER_RULES,  # patches are those of the files: no tissue is looked for
        }
    )
    slides, audit = in_order(parts, looked.audit)
    return Plan(slides, Path(os.path.realpath(looked.matched.root)), options, audit)


def say_audit(plan: Plan, teacher: str) -> None:
    """What came of each slide, and whether the teacher was trained at this resolution, in words."""
    say(audit_table(plan))
    if note := resolution_note(teacher, named_spec(teacher).mpp, plan.mpp, "these patches are at"):
        say(note)


def say_estimate(plan: Plan, width: int, config: ImportConfig) -> None:
    """What the store will take, in words."""
    say(
        estimate(
            plan, width=width or None, dtype=config.dtype, rows_per_shard=config.rows_per_shard, pixels=config.pixels
        )
    )
