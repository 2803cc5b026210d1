"""Encoders as modules: weights that fit or are refused by name, timm's own transform, and the embedding rules."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from support.extraction import embed_by_timm, reference_model, timm_transform, tiny_model, write_teacher
from support.pixels import noise
from support.training import same_state
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.base.errors import EncoderError
from pipeline.config.model_names import PRETRAINED, SCRATCH
from pipeline.encoders import build as models
from pipeline.encoders.build import (
    OF_A_FILE,
    Encoder,
    build_encoder,
    measure_width,
    normalise_in_cache,
    normalise_whole,
    require_known,
    weights_hash,
)
from pipeline.encoders.load import load_weights
from pipeline.encoders.table import EncoderSpec, named_spec
from pipeline.student.folder import same_embeddings

State = dict[str, torch.Tensor]


# --- loading weights ----------------------------------------------------------------------------------------

LOADED = ("test_vit", "test_vit2", "test_resnet", "test_convnext", "test_efficientnet")


@pytest.mark.parametrize("name", LOADED)
def test_only_the_classifier_is_dropped(name: str) -> None:
    state = dict(tiny_model(name, seed=1).state_dict())
    model = timm.create_model(name, num_classes=0)
    dropped = state.keys() - model.state_dict().keys()
    assert dropped
    load_weights(model, state, "here")
    assert same_state(model.state_dict(), {key: value for key, value in state.items() if key not in dropped})


def break_missing(state: State) -> str:
    del state["blocks.1.norm1.weight"]
    return r"1 missing \(blocks.1.norm1.weight"


def break_unknown(state: State) -> str:
    state["surprise.weight"] = torch.zeros(1)
    return r"1 unknown \(surprise.weight"


def break_shape(state: State) -> str:
    state["norm.bias"] = torch.zeros(65)
    return r"1 of another shape \(norm.bias is \(\d+,\), not \(\d+,\)\)$"


def break_all(state: State) -> str:
    break_missing(state), break_unknown(state), break_shape(state)
    return "1 missing .*1 unknown .*1 of another shape"


@pytest.mark.parametrize("damage", [break_missing, break_unknown, break_shape, break_all])
def test_weights_that_do_not_fit_are_refused_by_name(damage: Callable[[State], str]) -> None:
    state = dict(tiny_model("test_vit").state_dict())
    words = damage(state)
    model = timm.create_model("test_vit", num_classes=0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(EncoderError, match=f"here: the weights do not fit the architecture: {words}"):
        load_weights(model, state, "here")
    assert same_state(model.state_dict(), before)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_counters_of_batches_may_be_missing_as_timm_has_it(tmp_path: Path, name: str, ending: str) -> None:
    """Files of torch before 0.4.1, and of some converters, lack them."""
    file = tmp_path / f"old{ending}"
    whole = timm.create_model(name, num_classes=0).state_dict()
    state = {key: value for key, value in whole.items() if not key.endswith(".num_batches_tracked")}
    assert len(state) < len(whole)
    safetensors.torch.save_file(state, file) if ending == ".safetensors" else torch.save(state, file)
    loaded = timm.create_model(name, num_classes=0)
    timm.models.load_checkpoint(loaded, str(file), strict=True)
    assert build_encoder(name, file, 64).weights_sha256 == weights_hash(loaded)
    model = timm.create_model(name, num_classes=0)
    del state[next(key for key in state if key.endswith(".running_mean"))]
    with pytest.raises(EncoderError, match=r"do not fit the architecture: 1 missing \([\w.]+running_mean\)$"):
        load_weights(model, state, "here")


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2", "complex64"])
@pytest.mark.parametrize("name", ["norm.bias", "pos_embed"])
def test_weights_of_types_that_torch_does_not_check_are_refused(tmp_path: Path, kind: str, name: str) -> None:
    state = dict(tiny_model("test_vit").state_dict())
    state[name] = state[name].to(getattr(torch, kind))
    torch.save({"model": state}, tmp_path / "w.pth")
    with pytest.raises(EncoderError, match=rf"w\.pth: model: {name} is of type torch.{kind}; .*not loaded"):
        build_encoder("test_vit", tmp_path / "w.pth", 224)


def test_numbers_that_are_none_or_of_another_kind_are_refused() -> None:
    model = timm.create_model("test_vit", num_classes=0)
    for value, words in ((float("nan"), "holds NaN or infinity"), (float("-inf"), "holds NaN or infinity")):
        state = dict(tiny_model("test_vit").state_dict())
        state["norm.bias"] = torch.full((64,), value)
        with pytest.raises(EncoderError, match=f"here: norm.bias {words}"):
            load_weights(model, state, "here")
    state["norm.bias"] = torch.ones(64, dtype=torch.int8)
    with pytest.raises(EncoderError, match=r"here: norm.bias is of type torch.int8, not torch.float32: .* quantised"):
        load_weights(model, state, "here")
    state["norm.bias"] = torch.ones(64, dtype=torch.float16)  # fewer digits are no other kind
    load_weights(model, state, "here")


@pytest.mark.slow
def test_weights_of_another_architecture_are_refused() -> None:
    for name, other in (("test_vit", "test_resnet"), ("test_resnet", "test_vit"), ("test_convnext", "test_vit")):
        with pytest.raises(EncoderError, match="here: the weights do not fit the architecture"):
            load_weights(timm.create_model(name, num_classes=0), dict(tiny_model(other).state_dict()), "here")
    broken: Any = {"patch_embed.proj.weight": torch.zeros(3)}  # timm's own filter stumbles over it
    with pytest.raises(EncoderError, match="here: the weights do not fit"):
        load_weights(timm.create_model("test_vit", num_classes=0), broken, "here")


def test_position_embeddings_are_resampled_as_timm_does() -> None:
    state = dict(tiny_model("test_vit", img_size=160).state_dict())
    model = timm.create_model("test_vit", num_classes=0, img_size=64)
    load_weights(model, state, "here")
    resampled = timm.layers.resample_abs_pos_embed(state["pos_embed"], (4, 4), num_prefix_tokens=1)
    torch.testing.assert_close(model.pos_embed.detach(), resampled)


# --- the hash of weights ------------------------------------------------------------------------------------


def test_the_hash_is_of_the_weights_and_not_of_their_file(tmp_path: Path) -> None:
    state = tiny_model("test_efficientnet").state_dict()
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    torch.save({"state_dict": {f"module.{key}": state[key] for key in reversed(state)}}, tmp_path / "b.pth")
    built = [build_encoder("test_efficientnet", tmp_path / name, 64) for name in ("a.safetensors", "b.pth")]
    assert built[0].weights_sha256 == built[1].weights_sha256
    assert [b.weights for b in built] == ["a.safetensors", "b.pth"]


def test_the_hash_sees_every_value_name_shape_and_type() -> None:
    def hash_of(**tensors: torch.Tensor) -> str:
        module = torch.nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return weights_hash(module)

    base = torch.arange(6, dtype=torch.float32)
    flipped = base.clone()
    flipped[3] = 3.0000002
    variants = [
        hash_of(a=base),
        hash_of(b=base),
        hash_of(a=base.view(2, 3)),
        hash_of(a=base.double()),
        hash_of(a=base.to(torch.bfloat16)),
        hash_of(a=flipped),
        hash_of(a=base, n=torch.tensor(3)),
        hash_of(a=base, n=torch.tensor(4)),
    ]
    assert len(set(variants)) == len(variants)
    assert hash_of(a=base.view(2, 3).t().contiguous().t()) == hash_of(a=base.view(2, 3))  # not of the memory layout


# --- encoders -----------------------------------------------------------------------------------------------

PATCHES = noise(5, 64, 64, 3, seed=5)


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_vit3", *LOADED[2:]])
def test_an_open_encoder_is_timms_transform_and_model(tmp_path: Path, name: str) -> None:
    size = {"img_size": 64} if "vit" in name else {}
    weights = write_teacher(tmp_path / "w.safetensors", name, **size)
    built = build_encoder(name, weights, 64)
    reference = reference_model(name, weights, **size)
    transform = timm_transform(64, reference.pretrained_cfg["mean"], reference.pretrained_cfg["std"])
    expected = torch.from_numpy(embed_by_timm(reference, transform, PATCHES))
    with torch.inference_mode():
        found = built.module(torch.from_numpy(PATCHES))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert built.spec.width == expected.shape[1]
    assert built.spec.licence == OF_A_FILE  # timm's licence is of timm's weights
    assert built.spec.arguments == size
    assert not built.module.training
    assert built.num_params == sum(p.numel() for p in reference.parameters())
    json.dumps(built.record(), allow_nan=False)


class Operations(TorchDispatchMode):
    """Keeps the names of torch's operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_normalising_is_timms_transform_to_the_bit() -> None:
    mean, std = (0.7, 0.57, 0.72), (0.19, 0.23, 0.18)
    encoder = Encoder(torch.nn.Identity(), EncoderSpec("x", "", "", mean=mean, std=std))
    transform = timm_transform(64, mean, std)
    expected = torch.stack([transform(Image.fromarray(patch)) for patch in PATCHES])
    assert torch.equal(encoder.normalise(torch.from_numpy(PATCHES)), expected)


