"""What `pipeline.base.devices.keep_freed_memory` gains: work on a CPU without it over the same with it.

Two works: a forward pass of a CNN, and reading patches of a slide in as many threads as there are cores, which a GPU's
stage one does as well. Fair because each measurement is in a process of its own (the setting cannot be taken back), the
processes of both kinds take turns, and they do the same work. A process is started and warmed up unmeasured, and then
told to work. What is saved is the kernel's work of clearing pages, so it shows in CPU time as well.
"""

import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import machine

from pipeline.base.console import table

MODEL = "tf_efficientnet_lite2"
"""The demo's teacher."""
BATCH_SIZE = 32
"""`pipeline.base.devices.CPU_BATCH`."""
PASSES = 3
READ = 400
"""Patches that are read a round; their tiles fill the cache of tiles several times."""
WAYS = {"return": "memory handed back (glibc's default)", "keep": "kept"}
NEEDED = 1.2
"""Our choice: below this a process-wide setting would not be worth having."""


def passes() -> Callable[[], object]:
    """What runs `PASSES` forward passes."""
    import inputs
    import torch

    from pipeline.config.model_names import SCRATCH
    from pipeline.encoders.build import build_encoder

    module = build_encoder(MODEL, SCRATCH, inputs.PATCH_PX).module
    patches = torch.randint(0, 256, (BATCH_SIZE, inputs.PATCH_PX, inputs.PATCH_PX, 3), dtype=torch.uint8)

    def run() -> None:
        with torch.inference_mode():
            for _ in range(PASSES):
                module(patches)

    return run


def reading(slide: Path) -> Callable[[], object]:
    """What reads `READ` patches of the slide."""
    from reader_speed import Reading

    from pipeline.base.cores import usable_cores

    return Reading(slide, READ, usable_cores(), 0.25, "lanczos-torch").reader


def child(how: str, slide: str) -> None:
    """Make ready, and then do the work once for each line of input; prints the seconds it took."""
    from pipeline.base.devices import keep_freed_memory

    if how == "keep":
        keep_freed_memory()
    work = reading(Path(slide)) if slide else passes()
    work()
    print("ready", flush=True)
    for _ in sys.stdin:
        done = machine.measure(work)
        print(done.wall, done.cpu, done.others, flush=True)


class Worker:
    """A `child` in a process of its own."""

    def __init__(self, how: str, slide: Path | None) -> None:
        command = [sys.executable, __file__, "--child", how, str(slide or "")]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        while self._read() != "ready\n":
            pass

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the child has died")
        return line

    def work(self) -> machine.Measured:
        """Have it work."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        wall, cpu, others = map(float, self._read().split())
        return machine.Measured(wall, cpu, others)

    def end(self) -> None:
        """End it."""
        self._process.communicate()


def compare(args: Namespace, what: str, slide: Path | None, of_each: float) -> int:
    """Measure one work both ways and print; `of_each` is what a round's seconds are divided by."""
    workers = {f"{what}, {words}": Worker(how, slide) for how, words in WAYS.items()}
    each = {name: worker.work for name, worker in workers.items()}
    rounds = machine.measure_rounds(each, wanted=args.rounds, patience=args.patience)
    for worker in workers.values():
        worker.end()
    lines = [(name, f"{rounds.seconds(name) / of_each * 1000:.2f}") for name in workers]
    print(table(lines, ("", "ms"), right=[1]))
    print(rounds.words())
    without, kept = workers
    print(f"of CPU time: {rounds.cpu_ratio([without], [kept]):.3f}")
    return machine.conclude(rounds.ratio([without], [kept]), at_least=NEEDED, quiet=rounds.quiet)


def main() -> int:
    """Measure and print."""
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
        return 0
    args = machine.parser(__doc__, rounds=5).parse_args()
    import inputs  # noqa: F401  (sets the path to the tests)
    from support.slides import make_big_slide

    code = compare(args, f"a forward pass of {MODEL} over {BATCH_SIZE} patches", None, PASSES)
    with tempfile.TemporaryDirectory() as folder:
        slide = make_big_slide(Path(folder) / "slide.svs", width=20_000, height=20_000)
        return max(code, compare(args, "reading a patch of 224 px", slide, READ))


if __name__ == "__main__":
    sys.exit(main())
