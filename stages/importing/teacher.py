"""The teacher that made the features: the side of its input, and its record for the store."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.base.console import say
from pipeline.base.errors import BenchmarkError, ConfigError
from pipeline.config.model_names import FOLDER_PREFIX, PRETRAINED, SCRATCH
from pipeline.config.tools import ImportConfig
from pipeline.encoders.build import BuiltEncoder, build_encoder
from pipeline.encoders.hub import cached_weights
from pipeline.encoders.table import EncoderSpec, named_spec
from pipeline.features.read import read_facts

UNKNOWN_WEIGHTS = "unknown"
"""Stands for the teacher's weights where they were not there to prove anything."""


def teacher_patch_px(config: ImportConfig, files: Sequence[Path]) -> int:
    """Side of the teacher's input: its own, else the option, else that of the first file that says one.

    Raises:
        ConfigError: none of them says, or teacher and option contradict each other.
        BenchmarkError: none of the files can be read.
    """
    spec = named_spec(config.teacher)
    if spec.patch_px and config.patch_px not in (None, spec.patch_px):
        raise ConfigError(f"--patch-px {config.patch_px}: {config.teacher} takes patches of {spec.patch_px} px")
    if known := spec.patch_px or config.patch_px:
        return known
    errors: list[BenchmarkError] = []
    for path in files:
        try:
            written = read_facts(path, config.coords).patch_px
        except BenchmarkError as error:
            errors.append(error)  # it fails by name when it is looked at
            continue
        if written is not None and written == round(written):
            return round(written)
    if len(errors) == len(files):
        raise errors[0]
    others = ", nor does any other file" if len(files) > 1 else ""
    raise ConfigError(
        f"{config.teacher} takes patches of any size, and {files[0]} does not say which{others}: give --patch-px"
    )


def find_teacher(name: str, weights_file: Path | None, patch_px: int) -> tuple[BuiltEncoder | None, dict[str, Any]]:
    """The teacher, if its weights are on this machine, and its record for the store.

    Raises:
        EncoderError: it cannot be built, or is not known well enough to describe it.
    """
    spec = named_spec(name)
    weights = weights_file or (PRETRAINED if _has_weights(spec) else None)
    if weights is not None:
        built = build_encoder(name, weights, patch_px)
        if built.note:
            say(built.note)
        return built, built.record()
    if spec.patch_px == 0:  # its width and statistics are in its architecture
        described = build_encoder(name, SCRATCH, patch_px)
        spec, num_params = described.spec, described.num_params
    else:
        num_params = round(spec.params_m * 1e6)
    unknown = {"weights": UNKNOWN_WEIGHTS, "weights_sha256": "", "num_params": num_params}
    return None, spec.record() | unknown


def _has_weights(spec: EncoderSpec) -> bool:
    """Whether a teacher's weights are on this machine: its own folder, or the hub's cache."""
    return spec.source.startswith(FOLDER_PREFIX) or cached_weights(spec) is not None
