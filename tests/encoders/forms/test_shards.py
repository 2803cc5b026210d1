"""Weights in several files give the encoder that one file gives; files that do not belong together are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from support.extraction import tiny_model
from torch import Tensor

from pipeline.base.errors import EncoderError
from pipeline.encoders import weight_files
from pipeline.encoders.build import build_encoder
from pipeline.encoders.forms.index import INDEX_FILES
from pipeline.encoders.forms.shards import check_weights, read_weights

NAME = "test_vit"
State = dict[str, Tensor]


def write_shards(folder: Path, state: State, ending: str = ".safetensors", **further: Any) -> Path:
    """The state in three files and their index, as the hub's tools name them; returns the index."""
    folder.mkdir(parents=True, exist_ok=True)
    index = INDEX_FILES[0 if ending == ".safetensors" else 1]
    stem = index.partition(".")[0]
    files = {f"{stem}-0000{i + 1}-of-00003{ending}": dict(list(state.items())[i::3]) for i in range(3)}
    save = safetensors.torch.save_file if ending == ".safetensors" else torch.save
    for name, part in files.items():
        save(part, folder / name)
    num_bytes = sum(value.numel() * value.element_size() for value in state.values())
    names = {tensor: file for file, part in files.items() for tensor in part}
    content = {"metadata": {"total_size": num_bytes}, "weight_map": dict(sorted(names.items()))} | further
    (folder / index).write_text(json.dumps(content))
    return folder / index


def state(seed: int = 1) -> State:
    return dict(tiny_model(NAME, seed=seed, num_classes=0).state_dict())


@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
def test_several_files_give_what_one_gives(tmp_path: Path, ending: str) -> None:
    index = write_shards(tmp_path / "parts", state(), ending)
    safetensors.torch.save_file(state(), tmp_path / "model.safetensors")
    whole = build_encoder(NAME, tmp_path / "model.safetensors", 160)
    for place in (index, index.parent):
        built = build_encoder(NAME, place, 160)
        assert (built.weights_sha256, built.weights, built.note) == (whole.weights_sha256, place.name, "")
    check_weights(index)


def test_a_set_in_several_files_is_named_as_in_one(tmp_path: Path) -> None:
    teacher = {f"teacher.backbone.{name}": value for name, value in state(1).items()}
    student = {f"student.backbone.{name}": value for name, value in state(2).items()}
    index = write_shards(tmp_path, teacher | student)
    assert "teacher.backbone is taken, not student.backbone" in build_encoder(NAME, index, 160).note
    built = build_encoder(NAME, Path(f"{index}::student"), 160)
    assert torch.equal(built.module.model.state_dict()["cls_token"], state(2)["cls_token"])
    assert built.weights == f"{index.name}::student"


def test_a_models_folder_may_have_its_weights_in_several_files(tmp_path: Path) -> None:
    whole = dict(tiny_model(NAME, seed=1, img_size=64).state_dict())
    index = write_shards(tmp_path, whole)
    config = {"architecture": NAME, "num_classes": 1000, "pretrained_cfg": {"input_size": [3, 64, 64]}}
    config["pretrained_cfg"] |= {"mean": [0.5] * 3, "std": [0.5] * 3, "fixed_input_size": True}  # type: ignore[operator]
    config["pretrained_cfg"] |= {"classifier": "head", "num_classes": 1000}  # type: ignore[operator]
    (tmp_path / "config.json").write_text(json.dumps(config))
    built = build_encoder(f"local-dir:{tmp_path}", "pretrained", 64)
    assert built.weights == "pretrained"
    assert built.note == f"note: {index}: left out are head (2 tensors)"
    index.unlink()
    for part in tmp_path.glob("model-*"):
        part.unlink()
    safetensors.torch.save_file(whole, tmp_path / "model.safetensors")
    assert build_encoder(f"local-dir:{tmp_path}", "pretrained", 64).weights_sha256 == built.weights_sha256


def test_files_of_two_downloads_are_refused(tmp_path: Path) -> None:
    index = write_shards(tmp_path, state())
    first = tmp_path / "model-00001-of-00003.safetensors"
    good = first.read_bytes()
    part = safetensors.torch.load_file(first)
    safetensors.torch.save_file(part | {"further": torch.zeros(1)}, first)
    with pytest.raises(EncoderError, match=rf"{first.name}: further is not in {index.name}"):
        read_weights(index)
    del part["cls_token"]
    safetensors.torch.save_file(part, first)
    with pytest.raises(EncoderError, match=rf"{first.name}: cls_token is not in this file, in which {index.name}"):
        read_weights(index)
    first.write_bytes(good[:-100])
    with pytest.raises(EncoderError, match=rf"{first.name}: unreadable weights"):
        read_weights(index)
    first.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    with pytest.raises(EncoderError, match=rf"{first.name}: a pointer of Git LFS"):
        check_weights(index)
    first.unlink()
    with pytest.raises(EncoderError, match=rf"{index.name}: 1 of its 3 files is missing"):
        build_encoder(NAME, index, 160)


def test_another_size_than_the_index_says_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = write_shards(tmp_path, state(), metadata={"total_size": 1234})
    with pytest.raises(EncoderError, match=rf"{index.name}: its files hold [\d,]+ bytes of tensors, it says 1,234"):
        read_weights(index)
    num_bytes = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    write_shards(tmp_path, state(), metadata={"total_size": num_bytes})  # some writers count the files
    assert read_weights(index).keys() == state().keys()
    monkeypatch.setattr(weight_files, "LARGEST_FILE_BYTES", num_bytes - 1)
    with pytest.raises(EncoderError, match=rf"{index.name}: [\d,]+ bytes; no weights above"):
        read_weights(index)
