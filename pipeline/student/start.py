"""What a run starts from: published or random weights, a file, or the student and projectors of a finished run.

The cosine schedule spans all steps, so a finished run cannot take more epochs. To train longer, start a new run from
the old one's student and projectors; it has its own warm-up, schedule and optimizer.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.base.errors import ConfigError, G2LError
from pipeline.cohort.leakage.exclusions import key_of
from pipeline.cohort.plan import Plan
from pipeline.config.model_names import PRETRAINED, SCRATCH, is_run, recorded_path
from pipeline.disk.objects.urls import as_url
from pipeline.encoders.build import BuiltEncoder, weights_hash
from pipeline.projector import Projector
from pipeline.report.content import AFTER
from pipeline.sampling import TRAIN, VAL
from pipeline.store.store import Store
from pipeline.student.exported import is_student, read_student
from pipeline.student.folder import changed_since_export
from pipeline.student.resolve import NamedModel, name_model
from pipeline.student.student_json import NOTHING_SEEN, SeenBeforeJson
from pipeline.student.weights_place import options_of_run, store_of_run
from pipeline.training.run_folder import RunFolder

UNKNOWN_PLAN = ""
"""Stands for the hash of the plan of a training that nothing is known of; no plan has it."""
MOST_BEFORE = 20
"""Runs, each begun from the one before it, that are looked at. Our choice: more than anybody makes."""


@dataclass(frozen=True)
class Start:
    """Where a run starts.

    Attributes:
        weights: what `build_encoder` takes.
        student: the student that it trains on, with its projectors; `None` for other weights.
        notes: for the user.
    """

    weights: str | Path
    student: NamedModel | None = None
    notes: tuple[str, ...] = ()

    def changed(self, built: BuiltEncoder) -> str:
        """A warning that the weights of the student are not those that its folder was written with; else ""."""
        if self.student is None or self.student.student is None:
            return ""
        return changed_since_export(self.student.student, built, weights_only=True)

    def projectors(self, teachers: Sequence[tuple[str, str]]) -> tuple[dict[str, Projector], list[str]]:
        """Projectors of the student into the spaces of those of the `teachers` (names and hashes of their weights) that
        it was distilled from, by name; and a note on each of the others.
        """
        projectors: dict[str, Projector] = {}
        if self.student is None:
            return projectors, []
        notes = []
        for name, weights_sha256 in teachers:
            projector = self.student.projector_into(weights_sha256)
            if projector is None:
                notes.append(
                    f"note: the projector into the space of {name} starts anew: {self.student.label} was not distilled "
                    "from these weights, as far as is known"
                )
            else:
                projectors[name] = projector
        return projectors, notes


def find_start(weights: str) -> Start:
    """What the option `--weights` of a run names.

    Raises:
        ConfigError: a run that is not finished.
    """
    folder = Path(weights)
    if weights in (PRETRAINED, SCRATCH) or not folder.is_dir():
        return Start(weights)
    if is_run(folder) and not RunFolder(folder).student.is_dir():
        raise ConfigError(f"--weights {folder}: this run is not finished and has no student yet; continue it first")
    if not is_run(folder) and not is_student(folder):
        return Start(folder)
    model = name_model(str(folder), None, option="--weights")
    notes = (f"note: {model.note}",) if model.note else ()
    return Start(folder, model if model.role == AFTER else None, notes)


def seen_before(start: Start, plan: Plan) -> SeenBeforeJson:
    """What is known of held-out cases of `plan` that the student was trained on before.

    Asked are the plan of the run that it is of, that of the run that this one was begun from, and so on, as far as the
    stores of these are still there. An exported student names its plan only by the hash, and says what was known when
    it was trained.
    """
    held_out = _names_of(plan, VAL)
    cases = set(held_out.values())
    runs = [(plan_hash, run) for plan_hash, run in _trainings(start) if plan_hash != plan.hash]
    others = [None if run is None else _plan_of(run, plan_hash) for plan_hash, run in runs]
    trained = {name for before in others if before for pair in _names_of(before, TRAIN).items() for name in pair}
    shared = (cases & trained) | {case for slide, case in held_out.items() if slide in trained}
    recorded = _recorded(start.student, plan.hash)
    is_unknown = bool(cases) and (None in others or recorded.is_unknown)
    shared_cases = max(len(shared), recorded.shared)
    return SeenBeforeJson(cases=len(cases), shared=shared_cases, is_unknown=is_unknown)


def _recorded(student: NamedModel | None, plan_hash: str) -> SeenBeforeJson:
    """What `student.json` says of the held-out cases of that plan, if it is the one that the student was trained on."""
    if student is None or student.plan_hash != plan_hash or student.student is None or not is_student(student.student):
        return NOTHING_SEEN
    described = read_student(student.student).described
    return (described.training.seen_before if described else None) or NOTHING_SEEN


def _names_of(plan: Plan, split: int) -> dict[str, str]:
    """The slides of a plan with rows of a split, each with its case, as other plans may name them."""
    slides = [slide for slide in plan.slides if (slide.split == split).any()]
    return {f"slide {slide.slide_id}": key_of(slide.case_id) for slide in slides}


def _trainings(start: Start) -> Iterator[tuple[str, RunFolder | None]]:
    """The trainings that a student has behind it, the last one first: the hash of the plan, and the run, or `None` if
    it is not at hand. `UNKNOWN_PLAN` is that of a student that one of them was begun from, and that is gone.
    """
    for _ in range(MOST_BEFORE):
        if start.student is None:
            return
        run = _run_of(Path(start.weights))
        yield start.student.plan_hash, run
        if run is None:
            return
        before = _begun_from(run)
        if before is None:
            yield UNKNOWN_PLAN, None
            return
        start = before


def _begun_from(run: RunFolder) -> Start | None:
    """Where a run was begun; `None` if that was a student which is gone, or cannot be read."""
    options = options_of_run(run)
    weights = str(options.get("weights", SCRATCH))
    if weights not in (PRETRAINED, SCRATCH):
        weights = str(recorded_path(weights, run.config_path, str(options.get("out", ""))))
    try:
        start = find_start(weights)
        was_student = "start" in run.read_identity()
    except G2LError:
        return None
    return None if was_student and start.student is None else start


def _run_of(folder: Path) -> RunFolder | None:
    """The run that a folder is, or whose student it is; `None` of an exported one."""
    places = [place for place in (folder, folder.absolute().parent) if is_run(place)]
    run = RunFolder(places[0]) if places else None
    return run if run is not None and folder.absolute() in (run.folder.absolute(), run.student.absolute()) else None


def _plan_of(run: RunFolder, plan_hash: str) -> Plan | None:
    """The plan that a run learnt from, if its store is still there and has that plan."""
    store = store_of_run(run)
    if store is None or as_url(store):
        return None
    try:
        plan = Store(store).first.plan
    except G2LError:
        return None
    return plan if plan.hash == plan_hash else None


def projector_hash(projector: Projector) -> str:
    """Hex SHA-256 of the part of a projector that a run starts from."""
    return hashlib.sha256(weights_hash(projector.linear).encode()).hexdigest()


@torch.no_grad()
def continue_projector(projector: Projector, start: Projector) -> None:
    """Take the map and the running statistics of `start`; those of the teacher are the new run's own.

    Raises:
        ConfigError: it maps between other widths.
    """
    if projector.linear.weight.shape != start.linear.weight.shape:
        was, now = ("x".join(map(str, p.linear.weight.shape)) for p in (start, projector))
        raise ConfigError(
            f"--weights: its projector is of {was}, this run needs {now}; start from its weights alone, "
            "model.safetensors"
        )
    projector.linear.load_state_dict(start.linear.state_dict())
    projector.student_norm.load_state_dict(start.student_norm.state_dict())
