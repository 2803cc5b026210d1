"""Score feature files on a slide benchmark: survey what they hold, and predict every bag out of its fold.

Three predictors: attention MIL (`attention_mil`), and logistic regression and kNN on the mean embedding of a bag,
which show what attention adds. Memory: a first pass reads files one at a time and keeps the mean and moments of each
slide; the attention MIL reads each bag again when it needs it, and keeps as many as fit `KEPT_BYTES`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.console import Progress
from pipeline.base.errors import BenchmarkError
from pipeline.disk.files import sha256_file, sha256_json
from pipeline.evaluate.folds import Fold, given_split, group_folds
from pipeline.evaluate.left_out import naming_left_out
from pipeline.evaluate.probes.attention_mil import Moments, out_of_fold
from pipeline.evaluate.probes.linear_probe import Probed, ProbeTask, knn_probe, linear_probe
from pipeline.evaluate.slide_benchmark.bags import Bag, SlideSet, named
from pipeline.evaluate.slide_benchmark.data import read_slide_set
from pipeline.features.read import read_features

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
        content: SHA-256 of each slide's features, the same for copies in another file.
    """

    width: int
    encoder: str | None
    moments: Mapping[str, Moments]
    sha256: Mapping[str, str]
    content: Mapping[str, str]

    def hash_of(self, slides: Sequence[str]) -> str:
        """Hex SHA-256 over the ids and the files' hashes of `slides`."""
        return sha256_json({slide: self.sha256[slide] for slide in slides})


@dataclass(frozen=True)
class SurveyedSlides:
    """A slide benchmark whose feature files have been read once.

    Attributes:
        slide_set: the bags that can be scored.
        surveys: what the feature files hold, by the feature set's label.
        features: label and folder of each feature set.
        warnings: what the user must know before anything is computed.
    """

    slide_set: SlideSet
    surveys: Mapping[str, Survey]
    features: tuple[tuple[str, Path], ...]
    warnings: tuple[str, ...]


def survey_slides(
    slides_csv: Path, features: Sequence[tuple[str, Path]], *, label: str, num_folds: int, seed: int
) -> SurveyedSlides:
    """Read the table and see that it can be scored; then read every feature file once and see that it still can be.

    Args:
        slides_csv: labels, see `data.read_slide_set`.
        features: label and folder of each feature set.
        label: the column that is predicted.
        num_folds, seed: of the folds, where the table gives no split.

    Raises:
        BenchmarkError: labels or features cannot be used, or are too few to score.
    """
    labels = [label for label, _ in features]
    if not labels or len(set(labels)) < len(labels):
        raise BenchmarkError(f"--features: each folder needs a label of its own, not {', '.join(labels) or 'none'}")
    listed = read_slide_set(slides_csv, label, features)
    require_folds(listed, num_folds, seed)
    slide_set, surveys = survey(listed)
    with naming_left_out(slide_set.exclusions if slide_set.bags else ()):  # without bags, the error lists them
        require_folds(slide_set, num_folds, seed)
    warnings = [f"{slides_csv}: {note}" for note in slide_set.notes]
    if failures := sum(not exclusion.by_rule for exclusion in slide_set.exclusions):
        warnings.append(f"left out of {slides_csv}, slides and cases together: {failures:,}; the report lists them")
    return SurveyedSlides(slide_set, surveys, tuple(features), tuple(warnings))


def require_folds(slide_set: SlideSet, num_folds: int, seed: int) -> None:
    """See that the set can be scored, by the CSV's split or in folds.

    Raises:
        BenchmarkError: it cannot.
    """
    slide_set.require_scorable(None if slide_set.has_split else num_folds)
    slide_folds(slide_set, num_folds, seed)


def slide_folds(slide_set: SlideSet, num_folds: int, seed: int) -> list[Fold]:
    """The CSV's split, else folds by case.

    Raises:
        BenchmarkError: see `folds`.
    """
    if slide_set.has_split:
        splits = np.array([bag.split for bag in slide_set.bags], dtype=np.str_)
        return given_split(slide_set.labels, slide_set.cases, splits, str(slide_set.path))
    return group_folds(slide_set.labels, slide_set.cases, num_folds, seed)


def survey(slide_set: SlideSet) -> tuple[SlideSet, dict[str, Survey]]:
    """Read every feature file once: the set without the slides whose files cannot be used, and what the others hold.

    A file that cannot be used for one model takes its slide out for all, with the reason. So do features that are those
    of a slide of another case or label as well (`copied_slides`): it cannot be known whose they are.

    Raises:
        BenchmarkError: the files of a model differ in width, or name different encoders: they are of several models.
    """
    broken: dict[str, str] = {}
    surveys = {}
    with Progress("features", sum(len(files) for files in slide_set.files.values()), "slides") as bar:
        for model, files in slide_set.files.items():
            moments, digests, content = {}, {}, {}
            widths: dict[int, Path] = {}
            encoders: dict[str, Path] = {}
            for slide, path in sorted(files.items()):
                bar.step()
                try:
                    features = read_features(path)
                    if not features.features.any():  # has no direction, which would end the kNN of all slides
                        raise BenchmarkError(f"{path}: all features are zero. Embed it again")
                except BenchmarkError as error:
                    broken.setdefault(slide, f"{model}: {error}")
                    continue
                moments[slide], digests[slide] = Moments.of(features.features), sha256_file(path)
                content[slide] = sha256_of(features.features)
                widths.setdefault(features.features.shape[1], path)
                if features.encoder is not None:
                    encoders.setdefault(features.encoder, path)
            _require_one(model, "widths", widths)
            _require_one(model, "encoders", encoders)
            surveys[model] = Survey(next(iter(widths), 0), next(iter(encoders), None), moments, digests, content)
    notes: list[str] = []
    for model, surveyed in surveys.items():
        copied, of_model = copied_slides(slide_set, model, surveyed.content)
        broken = copied | broken
        notes += of_model
    left = slide_set.without(broken)
    return replace(left, notes=(*left.notes, *notes)), surveys


