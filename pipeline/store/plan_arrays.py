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
from pipeline.cohort.plan import Plan, SlidePlan
from pipeline.cohort.plan_records import plan_from_records, plan_records, slide_from_record, slide_record
from pipeline.disk.raw_arrays import METADATA, RawArray, read_array
from pipeline.slides.annotations.patch_classes import PatchClasses, checked_classes


def write_stored_plan(folder: Path, plan: Plan) -> None:
    """The plan's records as a group's attributes, and coords, slide and split, N rows each, as its arrays; and if any
    slide has annotations, class_fractions: a number for each patch and class of its slide, slide by slide.
    """
    from pipeline.store import zarr_format  # zarr is slow to import, and what reads a store needs none

    records = {
        "plan": plan_records(plan),
        "slides": [slide_record(s) | {"rows": len(s.coords_l0_px)} for s in plan.slides],
    }
    zarr_format.create_group(folder, {"g2l": records})
    zarr_format.write_array(folder, "coords", plan.coords())
    zarr_format.write_array(folder, "slide", plan.slide_of_row())
    zarr_format.write_array(folder, "split", plan.split())
    fractions = [slide.classes.fractions.ravel() for slide in plan.slides if slide.classes]
    if sum(map(len, fractions)):
        zarr_format.write_array(folder, "class_fractions", np.concatenate(fractions))


class StoredSlide(SlidePlan):
    """A slide of a stored plan: its coordinates and classes stay on disk and are read whenever they are asked for."""

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

    @property
    def classes(self) -> PatchClasses | None:
        """As in `SlidePlan`; raises as `coords_l0_px`."""
        read_classes: Callable[[], PatchClasses | None] = self.__dict__["read_classes"]
        return read_classes()

    @classes.setter
    def classes(self, classes: PatchClasses | None) -> None:
        self.keep_classes_on_disk(lambda: classes)

    def keep_classes_on_disk(self, read_classes: Callable[[], PatchClasses | None]) -> None:
        """From here on get the classes from `read_classes`."""
        self.__dict__["read_classes"] = read_classes


def _read_coords(coords: RawArray, start: int, stop: int) -> NDArray[np.int64]:
    with reading(coords.folder, "the store's plan is damaged", StoreError):
        return coords.read(start, stop)


def _read_classes(fractions: RawArray | None, names: list[str], start: int, rows: int) -> PatchClasses:
    """The classes of a slide's patches, whose numbers begin at `start`."""
    with reading(fractions.folder if fractions else "class_fractions", "the store's plan is damaged", StoreError):
        values = fractions.read(start, start + rows * len(names)) if fractions else np.empty(0, np.float32)
        return checked_classes(names, values.reshape(rows, len(names)), rows)


def read_stored_plan(folder: Path, plan_hash: str, place: str = "") -> Plan:
    """The plan in `folder`, which must have the hash `plan_hash`. Messages call the folder `place`.

    Raises:
        StoreError: it is damaged, or another plan.
    """
    place = place or str(folder)
    with reading(place, "the store's plan is damaged", StoreError):
        records = read_json(folder / METADATA)["attributes"]["g2l"]
        coords = RawArray(folder, "coords")
        split = read_array(folder, "split")
        has_classes = any(record.get("classes") for record in records["slides"])
        fractions = RawArray(folder, "class_fractions") if has_classes else None
        slides, start, number = list[SlidePlan](), 0, 0
        for record in records["slides"]:
            stop = start + record.pop("rows")
            names = record.get("classes")
            read_classes = None if names is None else partial(_read_classes, fractions, names, number, stop - start)
            of_classes = read_classes().fractions if read_classes else None
            slide = slide_from_record(record, coords.read(start, stop), split[start:stop], StoredSlide, of_classes)
            assert isinstance(slide, StoredSlide)
            slide.keep_on_disk(partial(_read_coords, coords, start, stop))
            if read_classes:
                slide.keep_classes_on_disk(read_classes)
                number += (stop - start) * len(names)
            slides.append(slide)
            start = stop
        plan = plan_from_records(records["plan"], slides, folder)
    if plan.hash != plan_hash:
        raise StoreError(f"{place}: the store's plan is damaged: it is not the plan that the store was made by")
    return plan
