"""Arrays that are raw numbers in one chunk: what is written comes back, as zarr reads it; nothing else is taken."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from support.store_writing import edit_json

from pipeline.base.outside import UnsafeError
from pipeline.disk.raw_arrays import RawArray, read_array
from pipeline.store.zarr_format import create_group, write_array

SMALL = [
    np.arange(6, dtype=np.int64).reshape(3, 2),
    np.array([0, 1, 1, 0], np.uint8),
    np.zeros((4, 2), np.int32),  # zarr writes no chunk of zeros
    np.arange(12, dtype=np.int64).reshape(2, 6).T,  # not as C lays it out
]


@pytest.mark.parametrize("values", SMALL, ids=lambda values: f"{values.dtype} {values.shape}")
def test_a_small_array_comes_back(tmp_path: Path, values: NDArray[Any]) -> None:
    create_group(tmp_path / "g", {"g2l": {"a": 1}})
    write_array(tmp_path / "g", "x", values)
    group = zarr.open_group(str(tmp_path / "g"), mode="r")
    assert group.attrs["g2l"] == {"a": 1}
    for found in (read_array(tmp_path / "g", "x"), np.asarray(group["x"][:])):
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize(
    ("how", "words"), [({"chunks": (3, 2)}, "chunks of"), ({"chunks": (6, 2), "compressors": "auto"}, "codecs bytes, ")]
)
def test_an_array_that_is_stored_in_another_way_is_refused(tmp_path: Path, how: dict[str, Any], words: str) -> None:
    zarr.create_array(str(tmp_path), name="x", data=np.ones((6, 2)), **({"compressors": None} | how))
    with pytest.raises(UnsafeError, match=rf"x: .*{words}.*; raw numbers in one chunk are read"):
        read_array(tmp_path, "x")


def resize(value: dict[str, Any], rows: int) -> None:
    value["shape"][0] = value["chunk_grid"]["configuration"]["chunk_shape"][0] = rows


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda value: resize(value, 7), "x claims 56 bytes, its file has 48"),
        (lambda value: resize(value, 2**60), "x"),
        (lambda value: value.update(data_type="int64", storage_transformers=[{"name": "x"}]), "raw numbers"),
    ],
)
def test_an_array_is_as_large_as_its_file(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    write_array(tmp_path, "x", np.arange(6, dtype=np.int64))
    edit_json(tmp_path / "x" / "zarr.json", change)
    with pytest.raises(UnsafeError, match=words):
        read_array(tmp_path, "x")


def test_no_array_is_an_error_of_the_kinds_that_callers_expect(tmp_path: Path) -> None:
    with pytest.raises((OSError, LookupError, TypeError, ValueError)):
        read_array(tmp_path, "x")


@pytest.mark.parametrize(("data_type", "endian"), [(">i4", "big"), ("<i4", "little")])
def test_either_order_of_bytes_is_read_as_zarr_reads_it(tmp_path: Path, data_type: str, endian: str) -> None:
    values = np.arange(12, dtype=np.int32).reshape(6, 2)
    write_array(tmp_path, "x", values)
    (tmp_path / "x" / "c" / "0" / "0").write_bytes(values.astype(data_type).tobytes())
    edit_json(
        tmp_path / "x" / "zarr.json",
        lambda value: value["codecs"].__setitem__(0, {"name": "bytes", "configuration": {"endian": endian}}),
    )
    for found in (read_array(tmp_path, "x"), np.asarray(zarr.open_array(str(tmp_path / "x"), mode="r")[:])):
        np.testing.assert_array_equal(found, values)


def test_zarr_is_not_imported_to_read_one(tmp_path: Path) -> None:
    write_array(tmp_path, "x", np.arange(6))
    code = (
        "import sys; from pathlib import Path; from pipeline.disk.raw_arrays import read_array\n"
        "print(read_array(Path(sys.argv[1]), 'x').sum(), 'zarr' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["15", "False"]


@pytest.mark.parametrize("values", [np.arange(12).reshape(6, 2), np.zeros((6, 2), np.int64), np.arange(6, dtype="u1")])
def test_some_rows_are_those_of_the_whole(tmp_path: Path, values: NDArray[np.int64]) -> None:
    create_group(tmp_path / "g", {})
    write_array(tmp_path / "g", "x", values)
    rows = RawArray(tmp_path / "g", "x")
    for start, stop in ((0, 6), (2, 5), (3, 3), (4, 9), (7, 9), (5, 2)):
        found = rows.read(start, stop)
        np.testing.assert_array_equal(found, values[start:stop])
        assert found.dtype == values.dtype
