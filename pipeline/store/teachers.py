"""The teachers of a store that a student learns from, and what the commands ask of a store's teachers."""

from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.base.errors import ConfigError, StoreError
from pipeline.cohort.views.views import Views
from pipeline.disk.raw_arrays import METADATA
from pipeline.store.store import Store, StoredTeacher


def needs_slides(folder: Path, name: str, num_views: int = 1) -> bool:
    """Whether the teacher of that name needs slides: for rows that are not done, unless the store has their pixels.

    `num_views` counts those that may be made in rounds.
    """
    if not (folder / METADATA).exists():
        return True
    store = Store(folder)
    if store.first.ledger.pending():
        return True
    teacher = store.teachers.get(name)
    if store.has_pixels:
        return False
    return teacher is None or bool(teacher.ledger.pending()) or teacher.views_at_hand.count < num_views


def made_with(teacher: StoredTeacher) -> str:
    """The command that made the embeddings of a teacher."""
    return "import-features" if "imported" in teacher.settings else "extract-teacher"


def continued_with(teacher: StoredTeacher) -> str:
    """The command that continues the embeddings of a teacher; of a part, which the user must say again, with that."""
    return f"{made_with(teacher)} --part {teacher.part}" if teacher.part else made_with(teacher)


@dataclass(frozen=True)
class ChosenTeachers:
    """The teachers that a student is trained by.

    Attributes:
        stored: embeddings of each; the first one's projector is the student's `projector.safetensors`.
        weights: of their losses, with sum 1.
    """

    stored: tuple[StoredTeacher, ...]
    weights: tuple[float, ...]

    @property
    def first(self) -> StoredTeacher:
        """The first one's embeddings."""
        return self.stored[0]

    @property
    def views(self) -> Views:
        """The views that all of them have embedded; view k is the same whatever their number."""
        return replace(self.first.views, count=min(teacher.views.count for teacher in self.stored))

    @property
    def views_at_hand(self) -> Views:
        """The views that all of them have embedded, those of finished rounds among them. Looked up anew each time."""
        at_hand = [teacher.views_at_hand for teacher in self.stored]
        return replace(at_hand[0], count=min(views.count for views in at_hand))

    @property
    def names(self) -> list[str]:
        """Names of their encoders."""
        return [teacher.name for teacher in self.stored]

    @property
    def widths(self) -> list[int]:
        """Widths of their embeddings."""
        return [teacher.width for teacher in self.stored]


def choose_teachers(store: Store, names: list[str] | None, weights: list[float] | None) -> ChosenTeachers:
    """The teachers of these names in their order; without names the store's only one.

    Raises:
        ConfigError: no such teacher, one twice, several to choose from, or weights that do not fit.
        StoreError: the embeddings of one, or the store, are not finished.
    """
    if not names:
        names = list(store.teachers)
        if len(names) > 1:
            raise ConfigError(
                f"{store.place} has embeddings of {', '.join(names)}: say with --teacher which to learn "
                "from; repeat it for several"
            )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"--teacher {twice[0]} is given twice")
    shares = choose_shares(weights, len(names))
    stored = tuple(store.teacher(name) for name in names)
    for teacher in (store.first, *stored):
        if teacher.part is not None:
            raise StoreError(
                f"{teacher.place} is part {teacher.part} of a store: make one store of all parts with `g2l merge`"
            )
        if pending := teacher.ledger.pending():
            raise StoreError(
                f"{teacher.place} is not finished: {len(pending)} of {teacher.num_shards} shards are "
                f"missing. Run {continued_with(teacher)} again"
            )
    teachers = ChosenTeachers(stored, shares)
    require_same_views(teachers)
    return teachers


def require_same_views(teachers: ChosenTeachers) -> None:
    """See that view k of all teachers is the same.

    Raises:
        ConfigError: it is not; says what each has embedded.
    """
    at_hand = {teacher.name: teacher.views_at_hand for teacher in teachers.stored}
    if min(views.count for views in at_hand.values()) == 1:
        return
    if len({views.seed for views in at_hand.values()}) > 1:
        seeds = ", ".join(f"{views.seed} of {name}" for name, views in at_hand.items())
        raise ConfigError(f"these teachers have embedded other views (--views-seed {seeds}): choose some of one seed")
    if len({views.strength for views in at_hand.values()}) > 1:
        strengths = ", ".join(f"{views.strength} of {name}" for name, views in at_hand.items())
        raise ConfigError(
            f"these teachers have embedded other views (--views-strength {strengths}): choose some of one strength"
        )


def choose_shares(weights: list[float] | None, count: int) -> tuple[float, ...]:
    """The weights of the losses of `count` teachers, with sum 1; equal ones without `weights`.

    Raises:
        ConfigError: another number of weights, or one that is not above 0.
    """
    shares = weights or [1.0] * count
    if len(shares) != count:
        raise ConfigError(
            f"--teacher-weight: {len(shares)} weights for {count} teachers; give each --teacher "
            "one, in the same order, or none"
        )
    if wrong := [share for share in shares if not 0 < share < float("inf")]:
        raise ConfigError(
            f"--teacher-weight {wrong[0]:g}: a weight is a number above 0. To learn nothing from a "
            "teacher, leave it out"
        )
    total = sum(shares)
    return tuple(share / total for share in shares)
