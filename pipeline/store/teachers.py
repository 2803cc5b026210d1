"""Several teachers in one store: the embeddings of each further one lie below `teachers/`, with a ledger of their own.

    teachers/<name>/   embedding, status, shards/<i>.json and attributes, as in the store itself

The first teacher is the store: its plan, its pixels, its layout and its bytes are what they are without the others. A
further teacher sees the same patches: the stored pixels where the store has some. What it leaves out: two teachers of
one name (an encoder with two sets of weights).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from pipeline.base import interrupts
from pipeline.base.errors import ConfigError, StoreError, did_you_mean
from pipeline.cohort.plan import Plan
from pipeline.cohort.views import Views
from pipeline.disk.asides import ASIDE_SUFFIX, remove_asides
from pipeline.disk.files import sha256_json
from pipeline.disk.folders import new_folder
from pipeline.store import zarr_format
from pipeline.store.format import new_arrays, read_attributes
from pipeline.store.store import Store, StoreSpec, require_same, say_other_versions

FOLDER = "teachers"


def folder_name(teacher: str) -> str:
    """A teacher's name as that of a folder or file: letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", teacher).strip("-.") or "teacher"


class FurtherTeacher(Store):
    """The embeddings of a further teacher, to be read as a store; plan and pixels are those of `base`.

    Raises:
        StoreError: there is none in `folder`, or it is damaged, or of another plan.
    """

    format_name: ClassVar[str] = "g2l-teacher"

    def __init__(self, base: Store, folder: Path) -> None:
        super().__init__(folder)
        self._base = base
        if self.attributes["plan_hash"] != base.attributes["plan_hash"]:
            raise StoreError(f"{folder}: these embeddings are of another plan than the store's")

    @property
    def base(self) -> Store:
        """The store that has the plan and the pixels."""
        return self._base

    @cached_property
    def plan(self) -> Plan:
        """The store's plan."""
        return self._base.plan

    def content_hash(self) -> str:
        """As of a store; covers the store as well, for its pixels."""
        return sha256_json({"store": self._base.content_hash(), "teacher": super().content_hash()})

    def create_empty_like(self, folder: Path) -> dict[str, Any]:
        """Make one without rows of the same plan, teacher and settings in `folder`; returns its attributes."""
        with new_arrays(folder, self.plan, self.spec, self.attributes["versions"], self.format_name):
            pass
        return read_attributes(folder, self.format_name)


def further_teachers(store: Store) -> list[FurtherTeacher]:
    """The further teachers of a store, by name.

    Raises:
        StoreError: one is damaged.
    """
    folders = sorted(path.parent for path in (store.folder / FOLDER).glob("*/zarr.json"))
    return [FurtherTeacher(store, folder) for folder in folders if not folder.name.endswith(ASIDE_SUFFIX)]


def all_teachers(store: Store) -> dict[str, Store]:
    """The store's own teacher, then the further ones, by the names of their encoders."""
    return {each.spec.teacher["name"]: each for each in (store, *further_teachers(store))}


def find_teacher(store: Store, name: str) -> Store:
    """The embeddings of the teacher of that name.

    Raises:
        ConfigError: the store has none such.
    """
    known = all_teachers(store)
    if name not in known:
        raise ConfigError(f"--teacher {name}: {store.folder} has embeddings of {', '.join(known)}"
                          f"{did_you_mean(name, known)}. `g2l "
                          f"extract-teacher` with --teacher {name} adds them")  # fmt: skip
    return known[name]


def needs_slides(folder: Path, name: str) -> bool:
    """Whether the teacher of that name needs slides: for rows that are not done, unless the store has their pixels."""
    if not (folder / "zarr.json").exists():
        return True
    store = Store(folder)
    if store.pending_shards():
        return True
    begun = all_teachers(store).get(name)
    return not store.has_pixels and (begun is None or bool(begun.pending_shards()))


