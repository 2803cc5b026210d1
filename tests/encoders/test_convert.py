"""Converted weights give the outputs of the models that they come from."""

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from pipeline.base.errors import EncoderError
from pipeline.encoders.build import build_encoder
from pipeline.encoders.convert import to_timm_names
from pipeline.encoders.load import load_weights
from pipeline.encoders.table import ENCODERS
from pipeline.encoders.weight_files import read_weight_file
from pipeline.encoders.weight_sets import choose_set

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
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        use_swiglu_ffn=True,
        mlp_ratio=4,
        num_register_tokens=4,
        image_size=56,
        patch_size=14,
    )
    return randomise(transformers.Dinov2WithRegistersModel(config))


def timm_hibou(mlp_ratio: float) -> torch.nn.Module:
    """The same architecture in timm."""
    return timm.create_model(
        "vit_giant_patch14_reg4_dinov2",
        img_size=56,
        embed_dim=64,
        depth=2,
        num_heads=4,
        mlp_ratio=mlp_ratio,
        num_classes=0,
    ).eval()


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_version_that_transformers_itself_writes(tmp_path: object) -> None:
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


VIT_OF_VERSION_4 = (
    ("layers.", "encoder.layer."),
    (".attention.q_proj.", ".attention.attention.query."),
    (".attention.k_proj.", ".attention.attention.key."),
    (".attention.v_proj.", ".attention.attention.value."),
    (".attention.o_proj.", ".attention.output.dense."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
)
"""Names of transformers' ViT in version 5, and in files of version 4 such as Phikon's."""


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("prefix", ["", "vit."])
def test_the_vit_of_transformers_equals_timm(version: int, prefix: str) -> None:
    config = transformers.ViTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=192, image_size=32, patch_size=16
    )
    config.layer_norm_eps = 1e-6
    source = randomise(transformers.ViTModel(config, add_pooling_layer=version == 4))
    weights = {}
    for name, value in source.state_dict().items():
        for new, old in VIT_OF_VERSION_4 if version == 4 else ():
            if not (new == "layers." and name.startswith("encoder.")):
                name = name.replace(new, old)
        weights[prefix + name] = value
    assert version == 5 or f"{prefix}encoder.layer.1.intermediate.dense.bias" in weights
    model = timm.create_model(
        "vit_base_patch16_224", img_size=32, embed_dim=48, depth=2, num_heads=4, num_classes=0
    ).eval()
    load_weights(model, to_timm_names(weights), "test")
    images = IMAGES[..., :32, :32]
    with torch.no_grad():
        expected = source(images).last_hidden_state
        assert torch.allclose(model.forward_features(images), expected, atol=1e-5)


# --- a checkpoint of DINOv2's training, as GPFM's authors publish it ------------------------------------------------


class Chunk(torch.nn.ModuleList):
    """A part of the blocks, with a place kept for those of earlier chunks, so that numbers count through."""

    def forward(self, x: Tensor) -> Tensor:
        for block in self:
            x = block(x)
        return x


class Training(torch.nn.Module):
    """A ViT as DINOv2's training wraps it: blocks in chunks, heads of the losses, a token for masked patches."""

    def __init__(self, vit: torch.nn.Module, chunks: int) -> None:
        super().__init__()
        blocks = list(vit.blocks)
        size = len(blocks) // chunks
        vit.blocks = torch.nn.Sequential(
            *(Chunk([torch.nn.Identity()] * i + blocks[i : i + size]) for i in range(0, len(blocks), size))
        )
        vit.mask_token = torch.nn.Parameter(torch.ones(1, 64))
        self.backbone = vit
        self.dino_head, self.ibot_head = torch.nn.Linear(64, 8), torch.nn.Linear(64, 8)


def timm_gpfm(depth: int = 12) -> torch.nn.Module:
    """GPFM's architecture, small; more than ten blocks, so that chunks have numbers of two digits."""
    return timm.create_model(
        ENCODERS["gpfm"].architecture,
        **ENCODERS["gpfm"].arguments | {"img_size": 56},
        embed_dim=64,
        depth=depth,
        num_heads=4,
        num_classes=0,
    ).eval()


@pytest.mark.parametrize("chunks", [1, 4])
def test_a_checkpoint_of_dinov2s_training_equals_timm(tmp_path: Path, chunks: int) -> None:
    training = Training(randomise(timm_gpfm()), chunks)
    names = training.state_dict().keys()
    assert {"backbone.blocks.0.0.ls1.gamma", "dino_head.weight", "backbone.mask_token"} < names
    assert ("backbone.blocks.3.11.mlp.fc2.weight" in names) == (chunks == 4)
    torch.save({"teacher": training.state_dict(), "iteration": 7}, tmp_path / "GPFM.pth")
    model = timm_gpfm()
    chosen, _ = choose_set(read_weight_file(tmp_path / "GPFM.pth"), model, "test")
    load_weights(model, chosen.weights, "test")
    with torch.no_grad():
        assert torch.equal(model(IMAGES), training.backbone(IMAGES))


def test_gpfm_loads_from_a_folder_with_its_page_s_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = replace(ENCODERS["gpfm"], architecture="test_vit", arguments={"img_size": 64}, width=64, patch_px=64)
    monkeypatch.setattr("pipeline.encoders.table.ENCODERS", {"gpfm": spec})
    with pytest.raises(EncoderError, match=r"no GPFM\.pth is in this folder"):
        build_encoder("gpfm", tmp_path, 64)
    state = timm.create_model("test_vit", img_size=64, num_classes=0).state_dict()
    torch.save(state, tmp_path / "GPFM.pth")
    built = build_encoder("gpfm", tmp_path, 64)
    assert all(torch.equal(value, state[name]) for name, value in built.module.model.state_dict().items())


def test_a_block_that_is_missing_from_its_chunk_fails_by_name() -> None:
    weights = {k.removeprefix("backbone."): v for k, v in Training(timm_gpfm(4), 2).state_dict().items()}
    del weights["blocks.1.3.norm1.weight"]
    with pytest.raises(EncoderError, match=r"1 missing \(blocks.3.norm1.weight"):
        load_weights(timm_gpfm(4), weights, "test")


def test_blocks_that_are_counted_in_each_chunk_are_not_mixed_up() -> None:
    """Two chunks that both count from 0 are not DINOv2's: nothing is overwritten, and it fails by name."""
    weights = {k.removeprefix("backbone."): v for k, v in Training(timm_gpfm(4), 2).state_dict().items()}
    own = {k.replace("blocks.1.2.", "blocks.1.0.").replace("blocks.1.3.", "blocks.1.1."): v for k, v in weights.items()}
    with pytest.raises(EncoderError, match=r"unknown \(blocks.0.0."):
        load_weights(timm_gpfm(4), own, "test")


@pytest.mark.parametrize("name", ["test_efficientnet", "twins_pcpvt_small", "test_vit"])
def test_models_whose_blocks_have_two_numbers_are_left_alone(name: str) -> None:
    with torch.device("meta"):
        weights = timm.create_model(name).state_dict()
    assert to_timm_names(weights) is weights


def test_a_key_left_over_fails_by_name() -> None:
    converted = to_timm_names(with_registers().state_dict() | {"encoder.layer.0.surprise.weight": torch.zeros(1)})
    with pytest.raises(EncoderError, match=r"1 unknown \(blocks.0.surprise.weight"):
        load_weights(timm_hibou(converted["blocks.0.mlp.fc1.weight"].shape[0] / 64), converted, "test")


def test_weights_in_timms_layout_are_left_alone() -> None:
    weights = timm_hibou(4).state_dict()
    assert to_timm_names(weights) is weights
