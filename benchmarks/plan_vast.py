"""`g2l plan` on a slide of 100,000 x 80,000 pixels without reduced levels: memory, time, and what it says.

The slide is synthesised: one level of 122,383 JPEG tiles, which are few real ones that the file names at many places.
A process plans it as the command does, with one thread; another decodes each of its tiles once, by the same decoder,
and keeps none. The second time is the least that finding tissue on such a slide can take. Both run --rounds times, in
turn; medians, and the median of the ratios.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import machine

from pipeline.base.console import table

WIDTH_PX, HEIGHT_PX = 100_000, 80_000
NEEDED_BYTES = 0.75e9
"""Half of what the issue grants a plan of 1,000 slides, which has two threads."""


def prepare(path: Path, shrink: int) -> None:
    """The slide and its manifest; in this process, whose memory is not measured."""
    for place in (Path(__file__).resolve().parents[1] / "tests", Path(__file__).resolve().parents[1]):
        sys.path.insert(0, str(place))
    from support.slides import make_vast_slide  # of the tests

    make_vast_slide(path, width=WIDTH_PX // shrink, height=HEIGHT_PX // shrink)
    path.with_suffix(".csv").write_text(f"slide_id,path,case_id\nvast,{path.name},vast\n")


def plan(path: Path) -> int:
    """Plan the slide; returns how many patches there are."""
    from pipeline.cohort.manifest.read import read_manifest
    from pipeline.config.plan import PlanConfig
    from stages.plan import plan_slides

    made = plan_slides(read_manifest(path.with_suffix(".csv")), PlanConfig(), workers=1)
    assert [row.status for row in made.audit] == ["ok"], made.audit
    return made.num_rows


def decode(path: Path) -> int:
    """Decode each tile once; returns how many there are."""
    from pipeline.slides.direct.decoding import decode_jpeg
    from pipeline.slides.direct.tile_cache import TileCache
    from pipeline.slides.direct.tiled_tiff import TiledTiff
    from pipeline.slides.reader import Slide

    info = Slide(path).info
    level = TiledTiff(path, info.vendor, info.level_sizes_px, TileCache()).levels[0]
    with path.open("rb") as f:
        for offset, length in zip(level.offsets.tolist(), level.lengths.tolist(), strict=True):
            f.seek(offset)
            decode_jpeg(f.read(length), level)
    return len(level.offsets)


def child(what: str, path: Path) -> dict[str, float]:
    """This script in a process of its own: its times, its peak memory, what it has done, and what it said."""
    words = [sys.executable, __file__, "--child", what, str(path)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{what} failed:\n{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    for note in notes:
        print(note, flush=True)
    return figures


def main() -> int:
    """Measure and print."""
    if sys.argv[1:2] == ["--child"]:
        what, path = sys.argv[2], Path(sys.argv[3])
        found: list[int] = []
        work = {"plan": plan, "decode": decode}[what]
        measured = machine.measure(lambda: found.append(work(path)))
        peak = machine.peak_resident_bytes()
        print(json.dumps({"wall": measured.wall, "cpu": measured.cpu, "peak": peak, "number": found[0]}))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each kind [%(default)s]")
    parser.add_argument("--shrink", type=int, default=1, help="divide the slide's sides by this [%(default)s]")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vast.svs"
        prepare(path, args.shrink)
        print(f"one level of {WIDTH_PX // args.shrink:,} x {HEIGHT_PX // args.shrink:,}")
        rounds = [{what: child(what, path) for what in ("plan", "decode")} for _ in range(args.rounds)]
    lines = [
        (
            what,
            f"{rounds[0][what]['number']:,.0f}",
            f"{median(r[what]['wall'] for r in rounds):.0f}",
            f"{median(r[what]['cpu'] for r in rounds):.0f}",
            f"{median(r[what]['peak'] for r in rounds) / 1e6:,.0f}",
        )
        for what in ("plan", "decode")
    ]
    print(table(lines, ("process", "rows or tiles", "seconds", "CPU seconds", "peak MB"), right=[1, 2, 3, 4]))
    for clock in ("wall", "cpu"):
        ratio = median(r["plan"][clock] / r["decode"][clock] for r in rounds)
        print(f"planning / decoding each tile once, {clock} time: {ratio:.2f}")
    return machine.conclude(median(r["plan"]["peak"] for r in rounds) / NEEDED_BYTES, at_most=1)


if __name__ == "__main__":
    sys.exit(main())