def open_further(
    store: Store,
    plan: Plan,
    spec: StoreSpec,
    versions: dict[str, str],
    look: Callable[[], Mapping[str, Any]] = dict,
) -> FurtherTeacher:
    """Make, or open to continue, the embeddings of a further teacher of a finished store.

    `look` gives attributes that decide nothing. It is called once all else is known to be right and before anything
    is written, and only where the embeddings are made: what it raises leaves the store as it was.

    Raises:
        StoreError: another plan; the same weights under another name; or it was begun with other settings.
    """
    name = spec.teacher["name"]
    folder = store.folder / FOLDER / folder_name(name)
    require_same(store, plan, store.spec)
    known = all_teachers(store)
    for other, stored in known.items():
        record = stored.spec.teacher
        if other != name and record["weights_sha256"] == spec.teacher["weights_sha256"]:
            raise StoreError(f"{store.folder} has embeddings of these weights already, of the teacher {other}")
        if other != name and folder_name(other) == folder.name:
            raise StoreError(f"{store.folder} has embeddings of {other}, in files of the name that those of {name} "
                             "would have. Choose another --out")  # fmt: skip
    if name not in known:
        notes = look()
        _make_folder(store)
        with new_arrays(folder, plan, spec, versions, FurtherTeacher.format_name, notes):
            pass
    teacher = FurtherTeacher(store, folder)
    require_same(teacher, plan, spec)
    remove_asides(folder)
    if name in known:
        say_other_versions(teacher)
    return teacher


def _make_folder(store: Store) -> None:
    """The Zarr group `teachers`, complete or absent."""
    folder = store.folder / FOLDER
    if folder.exists():
        return
    try:
        with interrupts.guard, new_folder(folder, "zarr.json") as aside:
            zarr_format.create_group(aside, {})
    except OSError as error:
        raise StoreError(f"cannot write to {store.folder}: {error.strerror or error}") from error


def made_with(store: Store) -> str:
    """The command that made, and continues, the embeddings of a store or of a further teacher in it."""
    return "import-features" if "imported" in store.spec.settings else "extract-teacher"


@dataclass(frozen=True)
class ChosenTeachers:
    """The teachers that a student is trained by.

    Attributes:
        stores: embeddings of each; the first one's projector is the student's `projector.safetensors`.
        weights: of their losses, with sum 1.
    """

    stores: tuple[Store, ...]
    weights: tuple[float, ...]

    @property
    def first(self) -> Store:
        """The first one's embeddings."""
        return self.stores[0]

    @property
    def further(self) -> list[tuple[Store, float]]:
        """The others' embeddings and weights."""
        return list(zip(self.stores[1:], self.weights[1:], strict=True))

    @property
    def views(self) -> Views:
        """The views that all of them have embedded; view k is the same whatever their number."""
        return Views(min(store.views.count for store in self.stores), self.first.views.seed)

    @property
    def names(self) -> list[str]:
        """Names of their encoders."""
        return [store.spec.teacher["name"] for store in self.stores]

    @property
    def widths(self) -> list[int]:
        """Widths of their embeddings."""
        return [store.width for store in self.stores]


def choose_teachers(store: Store, names: list[str] | None, weights: list[float] | None) -> ChosenTeachers:
    """The teachers of these names in their order; without names the store's only one.

    Raises:
        ConfigError: no such teacher, one twice, several to choose from, or weights that do not fit.
        StoreError: the embeddings of one, or the store, are not finished.
    """
    if not names:
        known = list(all_teachers(store))
        if len(known) > 1:
            raise ConfigError(f"{store.folder} has embeddings of {', '.join(known)}: say with --teacher which to learn "
                              "from; repeat it for several")  # fmt: skip
        names = known
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"--teacher {twice[0]} is given twice")
    shares = weights or [1.0] * len(names)
    if len(shares) != len(names):
        raise ConfigError(f"--teacher-weight: {len(shares)} weights for {len(names)} teachers; give each --teacher "
                          "one, in the same order, or none")  # fmt: skip
    if wrong := [share for share in shares if not 0 < share < float("inf")]:
        raise ConfigError(f"--teacher-weight {wrong[0]:g}: a weight is a number above 0. To learn nothing from a "
                          "teacher, leave it out")  # fmt: skip
    chosen, total = [find_teacher(store, name) for name in names], sum(shares)
    for each in (store, *chosen):
        if pending := each.pending_shards():
            raise StoreError(f"{each.folder} is not finished: {len(pending)} of {each.num_shards} shards are missing. "
                             f"Run {made_with(each)} again")  # fmt: skip
    teachers = ChosenTeachers(tuple(chosen), tuple(share / total for share in shares))
    if teachers.views.count > 1 and len({each.views.seed for each in chosen}) > 1:
        seeds = ", ".join(f"{each.views.seed} of {name}" for each, name in zip(chosen, names, strict=True))
        raise ConfigError(f"these teachers have embedded other views (--views-seed {seeds}): choose some of one seed")
    return teachers
