"""Check in a second, without torch or a model, whether a repeated stage has anything left to do.

A stage is skipped only if the call is the one that its output records (`config.toml`, written once all checks have
passed), the output is complete, no input is newer than that record, and the output is not locked: a lock means that a
process is at work, or was killed after its last file and left a lock to remove. Otherwise the functions here return
`None`, and the stage itself runs: it continues, or refuses.
"""

import time
from pathlib import Path

import numpy as np

from pipeline.base.errors import CheckpointError, ConfigError, EmbedError, G2LError
from pipeline.base.outside import read_json, reading
from pipeline.base.processes import launched_processes
from pipeline.cohort.audit import EXCLUDED
from pipeline.cohort.manifest.read import parse_manifest
from pipeline.cohort.plan import Plan
from pipeline.config.base import Config, read_options
from pipeline.config.case_lists import list_files
from pipeline.config.model_names import FOLDER_PREFIX, WEIGHTS_WORDS, absolute_model, is_run, split_model
from pipeline.config.stages import ExtractConfig, TrainConfig
from pipeline.config.tools import EmbedConfig, ImportConfig
from pipeline.disk.linked_folders import walk_once
from pipeline.disk.locks import is_locked
from pipeline.disk.objects.urls import absolute
from pipeline.features.embed_names import FINISHED_FILE, OPTIONS_FILE
from pipeline.store.fresh_views import FreshViews
from pipeline.store.store import Store, StoredTeacher
from pipeline.store.teachers import choose_teachers
from pipeline.training.identity import recorded_teachers
from pipeline.training.run_folder import RunFolder
from stages.reports.embed import Tally
from stages.reports.extract import Extracted
from stages.reports.train import Trained


def same_call(path: Path, command: str, config: Config, arguments: dict[str, Path]) -> bool:
    """Whether the file `path` records the same call: the same paths, and the same options that decide the result.

    Records of version 0.1.0 have paths as they were typed; they are taken relative to the working folder.
    """
    try:
        recorded = read_options(path, command)
        paths = {name: absolute(Path(str(recorded.pop(name)))) for name in arguments}
        options = type(config).build(recorded).absolute()
    except (ConfigError, KeyError):
        return False
    now = config.absolute()
    changed = [name for name in type(config).model_fields if getattr(options, name) != getattr(now, name)]
    alike = all(config.says(name, "decides") == "nothing" for name in changed)
    return alike and paths == {name: absolute(path) for name, path in arguments.items()}


def unchanged(record: Path, *inputs: Path | str | None) -> bool:
    """Whether all inputs exist, and were last written, replaced or renamed before `record` was; a folder includes all
    files below it. Ignores `None` and words for weights (`model_names.WEIGHTS_WORDS`).

    A record of a time to come was written by a clock that was wrong, and says nothing of what came after it.
    """
    recorded = record.stat().st_mtime_ns
    if recorded > time.time_ns():
        return False
    paths = [Path(path) for path in inputs if path is not None and path not in WEIGHTS_WORDS]
    return all(_last_change(path) < recorded for path in paths)


def _last_change(path: Path) -> float:
    """Time of the last change of a file, or of anything below a folder, in ns; infinite if it does not exist."""
    try:
        times = [_change_time(path)]
        for folder, files in walk_once(path) if path.is_dir() else ():
            times += [_change_time(folder), *(_change_time(folder / name) for name in files)]
    except OSError:
        return float("inf")
    return max(times)


def _change_time(path: Path) -> int:
    """Time of the last change of a file or folder, or of the link to it, in ns."""
    return max(time for stat in (path.stat(), path.lstat()) for time in (stat.st_mtime_ns, stat.st_ctime_ns))


def _of_encoder(name: str) -> Path | None:
    """Folder of an encoder that is named by its folder."""
    return Path(name.removeprefix(FOLDER_PREFIX)) if name.startswith(FOLDER_PREFIX) else None


def finished_extract(plan: Plan, source: Path, out: Path, config: ExtractConfig) -> Extracted | None:
    """Result of `extract-teacher` for a finished store; `None` if the stage must run."""
    if config.retry_failures or not (out / "zarr.json").exists() or is_locked(out):
        return None
    teacher = _whole_teacher(plan, out, config.teacher)
    if teacher is None:
        return None
    not_given = teacher.inherited.keys() - config.model_fields_set  # a further teacher's record has them, too
    config = config.model_copy(update={name: teacher.inherited[name] for name in not_given})
    record = teacher.folder / "config.toml"
    if not same_call(record, "extract-teacher", config, {"plan": source, "out": out}):
        return None
    if not unchanged(record, config.weights, _of_encoder(config.teacher)):
        return None
    if config.makes_rounds and teacher.views_at_hand.count < (config.views or 1):
        return None
    return Extracted(teacher, 0, teacher.ledger.status_counts(teacher.shards), 0.0)


def _whole_teacher(plan: Plan, out: Path, name: str) -> StoredTeacher | None:
    """The embeddings of a teacher in a store of this plan, if all shards are done; else `None`."""
    try:
        store = Store(out)
        teacher = store.first if store.first.name == name else store.teachers.get(name)
        is_whole = teacher is not None and teacher.plan_hash == plan.hash and _is_done(teacher)
    except G2LError:
        return None
    return teacher if is_whole else None


def _is_done(teacher: StoredTeacher) -> bool:
    """Whether all shards are done, and their files there; if not, the stage does them, or names what is missing."""
    return not (teacher.pending or any(made.wrong_files() for made in teacher.with_rounds))


