"""Checkpoints in parts: what is written is read again; a folder from elsewhere runs no code and reads no other file.

Of several processes: tests/kills/test_sharded.py.
"""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.damage import Evil
from support.sharded import alone_in_a_group
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from pipeline.disk.files import sha256_file
from pipeline.training.sharded.parts import REST, TENSORS_FILE, put_back, read_parts, tensors_and_rest, write_parts
from pipeline.training.sharded.split import local


@pytest.fixture(autouse=True)
def _group() -> Iterator[None]:
    with alone_in_a_group():
        yield


def content() -> dict[str, Any]:
    mesh = init_device_mesh("cpu", (1,))
    return {
        "student": {"norm.weight": distribute_tensor(torch.arange(6.0).view(3, 2), mesh, [Shard(0)])},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "random": [{"cpu": torch.arange(4)}],
        "step": 3,
    }


def written(folder: Path) -> dict[str, dict[str, Any]]:
    folder.mkdir()
    return write_parts(folder, content())


def test_it_is_read_whole(tmp_path: Path) -> None:
    files = written(tmp_path / "c")
    assert sorted(files) == sorted(path.name for path in (tmp_path / "c").iterdir())
    assert {TENSORS_FILE, REST} < files.keys()
    for name, facts in files.items():
        assert facts["sha256"] == sha256_file(tmp_path / "c" / name)
    read = read_parts(tmp_path / "c")
    assert read["student"]["norm.weight"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert read["optimizer"] == {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    assert read["random"][0]["cpu"].tolist() == [0, 1, 2, 3]
    assert read["step"] == 3


def test_it_is_read_into_parts_and_without_what_is_not_needed(tmp_path: Path) -> None:
    written(tmp_path / "c")
    into = torch.empty_like(content()["student"]["norm.weight"])
    read = read_parts(tmp_path / "c", lambda name, size, dtype: into, without=("optimizer",))
    assert read["student"]["norm.weight"] is into
    assert local(into).flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert "optimizer" not in read


def test_tensors_and_rest_are_inverse() -> None:
    nested = {"a": {"b/c": 1, "d": {0: {"e": torch.tensor(1.0)}}}, "f": [torch.tensor(2)]}
    tensors, rest = tensors_and_rest(nested)
    assert list(tensors) == ["a/d/0/e"]
    assert rest["a"]["d"] == {0: {}}
    assert put_back(rest, tensors) == nested


def test_a_description_that_runs_code_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "c")
    (tmp_path / "c" / TENSORS_FILE).write_bytes(pickle.dumps(Evil(tmp_path / "touched")))
    with pytest.raises(pickle.UnpicklingError, match="no part of a description"):
        read_parts(tmp_path / "c")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("damage", ["elsewhere", "bytes", "another size"])
def test_a_description_of_other_things_is_refused(tmp_path: Path, damage: str) -> None:
    written(tmp_path / "c")
    path = tmp_path / "c" / TENSORS_FILE
    metadata = pickle.loads(path.read_bytes())
    if damage == "elsewhere":
        for place in metadata.storage_data.values():
            place.relative_path = "../secret"
    elif damage == "bytes":
        metadata.state_dict_metadata["student/norm.weight"] = torch.Size([1])
    path.write_bytes(pickle.dumps(metadata))
    wrong = (lambda *_: torch.empty(4, 2)) if damage == "another size" else None
    with pytest.raises(ValueError, match=r"lies elsewhere|is no tensor|[Ss]ize"):
        read_parts(tmp_path / "c", wrong)


def test_a_place_that_cannot_be_written_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("a file")
    with pytest.raises(OSError, match="c"):
        write_parts(tmp_path / "c", content())


def test_hashes_are_plain_values(tmp_path: Path) -> None:
    assert json.loads(json.dumps(written(tmp_path / "c")))
