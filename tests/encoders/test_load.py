"""What is left out of weights when they are loaded is named; more tests of loading are in `test_build`."""

import pytest
import timm
import torch
from support.extraction import tiny_model
from support.training import same_state

from pipeline.base.errors import EncoderError
from pipeline.encoders.load import load_weights, require_numbers, timm_config


@pytest.mark.parametrize(
    ("further", "left"),
    [
        ({}, []),
        ({"head.weight": torch.zeros(3, 64), "head.bias": torch.zeros(3)}, ["head.weight", "head.bias"]),
        ({"mask_token": torch.zeros(1, 64)}, ["mask_token"]),  # timm's filter drops it
        ({"dino_head.w": torch.zeros(3), "mask_token": torch.zeros(1)}, ["dino_head.w", "mask_token"]),
        ({"pre_logits.fc.weight": torch.zeros(2)}, ["pre_logits.fc.weight"]),
    ],
)
def test_what_is_left_out_is_named(further: dict[str, torch.Tensor], left: list[str]) -> None:
    state = dict(tiny_model("test_vit", seed=1, num_classes=0).state_dict())
    model = timm.create_model("test_vit", num_classes=0)
    assert load_weights(model, state | further, "here") == left
    assert same_state(model.state_dict(), state)


def test_a_file_of_training_with_registers_and_heads() -> None:
    """DINOv2's names of a model with registers and a plain MLP: with its heads, timm's filter would not know it."""
    model = timm.create_model("vit_small_patch14_reg4_dinov2", num_classes=0, depth=1, embed_dim=32, num_heads=2)
    state = {name: torch.randn(value.shape) for name, value in model.state_dict().items()}
    own = {name: value for name, value in state.items() if name not in ("reg_token", "pos_embed", "cls_token")}
    position = torch.randn(1, 1, 32)
    own |= {"register_tokens": state["reg_token"], "cls_token": state["cls_token"] - position}
    own |= {"pos_embed": torch.cat([position, state["pos_embed"]], dim=1), "mask_token": torch.zeros(1, 32)}
    for heads in ({}, {"dino_head.mlp.0.weight": torch.zeros(2)}):
        assert load_weights(model, own | heads, "here") == ["mask_token", *heads]
        loaded = model.state_dict()
        assert torch.allclose(loaded.pop("cls_token"), state["cls_token"], atol=1e-6)
        assert same_state(loaded, {name: value for name, value in state.items() if name != "cls_token"})
    del own["pos_embed"]
    with pytest.raises(EncoderError, match=r"1 missing \(pos_embed"):
        load_weights(model, own | {"dino_head.mlp.0.weight": torch.zeros(2)}, "here")


def test_weights_in_parts_of_which_one_is_missing_are_a_misfit() -> None:
    """Query without key, in transformers' names."""
    names = ("embeddings.patch_embeddings.projection.weight", "a.attention.query.weight")
    state = {name: torch.zeros(1) for name in names}
    with pytest.raises(EncoderError, match=r"here: the weights do not fit the architecture \(KeyError"):
        load_weights(timm.create_model("test_vit", num_classes=0), state, "here")


def test_the_description_is_timms_and_numbers_are_finite() -> None:
    assert timm_config(timm.create_model("test_vit"))["classifier"] == "head"
    require_numbers({"a": torch.ones(2)}, "here")
    with pytest.raises(EncoderError, match="here: a holds NaN or infinity"):
        require_numbers({"a": torch.tensor([1.0, float("inf")])}, "here")
