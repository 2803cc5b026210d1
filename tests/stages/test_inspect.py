"""`inspect`: it tells what a path is, and refuses what is none of it."""

from pathlib import Path

import pytest
from support.extraction import TEACHER

from pipeline.base.errors import G2LError, PlanError, StoreError
from pipeline.cohort.plan_hdf5 import read_plan
from stages.inspect import inspect_path


def test_inspect_says_what_it_is(good_store: Path) -> None:
    shown = inspect_path(good_store)
    for words in (TEACHER, "3 of 3 done", "24 ok", "jpegxl", "float16", "2 of 2 cases"):
        assert words in shown
    assert "64 px at 0.5 um/px" in inspect_path(good_store.with_name("plan.h5"))


def test_inspect_refuses_what_it_is_not(tmp_path: Path) -> None:
    with pytest.raises(G2LError, match="no plan, store, run, exported student, study or reproduction"):
        inspect_path(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(G2LError, match="not a readable plan"):
        inspect_path(tmp_path / "file")
    (tmp_path / "zarr.json").write_text("{}")
    with pytest.raises(StoreError, match="not a store"):
        inspect_path(tmp_path)


@pytest.mark.parametrize("kind", ["CSV", "folder"])
def test_what_is_no_plan_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.csv"
    if kind == "CSV":
        path.write_text("slide_id,path\na,a.svs\n")
        with pytest.raises(PlanError, match="HDF5"):
            inspect_path(path)
    else:
        path.mkdir()
    with pytest.raises(
        PlanError, match=r"m\.csv: not a readable plan .*`g2l plan` makes one from a manifest"
    ) as caught:
        read_plan(path)
    assert len(str(caught.value).splitlines()) == 1
    assert "errno" not in str(caught.value)
