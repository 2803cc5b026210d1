"""Is the student as good as its teacher? Models side by side on fidelity, patch and slide benchmarks, robustness and
cost, in one report.

The order is that of a careful reader: all inputs are looked at before anything is computed; each model is built once
and embeds what the benchmarks need (kept by hash, so that another report of the same data computes nothing); the
benchmarks see nothing but embeddings; the report is written last.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.console import say, table
from pipeline.base.cores import usable_cores
from pipeline.base.devices import (
    choose_batch_size,
    choose_device,
    choose_precision,
    describe_device,
    keep_freed_memory,
    one_thread,
)
from pipeline.base.devices import versions as used_versions
from pipeline.config.tools import EvaluateConfig
from pipeline.disk.files import sha256_json
from pipeline.disk.locks import exclusive
from pipeline.encoders.build import BuiltEncoder
from pipeline.evaluate.cost.section import cost_section
from pipeline.evaluate.fidelity.score import ScoredModel
from pipeline.evaluate.fidelity.section import fidelity_section
from pipeline.evaluate.images import read_image
from pipeline.evaluate.inputs import Images, Inputs, check_labels, look_at_inputs, start_folder, strangers_note
from pipeline.evaluate.patch_benchmark.section import patch_section
from pipeline.evaluate.probe_report import curves_to_draw
from pipeline.evaluate.robustness.section import robustness_section
from pipeline.evaluate.slide_benchmark.section import slide_section
from pipeline.features.cache import cached, embed_rows, model_key, require_finite
from pipeline.report.content import Figure, Report, ReportModel, Section
from pipeline.report.figures import draw_curves, draw_scores, figure_scores
from pipeline.report.page import write_report
from pipeline.report.size_figure import draw_score_against_size
from pipeline.student.resolve import TEACHER, NamedModel, name_models, reference_of
from pipeline.training.rows import StoredRows

PROBE_X = "C, inverse strength of the regularisation of the linear probe"


@dataclass
class EvaluatedModel:
    """A model that was built, with the embeddings that the benchmarks need, float32 (N, D) by the data's name."""

    named: NamedModel
    built: BuiltEncoder
    role: str
    embeddings: dict[str, NDArray[np.float32]]

    def described(self) -> ReportModel:
        """What the report says of it; mpp and size of an encoder that nobody wrote down are 0 there, and unknown."""
        record = self.built.record()
        record |= {name: record[name] or None for name in ("mpp", "params_m")}
        return ReportModel(self.named.label, self.role, {**record, "patch_px": self.named.patch_px},
                           self.built.num_params)  # fmt: skip


def evaluate(out: Path, config: EvaluateConfig) -> Report:
    """Make the report in the folder `out`; the same options continue or renew it.

    Raises:
        G2LError: an input cannot be used, or `out` holds a report of other options.
    """
    started = time.monotonic()
    device = choose_device(config.device)
    keep_freed_memory(device)
    precision = choose_precision(config.precision, device)
    with exclusive(out, "g2l evaluate"):
        start_folder(out, config, precision)
        name_models(
            config.models, config.patch_px, config.store
        )  # a wrong name is told before images are looked through
        inputs = look_at_inputs(config)
        patch_px = config.patch_px or (inputs.store.patch_px if inputs.store else None)
        named = name_models(config.models, patch_px, config.store)
        check_labels(named, inputs, config)
        models = [embed_model(model, inputs, config, out, device, precision) for model in named]
        roles = [model.role for model in models]
        reference = reference_of([model.named.label for model in models], roles, _of_models(config, named))
        sections = benchmark(models, inputs, config, reference, out, device)
        milliseconds: dict[str, float] = {}
        if config.cost:
            parts = [(model.described(), model.built.module.to(device), model.named.patch_px) for model in models]
            section, milliseconds = cost_section(parts, config, reference, device, precision)
            sections.append(section)
        described = [model.described() for model in models]
        picture = out / "score_against_size.png"
        overview = draw_score_against_size(described, figure_scores(sections), milliseconds or None, picture)
        report = Report(
            title="Is the student as good as its teacher?",
            models=described,
            reference=reference,
            sections=sections,
            settings=config.absolute().record() | {"precision": precision},
            run={
                "created": time.strftime("%Y-%m-%d %H:%M:%S %z"),
                "seconds": round(time.monotonic() - started, 1),
                "machine": describe_device(device),
                "versions": used_versions(),
            },
        )
        write_report(report, out, [overview] if overview else [])
    return report


