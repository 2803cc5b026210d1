"""Damaged slides, features, images, tables, plans, stores, runs, public sets and studies through the real commands.

Prints each fault as it is found, with the number of its case, and a table of exit codes; exits with 1 if there is a
fault. `--only` runs single cases of a seed again. In tests/support/, fuzz_runs.py says what counts as a fault,
fuzz_inputs.py and fuzz_studies.py list the kinds, fuzz_damage.py the ways to damage them.

    python benchmarks/fuzz.py --count 2000 --seed 7 --processes 2
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # before tests/, which has folders of the same names
os.environ.setdefault("OMP_NUM_THREADS", "1")

from support.fuzz_inputs import KINDS, World
from support.fuzz_runs import Tally, fuzz

from pipeline.base.console import table


def main() -> int:
    """Run the cases and print what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=520, help="Damaged inputs [520].")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, action="append", help="Number of a case; repeat for several.")
    parser.add_argument("--kind", action="append", help="Part of a kind's name; repeat for several [all kinds].")
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    print(f"seed {args.seed}", flush=True)
    kinds = tuple(kind for kind in KINDS if not args.kind or any(part in kind.name for part in args.kind))
    tally, started = Tally(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder) / "world")
        numbers = args.only or range(args.count)
        for case, ended, fault in fuzz(world, Path(folder), args.seed, numbers, args.processes, kinds):
            tally.add(case, ended, fault)
            if tally.inputs % 100 == 0:
                print(f"{tally.inputs} inputs, {len(tally.faults)} faults", file=sys.stderr, flush=True)
            if fault or args.only:
                print(f"{case}: {fault or f'exit code {ended.code}, fine: {ended.err or ended.out}'}\n", flush=True)
    print(summary(tally))
    print(
        f"seed {args.seed}: {tally.inputs} damaged inputs, {len(tally.faults)} faults, "
        f"{time.monotonic() - started:.0f} s"
    )
    return int(bool(tally.faults))


def summary(tally: Tally) -> str:
    """Exit codes by kind."""
    codes = sorted({code for counts in tally.codes.values() for code in counts})
    rows = [(name, *(counts.get(code, 0) for code in codes)) for name, counts in sorted(tally.codes.items())]
    return table(rows, ("kind", *(f"exit {code}" for code in codes)), right=range(1, len(codes) + 1))


if __name__ == "__main__":
    sys.exit(main())
