"""20,000 x 1,024 embeddings through the benchmarks of `g2l evaluate` within two minutes and 4 GB on two cores.

One process, bound to two cores and two threads, does in turn what the stage does with one model's embeddings: linear
probe, kNN, few-shot, their intervals, calibration, CKA with a reference, the robustness index with k chosen, and the
ratio of class to centre. Each is done once, from nothing.
The embeddings are made up: correlated as real ones are (the spread of the directions falls as their rank ** -0.75),
with means of classes and centres that overlap, which is what the linear probe takes longest with. Making them does not
count, but they count as memory.

What is compared with two minutes is wall time. Where others used the machine, both wall time and the CPU time of this
process are more than its wall time would be on two quiet cores. So the smaller of them counts: it says yes too seldom
and never too often.
"""

import argparse
import os
import sys
from collections.abc import Callable

import machine
import numpy as np
from machine import Measured
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pipeline.base.console import table
from pipeline.evaluate.bootstrap import GroupResamples, class_mean_draws, classification_draws
from pipeline.evaluate.cka import cka_with
from pipeline.evaluate.folds import group_folds
from pipeline.evaluate.patch_benchmark.options import PatchOptions
from pipeline.evaluate.probes.calibration import calibration_of
from pipeline.evaluate.probes.few_shot import draw_examples, few_shot
from pipeline.evaluate.probes.linear_probe import Probed, knn_probe, linear_probe, probe_task
from pipeline.evaluate.robustness.index import robustness_index
from pipeline.evaluate.robustness.ratio import RATIO_K, CenterRatio, ratio_tables

NEEDED_SECONDS, NEEDED_BYTES = 120.0, 4e9
"""From the issue."""
NUM_THREADS = 2
ROWS_OF_A_SLIDE, SLIDES_OF_A_CENTRE = 100, 40
SIGNAL = 0.1
"""Length of a class's mean in units of the noise, in each direction; half of it for a centre's. Our choice: the linear
probe then gets about 0.8 right.
"""


class Work:
    """The parts, each a method; later ones use what earlier ones found."""

    def __init__(self, num_rows: int, width: int, num_classes: int) -> None:
        rng = np.random.default_rng(0)
        slides = np.arange(num_rows) // ROWS_OF_A_SLIDE
        centers = slides // SLIDES_OF_A_CENTRE
        truth = rng.integers(num_classes, size=num_rows)
        self.classes = np.array([f"class {c}" for c in truth])
        self.slides = np.array([f"slide {s}" for s in slides])
        self.centers = np.array([f"centre {c}" for c in centers])
        hidden = rng.standard_normal((num_rows, width), np.float32)
        hidden += SIGNAL * rng.standard_normal((num_classes, width), np.float32)[truth]
        hidden += SIGNAL / 2 * rng.standard_normal((centers.max() + 1, width), np.float32)[centers]
        hidden *= np.arange(1, width + 1, dtype=np.float32) ** -0.75
        self.embeddings: NDArray[np.float32] = hidden @ rng.standard_normal((width, width), np.float32)
        self.options = PatchOptions()
        self.probed: list[Probed] = []

    def folds(self) -> None:
        """Folds by slide, and the splits within."""
        seed = self.options.seed
        folds = group_folds(self.classes, self.slides, self.options.folds, seed)
        self.task = probe_task(self.classes, self.slides, folds, seed)

    def linear(self) -> None:
        """The linear probe, its regularisation chosen in each fold."""
        self.probed.append(linear_probe(self.embeddings, self.task))

    def knn(self) -> None:
        """kNN."""
        self.probed.append(knn_probe(self.embeddings, self.task, self.options.knn))

    def few_shot(self) -> None:
        """Few-shot prototypes, all numbers of examples and draws."""
        examples = draw_examples(self.task, self.options.draws, self.options.seed)
        self.few = few_shot(self.embeddings, self.task, examples)

    def intervals(self) -> None:
        """All metrics of all resamples."""
        resamples = GroupResamples(self.slides, self.options.resamples, self.options.seed)
        for probed in self.probed:
            self.draws = classification_draws(self.task.truth, probed.probabilities, resamples, self.task.parts)
        for found in self.few:
            class_mean_draws(self.task.truth, found.right, resamples)

    def calibration(self) -> None:
        """Errors of both probes, with temperatures of the linear one."""
        resamples = GroupResamples(self.slides, self.options.resamples, self.options.seed)
        for number, probed in enumerate(self.probed):
            calibration_of(probed, self.task, resamples, is_scaled=number == 0)

    def cka(self) -> None:
        """CKA with a reference, whose embeddings are those of the model with noise; the reference's own part counts."""
        rng = np.random.default_rng(1)
        reference = self.embeddings + rng.standard_normal(self.embeddings.shape, np.float32)
        both = {"reference": reference, "model": self.embeddings}
        cka_with(both, "reference", self.slides, self.options.resamples, self.options.seed)

    def ratio(self) -> None:
        """The ratio at all k with its intervals, of the neighbours that the index has found."""
        resamples = GroupResamples(self.slides, self.options.resamples, self.options.seed)
        ratio_tables([self.counted], "model", resamples)

    def robustness(self) -> None:
        """The robustness index."""
        columns = (self.classes, self.centers, self.slides)
        self.counted = CenterRatio("model", *columns)
        self.index = robustness_index(self.embeddings, *columns, watch=self.counted.see, watched=RATIO_K[-1])

    def parts(self) -> dict[str, Callable[[], None]]:
        """In the order in which they are done."""
        return {
            "folds": self.folds,
            "linear probe": self.linear,
            "kNN": self.knn,
            "few-shot": self.few_shot,
            "intervals": self.intervals,
            "calibration": self.calibration,
            "CKA": self.cka,
            "robustness index": self.robustness,
            "class over centre": self.ratio,
        }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--classes", type=int, default=9)
    args = parser.parse_args()

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:NUM_THREADS])
    work = Work(args.rows, args.width, args.classes)
    measured: dict[str, Measured] = {}
    lines = []
    with threadpool_limits(NUM_THREADS):
        for name, part in work.parts().items():
            found = measured[name] = machine.measure(part)
            lines.append((name, f"{found.wall:.1f}", f"{found.cpu:.1f}", f"{machine.peak_resident_bytes() / 1e6:.0f}"))
    quiet = machine.others_in(measured) <= machine.QUIET
    wall, cpu = (sum(getattr(one, clock) for one in measured.values()) for clock in ("wall", "cpu"))
    seconds = wall if quiet else min(wall, cpu)
    lines.append(("total", f"{wall:.1f}", f"{cpu:.1f}", f"{machine.peak_resident_bytes() / 1e6:.0f}"))
    print(f"{args.rows:,} x {args.width:,} embeddings, {args.classes} classes, {NUM_THREADS} threads")
    print(table(lines, ("part", "seconds", "CPU seconds", "peak MB so far"), right=(1, 2, 3)))
    right = np.mean(work.probed[0].probabilities.argmax(1) == work.task.truth)
    print(f"linear probe {right:.3f} right; robustness index {work.index.value:.3f} at k = {work.index.k}")
    which = "wall time" if quiet else "the smaller time"
    print(f"others had {machine.others_in(measured):.0%} of the CPUs: {which} counts")
    print(f"peak: {machine.peak_resident_bytes() / 1e9:.2f} GB (needs <= {NEEDED_BYTES / 1e9:g})")
    print(f"seconds: {seconds:.1f} (needs <= {NEEDED_SECONDS:g})")
    return 0 if seconds <= NEEDED_SECONDS and machine.peak_resident_bytes() <= NEEDED_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
