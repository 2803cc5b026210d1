"""Weights under DINOv3's names give the embeddings of timm's model, or are refused where they cannot."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.training import same_state
from torch import Tensor, nn

from pipeline.base.errors import EncoderError
from pipeline.encoders.forms.dinov3 import PERIODS, fitted, from_dinov3_names, is_dinov3
from pipeline.encoders.load import load_weights
from pipeline.encoders.source import ReadWeights
from pipeline.encoders.weight_sets import choose_set

PLAIN, BIASED, GATED = "vit_small_patch16_dinov3", "vit_small_patch16_dinov3_qkvb", "vit_small_plus_patch16_dinov3"
NAMES = (PLAIN, BIASED, GATED)
State = dict[str, Tensor]


def tiny(name: str, seed: int = 0) -> nn.Module:
    """A DINOv3 architecture of timm's, small, with random weights and biases, in place of layer scales of 1e-5."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = timm.create_model(name, num_classes=0, depth=2, embed_dim=32, num_heads=2, img_size=32)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.2)
    return model.eval()


def own_names(model: nn.Module) -> State:
    """The weights as DINOv3's own code has them (facebookresearch/dinov3, dinov3/models/vision_transformer.py)."""
    names = {"reg_token": "storage_tokens", "gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma"}
    names |= {"mlp.fc1_g": "mlp.w1", "mlp.fc1_x": "mlp.w2"}
    state = dict(model.state_dict())
    if any("fc1_g" in name for name in state):
        names["mlp.fc2"] = "mlp.w3"
    width = state["cls_token"].shape[-1]
    own: State = {"mask_token": torch.ones(1, width), PERIODS: model.rope.periods.bfloat16()}  # type: ignore[union-attr, operator]
    for name, value in state.items():
        if name.endswith((".q_bias", ".v_bias")):
            continue
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        own[name] = value
    for block in range(2):
        stem = f"blocks.{block}.attn."
        zero = torch.zeros(width)
        of_keys = torch.full((width,), 3.0)  # training leaves what it masks
        parts = [state.get(f"{stem}q_bias", zero), of_keys, state.get(f"{stem}v_bias", zero)]
        own[f"{stem}qkv.bias"] = torch.cat(parts)
        own[f"{stem}qkv.bias_mask"] = torch.cat([torch.ones(width), zero, torch.ones(width)])
    return own


def prefixed(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


@functools.cache
def images() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(4))


FORMS: dict[str, tuple[Callable[[State, State], Any], str]] = {
    "LightlyTrain's export": (lambda a, b: a, ""),
    "teacher_checkpoint.pth": (
        lambda a, b: {"teacher": {**prefixed("backbone.", a), "dino_head.last_layer.weight": torch.zeros(3, 2)}},
        "teacher.backbone",
    ),
    "whole training": (
        lambda a, b: {
            "model": {
                **prefixed("student.backbone.", b),
                **prefixed("gram_teacher.backbone.", b),
                **prefixed("teacher.backbone.", a),
                **prefixed("model_ema.backbone.", a),
                "teacher.ibot_head.mlp.0.weight": torch.zeros(2),
            },
            "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}},
        },
        "model.teacher.backbone",
    ),
    "compiled": (lambda a, b: {"teacher": prefixed("backbone._orig_mod.", a)}, "teacher.backbone"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_the_outputs_are_those_of_the_model_that_was_saved(name: str, form: str) -> None:
    saved, other, model = tiny(name, 1), tiny(name, 2), tiny(name, 3)
    make, words = FORMS[form]
    chosen, _ = choose_set(make(own_names(saved), own_names(other)), model, "w.pth")
    assert chosen.name == words
    assert load_weights(model, chosen.weights, "w.pth") == ["mask_token"]
    assert same_state(model.state_dict(), saved.state_dict())
    with torch.inference_mode():
        assert torch.equal(model(images()), saved(images()))


@pytest.mark.parametrize("name", NAMES)
def test_timms_filter_gives_the_same(name: str) -> None:
    saved, model = tiny(name, 1), tiny(name, 2)
    own = own_names(saved)
    model.load_state_dict(timm.models.eva.checkpoint_filter_fn(dict(own), model))
    assert same_state(model.state_dict(), saved.state_dict())
    assert is_dinov3(own)
    assert "local_cls_norm.weight" not in from_dinov3_names(own | {"local_cls_norm.weight": torch.zeros(1)})


def test_biases_that_the_architecture_lacks_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """timm drops them: another model, without a word."""
    biased, plain = tiny(BIASED, 1), tiny(PLAIN, 2)
    with pytest.raises(EncoderError, match=rf"w.pth: blocks.0.attn.qkv.bias is not zero, .*that has it {BIASED}"):
        load_weights(plain, own_names(biased), "w.pth")
    assert capsys.readouterr().out == ""  # timm's filter prints


def break_keys(own: State) -> str:
    del own["blocks.1.attn.qkv.bias_mask"]
    return r"blocks.1.attn.qkv.bias is not zero for the keys"


def break_mask(own: State) -> str:
    own["blocks.0.attn.qkv.bias_mask"] = torch.full((96,), float("nan"))
    return r"blocks.0.attn.qkv.bias, or its mask, holds NaN"


def break_shape(own: State) -> str:
    own["blocks.0.attn.qkv.bias"] = torch.zeros(95)
    return r"blocks.0.attn.qkv.bias is no bias of query, key and value"


def break_periods(own: State) -> str:
    own[PERIODS] = own[PERIODS] * 2
    return r"rope_embed.periods are not those of the architecture"


def break_number_of_periods(own: State) -> str:
    own[PERIODS] = own[PERIODS][1:]
    return r"rope_embed.periods are not those of the architecture"


def break_norm(own: State) -> str:
    own["cls_norm.weight"] = torch.zeros(32)
    return r"the weights do not fit the architecture: 1 unknown \(cls_norm.weight"


def break_registers(own: State) -> str:
    del own["storage_tokens"]
    return r"the weights do not fit the architecture: 1 missing \(reg_token"


BREAKS = (break_keys, break_mask, break_shape, break_periods, break_number_of_periods, break_norm, break_registers)


@pytest.mark.parametrize("damage", BREAKS)
def test_what_would_give_other_embeddings_is_refused(damage: Callable[[State], str]) -> None:
    own = own_names(tiny(BIASED, 1))
    words = damage(own)
    with pytest.raises(EncoderError, match=f"w.pth: {words}"):
        load_weights(tiny(BIASED, 2), own, "w.pth")


def test_another_architecture_is_refused() -> None:
    model = timm.create_model("test_vit", num_classes=0)
    with pytest.raises(EncoderError, match=r"w.pth: the weights are of a DINOv3 model"):
        load_weights(model, own_names(tiny(PLAIN)), "w.pth")
    named = from_dinov3_names(own_names(tiny(PLAIN)))
    assert PERIODS not in fitted(named, tiny(PLAIN), "w.pth")


def test_the_note_names_the_prefix_and_what_is_left_out() -> None:
    content = FORMS["teacher_checkpoint.pth"][0](own_names(tiny(PLAIN, 1)), {})
    assert ReadWeights(Path("w.pth"), content, "", "").load_into(tiny(PLAIN)) == (
        "note: w.pth: the encoder's weights are those under teacher.backbone; left out are teacher.dino_head "
        "(1 tensor), teacher.backbone.mask_token (1 tensor)"
    )
