"""The demo: both stages on a real slide, scored on held-out patches, and a report that compares teacher and student; a
few minutes on two cores.

One slide cannot be split by case, so a strip in its middle is held out, with a gap on both sides. The demo shows that
the pipeline works and that the student learns its teacher's view of tissue. A student of one slide is useless beyond
it.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from pipeline.base.console import say, table
from pipeline.base.cores import usable_cores
from pipeline.base.errors import EXIT_ERROR, EXIT_OK, G2LError, PlanError
from pipeline.base.loader import one_by_one
from pipeline.base.outside import read_json, reading
from pipeline.base.units import format_bytes, format_seconds, format_share
from pipeline.cohort.manifest.read import read_manifest, write_manifest
from pipeline.cohort.manifest.rows import ManifestRow
from pipeline.cohort.plan import Plan
from pipeline.cohort.plan_hdf5 import read_plan, write_plan
from pipeline.config.base import Config
from pipeline.config.model_names import FOLDER_PREFIX, PRETRAINED, SCRATCH
from pipeline.config.plan import PlanConfig
from pipeline.config.recipes import with_recipe
from pipeline.config.stages import ExtractConfig, TrainConfig
from pipeline.demo_data import SLIDE_NAME, SLIDE_SHA256, TEACHER_MODEL, convert_teacher_weights, fetch_slide
from pipeline.disk.asides import remove_asides
from pipeline.disk.files import make_output_folder, write_json
from pipeline.disk.locks import exclusive
from pipeline.encoders.build import BuiltEncoder, build_encoder
from pipeline.encoders.embed import embed_rows
from pipeline.evaluate.options.config import evaluate_config
from pipeline.report.sheets import draw_neighbours
from pipeline.sampling import TRAIN, VAL
from pipeline.store.store import StoredTeacher
from pipeline.training.held_out import FIGURES, figures_of
from stages.evaluate import evaluate
from stages.evaluate import summary as report_summary
from stages.extract_teacher import extract_teacher
from stages.plan import plan_slides
from stages.reports.extract import Extracted
from stages.reports.plan import estimate
from stages.reports.train import Trained
from stages.train_student import train_student
from stages.verify import verify_store

STUDENT = "lcnet_050"
"""PP-LCNet 0.5x: 0.60 M parameters, an eighth of the teacher's; trains on a CPU in minutes."""
DEMO_RECIPE = "paper"
"""What the demo does not say otherwise is the paper's: decision 0044."""
PLAN = {"patch_px": 112, "tile_px": 128, "stride_px": 48, "val_strip": 0.2}
"""Half the usual patch: the slide has 0.6 mm2 of tissue, a few dozen whole patches of 224 px but four times as many of
112 px."""
EXTRACTION = {"views": 5}
"""The patch itself and four views, in place of one for each epoch: the teacher takes a minute."""
TRAINING: dict[str, Any] = {"weights": SCRATCH, "epochs": 32, "lr": 3e-3, "val_every": 10}
"""A student without published weights takes more epochs, and a larger learning rate."""
ROWS_PER_SHARD = 128

MUST_GAIN = {"retrieval_top1": 0.01, "neighbour_overlap": 0.05, "cka": 0.2, "correlation_mean": 0.1, "r2_scaled": 0.03}
"""Smallest gains of the held-out figures for the demo to succeed. Our choice: about half of the usual gains."""

COST: dict[str, Any] = {"cost_batch_sizes": [32], "cost_rounds": 5}

SHEET_QUERIES, SHEET_NEIGHBOURS = 6, 4

T = TypeVar("T")
C = TypeVar("C", bound=Config)


