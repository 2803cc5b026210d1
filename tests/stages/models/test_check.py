"""`g2l models NAME --check`: the right encoder is equal, and each wrong one is named for what it is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from support.commands import call_g2l
from support.extraction import tiny_model, write_teacher
from support.stores import PATCH_PX, plain_vit

from pipeline.base.errors import ConfigError, EncoderError, G2LError
from pipeline.config.tools import ModelsConfig
from pipeline.encoders.golden.drawn_patch import draw_test_patch
from pipeline.encoders.golden.values import read_golden
from pipeline.encoders.table import IMAGENET_MEAN, IMAGENET_STD
from stages.models.check import check_against_values, write_test_patch


def write_model(folder: Path, seed: int = 0) -> str:
    """A small ViT in which every part matters, with ImageNet's statistics and its weights in the folder."""
    name = plain_vit(folder)
    change(name, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    weights = tiny_model("test_vit", img_size=PATCH_PX, depth=2, embed_dim=32, num_heads=2, num_classes=0).state_dict()
    rng = np.random.default_rng(seed)
    weights = {
        key: torch.from_numpy(rng.normal(0, 0.15, value.shape).astype(np.float32)) if value.ndim > 1 else value
        for key, value in weights.items()
    }
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    return name


@pytest.fixture
def model(tmp_path: Path) -> str:
    return write_model(tmp_path / "model")


def folder_of(model: str) -> Path:
    return Path(model.removeprefix("local-dir:"))


def config_of(values: Path | None, **options: Any) -> ModelsConfig:
    return ModelsConfig(check=True, values=values, device="cpu", **options)


@pytest.fixture
def recorded(model: str, tmp_path: Path) -> Path:
    path = tmp_path / "values.json"
    text, code = check_against_values(model, config_of(path), record=True)
    assert code == 0
    assert f"recorded in  {path}" in text
    return path


def change(model: str, **facts: Any) -> None:
    """Change the description of the model's folder."""
    path = folder_of(model) / "config.json"
    content = json.loads(path.read_text())
    content["pretrained_cfg"] |= facts
    path.write_text(json.dumps(content))


def test_the_encoder_that_was_recorded_is_equal(model: str, recorded: Path) -> None:
    text, code = check_against_values(model, config_of(recorded))
    assert code == 0
    assert "EQUAL: the encoder gives the expected embedding." in text
    assert "allowed for float32" in text
    about = read_golden(recorded).about
    assert about["patch"]["sha256"]
    assert about["encoder"]["name"] == model
    assert {"torch", "timm"} <= about["versions"].keys()


def test_what_is_taken_of_a_file_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A set under a name of its own, as training checkpoints have it."""
    file = write_teacher(tmp_path / "w.safetensors", "test_vit", img_size=64)
    torch.save({"teacher": safetensors.torch.load_file(file)}, tmp_path / "w.pth")
    options = config_of(tmp_path / "values.json", weights=str(tmp_path / "w.pth"))
    check_against_values("test_vit", options, record=True)
    said = capsys.readouterr().err
    assert "the encoder's weights are those under teacher" in said
    assert "position embeddings of 4 x 4 patches are resampled to " in said


def test_half_precision_is_held_against_what_half_precision_does(model: str, recorded: Path) -> None:
    text, code = check_against_values(model, config_of(recorded, precision="bfloat16"))
    assert code == 0
    assert "allowed for bfloat16" in text


def test_other_statistics_are_named(model: str, recorded: Path) -> None:
    was = json.loads((folder_of(model) / "config.json").read_text())["pretrained_cfg"]["mean"]
    change(model, mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5])
    text, code = check_against_values(model, config_of(recorded))
    assert code == 1
    assert "DIFFERENT" in text
    assert f"Recorded with mean {was}, here [0.5, 0.5, 0.5]" in text
    assert "The values are equal to an embedding with ImageNet's statistics" in text


def test_other_weights_are_named(model: str, recorded: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other", seed=1)
    text, code = check_against_values(other, config_of(recorded))
    assert code == 1
    assert "None of the usual mistakes makes the expected values" in text
    assert "Recorded with weights_sha256 " in text


def test_another_tool_s_embedding_is_compared(model: str, recorded: Path, tmp_path: Path) -> None:
    values = read_golden(recorded).values
    np.save(tmp_path / "right.npy", values[None])
    assert check_against_values(model, config_of(tmp_path / "right.npy"))[1] == 0
    np.save(tmp_path / "long.npy", values / np.linalg.norm(values))
    text, code = check_against_values(model, config_of(tmp_path / "long.npy"))
    assert (code, "an embedding scaled to length 1" in text) == (1, True)
    rng = np.random.default_rng(0)
    np.save(tmp_path / "near.npy", values * (1 + 0.01 * rng.normal(size=values.shape)).astype(np.float32))
    text, code = check_against_values(model, config_of(tmp_path / "near.npy"))
    assert (code, "as small as half precision makes it" in text) == (1, True)
    np.save(tmp_path / "wide.npy", np.ones(5, np.float32))
    text, code = check_against_values(model, config_of(tmp_path / "wide.npy"))
    assert code == 1
    assert f"The embedding here has {len(values)} dimensions, the values have 5." in text


def test_values_that_cannot_be_read_are_named(model: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No values of the test patch are published for any encoder"):
        check_against_values(model, config_of(None))
    (tmp_path / "v.json").write_text("{}")
    with pytest.raises(EncoderError, match=r"v\.json: format is None"):
        check_against_values(model, config_of(tmp_path / "v.json"))


def test_nothing_is_overwritten(model: str, recorded: Path, tmp_path: Path) -> None:
    before = recorded.read_bytes()
    with pytest.raises(G2LError, match="Give another name, or remove it"):
        check_against_values(model, config_of(recorded), record=True)
    assert recorded.read_bytes() == before
    picture = tmp_path / "patch.png"
    write_test_patch(model, picture)
    with pytest.raises(G2LError, match="Give another name, or remove it"):
        write_test_patch(model, picture)


def test_the_picture_is_the_patch_to_the_bit(model: str, tmp_path: Path) -> None:
    said = write_test_patch(model, tmp_path / "patch.png")
    side = json.loads((folder_of(model) / "config.json").read_text())["pretrained_cfg"]["input_size"][-1]
    assert f"g2l-1, {side} px" in said
    with Image.open(tmp_path / "patch.png") as picture:
        assert np.array_equal(np.asarray(picture), draw_test_patch(side))
    with pytest.raises(ConfigError, match="written as PNG"):
        write_test_patch(model, tmp_path / "patch.jpg")


@pytest.mark.parametrize(
    ("name", "px"), [("uni", 224), ("hibou-b", 224), ("vit_base_patch16_siglip_384", 384), ("hf-hub:owner/name", 224)]
)
def test_the_side_is_the_encoder_s(name: str, px: int, tmp_path: Path) -> None:
    assert f", {px} px, is in" in write_test_patch(name, tmp_path / "patch.png")


def test_the_command_ends_with_what_it_found(model: str, tmp_path: Path) -> None:
    values = tmp_path / "values.json"
    arguments = ("models", model, "--values", str(values), "--device", "cpu")
    code, said, errors = call_g2l(*arguments, "--record", "--patch-out", str(tmp_path / "patch.png"))
    assert (code, errors) == (0, "")
    assert "the test patch g2l-1" in said
    assert values.exists()
    values.unlink()
    code, _, errors = call_g2l(*arguments, "--record", "--check", "--patch-out", str(tmp_path / "other.png"))
    assert (code, "--check compares with --values, and --record writes it. Give one" in errors) == (1, True)
    assert not values.exists()
    assert not (tmp_path / "other.png").exists()
    assert call_g2l(*arguments, "--record")[0] == 0
    assert call_g2l(*arguments, "--check")[0] == 0
    change(model, std=[0.5, 0.5, 0.5])
    code, said, _ = call_g2l(*arguments, "--check")
    assert (code, "DIFFERENT" in said) == (1, True)
    code, _, errors = call_g2l("models", "--check", "--values", str(values))
    assert (code, "name the encoder" in errors) == (1, True)
    code, said, _ = call_g2l("models", model, "--patch-out", str(tmp_path / "again.png"))
    assert (code, "arithmetic" in said) == (0, False)
