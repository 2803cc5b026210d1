"""Check in a second, without torch or a model, whether a repeated stage has anything left to do.

A stage is skipped only if the call is the one that its output records (`config.toml`, written once all checks have
passed), the output is complete, no input is newer than that record, and the output is not locked: a lock means that a
process is at work, or was killed after its last file and left a lock to remove. Otherwise the functions here return
`None`, and the stage itself runs: it continues, or refuses.
"""

import os
from pathlib import Path

from pipeline.base.errors import ConfigError, EmbedError, G2LError
from pipeline.base.outside import read_json, reading
from pipeline.cohort.manifest import parse_manifest
from pipeline.cohort.plan import Plan
from pipeline.config.base import Config, read_toml
from pipeline.config.model_names import FOLDER_PREFIX, WORDS, absolute_model, split_model
from pipeline.config.stages import ExtractConfig, TrainConfig
from pipeline.config.tools import EmbedConfig, ImportConfig
from pipeline.disk.locks import is_locked
from pipeline.features.embed_names import FINISHED_FILE, OPTIONS_FILE
from pipeline.store.store import Store
from pipeline.training.augment import with_augmentation
from pipeline.training.run_folder import RunFolder
from stages.reports.embed import Tally
from stages.reports.extract import Extracted
from stages.reports.train import Trained


def same_call(path: Path, command: str, config: Config, arguments: dict[str, Path]) -> bool:
    """Whether the file `path` records the same call: the same paths, and the same options that decide the result.

    Records of version 0.1.0 have paths as they were typed; they are taken relative to the working folder.
    """
    try:
        recorded = read_toml(path, command)
        paths = {name: Path(str(recorded.pop(name))).absolute() for name in arguments}
        options = type(config).build(recorded).absolute().record()
    except (ConfigError, KeyError):
        return False
    now = config.absolute().record()
    changed = [name for name in options.keys() | now.keys() if options.get(name) != now.get(name)]
    alike = all(config.says(name, "decides") == "nothing" for name in changed)
    return alike and paths == {name: path.absolute() for name, path in arguments.items()}


def unchanged(record: Path, *inputs: Path | str | None) -> bool:
    """Whether all inputs exist, and were last written, replaced or renamed before `record` was; a folder includes all
    files below it. Ignores `None` and words for weights (`model_names.WORDS`).
    """
    recorded = record.stat().st_mtime_ns
    paths = [Path(path) for path in inputs if path is not None and path not in WORDS]
    return all(_last_change(path) < recorded for path in paths)


def _last_change(path: Path) -> float:
    """Time of the last change of a file, or of anything below a folder, in ns; infinite if it does not exist."""
    try:
        times = [_change_time(path)]
        for folder, _, files in os.walk(path, followlinks=True):
            times += [_change_time(Path(folder)), *(_change_time(Path(folder, name)) for name in files)]
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
    try:
        store = Store(out)
        teacher = store.first if store.first.name == config.teacher else store.teachers.get(config.teacher)
    except G2LError:
        return None
    if teacher is None or teacher.plan_hash != plan.hash or teacher.ledger.pending():
        return None
    if not teacher.is_first:  # its record has what was taken over from the store
        inherited = {"rows_per_shard": teacher.rows_per_shard, "pixels": store.image_format}
        config = config.model_copy(update={n: v for n, v in inherited.items() if n not in config.model_fields_set})
    record = teacher.folder / "config.toml"
    if not same_call(record, "extract-teacher", config, {"plan": source, "out": out}):
        return None
    if not unchanged(record, config.weights, _of_encoder(config.teacher)):
        return None
    return Extracted(teacher, 0, teacher.ledger.status_counts(), 0.0)


def finished_import(features: Path, out: Path, config: ImportConfig) -> Extracted | None:
    """Result of `import-features` for a finished store; `None` if the stage must run, also if a slide failed."""
    record = out / "config.toml"
    if config.retry_failures or not (out / "zarr.json").exists() or is_locked(out):
        return None
    if not same_call(record, "import-features", config, {"features": features, "out": out}):
        return None
    try:
        store = Store(out)
        if store.first.ledger.pending() or any(row.status != "ok" for row in store.plan.audit):
            return None
        slides = [store.plan.slide_path(slide, None) for slide in store.plan.slides]
    except G2LError:
        return None
    inputs = (features, config.coords, config.manifest, config.weights, _of_encoder(config.teacher), *slides)
    if not unchanged(record, *inputs) or (config.manifest is None and not unchanged(record, config.slides_root)):
        return None
    return Extracted(store.first, 0, store.first.ledger.status_counts(), 0.0)


def finished_training(store_path: Path, out: Path, config: TrainConfig) -> Trained | None:
    """Result of `train-student` for a finished run; `None` if the stage must run, always with several processes."""
    run = RunFolder(out)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 or not (run.student / "config.json").is_file() or is_locked(out):
        return None
    try:
        store = Store(store_path)
        teachers, identity = store.teachers, run.read_identity()
        name = (config.teacher or [store.first.name])[0]
        if (config.teacher is None and len(teachers) > 1) or name not in teachers or run.version() < 1:
            return None
        views = [teachers[each].views.count for each in config.teacher or [name]]
        if teachers[name].content_hash() != identity["store"]:
            return None
        config = with_augmentation(config, min(views))
        step, best, vals = run.exported_step(), run.best(), run.validations()
        last = int(run.metrics()[-1]["step"])
    except (G2LError, KeyError, IndexError):
        return None
    wanted = best.step if best is not None and config.keep == "best" else last
    if (last if step is None else step) != wanted:
        return None
    if not same_call(run.config_path, "train-student", config, {"store": store_path, "out": out}):
        return None
    if not unchanged(run.config_path, *_weights(config), _of_encoder(config.student)):
        return None
    before, after = run.held_out_figures(step=wanted)
    names = [line["teacher"] for line in vals if line["step"] == 0 and "teacher" in line][1:]
    return Trained(run, last, 0, before, after, 0.0, {n: run.held_out_figures(n, wanted) for n in names}, wanted)


def _weights(config: TrainConfig) -> list[Path | str]:
    """File or folder of the weights to start from; for an earlier run, its student."""
    folder = Path(config.weights)
    return [folder / "student" if (folder / "run.json").is_file() else config.weights]


def finished_embedding(model: str, source: Path, out: Path, config: EmbedConfig) -> Tally | None:
    """Result of `embed` for a finished folder; `None` if the stage must run, also if a slide failed."""
    options = out / OPTIONS_FILE
    arguments = {"model": Path(absolute_model(model)), "slides": source, "out": out}
    if config.retry_failures or is_locked(out) or not same_call(options, "embed", config, arguments):
        return None
    name = split_model(model)
    is_run = (name.folder / "run.json").is_file()
    if is_run and name.weights not in ("", "after"):
        return None  # `before` or `teacher`: their files are known only from the run's record
    of_model = name.folder / "student" if is_run else name.folder if name.folder.is_dir() else None
    slides: list[Path] = [source]
    try:
        with reading(out / FINISHED_FILE, "damaged", EmbedError):
            record = read_json(out / FINISHED_FILE)
            tally = Tally.of_record(out, record)
            if tally.is_partial:
                return None
            if any((out / path).stat().st_size != size for path, size in record["files"].items()):
                return None
        if source.suffix.lower() == ".csv" and not source.is_dir():
            manifest = parse_manifest(source, config.slides_root)
            slides += [manifest.slide_path(row) for row in manifest.rows]
    except G2LError:
        return None
    return tally if unchanged(options, of_model, name.weights or None, *slides) else None
