"""Facts of a tool: rounding of sides, numbers in attributes, and files that are read once."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.features import tool
from pipeline.features.tool import FeatureFile, PatchFacts, files_apart, number, rounds_to


@given(st.floats(1, 1e5), st.sampled_from([1.0, 2.0, 4.001]))
def test_a_length_and_its_rounding_belong_together(length: float, unit: float) -> None:
    whole = round(length / unit) * unit
    assert rounds_to(length, whole, unit)
    assert not rounds_to(length, whole + 1.01 * unit, unit)
    assert not rounds_to(length, whole - 1.01 * unit, unit)


def test_without_a_unit_only_the_length_itself_will_do() -> None:
    assert rounds_to(682.6666666, 682.6666667, 0)
    assert not rounds_to(682.67, 683, 0)


def test_the_side_is_the_asked_for_one_where_the_file_s_may_be_its_rounding() -> None:
    """32 um of 0.2527 um/px are 126.63 pixels."""
    facts = PatchFacts(side_l0_px=127, nominal_um=32)
    assert facts.side(0.2527) == pytest.approx(32 / 0.2527)
    assert facts.side(0.25) == 127  # 128 would have been written
    assert PatchFacts(side_l0_px=127).side(0.2527) == 127
    assert PatchFacts(side_l0_px=127).side(0.2527, 32) == pytest.approx(32 / 0.2527)
    assert PatchFacts(side_l0_px=127, nominal_um=32).side(0.2527, 999) == pytest.approx(32 / 0.2527)
    assert PatchFacts(side_l0_px=127, unit_l0_px=0, nominal_um=32).side(0.2527) == 127


def test_a_side_in_um_is_exact() -> None:
    assert PatchFacts(side_um=112).side(0.25, 100) == 448
    assert PatchFacts(side_um=112).is_known
    assert not PatchFacts(patch_px=224, nominal_um=112).is_known


@pytest.mark.parametrize(
    ("value", "expected"),
    [(256, 256.0), (np.int64(3), 3.0), (np.array([4.0, 5.0]), 4.5), ((2, 2), 2.0), (None, None), (np.array([]), None)],
)
def test_attributes_as_numbers(value: Any, expected: float | None) -> None:
    assert number({"side": value}, "side") == expected
    assert number({}, "side") is None


def test_text_is_no_number() -> None:
    with pytest.raises((TypeError, ValueError)):
        number({"side": "large"}, "side")


def test_files_apart_lie_in_the_named_folder_or_beside() -> None:
    features = Path("out/h5_files/s.h5")
    assert files_apart(features, None, "patches", "s.h5") == [
        Path("out/patches/s.h5"),
        Path("out/h5_files/patches/s.h5"),
    ]
    assert files_apart(features, Path("c"), "patches", "s.h5") == [Path("c/s.h5")]


# --- a file's attributes ---


def write(path: Path, **of_coords: object) -> Path:
    with h5py.File(path, "w") as f:
        f["features"], f["coords"], f.attrs["encoder"] = np.ones((2, 3)), np.zeros((2, 2)), "uni"
        f["features"].attrs["name"] = "s"
        f["coords"].attrs.update(of_coords)
    return path


def test_attributes_of_a_file_and_its_datasets(tmp_path: Path) -> None:
    file = FeatureFile(write(tmp_path / "a.h5", patch_size=256))
    assert file.file_attributes() == {"encoder": "uni"}
    assert (file.attributes("features"), file.attributes("feats")) == ({"name": "s"}, None)
    assert file.coords_attributes() == {"patch_size": 256}


def test_coordinates_apart_are_asked_in_the_file_s_stead(tmp_path: Path) -> None:
    file = FeatureFile(write(tmp_path / "a.h5", patch_size=256), write(tmp_path / "c.h5", patch_size=512))
    assert file.coords_attributes() == {"patch_size": 512}
    assert file.file_attributes() == {"encoder": "uni"}


def test_each_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = FeatureFile(write(tmp_path / "a.h5", patch_size=256))
    first = file.attributes("features"), file.attributes("feats"), file.coords_attributes(), file.file_attributes()
    monkeypatch.setattr(tool, "read_dataset_attributes", lambda *_: pytest.fail("read twice"))
    assert (
        file.attributes("features"),
        file.attributes("feats"),
        file.coords_attributes(),
        file.file_attributes(),
    ) == first


def test_a_file_of_another_format_has_none_and_is_not_opened(tmp_path: Path) -> None:
    file = FeatureFile(tmp_path / "gone.pt")
    assert (file.file_attributes(), file.attributes("features"), file.coords_attributes()) == ({}, None, {})
    with pytest.raises(OSError, match=r"gone\.h5"):
        FeatureFile(tmp_path / "gone.h5").file_attributes()
