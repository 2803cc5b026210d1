"""The table of encoders: every architecture as it is stated, built without memory."""

import json
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from timm.layers import SwiGLUPacked

from pipeline.encoders.build import Encoder
from pipeline.encoders.table import ENCODERS, SWIGLU_GIANT, EncoderSpec, named_spec

META = torch.device("meta")


made: dict[str, torch.nn.Module] = {}
"""Architectures without their memory, each built once."""


def on_meta(spec: EncoderSpec) -> torch.nn.Module:
    """The architecture without its memory, which passes an input of each shape through its blocks once; not to be
    changed.
    """
    key = f"{spec.architecture} {spec.arguments}"
    if key not in made:
        with META:
            model: Any = timm.create_model(spec.architecture, num_classes=0, **spec.arguments)
        through_the_blocks, seen = model.forward_features, {}

        def once(images: torch.Tensor, **options: object) -> torch.Tensor:
            how = images.shape, tuple(options.items())  # the shape is all that there is of a tensor without memory
            if how not in seen:
                seen[how] = through_the_blocks(images, **options)
            return seen[how]

        model.forward_features = once
        made[key] = model
    return made[key]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ENCODERS))
def test_every_encoder_has_the_stated_size_and_width(name: str) -> None:
    spec = ENCODERS[name]
    model = on_meta(spec)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert millions == pytest.approx(spec.params_m, rel=0.01)
    encoder = Encoder(model, spec).to(META)
    patches = torch.zeros((2, spec.patch_px, spec.patch_px, 3), dtype=torch.uint8, device=META)
    assert encoder(patches).shape == (2, spec.width)
    if name in STATED:
        published_m, tokens, width = STATED[name]
        assert millions == pytest.approx(published_m, rel=0.005)
        assert encoder.model.forward_features(encoder.normalise(patches)).shape == (2, tokens, width)


STATED = {  # millions of parameters as others state them; tokens of 224 px, class token and registers included; width
    "virchow": (631.2, 1 + 256, 1280),  # lazyslide-models 0.1.0; its page: 257 tokens
    "virchow2": (631.2, 5 + 256, 1280),  # likewise; 261 tokens
    "midnight-12k": (1140, 1 + 256, 1536),  # lazyslide-models: 1.14 B
    "midnight-12k-cls": (1140, 1 + 256, 1536),
    "openmidnight": (1135, 5 + 256, 1536),  # its page: 1.1 B; the architecture of H-optimus-0, 1.135 B
    "gigapath-flash": (21.7, 1 + 196, 384),  # lazyslide-models
    "hibou-b": (85.7, 5 + 256, 768),  # lazyslide-models
    "h0-mini": (85.7, 5 + 256, 768),  # lazyslide-models; slide2vec: 261 tokens
    "phikon": (85.8, 1 + 196, 768),  # lazyslide-models
    "kaiko-vitb8": (85.75, 1 + 784, 768),  # 343 MB of float32 on its page
    "kaiko-vitb16": (85.75, 1 + 196, 768),  # likewise
    "kaiko-vits8": (21.675, 1 + 784, 384),  # 86.7 MB of float32 on its page
    "kaiko-vits16": (21.675, 1 + 196, 384),  # likewise
    "lunit-vits8": (21.7, 1 + 784, 384),  # its page
    "lunit-vits16": (21.675, 1 + 196, 384),  # 86.7 MB of float32 on its page, which says 21.1 M
    "distillpath-ks16-virchow2": (21.7, 1 + 196, 384),  # pages of DistillPath
    "distillpath-ks16-uni2h": (21.7, 1 + 196, 384),
    "distillpath-ks16-hopt0": (21.7, 1 + 196, 384),
    "distillpath-is16-virchow2": (21.7, 1 + 196, 384),
    "distillpath-is16-uni2h": (21.7, 1 + 196, 384),
    "distillpath-is16-hopt0": (21.7, 1 + 196, 384),
}


FACTS = {  # name: hidden width of the gate, registers, layers, heads, patch size
    "h-optimus-0": (4096, 4, 40, 24, 14),
    "h-optimus-1": (4096, 4, 40, 24, 14),
    "hibou-l": (2736, 4, 24, 16, 14),
    "uni2-h": (4096, 8, 24, 24, 14),
    "virchow2": (3416, 4, 32, 16, 14),
    "gigapath": (4096, 0, 40, 24, 16),
    "h0-mini": (2048, 4, 12, 12, 14),
    "virchow": (3416, 0, 32, 16, 14),
    "midnight-12k": (4096, 0, 40, 24, 14),
    "openmidnight": (4096, 4, 40, 24, 14),
    "hibou-b": (2048, 4, 12, 12, 14),
    "gigapath-flash": (1024, 0, 12, 6, 16),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FACTS))
def test_swiglu_encoders_have_the_published_shape(name: str) -> None:
    model: Any = on_meta(ENCODERS[name])
    hidden, registers, depth, heads, patch = FACTS[name]
    assert model.blocks[0].mlp.fc1.out_features == 2 * hidden
    assert model.blocks[0].mlp.fc2.in_features == hidden
    assert model.num_reg_tokens == registers
    assert model.num_prefix_tokens == registers + 1
    assert len(model.blocks) == depth
    assert model.blocks[0].attn.num_heads == heads
    assert model.patch_embed.patch_size == (patch, patch)
    assert model.blocks[0].norm1.eps == 1e-6


