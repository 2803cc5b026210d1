"""Tables and folders of feature files for the tests of the slide benchmark."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.evaluate.slide_benchmark.bags import SlideSet
from pipeline.evaluate.slide_benchmark.options import SlideOptions
from pipeline.evaluate.slide_benchmark.score import survey_slides
from pipeline.evaluate.slide_benchmark.section import SlideBench, slide_bench, slide_section
from pipeline.report.content import Section

WIDTH, NUM_CASES = 16, 20
Features = list[tuple[str, Path]]


def make(
    tmp_path: Path, csv: str, folders: Mapping[str, Sequence[str]], label: str = "tp53"
) -> tuple[Path, str, list[tuple[str, Path]]]:
    """A CSV and folders of (empty) feature files, as arguments of `read_slide_set`."""
    path = tmp_path / "labels.csv"
    path.write_text(csv)
    features = []
    for model, stems in folders.items():
        folder = tmp_path / model
        folder.mkdir()
        (folder / "README").touch()
        for stem in stems:
            (folder / f"{stem}.h5").touch()
        features.append((model, folder))
    return path, label, features


def bags_of(found: SlideSet) -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """Case, label and slides of every bag."""
    return {bag.name: (bag.case_id, bag.label, bag.slides) for bag in found.bags}


def write_features(folder: Path, slide: str, features: NDArray[Any], encoder: str | None = "uni") -> None:
    folder.mkdir(exist_ok=True)
    with h5py.File(folder / f"{slide}.h5", "w") as f:
        f["features"] = features
        if encoder:
            f["features"].attrs["encoder"] = encoder


def write_labelled_slides(folder: Path, shift: float = 1.0, seed: int = 0) -> tuple[Path, Features]:
    """Twenty cases of two classes and two centres, every fifth with two slides; `shift` parts the classes.

    Two feature sets: "uni" with the shift in all patches, "noise" with none.
    """
    generator = np.random.default_rng(seed)
    lines = ["slide_id,case_id,tp53,center"]
    for case in range(NUM_CASES):
        label = case % 2
        for number in range(2 if case % 5 == 0 else 1):
            slide = f"case_{case:02d}-DX{number + 1}"
            lines.append(f"{slide},case_{case:02d},{'mut' if label else 'wt'},{'north' if case < 12 else 'south'}")
            patches = generator.standard_normal((8 + case % 3, WIDTH), dtype=np.float32)
            write_features(folder / "noise", slide, patches, None)
            patches = patches.copy()
            patches[:, :4] += shift / 2 * label
            write_features(folder / "uni", slide, patches)
    path = folder / "labels.csv"
    path.write_text("\n".join(lines) + "\n")
    return path, [("uni", folder / "uni"), ("noise", folder / "noise")]


def prepared(path: Path, features: Features, **values: Any) -> SlideBench:
    options = SlideOptions(**({"label": "tp53", "folds": 2, "mil_epochs": 2, "resamples": 100} | values))
    surveyed = survey_slides(path, features, label=options.label, num_folds=options.folds, seed=options.seed)
    return slide_bench(surveyed, options)


def run(path: Path, features: Features, reference: str | None = None, **values: Any) -> Section:
    return slide_section(prepared(path, features, **values), reference, torch.device("cpu"))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
