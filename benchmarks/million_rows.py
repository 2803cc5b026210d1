"""A store of a million rows: how long it takes to open, the memory that stage two holds a row, and the first new step
of a run that is continued.

Each figure is of a process of its own that does what `g2l train-student` does, and beside it that of a store of few
rows, made alike:
    open     `Store`, its plan checked against its hash, teachers and rows chosen: seconds after the imports
    memory   peak resident bytes (VmHWM) from the start of the process to the first new step of a continued run, those
             of the small store taken off, divided by the rows that the large one has more: libraries, model, buffers
             and open shards count for nothing
    resume   from the start of the process, imports included, to the end of the first new step
The store is synthesised: slides of a thousand rows, small patches of a few distinct images, random embeddings. None of
the three depends on what the pixels show; the smaller patch makes only the reading of three batches shorter. Files are
in the page cache, as after a copy; on a cold disk add the time to read the ledger and the plan (about 20 MB).
"""

import json
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import machine

NEEDED_OPEN_S, NEEDED_ROW_BYTES, NEEDED_RESUME_S = 2.0, 16.0, 5.0
"""From the issue."""
SMALL = 140_000
"""Enough for as many open shard files as there may be."""
ROWS_PER_SLIDE = 1000
ROWS_PER_SHARD = 2048
PATCH_PX = 32
WIDTH = 384
STUDENT = "lcnet_050"
STEPS_BEFORE = 4
"""Steps before the run is stopped; there is a checkpoint after each two."""


def make(folder: Path, num_rows: int) -> None:
    """A finished store, and a run on it that was stopped after a few steps."""
    import inputs  # noqa: F401  (it makes the tests' support importable)
    import numpy as np
    from support.stores import TEACHER, make_patches, plan_of_rows

    from pipeline.base.images import encode_image
    from pipeline.base.versions import versions
    from pipeline.store.create import create_store
    from pipeline.store.format import Status, StoreSpec
    from pipeline.store.patches import PatchRead
    from pipeline.store.store import Store
    from pipeline.store.writer import StoreWriter

    num_slides = num_rows // ROWS_PER_SLIDE
    plan = plan_of_rows([ROWS_PER_SLIDE] * (num_slides - 2), [ROWS_PER_SLIDE] * 2, PATCH_PX)
    teacher = TEACHER.record() | {"width": WIDTH, "weights": "none", "weights_sha256": "0" * 64, "num_params": 1}
    settings = {"rows_per_shard": ROWS_PER_SHARD, "pixels": "jpegxl", "dtype": "float16", "precision": "float32"}
    create_store(folder / "store.zarr", plan, StoreSpec(teacher, settings | {"batch_size": 64}), versions())
    store = Store(folder / "store.zarr")
    reads = [PatchRead(Status.OK, encode_image(patch, "jpegxl")) for patch in make_patches(64, PATCH_PX)]
    embeddings = np.random.default_rng(0).normal(size=(ROWS_PER_SHARD, WIDTH)).astype(np.float32)
    with StoreWriter(store.first, lambda row: {"row": row, "slide_id": "?", "x": 0, "y": 0}, "benchmark") as writer:
        for shard in range(store.first.num_shards):
            rows = store.first.ledger.rows(shard)
            writer.put(rows, embeddings[: len(rows)], [reads[row % len(reads)] for row in rows])
    train(folder, STEPS_BEFORE)


def train(folder: Path, num_steps: int) -> float:
    """Begin or continue the run, as the command does; stops it after so many new steps, and says when that was."""
    from pipeline.config.stages import TrainConfig
    from pipeline.store.store import Store

    stage: Any = import_module("stages.train_student")

    class EnoughError(Exception):
        """The run has done its steps."""

    done: list[float] = []
    step = stage.write_steps

    def counted(*arguments: Any) -> None:
        step(*arguments)
        done.append(time.time())

    def checkpointed(*arguments: Any) -> None:
        save(*arguments)
        if len(done) >= num_steps // 2:
            raise EnoughError

    save, stage.write_steps, stage.save = stage.save, counted, checkpointed
    train_step = stage.train_step
    first: list[float] = []

    def timed(*arguments: Any, **options: Any) -> Any:
        result = train_step(*arguments, **options)
        first.append(time.time())
        return result

    stage.train_step = timed
    config = TrainConfig(
        student=STUDENT, weights="scratch", epochs=2, batch_size=64, val_rows=256, device="cpu", checkpoint_every=2
    )
    try:
        stage.train_student(Store(folder / "store.zarr"), folder / "run", config)
    except EnoughError:
        return first[0]
    raise RuntimeError("the run ended by itself")


