"""Which set of weights in a file is taken: timm's own loader is the reference for each form that it knows."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.extraction import tiny_model
from support.training import same_state
from timm.models import load_state_dict

from pipeline.base.errors import EncoderError
from pipeline.config.model_names import SCRATCH, split_choice
from pipeline.encoders.build import build_encoder
from pipeline.encoders.weight_files import read_weight_file
from pipeline.encoders.weight_sets import choose_set, find_sets

NAMES = ("test_vit", "test_resnet")
State = dict[str, torch.Tensor]


@functools.cache
def state_of(name: str, seed: int) -> State:
    """Weights of a tiny model without its classifier."""
    return dict(tiny_model(name, seed=seed, num_classes=0).state_dict())


@functools.cache
def model_of(name: str) -> torch.nn.Module:
    """The tiny model itself; only its names and shapes are looked at."""
    return tiny_model(name, num_classes=0)


def prefixed(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def loaded(name: str, path: Path, suffix: str = "") -> State:
    return dict(build_encoder(name, Path(f"{path}{suffix}"), 160).module.model.state_dict())


A, B, C, D = range(4)
FORMS: dict[str, Callable[[list[State]], Any]] = {
    "bare": lambda s: s[A],
    "state_dict": lambda s: {"state_dict": s[A], "epoch": 1},
    "model": lambda s: {"model": s[A], "optimizer": {"state": {}}},
    "state_dict before model": lambda s: {"model": s[B], "state_dict": s[A]},
    "ema before state_dict": lambda s: {"state_dict": s[B], "state_dict_ema": s[A]},
    "model_ema before model": lambda s: {"model": s[B], "model_ema": s[A]},
    "state_dict_ema before all": lambda s: {
        "model": s[B],
        "model_ema": s[C],
        "state_dict": s[D],
        "state_dict_ema": s[A],
    },
    "model_ema before state_dict": lambda s: {"state_dict": s[B], "model_ema": s[A], "model": s[C]},
    "no ema": lambda s: {"state_dict_ema": None, "model_ema": None, "state_dict": s[A]},
    "model beside teacher": lambda s: {"teacher": s[B], "model": s[A], "student": s[C]},
    "module": lambda s: prefixed("module.", s[A]),
    "compiled": lambda s: {"state_dict": prefixed("_orig_mod.", s[A])},
    "compiled, then DDP": lambda s: {"model": prefixed("module._orig_mod.", s[A])},
    "DDP, then compiled": lambda s: {"state_dict_ema": prefixed("_orig_mod.module.", s[A]), "state_dict": s[B]},
    "ema of DDP": lambda s: {"state_dict": prefixed("module.", s[B]), "state_dict_ema": prefixed("module.", s[A])},
}
"""What timm's loader knows; the set that it takes is the first of four."""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_the_set_is_the_one_that_timm_takes(tmp_path: Path, name: str, form: str) -> None:
    states = [state_of(name, seed) for seed in range(4)]
    torch.save(FORMS[form](states), tmp_path / "w.pth")
    chosen, _ = choose_set(read_weight_file(tmp_path / "w.pth"), model_of(name), "w.pth")
    assert same_state(chosen.weights, load_state_dict(str(tmp_path / "w.pth")))
    assert same_state(chosen.weights, states[A])


