"""Open a run of stage two: build what is trained, and start its directory or check that it continues the same run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from numpy.typing import NDArray

from pipeline.base import distributed
from pipeline.base.console import say
from pipeline.base.cores import own_cores
from pipeline.base.devices import TF32, continued_precision, training_precision, use_tf32
from pipeline.base.distributed import GradientBuckets
from pipeline.base.draws import RunDraws
from pipeline.base.errors import ConfigError
from pipeline.base.loader import BatchLoader
from pipeline.cohort.cases import case_facts, cases_warning
from pipeline.cohort.views.views import Views
from pipeline.config.recipes import departures_note, departures_of_views
from pipeline.config.stages import TrainConfig
from pipeline.distillation import Distillation, Head, build_projectors
from pipeline.encoders.build import BuiltEncoder, build_encoder
from pipeline.projector import Projector
from pipeline.sampling import RowNumbers
from pipeline.store.fresh_views import FreshViews
from pipeline.store.teachers import ChosenTeachers
from pipeline.student.start import continue_projector, find_start, projector_hash, seen_before
from pipeline.student.student_json import NOTHING_SEEN, SeenBeforeJson
from pipeline.training.augment import beyond_the_teacher
from pipeline.training.early_stop import EarlyStop
from pipeline.training.identity import recipe_facts, recorded_departures, run_identity
from pipeline.training.optim import build_optimizer
from pipeline.training.rows.choice import RowChoice, choose_rows
from pipeline.training.rows.reading import StoredRows
from pipeline.training.rows.statistics import KeptStatistics
from pipeline.training.rows.subset import RowSubset
from pipeline.training.run_folder import RunFolder
from pipeline.training.sharded.split import is_split, shard_student
from pipeline.training.sharded.update import ShardedAdamW
from pipeline.training.step.augment_batch import BatchAugmentation, augments_on
from pipeline.training.step.train_step import HowToStep


@dataclass(frozen=True)
class Run:
    """Everything that the training loop needs; and `seen`, what to know of held-out cases that the student was trained
    on before.
    """

    config: TrainConfig
    draws: RunDraws
    teachers: ChosenTeachers
    rows: RowChoice
    reader: StoredRows
    distillation: Distillation
    optimizer: torch.optim.Optimizer
    gradients: GradientBuckets
    workers: int
    early_stop: EarlyStop | None = None
    seen: SeenBeforeJson = NOTHING_SEEN

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch."""
        return len(self.rows.train) // self.rows.batch_size

    @property
    def num_steps(self) -> int:
        """Steps that the run is planned for: those of all epochs."""
        return self.steps_per_epoch * self.config.epochs

    @property
    def own_share(self) -> slice:
        """Which rows of a batch this process trains on."""
        share = self.rows.batch_size // distributed.world_size()
        return slice(distributed.rank() * share, (distributed.rank() + 1) * share)

    @property
    def is_stopped(self) -> bool:
        """Whether the run has ended early."""
        return self.early_stop is not None and self.early_stop.stop is not None

    @property
    def last_step(self) -> int:
        """The step that the run ends after: that of the early stop, or the last of all epochs."""
        stop = self.early_stop.stop if self.early_stop else None
        return stop.step if stop else self.num_steps


def views_to_show(teachers: ChosenTeachers, views_per_epoch: str) -> Views:
    """The views that all teachers have embedded, those of rounds only if an epoch shows a fresh one.

    Raises:
        ConfigError: fresh ones are asked for, and there are none.
    """
    if views_per_epoch != "fresh":
        return teachers.views
    views = teachers.views_at_hand
    if views.count == 1:
        raise ConfigError(
            "--views-per-epoch fresh: the teacher has embedded no view but the patch itself. `g2l extract-teacher` "
            "with --views and --views-per-epoch fresh makes a round for each epoch"
        )
    return views


