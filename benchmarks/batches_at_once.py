"""On a CPU: batches that compute at once, a thread each, over one batch at a time in all threads.

Fair because both embed the same batches of the same model in the same process, in turn, in as many threads, without
reading: `embed_batches` with `at_once` as `batches_at_once` chooses it, and with 1. The rows of the table are kinds of
encoder; `--beside` threads keep the cores busy with other work meanwhile, as the threads that read do. A round of a
ViT-L takes a minute or more on two cores, so that it is measured only with `--models vit_large_patch14_reg4_dinov2`.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import inputs
import machine
import numpy as np
import torch

from pipeline.base.console import table
from pipeline.base.devices import CPU_BATCH, keep_freed_memory
from pipeline.base.loader import Batch
from pipeline.config.model_names import SCRATCH
from pipeline.encoders.build import build_encoder
from pipeline.encoders.embed import EncoderForward, batches_at_once, embed_batches

NUM_BATCHES = {"lcnet_050": 16, "resnet50": 2, "vit_small_patch16_224": 2}
"""By model of timm: a round of some seconds each."""
NEEDED = 1.0
"""It must not be slower."""


@contextmanager
def busy(num: int) -> Iterator[None]:
    """While the block runs, `num` threads work on arrays of their own."""
    over = threading.Event()

    def work() -> None:
        pixels = np.zeros((448, 448, 3), np.uint8)
        while not over.is_set():
            np.sort(pixels, axis=0)

    threads = [threading.Thread(target=work) for _ in range(num)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def main() -> int:
    """Measure and print."""
    parser = machine.parser(__doc__, rounds=3)
    parser.add_argument("--models", nargs="+", default=list(NUM_BATCHES), metavar="TIMM_NAME")
    parser.add_argument("--beside", type=int, nargs="+", default=[0, 1], help="busy threads beside [0 1]")
    args = parser.parse_args()
    keep_freed_memory()
    at_once, lines, ratios, quiet = batches_at_once(inputs.DEVICE), [], [], True
    for name in args.models:
        module = build_encoder(name, SCRATCH, inputs.PATCH_PX).module
        pixels = torch.randint(0, 256, (CPU_BATCH, inputs.PATCH_PX, inputs.PATCH_PX, 3), dtype=torch.uint8)
        batches = [Batch(range(CPU_BATCH), pixels, [True] * CPU_BATCH)] * max(NUM_BATCHES.get(name, 2), at_once)

        def embed(num: int, module=module, batches=batches) -> Callable[[], object]:  # type: ignore[no-untyped-def]
            forward, width = EncoderForward(module, inputs.DEVICE, "float32"), module.spec.width
            return lambda: [
                None
                for _ in embed_batches(
                    forward, batches, inputs.DEVICE, width=width, no_room="", is_readable=bool, at_once=num
                )
            ]

        for beside in args.beside:
            with busy(beside):
                work = {"shared": embed(1), "at once": embed(at_once)}
                rounds = machine.measure_rounds(work, wanted=args.rounds, patience=args.patience)
            ratios.append(rounds.ratio(["shared"], ["at once"]))
            quiet &= rounds.quiet or beside > 0
            lines.append((name, beside, f"{ratios[-1]:.2f}", f"{rounds.cpu_ratio(['shared'], ['at once']):.2f}"))
    print(f"batches of {CPU_BATCH}, {at_once} at once, {torch.get_num_threads()} threads; {rounds.words()}")
    print(table(lines, ("encoder", "busy threads", "times as fast", "of CPU time"), right=range(1, 4)))
    return machine.conclude(min(ratios), at_least=NEEDED, quiet=quiet)


if __name__ == "__main__":
    sys.exit(main())
