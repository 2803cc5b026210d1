"""Peak resident memory of `g2l plan` on many slides, and on a slide without reduced levels.

Slides are synthesised: 100,000 x 80,000 pixels at 0.25 um/px, whose tiles are few real JPEGs that the file names at
many places; masks have the size of a whole slide's (3,125 x 2,500). Each figure is the peak (VmHWM, which the kernel
keeps for each program) of a process of its own that plans as the command does, with the same number of threads. What is
compared differs in one thing: whether freed memory is given back after each slide; the number of slides; or whether the
slide has reduced levels. Every process is measured --rounds times, in turn, and the median taken.

A peak creeps up over the first slides, as the threads meet at their own peaks; what a slide leaves behind is seen in
what is resident at the end, and is added for 1,000 slides.

With --whole, the slide without reduced levels is measured once, for it takes minutes; else one of a quarter of its
sides takes its place.
"""

import argparse
import json
import subprocess
import sys
import tempfile
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
FEW, MANY = 4, 12
SLIDES = 1000


def prepare(folder: Path, whole: bool) -> None:
    """Slides and manifests; in a process of its own, whose memory does not count."""
    for place in (Path(__file__).resolve().parents[1] / "tests", Path(__file__).resolve().parents[1]):
        sys.path.insert(0, str(place))
    from support.slides import make_vast_slide  # of the tests

    names = [f"{index}.svs" for index in range(MANY)]
    for index, name in enumerate(names):
        make_vast_slide(folder / name, downsamples=(1, 4, 16), seed=index)
    shrink = 1 if whole else 4
    make_vast_slide(folder / "levels.svs", width=100_000 // shrink, height=80_000 // shrink, downsamples=(1, 4, 16))
    make_vast_slide(folder / "one-level.svs", width=100_000 // shrink, height=80_000 // shrink)
    sets = {str(FEW): names[:FEW], str(MANY): names, "levels": ["levels.svs"], "one-level": ["one-level.svs"]}
    for title, files in sets.items():
        rows = "".join(f"{Path(name).stem},{name},{Path(name).stem}\n" for name in files)
        (folder / f"{title}.csv").write_text(f"slide_id,path,case_id\n{rows}")


def plan(folder: Path, title: str, gives_back: bool) -> None:
    """One process: plan the slides of a manifest; prints the peak."""
    from pipeline.base.cores import give_back_memory
    from pipeline.cohort.manifest import read_manifest
    from pipeline.config.stages import PlanConfig
    from stages.plan import plan_slides

    with nullcontext() if gives_back else mock.patch("stages.plan.give_back_memory"):
        made = plan_slides(read_manifest(folder / f"{title}.csv"), PlanConfig(), workers=THREADS)
    assert all(row.status == "ok" for row in made.audit), made.audit
    peak = machine.peak_resident_bytes()
    give_back_memory()
    print(json.dumps({"peak": peak, "held": psutil.Process().memory_info().rss}))


def child(*arguments: str) -> dict[str, float]:
    """This script in a process of its own; what it prints last, as JSON, if it does."""
    done = subprocess.run([sys.executable, __file__, "--child", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
    return figures


def main() -> int:
    """Measure and print."""
    if sys.argv[1:2] == ["--child"]:
        what, place, title = sys.argv[2:]
        if what == "prepare":
            prepare(Path(place), title == "whole")
        else:
            plan(Path(place), title, what == "gives-back")
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each kind [%(default)s]")
    parser.add_argument("--whole", action="store_true", help="the slide without reduced levels at its full size, once")
    args = parser.parse_args()
    kinds = [("keeps", str(MANY)), ("gives-back", str(MANY)), ("gives-back", str(FEW)), ("gives-back", "levels")]
    last = ("gives-back", "one-level")
    with tempfile.TemporaryDirectory() as folder:
        child("prepare", folder, "whole" if args.whole else "quarter")
        figures: dict[tuple[str, str], list[dict[str, float]]] = {kind: [] for kind in [*kinds, last]}
        for number in range(args.rounds):
            for kind in kinds if args.whole and number else [*kinds, last]:
                figures[kind].append(child(kind[0], folder, kind[1]))
    peak, held = ({k: median(one[name] for one in v) for k, v in figures.items()} for name in ("peak", "held"))
    lines = [(*kind, f"{peak[kind] / 1e6:,.0f}", f"{held[kind] / 1e6:,.0f}") for kind in peak]
    print(table(lines, ("memory", "slides", "peak MB", "held at the end MB"), right=[2, 3]))
    print(f"kept / given back, {MANY} slides: {peak[kinds[0]] / peak[kinds[1]]:.2f}")
    print(f"one level / with reduced levels: {peak[last] / peak[kinds[3]]:.2f}")
    growth = max(0.0, (held[kinds[1]] - held[kinds[2]]) / (MANY - FEW))
    thousand = peak[kinds[1]] + growth * (SLIDES - MANY)
    print(f"growth {growth / 1e6:.2f} MB a slide, so {thousand / 1e9:.2f} GB for {SLIDES:,} slides, {THREADS} threads")
    return machine.conclude(thousand / NEEDED_BYTES, at_most=1)


if __name__ == "__main__":
    sys.exit(main())
