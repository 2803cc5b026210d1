"""Train and score the runs of a study: each is a run of `train-student`, made by the same stage, and scored alike.

A study that was stopped goes on where it was: a run with a score is left alone, a finished run is only scored, and a
run that was stopped continues from its checkpoint. A run that diverges is told, and the others go on.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.base.console import counted, say
from pipeline.base.cores import usable_cores
from pipeline.base.devices import choose_device
from pipeline.base.errors import ConfigError, DivergedError
from pipeline.base.processes import launched_processes
from pipeline.config.stages import TrainConfig
from pipeline.sampling import VAL
from pipeline.store.fresh_views import missing_views
from pipeline.store.store import Store, StoredTeacher
from pipeline.store.teachers import choose_teachers
from pipeline.study.folder import StudyFolder, base_record
from pipeline.study.grid import Setting, build_config
from pipeline.study.inputs import run_inputs
from pipeline.study.yardstick import CaseSums, Computing, Yardstick, read_sums, write_sums
from pipeline.training.run_folder import RunFolder
from stages.finished import finished_training
from stages.train_student import train_student
from stages.training.run import views_to_show


@dataclass(frozen=True)
class Study:
    """All runs of a study.

    Attributes:
        folder: where they lie.
        base: values of the options that are not varied, as `TrainConfig.build` takes them.
        stores: the stores; settings name theirs by position.
        yardstick: scores all students.
        seeds: of the runs of each setting.
        keep_checkpoints: whether runs keep theirs when they are scored.
    """

    folder: StudyFolder
    base: Mapping[str, Any]
    stores: Sequence[Store]
    yardstick: Yardstick
    seeds: Sequence[int]
    keep_checkpoints: bool


@dataclass
class StudyRuns:
    """What came of the runs: sums by label and seed, and why a run has none."""

    sums: dict[str, dict[int, CaseSums]] = field(default_factory=dict)
    failed: dict[tuple[str, int], str] = field(default_factory=dict)

    def of(self, label: str, seeds: Sequence[int]) -> list[CaseSums]:
        """A setting's sums of these seeds, in their order."""
        return [self.sums[label][seed] for seed in seeds]

    def complete_seeds(self, seeds: Sequence[int], labels: Sequence[str]) -> list[int]:
        """Seeds of which every setting has a run."""
        return [seed for seed in seeds if all(seed in self.sums.get(label, {}) for label in labels)]


def require_one_process() -> None:
    """A study trains its runs one after the other in one process.

    Raises:
        ConfigError: there are several, or WORLD_SIZE is no number.
    """
    if launched_processes() > 1:
        raise ConfigError("a study runs in one process. Start it without torchrun")


def build_yardstick(store: Store, base: Mapping[str, Any], most: int, folder: StudyFolder) -> Yardstick:
    """The yardstick of a study: the first of the teachers that the base learns from, in the first store.

    Raises:
        G2LError: the store is not finished, or holds out too few rows.
    """
    config = TrainConfig.build(dict(base))
    teachers = choose_teachers(store, config.teacher, config.teacher_weight)
    how = Computing(
        choose_device(config.device), config.precision, config.workers or usable_cores(), config.slides_root
    )
    return Yardstick(teachers.first, most, folder.embeddings, how)


def yardstick_note(teacher: StoredTeacher) -> str:
    """Which of the store's teachers all students are compared with, whichever they learn from; "" if there is one."""
    others = [name for name in teacher.store.teachers if name != teacher.name]
    if not others:
        return ""
    return (
        f"held-out scores compare every student with {teacher.name}, the first --teacher of the base, whichever "
        f"teachers it learns from; not with {', '.join(others)}"
    )


def require_same_rows(stores: Sequence[Store], teacher: str) -> None:
    """Check that stores have one plan, held-out rows and teacher, so that students of all are compared on the same.

    A teacher whose weights one of them does not know, as of imported features, is one only if its embeddings are.

    Raises:
        ConfigError: one differs from the first.
    """
    first = stores[0].teacher(teacher)
    for store in stores[1:]:
        other = store.teacher(teacher)
        if other.plan_hash != first.plan_hash:
            what, fix = "another plan", "Extract both from the same plan"
        elif not all(each.record.get("weights_sha256") for each in (first, other)):
            if _embedding_hashes(other) == _embedding_hashes(first):
                continue
            what = f"other embeddings of {teacher}, of weights that are not known,"
            fix = "Import or extract both with --weights"
        elif other.record["weights_sha256"] != first.record["weights_sha256"]:
            what, fix = f"other weights of {teacher}", "Extract both with the same weights"
        elif other.ok_rows(VAL).tolist() != first.ok_rows(VAL).tolist():
            what, fix = "other held-out patches, as some failed in one of them", "Run extract-teacher --retry-failures"
        else:
            continue
        raise ConfigError(
            f"{store.folder} has {what} than {stores[0].folder}; their students cannot be compared. {fix}"
        )


