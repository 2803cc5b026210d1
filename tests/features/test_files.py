"""Arrays of our own come back as they were, and damage is named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from support.feature_files import COORDS, FEATURES, write_trident_file

from pipeline.base.errors import BenchmarkError
from pipeline.features.files import read_arrays, write_arrays


@pytest.mark.slow
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
    write_trident_file(path)
    with pytest.raises(BenchmarkError, match="not one that G2L wrote"):
        read_arrays(path)
