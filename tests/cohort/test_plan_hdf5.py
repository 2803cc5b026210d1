"""The plan's file: read back as written, whole or refused."""

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from support.extraction import made_up_plan
from support.failing import failing, os_error
from support.plans import assert_same_plan, make_plan, plan_with_labels

from pipeline.base.errors import PlanError
from pipeline.cohort.plan import Plan
from pipeline.cohort.plan_hdf5 import read_plan, write_plan
from pipeline.cohort.plan_records import plan_from_records, plan_records, slide_from_record, slide_record
from pipeline.disk import files
from pipeline.slides.reader import Slide
from stages.inspect import inspect_path


def test_plan_reads_back(plan: Plan, tmp_path: Path) -> None:
    write_plan(plan, tmp_path / "p.h5")
    assert_same_plan(read_plan(tmp_path / "p.h5"), plan)
    records = json.loads(json.dumps(plan_records(plan)))
    slides = [slide_from_record(json.loads(json.dumps(slide_record(s))), s.coords_l0_px, s.split) for s in plan.slides]
    assert_same_plan(plan_from_records(records, slides, tmp_path), plan)


@pytest.mark.parametrize(("num_slides", "num_labels"), [(1, 2000), pytest.param(600, 200, marks=pytest.mark.slow)])
def test_large_plan_reads_back(tmp_path: Path, num_slides: int, num_labels: int) -> None:
    """Labels beyond an HDF5 attribute's usual 64 kB; more of slides (34 MB) than HDF5 keeps in its cache while it
    writes, so that it reads back what it wrote: of slides with three labels, thousands.
    """
    plan = plan_with_labels(num_slides, num_labels)
    write_plan(plan, tmp_path / "p.h5")
    assert_same_plan(read_plan(tmp_path / "p.h5"), plan)
    assert list(tmp_path.iterdir()) == [tmp_path / "p.h5"]


def test_attributes_that_trident_and_clam_readers_expect(cohort: Path, tmp_path: Path) -> None:
    plan = make_plan(cohort, mpp=1.0, stride_px=48)
    write_plan(plan, tmp_path / "p.h5")
    with h5py.File(tmp_path / "p.h5", "r") as f:
        group = f["slides/slide_1"]
        coords = group["coords"]
        assert (coords.dtype, coords.shape) == (np.int64, (12, 2))
        np.testing.assert_array_equal(coords[:], plan.slides[0].coords_l0_px)
        expected = {
            "patch_size": 64,
            "patch_size_level0": 128,
            "level0_magnification": 20,
            "target_magnification": 10,
            "overlap": 16,
            "name": "slide_1",
            "savetodir": "",
            "level0_width": 1500,
            "level0_height": 1200,
            "patch_level": 0,
            "downsample": 1.0,
        }
        assert dict(coords.attrs) == expected


