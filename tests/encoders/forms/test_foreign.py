"""Files of training that hold no tensors by name: refused without running them, with the way to a file that does."""

import sys
import types
from pathlib import Path

import pytest
import torch
from support.extraction import tiny_model
from torch.distributed.checkpoint import save as save_distributed

from pipeline.base.errors import EncoderError
from pipeline.encoders.build import build_encoder
from pipeline.encoders.forms.foreign import way_from_file, way_from_folder

NAME = "test_vit"


def refused(path: Path, words: str) -> None:
    with pytest.raises(EncoderError, match=words):
        build_encoder(NAME, path, 160)


@pytest.mark.filterwarnings("ignore")
def test_a_distributed_checkpoint(tmp_path: Path) -> None:
    """And what the message says: torch makes a file of it."""
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    state = tiny_model(NAME, seed=1, num_classes=0).state_dict()
    folder = tmp_path / "ckpt" / "99"
    save_distributed({"teacher": {f"backbone.{name}": value for name, value in state.items()}}, checkpoint_id=folder)
    way = rf"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} weights.pth"
    refused(folder, rf"99: no .* is in this folder\. It is a checkpoint of torch.distributed.*{way}")
    for file in folder.iterdir():
        refused(file, rf"{file.name}: .*{way}")
    dcp_to_torch_save(folder, tmp_path / "weights.pth")
    built = build_encoder(NAME, tmp_path / "weights.pth", 160)
    assert torch.equal(built.module.model.state_dict()["cls_token"], state["cls_token"])


def test_the_part_of_one_gpu(tmp_path: Path) -> None:
    file = tmp_path / "model_0009999.rank_0.pth"
    torch.save({"model": {"teacher.backbone._flat_param": torch.zeros(9)}, "iteration": 9999}, file)
    refused(file, r"rank_0.pth.*It is the part of one GPU.*eval/training_N/teacher_checkpoint.pth")


def test_models_of_lightly_train_with_their_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("lightly_train")
    kind = type("Model", (), {"__module__": "lightly_train"})
    module.Model = kind  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lightly_train", module)
    file = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "models": kind()}, file)
    refused(
        file, r"last.ckpt: not a PyTorch file of nothing but tensors.*lightly-train export out=weights.pth checkpoint="
    )
    torch.save({"a": torch.zeros(1)}, file)
    assert way_from_file(file) == ""


def test_the_folder_of_a_run_of_lightly_train(tmp_path: Path) -> None:
    assert way_from_folder(tmp_path) == ""
    (tmp_path / "exported_models").mkdir()
    torch.save(tiny_model(NAME).state_dict(), tmp_path / "exported_models" / "exported_last.pt")
    refused(tmp_path, r"It is a run of LightlyTrain: give .*exported_models/exported_last.pt")
    built = build_encoder(NAME, tmp_path / "exported_models" / "exported_last.pt", 160)
    assert built.note.endswith("exported_last.pt: left out are head (2 tensors)")


def test_a_pointer_of_git_lfs(tmp_path: Path) -> None:
    for name in ("model.safetensors", "w.pth"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
        refused(tmp_path / name, rf"{name}: a pointer of Git LFS in the place of the weights; `git lfs pull`")
