"""What normalising a batch takes, done patch by patch in the processor's cache, against plain operations on the batch.

The same batch in the same process, in turn; uint8 with channels last, as loaders give it, to float32 channels last, as
encoders take it, and all three have the same digits:
    plain     `float`, `div`, `sub`, `div` on the whole batch, one after the other: as up to version 0.1.0
    whole     `normalise_whole`: three passes, the first of which converts; what is done on a GPU
    in cache  `normalise_in_cache`: what is done on a CPU; not measured on other devices
    first     the same as `in cache`, and then in torch's default order of memory (channels first), which nothing in G2L
              asks for
The ratio is `plain` over what is done on the device, at its worst over the sizes of a batch.
"""

import sys
from functools import partial

import inputs
import machine
import torch
from torch import Tensor

from pipeline.base.console import table
from pipeline.encoders.build import normalise_in_cache, normalise_whole

NEEDED = {"cpu": 2.0}
"""Our choice: what is done must be worth having. Elsewhere 1, no loss."""


def plain(patches: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """As up to version 0.1.0."""
    return patches.permute(0, 3, 1, 2).float().div(255).sub(mean).div(std)


def ways_of(patches: Tensor, values: tuple[Tensor, Tensor]) -> dict[str, partial[Tensor]]:
    """What is compared; all of it is checked to have the same digits."""
    flat = tuple(each.flatten() for each in values)
    ways = {"plain": partial(plain, patches, *values), "whole": partial(normalise_whole, patches, *values)}
    if patches.device.type == "cpu":
        ways["in cache"] = partial(normalise_in_cache, patches, *flat)
        ways["first"] = partial(lambda: normalise_in_cache(patches, *flat).contiguous())
    assert all(torch.equal(way(), ways["plain"]()) for way in ways.values())
    return ways


def repeated(way: partial[Tensor], times: int, device: torch.device) -> None:
    """Normalise so many times."""
    for _ in range(times):
        way()
    inputs.finish(device)


def main() -> int:
    """Measure and print."""
    parser = machine.parser(__doc__, rounds=5)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--patches", type=int, default=4096, help="of each measurement, at least [%(default)s]")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on a CPU [%(default)s]")
    inputs.device_option(parser)
    args = parser.parse_args()
    device, _ = inputs.start_device(args.device)
    torch.set_num_threads(args.threads)
    values = tuple(
        torch.tensor(each).view(1, 3, 1, 1).to(device) for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    lines, ratios, quiet = [], [], True
    for size in args.batch_size:
        patches = torch.randint(0, 256, (size, inputs.PATCH_PX, inputs.PATCH_PX, 3), dtype=torch.uint8).to(device)
        ways, times = ways_of(patches, (values[0], values[1])), -(-args.patches // size)
        parts = {name: partial(repeated, way, times, device) for name, way in ways.items()}
        rounds = machine.measure_rounds(parts, wanted=args.rounds, patience=args.patience)
        ratios.append(rounds.ratio(["plain"], ["in cache" if "in cache" in ways else "whole"]))
        for name in ways:
            milliseconds = rounds.seconds(name) / times / size * 1000
            lines.append((size, name, f"{milliseconds:.3f}", f"{rounds.ratio(['plain'], [name]):.2f}"))
        print(f"batches of {size}: {rounds.words()}", file=sys.stderr)
        quiet &= rounds.quiet
    print(f"milliseconds a patch of {inputs.PATCH_PX} px, {args.threads} thread(s), {device}")
    print(table(lines, ("batch", "how", "ms a patch", "times as fast as plain"), right=(0, 2, 3)))
    return machine.conclude(min(ratios), at_least=NEEDED.get(device.type, 1.0), quiet=quiet)


if __name__ == "__main__":
    sys.exit(main())
