"""What a run starts from, as `run.json` records it, and which of it may differ when the run is continued.

Runs of several teachers came after runs of one, and those are still continued and compared. So the files of a run name
teachers in two ways, which only this module knows:

- `run.json` has the first teacher's record and the hash of its embeddings under "teacher" and "store", and all others
  with the weights of their losses under "further_teachers". The first one's weight is what these leave of 1.
- Lines of validations in `metrics.jsonl` name the teacher only if there are several.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from pipeline.base.draws import RUN_VERSION
from pipeline.base.versions import versions
from pipeline.config.base import RECIPE, differences
from pipeline.config.model_names import SCRATCH
from pipeline.config.recipes import Departure, departures
from pipeline.store.teachers import ChosenTeachers
from pipeline.training.held_out import ONLY


@dataclass(frozen=True)
class RecordedTeacher:
    """A teacher of a run.

    Attributes:
        record: what the encoder is.
        weight: of its loss; those of all teachers sum to 1.
        content: hash of its embeddings.
    """

    record: dict[str, Any]
    weight: float
    content: str

    @property
    def name(self) -> str:
        """Name of the encoder."""
        return str(self.record["name"])


def run_identity(
    teachers: ChosenTeachers,
    student: dict[str, Any],
    options: dict[str, Any],
    world_size: int,
    version: int = RUN_VERSION,
    start: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """What a run starts from and must match to be continued: options by value or by effect (`config.base.option`).

    `options` are those that decide by their value, with the precision that was chosen. `version` is the run's
    (`draws.RUN_VERSION`); `start` has the hashes of the projectors that it starts from, by teacher.
    """
    newer = {"version": version, "versions": versions()} if version > 1 else {}
    first, *further = [
        {"teacher": each.record, "weight": weight, "content": each.content_hash()}
        for each, weight in zip(teachers.stored, teachers.weights, strict=True)
    ]
    return (
        {
            **newer,
            "store": first["content"],
            "plan": teachers.first.plan_hash,
            "teacher": first["teacher"],
            "student": student,
            "options": options,
            "world_size": world_size,
        }
        | ({"further_teachers": further} if further else {})
        | ({"start": dict(start)} if start else {})
    )


def recipe_facts(
    recipe: str, plan: Mapping[str, Any], views: Sequence[Departure], options: Mapping[str, Any]
) -> dict[str, Any]:
    """What a run's record says of the recipe: its name, and where the resolved options of all stages depart from it,
    as plain values. It decides nothing, and stands beside what `run_identity` gives.

    Args:
        plan: all options of the plan.
        views: the departures of the store's views (`departures_of_views`).
        options: all of the run.
    """
    before = [*departures(recipe, "plan", plan), *views]
    departed = [*before, *departures(recipe, "train-student", options)]
    return {RECIPE: {"name": recipe, "departures": [asdict(each) for each in departed]}}


def recorded_departures(identity: Mapping[str, Any]) -> tuple[str, list[Departure]] | None:
    """The recipe of a run's record, and the departures from it; `None` if none was named, or by an earlier version.

    Raises:
        KeyError, TypeError, ValueError: the record is damaged.
    """
    if RECIPE not in identity:
        return None
    recorded = identity[RECIPE]
    return str(recorded["name"]), [Departure(**each) for each in recorded["departures"]]


def recorded_teachers(identity: Mapping[str, Any]) -> list[RecordedTeacher]:
    """The teachers that `run_identity` recorded, in their order.

    Raises:
        KeyError, TypeError, ValueError: the record is damaged.
    """
    further = [
        RecordedTeacher(each["teacher"], float(each["weight"]), each["content"])
        for each in identity.get("further_teachers", [])
    ]
    first_weight = 1.0 - sum(each.weight for each in further)
    return [RecordedTeacher(identity["teacher"], first_weight, identity["store"]), *further]


def require_sound_identity(identity: Mapping[str, Any]) -> None:
    """See that a run's record has a version and teachers such as this program writes.

    Raises:
        KeyError, TypeError, ValueError: it has not.
    """
    version = identity.get("version", 1)
    if type(version) is not int:
        raise TypeError(f"version is {version!r}")
    for name in ("versions", "start", "student", "options"):
        if not isinstance(identity.get(name, {}), dict):
            raise TypeError(f"{name} is {identity[name]!r}")
    for each in recorded_teachers(identity):
        if not (isinstance(each.record, dict) and each.name and math.isfinite(each.weight)):
            raise ValueError(f"a teacher is {each.record!r}, {each.weight:g} of the loss")
    recorded_departures(identity)


def loss_weights(identity: Mapping[str, Any]) -> dict[str, float]:
    """Weights of the losses by teacher, as lines of validations name them: the key is `ONLY` if there is one."""
    if not identity.get("further_teachers"):
        return {ONLY: 1.0}
    return {each.name: each.weight for each in recorded_teachers(identity)}


def named_in_lines(names: list[str]) -> list[dict[str, str]]:
    """What the line of a validation says of its teacher, for each of a run's teachers."""
    return [{"teacher": name} if len(names) > 1 else {} for name in names]


def random_start_differs(begun: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether all that differs in the student is its random initial weights, which the same seed no longer gives.

    Their last bits depend on the version of torch and on the processor. Checkpoints hold the weights, so a run can
    still continue from its own.
    """
    recorded, current = begun.get("student"), now.get("student")
    if not (isinstance(recorded, dict) and isinstance(current, dict)) or recorded.get("weights") != SCRATCH:
        return False
    lines = differences({"student": recorded}, {"student": current})
    return bool(lines) and all(line.startswith("student.weights_sha256:") for line in lines)
