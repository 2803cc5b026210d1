"""The description of a model in a folder: what is wrong in it is named, whatever it is."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.stores import PATCH_PX, plain_vit, student_folder

from pipeline.base.errors import EncoderError
from pipeline.config.model_names import PRETRAINED, SCRATCH
from pipeline.encoders.build import build_encoder
from pipeline.encoders.model_config import are_statistics, input_side, read_json_object, read_model_config
from pipeline.student.resolve import name_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, as timm loads it."""
    return Path(plain_vit(tmp_path / "model").removeprefix("local-dir:"))


def change(folder: Path, name: str, value: Any) -> None:
    """Set a value of the description by its dotted name; a key is taken away by "gone"."""
    path = folder / "config.json"
    config = part = json.loads(path.read_text())
    *outer, last = name.split(".")
    for key in outer:
        part = part.setdefault(key, {})
    if value == "gone":
        part.pop(last, None)
    else:
        part[last] = value
    path.write_text(json.dumps(config))


WRONG: list[tuple[str, Any]] = [
    ("architecture", "gone"),
    ("architecture", 5),
    ("pretrained_cfg", []),
    ("model_args", [1]),
    ("embedding", "cls "),
    ("embedding", [1]),
    ("mpp", "half"),
    ("mpp", -1),
    ("mpp", None),
    *(
        ("pretrained_cfg.mean", value)
        for value in (
            None,
            [0.5],
            0.5,
            [0.5] * 4,
            ["a", "b", "c"],
            "text",
            [None] * 3,
            [float("nan")] * 3,
            {"r": 1},
            [True] * 3,
        )
    ),
    *(("pretrained_cfg.std", value) for value in (None, [0.5], [0.2, 0.2, 0], [0.2, 0.2, -1])),
    *(("pretrained_cfg.input_size", value) for value in (None, 32, [1, 32, 32], [3, 32], [3, 0, 0], ["3", 32, 32])),
    ("model_args.in_chans", 1),
    ("model_args.img_size", -5),
    ("model_args.depth", 10**9),
    ("model_args.embed_dim", 10**12),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_is_named(folder: Path, name: str, value: Any) -> None:
    change(folder, name, value)
    with pytest.raises(EncoderError, match=rf"config\.json: {name.replace('.', '[.]')} is "):
        build_encoder(f"local-dir:{folder}", PRETRAINED, PATCH_PX)
    with pytest.raises(EncoderError, match=r"config\.json: "):
        name_model(str(folder), None)


@pytest.mark.parametrize("value", ["much", [0.1], {}])
def test_arguments_that_only_the_forward_pass_stumbles_over_are_told(tmp_path: Path, value: Any) -> None:
    source = student_folder(tmp_path / "cnn", "test_efficientnet", PATCH_PX)
    change(tmp_path / "cnn", "model_args.drop_rate", value)
    with pytest.raises(
        EncoderError, match=r"cnn: does not take patches of .*, as it is configured \('>' not supported"
    ):
        build_encoder(source, SCRATCH, PATCH_PX)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"a":' * 50_000, "\x00", '{"a": 1e999999}'])
def test_what_is_no_description_is_named(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(EncoderError, match=r"config\.json: "):
        build_encoder(f"local-dir:{folder}", PRETRAINED, PATCH_PX)


def test_odd_files_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "config.json"
    assert input_side(folder) == PATCH_PX
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.encoders.model_config.LARGEST_BYTES", 10)
        with pytest.raises(EncoderError, match="the limit is 10 bytes"):
            read_model_config(folder)
    path.write_bytes(b'{"architecture": "\xff"}')
    with pytest.raises(EncoderError, match=r"config\.json: damaged"):
        read_model_config(folder)
    path.unlink()
    with pytest.raises(EncoderError, match=r"config\.json: no such file"):
        read_model_config(folder)
    os.mkfifo(path)
    with pytest.raises(EncoderError, match=r"config\.json: damaged \(a pipe or device, not a file\)"):
        read_json_object(path)


def test_missing_keys_have_timms_defaults(folder: Path) -> None:
    for name in ("pretrained_cfg.mean", "pretrained_cfg.std", "embedding", "mpp"):
        change(folder, name, "gone")
    assert len(build_encoder(f"local-dir:{folder}", SCRATCH, PATCH_PX).spec.mean) == 3
    change(folder, "pretrained_cfg.input_size", "gone")
    with pytest.raises(EncoderError, match=r"pretrained_cfg\.input_size is missing"):
        input_side(folder)


def test_statistics() -> None:
    assert are_statistics((0.5, 0.5, 0.5))
    assert are_statistics([0, 0, 0])
    assert not are_statistics([0, 0, 0], spread=True)
    assert not are_statistics(None)
