"""Is the student as good as its teacher? Models side by side on every benchmark that is asked for, in one report.

The order is that of a careful reader: look at all inputs before anything is computed; build each model once, and embed
what the benchmarks need (kept by hash, so that another report of the same data computes nothing); score; write the
report last. A benchmark is one class in a room of `pipeline/evaluate/` and one line of `BENCHMARKS`.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.console import say, table
from pipeline.base.cores import usable_cores
from pipeline.base.devices import choose_batch_size, choose_device, choose_precision, describe_device, keep_freed_memory
from pipeline.base.errors import ConfigError
from pipeline.base.versions import versions as used_versions
from pipeline.config.tools import EvaluateConfig
from pipeline.disk.locks import exclusive
from pipeline.encoders.embed import embed_rows, model_key
from pipeline.evaluate.benchmark import Benchmark, EvaluatedModel, Evaluation, PatchSource
from pipeline.evaluate.cost.benchmark import CostBenchmark
from pipeline.evaluate.fidelity.benchmark import FidelityBenchmark
from pipeline.evaluate.patch_benchmark.benchmark import PatchBenchmark
from pipeline.evaluate.probe_report import curves_to_draw
from pipeline.evaluate.report_folder import start_folder
from pipeline.evaluate.robustness.benchmark import RobustnessBenchmark
from pipeline.evaluate.slide_benchmark.benchmark import SlideBenchmark
from pipeline.features.cache import cached, require_finite
from pipeline.report.content import Figure, Report, Section
from pipeline.report.figures import draw_lines, draw_scores
from pipeline.report.page import write_report
from pipeline.report.size_figure import draw_score_against_size, figure_scores
from pipeline.student.resolve import TEACHER, NamedModel, name_models, reference_of

BENCHMARKS: tuple[type[Benchmark], ...] = (
    FidelityBenchmark,
    PatchBenchmark,
    SlideBenchmark,
    RobustnessBenchmark,
    CostBenchmark,
)
"""All benchmarks, in the order of the report."""
PROBE_X = "C, inverse strength of the regularisation of the linear probe"


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
        name_models(config.models, config.patch_px, config.store)  # a wrong name is told before inputs are read
        benchmarks = look_at_inputs(config)
        patch_px = config.patch_px or next((b.patch_px for b in benchmarks if b.patch_px), None)
        named = name_models(config.models, patch_px, config.store)
        for note in dict.fromkeys(model.note for model in named if model.note):
            say(f"note: {note}")
        check_models(named, benchmarks, config)

        embedded = [embed_model(model, benchmarks, config, out, device, precision) for model in named]
        models = [model for model, _ in embedded]
        labels = [model.label for model in models]
        wanted = config.reference if config.reference in labels else None
        reference = reference_of(labels, [model.role for model in models], wanted)

        sections = []
        for benchmark in benchmarks:
            say(f"evaluate: {benchmark.name}")
            of_models = {model.label: values[benchmark.key] for model, values in embedded if benchmark.key in values}
            section = benchmark.section(Evaluation(models, of_models, reference, out, device, precision))
            sections.append(with_pictures(section, out))

        described = [model.described() for model in models]
        times = next((section.ms_per_patch for section in sections if section.ms_per_patch), None)
        overview = draw_score_against_size(described, figure_scores(sections), times, out / "score_against_size.png")
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


def look_at_inputs(config: EvaluateConfig) -> list[Benchmark]:
    """The benchmarks that are asked for, with all their tables, images, feature files and stores looked through.

    Raises:
        ConfigError: nothing to evaluate, or an option lacks its other half.
        G2LError: an input cannot be used.
    """
    wanted = [benchmark for benchmark in BENCHMARKS if benchmark.is_wanted(config)]
    if not wanted:
        *most, last = (benchmark.asked_by for benchmark in BENCHMARKS)
        raise ConfigError(f"nothing to evaluate: give {', '.join(most)} or {last}")
    benchmarks = []
    for each in wanted:
        benchmark = each.look(config)
        for note in benchmark.notes:
            say(f"warning: {note}")
        benchmarks.append(benchmark)
    return benchmarks


def check_models(named: Sequence[NamedModel], benchmarks: Sequence[Benchmark], config: EvaluateConfig) -> None:
    """See before anything is built that the reference is one of the models, and that every benchmark can score them.

    Raises:
        ConfigError: not so.
    """
    labels = [model.label for model in named] + [label for each in benchmarks for label in each.other_labels]
    if config.reference is not None and config.reference not in labels:
        raise ConfigError(f"--reference {config.reference}: the models are {', '.join(labels)}")
    for benchmark in benchmarks:
        for note in benchmark.check_models(named):
            say(f"note: {note}")


def embed_model(
    named: NamedModel,
    benchmarks: Sequence[Benchmark],
    config: EvaluateConfig,
    out: Path,
    device: torch.device,
    precision: str,
) -> tuple[EvaluatedModel, dict[str, NDArray[np.float32]]]:
    """Build one model, and embed the patches of each benchmark that has some, or take the embeddings from the cache:
    float32 (N, D) by the benchmark's key.

    Raises:
        G2LError: it cannot be built, or an embedding is not finite.
    """
    say(f"evaluate: {named.label}")
    built = named.build()
    if built.note:
        say(built.note)
    module = built.module.to(device)
    batch_size = config.batch_size or choose_batch_size(module, named.patch_px, device, precision)

    def embed(source: PatchSource) -> NDArray[np.float32]:
        def compute() -> NDArray[np.float32]:
            return embed_rows(
                module,
                source.read,
                source.rows,
                patch_px=named.patch_px,
                batch_size=batch_size,
                workers=config.workers or usable_cores(),
                device=device,
                precision=precision,
                what=f"embedding {source.name}",
            )

        key, data_key = model_key(built, precision), source.data_key(named.patch_px)
        values = cached(config.cache or out / "embeddings", key, data_key, compute)
        require_finite(named.label, values, f"the {source.name}")
        return values

    embeddings = {}
    for benchmark in benchmarks:
        if (stored := benchmark.stored_embeddings(built)) is not None:
            embeddings[benchmark.key] = stored
        elif source := benchmark.patch_source():
            embeddings[benchmark.key] = embed(source)
    built.module.cpu()
    is_teacher = any(benchmark.is_teacher(built) for benchmark in benchmarks)
    return EvaluatedModel(named, built, TEACHER if is_teacher else named.role), embeddings


def with_pictures(section: Section, out: Path) -> Section:
    """The section with a picture of its scores before its other figures, and one of how C was chosen behind them."""
    figures: list[Figure] = []
    if scores := [score for score in section.scores if not score.is_cost]:
        figures.append(draw_scores(scores, out / f"{section.key}_scores.png"))
    figures += section.figures
    probe = section.data.get("linear_probe")
    if probe and (lines := curves_to_draw(probe)):
        chosen_by = str(probe["chosen_by"])
        words = f"{chosen_by[0].upper()}{chosen_by[1:]} on inner splits"
        figures.append(draw_lines(lines, PROBE_X, words, out / f"{section.key}_by_c.png", log_x=True))
    return replace(section, figures=figures)


def summary(report: Report, out: Path) -> str:
    """The closing table of headline scores, a line a model. Times have a range instead of an interval, and say so."""
    scores = [score for section in report.sections for score in section.scores]
    rows = []
    for number, score in enumerate(scores):
        what = ", least and largest round" if score.is_cost else ""
        for label, value in score.values.items():
            rows.append(
                (
                    score.name if label == next(iter(score.values)) else "",
                    label,
                    f"{value.value:.3f}",
                    f"{value.low:.3f} to {value.high:.3f}{what}" if np.isfinite(value.low) else "",
                )
            )
        if number < len(scores) - 1:
            rows.append(("", "", "", ""))
    text = table(rows, ("score", "model", "value", "95 % interval"), right=(2,)) if rows else ""
    num_left_out = sum(e.count for section in report.sections for e in section.exclusions if not e.by_rule)
    lines = [
        text,
        f"\n{num_left_out:,} left out, listed in the report" if num_left_out else "",
        f"\nthe report is {out / 'report.html'}",
    ]
    return "\n".join(line for line in lines if line)


def is_partial(report: Report) -> bool:
    """Whether something failed and was left out."""
    return any(not exclusion.by_rule for section in report.sections for exclusion in section.exclusions)
