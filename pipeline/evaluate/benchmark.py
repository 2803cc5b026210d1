"""What a benchmark of `g2l evaluate` is: look through its inputs, say which patches each model embeds, make a section.

A benchmark is a subclass of `Benchmark` in a room of its own, `evaluate/NAME/benchmark.py`, with its options beside it,
`evaluate/NAME/options.py`, and one line of `evaluate.options.benchmarks.BENCHMARKS`, which is the order of the report.
It sees nothing of the other benchmarks.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.config.base import Config
from pipeline.encoders.build import BuiltEncoder
from pipeline.report.content import ReportModel, Section
from pipeline.student.resolve import NamedModel

Options = TypeVar("Options", bound=Config)
"""The class of a benchmark's options."""
Embeddings = Mapping[str, NDArray[np.float32]]
"""Embeddings of a benchmark's patches by the model's label, float32 (N, D)."""


@dataclass(frozen=True, eq=False)
class PatchSource:
    """Patches that every model embeds.

    Attributes:
        name: what they are, in a word or two; progress bars and errors name them so.
        rows: which patches, in the order of the embeddings.
        read: reads the patch of a row into uint8 (P, P, 3).
        data_key: what the patches are at a side P, pixels; with the model's key it identifies cached embeddings.
    """

    name: str
    rows: Sequence[int]
    read: Callable[[int, NDArray[np.uint8]], object]
    data_key: Callable[[int], dict[str, Any]]


@dataclass(frozen=True, eq=False)
class EvaluatedModel:
    """A model that was built; its module is on the CPU unless it is in use.

    Attributes:
        role: "teacher" for the teacher of a benchmark's data, else the role that the model was named with.
    """

    named: NamedModel
    built: BuiltEncoder
    role: str

    @property
    def label(self) -> str:
        """Its name in the report."""
        return self.named.label

    def described(self) -> ReportModel:
        """The model as the report lists it; an unknown resolution or number of parameters (0) becomes `None`."""
        record = self.built.record()
        record |= {name: record[name] or None for name in ("mpp", "params_m")}
        return ReportModel(self.label, self.role, {**record, "patch_px": self.named.patch_px}, self.built.num_params)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a benchmark scores, and where.

    Attributes:
        models: in the order of the report; none where only benchmarks are asked for that need none.
        embeddings: of the patches of `Benchmark.patch_source`; empty where the benchmark embeds nothing.
        reference: label of the model that the others are compared with; without models, of the feature set.
        out: the report's folder, for figures.
        device: where to train and to time models.
        precision: arithmetic of the forward passes.
        named_reference: what `--reference` names, a model or one of `Benchmark.other_labels`; `None` if nothing.
    """

    models: Sequence[EvaluatedModel]
    embeddings: Embeddings
    reference: str
    out: Path
    device: torch.device
    precision: str
    named_reference: str | None = None


@dataclass(frozen=True, eq=False)
class Benchmark(ABC, Generic[Options]):
    """A benchmark whose inputs have been looked through: `look` is the way to one.

    Attributes:
        key: the section's name in `report.json`, and how its figures' files begin.
        name: what the terminal calls it.
        asked_by: the options that ask for it.
        needs_models: whether it builds or runs the models; if not, it can be scored without any.
        options: its own, and those that it shares.
        notes: what the user must know before anything is computed.
    """

    key: ClassVar[str]
    name: ClassVar[str]
    asked_by: ClassVar[str]
    needs_models: ClassVar[bool] = True

    options: Options
    notes: tuple[str, ...]

    @classmethod
    @abstractmethod
    def is_wanted(cls, options: Options) -> bool:
        """Whether the options ask for this benchmark. Reads nothing.

        Raises:
            ConfigError: an option lacks another one that it needs.
        """

    @classmethod
    def store_of(cls, options: Options) -> Path | None:
        """The store that the options name: it may know where the weights of a run's teacher are. Reads nothing."""
        return None

    @classmethod
    @abstractmethod
    def look(cls, options: Options, workers: int) -> Self:
        """Read all inputs and see that they can be scored, before any model is built.

        Args:
            workers: threads that read images.

        Raises:
            G2LError: an input cannot be used; names it.
        """

    @property
    def patch_px(self) -> int | None:
        """Side of the patches, pixels, where the data fix it; `None` where they are resampled to the encoder's."""
        return None

    @property
    def other_labels(self) -> tuple[str, ...]:
        """Labels that the section compares beside those of the models, such as those of feature sets."""
        return ()

    @property
    def feature_sets(self) -> tuple[ReportModel, ...]:
        """What the report lists in the place of models where none is named: what is known of each of `other_labels`."""
        return ()

    def check_models(self, named: Sequence[NamedModel]) -> list[str]:
        """Compare the models with the data before they are built; returns what the user must know.

        Raises:
            ConfigError: a model cannot be scored on these data.
        """
        return []

    def is_teacher(self, built: BuiltEncoder) -> bool:
        """Whether an encoder is the teacher that the data hold embeddings of."""
        return False

    def patch_source(self) -> PatchSource | None:
        """The patches that every model embeds; `None` where the section needs no embeddings."""
        return None

    def stored_embeddings(self, built: BuiltEncoder) -> NDArray[np.float32] | None:
        """The encoder's embeddings of `patch_source`, float32 (N, D), where the data hold them; else `None`."""
        return None

    @abstractmethod
    def section(self, evaluation: Evaluation) -> Section:
        """The benchmark's section of the report, whose key is `key`. The same embeddings give the same section.

        Raises:
            BenchmarkError: embeddings that cannot be scored; names the model.
        """


def load_benchmark(room: str) -> type[Benchmark[Any]]:
    """The class of a benchmark on the list."""
    benchmark: type[Benchmark[Any]] = import_module(f"{room}.benchmark").BENCHMARK
    assert issubclass(benchmark, Benchmark), f"{room}.benchmark.BENCHMARK is no Benchmark"
    return benchmark
