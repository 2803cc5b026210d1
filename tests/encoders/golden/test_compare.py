"""Differences of the arithmetic pass, others do not, and each usual mistake is found by making it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline.encoders.build import Encoder
from pipeline.encoders.golden.compare import ALLOWED, STATISTICS, agreement, embed_patch, likely_cause
from pipeline.encoders.golden.drawn_patch import draw_test_patch
from pipeline.encoders.table import HALF, IMAGENET_MEAN, IMAGENET_STD, EmbeddingRule, EncoderSpec

CPU = torch.device("cpu")
PX = 112
PATCH = draw_test_patch(PX)


def tiny(embedding: EmbeddingRule = "cls", registers: int = 4) -> Encoder:
    """A small ViT with registers in which every part matters."""
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_giant_patch14_reg4_dinov2",
        img_size=PX,
        embed_dim=48,
        depth=3,
        num_heads=4,
        reg_tokens=registers,
        num_classes=0,
        init_values=0.5,
    )
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return Encoder(model, EncoderSpec("tiny", "timm:x", "x", embedding=embedding, patch_px=PX)).eval()


MODULE = tiny()
RIGHT = embed_patch(MODULE, PATCH, CPU, "float32")


def cause_of(expected: NDArray[np.float32], module: Encoder = MODULE, arithmetic: str = "float32") -> Any:
    return likely_cause(module, PATCH, CPU, "float32", expected, arithmetic)


def test_an_embedding_agrees_with_itself_and_with_other_orders_of_the_sums() -> None:
    same = agreement(RIGHT, RIGHT, "float32")
    assert (same.largest, same.is_equal) == (0.0, True)
    assert same.cosine == pytest.approx(1, abs=1e-12)
    double = MODULE.model.double()
    with torch.inference_mode():
        images = MODULE.normalise(torch.from_numpy(PATCH)[None]).double()
        exact = double.forward_features(images)[0, 0].float().numpy()  # type: ignore[operator]
    MODULE.model.float()
    assert 0 < agreement(exact, RIGHT, "float32").largest < ALLOWED["float32"].largest / 10
    assert agreement(exact, RIGHT, "float32").is_equal


def test_half_precision_is_allowed_what_it_makes_and_float32_is_not() -> None:
    half = embed_patch(MODULE, PATCH, CPU, "bfloat16")
    assert agreement(RIGHT, half, "float32", "bfloat16").is_equal
    assert agreement(RIGHT, half, "bfloat16", "float32").arithmetic == "bfloat16"
    assert not agreement(RIGHT, half, "float32").is_equal


def test_one_grey_level_in_a_hundredth_of_the_pixels_is_seen_in_float32() -> None:
    other = PATCH.copy()
    other[::10, ::10] += np.uint8(1)
    found = embed_patch(MODULE, other, CPU, "float32")
    assert not agreement(RIGHT, found, "float32").is_equal
    assert agreement(RIGHT, found, "bfloat16").is_equal


def test_the_largest_difference_is_named_with_its_place() -> None:
    other = RIGHT.copy()
    other[7] += 3
    found = agreement(RIGHT, other, "float32")
    assert (found.at, found.expected, found.found) == (7, RIGHT[7], other[7])
    assert found.largest == pytest.approx(3 / np.sqrt(np.mean(RIGHT.astype(float) ** 2)), rel=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_never_agrees(value: float) -> None:
    other = RIGHT.copy()
    other[3] = value
    found = agreement(RIGHT, other, "bfloat16")
    assert not found.is_equal
    assert found.at == 3


def statistics(name: str) -> Callable[[], NDArray[np.float32]]:
    mean, std = STATISTICS[name]
    return lambda: embed_patch(
        Encoder(MODULE.model, replace(MODULE.spec, mean=mean, std=std)).eval(), PATCH, CPU, "float32"
    )


def by_pillow(mode: Image.Resampling) -> Callable[[], NDArray[np.float32]]:
    """As torchvision's transform of a PIL image: enlarged, and its middle cropped."""

    def make() -> NDArray[np.float32]:
        large = Image.fromarray(PATCH).resize((128, 128), mode)
        return embed_patch(MODULE, np.asarray(large)[8 : 8 + PX, 8 : 8 + PX].copy(), CPU, "float32")

    return make


MISTAKES: dict[str, tuple[Callable[[], NDArray[np.float32]], bool]] = {
    **{
        f"with {name}": (statistics(name), True)
        for name, values in STATISTICS.items()
        if values != (IMAGENET_MEAN, IMAGENET_STD)
    },
    "by the class token with the mean of the patch tokens": (
        lambda: embed_patch(tiny("cls+mean"), PATCH, CPU, "float32"),
        True,
    ),
    "scaled to length 1": (lambda: RIGHT / np.linalg.norm(RIGHT), True),
    "with blue and red exchanged": (lambda: embed_patch(MODULE, PATCH[..., ::-1].copy(), CPU, "float32"), True),
    "turned by 90 degrees or with rows": (
        lambda: embed_patch(MODULE, PATCH.transpose(1, 0, 2).copy(), CPU, "float32"),
        True,
    ),
    "enlarged to 128 px (bicubic)": (by_pillow(Image.Resampling.BICUBIC), False),
    "enlarged to 128 px (bilinear)": (by_pillow(Image.Resampling.BILINEAR), False),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_found_by_its_name(words: str) -> None:
    make, is_exact = MISTAKES[words]
    expected = make()
    if len(expected) == len(RIGHT):
        assert not agreement(expected, RIGHT, "float32").is_equal
    cause = cause_of(expected)
    assert cause is not None
    assert words in cause.words
    assert cause.agreement.is_equal or not is_exact


def test_registers_that_were_taken_for_patches_are_found() -> None:
    module = tiny("cls+mean")
    with torch.inference_mode():
        tokens = module.model.forward_features(module.normalise(torch.from_numpy(PATCH)[None]))  # type: ignore[operator]
        wrong = torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1)[0].numpy()
    cause = cause_of(wrong, module)
    assert "registers included" in cause.words
    assert cause.agreement.is_equal


def test_other_weights_are_no_usual_mistake() -> None:
    other = tiny()
    torch.manual_seed(5)
    for parameter in other.model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    assert cause_of(embed_patch(other, PATCH, CPU, "float32")) is None
    assert cause_of(np.ones(5, np.float32)) is None  # a width that no rule gives


def test_a_model_without_tokens_is_looked_at_as_well() -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=0)
    spec = EncoderSpec("net", "timm:x", "x", embedding="pooled", patch_px=PX, mean=HALF, std=HALF)
    module = Encoder(model, spec).eval()
    other = Encoder(model, replace(spec, mean=IMAGENET_MEAN, std=IMAGENET_STD)).eval()
    cause = cause_of(embed_patch(other, PATCH, CPU, "float32"), module)
    assert cause.words == "with ImageNet's statistics"
    assert cause.agreement.is_equal
