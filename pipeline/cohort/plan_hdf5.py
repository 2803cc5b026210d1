"""The plan as one HDF5 file: written complete or absent, and read.

A slide's group has the attributes that readers of TRIDENT and CLAM coordinates expect.
"""

import io
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import PlanError
from pipeline.base.outside import parse_object, reading
from pipeline.base.units import magnification
from pipeline.cohort.plan import Plan, SlidePlan
from pipeline.cohort.plan_records import (
    plan_from_records,
    plan_records,
    require_plan_format,
    slide_from_record,
    slide_record,
)
from pipeline.config.groups import Grid
from pipeline.disk.files import write_bytes
from pipeline.disk.hdf5_input import attribute, attributes, dataset, member, open_hdf5, read_values

RECORD = "slide"
"""Attribute of a slide's group with all that is known of it; the others are for other readers."""
WANTED = "A plan is one HDF5 file; `g2l plan` makes one from a manifest"


def coords_attributes(slide: SlidePlan, grid: Grid) -> dict[str, Any]:
    """Attributes that readers of TRIDENT and CLAM coordinate files expect."""
    g = slide.geometry
    return {
        "patch_size": g.patch_px,
        "patch_size_level0": round(g.patch_l0_px),
        "level0_magnification": magnification(g.slide_mpp),
        "target_magnification": magnification(g.target_mpp),
        "overlap": grid.overlap_px,
        "name": slide.slide_id,
        "savetodir": "",
        "level0_width": slide.size_l0_px[0],
        "level0_height": slide.size_l0_px[1],
        "patch_level": g.level,
        "downsample": g.downsample,
    }


def write_plan(plan: Plan, path: Path) -> None:
    """Write the plan as HDF5, complete or absent. The same plan gives the same bytes.

    Layout: `/slides/<id>/coords` int64 (N, 2) and `/slides/<id>/split` uint8 (N,), with attributes; the records as JSON
    attributes. Of a slide with annotations also `class_fractions` float32 (N, C), with its classes as an attribute.

    Raises:
        PlanError: it cannot be written; an existing `path` is kept.
    """
    buffer = io.BytesIO()  # HDF5 reads back what it writes, and its own errors hide the cause (a full disk)
    with h5py.File(buffer, "w", libver="v110", track_order=False) as f:
        f.attrs["plan"] = json.dumps(plan_records(plan) | {"audit": []}, sort_keys=True)
        audit = json.dumps([row.record() for row in plan.audit], sort_keys=True)
        f.create_dataset("audit", data=np.frombuffer(audit.encode(), np.uint8))  # may exceed an attribute's 64 kB
        for slide in plan.slides:
            group = f.create_group(f"slides/{slide.slide_id}")
            group.attrs[RECORD] = json.dumps(slide_record(slide), sort_keys=True)
            coords = group.create_dataset("coords", data=slide.coords_l0_px)
            group.create_dataset("split", data=slide.split)
            if slide.classes:
                fractions = group.create_dataset("class_fractions", data=slide.classes.fractions)
                fractions.attrs["classes"] = json.dumps(slide.classes.names)
            for name, value in coords_attributes(slide, plan.config.grid).items():
                coords.attrs[name] = value
                group.attrs[name] = value
    try:
        write_bytes(path, buffer.getvalue())
    except OSError as error:
        raise PlanError(f"cannot write the plan {path}: {error.strerror}. Choose another --out") from error


def read_plan(path: Path) -> Plan:
    """Read a plan and check it against its hash.

    Raises:
        PlanError: it is missing, not a plan, or damaged.
    """
    if not path.exists():
        raise PlanError(f"{path}: no such plan. `g2l plan` makes one")
    with reading(path, "not a readable plan", PlanError, WANTED), open_hdf5(path, only=RECORD) as f:
        file_attributes = attributes(f)
        if "plan" not in file_attributes:
            raise PlanError(f"{path}: an HDF5 file, but not a plan of G2L")
        records = json.loads(file_attributes["plan"])
        require_plan_format(records, path)
        records["audit"] = json.loads(_values(f, "audit").astype(np.uint8).tobytes())
        groups = member(f, "slides")
        slides = [
            slide_from_record(
                parse_object(attribute(group, RECORD)),
                _values(group, "coords"),
                _values(group, "split"),
                fractions=_values(group, "class_fractions") if "class_fractions" in group else None,
            )
            for group in (member(groups, name) for name in sorted(groups.keys()))
        ]
    return plan_from_records(records, slides, path)


def _values(group: h5py.Group, name: str) -> NDArray[Any]:
    """Read the numbers of a dataset.

    Raises:
        KeyError, UnsafeError: it is missing or cannot be read; see `hdf5_input.read_values`.
    """
    values = dataset(group, name)
    if values is None:
        raise KeyError(name)
    return read_values(values)
