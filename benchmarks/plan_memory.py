"""Peak memory of `g2l plan` on 1,000 slides, all of them planned, and what giving back memory after each slide buys.

Slides are synthesised: 10,000 to 80,000 pixels wide (as many in each octave) and 0.8 times as high, at 0.25 um/px, in
levels of 1, 4 and 16; their tiles are few real JPEGs that each file names at places of its own. The command runs as a
user types it, with two threads. Its memory is the highest resident memory that the kernel noted of it, and, on top, the
highest proportional set size (PSS) of its child processes, which was sampled; both need not have been at one time. The
PSS of all processes together, as sampled, says what grows: its maximum in each fifth of the time is printed.

Then 12 slides of 100,000 x 80,000, planned with and without giving memory back, --rounds times in turn; medians.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from unittest import mock

import machine
import psutil

from pipeline.base.console import table

NEEDED_BYTES = 1.5e9
"""For 1,000 slides, from the issue."""
THREADS = 2
VAST = 12
SMALLEST_PX, LARGEST_PX = 10_000, 80_000
FIFTHS = 5
SAMPLE_SECONDS = 0.2
MOST_EMPTY = 0.02
"""Share of the slides, or one, that may have no patch: of the smallest, some have no tissue by chance."""


def prepare(folder: Path, title: str, count: int) -> None:
    """Slides and a manifest; in a process of its own, whose memory does not count."""
    for place in (Path(__file__).resolve().parents[1] / "tests", Path(__file__).resolve().parents[1]):
        sys.path.insert(0, str(place))
    from support.slides import make_vast_slide  # of the tests

    with (folder / f"{title}.csv").open("w", newline="") as f:
        write = csv.writer(f).writerow
        write(("slide_id", "path", "case_id"))
        for index in range(count):
            share = index / max(count - 1, 1) if title == "many" else 1.0
            width = round(SMALLEST_PX * (LARGEST_PX / SMALLEST_PX) ** share)
            name = f"{title}-{index * 7919 % count:04}"  # large and small ones in turn, as slides are planned by id
            path = folder / f"{name}.svs"
            make_vast_slide(path, width=width, height=width * 4 // 5, downsamples=(1, 4, 16), seed=index, tiles_seed=0)
            write((name, path.name, name))


def plan(folder: Path, gives_back: bool) -> None:
    """One process: plan the vast slides; prints the peak."""
    from pipeline.cohort.manifest.read import read_manifest
    from pipeline.config.plan import PlanConfig
    from stages.plan import plan_slides

    with nullcontext() if gives_back else mock.patch("stages.plan.give_back_memory"):
        made = plan_slides(read_manifest(folder / "vast.csv"), PlanConfig(), workers=THREADS)
    assert all(row.status == "ok" for row in made.audit), made.audit
    print(json.dumps({"peak": machine.peak_resident_bytes()}))


def child(*arguments: str) -> dict[str, float]:
    """This script in a process of its own; what it prints last, as JSON, if it does."""
    done = subprocess.run([sys.executable, __file__, "--child", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
    return figures


def pss_bytes(process: psutil.Process) -> int:
    """Proportional set size of a process; 0 once it has ended."""
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0


def plan_many(folder: Path) -> tuple[int, int, list[tuple[int, int]]]:
    """Plan the many slides by the command: peak resident bytes of it, and of its children; and sampled PSS of both."""
    words = [sys.executable, "-m", "g2l", "plan", folder / "many.csv", "--out", folder / "many.h5"]
    with open(folder / "many.log", "w") as log:
        started = subprocess.Popen([*map(str, words), "--workers", str(THREADS)], stdout=log, stderr=log)
        process, sampled = psutil.Process(started.pid), []
        while True:
            ended, status, used = os.wait4(started.pid, os.WNOHANG)
            if ended:
                break
            try:
                children = process.children(recursive=True)
            except psutil.NoSuchProcess:
                children = []
            sampled.append((pss_bytes(process), sum(map(pss_bytes, children))))
            time.sleep(SAMPLE_SECONDS)
        started.returncode = os.waitstatus_to_exitcode(status)
    if not (folder / "many.h5").exists():  # a slide without tissue does not let the command exit 0
        raise RuntimeError((folder / "many.log").read_text()[-2000:])
    return used.ru_maxrss * 1024, max(of_children for _, of_children in sampled), sampled


def main() -> int:
    """Measure and print."""
    if sys.argv[1:2] == ["--child"]:
        what, place, *more = sys.argv[2:]
        if what == "prepare":
            prepare(Path(place), more[0], int(more[1]))
        else:
            plan(Path(place), what == "gives-back")
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each kind [%(default)s]")
    parser.add_argument("--slides", type=int, default=1000, help="slides of the first part [%(default)s]")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        child("prepare", folder, "vast", str(VAST))
        peaks: dict[str, list[float]] = {"keeps": [], "gives-back": []}
        for _ in range(args.rounds):
            for kind, measured in peaks.items():
                measured.append(child(kind, folder)["peak"])
        kinds = {kind: median(measured) for kind, measured in peaks.items() if measured}
        if kinds:
            print(table([(k, f"{v / 1e6:,.0f}") for k, v in kinds.items()], ("memory", "peak MB"), right=[1]))
            print(f"kept / given back, {VAST} slides: {kinds['keeps'] / kinds['gives-back']:.2f}")
        child("prepare", folder, "many", str(args.slides))
        began = time.monotonic()
        own, of_children, sampled = plan_many(Path(folder))
        minutes = (time.monotonic() - began) / 60
        with (Path(folder) / "many.audit.csv").open(newline="") as f:
            reasons = [row["reason"] for row in csv.DictReader(f) if row["status"] != "ok"]
    have_no_tissue = all(reason.startswith("no patch has") for reason in reasons)
    if len(reasons) > max(MOST_EMPTY * args.slides, 1) or not have_no_tissue:
        raise RuntimeError(f"{len(reasons)} of {args.slides} slides failed: {sorted(set(reasons))}")
    fifth = -(-len(sampled) // FIFTHS)
    highest = [max(map(sum, sampled[first : first + fifth])) for first in range(0, len(sampled), fifth)]
    print(f"{args.slides:,} slides in {minutes:.1f} min, {THREADS} threads")
    fifths = ", ".join(f"{value / 1e6:,.0f}" for value in highest)
    print(f"PSS of all processes, the most in each fifth of the time: {fifths} MB")
    print(f"peak: {own / 1e6:,.0f} MB of the command, and {of_children / 1e6:,.0f} MB of its child processes")
    return machine.conclude((own + of_children) / NEEDED_BYTES, at_most=1)


if __name__ == "__main__":
    sys.exit(main())
