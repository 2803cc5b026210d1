"""Converted weights give the outputs of the models that they come from."""

import pytest
import timm
import torch
from torch import Tensor

from pipeline.convert import to_timm_names
from pipeline.errors import EncoderError
from pipeline.models import load_weights

transformers = pytest.importorskip("transformers")

IMAGES = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    """Weights large enough that every part of the model matters."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def with_registers() -> torch.nn.Module:
    """Hibou's architecture in transformers, small: SwiGLU, registers, a position for the class token."""
    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, use_swiglu_ffn=True, mlp_ratio=4,
        num_register_tokens=4, image_size=56, patch_size=14,
    )  # fmt: skip
    return randomise(transformers.Dinov2WithRegistersModel(config))


def timm_hibou(mlp_ratio: float) -> torch.nn.Module:
    """The same architecture in timm."""
    return timm.create_model(
        "vit_giant_patch14_reg4_dinov2", img_size=56, embed_dim=64, depth=2, num_heads=4, mlp_ratio=mlp_ratio,
        num_classes=0,
    ).eval()  # fmt: skip


def as_version_4(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names that transformers 4 wrote, and that published files have."""
    old: dict[str, Tensor] = {}
    for name, value in weights.items():
        if ".gate_proj." in name:
            up = weights[name.replace("gate_proj", "up_proj")]
            old[name.replace("gate_proj", "weights_in")] = torch.cat([value, up])
            continue
        if ".up_proj." in name:
            continue
        for new, published in (
            ("attention.q_proj", "attention.attention.query"),
            ("attention.k_proj", "attention.attention.key"),
            ("attention.v_proj", "attention.attention.value"),
            ("attention.o_proj", "attention.output.dense"),
            ("mlp.down_proj", "mlp.weights_out"),
        ):
            name = name.replace(new, published)
        old[name] = value
    return old


def as_dinov2(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's names of `to_timm_names` back to those of DINOv2's own training code, with the class token's position."""
    position = torch.full((1, 1, 64), 0.25)
    renamed = {
        name.replace("reg_token", "register_tokens").replace(".fc1.", ".w12.").replace(".fc2.", ".w3."): value
        for name, value in weights.items()
    }
    renamed["pos_embed"] = torch.cat([position, renamed["pos_embed"]], dim=1)
    renamed["cls_token"] = renamed["cls_token"] - position
    return renamed | {"mask_token": torch.zeros(1, 64)}


@pytest.mark.parametrize("version", [4, 5])
def test_transformers_with_registers_equals_timm(version: int) -> None:
    source = with_registers()
    weights = source.state_dict() if version == 5 else as_version_4(source.state_dict())
    converted = to_timm_names(weights)
    model = timm_hibou(converted["blocks.0.mlp.fc1.weight"].shape[0] / 64)
    load_weights(model, converted, "test")
    with torch.no_grad():
        expected = source(IMAGES).last_hidden_state
        assert torch.allclose(model.forward_features(IMAGES), expected, atol=1e-5)
        assert torch.allclose(model(IMAGES), expected[:, 0], atol=1e-5)


def test_a_version_that_transformers_itself_writes(tmp_path: object) -> None:
    from pathlib import Path

    import safetensors.torch

    source = with_registers()
    source.save_pretrained(tmp_path)
    weights = safetensors.torch.load_file(Path(str(tmp_path)) / "model.safetensors")
    converted = to_timm_names(weights)
    model = timm_hibou(converted["blocks.0.mlp.fc1.weight"].shape[0] / 64)
    load_weights(model, converted, "test")
    with torch.no_grad():
        assert torch.allclose(model(IMAGES), source(IMAGES).last_hidden_state[:, 0], atol=1e-5)


def test_dinov2s_own_names_equal_timm() -> None:
    converted = to_timm_names(with_registers().state_dict())
    model = timm_hibou(converted["blocks.0.mlp.fc1.weight"].shape[0] / 64)
    load_weights(model, converted, "test")
    again = to_timm_names(as_dinov2(converted))
    assert again.keys() == converted.keys()
    for name, value in converted.items():
        assert torch.allclose(again[name], value, atol=1e-6), name


def test_transformers_without_registers_equals_timm() -> None:
    config = transformers.Dinov2Config(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=64, patch_size=16, mlp_ratio=4
    )
    source = randomise(transformers.Dinov2Model(config))
    model = timm.create_model(
        "vit_large_patch16_224", img_size=64, embed_dim=64, depth=2, num_heads=4, init_values=1e-5, num_classes=0
    ).eval()
    load_weights(model, to_timm_names(source.state_dict()), "test")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(model(images), source(images).last_hidden_state[:, 0], atol=1e-5)


def test_a_key_left_over_fails_by_name() -> None:
    converted = to_timm_names(with_registers().state_dict() | {"encoder.layer.0.surprise.weight": torch.zeros(1)})
    with pytest.raises(EncoderError, match=r"1 unknown \(blocks.0.surprise.weight"):
        load_weights(timm_hibou(converted["blocks.0.mlp.fc1.weight"].shape[0] / 64), converted, "test")


def test_weights_in_timms_layout_are_left_alone() -> None:
    weights = timm_hibou(4).state_dict()
    assert to_timm_names(weights) is weights
