"""Peak resident memory of both stages at 4 and at 32 shards of the same rows-per-shard.

Nothing that a stage holds may grow with the number of rows, but for the plan itself and a few bytes a row (order,
split). Each figure is the peak (VmHWM, which the kernel keeps for each program) of a process of its own that runs the
stage as the command does, from plan or store on disk to the end. Fair because the two sizes differ in nothing but the
number of rows: same slide file, same model, same batches, same shards, same number of held-out rows scored. The page
cache is not in it.

Most of a peak is libraries and model, which would hide a small growth in the ratio of peaks. So the script also prints
the growth in bytes a row; a decoded patch has 150 kB and an encoded one 60 kB, so that keeping either would be seen at
once. A peak also creeps up by a few per cent over the first hundred steps or so, whatever the rows, as the allocator's
arenas fill; to tell the two apart, stage two is run at 4 shards over as many steps as 32 shards take.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import machine

NEEDED = 1.1
"""Our choice: equal runs differ by up to 5 %; keeping the decoded patches of the additional 3,584 rows (540 MB) would
add 34 % or more; keeping encoded ones would add 14 to 20 %, and shows in the growth a row.
"""
NEEDED_GROWTH_BYTES = 40_000
"""Our choice: keeping encoded patches would add 60 kB a row, decoded ones 150 kB; equal runs differ by about 20 kB a
row.
"""
SHARDS = (4, 32)
ROWS_PER_SHARD = 128
TEACHER, STUDENT = "lcnet_050", "lcnet_050"
VAL_ROWS = 32


def prepare(folder: Path) -> None:
    """Slide, plans and weights; in a process of its own, whose memory does not count."""
    import inputs

    from pipeline.cohort.plan_hdf5 import write_plan

    for shards in SHARDS:
        plan = inputs.make_plan(folder, shards * ROWS_PER_SHARD, size_px=48_000, val_strip=0.1)
        write_plan(plan, folder / f"{shards}.h5")
    inputs.make_weights(folder, TEACHER)


def stage_one(folder: Path, shards: int) -> None:
    """Stage one, as `g2l extract-teacher` runs it."""
    from pipeline.cohort.plan_hdf5 import read_plan
    from pipeline.config.stages import ExtractConfig
    from stages.extract_teacher import extract_teacher

    config = ExtractConfig(
        teacher=TEACHER, weights=folder / f"{TEACHER}.safetensors", device="cpu", rows_per_shard=ROWS_PER_SHARD
    )
    done = extract_teacher(read_plan(folder / f"{shards}.h5"), folder / f"{shards}.zarr", config)
    assert done.num_failed == 0
    assert done.teacher.num_shards == shards


def stage_two(folder: Path, shards: int, epochs: int = 1) -> None:
    """Stage two, as `g2l train-student` runs it."""
    from pipeline.config.stages import TrainConfig
    from pipeline.store.store import Store
    from stages.train_student import train_student

    config = TrainConfig(
        student=STUDENT, weights="scratch", epochs=epochs, batch_size=32, val_rows=VAL_ROWS, device="cpu", lr=1e-3
    )
    train_student(Store(folder / f"{shards}.zarr"), folder / f"run-{shards}-{epochs}", config)


def stage_two_as_long(folder: Path, shards: int) -> None:
    """Stage two over as many steps as it takes for the largest store once."""
    stage_two(folder, shards, epochs=SHARDS[-1] // shards)


AS_LONG = "stage two, as many steps"
STAGES = {"stage one": stage_one, "stage two": stage_two, AS_LONG: stage_two_as_long}


def child(arguments: list[str]) -> dict[str, int]:
    """This script in a process of its own; what it prints last, as JSON."""
    done = subprocess.run([sys.executable, __file__, "--child", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr}")
    figures: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return figures


def run_child(what: str, folder: Path, shards: int) -> None:
    """One measurement; prints the peak."""
    if what == "prepare":
        prepare(folder)
    else:
        STAGES[what](folder, shards)
    print(json.dumps({"peak": machine.peak_resident_bytes()}))


def main() -> int:
    """Measure and print."""
    if sys.argv[1:2] == ["--child"]:
        what, place, shards = sys.argv[2:]
        run_child(what, Path(place), int(shards))
        return 0
    worst, growths = 0.0, []
    print(f"peak resident memory, shards of {ROWS_PER_SHARD} rows of 224 px, {TEACHER} to {STUDENT}")
    with tempfile.TemporaryDirectory() as folder:
        child(["prepare", folder, "0"])
        for stage in ("stage one", "stage two"):
            few, many = (child([stage, folder, str(shards)])["peak"] for shards in SHARDS)
            sizes = "  ".join(
                f"{shards} shards {peak / 1e6:.0f} MB" for shards, peak in zip(SHARDS, (few, many), strict=True)
            )
            print(f"{stage}: {sizes}  ratio {many / few:.3f}")
            worst = max(worst, many / few)
            base = few
            if stage == "stage two":
                base = child([AS_LONG, folder, str(SHARDS[0])])["peak"]
                print(f"{AS_LONG}: {SHARDS[0]} shards {base / 1e6:.0f} MB")
            growths.append((many - base) / ((SHARDS[1] - SHARDS[0]) * ROWS_PER_SHARD))
            print(f"{stage}: growth {growths[-1] / 1000:+.2f} kB a row (needs <= {NEEDED_GROWTH_BYTES / 1000:g})")
    status = machine.conclude(worst, at_most=NEEDED)
    return status or int(max(growths) > NEEDED_GROWTH_BYTES)


if __name__ == "__main__":
    sys.exit(main())
