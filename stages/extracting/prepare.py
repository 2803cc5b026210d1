"""Make the store that stage one fills, or open the one that is there: its settings, a part of it, a further teacher."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.base.console import say
from pipeline.base.devices import choose_batch_size
from pipeline.base.errors import ConfigError
from pipeline.base.versions import versions
from pipeline.cohort.plan import Plan
from pipeline.cohort.views.strengths import EARLIER
from pipeline.config.stages import ExtractConfig
from pipeline.slides.artefacts.patch_checks import PATCH_RULES
from pipeline.slides.pool import accept_all
from pipeline.slides.staging.one import LastCopy
from pipeline.store.check import require_files
from pipeline.store.create import VIEW_SETTINGS, create_store, is_store, open_further, open_to_continue
from pipeline.store.format import StoreSpec
from pipeline.store.parts.part import StorePart, require_part
from pipeline.store.replay import require_replay, strength_settings
from pipeline.store.store import Store, StoredTeacher
from pipeline.student.weights_place import weights_note
from pipeline.training.preflight import TeacherWork
from stages.extracting.teacher import RunningTeacher, look_at_teacher

CROPPING = ("paper", "strong")
"""Strengths of views that are stated with a crop; milder ones crop where they can, and nobody expects it."""
Look = Callable[[], dict[str, Any]]
"""Runs the preflight, if the user has not turned it off; gives its record, for the metadata."""


def prepare_store(plan: Plan, out: Path, config: ExtractConfig, running: RunningTeacher) -> StoredTeacher:
    """Make the store, or open the one that is there if it was made by the same plan, teacher, settings and part.

    A finished store takes the embeddings of a further teacher; what is then returned are those.

    Raises:
        G2LError: another plan, teacher or setting, or a teacher that the preflight refuses; nothing was written.
    """
    store = Store(out) if is_store(out) else None
    has_batch_size = config.batch_size is not None or running.device.type != "cuda"
    part = asked_part(out, store, config.part, has_batch_size=has_batch_size)
    is_first = store is None or config.teacher == store.first.name or bool(store.first.ledger.pending())
    further_of = None if is_first else store
    require_checks(further_of, patch_qc=config.patch_qc)
    if further_of is None:
        begun = None if store is None else store.first
        settings = choose_settings(plan, config, running, begun, config.rows_per_shard, config.pixels)
    else:
        begun, rows_per_shard = begun_and_rows(further_of, config)
        config = config.model_copy(update={"patch_qc": "patch_qc" in further_of.first.settings})
        settings = choose_settings(plan, config, running, begun, rows_per_shard, "none")
    if begun is not None:
        require_replay(begun)

    def look() -> dict[str, Any]:
        if not config.preflight:
            return {}
        accepts = accept_all if config.retry_failures else None
        work = TeacherWork.left(plan.num_rows, settings, begun, part, config.views_after_rounds)
        with LastCopy(config.stage_folder, tell=say) as copies:
            return look_at_teacher(
                plan, further_of, running, settings, work, config.slides_root, accepts_changed=accepts, copies=copies
            )

    spec = StoreSpec(running.encoder.record(), settings)
    if store is None:
        return create_first(plan, out, spec, running.weights, look, part)
    if further_of is None:
        return continue_first(plan, store, spec, look)
    return prepare_further(plan, store, spec, running.weights, look, is_begun=begun is not None)


def require_checks(further_of: Store | None, *, patch_qc: bool) -> None:
    """See that `--patch-qc` is not asked for where the rows are settled already.

    Raises:
        ConfigError: the store that the teacher is a further one of was made without.
    """
    if further_of is not None and patch_qc and "patch_qc" not in further_of.first.settings:
        raise ConfigError(
            "--patch-qc: a further teacher embeds the rows of the store, which was made without; leave it out"
        )


def asked_part(out: Path, store: Store | None, text: str | None, *, has_batch_size: bool) -> StorePart | None:
    """The part that the call asks for by `text`, "I/N"; `None` for all of the plan.

    Raises:
        ConfigError: no such part, or nothing says the batch size that all parts must have.
        StoreError: the store that is there is another part.
    """
    part = StorePart.parse(text) if text else None
    if store is not None:
        require_part(out, store.first.part, part)
    elif part is not None and not has_batch_size:
        raise ConfigError("--part: say --batch-size, the same for all parts. Otherwise it is by each GPU's memory")
    return part


def begun_and_rows(store: Store, config: ExtractConfig) -> tuple[StoredTeacher | None, int]:
    """The embeddings of a further teacher, if they were begun; and its rows a shard: as many as the user asks for, else
    as they were begun with, else as the store has.

    Raises:
        ConfigError: other pixels than the store's are asked for.
    """
    if "pixels" in config.model_fields_set and config.pixels != store.image_format:
        raise ConfigError(
            f"--pixels {config.pixels}: a further teacher sees the patches of the store, which keeps "
            f"pixels as {store.image_format}; leave it out"
        )
    begun = store.teachers.get(config.teacher)
    if "rows_per_shard" in config.model_fields_set:
        return begun, config.rows_per_shard
    return begun, (begun or store.first).rows_per_shard


def create_first(
    plan: Plan, out: Path, spec: StoreSpec, weights: Path | None, look: Look, part: StorePart | None
) -> StoredTeacher:
    """Make a store without rows for its first teacher, or for a part of it, after a look at the teacher."""
    create_store(out, plan, spec, versions(), **look() | weights_note(weights) | (part.note() if part else {}))
    return open_to_continue(out, plan, spec).first


def continue_first(plan: Plan, store: Store, spec: StoreSpec, look: Look) -> StoredTeacher:
    """Open a store to add shards of its first teacher."""
    first = open_to_continue(store.folder, plan, spec).first
    require_files(first)
    if first.pending:  # perhaps on another machine: said again, but recorded once only
        look()
    return first


def prepare_further(
    plan: Plan, store: Store, spec: StoreSpec, weights: Path | None, look: Look, *, is_begun: bool
) -> StoredTeacher:
    """Make, or open to continue, the embeddings of a further teacher of a finished store. It keeps no pixels."""
    require_files(store.first)  # whose pixels this one sees
    teacher = open_further(store, plan, spec, versions(), lambda: look() | weights_note(weights))
    require_files(teacher)
    if is_begun and teacher.ledger.pending():  # perhaps on another machine: said again, but recorded once only
        look()
    say(
        f"note: {teacher.name} is a further teacher of {store.folder}, with a ledger of its own; it sees the "
        f"{'stored pixels' if store.has_pixels else 'slides, for the store has no pixels'}"
    )
    return teacher


def choose_settings(
    plan: Plan,
    config: ExtractConfig,
    running: RunningTeacher,
    begun: StoredTeacher | None,
    rows_per_shard: int,
    pixels: str,
) -> dict[str, Any]:
    """The settings that embeddings are made under, and continued under only.

    A batch size left open is that of the embeddings that were `begun`, so that a run continues on another card; else as
    large as the device has room for.

    Raises:
        ConfigError: a seed or strength of views without views, or a strength that changes nothing.
    """
    count, seed, strength = config.views or 1, config.views_seed, config.views_strength
    if config.makes_rounds:  # what was begun at once stays; a wrong strength is refused before anything is written
        view_settings(plan, seed, strength)
        of_views = {name: value for name, value in (begun.settings if begun else {}).items() if name in VIEW_SETTINGS}
    else:
        of_views = settings_of_views(plan, count, seed, strength)
    batch_size = config.batch_size or (begun.settings["batch_size"] if begun else None)
    if batch_size is None:
        module, device = running.encoder.module, running.device
        batch_size = choose_batch_size(module, plan.config.patch_px, device, running.precision)
        batch_size = max(batch_size // of_views.get("views", 1), 1)  # all views of a batch are in memory
    rows_per_shard = min(rows_per_shard, plan.num_rows)
    settings: dict[str, Any] = {
        "rows_per_shard": rows_per_shard,
        "pixels": pixels,
        "dtype": config.dtype,
        "precision": running.precision,
        "batch_size": min(batch_size, rows_per_shard),
    }
    rules = min(begun.settings.get("patch_qc", PATCH_RULES), PATCH_RULES) if begun else PATCH_RULES
    return settings | ({"patch_qc": rules} if config.patch_qc else {}) | of_views


def settings_of_views(plan: Plan, count: int, seed: int | None, strength: str | None) -> dict[str, Any]:
    """What the settings say of `count` views that are made at once.

    Raises:
        ConfigError: a seed or strength of views without views, or a strength that changes nothing.
    """
    if count > 1:
        return {"views": count} | view_settings(plan, seed, strength)
    if strength is not None:
        raise ConfigError(
            "--views-strength: the patch itself is not changed; say with --views how many views there are"
        )
    if seed is not None:
        raise ConfigError("--views-seed: the patch itself has no seed; say with --views how many views there are")
    return {}


def view_settings(plan: Plan, seed: int | None, strength: str | None) -> dict[str, Any]:
    """What settings say of seed and strength of views.

    Raises:
        ConfigError: all views would be the patch itself.
    """
    return {"views_seed": seed or 0} | strength_settings(strength or EARLIER, has_tiles=plan.config.has_tiles)


def note_on_views(plan: Plan, strength: str | None, num_views: int) -> str:
    """That views of the asked strength would crop, but the plan has no tiles to crop from; "" if all is well."""
    if strength not in CROPPING or num_views < 2 or plan.config.has_tiles:
        return ""
    return (
        f"note: views of strength {strength} crop the patch from a tile around it, but the plan has no "
        "tiles: nothing is cropped. `g2l plan --tile-px` makes them"
    )
