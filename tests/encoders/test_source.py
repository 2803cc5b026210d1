"""What is said of a user's file of weights: which set is taken, and what of it is left out."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.extraction import tiny_model

from pipeline.base.errors import EncoderError
from pipeline.encoders.source import ReadWeights, find_weights, parts_left_out, read_source
from pipeline.encoders.table import named_spec
from pipeline.encoders.weight_sets import choose_set

NAME = "test_vit"


def state(seed: int = 1, prefix: str = "", **options: Any) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in tiny_model(NAME, seed=seed, **options).state_dict().items()}


def note(content: dict[str, Any], chosen_set: str = "", published_as: str = "") -> str:
    return ReadWeights(Path("w.pth"), content, chosen_set, published_as).load_into(tiny_model(NAME, num_classes=0))


BARE = state(num_classes=0)
TEACHER, STUDENT = state(1, "backbone.", num_classes=0), state(2, "backbone.", num_classes=0)
HEADS = {"dino_head.mlp.0.weight": torch.zeros(2), "dino_head.mlp.0.bias": torch.zeros(2)}
BOTH = {"teacher": TEACHER | HEADS, "student": STUDENT | HEADS, "optimizer": {"state": {0: torch.zeros(3)}}}
CHOICE = (
    "note: w.pth holds several sets of weights: teacher.backbone is taken, not student.backbone. w.pth::NAME takes "
    "another"
)
UNDER = "note: w.pth: the encoder's weights are those under"
NOTES: dict[str, tuple[dict[str, Any], str, str]] = {
    "all there is": (BARE, "", ""),
    "a classifier": (state(), "", "note: w.pth: left out are head (2 tensors)"),
    "a key": ({"model": BARE, "epoch": 3}, "", "note: w.pth: the encoder's weights are those under model"),
    "a prefix and a head": (
        {"teacher": TEACHER | HEADS},
        "",
        f"{UNDER} teacher.backbone; left out are teacher.dino_head (2 tensors)",
    ),
    "several sets": ({"teacher": TEACHER, "student": STUDENT}, "", CHOICE),
    "several sets, and more": (
        BOTH,
        "",
        f"{CHOICE}. Left out besides: teacher.dino_head (2 tensors), student.dino_head (2 tensors), optimizer (1 "
        "tensor)",
    ),
    "a set that was named": (
        BOTH,
        "student",
        "note: w.pth::student: left out are teacher.dino_head (2 tensors), student.dino_head (2 tensors), optimizer (1 "
        "tensor)",
    ),
    "a set that was named, and nothing more": ({"teacher": TEACHER, "student": STUDENT}, "student", ""),
    "mask token": (BARE | {"mask_token": torch.zeros(1, 64)}, "", "note: w.pth: left out are mask_token (1 tensor)"),
    "a masked autoencoder": (
        {"model": BARE | {"mask_token": torch.zeros(1, 1, 8), "decoder_embed.weight": torch.zeros(8, 64)}},
        "",
        "note: w.pth: the encoder's weights are those under model; left out are model.mask_token (1 tensor), "
        "model.decoder_embed (1 tensor)",
    ),
    "LightlyTrain's embedding": (
        {f"model_wrapper._model.{name}": value for name, value in BARE.items()} | {"embed_head.weight": torch.zeros(2)},
        "",
        "note: w.pth: the encoder's weights are those under model_wrapper._model; left out are embed_head (1 tensor)",
    ),
}


@pytest.mark.parametrize("form", NOTES)
def test_what_is_taken_and_what_is_left_out_is_said(form: str) -> None:
    content, chosen_set, words = NOTES[form]
    assert note(content, chosen_set) == words


def test_of_a_published_file_only_a_choice_is_said() -> None:
    assert note({"teacher": TEACHER | HEADS}, published_as="hf-hub:owner/name") == ""
    assert note(BOTH, published_as="hf-hub:owner/name") == CHOICE


def test_many_parts_are_counted() -> None:
    content: dict[str, Any] = BARE | {"many": {f"{i}.w": torch.zeros(1) for i in range(8)}}
    content |= {f"p{i}": {"w": torch.zeros(1), "v": torch.zeros(1)} for i in range(7)}
    chosen, others = choose_set(content, tiny_model(NAME, num_classes=0), "w.pth")
    said = parts_left_out(content, chosen, others, [])
    assert said == "many (8 tensors), " + ", ".join(f"p{i} (2 tensors)" for i in range(5)) + " and 4 further tensors"


def test_weights_are_found_by_their_folder(tmp_path: Path) -> None:
    spec = named_spec(NAME)
    with pytest.raises(EncoderError, match=r"no model.safetensors or pytorch_model.bin is in this folder$"):
        find_weights(tmp_path, spec)
    torch.save(BARE, tmp_path / "pytorch_model.bin")
    assert find_weights(tmp_path, spec) == tmp_path / "pytorch_model.bin"
    read = read_source(spec, f"{tmp_path / 'pytorch_model.bin'}::teacher")
    assert (read.file, read.chosen_set, read.published_as) == (tmp_path / "pytorch_model.bin", "teacher", "")
    assert read_source(spec, tmp_path).content.keys() == BARE.keys()