def test_same_plan_reads_the_same_patches(plan: Plan, tmp_path: Path) -> None:
    """What a reader of CLAM's attributes crops is what this project reads."""
    write_plan(plan, tmp_path / "p.h5")
    with h5py.File(tmp_path / "p.h5", "r") as f:
        attributes, (x, y) = dict(f["slides/slide_1/coords"].attrs), f["slides/slide_1/coords"][3]
    planned = plan.slides[0]
    slide = Slide(plan.slide_path(planned))
    side = int(attributes["patch_size_level0"] / attributes["downsample"])
    region = slide.read_region(int(attributes["patch_level"]), (int(x), int(y)), (side, side))
    expected = np.asarray(region.resize((64, 64), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(slide.read_patch(int(x), int(y), planned.geometry), expected)


def test_no_plan(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"none\.h5: no such plan\. `g2l plan` makes one"):
        read_plan(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("no plan")
    with pytest.raises(PlanError, match=r"text\.h5: not a readable plan \(.*signature not found"):
        read_plan(tmp_path / "text.h5")
    with pytest.raises(PlanError, match="not a readable plan"):
        read_plan(tmp_path)
    with h5py.File(tmp_path / "coords.h5", "w") as f:
        f["coords"] = np.zeros((3, 2), np.int64)  # as CLAM writes
    with pytest.raises(PlanError, match=r"coords\.h5: an HDF5 file, but not a plan of G2L"):
        read_plan(tmp_path / "coords.h5")
    for text in ("null", "[]", "{}", '{"format": "g2l-plan", "version": 2}', '{"format": "other", "version": 1}'):
        with h5py.File(tmp_path / "foreign.h5", "w") as f:
            f.attrs["plan"] = text
        with pytest.raises(PlanError, match=r"foreign\.h5: not a plan of format version 1"):
            read_plan(tmp_path / "foreign.h5")


@pytest.fixture
def written(plan: Plan, tmp_path: Path) -> Path:
    write_plan(plan, tmp_path / "p.h5")
    return tmp_path / "p.h5"


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f["slides/slide_1/coords"].__setitem__((0, 0), 7),
        lambda f: f["slides/slide_1/split"].__setitem__(0, 1 - f["slides/slide_1/split"][0]),
        lambda f: f.__delitem__("slides/slide_2"),
        lambda f: f.__delitem__("slides"),
        lambda f: f.__delitem__("audit"),
        lambda f: f["slides"].__setitem__("x", f["audit"][:]),
        lambda f: f["slides/slide_1"].attrs.__setitem__("slide", '{"slide_id": "slide_1"}'),
        lambda f: f["slides/slide_1"].attrs.__setitem__("slide", "[1]"),
        lambda f: f["slides/slide_1"].attrs.__setitem__("slide", "{"),
        lambda f: f["slides/slide_1"].attrs.__delitem__("slide"),
        lambda f: f.attrs.__setitem__("plan", f.attrs["plan"].replace('"seed": 0', '"seed": 1')),
        lambda f: f.attrs.__setitem__("plan", f.attrs["plan"].replace('"seed": 0', '"seed": -1')),
        lambda f: f.attrs.__setitem__("plan", f.attrs["plan"].replace('"config"', '"configs"')),
        lambda f: f["audit"].__setitem__(2, 0),
    ],
)
def test_changed_plan_is_refused(written: Path, change: Any) -> None:
    with h5py.File(written, "r+") as f:
        change(f)
    with pytest.raises(PlanError, match=r"p\.h5: (the plan is damaged|not a readable plan)"):
        read_plan(written)


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.5, 0.99])
def test_truncated_plan_is_refused(written: Path, fraction: float) -> None:
    data = written.read_bytes()
    written.write_bytes(data[: int(len(data) * fraction)])
    with pytest.raises(PlanError, match="not a readable plan"):
        read_plan(written)


@pytest.mark.slow
def test_flipped_bytes_are_refused_or_do_not_matter(plan: Plan, written: Path) -> None:
    """Wherever the damage is, the plan is refused by name or decides the same."""
    data = written.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for position in rng.integers(0, len(data), 100):
        written.write_bytes(data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :])
        try:
            found = read_plan(written).hash
        except PlanError as error:
            found = str(error)
            refused += 1
        assert found == plan.hash or str(written) in found
    assert refused > 10


def test_plan_is_complete_or_absent(plan: Plan, written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = written.read_bytes()
    monkeypatch.setattr(files.os, "fsync", failing(os_error(errno.ENOSPC)))
    with pytest.raises(
        PlanError, match=r"cannot write the plan .*p\.h5: No space left on device\. Choose another --out"
    ):
        write_plan(replace(plan, slides=plan.slides[:1]), written)
    assert written.read_bytes() == before
    assert list(written.parent.iterdir()) == [written]


def test_folder_that_cannot_be_written(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PlanError, match=r"cannot write the plan .*file/p\.h5: Not a directory"):
        write_plan(plan, tmp_path / "file" / "p.h5")
    with pytest.raises(PlanError, match="No such file or directory"):
        write_plan(plan, tmp_path / "none" / "p.h5")


def test_old_plans_open_and_keep_their_hash(tmp_path: Path) -> None:
    plan = made_up_plan()
    assert "has_case" not in slide_record(plan.slides[0])  # so that old stores are found as they were written
    recorded = replace(plan, slides=tuple(replace(s, has_case=False) for s in plan.slides), audit=())
    assert recorded.hash == plan.hash
    for number, made in enumerate((plan, recorded)):
        write_plan(made, tmp_path / f"{number}.h5")
    assert [s.has_case for s in read_plan(tmp_path / "0.h5").slides] == [None, None]
    assert [s.has_case for s in read_plan(tmp_path / "1.h5").slides] == [False, False]
    assert "2 of unknown cases" in inspect_path(tmp_path / "1.h5")