def test_normalising_elsewhere_has_the_same_digits_in_three_passes_and_one_buffer() -> None:
    """What a GPU does, seen on the CPU: every value of every channel, as the four operations have it."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.7, 0.57, 0.72), (0.19, 0.23, 0.18)))
    patches = torch.arange(256, dtype=torch.uint8).view(2, 16, 8, 1).repeat(1, 1, 1, 3)
    before = patches.clone()
    with Operations() as operations:
        found = normalise_whole(patches, mean, std)
    assert torch.equal(found, patches.permute(0, 3, 1, 2).float().div(255).sub(mean).div(std))
    assert torch.equal(found, normalise_in_cache(patches, mean.flatten(), std.flatten()))
    assert torch.equal(patches, before)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert operations.names == ["permute", "div", "sub_", "div_"]  # a permutation moves nothing


def tiny_table(embedding: Any, **arguments: Any) -> dict[str, EncoderSpec]:
    """A table with one ViT of four registers."""
    arguments = {"img_size": 64, "reg_tokens": 4, "no_embed_class": True} | arguments
    spec = EncoderSpec("tiny", "timm:test_vit", "test_vit", arguments, embedding, patch_px=64, mean=(0.7, 0.6, 0.7))
    return {"tiny": spec}


@pytest.mark.parametrize(("embedding", "width"), [("cls", 64), ("cls+mean", 128), ("pooled", 64)])
def test_registers_stay_out_of_every_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedding: str, width: int
) -> None:
    table = tiny_table(embedding)
    monkeypatch.setattr("pipeline.encoders.table.ENCODERS", table)
    weights = write_teacher(tmp_path / "w.safetensors", "test_vit", **table["tiny"].arguments)
    built = build_encoder("tiny", weights, 64)
    model = reference_model("test_vit", weights, **table["tiny"].arguments)
    with torch.inference_mode():
        tokens = model.forward_features(built.module.normalise(torch.from_numpy(PATCHES)))
        assert tokens.shape[1] == 1 + 4 + 16
        expected = {
            "cls": tokens[:, 0],
            "cls+mean": torch.cat([tokens[:, 0], tokens[:, 5:].mean(1)], 1),
            "pooled": model(built.module.normalise(torch.from_numpy(PATCHES))),
        }[embedding]
        torch.testing.assert_close(built.module(torch.from_numpy(PATCHES)), expected, rtol=1e-4, atol=1e-5)
    assert built.spec.width == width


def test_scratch_is_by_seed_and_leaves_the_random_state_alone() -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    built = [build_encoder("test_efficientnet", SCRATCH, 64, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    assert built[0].weights_sha256 == built[1].weights_sha256 != built[2].weights_sha256


def test_a_folder_that_timm_loads_is_an_encoder_with_its_own_arguments(tmp_path: Path) -> None:
    """Such as an exported student: sizes, statistics and weights come from the folder."""
    arguments = {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 2}
    model = timm.create_model("test_vit", num_classes=0, **arguments)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "model.safetensors")
    config = {
        "architecture": "test_vit",
        "num_classes": 0,
        "model_args": {"num_classes": 0, **arguments},
        "pretrained_cfg": {
            "input_size": [3, 64, 64],
            "fixed_input_size": True,
            "mean": [0.7, 0.6, 0.7],
            "std": [0.2, 0.2, 0.3],
            "num_classes": 0,
            "classifier": "head",
            "license": "cc-by-4.0",
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    built = build_encoder(f"local-dir:{tmp_path}", PRETRAINED, 64)
    assert built.spec.arguments == arguments
    assert built.spec.architecture == "test_vit"
    assert (built.spec.width, built.spec.mean, built.spec.std) == (32, (0.7, 0.6, 0.7), (0.2, 0.2, 0.3))
    assert built.weights_sha256 == weights_hash(model)
    assert built.spec.licence == "cc-by-4.0"  # of the folder's own weights; a user's file has none that is known
    assert build_encoder(f"local-dir:{tmp_path}", tmp_path / "model.safetensors", 64).spec.licence == OF_A_FILE
    again = timm.create_model(built.spec.architecture, num_classes=0, **built.spec.arguments)
    again.load_state_dict(built.module.model.state_dict())


def test_a_page_of_the_table_is_built_as_the_table_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, from a file: its configuration is not asked of the hub."""
    (spec,) = tiny_table("cls+mean").values()
    monkeypatch.setattr("pipeline.encoders.table.ENCODERS", {"tiny": replace(spec, source="hf-hub:Owner/Tiny")})
    weights = write_teacher(tmp_path / "w.safetensors", "test_vit", **spec.arguments)
    by_name, by_page = (build_encoder(name, weights, 64) for name in ("tiny", "hf-hub:owner/Tiny"))
    assert by_page.spec == replace(by_name.spec, name="hf-hub:owner/Tiny", source="hf-hub:owner/Tiny")
    assert by_page.weights_sha256 == by_name.weights_sha256
    with torch.inference_mode():
        expected = by_name.module(torch.from_numpy(PATCHES))
        assert torch.equal(by_page.module(torch.from_numpy(PATCHES)), expected)
    assert named_spec(by_page.spec.name) == replace(by_page.spec, width=0)  # the record names what builds it again


