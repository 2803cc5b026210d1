"""What `pipeline.compute.keep_freed_memory` gains: a forward pass on a CPU without it over one with it.

Fair because each measurement is a process of its own (the setting cannot be taken back), the two kinds of process take
turns, they run the same model on the same batch, and each first runs two passes that do not count. CPU seconds are
printed beside wall seconds: what is saved is the kernel's work of clearing pages, so both must show it.
"""

import json
import subprocess
import sys
import time
from statistics import median

PAIRS = 5
NEEDED = 1.2
"""Our choice: below this a process-wide setting would not be worth having."""


def child(model_name: str, batch_size: int, passes: int, *, keep: bool) -> None:
    """Print the fastest pass's wall seconds, and the mean CPU seconds, of this process, as JSON."""
    import torch

    from pipeline.compute import keep_freed_memory
    from pipeline.models import SCRATCH, build_encoder

    device = torch.device("cpu")
    if keep:
        keep_freed_memory(device)
    module = build_encoder(model_name, SCRATCH, 224).module
    patches = torch.randint(0, 256, (batch_size, 224, 224, 3), dtype=torch.uint8)
    walls = []
    with torch.inference_mode():
        for number in range(passes + 2):
            if number == 2:
                cpu = time.process_time()
            start = time.perf_counter()
            module(patches)
            walls.append(time.perf_counter() - start)
    print(json.dumps({"wall": min(walls[2:]), "cpu": (time.process_time() - cpu) / passes}))


def run(model_name: str, batch_size: int, passes: int, *, keep: bool) -> dict[str, float]:
    """`child` in a process of its own."""
    command = [sys.executable, __file__, "--child", model_name, str(batch_size), str(passes), str(int(keep))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main() -> int:
    """Measure and print."""
    if sys.argv[1:2] == ["--child"]:
        name, batch_size, passes, keep = sys.argv[2:]
        child(name, int(batch_size), int(passes), keep=keep == "1")
        return 0
    name = sys.argv[1] if len(sys.argv) > 1 else "tf_efficientnet_lite2"
    runs: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    for number in range(PAIRS):
        for keep in (False, True) if number % 2 == 0 else (True, False):
            runs[keep].append(run(name, 32, 6, keep=keep))
    figures = {}
    print(f"{name}, a forward pass over 32 patches of 224 px; {PAIRS} processes of each kind, in turn")
    for keep, label in ((False, "memory handed back (glibc's default)"), (True, "keep_freed_memory")):
        figures[keep] = {what: median(r[what] for r in runs[keep]) for what in ("wall", "cpu")}
        print(f"{label:38}  {figures[keep]['wall']:.3f} s wall  {figures[keep]['cpu']:.3f} s CPU")
    print(f"in CPU time: {figures[False]['cpu'] / figures[True]['cpu']:.2f}")
    ratio = figures[False]["wall"] / figures[True]["wall"]
    print(f"ratio: {ratio:.3f} (needs >= {NEEDED:g})")
    return 0 if ratio >= NEEDED else 1


if __name__ == "__main__":
    sys.exit(main())