class Stopwatch:
    """Times each stage in seconds; kept in a file, so that a repeated demo still shows the times of its stages."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.seconds: dict[str, float] = {}
        if path.exists():
            with reading(path, "damaged", G2LError, "Delete it"):
                self.seconds = {name: float(value) for name, value in read_json(path).items()}

    def run(self, name: str, work: Callable[[], T], did_something: Callable[[T], bool] = lambda _: True) -> T:
        """Run `work`, and add its time unless it had nothing to do."""
        say(f"demo: {name}")
        started = time.monotonic()
        result = work()
        if did_something(result):
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started
            write_json(self._path, self.seconds)
        return result


def run_demo(out: Path) -> int:
    """Run or continue the demo in the folder `out`; returns the exit code."""
    with exclusive(out, "g2l demo"):
        make_output_folder(out)
        remove_asides(out)
        return _run_demo(out)


def _run_demo(out: Path) -> int:
    watch = Stopwatch(out / "seconds.json")
    slide = fetch_slide()
    weights = convert_teacher_weights()
    plan = watch.run("plan", lambda: make_plan(out, slide.parent))
    extraction = {"teacher": TEACHER_MODEL, "weights": weights, "rows_per_shard": ROWS_PER_SHARD}
    extract_config = by_recipe(ExtractConfig, "extract-teacher", EXTRACTION | extraction)
    extracted = watch.run(
        "stage one: extract-teacher",
        lambda: extract_teacher(plan, out / "store.zarr", extract_config),
        lambda result: result.num_new_rows > 0,
    )
    train_config = by_recipe(TrainConfig, "train-student", {"student": STUDENT} | TRAINING)
    trained = watch.run(
        "stage two: train-student",
        lambda: train_student(extracted.store, out / "run", train_config),
        lambda result: result.num_new_steps > 0,
    )
    verified, verify_code = verify_store(out / "store.zarr", weights, sample=32, device_name="auto")
    say("demo: pictures")
    draw_neighbour_sheet(extracted.teacher, trained, out / "neighbours.png")
    run = out / "run"
    models = [f"teacher={TEACHER_MODEL}@{weights}", f"student before={run}@before", f"student after={run}"]
    config = evaluate_config().build({"models": models, "store": out / "store.zarr", **COST})
    report = watch.run("report: evaluate", lambda: evaluate(out / "report", config))
    print(closing_tables(plan, extracted, trained, watch.seconds, out))
    print("\n" + report_summary(report, out / "report"))
    print(f"\n{verified}")
    missed = missed_gains(trained)
    for line in missed:
        print(f"NOT IMPROVED: {line}")
    return EXIT_OK if verify_code == EXIT_OK and not missed else EXIT_ERROR


def by_recipe(config: type[C], command: str, options: dict[str, Any]) -> C:
    """The options of a command by the demo's recipe, with these options in place of the recipe's."""
    return with_recipe(config, {"recipe": DEMO_RECIPE} | options, command)


def make_plan(out: Path, slides: Path) -> Plan:
    """Write manifest, plan, audit and overlay of the demo slide; returns the plan.

    Raises:
        PlanError: `out` holds another plan.
    """
    manifest_path, plan_path = out / "manifest.csv", out / "plan.h5"
    row = ManifestRow(
        slide_id="CMU-1-Small-Region",
        path=SLIDE_NAME,
        case_id="CMU-1",
        center="CMU",
        mpp=None,
        split=None,
        sha256=SLIDE_SHA256,
        labels={},
        line=0,
    )
    write_manifest(manifest_path, [row])
    manifest = read_manifest(manifest_path, slides)
    config = by_recipe(PlanConfig, "plan", {"slides_root": slides} | PLAN)
    before = read_plan(plan_path) if plan_path.exists() else None
    if before is not None:
        config = config.continuing(before.config)
    audit_csv = out / "plan.audit.csv"
    plan = plan_slides(manifest, config, workers=usable_cores(), overlays=out / "overlays", audit_csv=audit_csv)
    if before is not None:
        plan = plan.as_known_to(before)
        if before.hash != plan.hash:
            raise PlanError(f"{plan_path} is a different plan. Delete {out}, or choose another --out")
    write_plan(plan, plan_path)
    say(estimate(plan, width=None, rows_per_shard=ROWS_PER_SHARD))
    return plan


def missed_gains(trained: Trained) -> list[str]:
    """Describe the held-out figures that gained less than `MUST_GAIN`."""
    if not trained.held_out:
        return ["too few held-out rows to score"]
    ((before, after),) = trained.held_out.values()
    gains = {name: after[name] - before[name] for name in MUST_GAIN}
    return [
        f"{name} gained {gain:.3f}, should gain at least {MUST_GAIN[name]}"
        for name, gain in gains.items()
        if not gain >= MUST_GAIN[name]
    ]


def closing_tables(plan: Plan, extracted: Extracted, trained: Trained, seconds: dict[str, float], out: Path) -> str:
    """The tables shown at the end."""
    stored = extracted.teacher
    teacher, student = stored.record, trained.run.read_identity()["student"]
    sizes: dict[str, int] = {}
    for _, entry in stored.ledger.entries():
        for name, file in (entry or {"files": {}})["files"].items():
            kind = name.split("/")[0]
            sizes[kind] = sizes.get(kind, 0) + file["bytes"]
    before, after = next(iter(trained.held_out.values()), ({}, {}))
    gap = sum(row.patches_available for row in plan.audit) - plan.num_rows
    parts = f"{plan.count(TRAIN)} to train on, {plan.count(VAL)} held out; {gap} between them left out"
    rows: list[tuple[str, object, object]] = [
        ("patches", f"{plan.num_rows:,}", parts),
        ("shards", stored.num_shards, f"of {stored.rows_per_shard} rows"),
        ("bytes", format_bytes(sum(sizes.values())), ", ".join(f"{k} {format_bytes(v)}" for k, v in sizes.items())),
        ("teacher", f"{teacher['num_params'] / 1e6:.2f} M", f"parameters: {teacher['name']}, {teacher['width']}-d"),
        (
            "student",
            f"{student['num_params'] / 1e6:.2f} M",
            f"parameters: {student['name']}, {student['width']}-d, "
            f"{format_share(student['num_params'] / teacher['num_params'], 1)} of the teacher's",
        ),
        *((name, format_seconds(value), "") for name, value in seconds.items()),
    ]
    figures = [(FIGURES[key], f"{before[key]:.3f}", f"{after[key]:.3f}") for key in figures_of(after) if key != "loss"]
    places = [
        ("overlay", out / "overlays" / "CMU-1-Small-Region.png"),
        ("curves", trained.run.curves_path),
        ("neighbours", out / "neighbours.png"),
        ("store", stored.folder),
        ("student", trained.run.student),
    ]
    chance = 1 / plan.count(VAL)
    return "\n\n".join(
        [
            table(rows, right=(1,)),
            table(figures, (f"on {after['rows']:,} held-out patches", "before", "after"), right=(1, 2))
            + f"\nBy chance, top-1 is {chance:.3f} and correlations are 0. R2 is the share of the teacher's"
            "\nvariance that is explained: 0 is the mean of all patches. The linear map is fitted on the"
            "\ntraining patches.",
            table(places),
        ]
    )


def draw_neighbour_sheet(teacher: StoredTeacher, trained: Trained, path: Path) -> None:
    """Held-out patches with their nearest neighbours under teacher, untrained and trained student.

    Skips patches that overlap the query or a nearer neighbour: they would be found for the overlap alone.
    """
    rows = teacher.ok_rows(VAL)
    patches = [teacher.store.read_patch(int(row)) for row in rows]
    student = trained.run.read_identity()["student"]
    seed = TrainConfig(student=STUDENT).seed
    untrained = build_encoder(student["name"], SCRATCH, student["patch_px"], seed=seed)
    exported = build_encoder(f"{FOLDER_PREFIX}{trained.run.student}", PRETRAINED, student["patch_px"])
    embeddings = {
        "teacher": np.stack([teacher.read_embedding(int(row)) for row in rows]),
        "student, untrained": embed_patches(untrained, patches),
        "student, trained": embed_patches(exported, patches),
    }
    side = teacher.plan.slides[0].geometry.patch_l0_px
    coords = teacher.plan.coords()[rows]
    queries = spread_out(coords, side, SHEET_QUERIES)
    nearest = {
        name: [neighbours(values, coords, side, query) for query in queries] for name, values in embeddings.items()
    }
    columns = {
        name: [
            [(patches[n], name != "teacher" and overlaps_any(coords, side, n, nearest["teacher"][i])) for n in indices]
            for i, indices in enumerate(per_query)
        ]
        for name, per_query in nearest.items()
    }
    title = (
        "Held-out patches and their nearest neighbours (none overlapping); green: a place that the teacher finds, too"
    )
    draw_neighbours([patches[query] for query in queries], columns, title, path)


def embed_patches(encoder: BuiltEncoder, patches: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Embeddings of patches, each uint8 (P, P, 3), on the CPU: float32 (N, D)."""

    def read(index: int, out: NDArray[np.uint8]) -> None:
        out[:] = patches[index]

    return embed_rows(
        encoder.module,
        one_by_one(read),
        range(len(patches)),
        patch_px=len(patches[0]),
        batch_size=32,
        workers=usable_cores(),
        device=torch.device("cpu"),
        precision="float32",
        what="embedding",
    )


