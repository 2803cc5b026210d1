"""The plan that a store carries, so that it needs no other file: `plan/` within its folder."""

from pathlib import Path

from pipeline.base.errors import StoreError
from pipeline.base.outside import read_json, reading
from pipeline.cohort.plan import Plan, plan_from_records, plan_records, slide_from_record, slide_record
from pipeline.store import zarr_format


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
    with reading(folder, "the store's plan is damaged", StoreError):
        records = read_json(folder / zarr_format.METADATA)["attributes"]["g2l"]
        coords = zarr_format.read_array(folder, "coords")
        split = zarr_format.read_array(folder, "split")
        slides, start = [], 0
        for record in records["slides"]:
            stop = start + record.pop("rows")
            slides.append(slide_from_record(record, coords[start:stop], split[start:stop]))
            start = stop
        plan = plan_from_records(records["plan"], slides, folder)
    if plan.hash != plan_hash:
        raise StoreError(f"{folder}: the store's plan is damaged: it is not the plan that the store was made by")
    return plan
