"""The card says which files an export has and how each is used."""

from pipeline.encoders.table import EncoderSpec
from pipeline.student.card_files import HASHED, adapters_section, files_section, with_files, with_hash


def test_files_are_listed_with_their_use() -> None:
    spec = EncoderSpec("x", "timm:x", "x", width=7, patch_px=42)
    said = files_section(spec, {"model.onnx": 3e-7, "model.pt2": 0.0}, weights_beside=True)
    for words in (
        "| `model.onnx` | the student by itself; differs from torch by 3e-07",
        "model.onnx.data",
        "opset 18 and IR version 8",
        "(B, 42, 42, 3)",
        "(B, 7)",
        "torch.export.load",
    ):
        assert words in said
    alone = files_section(spec, {})
    assert "`projector/projector.safetensors`" in alone
    assert "| `student.json` | what programs read" in alone
    assert "model.onnx" not in alone
    assert "projectors.json" not in alone
    several = files_section(spec, {}, projectors={"a": "projector.safetensors", "b/c": "projector-b-c.safetensors"})
    for line in (
        "| `projector.safetensors` | its map into a's space |",
        "| `projectors.json` | the files",
        "| `projector-b-c.safetensors` | its map into b/c's space |",
    ):
        assert line in several


def test_sections_stand_before_what_it_was_made_from_or_at_the_end() -> None:
    assert with_files("a\n## Made from\nb\n", "one\n", "\ntwo") == "a\none\n\ntwo\n\n## Made from\nb\n"
    assert with_files("a\n", "one") == "a\n\none\n"


def test_a_hash_is_added_to_those_of_the_card() -> None:
    spec = EncoderSpec("x", "timm:x", "x", width=7, patch_px=42)
    card = files_section(spec, {"model.onnx": 0.0}, sha256={"a": "0" * 64, "b": "1" * 64})
    added = with_hash(card, "c d", "2" * 64)
    assert HASHED.findall(added) == [("0" * 64, "a"), ("1" * 64, "b"), ("2" * 64, "c d")]
    assert added.replace(f"\n    {'2' * 64}  c d", "") == card


def test_the_card_tells_the_resolution_of_trident() -> None:
    assert 'coords_dir="20x_224px_0px_overlap"' in adapters_section(224, 0.5)
    assert 'coords_dir="40x_224px_0px_overlap"' in adapters_section(224, 0.25)
    assert "patches of 224 px at 0.25 um/px" in adapters_section(224, 0.25)
    assert "at the card's um/px" in adapters_section(224, 0)
    for usual in (adapters_section(224, 0.5), adapters_section(448, 0.25), adapters_section(224, 0)):
        assert "another magnification" not in usual
        assert "whole magnifications" not in usual
    assert "224 px, 0.5 um/px. The student was trained at 0.25 um/px" in adapters_section(224, 0.25)
    odd = adapters_section(224, 0.571)
    assert "0.571 um/px is 17.5x: let `g2l embed --layout trident`" in odd