def open_store(folder: Path) -> float:
    """Seconds to open the store and to choose the rows."""
    from pipeline.store.store import Store
    from pipeline.store.teachers import choose_teachers
    from pipeline.training.rows.choice import choose_rows

    begun = time.perf_counter()
    teachers = choose_teachers(Store(folder / "store.zarr"), None, None)
    choose_rows(teachers.stored, batch_size=64, val_rows=256, seed=0)
    return time.perf_counter() - begun


def run_child(what: str, folder: Path, argument: str) -> None:
    """One measurement; prints it as JSON."""
    import pipeline  # noqa: F401  (before torch, as in the command)

    if what == "make":
        make(folder, int(argument))
        print("{}")
    elif what == "open":
        print(json.dumps({"seconds": open_store(folder)}))
    else:
        seconds = train(folder, 2) - float(argument)
        print(json.dumps({"seconds": seconds, "peak": machine.peak_resident_bytes()}))


def child(*arguments: str) -> dict[str, float]:
    """This script in a process of its own; what it prints last, as JSON."""
    done = subprocess.run([sys.executable, __file__, "--child", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> int:
    """Measure and print."""
    if sys.argv[1:2] == ["--child"]:
        what, place, argument = sys.argv[2:]
        run_child(what, Path(place), argument)
        return 0
    parser = machine.parser(__doc__, rounds=3)
    parser.add_argument("--num-rows", type=int, default=1_000_000, help="rows of the large store [%(default)s]")
    parser.add_argument("--folder", type=Path, help="keep the stores here, and use those that are there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folders = {rows: (args.folder or Path(scratch)) / str(rows) for rows in (SMALL, args.num_rows)}
        for rows, folder in folders.items():
            if not (folder / "run").exists():
                folder.mkdir(parents=True)
                child("make", str(folder), str(rows))
        opened: dict[int, list[float]] = {rows: [] for rows in folders}
        resumed: dict[int, list[dict[str, float]]] = {rows: [] for rows in folders}
        for _ in range(args.rounds):
            for rows, folder in folders.items():
                opened[rows].append(child("open", str(folder), "")["seconds"])
                resumed[rows].append(child("resume", str(folder), str(time.time())))
    seconds = {rows: median(each["seconds"] for each in runs) for rows, runs in resumed.items()}
    peaks = {rows: median(each["peak"] for each in runs) for rows, runs in resumed.items()}
    row_bytes = (peaks[args.num_rows] - peaks[SMALL]) / (args.num_rows - SMALL)
    for rows in folders:
        print(
            f"{rows:,} rows: opens in {median(opened[rows]):.2f} s; first new step of a continued run after "
            f"{seconds[rows]:.2f} s; peak {peaks[rows] / 1e6:.0f} MB"
        )
    print(f"opening: {median(opened[args.num_rows]):.2f} s (needs <= {NEEDED_OPEN_S:g})")
    print(f"memory: {row_bytes:.1f} bytes a row (needs <= {NEEDED_ROW_BYTES:g})")
    print(f"first new step: {seconds[args.num_rows]:.2f} s (needs <= {NEEDED_RESUME_S:g})")
    met = median(opened[args.num_rows]) <= NEEDED_OPEN_S and row_bytes <= NEEDED_ROW_BYTES
    return 0 if met and seconds[args.num_rows] <= NEEDED_RESUME_S else 1


if __name__ == "__main__":
    sys.exit(main())
