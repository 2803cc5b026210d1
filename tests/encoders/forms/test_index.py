"""The index of weights in several files: what it may say, and what of it is refused before a tensor is read."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import EncoderError
from pipeline.encoders.forms import index as index_module
from pipeline.encoders.forms.index import INDEX_FILES, index_in, is_index, read_index


def write(folder: Path, content: Any, name: str = INDEX_FILES[0]) -> Path:
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / name


def test_names_are_told_by_file(tmp_path: Path) -> None:
    for name in ("one.safetensors", "two.safetensors"):
        (tmp_path / name).touch()
    content = {"metadata": {"total_size": 12.0}, "weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    path = write(tmp_path, content | {"weight_map": {**content["weight_map"], "c": "one.safetensors"}})
    index = read_index(path)
    assert index.names == {"one.safetensors": ["a", "c"], "two.safetensors": ["b"]}
    assert index.files == [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    assert index.total_size == 12
    assert read_index(write(tmp_path, {"weight_map": {"a": "one.safetensors"}})).total_size is None


def test_an_index_is_known_by_its_name(tmp_path: Path) -> None:
    assert index_in(tmp_path) is None
    second = write(tmp_path, {}, INDEX_FILES[1])
    assert index_in(tmp_path) == second
    assert is_index(second)
    assert not is_index(tmp_path / "config.json")
    assert index_in(write(tmp_path, {}).parent) == tmp_path / INDEX_FILES[0]


BAD: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "not a readable index of weights"),
    "a list": ([], "not a readable index of weights"),
    "deep": ('{"weight_map": ' + "[" * 100_000, "not a readable index of weights"),
    "no map": ({"metadata": {}}, "not an index of weights"),
    "a map of nothing": ({"weight_map": {}}, "not an index of weights"),
    "a map of numbers": ({"weight_map": {"a": 3}}, "not an index of weights"),
    "above": ({"weight_map": {"a": "../w.safetensors"}}, r"it names the file '../w.safetensors'"),
    "elsewhere": ({"weight_map": {"a": "/w.safetensors"}}, r"it names the file '/w.safetensors'"),
    "another system": ({"weight_map": {"a": "..\\w.safetensors"}}, "it names the file"),
    "a null": ({"weight_map": {"a": "w\0.safetensors"}}, "it names the file"),
    "code": ({"weight_map": {"a": "w.py"}}, "it names the file 'w.py'"),
    "missing": (
        {"weight_map": {"a": "here.bin", "b": "w-2.bin", "c": "w-3.bin"}},
        r"2 of its 3 files are missing \(the first: w-2.bin\)",
    ),
    "one missing": ({"weight_map": {"a": "w.bin"}}, r"1 of its 1 files is missing \(the first: w.bin\)"),
    "a size in words": ({"weight_map": {"a": "here.bin"}, "metadata": {"total_size": "1"}}, "its total_size is '1'"),
    "half a byte": ({"weight_map": {"a": "here.bin"}, "metadata": {"total_size": 1.5}}, "its total_size is 1.5"),
    "a size that is none": (
        '{"weight_map": {"a": "here.bin"}, "metadata": {"total_size": NaN}}',
        "its total_size is nan",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_index_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    (tmp_path / "here.bin").touch()
    content, words = BAD[kind]
    with pytest.raises(EncoderError, match=rf"{INDEX_FILES[0]}: {words}"):
        read_index(write(tmp_path, content))


def test_an_index_that_is_absent_or_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EncoderError, match="no such weights"):
        read_index(tmp_path / INDEX_FILES[0])
    monkeypatch.setattr(index_module, "MOST_INDEX_BYTES", 4)
    with pytest.raises(EncoderError, match=r"not a readable index of weights .*the limit is"):
        read_index(write(tmp_path, {"weight_map": {}}))
