"""The description of a model in a folder, timm's `config.json`: one boundary, which checks all that this project takes
from it before timm sees it.

Missing keys take timm's defaults; those that are there must be of the right type.
"""

import json
import math
from pathlib import Path
from typing import Any, get_args

from pipeline.base.errors import EncoderError
from pipeline.base.outside import read_json, reading
from pipeline.encoders.table import EmbeddingRule

CONFIG_FILE = "config.json"
RULES = get_args(EmbeddingRule)
LARGEST_BYTES = 16 << 20
"""Our choice: timm's longest, with the names of 21,000 classes, have 1 MB."""
LARGEST_SIZE = 1 << 16
"""Largest whole number among a model's arguments: sides, widths, heads. Our choice: the widest encoder has 4,096."""
MOST_LAYERS = 1000
"""Our choice: the deepest encoder has 64 blocks; a model of a billion is built for years."""


def read_json_object(path: Path) -> dict[str, Any]:
    """An object of a small JSON file from outside.

    Raises:
        EncoderError: missing, no file, too large, or no JSON object.
    """
    if not path.exists():
        raise EncoderError(f"{path}: no such file")
    with reading(path, "damaged", EncoderError):
        return read_json(path, LARGEST_BYTES)


def read_model_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a model's folder, checked.

    Raises:
        EncoderError: missing or damaged, or a value is of the wrong kind; names it.
    """
    path = folder / CONFIG_FILE
    config = read_json_object(path)
    pretrained = config.get("pretrained_cfg", config)  # timm's older form has all in one
    checks = [
        ("architecture", isinstance(config.get("architecture"), str), "the name of an architecture"),
        ("pretrained_cfg", isinstance(pretrained, dict), "an object"),
        ("model_args", isinstance(config.get("model_args", {}), dict), "an object"),
        ("embedding", config.get("embedding", "pooled") in RULES, f"one of {', '.join(RULES)}"),
        ("mpp", _is_number(config.get("mpp", 0.5)) and config.get("mpp", 0.5) >= 0, "um a pixel"),
    ]
    if isinstance(pretrained, dict):
        inner = "pretrained_cfg." if "pretrained_cfg" in config else ""
        side = pretrained.get("input_size", [3, 1, 1])
        checks += [
            (
                f"{inner}{name}",
                are_statistics(pretrained.get(name, [1, 1, 1]), spread=name == "std"),
                "three numbers, of red, green and blue",
            )
            for name in ("mean", "std")
        ]
        checks.append((f"{inner}input_size", _is_image_size(side), "3 channels, height and width"))
    for name, right, what in checks:
        if not right:
            holder: Any = pretrained if "." in name else config
            key = name.rpartition(".")[2]
            value = _short(holder[key]) if key in holder else "missing"
            raise EncoderError(f"{path}: {name} is {value}, not {what}")
    _check_arguments(path, config.get("model_args", {}))
    return config


def stated_side(folder: Path) -> int | None:
    """Side of the input that the model in a folder states, pixels; `None` if it does not.

    Raises:
        EncoderError: its `config.json` is damaged.
    """
    config = read_model_config(folder)
    size = config.get("pretrained_cfg", config).get("input_size")
    return None if size is None else int(size[-1])


def input_side(folder: Path) -> int:
    """Side of the input of the model in a folder, pixels.

    Raises:
        EncoderError: its `config.json` is damaged, or does not say it.
    """
    side = stated_side(folder)
    if side is None:
        raise EncoderError(f"{folder / CONFIG_FILE}: pretrained_cfg.input_size is missing")
    return side


def are_statistics(value: Any, *, spread: bool = False) -> bool:
    """Whether a value is a mean (with `spread`: a standard deviation) of RGB in 0..1: three finite numbers."""
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(map(_is_number, value)):
        return False
    return not spread or all(number > 0 for number in value)


def _check_arguments(path: Path, arguments: dict[str, Any]) -> None:
    """Bounds of a model's arguments, and three channels."""
    for name, value in arguments.items():
        numbers = value if isinstance(value, list) else [value]
        whole = [number for number in numbers if isinstance(number, int) and not isinstance(number, bool)]
        most = MOST_LAYERS if name in ("depth", "depths", "layers") else LARGEST_SIZE
        if wrong := [number for number in whole if not 0 <= number <= most]:
            raise EncoderError(f"{path}: model_args.{name} is {_short(wrong[0])}; whole numbers are from 0 to {most:,}")
    if arguments.get("in_chans", 3) != 3:
        raise EncoderError(
            f"{path}: model_args.in_chans is {_short(arguments['in_chans'])}: only encoders of RGB, "
            "3 channels, are built"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_image_size(value: Any) -> bool:
    whole = isinstance(value, list | tuple) and all(type(number) is int for number in value)
    return whole and len(value) == 3 and value[0] == 3 and all(1 <= number <= LARGEST_SIZE for number in value[1:])


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:60]}..."
