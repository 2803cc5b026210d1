"""How much longer `g2l --help` takes than the bare interpreter's start, over the 0.3 s it may; and it imports no torch.

Fair because both are whole processes of the same interpreter, started in turn, so that what disturbs one disturbs the
other; the median of many runs is taken. The interpreter runs `pass` with its site packages, as the command does. Files
are in the page cache and compiled, as they are after the first call.
"""

import subprocess
import sys
from functools import partial
from pathlib import Path

import machine

from pipeline.base.console import table

NEEDED_SECONDS = 0.3
"""From the issue."""
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


def run(command: list[str]) -> None:
    """One process, to its end."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def imported() -> set[str]:
    """Top-level modules that `g2l --help` has imported when it ends."""
    done = subprocess.run([sys.executable, "-c", CHECK], check=True, capture_output=True, text=True)
    assert "Usage" in done.stdout, done.stdout
    return set(done.stderr.split("imported:")[1].split())


def main() -> int:
    """Measure and print."""
    args = machine.parser(__doc__, rounds=15).parse_args()
    heavy = sorted(imported() & set(ABSENT))
    command = Path(sys.executable).with_name("g2l")
    assert command.exists(), "install the project into this interpreter's environment first"
    parts = {"python -c pass": [sys.executable, "-c", "pass"], "g2l --help": [str(command), "--help"]}
    rounds = machine.measure_rounds(
        {name: partial(run, line) for name, line in parts.items()}, wanted=args.rounds, patience=args.patience
    )
    bare, helped = (rounds.seconds(name) for name in parts)
    lines = [(name, f"{rounds.seconds(name) * 1000:.0f}") for name in parts]
    print(table([*lines, ("difference", f"{(helped - bare) * 1000:.0f}")], ("process", "ms"), right=[1]))
    print(rounds.words())
    print(f"imported by g2l --help: {', '.join(heavy) if heavy else 'none'} of {', '.join(ABSENT)}")
    status = machine.conclude((helped - bare) / NEEDED_SECONDS, at_most=1, quiet=rounds.quiet)
    return 1 if heavy else status


if __name__ == "__main__":
    sys.exit(main())
