"""How much longer `g2l --help` takes than the bare interpreter's start, and that it imports no torch.

Fair because both are whole processes of the same interpreter, started in turn, so that what disturbs one disturbs the
other; the median of many runs is taken. The interpreter runs `pass` with its site packages, as the command does. Files
are in the page cache and compiled, as they are after the first call.
"""

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

RUNS = 15
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


def seconds(command: list[str]) -> float:
    """Wall seconds of a process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def imported() -> set[str]:
    """Top-level modules that `g2l --help` has imported when it ends."""
    done = subprocess.run([sys.executable, "-c", CHECK], check=True, capture_output=True, text=True)
    assert "Usage" in done.stdout, done.stdout
    return set(done.stderr.split("imported:")[1].split())


def main() -> int:
    """Measure and print."""
    heavy = sorted(imported() & set(ABSENT))
    command = Path(sys.executable).with_name("g2l")
    assert command.exists(), "install the project into this interpreter's environment first"
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "g2l --help": [str(command), "--help"],
    }
    for line in commands.values():
        seconds(line)
    runs = {name: [] for name in commands}  # type: dict[str, list[float]]
    for number in range(RUNS):
        for name in commands if number % 2 == 0 else reversed(commands):
            runs[name].append(seconds(commands[name]))
    for name, values in runs.items():
        print(f"{name:16}  median {median(values):.3f} s  fastest {min(values):.3f} s  of {RUNS}")
    bare, helped = runs.values()
    difference = median(helped) - median(bare)
    print(f"difference: {difference:.3f} s (needs <= {NEEDED_SECONDS:g})")
    print(f"imported by g2l --help: {', '.join(heavy) if heavy else 'none'} of {', '.join(ABSENT)}")
    print(f"ratio: {difference / NEEDED_SECONDS:.3f} of the allowed time (needs <= 1)")
    return 1 if heavy or difference > NEEDED_SECONDS else 0


if __name__ == "__main__":
    sys.exit(main())