def sha256_of(features: NDArray[np.float32]) -> str:
    """Hex SHA-256 of an array's shape and values."""
    digest = hashlib.sha256(f"{features.shape}".encode())
    digest.update(np.ascontiguousarray(features).data)
    return digest.hexdigest()


def copied_slides(slide_set: SlideSet, model: str, content: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Slides that have the same features as a slide of another case or label, with the reason; and notes on copies
    within one case, which are no leak. `content` is a hash of each slide's features.
    """
    bag_of = {slide: bag for bag in slide_set.bags for slide in bag.slides}
    alike: dict[str, list[str]] = {}
    for slide in sorted(content):
        alike.setdefault(content[slide], []).append(slide)
    copied: dict[str, str] = {}
    within = 0
    for slides in alike.values():
        if len({(bag_of[slide].case_id, bag_of[slide].label) for slide in slides}) == 1:
            within += len(slides) - 1
            continue
        for slide in slides:
            other = next(
                one
                for one in slides
                if (bag_of[one].case_id, bag_of[one].label) != (bag_of[slide].case_id, bag_of[slide].label)
            )
            copied[slide] = (
                f"{model}: its features are exactly those of {named(other, bag_of[other].case_id)}. One of the two is "
                "a copy under a wrong name: take it out, or give both slides the same case"
            )
    notes: list[str] = []
    if within:
        words = "slide has" if within == 1 else "slides have"
        notes.append(f"{model}: {within:,} {words} the same features as another of the same case; each counts.")
    return copied, notes


def _require_one(model: str, what: str, seen: Mapping[int, Path] | Mapping[str, Path]) -> None:
    """Refuse files of one model that differ in what they should share; `seen` gives an example of each.

    Raises:
        BenchmarkError: they do.
    """
    if len(seen) > 1:
        examples = ", ".join(f"{value} in {path}" for value, path in seen.items())
        raise BenchmarkError(f"{model}: its feature files have several {what} ({examples}). Name a folder of one model")


class BagReader:
    """Reads a bag by its index, float32 (N, D): the patches of all of its slides. Keeps the first that fit.

    Each slide is compared with what the survey found, `content`, when it is first read: that may be hours later.
    """

    def __init__(
        self, bags: Sequence[Bag], files: Mapping[str, Path], content: Mapping[str, str], kept_bytes: int = KEPT_BYTES
    ) -> None:
        self._slides = [bag.slides for bag in bags]
        self._files = files
        self._unseen = dict(content)
        self._kept: dict[int, NDArray[np.float32]] = {}
        self._free = kept_bytes

    def __call__(self, bag: int) -> NDArray[np.float32]:
        if bag in self._kept:
            return self._kept[bag]
        parts = [self._read(slide) for slide in self._slides[bag]]
        patches = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if patches.nbytes <= self._free:
            self._kept[bag] = patches
            self._free -= patches.nbytes
        return patches

    def _read(self, slide: str) -> NDArray[np.float32]:
        """The features of one slide.

        Raises:
            BenchmarkError: they cannot be read, or are not those of the survey.
        """
        features = read_features(self._files[slide]).features
        surveyed = self._unseen.pop(slide, None)
        if surveyed is not None and sha256_of(features) != surveyed:
            raise BenchmarkError(
                f"{self._files[slide]}: its features have changed since the evaluation began; leave the files alone "
                "while it runs, and start it again"
            )
        return features


def bag_moments(slide_set: SlideSet, surveyed: Survey) -> list[Moments]:
    """Moments of each bag's patches, those of all of its slides."""
    return [Moments.merge([surveyed.moments[slide] for slide in bag.slides]) for bag in slide_set.bags]


def mean_pool(slide_set: SlideSet, surveyed: Survey, task: ProbeTask) -> Probed:
    """The linear probe on the mean embedding of each bag's patches."""
    return linear_probe(mean_embeddings(slide_set, surveyed), task)


def mean_neighbours(slide_set: SlideSet, surveyed: Survey, task: ProbeTask, k: int) -> Probed:
    """kNN on the mean embedding of each bag's patches.

    Raises:
        BenchmarkError: a mean is zero.
    """
    return knn_probe(mean_embeddings(slide_set, surveyed), task, k)


def mean_embeddings(slide_set: SlideSet, surveyed: Survey) -> NDArray[np.float32]:
    """The mean over each bag's patches, float32 (bags, D)."""
    means = np.stack([moments.mean for moments in bag_moments(slide_set, surveyed)])
    return means.astype(np.float32)


def attention_mil(
    slide_set: SlideSet, model: str, surveyed: Survey, task: ProbeTask, epochs: int, seed: int, device: torch.device
) -> Probed:
    """Attention MIL on the patches of each bag, as the feature files of `model` have them.

    Raises:
        BenchmarkError: training diverged, or a file is no longer what was surveyed.
    """
    reader = BagReader(slide_set.bags, slide_set.files[model], surveyed.content)
    with Progress(f"attention MIL, {model}", (epochs + 1) * len(slide_set.bags), "bags") as bar:
        probabilities = out_of_fold(
            reader,
            bag_moments(slide_set, surveyed),
            task.truth,
            task.folds,
            epochs=epochs,
            seed=seed,
            device=device,
            done=bar.step,
        )
    return Probed(probabilities)