BEYOND: dict[str, tuple[Callable[[list[State]], Any], str]] = {
    "DINOv2, whole training": (
        lambda s: {
            "model": {
                **prefixed("student.backbone.", s[B]),
                **prefixed("teacher.backbone.", s[A]),
                "student.dino_head.mlp.0.weight": torch.zeros(3),
            },
            "iteration": 9,
        },
        "model.teacher.backbone",
    ),
    "DINOv2, flat": (
        lambda s: {**prefixed("student.backbone.", s[B]), **prefixed("teacher.backbone.", s[A])},
        "teacher.backbone",
    ),
    "DINOv2, teacher_checkpoint.pth": (lambda s: {"teacher": prefixed("backbone.", s[A])}, "teacher.backbone"),
    "DINO": (
        lambda s: {
            "student": prefixed("module.backbone.", s[B]),
            "teacher": prefixed("backbone.", s[A]),
            "optimizer": {"state": {0: torch.zeros(2)}},
            "epoch": 100,
        },
        "teacher.backbone",
    ),
    "student alone": (lambda s: {"student": prefixed("module.", s[A])}, "student.module"),
    "Lightning": (
        lambda s: {"state_dict": {**prefixed("model.", s[A]), "criterion.w": torch.zeros(1)}},
        "state_dict.model",
    ),
    "Lightning, two networks": (
        lambda s: {"state_dict": {**prefixed("student_backbone.", s[B]), **prefixed("teacher_backbone.", s[A])}},
        "state_dict.teacher_backbone",
    ),
    "compiled inside": (lambda s: prefixed("model._orig_mod.", s[A]), "model"),
    "compiled blocks": (lambda s: {k.replace("blocks.0.", "blocks.0._orig_mod."): v for k, v in s[A].items()}, ""),
    "FSDP": (lambda s: prefixed("_fsdp_wrapped_module.encoder.", s[A]), "encoder"),
    "net": (lambda s: {"weights": prefixed("net.", s[A])}, "weights.net"),
    "image tower": (lambda s: {**prefixed("visual.trunk.", s[A]), "logit_scale": torch.zeros(())}, "visual.trunk"),
    "MoCo": (
        lambda s: {"state_dict": prefixed("module.momentum_encoder.", s[B]) | prefixed("module.base_encoder.", s[A])},
        "state_dict.module.base_encoder",
    ),
    "an average beside the encoder": (lambda s: {**s[B], **prefixed("ema_model.", s[A])}, "ema_model"),
    "an average beside the encoder, in a checkpoint": (
        lambda s: {"model": {**s[B], **prefixed("ema_model.", s[A])}},
        "model.ema_model",
    ),
    "a momentum encoder beside the encoder": (lambda s: {**s[A], **prefixed("momentum_encoder.", s[B])}, ""),
    "heads beside the encoder": (
        lambda s: {
            **s[A],
            "fc2.weight": torch.zeros(2, 64),
            "head2.weight": torch.zeros(2),
            "projector.0.w": s[B]["norm.bias"] if "norm.bias" in s[B] else torch.zeros(1),
        },
        "",
    ),
    "heads beside the encoder, wrapped": (
        lambda s: {
            **prefixed("encoder.", s[A]),
            "encoder.fc2.weight": torch.zeros(2, 64),
            "head2.weight": torch.zeros(2),
        },
        "encoder",
    ),
    "average in a checkpoint": (lambda s: {"weights": s[B], "ema": {"shadow": s[A]}}, "ema.shadow"),
}
"""What timm's loader does not know: content, and the name of the set that is taken, which is the first of four."""


@pytest.mark.parametrize("form", BEYOND)
@pytest.mark.parametrize("name", NAMES)
def test_the_encoder_is_found_by_its_names(tmp_path: Path, name: str, form: str) -> None:
    states = [state_of(name, seed) for seed in range(4)]
    make, words = BEYOND[form]
    content = make(states)
    torch.save(content, tmp_path / "w.pth")
    chosen, _ = choose_set(read_weight_file(tmp_path / "w.pth"), model_of(name), "w.pth")
    assert same_state(chosen.weights, states[A])
    assert chosen.name == words


@pytest.mark.slow
def test_of_several_sets_the_taken_one_is_told_and_another_can_be_named(tmp_path: Path) -> None:
    teacher, student = state_of("test_vit", 1), state_of("test_vit", 2)
    path = tmp_path / "dinov2.pth"
    torch.save({"model": prefixed("student.backbone.", student) | prefixed("teacher.backbone.", teacher)}, path)
    built = build_encoder("test_vit", path, 160)
    assert same_state(dict(built.module.model.state_dict()), teacher)
    assert built.note == (
        f"note: {path} holds several sets of weights: model.teacher.backbone is taken, not model.student.backbone. "
        f"{path}::NAME takes another"
    )
    for suffix in ("::student", "::model.student.backbone", "::student.backbone"):
        assert same_state(loaded("test_vit", path, suffix), student)
    for suffix, words in (
        ("::model", "several sets"),
        ("::backbone", "several sets"),
        ("::ema", "no such set"),
        ("::teach", "no such set"),
    ):
        with pytest.raises(EncoderError, match=f"{suffix}: {words}.*there are model.teacher.backbone, model.student"):
            loaded("test_vit", path, suffix)
    with pytest.raises(EncoderError, match=r"none.pth: no such weights"):
        loaded("test_vit", tmp_path / "none.pth", "::student")
    built = build_encoder("test_vit", Path(f"{path}::student"), 160)
    assert (built.weights, built.note) == ("dinov2.pth::student", "")


