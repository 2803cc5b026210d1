"""How long the command takes to start: `g2l --help` over the bare interpreter, and `g2l inspect` of a plan.

Fair because all are whole processes of the same interpreter, started in turn, so that what disturbs one disturbs the
others; the median of many runs is taken. The interpreter runs `pass` with its site packages, as the command does. Files
are in the page cache and compiled, as they are after the first call. The plan is of one synthesised slide. Peak memory
is what the process itself says when it ends. `g2l --help` imports no torch. The ratio is the largest of: --help beyond
the interpreter over 0.3 s, inspect over 1 s, and its memory over 200 MB.
"""

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import inputs
import machine

from pipeline.base.console import table
from pipeline.cohort.plan_hdf5 import write_plan

HELP_SECONDS, INSPECT_SECONDS, INSPECT_BYTES = 0.3, 1.0, 200e6
"""From the issues."""
ABSENT = ("torch", "timm", "zarr", "openslide", "matplotlib")
"""Torch is the issue's need; the others would cost as much in their way."""

CHECK = """
import sys
sys.argv = ["g2l", "--help"]
from stages.cli import main
try:
    main()
finally:
    print("imported:", *sorted(name for name in sys.modules if "." not in name), file=sys.stderr)
"""

INSPECT = """
import sys
sys.argv = ["g2l", "inspect", sys.argv[1]]
from stages.cli import main
try:
    main()
finally:
    print("peak kB:", next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""


def run(command: list[str]) -> None:
    """One process, to its end."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def imported() -> set[str]:
    """Top-level modules that `g2l --help` has imported when it ends."""
    done = subprocess.run([sys.executable, "-c", CHECK], check=True, capture_output=True, text=True)
    assert "Usage" in done.stdout, done.stdout
    return set(done.stderr.split("imported:")[1].split())


def inspect_bytes(plan: Path) -> int:
    """Peak resident memory of `g2l inspect`; Linux only."""
    done = subprocess.run([sys.executable, "-c", INSPECT, str(plan)], check=True, capture_output=True, text=True)
    return int(done.stdout.split("peak kB:")[1]) * 1024


def main() -> int:
    """Measure and print."""
    args = machine.parser(__doc__, rounds=15).parse_args()
    heavy = sorted(imported() & set(ABSENT))
    command = Path(sys.executable).with_name("g2l")
    assert command.exists(), "install the project into this interpreter's environment first"
    with tempfile.TemporaryDirectory() as folder, inputs.silence():
        plan = Path(folder) / "plan.h5"
        write_plan(inputs.make_plan(Path(folder), inputs.SLIDE_ROWS), plan)
        parts = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "g2l --help": [str(command), "--help"],
            "g2l inspect": [str(command), "inspect", str(plan)],
        }
        rounds = machine.measure_rounds(
            {name: partial(run, line) for name, line in parts.items()}, wanted=args.rounds, patience=args.patience
        )
        peak = inspect_bytes(plan)
    bare, helped, inspected = (rounds.seconds(name) for name in parts)
    lines = [(name, f"{rounds.seconds(name) * 1000:.0f}") for name in parts]
    print(table([*lines, ("--help beyond it", f"{(helped - bare) * 1000:.0f}")], ("process", "ms"), right=[1]))
    print(rounds.words())
    print(f"imported by g2l --help: {', '.join(heavy) if heavy else 'none'} of {', '.join(ABSENT)}")
    print(f"g2l inspect takes {peak / 1e6:.0f} MB at most")
    ratios = ((helped - bare) / HELP_SECONDS, inspected / INSPECT_SECONDS, peak / INSPECT_BYTES)
    status = machine.conclude(max(ratios), at_most=1, quiet=rounds.quiet)
    return 1 if heavy else status


if __name__ == "__main__":
    sys.exit(main())
