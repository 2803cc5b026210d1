"""Check that an encoder gives the embedding that it should: of a built-in test patch, against recorded values.

Wrong statistics, another pooling, a resized patch or other weights make embeddings that look like any others. Here they
are found in seconds, before a store of weeks is made with them.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline.base.console import say, table
from pipeline.base.devices import choose_device, choose_precision, describe_device
from pipeline.base.errors import EXIT_ERROR, EXIT_OK, ConfigError, EncoderError
from pipeline.base.versions import versions
from pipeline.config.model_names import FOLDER_PREFIX, PRETRAINED
from pipeline.config.tools import ModelsConfig
from pipeline.disk.files import require_new_file, write_bytes
from pipeline.encoders.build import BuiltEncoder, build_encoder
from pipeline.encoders.golden.compare import ALLOWED, Agreement, Cause, agreement, embed_patch, likely_cause
from pipeline.encoders.golden.drawn_patch import PATCH_NAME, draw_test_patch, sha256_of_pixels
from pipeline.encoders.golden.values import GoldenValues, read_golden, write_golden
from pipeline.encoders.model_config import input_side
from pipeline.encoders.table import named_spec

USUAL_PX = 224
"""Side of the test patch for an encoder that says none."""
NEW_NAME = "Give another name, or remove it"
NO_VALUES = (
    "--values: nothing to compare with. No values of the test patch are published for any encoder: record them where "
    "the encoder is known to be right (--record --values FILE), or embed the test patch (--patch-out FILE.png) with "
    "another tool and give its embedding (--values FILE.npy)"
)
DECIDING_FACTS = ("architecture", "arguments", "embedding", "mean", "std", "patch_px", "weights_sha256")
"""What recorded values and an encoder here may differ in, and the embedding with it."""


def write_test_patch(name: str, path: Path) -> str:
    """Write the test patch of an encoder's size as PNG; returns what was written, in words.

    Raises:
        G2LError: it is there already, or cannot be written.
    """
    if path.suffix.lower() != ".png":
        raise ConfigError(f"--patch-out {path}: the test patch is written as PNG. Give a name that ends in .png")
    require_new_file(path, NEW_NAME)
    px = _side(name)
    file = io.BytesIO()
    Image.fromarray(draw_test_patch(px)).save(file, "PNG")
    write_bytes(path, file.getvalue())
    return f"the test patch {PATCH_NAME}, {px} px, is in {path}"


def check_against_values(name: str, config: ModelsConfig, *, record: bool = False) -> tuple[str, int]:
    """Embed the test patch and compare with `config.values`, or `record` it there; returns what to say, and the exit
    code.

    Raises:
        ConfigError: there is nothing to compare with.
        EncoderError: the encoder cannot be built, the values cannot be read, or the embedding is not finite.
        G2LError: the values to record are there already.
    """
    if config.values is None:
        raise ConfigError(NO_VALUES)
    if record:
        require_new_file(config.values, NEW_NAME)
    expected = None if record else read_golden(config.values)
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    px = _side(name)
    patch = draw_test_patch(px)
    built = build_encoder(name, config.weights or PRETRAINED, px)
    if built.note:
        say(built.note)
    module = built.module.to(device).eval()
    found = embed_patch(module, patch, device, precision)
    if not np.isfinite(found).all() or not found.any():
        raise EncoderError(f"{name}: the embedding of the test patch is all zero, or holds NaN or infinity")
    rows: list[tuple[str, object]] = [
        ("encoder", f"{name}, {built.num_params / 1e6:,.1f} M parameters"),
        ("weights", f"{built.weights}, sha256 of the tensors {built.weights_sha256[:12]}"),
        ("test patch", f"{PATCH_NAME}, {px} px"),
        ("arithmetic", f"{precision} on {describe_device(device)}"),
    ]
    if expected is None:
        about = _about(built, patch, device)
        write_golden(config.values, GoldenValues(found, precision, about))
        return table([*rows, ("recorded in", config.values)]), EXIT_OK
    return _compared(rows, built, patch, device, precision, config.values, expected, found)


def _compared(
    rows: list[tuple[str, object]],
    built: BuiltEncoder,
    patch: NDArray[np.uint8],
    device: torch.device,
    precision: str,
    path: Path,
    expected: GoldenValues,
    found: NDArray[np.float32],
) -> tuple[str, int]:
    """What the comparison says, and the exit code."""
    arithmetics = (precision, expected.precision)
    rows.append(("values", f"{path}, {expected.precision}, {len(expected.values)} dimensions"))
    same = agreement(expected.values, found, *arithmetics) if len(expected.values) == len(found) else None
    if same is not None:
        rows += _agreement_rows(same)
    if same is not None and same.is_equal:
        return f"{table(rows)}\n\nEQUAL: the encoder gives the expected embedding.", EXIT_OK
    cause = likely_cause(built.module, patch, device, precision, expected.values, *arithmetics)
    words = [] if same else [f"The embedding here has {len(found)} dimensions, the values have {len(expected.values)}."]
    words += [_cause_words(cause), *_recorded_differences(expected.about, built)]
    if same is not None and _is_coarse(same):
        words.append(
            "The difference is as small as half precision makes it: values of another tool may have been made so "
            "(compare with --precision float16 or bfloat16), or of a slightly other patch."
        )
    return f"{table(rows)}\n\nDIFFERENT.\n" + "\n".join(words), EXIT_ERROR


def _agreement_rows(same: Agreement) -> list[tuple[str, object]]:
    """Cosine and largest difference, with what is allowed."""
    allowed = ALLOWED[same.arithmetic]
    return [
        (
            "cosine",
            f"{same.cosine:.9f} (1 - cosine: {max(1 - same.cosine, 0.0):.1e}; allowed for {same.arithmetic}: "
            f"{allowed.turn:g})",
        ),
        (
            "largest difference",
            f"{same.largest:.2g} of the values' RMS (allowed: {allowed.largest:g}), in dimension {same.at}: "
            f"{same.expected:.6g} expected, {same.found:.6g} found",
        ),
    ]


def _cause_words(cause: Cause | None) -> str:
    """The cause in a sentence."""
    if cause is None:
        return (
            "None of the usual mistakes makes the expected values (other statistics, another rule for the embedding, a "
            "resized or turned patch, blue and red exchanged). Other weights, or another version of them, are likely."
        )
    verb = "are equal to" if cause.agreement.is_equal else "come closest to"
    return (
        f"The values {verb} an embedding {cause.words} (cosine {cause.agreement.cosine:.6f}, largest difference "
        f"{cause.agreement.largest:.2g})."
    )


def _recorded_differences(about: Mapping[str, Any], built: BuiltEncoder) -> list[str]:
    """What the values were recorded with and this encoder has otherwise, a sentence each."""
    recorded = about.get("encoder")
    if not isinstance(recorded, dict):
        return []
    here = built.record()
    unlike = [key for key in DECIDING_FACTS if key in recorded and recorded[key] != here[key]]
    if unlike:
        return [f"Recorded with {key} {recorded[key]}, here {here[key]}." for key in unlike]
    return [
        "Weights and settings are those that the values were recorded with: this machine computes otherwise "
        "(device, driver, versions of torch and timm)."
    ]


def _is_coarse(same: Agreement) -> bool:
    coarsest = ALLOWED["bfloat16"]
    return same.arithmetic == "float32" and same.largest <= coarsest.largest and 1 - same.cosine <= coarsest.turn


def _about(built: BuiltEncoder, patch: NDArray[np.uint8], device: torch.device) -> dict[str, Any]:
    """What a file of values says besides the values."""
    return {
        "encoder": built.record(),
        "patch": {"name": PATCH_NAME, "px": patch.shape[0], "sha256": sha256_of_pixels(patch)},
        "device": describe_device(device),
        "versions": versions(),
    }


def _side(name: str) -> int:
    """Side of an encoder's input, pixels."""
    spec = named_spec(name)
    if spec.patch_px:
        return spec.patch_px
    if spec.source.startswith(FOLDER_PREFIX):
        return input_side(Path(spec.source.removeprefix(FOLDER_PREFIX)))
    known = timm.get_pretrained_cfg(spec.architecture) if timm.is_model(spec.architecture) else None
    return int(known.input_size[-1]) if known else USUAL_PX