def overlaps(coords: NDArray[np.int64], side: float, index: int) -> NDArray[np.bool_]:
    """Which patches overlap patch `index`; bool (N,)."""
    close: NDArray[np.bool_] = np.abs(coords - coords[index]).max(axis=1) < side
    return close


def overlaps_any(coords: NDArray[np.int64], side: float, index: int, others: list[int]) -> bool:
    """Whether patch `index` covers mostly the same tissue as one of `others`."""
    return bool((np.abs(coords[others] - coords[index]).max(axis=1) < side / 2).any())


def spread_out(coords: NDArray[np.int64], side: float, count: int) -> list[int]:
    """Choose `count` patches far from each other: each one is the farthest from those before it."""
    chosen = [0]
    while len(chosen) < count:
        distance = np.min([np.abs(coords - coords[i]).max(axis=1) for i in chosen], axis=0)
        chosen.append(int(distance.argmax()))
    return chosen


def neighbours(embeddings: NDArray[np.float32], coords: NDArray[np.int64], side: float, query: int) -> list[int]:
    """Nearest patches by cosine that overlap neither the query nor each other, nearest first."""
    values = torch.from_numpy(embeddings)
    normal = F.normalize(values - values.mean(0), dim=1)
    order = (normal @ normal[query]).argsort(descending=True, stable=True).tolist()
    free = ~overlaps(coords, side, query)
    chosen: list[int] = []
    for candidate in order:
        if free[candidate] and len(chosen) < SHEET_NEIGHBOURS:
            chosen.append(candidate)
            free &= ~overlaps(coords, side, candidate)
    return chosen
