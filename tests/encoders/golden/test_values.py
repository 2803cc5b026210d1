"""Files of values: what is written is read back to the digit; what is damaged or another's is refused by name."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.base.errors import EncoderError
from pipeline.encoders.golden.values import GoldenValues, read_golden, write_golden

VALUES = np.random.default_rng(0).normal(size=7).astype(np.float32) * np.float32(10) ** np.arange(
    -3, 4, dtype=np.float32
)
ABOUT: dict[str, Any] = {"encoder": {"name": "tiny"}, "patch": {"name": "g2l-1", "px": 64}}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_golden(tmp_path / "v.json", GoldenValues(VALUES, "bfloat16", ABOUT))
    golden = read_golden(tmp_path / "v.json")
    assert np.array_equal(golden.values, VALUES)
    assert golden.values.dtype == np.float32
    assert (golden.precision, golden.about) == ("bfloat16", ABOUT)
    content = json.loads((tmp_path / "v.json").read_text())
    assert list(content) == ["format", "encoder", "patch", "precision", "values"]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("rows", [False, True])
def test_another_tool_s_embedding_is_read(tmp_path: Path, kind: Any, rows: bool) -> None:
    array = VALUES.astype(kind)
    np.save(tmp_path / "v.npy", array[None] if rows else array)
    golden = read_golden(tmp_path / "v.npy")
    assert np.array_equal(golden.values, array.astype(np.float32))
    assert golden.precision == ("float16" if kind is np.float16 else "float32")
    assert not golden.about


def json_of(**changes: Any) -> str:
    content = {"format": "g2l-values-1", "patch": {"name": "g2l-1"}, "values": [1.0, 2.0]} | changes
    return json.dumps({key: value for key, value in content.items() if value != "leave out"})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a file of values .*`g2l models NAME --record --values FILE` makes one"),
        ("[1, 2]", "not a file of values"),
        (json_of()[:-5], "not a file of values"),
        (json_of(format="other"), "format is 'other', not 'g2l-values-1'"),
        (json_of(format="leave out"), "format is None"),
        (json_of(patch={"name": "g2l-2"}), "not of the test patch g2l-1"),
        (json_of(patch="leave out"), "not of the test patch g2l-1"),
        (json_of(precision="int8"), "precision is 'int8'"),
        (json_of(values="leave out"), "values is not a list of numbers"),
        (json_of(values=[1, "2"]), "values is not a list of numbers"),
        (json_of(values=[True]), "values is not a list of numbers"),
        (json_of(values=[]), r"holds \(0,\)"),
        (json_of(values=[1.0, float("nan")]), "NaN or infinity"),
        (json_of(values=[0.0, 0.0]), "all zero"),
        (json_of(values=[1e39]), "NaN or infinity"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_damaged_json_is_one_error_that_names_the_file(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "v.json"
    path.write_text(text)
    with pytest.raises(EncoderError, match=rf"(?s){re.escape(str(path))}: .*{reason}"):
        read_golden(path)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.ones((2, 3), np.float32), r"holds \(2, 3\)"),
        (np.ones(3, np.int64), "not an embedding"),
        (np.array([object()]), "not an embedding"),
        (np.float32(1.0), r"holds \(\)"),
        (np.ones(0, np.float32), r"holds \(0,\)"),
        (np.full(3, np.inf, np.float32), "NaN or infinity"),
    ],
)
def test_another_array_is_refused(tmp_path: Path, array: Any, reason: str) -> None:
    np.save(tmp_path / "v.npy", array, allow_pickle=True)
    with pytest.raises(EncoderError, match=reason):
        read_golden(tmp_path / "v.npy")


def test_an_array_that_claims_more_than_it_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    np.save(path, VALUES)
    whole = path.read_bytes()
    for data in (whole[:-1], whole[:40], whole + b"x", whole.replace(b"(7,)", b"(9,)"), b"", b"\x93NUMPY\x09\x00"):
        path.write_bytes(data)
        with pytest.raises(EncoderError, match="not an embedding that NumPy wrote"):
            read_golden(path)


@pytest.mark.parametrize("name", ["none.json", "none.npy"])
def test_a_missing_file_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(EncoderError, match=name):
        read_golden(tmp_path / name)
