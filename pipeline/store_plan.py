"""The plan that a store carries, so that it needs no other file: `plan/` within its folder."""

import json
from pathlib import Path

from pipeline import zarr_format
from pipeline.errors import StoreError
from pipeline.plan import MALFORMED, Plan, plan_from_records, plan_records, slide_from_record, slide_record


def write_stored_plan(folder: Path, plan: Plan) -> None:
    """The plan's records as a group's attributes, and coords, slide and split, N rows each, as its arrays."""
    records = {
        "plan": plan_records(plan),
        "slides": [slide_record(s) | {"rows": len(s.coords_l0_px)} for s in plan.slides],
    }
    zarr_format.create_group(folder, {"g2l": records})
    zarr_format.write_array(folder, "coords", plan.coords())
    zarr_format.write_array(folder, "slide", plan.slide_of_row())
    zarr_format.write_array(folder, "split", plan.split())


def read_stored_plan(folder: Path, plan_hash: str) -> Plan:
    """The plan in `folder`, which must have the hash `plan_hash`.

    Raises:
        StoreError: it is damaged, or another plan.
    """
    try:
        records = json.loads((folder / "zarr.json").read_text())["attributes"]["g2l"]
        coords = zarr_format.read_array(folder, "coords")
        split = zarr_format.read_array(folder, "split")
        slides, start = [], 0
        for record in records["slides"]:
            stop = start + record.pop("rows")
            slides.append(slide_from_record(record, coords[start:stop], split[start:stop]))
            start = stop
        plan = plan_from_records(records["plan"], slides, folder)
    except (OSError, *MALFORMED) as error:
        raise StoreError(f"{folder}: the store's plan is damaged ({error!r})") from None
    if plan.hash != plan_hash:
        raise StoreError(f"{folder}: the store's plan is damaged: it is not the plan that the store was made by")
    return plan
