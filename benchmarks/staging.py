"""Stage one on slides that are staged ahead from slow storage, against copying all slides first and extracting then.

Slow storage is a source that gives a megabyte only after a pause: copying waits and uses no processor, as with a file
server or a bucket. The pauses are such that copying all slides takes --balance times as long as extracting them. In
turn, in this process:
    copying   copy all slides, with the checks of a staged copy
    local     extract from slides on the local disk
    staged    extract from the slow source with --stage-dir and a bound of two slides
"Copied first" is copying and local together; "limit" is the longer of the two and the copy of the first slide, for
which extraction must wait. What waiting costs shows in wall time only: CPU time is no substitute here.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from unittest import mock

import inputs
import machine
from support.slides import make_big_slide  # of the tests; `inputs` sets the path
from support.staging import slow_source

from pipeline.base.console import table
from pipeline.cohort.manifest.rows import Manifest, ManifestRow
from pipeline.cohort.plan import Plan
from pipeline.config.plan import PlanConfig
from pipeline.config.stages import ExtractConfig
from pipeline.slides.staging.copies import ExpectedSlide, copy_slide
from pipeline.slides.staging.slide_files import slide_parts
from stages.extract_teacher import extract_teacher
from stages.plan import plan_slides

BLOCK_BYTES = 10**6
NUM_FIT = 2
"""Slides that fit into the bound: one that is read, and one that is copied."""
SLIDE_PX = 8000


class Cohort:
    """Slides, their plan and a teacher; each method does the work of all slides once and returns its wall seconds."""

    def __init__(self, folder: Path, num_slides: int, patches: int, teacher: str) -> None:
        self.folder, self.slides = folder, folder / "slides"
        self.slides.mkdir()
        rows = []
        for seed in range(num_slides):
            path = make_big_slide(self.slides / f"s{seed}.svs", width=SLIDE_PX, height=SLIDE_PX, seed=seed)
            rows.append(ManifestRow(slide_id=path.stem, path=path.name, case_id=path.stem))
        config = PlanConfig(patches_per_slide=patches, val_fraction=0, patch_px=inputs.PATCH_PX)
        self.plan: Plan = plan_slides(Manifest(tuple(rows), self.slides / "m.csv", self.slides), config, workers=1)
        self.teacher, self.weights = teacher, inputs.make_weights(folder, teacher)
        self.paths = [self.plan.slide_path(slide) for slide in self.plan.slides]
        self.num_bytes = [path.stat().st_size for path in self.paths]
        self.pause = 0.0

    def extract(self, **options: object) -> float:
        """Stage one into a fresh store, without pixels."""
        values = {"teacher": self.teacher, "weights": self.weights, "device": "cpu", "pixels": "none"} | options
        return timed(lambda: extract_teacher(self.plan, self.folder / "store.zarr", ExtractConfig.build(values)))

    def local(self) -> float:
        """Slides on the local disk."""
        return self._afresh(self.extract)

    def staged(self) -> float:
        """Slides on slow storage, staged."""
        bound = (NUM_FIT * max(self.num_bytes) + 1) / 1e9
        with slow_source(self.pause, BLOCK_BYTES):
            return self._afresh(lambda: self.extract(stage_dir=self.folder / "stage", stage_gb=bound))

    def copying(self) -> float:
        """All slides copied from slow storage, one after the other."""
        with slow_source(self.pause, BLOCK_BYTES):
            return timed(self._copy_all)

    def _copy_all(self) -> None:
        for path, slide in zip(self.paths, self.plan.slides, strict=True):
            into = self.folder / "copy"
            into.mkdir()
            parts = slide_parts(path)
            (into / parts[0].name).write_bytes(b"")
            copy_slide(parts, into, ExpectedSlide(path, identity=slide.identity), lambda: None)
            shutil.rmtree(into)

    def _afresh(self, work: Callable[[], float]) -> float:
        shutil.rmtree(self.folder / "store.zarr", ignore_errors=True)
        with inputs.silence(), mock.patch.dict("os.environ"):
            return work()


def timed(work: Callable[[], object]) -> float:
    """Wall seconds of `work`."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> int:
    """Measure and print."""
    parser = machine.parser(__doc__, rounds=3)
    parser.add_argument("--slides", type=int, default=6, help="number of slides [%(default)s]")
    parser.add_argument("--patches", type=int, default=150, help="patches a slide [%(default)s]")
    parser.add_argument("--teacher", default="test_resnet", help="timm model [%(default)s]")
    parser.add_argument("--balance", type=float, nargs="+", default=[0.5, 1.0, 2.0], help="copying / extracting")
    args = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as name:
        cohort = Cohort(Path(name), args.slides, args.patches, args.teacher)
        unhindered = median(cohort.local() for _ in range(2))
        for balance in args.balance:
            blocks = sum(-(-num_bytes // BLOCK_BYTES) for num_bytes in cohort.num_bytes)
            cohort.pause = balance * unhindered / blocks
            rounds = [(cohort.copying(), cohort.local(), cohort.staged()) for _ in range(args.rounds)]
            first = [(copying + local) / staged for copying, local, staged in rounds]
            limit = [(max(copying, local) + copying / args.slides) / staged for copying, local, staged in rounds]
            parts = [f"{median(part):.2f}" for part in zip(*rounds, strict=True)]
            lines.append((f"{balance:g}", *parts, f"{1 / median(first):.2f}", f"{median(limit):.2f}"))
    heads = ("copying / local", "copying, s", "local, s", "staged, s", "staged / copied first", "of the limit")
    print(table(lines, heads, right=range(len(heads))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
