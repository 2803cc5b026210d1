"""Make a store, or open one to add shards to it: that of a first teacher, or the part of a further one.

What is made is complete or absent. What is there is continued under the same plan, teacher and settings only.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.base import interrupts
from pipeline.base.console import say
from pipeline.base.errors import StoreError
from pipeline.base.versions import continued_note
from pipeline.cohort.plan import Plan
from pipeline.config.base import differences
from pipeline.disk.asides import remove_asides
from pipeline.disk.files import make_output_folder
from pipeline.disk.folders import is_free, new_folder
from pipeline.disk.raw_arrays import METADATA
from pipeline.store.format import (
    ROUNDS_FOLDER,
    STORE_FORMAT,
    TEACHER_FORMAT,
    TEACHERS_FOLDER,
    UNSAID_SETTINGS,
    StoreSpec,
    new_arrays,
    read_store_attributes,
    teacher_folder,
)
from pipeline.store.plan_arrays import write_stored_plan
from pipeline.store.store import Store, StoredTeacher

VIEW_SETTINGS = ("views", "views_seed", "views_strength", "views_probe")
"""Settings that say which views a teacher saw: how many, and which they are."""


def is_store(folder: Path) -> bool:
    """Whether a folder is a store; false where one can be made.

    Raises:
        StoreError: there is something else.
    """
    if (folder / METADATA).exists():
        return True
    if not is_free(folder):
        raise StoreError(f"{folder} exists and is not a store; nothing is overwritten. Choose another --out")
    return False


def create_store(folder: Path, plan: Plan, spec: StoreSpec, versions: dict[str, str], **notes: Any) -> None:
    """Make an empty store: metadata and plan, complete or absent; `notes` are attributes that decide nothing.

    Raises:
        G2LError: the place cannot be written.
    """
    make_output_folder(folder if folder.is_dir() else folder.parent)
    image_format, shard_rows = spec.settings["pixels"], spec.settings["rows_per_shard"]
    with new_arrays(folder, plan, spec, versions, STORE_FORMAT, notes) as aside:
        if image_format != "none":
            from pipeline.store import zarr_format  # slow to import: `plan` only asks whether a store is one

            zarr_format.create_images_array(
                aside, "pixels", plan.num_rows, plan.config.read_px, shard_rows=shard_rows, image_format=image_format
            )
        write_stored_plan(aside / "plan", plan)


def create_empty_like(teacher: StoredTeacher, folder: Path) -> dict[str, Any]:
    """Make arrays without rows of the same plan, teacher and settings in `folder`; returns their attributes."""
    plan, versions = teacher.store.plan_as_stored, teacher.attributes.get("versions", {})
    if teacher.is_first:
        create_store(folder, plan, teacher.spec, versions)
        return read_store_attributes(folder, STORE_FORMAT)
    with new_arrays(folder, plan, teacher.spec, versions, TEACHER_FORMAT):
        pass
    return read_store_attributes(folder, TEACHER_FORMAT)


def open_to_continue(folder: Path, plan: Plan, spec: StoreSpec) -> Store:
    """Open a store to add shards of its first teacher, after clearing away what a killed run left half written.

    Raises:
        StoreError: it was made by another plan, teacher or setting; says what differs.
    """
    store = Store(folder)
    require_same(store.first, plan, spec)
    remove_asides(folder)
    say_other_versions(store.first)
    return store


def open_further(
    store: Store, plan: Plan, spec: StoreSpec, versions: dict[str, str], look: Callable[[], Mapping[str, Any]] = dict
) -> StoredTeacher:
    """Make, or open to continue, the embeddings of a further teacher of a finished store.

    `look` gives attributes that decide nothing. It is called once all else is known to be right and before anything
    is written, and only where the embeddings are made: what it raises leaves the store as it was.

    Raises:
        StoreError: another plan; the same weights under another name; or it was begun with other settings.
    """
    name = spec.teacher["name"]
    folder = store.folder / TEACHERS_FOLDER / teacher_folder(name)
    require_same(store.first, plan, store.first.spec)
    is_begun = name in store.teachers
    require_no_other(store, spec.teacher, folder)
    if not is_begun:
        notes = look()
        _make_group(store.folder / TEACHERS_FOLDER)
        with new_arrays(folder, plan, spec, versions, TEACHER_FORMAT, notes):
            pass
    teacher = StoredTeacher(store, folder)
    require_same(teacher, plan, spec)
    remove_asides(store.folder)  # the first teacher's too: its last run may have been killed after its last shard
    if is_begun:
        say_other_versions(teacher)
    return teacher


def require_no_other(store: Store, record: Mapping[str, Any], folder: Path) -> None:
    """See that no other teacher of a store has the weights or the folder of the one with this record.

    Raises:
        StoreError: one has; says which.
    """
    for name, teacher in store.teachers.items():
        if name == record["name"]:
            continue
        if teacher.record["weights_sha256"] == record["weights_sha256"]:
            raise StoreError(f"{store.folder} has embeddings of these weights already, of the teacher {name}")
        if teacher_folder(name) == folder.name:
            raise StoreError(
                f"{store.folder} has embeddings of {name}, in files of the name that those of "
                f"{record['name']} would have. Choose another --out"
            )


def open_round(
    teacher: StoredTeacher, plan: Plan, view: int, views: Mapping[str, Any], versions: dict[str, str]
) -> StoredTeacher:
    """Make, or open to continue, the round of a view of a teacher that is finished.

    `views` are seed and strength, as settings have them; all else is as the teacher was run with.

    Raises:
        StoreError: the view, or one before it, was made with another seed or strength; says what differs.
    """
    at_once = {name: teacher.settings[name] for name in VIEW_SETTINGS[1:] if name in teacher.settings}
    if teacher.views.count > 1 and (changes := differences(at_once, dict(views))):
        raise StoreError(
            f"{teacher.folder} has {teacher.views.count} views that were made at once, and rounds add views of the "
            f"same seed and strength only: {', '.join(changes)}"
        )
    kept = {name: value for name, value in teacher.settings.items() if name not in VIEW_SETTINGS}
    spec = StoreSpec(teacher.record, kept | {"pixels": "none", "view": view} | dict(views))
    made = teacher.round(view)
    if made is None:
        _make_group(teacher.folder / ROUNDS_FOLDER)
        with new_arrays(teacher.round_folder(view), plan, spec, versions, TEACHER_FORMAT):
            pass
        made = teacher.round(view)
        assert made is not None
    require_same(made, plan, spec)
    remove_asides(teacher.store.folder)
    say_other_versions(made)
    return made


def _make_group(folder: Path) -> None:
    """A Zarr group without arrays, complete or absent."""
    if folder.exists():
        return
    from pipeline.store import zarr_format  # as above

    try:
        with interrupts.guard, new_folder(folder, METADATA) as aside:
            zarr_format.create_group(aside, {})
    except OSError as error:
        raise StoreError(f"cannot write to {folder.parent}: {error.strerror or error}") from error


def say_other_versions(teacher: StoredTeacher) -> None:
    """Tell the user if what is missing will be made under other versions of packages than the rest."""
    if teacher.ledger.pending() and (note := continued_note(teacher.folder, teacher.attributes.get("versions", {}))):
        say(note)


def require_same(teacher: StoredTeacher, plan: Plan, spec: StoreSpec) -> None:
    """See that embeddings are of this plan, teacher and settings.

    Raises:
        StoreError: they are not; says what differs.
    """
    changes = differences(
        {"plan_hash": teacher.plan_hash, "teacher": teacher.record, "settings": teacher.settings},
        {"plan_hash": plan.hash, "teacher": spec.teacher, "settings": spec.settings},
        {"settings": UNSAID_SETTINGS},
    )
    if any(not line.startswith("teacher.weights:") for line in changes):  # a label: weights count by their hash
        listing = "\n".join(f"  {line}" for line in changes[:20]) + ("\n  ..." if len(changes) > 20 else "")
        is_another = any(line.startswith("teacher.name:") for line in changes)
        finish = ", or finish the store: then it takes a further teacher"
        raise StoreError(
            f"{teacher.folder} was made with other inputs and is not continued (store -> now):\n{listing}\n"
            f"Choose another --out{finish if is_another and teacher.store.first.ledger.pending() else ''}."
        )
