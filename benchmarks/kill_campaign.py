"""Stop each command at random moments, continue it, and compare: 200 SIGKILL and 100 SIGINT, SIGTERM and SIGHUP each.

Most runs are forked from a process in which everything is imported, a tenth of the polite signals hit the installed
command itself (tests/support/kill_runs.py says what is checked). Moments are drawn uniformly over the time of an
undisturbed run; the seed fixes the draw, but not what the machine does in that time. Prints every fault as it is found,
a table at the end; exits with 1 if there is a fault.

`--together` also starts the command twice on one output: one is refused, the other ends as if it were alone.

    python benchmarks/kill_campaign.py --command embed --kills 200 --interrupts 100 --seed 1
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # before tests/, which has folders of the same names
os.environ.setdefault("OMP_NUM_THREADS", "1")

from support.kill_runs import Campaign, Tally
from support.kill_workloads import WORK, Workload, make_workload
from support.two_at_once import Together, run_together
from support.warm import END_SECONDS, WarmCommands

from pipeline.base.console import table

SIGNALS = ("SIGKILL", "SIGINT", "SIGTERM", "SIGHUP")


def main() -> int:
    """Run the campaigns and print what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--command", action="append", choices=WORK, help="Repeat for several [all].")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--interrupts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--end-seconds", type=float, default=END_SECONDS, help="To end after INT, TERM or HUP [10].")
    parser.add_argument("--together", type=int, default=0, help="Pairs of calls on one output at once [0].")
    parser.add_argument("--folder", type=Path, help="Where to work [a temporary folder].")
    args = parser.parse_args()
    print(f"seed {args.seed}", flush=True)
    with (
        tempfile.TemporaryDirectory(dir=args.folder) as folder,
        WarmCommands(Path(folder) / "logs", args.end_seconds) as warm,
    ):
        tallies = []
        for command in args.command or WORK:
            work = make_workload(command, Path(folder) / command)
            tallies.append(Campaign(work, warm, args.seed, say=report).run(args.kills, args.interrupts))
            print(summary(tallies[-1:]), flush=True)
            if args.together:
                together = run_pairs(work, warm, Path(folder) / "second", args.together, args.seed)
                tallies[-1].faults += together.faults
                print(f"{command}: {2 * args.together} calls, two at once: {dict(together.calls)}", flush=True)
    print(f"\nseed {args.seed}\n{summary(tallies)}")
    return int(any(tally.faults for tally in tallies))


def run_pairs(work: Workload, first: WarmCommands, logs: Path, pairs: int, seed: int) -> Together:
    """Two calls at once, again and again; prints each fault."""
    with WarmCommands(logs) as second:
        together = run_together(work, first, second, pairs, seed)
    for fault in together.faults:
        report(f"{work.command}, two at once: {fault}")
    return together


def report(words: str) -> None:
    """A fault, as soon as it is found."""
    print(words, flush=True)


def summary(tallies: list[Tally]) -> str:
    """A line a command."""
    rows = [
        (
            t.command,
            *(f"{t.stops[name]}" for name in SIGNALS),
            f"{t.finished}",
            f"{t.slowest:.1f}",
            f"{t.seconds:.0f}",
            f"{len(t.faults)}",
        )
        for t in tallies
    ]
    head = ("command", *SIGNALS, "continued to the end", "slowest end, s", "took, s", "faults")
    return table(rows, head, right=range(1, len(head)))


if __name__ == "__main__":
    sys.exit(main())
