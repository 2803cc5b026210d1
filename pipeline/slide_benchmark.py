"""Slide benchmarks of one model's feature files: what the files hold, and predictions for every bag out of its fold.

Two predictors: attention MIL (`mil`), and logistic regression on the mean embedding of a bag, which shows how much of
it attention is worth. Memory: files are read one at a time in a first pass that keeps the means and moments of each
slide; the attention MIL reads each bag again when it needs it, and keeps what fits `KEPT_BYTES`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import BenchmarkError
from pipeline.feature_files import read_features
from pipeline.files import sha256_file, sha256_json
from pipeline.mil import Moments, out_of_fold
from pipeline.probes import Probed, ProbeTask, linear_probe
from pipeline.runlog import Progress
from pipeline.slide_sets import Bag, SlideSet

KEPT_BYTES = 2 << 30
"""Embeddings that are kept instead of read again. Our choice: 1,000 slides of 300 patches, within the 4 GB that an
evaluation may take; beyond it files are read once an epoch, mostly from the system's own cache.
"""


@dataclass(frozen=True)
class Survey:
    """What the feature files of one model hold.

    Attributes:
        width: D.
        encoder: the encoder that the files name, `None` if none does.
        moments: by slide.
        sha256: of each slide's file.
    """

    width: int
    encoder: str | None
    moments: Mapping[str, Moments]
    sha256: Mapping[str, str]

    def hash_of(self, slides: Sequence[str]) -> str:
        """Hex SHA-256 over the ids and the files' hashes of `slides`."""
        return sha256_json({slide: self.sha256[slide] for slide in slides})


def survey(found: SlideSet) -> tuple[SlideSet, dict[str, Survey]]:
    """Read every feature file once: the set without the slides whose files cannot be used, and what the others hold.

    A file that cannot be used for one model takes its slide out for all, with the reason.

    Raises:
        BenchmarkError: the files of a model differ in width, or name different encoders: they are of several models.
    """
    broken: dict[str, str] = {}
    surveys = {}
    with Progress("features", sum(len(files) for files in found.files.values()), "slides") as bar:
        for model, files in found.files.items():
            moments, digests = {}, {}
            widths: dict[int, Path] = {}
            encoders: dict[str, Path] = {}
            for slide, path in sorted(files.items()):
                bar.step()
                try:
                    features = read_features(path)
                except BenchmarkError as error:
                    broken.setdefault(slide, f"{model}: {error}")
                    continue
                moments[slide], digests[slide] = Moments.of(features.features), sha256_file(path)
                widths.setdefault(features.features.shape[1], path)
                if features.encoder is not None:
                    encoders.setdefault(features.encoder, path)
            _require_one(model, "widths", widths)
            _require_one(model, "encoders", encoders)
            surveys[model] = Survey(next(iter(widths), 0), next(iter(encoders), None), moments, digests)
    return found.without(broken), surveys


def _require_one(model: str, what: str, seen: Mapping[int, Path] | Mapping[str, Path]) -> None:
    """Refuse files of one model that differ in what they should share; `seen` gives an example of each.

    Raises:
        BenchmarkError: they do.
    """
    if len(seen) > 1:
        examples = ", ".join(f"{value} in {path}" for value, path in seen.items())
        raise BenchmarkError(f"{model}: its feature files have several {what} ({examples}). Name a folder of one model")


class BagReader:
    """Reads a bag by its index, float32 (N, D): the patches of all of its slides. Keeps the first that fit."""

    def __init__(self, bags: Sequence[Bag], files: Mapping[str, Path], kept_bytes: int = KEPT_BYTES) -> None:
        self._paths = [[files[slide] for slide in bag.slides] for bag in bags]
        self._kept: dict[int, NDArray[np.float32]] = {}
        self._free = kept_bytes

    def __call__(self, bag: int) -> NDArray[np.float32]:
        if bag in self._kept:
            return self._kept[bag]
        parts = [read_features(path).features for path in self._paths[bag]]
        patches = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if patches.nbytes <= self._free:
            self._kept[bag] = patches
            self._free -= patches.nbytes
        return patches


def bag_moments(found: SlideSet, surveyed: Survey) -> list[Moments]:
    """Moments of each bag's patches, those of all of its slides."""
    return [Moments.merge([surveyed.moments[slide] for slide in bag.slides]) for bag in found.bags]


def mean_pool(found: SlideSet, surveyed: Survey, task: ProbeTask) -> Probed:
    """The linear probe on the mean embedding of each bag's patches."""
    means = np.stack([moments.mean for moments in bag_moments(found, surveyed)])
    return linear_probe(means.astype(np.float32), task)


def attention_mil(
    found: SlideSet, model: str, surveyed: Survey, task: ProbeTask, epochs: int, seed: int, device: torch.device
) -> Probed:
    """Attention MIL on the patches of each bag, as the feature files of `model` have them.

    Raises:
        BenchmarkError: training diverged, or a file is no longer what was surveyed.
    """
    reader = BagReader(found.bags, found.files[model])
    with Progress(f"attention MIL, {model}", (epochs + 1) * len(found.bags), "bags") as bar:
        probabilities = out_of_fold(
            reader, bag_moments(found, surveyed), task.truth, task.folds,
            epochs=epochs, seed=seed, device=device, done=bar.step,
        )  # fmt: skip
    return Probed(probabilities)
