"""What `pipeline.base.devices.keep_freed_memory` gains: a forward pass on a CPU without it over one with it.

Fair because each measurement is in a process of its own (the setting cannot be taken back), the processes of both kinds
take turns, and they run the same model on the same batch. A process is started and warmed up unmeasured, and then told
to run its passes. What is saved is the kernel's work of clearing pages, so it shows in CPU time as well.
"""

import subprocess
import sys

import machine

from pipeline.base.console import table

MODEL = "tf_efficientnet_lite2"
"""The demo's teacher."""
BATCH_SIZE = 32
"""`pipeline.base.devices.CPU_BATCH`."""
PASSES = 3
NEEDED = 1.2
"""Our choice: below this a process-wide setting would not be worth having."""


def child(*, keep: bool) -> None:
    """Warm up, and then run `PASSES` forward passes for each line of input; prints the CPU seconds they took."""
    import inputs
    import torch

    from pipeline.base.devices import keep_freed_memory
    from pipeline.config.model_names import SCRATCH
    from pipeline.encoders.build import build_encoder

    if keep:
        keep_freed_memory(inputs.DEVICE)
    module = build_encoder(MODEL, SCRATCH, inputs.PATCH_PX).module
    patches = torch.randint(0, 256, (BATCH_SIZE, inputs.PATCH_PX, inputs.PATCH_PX, 3), dtype=torch.uint8)
    print("ready", flush=True)
    with torch.inference_mode():
        for _ in sys.stdin:
            done = machine.measure(lambda: [module(patches) for _ in range(PASSES)])
            print(done.wall, done.cpu, done.others, flush=True)


class Worker:
    """A `child` in a process of its own."""

    def __init__(self, *, keep: bool) -> None:
        command = [sys.executable, __file__, "--child", "keep" if keep else "return"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the child has died")
        return line

    def passes(self) -> machine.Measured:
        """Have it run its passes."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        wall, cpu, others = map(float, self._read().split())
        return machine.Measured(wall, cpu, others)

    def end(self) -> None:
        """End it."""
        self._process.communicate()


def main() -> int:
    """Measure and print."""
    if sys.argv[1:2] == ["--child"]:
        child(keep=sys.argv[2] == "keep")
        return 0
    args = machine.parser(__doc__, rounds=5).parse_args()
    workers = {"memory handed back (glibc's default)": Worker(keep=False), "keep_freed_memory": Worker(keep=True)}
    rounds = machine.measure_rounds(
        {name: worker.passes for name, worker in workers.items()}, wanted=args.rounds, patience=args.patience
    )
    for worker in workers.values():
        worker.end()
    print(f"{MODEL}, a forward pass over {BATCH_SIZE} patches of 224 px")
    lines = [(name, f"{rounds.seconds(name) / PASSES * 1000:.0f}") for name in workers]
    print(table(lines, ("", "ms"), right=[1]))
    print(rounds.words())
    without, kept = workers
    print(f"of CPU time: {rounds.cpu_ratio([without], [kept]):.3f}")
    return machine.conclude(rounds.ratio([without], [kept]), at_least=NEEDED, quiet=rounds.quiet)


if __name__ == "__main__":
    sys.exit(main())