def open_run(teachers: ChosenTeachers, folder: RunFolder, config: TrainConfig, device: torch.device) -> Run:
    """Build all that is trained; start the run directory, or check that it was started from the same inputs.

    Raises:
        G2LError: it was started from other inputs, or the student cannot be built.
    """
    start, world = find_start(config.weights), distributed.world_size()
    precision = training_precision(config.precision, device)
    student = build_encoder(config.student, start.weights, teachers.first.patch_px, seed=config.seed)
    rows = choose_rows(
        teachers.stored,
        batch_size=config.batch_size,
        val_rows=config.val_rows,
        seed=config.seed,
        world=world,
        subset=RowSubset(config.train_slides, config.train_patches_per_slide, config.seed),
    )
    begun_from, anew = start.projectors([(each.name, each.record["weights_sha256"]) for each in teachers.stored])
    seen = seen_before(start, teachers.first.plan)
    for note in (*start.notes, student.note, start.changed(student), *rows.notes, *anew, seen.warning()):
        if note:
            say(note)
    if config.keep == "best" and not len(rows.val):
        raise ConfigError(
            "--keep best: no rows are held out to find the best epoch on. Plan with --val-fraction or "
            "--val-strip, or use --keep last"
        )
    draws = RunDraws(config.seed, folder.version())
    how = HowToStep.here(
        rows.batch_size,
        config.micro_batch,
        compiled=config.compile,
        synchronise=draws.batch_norm_over_all,
        shard=config.shard_student,
    )
    how.require(student, device)
    if distributed.is_leader():
        identity = run_identity(
            teachers,
            student.record(),
            config.deciding() | {"precision": precision},
            world,
            folder.version(),
            {name: projector_hash(projector) for name, projector in begun_from.items()},
        )
        views = views_to_show(teachers, config.views_per_epoch)
        recipe = recipe_of(config.recipe, teachers, views, config.model_dump(mode="json"))
        continued = folder.start_or_continue(identity | recipe)
        folder.write_config(teachers.first.store.place, config.absolute().record())
        for note in (*continued, *notes_on_patches(teachers, views, config.augment), *notes_on_recipe(recipe)):
            say(note)
    distributed.wait_for_all()
    arithmetic = continued_precision(precision, device, full_float32=draws.version > 1)
    use_tf32(arithmetic == TF32)
    kept = KeptStatistics(folder.statistics_path, writes=distributed.is_leader(), tell=say)
    fresh = None
    if config.views_per_epoch == "fresh":
        fresh = open_fresh_views(teachers, rows.train, folder, config.epochs, plain=config.use_plain_view)
    run = prepare_run(teachers, rows, student, config, draws, device, arithmetic, begun_from, how, kept, fresh)
    return replace(run, seen=seen)


def open_fresh_views(
    teachers: ChosenTeachers, rows: RowNumbers, folder: RunFolder, epochs: int, *, plain: bool
) -> FreshViews:
    """The views that epochs show, with the run's record of those that were shown; tells which are still to be made.

    Raises:
        StoreError: the record is damaged.
    """
    record, writes = folder.shown_views_path, distributed.is_leader()
    fresh = FreshViews(teachers, rows, plain=plain, record=record, writes=writes)
    if note := fresh.missing_note(epochs):
        say(note)
    return fresh


def recipe_of(recipe: str | None, teachers: ChosenTeachers, views: Views, options: Mapping[str, Any]) -> dict[str, Any]:
    """What the run's record says of the recipe: see `recipe_facts`; `views` are those that the run shows."""
    if recipe is None:
        return {}
    fresh = options["views_per_epoch"] == "fresh"
    departed = departures_of_views(recipe, views.count, teachers.first.views_strength, fresh=fresh)
    return recipe_facts(recipe, teachers.first.plan.config.model_dump(mode="json"), departed, options)


def notes_on_recipe(recorded: Mapping[str, Any]) -> list[str]:
    """Where the stages before were not run by the recipe, which the run cannot make up for; the record has all."""
    name, departed = recorded_departures(recorded) or ("", [])
    before = [each for each in departed if each.command != "train-student"]
    return [departures_note(name, before)] if before else []


