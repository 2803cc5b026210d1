"""The plan that a store carries, so that it needs no other file: `plan/` within its folder.

Of a row only its split is held in memory. Coordinates are read, slide by slide, where they are asked for: training
never asks, and they would be most of what a large store takes.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import StoreError
from pipeline.base.outside import read_json, reading
from pipeline.cohort.plan import Plan, SlidePlan, plan_from_records, plan_records, slide_from_record, slide_record
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


class StoredSlide(SlidePlan):
    """A slide of a stored plan: its coordinates stay on disk and are read whenever they are asked for."""

    @property
    def coords_l0_px(self) -> NDArray[np.int64]:
        """As in `SlidePlan`.

        Raises:
            StoreError: they can no longer be read.
        """
        read_coords: Callable[[], NDArray[np.int64]] = self.__dict__["read_coords"]
        return read_coords()

    @coords_l0_px.setter
    def coords_l0_px(self, coords: NDArray[np.int64]) -> None:
        self.keep_on_disk(lambda: coords)

    def keep_on_disk(self, read_coords: Callable[[], NDArray[np.int64]]) -> None:
        """From here on get the coordinates from `read_coords`."""
        self.__dict__["read_coords"] = read_coords  # not by name: a plan is frozen


def _read_coords(coords: zarr_format.RawArray, start: int, stop: int) -> NDArray[np.int64]:
    with reading(coords.folder, "the store's plan is damaged", StoreError):
        return coords.read(start, stop)


def read_stored_plan(folder: Path, plan_hash: str, place: str = "") -> Plan:
    """The plan in `folder`, which must have the hash `plan_hash`. Messages call the folder `place`.

    Raises:
        StoreError: it is damaged, or another plan.
    """
    place = place or str(folder)
    with reading(place, "the store's plan is damaged", StoreError):
        records = read_json(folder / zarr_format.METADATA)["attributes"]["g2l"]
        coords = zarr_format.RawArray(folder, "coords")
        split = zarr_format.read_array(folder, "split")
        slides, start = list[SlidePlan](), 0
        for record in records["slides"]:
            stop = start + record.pop("rows")
            slide = slide_from_record(record, coords.read(start, stop), split[start:stop], StoredSlide)
            assert isinstance(slide, StoredSlide)
            slide.keep_on_disk(partial(_read_coords, coords, start, stop))
            slides.append(slide)
            start = stop
        plan = plan_from_records(records["plan"], slides, folder)
    if plan.hash != plan_hash:
        raise StoreError(f"{place}: the store's plan is damaged: it is not the plan that the store was made by")
    return plan
