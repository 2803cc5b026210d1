"""The fidelity benchmark: held-out rows of a store are embedded by every model and compared with its teacher."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.base.console import say
from pipeline.base.devices import one_thread
from pipeline.base.errors import ConfigError
from pipeline.disk.files import sha256_json
from pipeline.encoders.build import BuiltEncoder
from pipeline.evaluate.benchmark import Benchmark, EvaluatedModel, Evaluation, PatchSource
from pipeline.evaluate.fidelity.changed import ChangedSlides, changed_files_note, find_changed, without_changed
from pipeline.evaluate.fidelity.options import FidelityOptions
from pipeline.evaluate.fidelity.rows import changed_note, failed_rows, missing_note, rows_of_changed
from pipeline.evaluate.fidelity.score import StoreEmbeddings, StoreRows, choose_store_rows
from pipeline.evaluate.fidelity.section import KEY, fidelity_section
from pipeline.evaluate.images import decode_notes
from pipeline.report.content import Section
from pipeline.store.store import Store, StoredTeacher
from pipeline.student.resolve import NamedModel
from pipeline.training.rows.reading import StoredRows


@dataclass(frozen=True, eq=False)
class FidelityBenchmark(Benchmark[FidelityOptions]):
    """`teacher` is the one to compare with; `rows` of its store are scored."""

    key: ClassVar[str] = KEY
    name: ClassVar[str] = "fidelity"
    asked_by: ClassVar[str] = "--store"

    teacher: StoredTeacher
    rows: StoreRows
    changed: ChangedSlides

    @classmethod
    def is_wanted(cls, options: FidelityOptions) -> bool:
        if options.teacher and not options.store:
            raise ConfigError("--teacher says which of a store's teachers is meant; give --store too")
        return options.store is not None

    @classmethod
    def store_of(cls, options: FidelityOptions) -> Path | None:
        return options.store

    @classmethod
    def look(cls, options: FidelityOptions, workers: int) -> Self:
        assert options.store is not None
        teacher = Store(options.store).teacher(options.teacher)
        missing = missing_note(failed_rows(teacher))
        rows, changed = choose_store_rows(teacher, options.store_rows, options.seed), ChangedSlides()
        if not teacher.store.has_pixels:
            slides = np.unique(teacher.plan.slide_of_row()[rows.all]).tolist()
            changed = find_changed(teacher.store, slides, options.slides_root, workers)
            rows = without_changed(teacher, rows, changed)
        left_out = changed_note(rows_of_changed(teacher, rows, changed.refused))
        notes = [f"{teacher.folder}: {note} The report lists them" for note in (missing, left_out) if note]
        if note := changed_files_note(changed):
            notes.append(f"{teacher.folder}: {note}")
        return cls(options, tuple(notes), teacher, rows, changed)

    @property
    def patch_px(self) -> int | None:
        return self.teacher.patch_px

    def check_models(self, named: Sequence[NamedModel]) -> list[str]:
        for model in named:
            if model.patch_px != self.teacher.patch_px:
                raise ConfigError(
                    f"{model.label} takes patches of {model.patch_px} px, those of {self.options.store} "
                    f"have {self.teacher.patch_px}. Leave it or --store out"
                )
        return []

    def is_teacher(self, built: BuiltEncoder) -> bool:
        return same_encoder(built.record(), self.teacher.record)

    def patch_source(self) -> PatchSource | None:
        rows = self.rows.all.tolist()

        def data_key(patch_px: int) -> dict[str, Any]:
            return {"store": self.teacher.content_hash(), "rows": sha256_json(rows), "patch_px": patch_px}

        def tell(note: str) -> None:
            if note not in self.changed.warnings:  # told with the benchmark's notes
                say(note)

        stored = StoredRows([self.teacher], slides_root=self.options.slides_root, tell=tell)
        return PatchSource("store", rows, stored.read, data_key)

    def stored_embeddings(self, built: BuiltEncoder) -> NDArray[np.float32] | None:
        if not self.is_teacher(built):
            return None
        return np.stack([self.teacher.read_embedding(row) for row in self.rows.all.tolist()])

    def section(self, evaluation: Evaluation) -> Section:
        models = [self._embeddings_on_store(model, evaluation.embeddings[model.label]) for model in evaluation.models]
        with one_thread():
            section = fidelity_section(
                self.teacher,
                self.rows,
                models,
                evaluation.out,
                reference=evaluation.named_reference,
                most_rows=self.options.store_rows,
                resamples=self.options.resamples,
                seed=self.options.seed,
            )
        left_out = rows_of_changed(self.teacher, self.rows, self.changed.refused)
        decoded = decode_notes((model.named for model in evaluation.models), self.teacher.plan.config.decode)
        notes = filter(None, [changed_note(left_out), changed_files_note(self.changed), *decoded])
        return replace(section, exclusions=[*section.exclusions, *left_out], notes=[*notes, *section.notes])

    def _embeddings_on_store(self, model: EvaluatedModel, embeddings: NDArray[np.float32]) -> StoreEmbeddings:
        """A model's `embeddings` of the rows, training rows first, with its way into the teacher's space."""
        num_train = len(self.rows.train)
        return StoreEmbeddings(
            label=model.label,
            train=embeddings[:num_train],
            val=embeddings[num_train:],
            is_teacher=self.is_teacher(model.built),
            projector=model.named.projector_into(self.teacher.record["weights_sha256"]),
            named=model.named,
        )


def same_encoder(record: dict[str, Any], teacher: dict[str, Any]) -> bool:
    """Whether an encoder is a store's teacher: its weights, its statistics and how its embedding is taken."""
    return all(record[name] == teacher[name] for name in ("weights_sha256", "embedding", "mean", "std", "width"))


BENCHMARK = FidelityBenchmark