def require_views(stores: Sequence[Store], base: Mapping[str, Any], settings: Sequence[Setting]) -> None:
    """Check that every setting's store has views to show, of fresh ones one an epoch, unless runs may stop early.

    Raises:
        ConfigError: one has none, or too few; the error says for which setting.
    """
    for setting in settings:
        config = build_config(base, setting.options, setting.title)
        teachers = choose_teachers(stores[setting.store], config.teacher, config.teacher_weight)
        try:
            config.for_views(views_to_show(teachers, config.views_per_epoch).count)
        except ConfigError as error:
            raise ConfigError(f"{setting.title}: {error}") from None
        if config.views_per_epoch == "fresh" and config.early_stop == "off":
            missing = missing_views(teachers, config.epochs, plain=config.use_plain_view)
            if missing:
                raise ConfigError(
                    f"{setting.title}: {missing.are_there}, and the run would stop there. Begin when {missing.remedy}"
                )


def _embedding_hashes(teacher: StoredTeacher) -> list[str | None]:
    """Hex SHA-256 of each shard of the plain patches' embeddings; `None` for one that is not done."""
    return [
        entry["files"][teacher.shard_path("embedding", shard).relative_to(teacher.folder).as_posix()]["sha256"]
        if entry
        else None
        for shard, entry in teacher.ledger.entries()
    ]


def run_study(study: Study, settings: Sequence[Setting]) -> StudyRuns:
    """Train and score every setting with every seed; seeds are the outer loop, so that a study that is stopped has
    compared what it has.

    Raises:
        G2LError: a run cannot be made, for another reason than that it diverged; finished runs are kept.
    """
    runs, total = StudyRuns(), len(settings) * len(study.seeds)
    for number, (seed, setting) in enumerate(((s, each) for s in study.seeds for each in settings), start=1):
        try:
            sums = _train_and_score(study, setting, seed, f"run {number} of {total}: {setting.title}, seed {seed}")
        except DivergedError as error:
            runs.failed[setting.label, seed] = str(error)
            say(f"warning: {setting.title}, seed {seed}: {error}")
            continue
        runs.sums.setdefault(setting.label, {})[seed] = sums
    for setting in settings:
        if note := stopped_note(study.folder, setting, list(runs.sums.get(setting.label, {}))):
            say(note)
    return runs


def stopped_note(folder: StudyFolder, setting: Setting, seeds: Sequence[int]) -> str:
    """How many of a setting's runs stopped early, and after how many steps; "" if none did.

    Raises:
        CheckpointError: a run's metrics are damaged.
    """
    stops = [stop for seed in seeds if (stop := RunFolder(folder.run(setting.label, seed)).stop())]
    if not stops:
        return ""
    first, last = min(stop.step for stop in stops), max(stop.step for stop in stops)
    steps = f"{first:,}" if first == last else f"{first:,} to {last:,}"
    return (
        f"note: {setting.title}: {len(stops)} of {counted(len(seeds), 'run')} stopped early, after {steps} steps. What "
        "is compared is what these steps gave, whatever epochs and rows were to be had; --early-stop off trains all"
    )


def _train_and_score(study: Study, setting: Setting, seed: int, said: str) -> CaseSums:
    """One run's sums: as they are kept, or made.

    Raises:
        G2LError: the run cannot be made; also if it was begun from other bytes of a file of weights.
    """
    store, out = study.stores[setting.store], study.folder.run(setting.label, seed)
    values = {**study.base, **setting.options, "seed": seed}
    config = build_config(values, {}, setting.title)
    files = run_inputs(config.student, config.weights)
    key = {
        "options": base_record(values) | {"seed": seed},
        "stores": [store.teacher(name).content_hash() for name in config.teacher or store.teachers],
        **({"rounds": rounds} if (rounds := _rounds_shown(store, config)) else {}),
        "yardstick": study.yardstick.record(),
        **({"files": files} if files else {}),
    }
    path = study.folder.sums(setting.label, seed)
    if (sums := read_sums(path, key)) is not None and (out / "student" / "config.json").is_file():
        return sums
    say(said)
    if finished_training(store, out, config) is None:
        train_student(store, out, config, estimate=False)
    sums = study.yardstick.score(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_sums(path, sums, key)
    if not study.keep_checkpoints:
        drop_checkpoints(out)
    return sums


def _rounds_shown(store: Store, config: TrainConfig) -> list[str]:
    """Content hashes of the rounds of views that a run shows; none where it shows no fresh ones."""
    if config.views_per_epoch != "fresh":
        return []
    teachers = [store.teacher(name) for name in config.teacher or store.teachers]
    shown = [made for teacher in teachers for made in teacher.rounds if made.own_view <= config.epochs]
    return [made.content_hash() for made in shown]


def drop_checkpoints(run: Path) -> None:
    """Remove the checkpoints of a finished run; its student is exported."""
    checkpoints = RunFolder(run).checkpoints
    if checkpoints.is_dir() and not checkpoints.is_symlink():
        shutil.rmtree(checkpoints)
