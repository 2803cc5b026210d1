"""Positions saved for another image size are stretched as the page's own code does it."""

from pathlib import Path

import pytest
import timm
import torch
from support.extraction import write_teacher
from torch import Tensor

from pipeline.encoders.build import build_encoder
from pipeline.encoders.load import load_weights
from pipeline.encoders.positions import POSITIONS, resampled_positions, stretched_as_published

MIDNIGHT = "kaiko-ai/midnight"


def tiny() -> torch.nn.Module:
    """Midnight's architecture, small."""
    torch.manual_seed(0)
    return timm.create_model(
        "vit_giant_patch14_dinov2", img_size=56, embed_dim=48, depth=1, num_heads=4, num_classes=0
    ).eval()


def test_it_is_what_transformers_does() -> None:
    """Saved for 6 x 6 patches, used with 4 x 4, as Midnight is with 37 x 37 and 16 x 16."""
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        hidden_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        use_swiglu_ffn=True,
        mlp_ratio=4,
        image_size=84,
        patch_size=14,
    )
    torch.manual_seed(1)
    source = transformers.Dinov2Model(config)
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    last = ("mlp.down_proj.weight", "mlp.weights_out.weight")  # from transformers 5 on, and before
    (hidden,) = (value.shape[1] for name, value in source.eval().state_dict().items() if name.endswith(last))
    model = timm.create_model(
        "vit_giant_patch14_dinov2",
        img_size=56,
        embed_dim=48,
        depth=1,
        num_heads=4,
        mlp_ratio=2 * hidden / 48,
        num_classes=0,
    ).eval()
    images = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        expected = source(images).last_hidden_state
        load_weights(model, stretched_as_published(source.state_dict(), model, MIDNIGHT), "test")
        assert torch.allclose(model.forward_features(images), expected, atol=1e-5)
        load_weights(model, source.state_dict(), "test")  # timm's filter, with antialiasing
        assert not torch.allclose(model.forward_features(images), expected, atol=1e-3)


def positions(side: int) -> Tensor:
    return torch.randn(1, 1 + side * side, 48, generator=torch.Generator().manual_seed(2))


def test_the_class_token_s_position_stays_and_a_plane_stays_a_plane() -> None:
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij")
    plane = (rows + 2 * columns).flatten()[None, :, None].expand(1, 36, 48)
    weights = {f"model.{POSITIONS}": torch.cat([positions(0), plane], dim=1)}
    stretched = stretched_as_published(weights, tiny(), MIDNIGHT)[f"model.{POSITIONS}"]
    assert stretched.shape == (1, 17, 48)
    assert torch.equal(stretched[:, :1], positions(0))
    inner = stretched[0, 1:, 0].reshape(4, 4)[1:3, 1:3]
    assert torch.allclose(inner.diff(dim=0), torch.full((1, 2), 1.5), atol=0.1)
    assert torch.allclose(inner.diff(dim=1), torch.full((2, 1), 3.0), atol=0.2)


@pytest.mark.parametrize(
    ("weights", "page"),
    [
        ({POSITIONS: positions(6)}, "owkin/phikon-v2"),
        ({POSITIONS: positions(6)}, ""),
        ({POSITIONS: positions(4)}, MIDNIGHT),
        ({POSITIONS: positions(6)[:, 1:]}, MIDNIGHT),
        ({POSITIONS: positions(6)[0]}, MIDNIGHT),
        ({"pos_embed": positions(6)}, MIDNIGHT),
        ({}, MIDNIGHT),
    ],
    ids=["another page", "no page", "the same size", "no square", "no batch", "timm's names", "none"],
)
def test_all_else_is_left_as_it_is(weights: dict[str, Tensor], page: str) -> None:
    assert stretched_as_published(weights, tiny(), page) is weights


SAID = "; position embeddings of 10 x 10 patches are resampled to 4 x 4"


@pytest.mark.parametrize(("px", "said"), [(64, ""), (160, SAID)])
def test_positions_of_another_size_are_said(tmp_path: Path, px: int, said: str) -> None:
    file = write_teacher(tmp_path / "w.safetensors", "test_vit", img_size=px)
    assert build_encoder("test_vit", file, 64).note == f"note: {file}: left out are head (2 tensors){said}"


@pytest.mark.parametrize("places", [256, 257, 261])
def test_places_of_other_tokens_are_no_other_size(places: int) -> None:
    model = torch.nn.Module()
    model.pos_embed = torch.nn.Parameter(torch.zeros(1, 256, 8))
    assert resampled_positions({"model.pos_embed": torch.zeros(1, places, 8)}, model) == ""
    assert "14 x 14" in resampled_positions({"pos_embed": torch.zeros(1, 197, 8)}, model)
