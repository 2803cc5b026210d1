"""What the teacher of features takes, and its record."""

from pathlib import Path
from typing import Any

import h5py
import pytest
from support.extraction import PATCH_PX, TEACHER
from support.features import FeatureSlide
from support.importing import assert_same_rows, rows_of, run_import

from pipeline.base.errors import ConfigError, PlanError
from pipeline.config.tools import ImportConfig
from pipeline.store.store import Store
from stages.importing.teacher import UNKNOWN_WEIGHTS, find_teacher, teacher_patch_px


def test_files_that_do_not_say_the_size_take_it_from_the_options(
    tmp_path: Path, extracted: Store, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    for s in slides:  # as Patho-Bench wants it: no attributes at all
        with h5py.File(tmp_path / f"{s.name}.h5", "w") as f:
            f["features"], f["coords"] = s.features, s.coords
    with pytest.raises(
        ConfigError, match=r"any size, and .*s0\.h5 does not say which, nor does any other .*--patch-px"
    ):
        run_import(tmp_path, tmp_path / "s.zarr", options)
    with pytest.raises(PlanError, match=r"s0\.h5: it does not say how large its patches are. Say it with --mpp"):
        run_import(tmp_path, tmp_path / "s.zarr", options, patch_px=PATCH_PX)
    done = run_import(tmp_path, tmp_path / "s.zarr", options, patch_px=PATCH_PX, mpp=0.5)
    assert_same_rows(rows_of(done.store), rows_of(extracted))


def test_an_option_that_contradicts_the_teacher_is_refused(tmp_path: Path) -> None:
    config = ImportConfig.build({"teacher": "h-optimus-0", "patch_px": 256, "slides_root": tmp_path})
    with pytest.raises(ConfigError, match="--patch-px 256: h-optimus-0 takes patches of 224 px"):
        teacher_patch_px(config, [])
    assert teacher_patch_px(config.model_copy(update={"patch_px": None}), []) == 224


def test_a_teacher_whose_weights_are_not_here_has_a_record_all_the_same(weights: Path) -> None:
    """Of the table's facts, or of the architecture where it takes patches of any size."""
    built, record = find_teacher("h-optimus-0", None, 224)
    assert built is None
    assert (record["width"], record["weights"], record["weights_sha256"]) == (1536, UNKNOWN_WEIGHTS, "")
    built, described = find_teacher(TEACHER, weights, PATCH_PX)
    assert built is not None
    assert described["weights_sha256"]
    assert record.keys() == described.keys()