@pytest.mark.parametrize(
    "name", ["blocks.9.norm1.weight", "reg_token", "norm_pre.weight", "fc_norm.weight", "x.weight"]
)
def test_what_may_be_a_part_of_another_architecture_is_a_misfit(tmp_path: Path, name: str) -> None:
    torch.save({**state_of("test_vit", 1), name: torch.zeros(64)}, tmp_path / "w.pth")
    with pytest.raises(EncoderError, match=rf"do not fit the architecture: 1 unknown \({name}"):
        loaded("test_vit", tmp_path / "w.pth")


def test_where_nothing_tells_which_set_is_meant_the_user_is_asked(tmp_path: Path) -> None:
    one, other = state_of("test_vit", 1), state_of("test_vit", 2)
    path = tmp_path / "w.pth"
    torch.save({"first": prefixed("encoder.", one), "second": prefixed("encoder.", other)}, path)
    with pytest.raises(
        EncoderError, match=r"nothing tells which: first.encoder, second.encoder. Name one: .*w.pth::fir"
    ):
        loaded("test_vit", path)
    assert same_state(loaded("test_vit", path, "::second"), other)
    torch.save({"first": one, "second": one, "third": state_of("test_vit", 1)}, path)  # copies
    assert same_state(loaded("test_vit", path), one)
    torch.save({"first": one, "second": {name: value.half() for name, value in one.items()}}, path)
    with pytest.raises(EncoderError, match=r"nothing tells which: first, second"):
        loaded("test_vit", path)
    torch.save({"gram_teacher": one, "teacher": other, "student": one}, path)  # of DINOv3
    assert same_state(loaded("test_vit", path), other)


KEYS = ((), ("model",), ("state_dict",), ("teacher",), ("student",), ("model_ema",), ("checkpoint", "model"))
PREFIXES = ("", "module.", "backbone.", "encoder.", "_orig_mod.", "module._orig_mod.backbone.", "model.encoder.")


@pytest.mark.parametrize("keys", KEYS)
def test_keys_and_prefixes_go_together_in_any_way(keys: tuple[str, ...]) -> None:
    state = state_of("test_vit", 1)
    for prefix in PREFIXES:
        content: dict[str, Any] = {**prefixed(prefix, state), "head.weight": torch.zeros(2)}
        for key in reversed(keys):
            content = {key: content, "optimizer": {"state": {0: torch.zeros(2)}}, "epoch": 3}
        chosen, others = choose_set(content, model_of("test_vit"), "w.pth")
        assert same_state(chosen.weights, state)
        assert not others
        assert chosen.name == ".".join((*keys, prefix.replace("_orig_mod.", ""))).rstrip(".")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda s: prefixed("_orig_mod.", s), "note: PATH: _orig_mod is taken out of their names"),
        (
            lambda s: {"model": prefixed("module._orig_mod.", s)},
            "note: PATH: the encoder's weights are those under model.module; _orig_mod is taken out of their names",
        ),
        (
            lambda s: {
                f"_fsdp_wrapped_module.{k.replace('blocks.1.', 'blocks.1._checkpoint_wrapped_module.')}": v
                for k, v in s.items()
            },
            "note: PATH: _fsdp_wrapped_module and _checkpoint_wrapped_module are taken out of their names",
        ),
        (lambda s: s, ""),
    ],
)
def test_what_is_taken_out_of_names_is_told(make: Any, words: str, tmp_path: Path) -> None:
    path, state = tmp_path / "w.pth", state_of("test_vit", 1)
    torch.save(make(state), path)
    built = build_encoder("test_vit", path, 160)
    assert same_state(dict(built.module.model.state_dict()), state)
    assert built.note == words.replace("PATH", str(path))