SMALL: dict[str, Any] = {"img_size": 28, "depth": 2, "num_heads": 4}
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {  # as the pages of the models load them
    "uni2-h": ("vit_giant_patch14_224", {"mlp_ratio": 5.33334, "no_embed_class": True, "reg_tokens": 8}),
    "virchow2": ("vit_huge_patch14_224", {"mlp_ratio": 5.3375, "reg_tokens": 4, "global_pool": ""}),
    "hibou-l": ("vit_large_patch14_reg4_dinov2", {"mlp_ratio": 5.34375}),
    "h0-mini": ("vit_base_patch14_reg4_dinov2", {"mlp_ratio": 2.66667 * 2, "global_pool": ""}),
    "hibou-b": ("vit_base_patch14_reg4_dinov2", {"mlp_ratio": 2.66667 * 2}),
    "virchow": ("vit_huge_patch14_224", {"mlp_ratio": 5.3375, "global_pool": ""}),
    "gigapath-flash": ("vit_small_patch16_224", {"mlp_ratio": 2048 / 384, "global_pool": "token"}),
}


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_swiglu_by_sizes_equals_timm_with_the_layer_passed(name: str) -> None:
    """The same parameters under the same names, and the same output to the bit (docs/decisions/0004)."""
    architecture, arguments = PUBLISHED[name]
    small = SMALL | {"embed_dim": 64 if name == "hibou-l" else 32}  # the packed gate has an even width
    if name == "gigapath-flash":  # 28 px are no multiple of its 16
        small |= {"patch_size": 14, "embed_dim": 24}
    torch.manual_seed(0)
    published = timm.create_model(
        architecture,
        num_classes=0,
        init_values=1e-5,
        mlp_layer=SwiGLUPacked,
        act_layer=torch.nn.SiLU,
        **small,
        **arguments,
    ).eval()
    for parameter in published.parameters():
        torch.nn.init.normal_(parameter, 0, 0.2)
    assert ENCODERS[name].architecture == SWIGLU_GIANT
    ours = timm.create_model(SWIGLU_GIANT, num_classes=0, **{**ENCODERS[name].arguments, **small}).eval()
    ours.load_state_dict(published.state_dict(), strict=True)
    images = torch.randn(3, 3, 28, 28)
    with torch.inference_mode():
        expected = published.forward_features(images)
        torch.testing.assert_close(ours.forward_features(images), expected, rtol=0, atol=0)
        patches = torch.randint(0, 256, (3, 28, 28, 3), dtype=torch.uint8)
        encoder = Encoder(ours, replace(ENCODERS[name], patch_px=28))
        tokens = published.forward_features(encoder.normalise(patches))
        by_hand = tokens[:, 0]
        if name in ("virchow", "virchow2"):  # class token and mean of tokens 1 or 5 and on
            by_hand = torch.cat([by_hand, tokens[:, 5 if name == "virchow2" else 1 :].mean(1)], dim=1)
        torch.testing.assert_close(encoder(patches), by_hand, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.1


def test_specs_survive_json() -> None:
    for spec in (*ENCODERS.values(), named_spec("test_vit")):
        record = json.loads(json.dumps(spec.record(), allow_nan=False))
        assert EncoderSpec.from_record(record | {"weights_sha256": "not of the spec"}) == spec
        assert spec.record() == record


def test_names_are_of_the_table_or_open() -> None:
    assert named_spec("uni") is ENCODERS["uni"]
    assert all(name == spec.name for name, spec in ENCODERS.items())
    for name, source in (("resnet18", "timm:resnet18"), ("hf-hub:a/b", "hf-hub:a/b"), ("local-dir:x", "local-dir:x")):
        spec = named_spec(name)
        assert (spec.source, spec.architecture, spec.embedding, spec.width) == (source, name, "pooled", 0)


@pytest.mark.parametrize("name", list(ENCODERS))
def test_a_page_of_the_table_is_the_tables_encoder(name: str) -> None:
    spec = ENCODERS[name]
    first = {"h0-mini-mean": "h0-mini", "midnight-12k-cls": "midnight-12k"}  # two on one page
    of_page = ENCODERS[first.get(name, name)]
    for source in (spec.source, spec.source.replace("UNI", "uni"), f"{spec.source}@v1"):
        assert named_spec(source) == replace(of_page, name=source, source=source)
    assert named_spec(f"{spec.source}-other").patch_px == 0


def test_every_number_of_the_table_makes_sense() -> None:
    for spec in ENCODERS.values():
        assert all(0 < value < 1 for value in (*spec.mean, *spec.std))
        assert spec.source.startswith("hf-hub:")
        assert spec.licence


def test_what_an_embedding_depends_on_is_said_at_each_field() -> None:
    """Files of embeddings that exist are found by these names: another list computes them all again."""
    spec = ENCODERS["uni"]
    assert list(spec.deciding()) == ["architecture", "arguments", "embedding", "width", "mean", "std", "patch_px"]
    renamed = replace(spec, name="mine", source="local-dir:x", mpp=0.25, licence="none", gated=False, params_m=1.0)
    assert renamed.deciding() == spec.deciding() != replace(spec, embedding="cls+mean").deciding()
