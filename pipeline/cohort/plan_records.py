"""The plan without its arrays, as JSON types, and back: what its file and a store keep of it. A plan that is read is
checked against its hash.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import ConfigError, PlanError
from pipeline.base.outside import reading
from pipeline.cohort.audit import AuditRow
from pipeline.cohort.plan import PLAN_VERSION, Plan, SlidePlan
from pipeline.config.plan import PlanConfig
from pipeline.disk.objects.places import as_place
from pipeline.sampling import SPLIT_NAMES
from pipeline.slides.annotations.patch_classes import checked_classes
from pipeline.slides.geometry import PatchGeometry
from pipeline.slides.identity import identity_from_record


def plan_records(plan: Plan) -> dict[str, Any]:
    """The plan without its arrays, as JSON types."""
    return {
        "format": "g2l-plan",
        "version": PLAN_VERSION,
        "hash": plan.hash,
        "config": plan.config.record(),
        "slides_root": str(plan.slides_root),
        "audit": [row.record() for row in plan.audit],
        **({} if plan.budget is None else {"budget": plan.budget}),
    }


def slide_record(slide: SlidePlan) -> dict[str, Any]:
    """One slide of the plan without its arrays, as JSON types."""
    return slide.facts_of_identity() | {
        "slide_id": slide.slide_id,
        "path": slide.path,
        "case_id": slide.case_id,
        "center": slide.center,
        "manifest_mpp": slide.manifest_mpp,
        "quickhash": slide.quickhash,
        "size_l0_px": list(slide.size_l0_px),
        "geometry": slide.geometry.record(),
        "labels": slide.labels,
        **({} if slide.has_case is None else {"has_case": slide.has_case}),
        **({"classes": list(classes.names)} if (classes := slide.classes) else {}),
    }


def slide_from_record(
    record: dict[str, Any],
    coords: NDArray[np.int64],
    split: NDArray[np.uint8],
    kind: type[SlidePlan] = SlidePlan,
    fractions: NDArray[np.float32] | None = None,
) -> SlidePlan:
    """The inverse of `slide_record`; the slide is of the class `kind`. `fractions` is (N, C), of its classes if it has
    any.

    Raises:
        KeyError, TypeError, ValueError: it is not a slide's record.
    """
    if coords.ndim != 2 or coords.shape[1] != 2 or coords.dtype.kind not in "iu" or split.shape != coords.shape[:1]:
        raise ValueError(f"coords of shape {coords.shape}, split of shape {split.shape}")
    if not len(coords) or not set(np.unique(split).tolist()) <= set(range(len(SPLIT_NAMES))):
        raise ValueError("a slide without patches, or with an unknown split")
    geometry_names = [each.name for each in fields(PatchGeometry)]
    words = _of_later_version(record, [each.name for each in fields(SlidePlan)])
    if words := words or _of_later_version(record["geometry"], geometry_names):
        raise ValueError(words)
    width, height = record["size_l0_px"]
    identity_from_record(record.get("identity_facts"), record["quickhash"], (width, height))  # raises if it is wrong
    values = record | {"size_l0_px": (width, height), "geometry": PatchGeometry(**record["geometry"])}
    if "classes" in record:
        if fractions is None:
            raise ValueError("a slide with classes, and no fractions of them")
        values["classes"] = checked_classes(record["classes"], fractions, len(coords))
    return kind(coords_l0_px=coords, split=split, **values)


def _of_later_version(values: Mapping[str, Any], known: Collection[str]) -> str:
    """That a later version wrote a record, for it has names that are not among the `known` ones; "" if it has none.

    Raises:
        TypeError, ValueError: it is no record.
    """
    unknown = sorted(dict(values).keys() - set(known))
    return f"a later version of G2L made it: {unknown[0]:.80} is not known here" if unknown else ""


def require_plan_format(records: Any, source: Path) -> None:
    """Refuse records of another format or version.

    Raises:
        PlanError: they are.
    """
    format_version = (records.get("format"), records.get("version")) if isinstance(records, dict) else None
    if format_version != ("g2l-plan", PLAN_VERSION):
        raise PlanError(f"{source}: not a plan of format version {PLAN_VERSION}. Make it again with `g2l plan`")


def plan_from_records(records: dict[str, Any], slides: Sequence[SlidePlan], source: Path) -> Plan:
    """The inverse of `plan_records`.

    Raises:
        PlanError: another format or version, or the content does not match the recorded hash.
    """
    require_plan_format(records, source)
    with reading(source, "the plan is damaged", PlanError):
        if words := _of_later_version(records["config"], PlanConfig.model_fields):
            raise PlanError(f"{source}: {words}. Use that one, or plan again")
        try:
            config = PlanConfig.from_record(records["config"])
        except ConfigError as error:
            raise PlanError(f"{source}: the plan is damaged, or a later version of G2L made it ({error})") from None
        audit = tuple(map(AuditRow.from_record, records["audit"]))
        budget = dict(records["budget"]) if "budget" in records else None
        plan = Plan(tuple(slides), as_place(records["slides_root"]), config, audit, budget)
        sound = plan.hash == records["hash"]
    if not sound:
        raise PlanError(f"{source}: the plan is damaged: its content does not match its hash")
    return plan