def _of_models(config: EvaluateConfig, named: Sequence[NamedModel]) -> str | None:
    """The wanted reference if it is a model rather than a feature folder only."""
    return config.reference if config.reference in [model.label for model in named] else None


def embed_model(
    named: NamedModel, inputs: Inputs, config: EvaluateConfig, out: Path, device: torch.device, precision: str
) -> EvaluatedModel:
    """Build one model and embed, or take from the cache, what the benchmarks need of it.

    Raises:
        G2LError: it cannot be built, or gives what is no number.
    """
    say(f"evaluate: {named.label}")
    built = named.build()
    is_teacher = inputs.store is not None and same_encoder(built.record(), inputs.store.record)
    model = EvaluatedModel(named, built, TEACHER if is_teacher else named.role, {})
    module = built.module.to(device)
    batch_size = config.batch_size or choose_batch_size(module, named.patch_px, device, precision)
    folder = config.cache or out / "embeddings"
    key = model_key(built, precision)

    def embed(what: str, data: dict[str, object], read: Callable[..., object], rows: Sequence[int]) -> None:
        def compute() -> NDArray[np.float32]:
            return embed_rows(
                module, read, rows, patch_px=named.patch_px, batch_size=batch_size,
                workers=config.workers or usable_cores(), device=device, precision=precision,
                what=f"embedding {what}",
            )  # fmt: skip

        model.embeddings[what] = cached(folder, key, data, compute)
        require_finite(named.label, model.embeddings[what], f"the {what}")

    if inputs.store and inputs.store_rows:
        store, rows = inputs.store, inputs.store_rows.all.tolist()
        if is_teacher:
            model.embeddings["store"] = np.stack([store.read_embedding(row) for row in rows])
        else:
            data = {"store": store.content_hash(), "rows": sha256_json(rows), "patch_px": named.patch_px}
            embed("store", data, StoredRows(store, config.slides_root).read, rows)
    for what, data_set in (("patches", inputs.patches), ("robustness", inputs.robustness)):
        if data_set:
            images = data_set[1]
            paths = [images.paths[i] for i in images.usable]
            embed(what, images.scanned.data_key(named.patch_px), _reader(paths), range(len(paths)))
    built.module.cpu()
    return model


def same_encoder(record: dict[str, Any], teacher: dict[str, Any]) -> bool:
    """Whether an encoder is a store's teacher: its weights, its statistics and how its embedding is taken."""
    return all(record[name] == teacher[name] for name in ("weights_sha256", "embedding", "mean", "std", "width"))


def _reader(paths: Sequence[Path]) -> Callable[[int, NDArray[np.uint8]], None]:
    """Reads image `row` into `out`."""
    return lambda row, out: read_image(paths[row], out)


