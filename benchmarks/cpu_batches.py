"""Time of a forward pass a patch on a CPU, by the number of patches in a batch.

Encoders of random weights, made as extraction makes them (float32, freed memory is kept): a small convolutional one, a
small and a large vision transformer. In each round every size is measured once, in turn, forwards and backwards, on the
same patches. CPU seconds (user and system, of all threads) and wall seconds a patch are given as medians over rounds,
relative to batches of `CPU_BATCH`, beside the spread between rounds: what a median could move by chance. With 1 thread
and CPU seconds, what others do on the machine matters little; wall seconds of a busy machine say less.
"""

import argparse
import sys
from statistics import median

import inputs
import machine
import torch

from pipeline.base.console import table
from pipeline.base.devices import CPU_BATCH, keep_freed_memory
from pipeline.config.model_names import SCRATCH
from pipeline.encoders.build import build_encoder

MODELS = {"lcnet_050": 64, "vit_small_patch16_224": 64, "vit_large_patch16_224": 8}
"""Encoders, and the patches that are at least embedded for one measurement."""
SIZES = (1, 2, 4, 8, 16, 32, 64)
MARGIN = 1.05
"""How much slower than the fastest size the default may be. Our choice: the spread between rounds is as large."""


def measure(module: torch.nn.Module, pixels: torch.Tensor, size: int) -> tuple[float, float]:
    """CPU and wall seconds a patch, in batches of `size`."""
    with torch.inference_mode():
        measured = machine.measure(lambda: [module(batch) for batch in torch.split(pixels, size)])
    return measured.cpu / len(pixels), measured.wall / len(pixels)


def spread(values: list[float]) -> float:
    """Half of the range over the median."""
    return (max(values) - min(values)) / 2 / median(values)


def main() -> int:
    """Measure and print; 1 if the default is slower than the fastest size by more than the margin."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each size [%(default)s]")
    parser.add_argument("--model", action="append", choices=MODELS, help="only this encoder; may be repeated")
    parser.add_argument("--threads", type=int, default=1, help="threads of the forward pass [%(default)s]")
    parser.add_argument("--most", type=int, default=max(SIZES), help="largest batch [%(default)s]")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    sizes = [size for size in SIZES if size <= args.most]
    worst = 0.0
    for name in args.model or MODELS:
        module = build_encoder(name, SCRATCH, inputs.PATCH_PX).module.eval()
        pixels = torch.randint(0, 256, (max(sizes), inputs.PATCH_PX, inputs.PATCH_PX, 3), dtype=torch.uint8)
        found: dict[int, list[tuple[float, float]]] = {size: [] for size in sizes}
        measure(module, pixels[:CPU_BATCH], CPU_BATCH)
        for number in range(args.rounds):
            for size in sizes if number % 2 == 0 else reversed(sizes):
                found[size].append(measure(module, pixels[: max(size, MODELS[name])], size))
        clocks = {size: [list(times) for times in zip(*pairs, strict=True)] for size, pairs in found.items()}
        base = [median(times) for times in clocks[CPU_BATCH]]
        lines = [
            (
                str(size),
                f"{median(cpu) * 1000:,.1f}",
                f"{median(cpu) / base[0]:.2f}",
                f"{spread(cpu):.0%}",
                f"{median(wall) / base[1]:.2f}",
                f"{spread(wall):.0%}",
            )
            for size, (cpu, wall) in clocks.items()
        ]
        titles = ("batch", "CPU ms a patch", f"of {CPU_BATCH}'s", "spread", f"wall, of {CPU_BATCH}'s", "spread")
        print(f"{name}, {args.threads} thread(s), {args.rounds} rounds")
        print(table(lines, titles, right=range(len(titles))), flush=True)
        worst = max(worst, base[0] / min(median(cpu) for cpu, _ in clocks.values()))
    print(f"batches of {CPU_BATCH}, CPU time over that of the fastest size: {worst:.3f} at most (needs <= {MARGIN:g})")
    return 0 if worst <= MARGIN else 1


if __name__ == "__main__":
    sys.exit(main())
