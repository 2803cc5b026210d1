"""The commands as functions: the same work by the same functions, with results in place of reports and exit codes.

Options are keyword arguments with the names of the command's, with underscores, and are checked by the same
configurations. Each function loads what it needs when it is called, so that importing this module loads nothing heavy.
Left out: several processes on one output (`torchrun`), which are started as the command.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from g2l.guest import as_guest, given_path, tell
from g2l.options import (
    EmbedOptions,
    EvaluateOptions,
    ExportOptions,
    ExtractOptions,
    ImportOptions,
    MergeOptions,
    PlanOptions,
    TrainOptions,
    VerifyOptions,
)
from g2l.signatures import with_options_shown
from pipeline.base.errors import EXIT_ERROR, ConfigError, G2LError, StoreError, did_you_mean
from pipeline.base.processes import launched_processes
from pipeline.config.base import Config
from pipeline.config.model_names import absolute_model
from pipeline.config.plan import PlanConfig
from pipeline.config.stages import ExportConfig, ExtractConfig, MergeConfig, NoOptions, TrainConfig, VerifyConfig
from pipeline.config.tools import EmbedConfig, ImportConfig
from pipeline.evaluate.options.config import evaluate_config
from stages.options import Call

if TYPE_CHECKING:
    from pipeline.cohort.manifest.rows import Manifest
    from pipeline.cohort.plan import Plan
    from pipeline.report.content import Report
    from pipeline.store.parts.merge import Merged
    from pipeline.student.exported import ExportedStudent
    from stages.reports.embed import Tally
    from stages.reports.extract import Extracted
    from stages.reports.train import Trained

AnyPath = str | os.PathLike[str]


def make_manifest(source: AnyPath, out: AnyPath) -> "Manifest":
    """List the slides of a folder, or of a list of the GDC, in a manifest (CSV).

    Args:
        source: folder of slides, or a list of the GDC (TSV).
        out: manifest to write.

    Returns:
        The manifest as it was written. What is odd about the slides goes to the logger "g2l".

    Raises:
        G2LError: there are no slides, or `out` exists or cannot be written.
    """
    with as_guest():
        from pipeline.cohort.manifest.read import parse_manifest
        from pipeline.cohort.sources import make_manifest as write

        _, paths = _call("make-manifest", {}, None).resolve(NoOptions, source=given_path(source), out=given_path(out))
        for line in write(paths["source"], paths["out"]):
            tell(line)
        return parse_manifest(paths["out"], paths["source"] if paths["source"].is_dir() else paths["source"].parent)


@with_options_shown(PlanConfig)
def plan(
    manifest: AnyPath,
    out: AnyPath,
    *,
    config: AnyPath | None = None,
    progress: bool = False,
    **options: Unpack[PlanOptions],
) -> "Plan":
    """Audit slides, find tissue, sample patches: `g2l plan`. Uses no accelerator.

    Args:
        manifest: manifest of slides (CSV).
        out: plan to write (HDF5); its audit and options go beside it.
        config: TOML file with a table [plan]; keyword arguments win over it.
        progress: whether progress and notes go to standard error.
        options: as of `g2l plan`, with underscores; one that is `None` is not given.

    Returns:
        The plan; `plan.audit` has a row a slide, also of those that failed.

    Raises:
        G2LError: wrong options or input, no slide with a patch, or a file that would be overwritten.
    """
    call = _call("plan", options, config, PlanConfig)
    with as_guest(progress=progress):
        from stages.planning.write import write_new_plan

        resolved, paths = call.resolve(PlanConfig, manifest=given_path(manifest), out=given_path(out))
        return write_new_plan(paths["manifest"], resolved, paths["out"])


def read_plan(path: AnyPath) -> "Plan":
    """Read a plan and check it against its hash.

    Raises:
        PlanError: it is missing, not a plan, or damaged.
    """
    with as_guest():
        from pipeline.cohort.plan_hdf5 import read_plan as read

        return read(given_path(path))


@with_options_shown(ExtractConfig, PlanConfig)
def extract_teacher(
    plan: AnyPath,
    out: AnyPath,
    *,
    config: AnyPath | None = None,
    progress: bool = False,
    **options: Unpack[ExtractOptions],
) -> "Extracted":
    """Stage one, `g2l extract-teacher`: run the teacher once over the planned patches. Call it again to continue.

    Args:
        plan: a plan; or a manifest (CSV), which is planned first; or a store, which holds its plan.
        out: store to create or continue.
        config: TOML file with a table [extract-teacher]; keyword arguments win over it.
        progress: whether progress and notes go to standard error.
        options: as of `g2l extract-teacher`, with underscores; for a manifest those of `g2l plan` as well.

    Returns:
        The store with the teacher's embeddings, and counts of rows; `num_failed` of them have none.

    Raises:
        G2LError: wrong options or input, another plan or teacher than the store's, a full disk, ...; what was
            finished is safe.
    """
    call = _call("extract-teacher", options, config, ExtractConfig, PlanConfig)
    _require_one_process("extract-teacher")
    with as_guest(progress=progress, computes=True):
        from stages import extract_teacher as stage
        from stages.finished import finished_extract
        from stages.planning.to_extract import plan_to_extract

        only_plan = PlanConfig.model_fields.keys() - ExtractConfig.model_fields.keys()
        resolved, paths = call.resolve(ExtractConfig, plan=given_path(plan), out=given_path(out), others=only_plan)
        given = call.names() & only_plan
        source, store = paths["plan"], paths["out"]
        planned = plan_to_extract(source, store, resolved, given, lambda: call.resolve_another(PlanConfig, "plan"))
        for text in planned.reports:
            tell(text)
        done = finished_extract(planned.plan, planned.source, store, resolved)
        record = {"plan": str(planned.source.absolute()), "out": str(store.absolute())} | resolved.stored()
        return done or stage.extract_teacher(planned.plan, store, resolved, record=record)


@with_options_shown(MergeConfig)
def merge(
    parts: Sequence[AnyPath],
    out: AnyPath,
    *,
    config: AnyPath | None = None,
    progress: bool = False,
    **options: Unpack[MergeOptions],
) -> "Merged":
    """Make one store of the stores of all parts of a plan: `g2l merge`. Call it again to continue.

    Args:
        parts: stores that `extract_teacher(..., part="I/N")` has made.
        out: store to create or continue.
        config: TOML file with a table [merge]; keyword arguments win over it.
        progress: whether progress and notes go to standard error.
        options: as of `g2l merge`, with underscores.

    Raises:
        ConfigError: `parts` is one path, or no list.
        G2LError: a part is missing, unfinished, damaged or of another plan.
    """
    if isinstance(parts, str | bytes | os.PathLike):  # the letters of a name would be taken for parts
        raise ConfigError(f"parts={parts!r}: give a list of stores, [{parts!r}, ...]")
    if not isinstance(parts, Iterable):
        raise ConfigError(f"parts={parts!r:.80}: give a list of stores")
    call = _call("merge", options, config, MergeConfig)
    with as_guest(progress=progress):
        from stages.many.merge import merge as merge_stores

        resolved, paths = call.resolve(MergeConfig, others=["parts"], out=given_path(out))
        return merge_stores(
            call.path_list("parts", [given_path(each) for each in parts]), paths["out"], link=resolved.link
        )


@with_options_shown(ImportConfig)
def import_features(
    features: AnyPath,
    out: AnyPath,
    *,
    config: AnyPath | None = None,
    progress: bool = False,
    **options: Unpack[ImportOptions],
) -> "Extracted":
    """Stage one without the teacher, `g2l import-features`: make a store from features of another tool.

    Args:
        features: folder of the features.
        out: store to create or continue.
        config: TOML file with a table [import-features]; keyword arguments win over it.
        progress: whether progress and notes go to standard error.
        options: as of `g2l import-features`, with underscores.

    Returns:
        As `extract_teacher`; slides that failed are in `result.store.plan.audit`.

    Raises:
        G2LError: wrong options or input, or features that are not of their slides or teacher.
    """
    call = _call("import-features", options, config, ImportConfig)
    _require_one_process("import-features")
    with as_guest(progress=progress, computes=True):
        from stages import import_features as stage
        from stages.finished import finished_import

        resolved, paths = call.resolve(ImportConfig, features=given_path(features), out=given_path(out))
        record = {name: str(path.absolute()) for name, path in paths.items()} | resolved.stored()
        done = finished_import(paths["features"], paths["out"], resolved)
        return done or stage.import_features(paths["features"], paths["out"], resolved, record=record)


@with_options_shown(TrainConfig)
def train_student(
    store: AnyPath,
    out: AnyPath,
    *,
    config: AnyPath | None = None,
    progress: bool = False,
    **options: Unpack[TrainOptions],
) -> "Trained":
    """Stage two, `g2l train-student`: train student and projector against the store. Call it again to continue.

    Args:
        store: finished store of stage one: a folder, or an address (s3://, gs://, az://).
        out: run directory to create or continue.
        config: TOML file with a table [train-student]; keyword arguments win over it.
        progress: whether progress and notes go to standard error.
        options: as of `g2l train-student`, with underscores.

    Returns:
        The run, its steps, and the held-out figures before and after.

    Raises:
        G2LError: wrong options, an unfinished or damaged store, other options than the run was started with, a loss
            that is not finite, ...; checkpoints are safe.
    """
    call = _call("train-student", options, config, TrainConfig)
    _require_one_process("train-student")
    with as_guest(progress=progress, computes=True):
        from pipeline.store.remote.opening import open_store
        from stages import train_student as stage
        from stages.finished import finished_training

        resolved, paths = call.resolve(TrainConfig, urls=["store"], store=given_path(store), out=given_path(out))
        with open_store(paths["store"], resolved.stage_folder(), tell=tell) as opened:
            done = finished_training(opened, paths["out"], resolved)
            return done or stage.train_student(opened, paths["out"], resolved)


@with_options_shown(ExportConfig)
def export(
    run: AnyPath,
    out: AnyPath,
    *,
    config: AnyPath | None = None,
    progress: bool = False,
    **options: Unpack[ExportOptions],
) -> "ExportedStudent":
    """Export the student of a finished run, checked to load in timm with identical embeddings: `g2l export`.

    Args:
        run: finished run directory.
        out: folder to write the student to.
        config: TOML file with a table [export]; keyword arguments win over it.
        progress: whether notes go to standard error.
        options: as of `g2l export`, with underscores.

    Returns:
        What the folder says of the student; `load_student(out)` loads it.

    Raises:
        G2LError: the run is not finished, `out` exists, or a format does not give the student's embeddings.
    """
    call = _call("export", options, config, ExportConfig)
    with as_guest(progress=progress, computes=True):
        from pipeline.student.exported import read_student
        from stages.export import export_student
        from stages.publishing.hub_card import asked_card

        resolved, paths = call.resolve(ExportConfig, run=given_path(run), out=given_path(out))
        tell(export_student(paths["run"], paths["out"], resolved.format, asked_card(resolved)))
        return read_student(paths["out"])


@with_options_shown(EmbedConfig)
def embed(
    model: AnyPath,
    slides: AnyPath,
    out: AnyPath,
    *,
    config: AnyPath | None = None,
    progress: bool = False,
    **options: Unpack[EmbedOptions],
) -> "Tally":
    """Embed all tissue of slides, one complete file a slide: `g2l embed`. Call it again to continue.

    Args:
        model: "[LABEL=]ENCODER[@WEIGHTS]": a run, an exported student, or an encoder of `g2l models` or timm.
        slides: folder of slides, one slide, or a manifest (CSV).
        out: folder to write to, or to continue.
        config: TOML file with a table [embed]; keyword arguments win over it.
        progress: whether progress and notes go to standard error.
        options: as of `g2l embed`, with underscores.

    Returns:
        Counts of slides and patches, and why slides failed; `is_partial` says whether any did.

    Raises:
        G2LError: wrong options or input, a folder of another model or setting, a full disk.
    """
    call = _call("embed", options, config, EmbedConfig)
    _require_one_process("embed")
    with as_guest(progress=progress, computes=True):
        from stages import embed as stage
        from stages.finished import finished_embedding

        resolved, paths = call.resolve(
            EmbedConfig, model=given_path(model), slides=given_path(slides), out=given_path(out)
        )
        record = {name: str(path.absolute()) for name, path in paths.items()} | resolved.stored()
        record["model"] = absolute_model(str(paths["model"]))
        name, source, folder = str(paths["model"]), paths["slides"], paths["out"]
        done = finished_embedding(name, source, folder, resolved)
        return done or stage.embed(name, source, folder, resolved, options=record)


@with_options_shown(evaluate_config())
def evaluate(
    out: AnyPath, *, config: AnyPath | None = None, progress: bool = False, **options: Unpack[EvaluateOptions]
) -> "Report":
    """Compare teacher, student and others on every benchmark that is asked for, in one report: `g2l evaluate`.

    Args:
        out: folder to write report.html, report.json and figures to.
        config: TOML file with a table [evaluate]; keyword arguments win over it.
        progress: whether progress and notes go to standard error.
        options: as of `g2l evaluate`, with underscores; `models` is a list.

    Returns:
        The report: `report.sections` with tables and scores.

    Raises:
        G2LError: wrong options, an input that cannot be used, or `out` holds a report of other options.
    """
    kind = evaluate_config()
    call = _call("evaluate", options, config, kind)
    with as_guest(progress=progress, computes=True):
        from stages import evaluate as stage

        resolved, paths = call.resolve(kind, out=given_path(out))
        return stage.evaluate(paths["out"], resolved)


@with_options_shown(VerifyConfig)
def verify(
    store: AnyPath, *, config: AnyPath | None = None, progress: bool = False, **options: Unpack[VerifyOptions]
) -> str:
    """Recompute every checksum of a store, and embed a sample of rows again: `g2l verify`. Writes nothing.

    Args:
        store: a folder, or an address (s3://, gs://, az://).
        config: TOML file with a table [verify]; keyword arguments win over it.
        progress: whether progress and notes go to standard error.
        options: as of `g2l verify`, with underscores.

    Returns:
        The findings in words; also where shards are not done yet, or the teacher's weights are gone.

    Raises:
        StoreError: the store is damaged; the message lists what.
        G2LError: no store, or the teacher or a slide cannot be had.
    """
    call = _call("verify", options, config, VerifyConfig)
    with as_guest(progress=progress, computes=True):
        from stages.verify import verify_store

        resolved, paths = call.resolve(VerifyConfig, urls=["store"], store=given_path(store))
        text, code = verify_store(
            paths["store"],
            resolved.weights,
            resolved.sample,
            resolved.device,
            resolved.slides_root,
            resolved.teacher,
            resolved.stage_folder(),
        )
    if code == EXIT_ERROR:
        raise StoreError(text)
    return text


def inspect(path: AnyPath) -> str:
    """What a plan, store, run, student, study or reproduction holds, in words: `g2l inspect`. Writes nothing.

    Raises:
        G2LError: it is none of them, or damaged.
    """
    with as_guest():
        from stages.inspect import inspect_path

        _, paths = _call("inspect", {}, None).resolve(NoOptions, urls=["path"], path=given_path(path))
        return inspect_path(paths["path"])


def _call(command: str, options: Mapping[str, Any], config: AnyPath | None, *kinds: type[Config]) -> Call:
    """A call of a command with these options, which must be those of `kinds`.

    Raises:
        ConfigError: there is no such option, or the file of `config` cannot be used.
    """
    known = dict.fromkeys(name for kind in kinds for name in kind.model_fields)
    if unknown := _unknown(options, known):
        hints = ", ".join(f"{name}{did_you_mean(name, known)}" for name in unknown)
        raise ConfigError(f"{command} has no option {hints}")
    given = {name: _as_typed(value) for name, value in options.items() if value is not None}
    return Call.read(command, given, None if config is None else given_path(config))


def _as_typed(value: Any) -> Any:
    """A path as the text that the command gets, also in a list: `teacher` and others take names and paths alike."""
    if isinstance(value, list | tuple):
        return [_as_typed(each) for each in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _unknown(options: Iterable[str], known: Mapping[str, None]) -> list[str]:
    return [name for name in options if name not in known]


def _require_one_process(command: str) -> None:
    """Refuse to write one output from several processes, which the command does.

    Raises:
        G2LError: a launcher has started several.
    """
    if (number := launched_processes()) > 1:
        raise G2LError(
            f"{number} processes were launched: in several, start the command itself (torchrun --no-python "
            f"--nproc-per-node {number} g2l {command} ...)"
        )