def test_what_is_taken_out_is_told_of_the_taken_set_alone(tmp_path: Path) -> None:
    path, teacher, student = tmp_path / "w.pth", state_of("test_vit", 1), state_of("test_vit", 2)
    torch.save({"teacher": prefixed("_orig_mod.", teacher), "student": student}, path)
    assert build_encoder("test_vit", path, 160).note.endswith(
        f"{path}::NAME takes another. _orig_mod is taken out of their names"
    )
    named = build_encoder("test_vit", Path(f"{path}::teacher"), 160)
    assert named.note == f"note: {path}::teacher: _orig_mod is taken out of their names"
    assert not build_encoder("test_vit", Path(f"{path}::student"), 160).note


def test_an_average_beside_the_encoder_is_told(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({**state_of("test_vit", 1), **prefixed("ema_model.", state_of("test_vit", 2))}, path)
    built = build_encoder("test_vit", path, 160)
    assert same_state(dict(built.module.model.state_dict()), state_of("test_vit", 2))
    assert "ema_model is taken, not the file itself" in built.note
    assert same_state(loaded("test_vit", path, "::the file itself"), state_of("test_vit", 1))


def test_a_smaller_student_beside_its_teacher_is_found_by_its_shapes(tmp_path: Path) -> None:
    small = dict(timm.create_model("test_vit", num_classes=0, embed_dim=32).state_dict())
    whole = state_of("test_vit", 1)
    for content in (
        {"teacher": small, "student": whole},
        {"teacher": whole, "student": small},
        {"state_dict_ema": small, "state_dict": whole},
    ):
        torch.save(content, tmp_path / "w.pth")
        assert same_state(loaded("test_vit", tmp_path / "w.pth"), whole)


def test_a_damaged_set_is_not_passed_over_for_another(tmp_path: Path) -> None:
    teacher, student = dict(state_of("test_vit", 1)), state_of("test_vit", 2)
    del teacher["blocks.1.norm1.weight"]
    torch.save({"teacher": teacher, "student": student}, tmp_path / "w.pth")
    with pytest.raises(
        EncoderError, match=r"w.pth: teacher: the weights do not fit .*1 missing \(blocks.1.norm1.weight"
    ):
        loaded("test_vit", tmp_path / "w.pth")


@pytest.mark.parametrize(
    "content", [{"a": 1}, {"model": {"a": "text"}}, {"model": 3}, {"state_dict": [torch.zeros(1)]}]
)
def test_what_holds_no_weights_is_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(EncoderError, match=r"w.pth: not a state dict of tensors"):
        loaded("test_vit", tmp_path / "w.pth")


def test_weights_of_another_architecture_name_what_is_missing(tmp_path: Path) -> None:
    torch.save({"model": state_of("test_resnet", 0)}, tmp_path / "w.pth")
    with pytest.raises(EncoderError, match=r"w.pth.*the weights do not fit the architecture: .*missing"):
        loaded("test_vit", tmp_path / "w.pth")
    assert not find_sets({"model": state_of("test_resnet", 0)}, timm.create_model("test_vit", num_classes=0))


def test_a_masked_autoencoder_without_its_decoder(tmp_path: Path) -> None:
    state = state_of("test_vit", 1)
    decoder = {
        "mask_token": torch.zeros(1, 1, 8),
        "decoder_embed.weight": torch.zeros(8, 64),
        "decoder_blocks.0.norm1.weight": torch.zeros(8),
    }
    torch.save({"model": state | decoder}, tmp_path / "w.pth")
    assert same_state(loaded("test_vit", tmp_path / "w.pth"), state)


def test_a_file_whose_own_name_has_the_mark(tmp_path: Path) -> None:
    path = tmp_path / "a::b.pth"
    assert split_choice(path) == (tmp_path / "a", "b.pth")
    torch.save(state_of("test_vit", 1), path)
    assert split_choice(path) == (path, "")
    assert same_state(loaded("test_vit", path), state_of("test_vit", 1))


def test_a_mistyped_word_for_weights_is_told(tmp_path: Path) -> None:
    for typed, meant in (("scrach", SCRATCH), ("Scratch", SCRATCH), ("pretrain", "pretrained")):
        with pytest.raises(EncoderError, match=rf"{typed}: no such weights \(did you mean {meant}\?\)"):
            build_encoder("test_vit", typed, 160)
