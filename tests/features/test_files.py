"""Arrays of our own and the feature files of TRIDENT, CLAM, slide2vec, STAMP and Patho-Bench, written as these do."""

import json
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pipeline.base.errors import BenchmarkError
from pipeline.features.files import read_arrays, write_arrays
from pipeline.features.find import find_feature_tree
from pipeline.features.read import read_features

FEATURES = np.random.default_rng(0).standard_normal((5, 4), dtype=np.float32)
COORDS = np.arange(10).reshape(5, 2) * 512


def write_trident(path: Path, features: NDArray[Any] = FEATURES, encoder: str = "uni_v1") -> None:
    """As TRIDENT does: features in chunks of one row, attributes on the datasets."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as f:
        dataset = f.create_dataset("features", data=features, chunks=(1, features.shape[1]), maxshape=(None, None))
        dataset.attrs.update({"name": path.stem, "savetodir": "out", "encoder": encoder})
        coords = f.create_dataset("coords", data=COORDS.astype(np.int64))
        coords.attrs.update({"patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40})


def write_stamp(path: Path) -> None:
    with h5py.File(path, "w") as f:
        f["feats"] = FEATURES.astype(np.float16)
        f["coords"] = COORDS.astype(np.float32) * 0.25
        f.attrs.update({"stamp_version": "2.3.0", "extractor": "virchow2", "unit": "um", "tile_size_um": 256.0,
                        "tile_size_px": 224, "code_hash": "abc", "feat_type": "tile"})  # fmt: skip


# --- our own files ---


@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.int64, np.uint8, np.bool_]),
        hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4),
    )
)
def test_arrays_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, values: NDArray[Any]) -> None:
    path = tmp_path_factory.mktemp("arrays") / "a.h5"
    write_arrays(path, {"values": values, "more": np.arange(3)}, {"model": "x", "rows": 3, "share": 0.5})
    arrays, attributes = read_arrays(path)
    assert arrays["values"].dtype == values.dtype
    np.testing.assert_array_equal(arrays["values"], values)
    assert attributes == {"model": "x", "rows": 3, "share": 0.5}


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "one.h5", tmp_path / "two.h5"
    write_arrays(one, {"a": FEATURES, "b": COORDS}, {"x": 1, "y": "2"})
    write_arrays(two, {"b": COORDS, "a": FEATURES}, {"y": "2", "x": 1})
    assert one.read_bytes() == two.read_bytes()
    assert not list(tmp_path.glob("*part*"))


def test_what_cannot_be_written_says_where(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"nowhere/a\.h5"):
        write_arrays(tmp_path / "nowhere" / "a.h5", {"a": FEATURES}, {})


def test_damaged_and_foreign_arrays_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with pytest.raises(BenchmarkError, match=r"a\.h5.*No such file"):
        read_arrays(path)
    write_arrays(path, {"a": FEATURES}, {})
    whole = path.read_bytes()
    at = whole.index(FEATURES.tobytes())
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(BenchmarkError, match=r"a\.h5: damaged: a is not as it was written"):
        read_arrays(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BenchmarkError, match=r"a\.h5: not a readable file of arrays"):
        read_arrays(path)
    write_trident(path)
    with pytest.raises(BenchmarkError, match="not one that G2L wrote"):
        read_arrays(path)


# --- other tools' files ---


def test_trident(tmp_path: Path) -> None:
    job = tmp_path / "20x_256px_0px_overlap"
    write_trident(job / "features_uni_v1" / "TCGA-AA-0001-01Z-00-DX1.0A1B.h5")
    (job / "features_uni_v1" / "TCGA-AA-0001-01Z-00-DX1.0A1B.h5.lock").touch()
    (job / "patches").mkdir()
    for named in (tmp_path, job, job / "features_uni_v1"):
        (slide, path), *others = find_feature_tree(named).files.items()
        assert (slide, others) == ("TCGA-AA-0001-01Z-00-DX1.0A1B", [])
    found = read_features(path)
    np.testing.assert_array_equal(found.features, FEATURES)
    np.testing.assert_array_equal(found.coords, COORDS)
    assert (found.encoder, found.features.dtype, found.coords.dtype) == ("uni_v1", np.float32, np.int64)


def test_clam_writes_the_same_twice_and_one_counts(tmp_path: Path) -> None:
    (tmp_path / "h5_files").mkdir()
    (tmp_path / "pt_files").mkdir()
    with h5py.File(tmp_path / "h5_files" / "s1.h5", "w") as f:
        f["features"], f["coords"] = FEATURES, COORDS.astype(np.int32)
    torch.save(torch.from_numpy(FEATURES), tmp_path / "pt_files" / "s1.pt")
    assert find_feature_tree(tmp_path).files == {"s1": tmp_path / "h5_files" / "s1.h5"}
    from_h5 = read_features(tmp_path / "h5_files" / "s1.h5")
    from_pt = read_features(tmp_path / "pt_files" / "s1.pt")
    np.testing.assert_array_equal(from_h5.features, from_pt.features)
    np.testing.assert_array_equal(from_h5.coords, COORDS)
    assert (from_pt.coords, from_pt.encoder) == (None, None)
    (tmp_path / "h5_files" / "s1.h5").unlink()
    assert find_feature_tree(tmp_path).files == {"s1": tmp_path / "pt_files" / "s1.pt"}


@pytest.mark.parametrize("suffix", [".pt", ".npz"])
def test_slide2vec(tmp_path: Path, suffix: str) -> None:
    folder, tiles = tmp_path / "tile_embeddings", tmp_path / "tiles"
    folder.mkdir()
    tiles.mkdir()
    order = np.array([3, 1, 0, 4, 2])
    if suffix == ".pt":
        torch.save(torch.from_numpy(FEATURES).to(torch.float16), folder / "s1.pt")
        order = np.arange(5)
    else:
        np.savez_compressed(folder / "s1.npz", features=FEATURES.astype(np.float16), tile_index=order)
    (folder / "s1.meta.json").write_text(json.dumps({"encoder_name": "h-optimus-0", "num_tiles": 5}))
    (folder / "empty.meta.json").write_text(json.dumps({"encoder_name": "h-optimus-0", "num_tiles": 0}))
    np.savez(tiles / "s1.coordinates.npz", tile_index=np.arange(5), x=COORDS[:, 0], y=COORDS[:, 1],
             tissue_fractions=np.ones(5))  # fmt: skip
    assert find_feature_tree(tmp_path).files == {"s1": folder / f"s1{suffix}"}
    found = read_features(folder / f"s1{suffix}")
    np.testing.assert_array_equal(found.features, FEATURES.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(found.coords, COORDS[order])
    assert found.encoder == "h-optimus-0"


def test_stamp_has_half_precision_and_micrometres(tmp_path: Path) -> None:
    write_stamp(tmp_path / "s1.h5")
    found = read_features(find_feature_tree(tmp_path).files["s1"])
    np.testing.assert_array_equal(found.features, FEATURES.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(found.coords, COORDS * 0.25)
    assert (found.encoder, found.coords.dtype) == ("virchow2", np.float64)


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


# --- what cannot be used ---


def test_several_folders_are_named_and_none_is_guessed(tmp_path: Path) -> None:
    write_trident(tmp_path / "features_uni" / "s1.h5")
    write_trident(tmp_path / "features_conch" / "s1.h5")
    with pytest.raises(BenchmarkError, match=r"several.*\n.*features_conch\n.*features_uni"):
        find_feature_tree(tmp_path)


def test_folders_without_features(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="no such folder"):
        find_feature_tree(tmp_path / "gone")
    with pytest.raises(BenchmarkError, match="no feature files"):
        find_feature_tree(tmp_path)


def test_the_same_slide_twice(tmp_path: Path) -> None:
    write_trident(tmp_path / "s1.h5")
    torch.save(torch.from_numpy(FEATURES), tmp_path / "s1.pt")
    with pytest.raises(BenchmarkError, match=r"slide s1.*s1\.h5 and .*s1\.pt"):
        find_feature_tree(tmp_path)


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
        write_trident(path)
    elif suffix == ".pt":
        torch.save(torch.from_numpy(FEATURES), path)
    else:
        np.savez_compressed(path, features=FEATURES)
    whole = path.read_bytes()
    for damaged in (b"", b"not a feature file", whole[: len(whole) * 2 // 3]):
        path.write_bytes(damaged)
        with pytest.raises(BenchmarkError, match=f"a{suffix}: not a readable feature file"):
            read_features(path)