def finished_import(features: Path, out: Path, config: ImportConfig) -> Extracted | None:
    """Result of `import-features` for a finished store; `None` if the stage must run, also if a slide failed."""
    record = out / "config.toml"
    if config.retry_failures or not (out / "zarr.json").exists() or is_locked(out):
        return None
    if not same_call(record, "import-features", config, {"features": features, "out": out}):
        return None
    try:
        store = Store(out)
        if not _is_done(store.first) or any(row.status not in ("ok", EXCLUDED) for row in store.plan.audit):
            return None
        slides = [store.plan.slide_path(slide, None) for slide in store.plan.slides]
    except G2LError:
        return None
    listed = (config.manifest, *list_files(config.exclude_cases))
    inputs = (features, config.coords, *listed, config.weights, _of_encoder(config.teacher), *slides)
    if not unchanged(record, *inputs) or (config.manifest is None and not unchanged(record, config.slides_root)):
        return None
    return Extracted(store.first, 0, store.first.ledger.status_counts(), 0.0)


def finished_training(store: Store, out: Path, config: TrainConfig) -> Trained | None:
    """Result of `train-student` for a finished run; `None` if the stage must run, always with several processes."""
    run = RunFolder(out)
    if launched_processes() > 1 or not (run.student / "config.json").is_file() or is_locked(out):
        return None
    try:
        num_views = _views_of(run, store, config.teacher, fresh=config.views_per_epoch == "fresh")
        if num_views is None:
            return None
        if config.views_per_epoch == "fresh":
            _require_views_as_shown(run, store, config)
        recorded = config.for_views(num_views)
        last = int(run.metrics()[-1]["step"])
        step = _wanted_step(run, config.keep, last)
        if step is None:
            return None
    except (G2LError, KeyError, IndexError):
        return None
    if not same_call(run.config_path, "train-student", recorded, {"store": Path(store.place), "out": out}):
        return None
    if not unchanged(run.config_path, *_weights(config.weights), _of_encoder(config.student)):
        return None
    return Trained(run, last, 0, run.held_out_figures(step), 0.0, step)


def _views_of(run: RunFolder, store: Store, chosen: list[str] | None, *, fresh: bool = False) -> int | None:
    """How many views the chosen teachers have embedded, where the run learnt from these as they are now; else `None`.
    With `fresh` those of rounds count.

    Raises:
        G2LError, KeyError: the store or the run cannot be read.
    """
    teachers = store.teachers
    must_choose = chosen is None and len(teachers) > 1
    if must_choose or run.version() < 1:
        return None
    with reading(run.identity_path, "damaged", CheckpointError):
        learnt_from = [each.content for each in recorded_teachers(run.read_identity())]
    named = [teachers[name] for name in chosen or teachers]
    if [teacher.content_hash() for teacher in named] != learnt_from:
        return None
    return min(teacher.views_at_hand.count if fresh else teacher.views.count for teacher in named)


def _require_views_as_shown(run: RunFolder, store: Store, config: TrainConfig) -> None:
    """See that the fresh views that a run has shown are as they were.

    Raises:
        G2LError: they are not, or cannot be read.
    """
    teachers, no_rows = choose_teachers(store, config.teacher, config.teacher_weight), np.zeros(0, np.int64)
    FreshViews(teachers, no_rows, plain=config.use_plain_view, record=run.shown_views_path).require_unchanged()


def _wanted_step(run: RunFolder, keep: str, last: int) -> int | None:
    """After which step the exported student should stand, by `--keep`; `None` where it stands after another one.

    Raises:
        G2LError: the run's records are damaged.
    """
    exported, best = run.exported_step(), run.best()
    wanted = best.step if best is not None and keep == "best" else last
    return wanted if wanted == (last if exported is None else exported) else None


def _weights(weights: str) -> list[Path | str]:
    """File or folder of the weights to start from; for an earlier run, its student."""
    folder = Path(weights)
    return [folder / "student" if is_run(folder) else weights]


def finished_embedding(model: str, source: Path, out: Path, config: EmbedConfig) -> Tally | None:
    """Result of `embed` for a finished folder; `None` if the stage must run, also if a slide failed."""
    options = out / OPTIONS_FILE
    arguments = {"model": Path(absolute_model(model)), "slides": source, "out": out}
    if config.retry_failures or is_locked(out) or not same_call(options, "embed", config, arguments):
        return None
    name = split_model(model)
    of_run = is_run(name.folder)
    if of_run and name.weights not in ("", "after"):
        return None  # `before` or `teacher`: their files are known only from the run's record
    of_model = name.folder / "student" if of_run else name.folder if name.folder.is_dir() else None
    try:
        tally = _whole_embedding(out)
        slides = _slide_files(source, config.slides_root)
    except G2LError:
        return None
    if tally is None or not unchanged(options, of_model, name.weights or None, *slides):
        return None
    return tally


def _whole_embedding(out: Path) -> Tally | None:
    """What the record of a folder of embeddings says, if every slide is done and all files have their sizes; else
    `None`.

    Raises:
        EmbedError: the record is damaged, or a file is missing.
    """
    with reading(out / FINISHED_FILE, "damaged", EmbedError):
        record = read_json(out / FINISHED_FILE)
        tally = Tally.from_record(out, record)
        sizes = record["files"].items()
        is_whole = not tally.is_partial and all((out / path).stat().st_size == size for path, size in sizes)
    return tally if is_whole else None


def _slide_files(source: Path, slides_root: Path | None) -> list[Path]:
    """What is embedded: the manifest and its slides, or the folder or slide itself.

    Raises:
        ManifestError: the manifest cannot be used.
    """
    if source.suffix.lower() != ".csv" or source.is_dir():
        return [source]
    manifest = parse_manifest(source, slides_root)
    return [source, *(manifest.slide_path(row) for row in manifest.rows)]