def benchmark(
    models: Sequence[EvaluatedModel], inputs: Inputs, config: EvaluateConfig, reference: str, out: Path,
    device: torch.device,
) -> list[Section]:  # fmt: skip
    """The sections that were asked for, in the order of the report, with a picture of their scores each."""
    sections: list[Section] = []
    if inputs.store and inputs.store_rows:
        say("evaluate: fidelity")
        split = len(inputs.store_rows.train)
        teacher = inputs.store.record
        scored = [
            ScoredModel(
                label=m.named.label,
                train=m.embeddings["store"][:split],
                val=m.embeddings["store"][split:],
                is_teacher=same_encoder(m.built.record(), teacher),
                projector=m.named.projector_into(teacher["weights_sha256"]),
                named=m.named,
            )
            for m in models
        ]
        why_no_sheet = "" if inputs.store.keeps_pixels else "the store keeps no pixels"
        with one_thread():
            sections.append(fidelity_section(inputs.store, inputs.store_rows, scored, config, out, why_no_sheet))
    if inputs.patches:
        say("evaluate: patch benchmark")
        patch_set, images = inputs.patches
        section = patch_section(patch_set, _embeddings(models, "patches"), config, reference, images.exclusions)
        sections.append(with_notes(section, images, models))
    if inputs.slides:
        say("evaluate: slide benchmark")
        labels = [label for label, _ in inputs.features]
        wanted = config.reference if config.reference in labels else reference if reference in labels else None
        section = slide_section(inputs.slides, config, wanted, device)
        notes = [strangers_note(inputs.features, [model.named for model in models])]
        sections.append(replace(section, notes=[*section.notes, *filter(None, notes)]))
    if inputs.robustness:
        say("evaluate: robustness")
        robustness_set, images = inputs.robustness
        section = robustness_section(
            robustness_set, _embeddings(models, "robustness"), config, reference, images.exclusions
        )
        sections.append(with_notes(section, images, models))
    return [with_picture(section, out) for section in sections]


def _embeddings(models: Sequence[EvaluatedModel], what: str) -> dict[str, NDArray[np.float32]]:
    """By label."""
    return {model.named.label: model.embeddings[what] for model in models}


def with_notes(section: Section, images: Images, models: Sequence[EvaluatedModel]) -> Section:
    """The section with a word on images that are not of the models' input size."""
    sides = {model.named.patch_px for model in models}
    others = sum(count for (w, h), count in images.scanned.sizes.items() if not {w, h} <= sides or len(sides) > 1)
    if not others:
        return section
    sizes = ", ".join(f"{w} x {h}" for w, h in list(images.scanned.sizes)[:4])
    inputs = ", ".join(str(side) for side in sorted(sides))
    note = (
        f"{others:,} images were cut to their central square and resampled to an encoder's input of {inputs} px; they "
        f"have {sizes}{', ...' if len(images.scanned.sizes) > 4 else ''} px."
    )
    return replace(section, notes=[*section.notes, note])


def with_picture(section: Section, out: Path) -> Section:
    """The section with a picture of its scores in front of its other figures, and one of how C was chosen behind."""
    figures: list[Figure] = []
    if section.scores:
        figures.append(draw_scores(section.scores, out / f"{section.key}_scores.png"))
    figures += section.figures
    probe = section.data.get("linear_probe")
    if probe and (lines := curves_to_draw(probe)):
        chosen_by = str(probe["chosen_by"])
        words = f"{chosen_by[0].upper()}{chosen_by[1:]} on inner splits"
        figures.append(draw_curves(lines, PROBE_X, words, out / f"{section.key}_by_c.png", log_x=True))
    return replace(section, figures=figures)


def summary(report: Report, out: Path) -> str:
    """The closing table: a line a model, its headline scores. Times have no interval but a range, which is said."""
    scores = [(section.key, score) for section in report.sections for score in section.scores]
    rows = []
    for number, (key, score) in enumerate(scores):
        what = ", least and largest round" if key == "cost" else ""
        for label, value in score.values.items():
            rows.append((score.name if label == next(iter(score.values)) else "", label, f"{value.value:.3f}",
                         f"{value.low:.3f} to {value.high:.3f}{what}" if np.isfinite(value.low) else ""))  # fmt: skip
        if number < len(scores) - 1:
            rows.append(("", "", "", ""))
    text = table(rows, ("score", "model", "value", "95 % interval"), right=(2,)) if rows else ""
    num_left_out = sum(e.count for section in report.sections for e in section.exclusions if not e.by_rule)
    lines = [text, f"\n{num_left_out:,} left out, listed in the report" if num_left_out else "",
             f"\nthe report is {out / 'report.html'}"]  # fmt: skip
    return "\n".join(line for line in lines if line)


def is_partial(report: Report) -> bool:
    """Whether something failed and was left out."""
    return any(not exclusion.by_rule for section in report.sections for exclusion in section.exclusions)