def notes_on_patches(teachers: ChosenTeachers, views: Views, augment: str) -> list[str]:
    """What the user should know of the patches that a student sees: how they are split, how they were made, and
    augmentation.
    """
    plan, notes = teachers.first.plan, []
    if plan.config.val_strip is None and (warning := cases_warning(case_facts(plan.slides))):
        notes.append(f"warning: {warning}")
    if beyond := beyond_the_teacher(augment, views.count):
        notes.append(f"note: {beyond}")
    return notes


def prepare_run(
    teachers: ChosenTeachers,
    rows: RowChoice,
    student: BuiltEncoder,
    config: TrainConfig,
    draws: RunDraws,
    device: torch.device,
    precision: str,
    begun_from: Mapping[str, Projector] = MappingProxyType({}),
    how: HowToStep | None = None,
    kept: KeptStatistics = KeptStatistics(None),
    fresh: FreshViews | None = None,
) -> Run:
    """Build projectors and optimizer; a teacher's statistics are over all training rows, of fresh views over those of
    the first epoch.

    `begun_from` has trained projectors to start from, by teacher; `how` says how steps are made, by default at once;
    `kept` has statistics of an earlier start; `fresh` are the views that epochs show, where each has its own.

    Raises:
        StoreError: a shard of embeddings is damaged.
    """
    projectors = build_projectors(student.spec.width, teachers.widths, draws.projector_seed)
    for name, projector, each in zip(teachers.names, projectors, teachers.stored, strict=True):
        if name in begun_from:
            continue_projector(projector, begun_from[name])
        source, first_view = fresh.of_first(each) if fresh else (each, 0 if config.use_plain_view else 1)
        num_views = first_view + 1 if fresh else teachers.views.count
        mean, var = kept.of(source, rows.train, num_views, first_view)
        projector.teacher_norm.set_statistics(torch.from_numpy(mean), torch.from_numpy(var))
        projector.to(device)
    heads = tuple(map(Head, teachers.names, projectors, teachers.weights))
    how = how or HowToStep(rows.batch_size)
    adamw = ShardedAdamW if how.sharded else torch.optim.AdamW
    if how.sharded:
        shard_student(student.module, student.module.model, device, precision)
    else:
        student.module.to(device)
    distillation = Distillation(student, heads, device, precision, how.training_pass(student), how.part, how.sharded)
    return Run(
        config=config,
        draws=draws,
        teachers=teachers,
        rows=rows,
        reader=StoredRows(
            teachers.stored,
            slides_root=config.slides_root,
            views=views_to_show(teachers, config.views_per_epoch),
            plain_view=config.use_plain_view,
            fresh=fresh,
            tell=say,
        ),
        distillation=distillation,
        optimizer=build_optimizer(distillation.modules(), config.lr, config.weight_decay, adamw),
        gradients=GradientBuckets([p for p in distillation.parameters() if not is_split(p)]),
        workers=config.workers or own_cores(),
        early_stop=None
        if config.early_stop == "off"
        else EarlyStop(config.early_stop, config.early_stop_window, config.early_stop_patience),
    )


def open_loader(run: Run, epoch: int) -> BatchLoader[NDArray[Any]]:
    """What reads an epoch's batches, of which this process has its share."""
    device, augmentation = run.distillation.device, run.config.augment
    on_gpu = BatchAugmentation(run.draws, epoch, augmentation) if augments_on(device, run.draws) else None
    reader = run.reader.reader(run.draws, epoch, "none" if on_gpu else augmentation)
    return BatchLoader(
        reader.read_some,
        patch_px=run.reader.patch_px,
        batch_size=run.rows.batch_size // distributed.world_size(),
        workers=run.workers,
        device=device,
        ahead=run.reader.read_ahead,
        on_device=on_gpu,
    )
