"""The slide benchmark: labels of cases or slides are predicted from feature files that were made beforehand."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

from pipeline.base.errors import ConfigError
from pipeline.config.model_names import split_folder
from pipeline.evaluate.benchmark import Benchmark, Evaluation
from pipeline.evaluate.slide_benchmark.options import SlideOptions
from pipeline.evaluate.slide_benchmark.score import survey_slides
from pipeline.evaluate.slide_benchmark.section import KEY, SlideBench, feature_sets, slide_bench, slide_section
from pipeline.report.content import ReportModel, Section
from pipeline.student.resolve import NamedModel


@dataclass(frozen=True, eq=False)
class SlideBenchmark(Benchmark[SlideOptions]):
    """The models embed nothing: `bench` has a folder of feature files for each model."""

    key: ClassVar[str] = KEY
    name: ClassVar[str] = "slide benchmark"
    asked_by: ClassVar[str] = "--slides with --features"
    needs_models: ClassVar[bool] = False

    bench: SlideBench

    @classmethod
    def is_wanted(cls, options: SlideOptions) -> bool:
        if (options.slides is None) != (not options.features):
            raise ConfigError(
                "--slides and --features belong together: labels, and a folder of feature files for each model"
            )
        return options.slides is not None

    @classmethod
    def look(cls, options: SlideOptions, workers: int) -> Self:
        assert options.slides is not None
        surveyed = survey_slides(
            options.slides,
            named_folders(options.features or []),
            label=options.label,
            num_folds=options.folds,
            seed=options.seed,
        )
        on_folds = options.notes_on_folds(options.slides, has_split=surveyed.slide_set.has_split)
        return cls(options, (*surveyed.warnings, *on_folds), slide_bench(surveyed, options))

    @property
    def other_labels(self) -> tuple[str, ...]:
        return tuple(label for label, _ in self.bench.surveyed.features)

    @property
    def feature_sets(self) -> tuple[ReportModel, ...]:
        return feature_sets(self.bench.surveyed)

    def check_models(self, named: Sequence[NamedModel]) -> list[str]:
        return unmatched_notes(self.other_labels, [model.label for model in named])

    def section(self, evaluation: Evaluation) -> Section:
        wanted = [evaluation.named_reference, evaluation.reference]
        reference = next((label for label in wanted if label in self.other_labels), None)
        section = slide_section(self.bench, reference, evaluation.device)
        notes = unmatched_notes(self.other_labels, [model.label for model in evaluation.models])
        return replace(section, notes=[*section.notes, *notes])


def named_folders(texts: Sequence[str]) -> list[tuple[str, Path]]:
    """`--features`: label and folder; without a label it is the folder's name.

    Raises:
        ConfigError: a folder does not exist, or two have one label.
    """
    folders = []
    for text in texts:
        label, folder = split_folder(text)
        if not os.path.isdir(folder):
            raise ConfigError(f"--features {text}: {folder} is not a folder")
        folders.append((label or os.path.basename(os.path.realpath(folder)), folder))
    labels = [label for label, _ in folders]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ConfigError(f"--features: two are called {twice[0]}; name them: --features LABEL=DIR")
    return folders


def unmatched_notes(feature_labels: Sequence[str], model_labels: Sequence[str]) -> list[str]:
    """A note on feature sets that have the label of no model; none if all have one, or no model is named."""
    unmatched = [label for label in feature_labels if label not in model_labels]
    if not unmatched or not model_labels:
        return []
    return [
        f"The features {', '.join(unmatched)} are of none of the models ({', '.join(model_labels)}) and stand for "
        "themselves."
    ]


BENCHMARK = SlideBenchmark
