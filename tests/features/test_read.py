"""A feature file of any tool is read and checked once for all: what is wrong with it is one error that names it."""

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.feature_files import COORDS, FEATURES, write_plain_file, write_trident_file

from pipeline.base.errors import BenchmarkError
from pipeline.features.read import PlacedFeatures, read_facts, read_features, read_placed
from pipeline.features.tool import UNKNOWN, PatchFacts

BFLOAT16_BITS = torch.from_numpy(FEATURES).bfloat16().view(torch.int16).numpy()


def test_patho_bench_and_a_leading_one(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "s1.h5", "w") as f:
        f["features"], f["coords"] = FEATURES[None], COORDS[None]
    found = read_features(tmp_path / "s1.h5")
    np.testing.assert_array_equal(found.features, FEATURES)
    np.testing.assert_array_equal(found.coords, COORDS)
    assert found.encoder is None


def test_bfloat16_tensors_are_read(tmp_path: Path) -> None:
    torch.save(torch.from_numpy(FEATURES).bfloat16(), tmp_path / "s1.pt")
    expected = torch.from_numpy(FEATURES).bfloat16().float().numpy()
    np.testing.assert_array_equal(read_features(tmp_path / "s1.pt").features, expected)


def with_rows(*rows: tuple[int, float]) -> NDArray[np.float32]:
    """The features with a value put into some rows."""
    changed = FEATURES.copy()
    for row, value in rows:
        changed[row, 1] = value
    return changed


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (with_rows((1, np.nan), (3, np.inf)), "2 of 5 rows have NaN"),
        (FEATURES.astype(np.float64) * 1e300, "5 of 5 rows have NaN or infinite"),
        (FEATURES[0], r"shape \(4,\)"),
        (np.zeros((2, 5, 4), np.float32), r"shape \(2, 5, 4\)"),
        (np.zeros((0, 4), np.float32), "no patches"),
        (FEATURES.astype(np.complex64), "not numbers"),
        (BFLOAT16_BITS, r"type int16\. Are they the bits of bfloat16"),
        (BFLOAT16_BITS.view(np.uint16), r"type uint16\. Are they the bits of bfloat16"),
        (np.array([b"a", b"b"]), "not numbers"),
    ],
)
def test_features_that_are_no_numbers_a_patch(tmp_path: Path, values: NDArray[Any], message: str) -> None:
    path = tmp_path / "slide_7.h5"
    with h5py.File(path, "w") as f:
        f["features"] = values
    with pytest.raises(BenchmarkError, match=rf"slide_7\.h5: .*{message}"):
        read_features(path)


def test_files_without_features_say_what_they_hold(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f["coords"] = COORDS
    with pytest.raises(BenchmarkError, match=r"a\.h5: no features as TRIDENT, .* write them; it holds coords"):
        read_features(tmp_path / "a.h5")
    np.savez(tmp_path / "a.npz", embedding=FEATURES)
    with pytest.raises(BenchmarkError, match=r"a\.npz: no array features; it holds embedding"):
        read_features(tmp_path / "a.npz")
    torch.save({"features": torch.zeros(3, 2)}, tmp_path / "a.pt")
    with pytest.raises(BenchmarkError, match=r"a\.pt: holds a dict, not a tensor"):
        read_features(tmp_path / "a.pt")


def test_coords_of_another_number_of_rows(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as f:
        f["features"], f["coords"] = FEATURES, COORDS[:3]
    with pytest.raises(BenchmarkError, match=r"a\.h5: 5 rows of features, but coords of shape \(3, 2\)"):
        read_features(tmp_path / "a.h5")


class _Runs:
    """What a hostile `.pt` file holds: loading it calls a function."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (Path("hacked"),)


def test_a_pt_file_never_runs_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, save in enumerate((torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2)))):
        path = tmp_path / f"bad_{number}.pt"
        save(_Runs(), path)
        with pytest.raises(BenchmarkError, match=rf"bad_{number}\.pt: not a readable feature file"):
            read_features(path)
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("suffix", [".h5", ".pt", ".npz"])
def test_damaged_files_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with pytest.raises(BenchmarkError, match=f"a{suffix}: not a readable feature file"):
        read_features(path)
    if suffix == ".h5":
        write_trident_file(path)
    elif suffix == ".pt":
        torch.save(torch.from_numpy(FEATURES), path)
    else:
        np.savez_compressed(path, features=FEATURES)
    whole = path.read_bytes()
    for damaged in (b"", b"not a feature file", whole[: len(whole) * 2 // 3]):
        path.write_bytes(damaged)
        with pytest.raises(BenchmarkError, match=f"a{suffix}: not a readable feature file"):
            read_features(path)


# --- places ---


def test_places_are_rounded_to_whole_pixels_of_level_0() -> None:
    um = PlacedFeatures(FEATURES, COORDS * 0.2527, None, PatchFacts(in_um=True))
    np.testing.assert_array_equal(um.coords_l0_px(0.2527), COORDS)
    px = PlacedFeatures(FEATURES, COORDS.astype(np.float64), None, PatchFacts())
    assert px.coords_l0_px(0.2527).dtype == np.int64
    np.testing.assert_array_equal(px.coords_l0_px(0.2527), COORDS)


@pytest.mark.parametrize(
    ("coords", "words"),
    [
        (None, "no coordinates in it nor beside it"),
        (COORDS + 0.5, "coords are not whole pixels of level 0"),
        (np.full((5, 2), np.nan), "coords are no places on a slide"),
        (np.full((5, 2), 2**40), "coords are no places on a slide"),
        (np.full((5, 2), b"1"), r"not a readable feature file \(/coords is of type \|S1, not numbers\)"),
        (COORDS[:4], r"5 rows of features, but coords of shape \(4, 2\)"),
    ],
)
def test_coordinates_that_are_no_places(tmp_path: Path, coords: NDArray[Any] | None, words: str) -> None:
    with pytest.raises(BenchmarkError, match=rf"a\.h5: {words}"):
        read_placed(write_plain_file(tmp_path / "a.h5", coords))


def test_coordinates_apart_from_the_features_are_found(tmp_path: Path) -> None:
    """In the folder that the user names; what the file itself says comes first."""
    path = write_plain_file(tmp_path / "s.h5", None)
    (tmp_path / "c").mkdir()
    with h5py.File(tmp_path / "c" / "s.h5", "w") as f:
        f["coords"] = COORDS
        f["coords"].attrs.update({"patch_size": 256, "downsample": 2.0})
    placed = read_placed(path, tmp_path / "c")
    np.testing.assert_array_equal(placed.coords, COORDS)
    assert placed.facts.side_l0_px == 512
    own = read_placed(write_plain_file(path, COORDS + 1, {"patch_size": 64, "downsample": 1.0}), tmp_path / "c")
    np.testing.assert_array_equal(own.coords, COORDS + 1)
    assert own.facts.side_l0_px == 64


def test_a_file_that_says_nothing_has_unknown_facts(tmp_path: Path) -> None:
    facts = read_facts(write_plain_file(tmp_path / "a.h5"))
    assert (facts.layout, facts.is_known) == (UNKNOWN, False)


@pytest.mark.parametrize("side", [0, -3, float("nan"), float("inf"), 2.0**40])
def test_a_side_that_is_no_size_is_refused(tmp_path: Path, side: float) -> None:
    path = write_plain_file(tmp_path / "a.h5", of_coords={"patch_size_level0": side})
    with pytest.raises(BenchmarkError, match=r"a\.h5: side of its patches is "):
        read_facts(path)
