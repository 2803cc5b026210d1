"""Tables of labelled patches on disk, and what `g2l evaluate` makes of them before anything is computed."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.evaluate.patch_benchmark.benchmark import PatchBenchmark
from pipeline.evaluate.patch_benchmark.data import PatchSet
from pipeline.evaluate.patch_benchmark.options import PatchOptions
from support.benchmarks import look
from support.pixels import noise

Pixels = NDArray[np.uint8]
NUM = 24


def write_patches(folder: Path, pictures: list[Pixels], columns: dict[str, list[str]]) -> Path:
    """Images 0.png, 1.png, ... and a table of them with `columns`."""
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{i}.png")
    table = {"path": [f"{i}.png" for i in range(len(pictures))], **columns}
    lines = [",".join(table), *(",".join(row) for row in zip(*table.values(), strict=True))]
    path = folder / "patches.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def cohort(copies: dict[int, int] | None = None) -> tuple[list[Pixels], dict[str, list[str]]]:
    """24 patches of 12 cases in two classes; `copies` maps a patch to the one whose picture it has."""
    pictures = [noise(8, 8, 3, seed=(copies or {}).get(i, i)) for i in range(NUM)]
    cases = [f"C{i // 2}" for i in range(NUM)]
    return pictures, {"label": ["xy"[i // 2 % 2] for i in range(NUM)], "case_id": cases}


def options(path: Path | None = None) -> PatchOptions:
    return PatchOptions(patches=path, folds=3, resamples=100)


def patches_of(path: Path) -> PatchSet:
    (benchmark,) = look(patches=path)
    assert isinstance(benchmark, PatchBenchmark)
    return benchmark.bench.patch_set
