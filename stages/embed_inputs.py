"""What `g2l embed` starts from: the slides, the model, and the grid that the model's patches are of."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.base.console import say
from pipeline.base.errors import ConfigError
from pipeline.base.images import require_lanczos
from pipeline.base.units import resolution_note
from pipeline.cohort.manifest import Manifest, ManifestRow, id_trouble, parse_manifest
from pipeline.cohort.sources import list_folder
from pipeline.config.groups import Grid
from pipeline.config.model_names import FOLDER_PREFIX
from pipeline.config.plan import PlanConfig
from pipeline.config.staging import StageFolder
from pipeline.config.tissue_rules import EARLIER_RULES, RULE_NAMES
from pipeline.config.tools import EmbedConfig
from pipeline.disk.objects.places import ObjectPath, say_where
from pipeline.encoders.model_config import read_model_config
from pipeline.encoders.table import named_spec
from pipeline.features.registry import find_writer
from pipeline.slides.geometry import PILLOW
from pipeline.slides.staging.objects import require_stage
from pipeline.student.exported import read_student
from pipeline.student.resolve import NamedModel, name_model

READING = {"resampling": PILLOW, "decode": "full"}
"""Options of how patches are read, and what versions did that have not the option."""


def read_slides(source: Path, slides_root: Path | None, stage: StageFolder | None = None) -> Manifest:
    """The slides to embed: those of a manifest or of a folder, or a single one. A missing slide fails by itself later.
    Those in a bucket need a folder to `stage` them in.

    Raises:
        ManifestError: the manifest or folder cannot be used.
        ConfigError: there is no such source, or `slides_root` goes with no manifest, or a slide is in a bucket, and
            there is no folder.
    """
    if source.suffix.lower() == ".csv" and not source.is_dir():
        manifest = parse_manifest(source, slides_root)
        paths = [manifest.slide_path(row) for row in manifest.rows]
        require_stage(paths, stage)
        if not any(isinstance(path, ObjectPath) or os.path.isfile(path) for path in paths):
            raise ConfigError(
                f"none of the {len(paths)} slides of {source} is there (the first: {paths[0]}): "
                f"{say_where(row.path for row in manifest.rows)}"
            )
        return manifest
    if slides_root is not None:
        raise ConfigError(f"--slides-root goes with a manifest (CSV); {source} is none")
    if source.is_dir():
        listed = list_folder(source)
        for note in listed.notes:
            say(f"note: {source}: {note}")
        return Manifest(listed.rows, source, source)
    if not source.is_file():
        raise ConfigError(f"{source}: no such manifest (CSV), folder of slides, or slide")
    if trouble := id_trouble(source.stem):
        raise ConfigError(f"{source}: the slide's name {trouble}; rename it, or give it an id in a manifest")
    return Manifest((ManifestRow(source.stem, source.name, source.stem),), source, source.parent)


def find_model(text: str, config: EmbedConfig) -> NamedModel:
    """The model that was asked for, at the patch size that was asked for.

    Raises:
        ConfigError: there is none, it takes patches of another size, or it has no projector for `--as-teacher`
            and `--teacher`.
        EncoderError: a student's folder is damaged.
    """
    if config.teacher is not None and not config.as_teacher:
        raise ConfigError(f"--teacher {config.teacher} goes with --as-teacher")
    named = name_model(text, config.patch_px, option="MODEL")
    if named.note:
        say(f"note: {named.note}")
    if config.patch_px not in (None, named.patch_px):
        raise ConfigError(f"{text} takes patches of {named.patch_px} px, not of --patch-px {config.patch_px}")
    if config.as_teacher and named.student is None:
        raise ConfigError(
            f"--as-teacher: {text} has no projector into a teacher's space; the student of a run has "
            "one, and its exported folder (projector/projector.safetensors)"
        )
    if config.as_teacher:
        check_wanted_teacher(text, list(named.teachers) if len(named.teachers) > 1 else [], config.teacher)
    return named


def check_wanted_teacher(text: str, known: Sequence[str], teacher: str | None) -> None:
    """See that `--teacher` says which, of a student of several teachers, and nothing of another.

    Args:
        text: how the student was named.
        known: its teachers; empty for a student of one.

    Raises:
        ConfigError: it does not.
    """
    if not known and teacher is not None:
        raise ConfigError(f"--teacher {teacher}: {text} learnt from one teacher only; leave out --teacher")
    if known and teacher is None:
        raise ConfigError(f"--as-teacher: {text} learnt from {', '.join(known)}: say with --teacher which")
    if known and teacher not in known:
        raise ConfigError(f"--teacher {teacher}: {text} learnt from {', '.join(known)}")


def trained_mpp(named: NamedModel) -> float | None:
    """um/px that a model was trained at, as its folder or the table of encoders says; `None` if neither does.

    Raises:
        EncoderError: the folder's description is damaged.
    """
    if named.encoder.startswith(FOLDER_PREFIX):
        value = read_model_config(Path(named.encoder.removeprefix(FOLDER_PREFIX))).get("mpp")
        return None if value is None else float(value)
    return named_spec(named.encoder).mpp or None


def plan_grid(named: NamedModel, config: EmbedConfig) -> Grid:
    """The grid: patch size and resolution of the model, or those of the options.

    Raises:
        ConfigError: nothing says at which resolution, or the model's size or resolution is out of bounds.
    """
    trained_at = trained_mpp(named)
    mpp = config.mpp or trained_at
    if mpp is None:
        raise ConfigError(
            f"nothing says at which resolution {named.label} was trained. Give it with --mpp (um a "
            "pixel; most pathology encoders: 0.5)"
        )
    if note := resolution_note(named.label, trained_at, mpp, "--mpp is"):
        say(note)
    options: dict[str, Any] = {
        "patch_px": named.patch_px,
        "mpp": mpp,
        "stride_px": config.stride_px,
        "min_tissue": config.min_tissue,
        "allow_upsampling": config.allow_upsampling,
    }
    of_rules = ("skip_rule", "use_rule", "max_artefact")
    options |= {name: value for name in of_rules if (value := getattr(config, name)) is not None}
    options |= trained_reading(named)
    options |= {name: value for name in READING if (value := getattr(config, name)) is not None}
    return PlanConfig.build(options).grid


def trained_reading(named: NamedModel) -> dict[str, str]:
    """How the patches were read that a student was trained on, as options of a plan; empty for other models.

    Raises:
        EncoderError: the folder's description is damaged.
    """
    if named.student is None:
        return {}
    described = read_student(named.student).described
    return READING if described is None else {name: getattr(described.encoder, name) for name in READING}


def continued_grid(grid: Grid, config: EmbedConfig, settings: Mapping[str, Any] | None) -> Grid:
    """The grid of a call that may continue a folder.

    Args:
        grid: as the call asks for it.
        config: its options.
        settings: those that the folder was made with; `None` for a new one. How patches are read, and by which rules
            tissue is found and patches are dropped, is as there unless the call says it; folders of earlier versions do
            not name what they did.

    Raises:
        ConfigError: torch is to reduce patches, and the one that is installed cannot; or rules of the folder are not
            known here.
    """
    kept: dict[str, Any] = {}
    if settings is not None and config.resampling is None:
        kept["resampling"] = settings.get("resampling", READING["resampling"])
    if settings is not None and config.decode is None:
        kept["decode"] = settings.get("decode", READING["decode"])
    if settings is not None and config.skip_rule is None and config.use_rule is None:
        kept["rules"] = tuple(settings.get("rules", EARLIER_RULES))
        if unknown := set(kept["rules"]) - set(RULE_NAMES):
            raise ConfigError(f"tissue was found by the rule {min(unknown)}, which is not known here. Update G2L")
    if settings is not None and config.max_artefact is None:
        kept["max_artefact"] = settings.get("max_artefact", 1.0)
    grid = replace(grid, **kept)
    if grid.resampling != PILLOW:
        require_lanczos("--resampling lanczos-torch")
    return grid


def choose_dtype(layout: str, dtype: str | None) -> str:
    """The type that embeddings are stored in: the one asked for, else the layout's first.

    Raises:
        ConfigError: the layout has none of that kind.
    """
    dtypes = find_writer(layout).dtypes
    if dtype is not None and dtype not in dtypes:
        raise ConfigError(f"--dtype {dtype}: features of --layout {layout} are {dtypes[0]}")
    return dtype or dtypes[0]