@pytest.mark.parametrize("weights", [PRETRAINED, SCRATCH, "a file"])
def test_another_page_offline_is_told_with_the_way_by_a_folder(tmp_path: Path, weights: str) -> None:
    given = write_teacher(tmp_path / "w.safetensors") if weights == "a file" else weights
    with pytest.raises(EncoderError) as caught:
        build_encoder("hf-hub:owner/name", given, 64)
    what = "weights" if weights == PRETRAINED else "configuration"
    first, page, *offline = str(caught.value).splitlines()
    assert first == f"cannot get the {what} of hf-hub:owner/name (HF_HUB_OFFLINE is set, and the local cache has none)."
    assert page == "Page: https://huggingface.co/owner/name (if it asks for access, set HF_TOKEN to an access token)."
    assert "download config.json and model.safetensors or pytorch_model.bin elsewhere into one folder" in offline[0]
    assert "local-dir:FOLDER in place of hf-hub:owner/name" in offline[1]


def test_wrong_names_sizes_and_sources_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases: list[tuple[str, str | Path, int, str]] = [
        ("no_such_model", SCRATCH, 64, "cannot get the encoder no_such_model .*`g2l models` lists"),
        (f"local-dir:{tmp_path}/none", PRETRAINED, 64, "(?s)cannot get the weights of local-dir:.*--weights"),
        ("uni", SCRATCH, 64, "uni takes patches of 224 px, these have 64. Plan with --patch-px 224"),
        (
            "hibou-l",
            PRETRAINED,
            224,
            "(?s)cannot get the weights of hibou-l from hf-hub:histai/hibou-L .*--weights FILE",
        ),
        ("test_vit", SCRATCH, 65, "test_vit"),
        ("test_resnet", tmp_path / "none.pth", 64, "none.pth: no such weights"),
    ]
    for name, weights, patch_px, words in cases:
        with pytest.raises(EncoderError, match=words):
            build_encoder(name, weights, patch_px)
    (tmp_path / "config.json").write_text('{"architecture": "test_vit", "num_classes": 0}')
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(EncoderError, match="cannot get the weights of local-dir"):
        build_encoder(f"local-dir:{tmp_path}", PRETRAINED, 64)
    safetensors.torch.save_file({"head.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(EncoderError, match=r"the weights in this folder do not fit its config.json \(.*[Mm]issing key"):
        build_encoder(f"local-dir:{tmp_path}", PRETRAINED, 64)
    for page in ("hf-hub:", "hf-hub:foo", "hf-hub:a/b/c", "hf-hub:a/"):
        with pytest.raises(EncoderError, match=r"is not the name of a page\. Write hf-hub:OWNER/NAME"):
            build_encoder(page, SCRATCH, 64)

    def offline(*_: Any, **__: Any) -> Any:
        raise OSError

    monkeypatch.setattr(models.timm, "create_model", offline)
    with pytest.raises(
        EncoderError, match=r"(?s)weights of test_vit from timm:test_vit \(HF_HUB_OFFLINE.*--weights FILE"
    ):
        build_encoder("test_vit", PRETRAINED, 64)


def test_the_width_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = EncoderSpec("x", "", "", embedding="pooled", width=5)

    class Fake(torch.nn.Module):
        num_features = 5
        shape: tuple[int, ...] = (6,)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(images), *self.shape)

    with pytest.raises(EncoderError, match="x gives 6 dimensions, the table says 5"):
        measure_width(Encoder(Fake(), spec), 8)
    monkeypatch.setattr(Fake, "shape", (5,))
    assert measure_width(Encoder(Fake(), spec), 8) == 5
    monkeypatch.setattr(Fake, "shape", (3, 2))
    with pytest.raises(EncoderError, match=r"gives \(2, 3, 2\) for 2 patches, not \(2, D\)"):
        measure_width(Encoder(Fake(), spec), 8)


def test_embeddings_that_are_nan_are_not_the_same() -> None:
    images = torch.ones(2, 3)
    assert same_embeddings(lambda x: x, lambda x: x + 0.5, images) == 0.5
    assert same_embeddings(lambda x: x, lambda x: x * torch.nan, images) == float("inf")


def test_a_folder_of_the_name_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it was named, and whichever weights are asked for; a name near one of the table's is no more likely."""
    monkeypatch.chdir(tmp_path)
    Path("uni2").mkdir()
    for weights in (PRETRAINED, SCRATCH):
        with pytest.raises(EncoderError, match=r"there is a folder of this name: local-dir:uni2\b"):
            build_encoder("uni2", weights, 32)
        with pytest.raises(EncoderError, match=r"a folder of this name: local-dir:\./uni2"):
            build_encoder("./uni2", weights, 32)
    with pytest.raises(EncoderError, match=r"there is a folder of this name"):
        require_known("uni2", 32)
    Path("uni2").rmdir()
    with pytest.raises(EncoderError, match=r"did you mean uni"):
        build_encoder("uni2", SCRATCH, 32)
