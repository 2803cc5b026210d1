"""Is the student as good as its teacher? Models side by side on every benchmark that is asked for, in one report.

The order is that of a careful reader: look at all inputs before anything is computed; build each model once, and embed
what the benchmarks need (kept by hash, so that another report of the same data computes nothing); score; write the
report last. A benchmark is a room of `pipeline/evaluate/` and one line of `evaluate.options.benchmarks.BENCHMARKS`.
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.base.console import say, table
from pipeline.base.cores import usable_cores
from pipeline.base.devices import choose_batch_size, choose_device, choose_precision, describe_device, keep_freed_memory
from pipeline.base.errors import ConfigError
from pipeline.base.loader import one_by_one
from pipeline.base.versions import versions as used_versions
from pipeline.config.base import Config
from pipeline.config.groups import TrackingService
from pipeline.disk.locks import exclusive
from pipeline.encoders.embed import embed_rows, model_key
from pipeline.evaluate.benchmark import Benchmark, EvaluatedModel, Evaluation, PatchSource, load_benchmark
from pipeline.evaluate.options import benchmarks as registered
from pipeline.evaluate.options.config import EvaluateConfig
from pipeline.evaluate.options.shared import ComparedOptions, RunOptions
from pipeline.evaluate.probes.probe_report import curves_to_draw
from pipeline.evaluate.report_folder import EMBEDDINGS_FOLDER, require_usable, start_folder
from pipeline.features.cache import cached, require_finite
from pipeline.report.content import TEACHER, Figure, Report, ReportModel, Score, Section
from pipeline.report.figures import draw_lines, draw_scores
from pipeline.report.logs.tracker import tracked
from pipeline.report.page import write_report
from pipeline.report.size_figure import draw_score_against_size, figure_scores
from pipeline.student.resolve import NamedModel, name_models, reference_of

Embedded = tuple[EvaluatedModel, dict[str, NDArray[np.float32]]]
"""A model, and its embeddings of the patches of each benchmark that has some, float32 (N, D) by the benchmark's key."""
TITLES = {True: "Is the student as good as its teacher?", False: "How much do the features tell?"}
"""The question of a report, by whether it has models."""
PROBE_X = "C, inverse strength of the regularisation of the linear probe"


def evaluate(out: Path, config: EvaluateConfig) -> Report:
    """Make the report in the folder `out`; the same options continue or renew it.

    Raises:
        G2LError: an input cannot be used, or `out` holds a report of other options.
    """
    started = time.monotonic()
    compared, run = config.part(ComparedOptions), config.part(RunOptions)
    options = {load_benchmark(room): config.part(registered.options_of(room)) for room in registered.BENCHMARKS}
    store = next(filter(None, (kind.store_of(of_kind) for kind, of_kind in options.items())), None)
    workers = run.workers or usable_cores()
    device = choose_device(run.device)
    keep_freed_memory()
    precision = choose_precision(run.precision, device)
    with exclusive(out, "g2l evaluate"):
        require_usable(out, config, precision)
        names = compared.names
        name_models(names, run.patch_px, store)  # a wrong name is told before inputs are read
        benchmarks = look_at_inputs(options, workers, has_models=bool(names))
        patch_px = run.patch_px or next((each.patch_px for each in benchmarks if each.patch_px), None)
        named = name_models(names, patch_px, store)
        check_models(named, benchmarks, compared.reference)
        start_folder(out, config, precision)  # now that there is something to evaluate

        cache = run.cache or out / EMBEDDINGS_FOLDER
        embedded = [
            embed_model(
                model,
                benchmarks,
                cache=cache,
                batch_size=run.batch_size,
                workers=workers,
                device=device,
                precision=precision,
            )
            for model in named
        ]
        models = [model for model, _ in embedded]
        described = described_models(models, benchmarks)
        reference = reference_among(described, compared.reference)
        evaluation = Evaluation(models, {}, reference, out, device, precision, compared.reference)
        sections = [make_section(benchmark, embedded, evaluation) for benchmark in benchmarks]
        report = Report(
            title=TITLES[bool(models)],
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
            of_features=not models,
        )
        write_report(report, out, draw_overview(report, out))
        log_report(report, out, run.log or ())
    return report


def log_report(report: Report, out: Path, services: Sequence[TrackingService]) -> None:
    """Log a report's scores and files to tracking services."""
    with tracked(services, out, "evaluate", report.settings) as tracker:
        tracker.scalars(
            {
                f"{label}/{score.name}": interval.value
                for section in report.sections
                for score in section.scores
                for label, interval in score.values.items()
                if math.isfinite(interval.value)
            },
            step=0,
        )
        tracker.files(sorted(path for path in out.iterdir() if path.suffix in (".html", ".json", ".png")))


def look_at_inputs(
    options: Mapping[type[Benchmark[Any]], Config], workers: int, *, has_models: bool = True
) -> list[Benchmark[Any]]:
    """The benchmarks that are asked for, with all their tables, images, feature files and stores looked through.

    Args:
        options: of all benchmarks, in the order of the report.
        workers: threads that read images.
        has_models: whether any model is named.

    Raises:
        ConfigError: nothing to evaluate, or an option lacks its other half.
        G2LError: an input cannot be used.
    """
    wanted = [kind for kind, of_kind in options.items() if kind.is_wanted(of_kind)]
    if not wanted:
        raise ConfigError(f"nothing to evaluate: give {_either(kind.asked_by for kind in options)}")
    for note in idle_notes(options, wanted):
        say(f"note: {note}")
    if not has_models:
        wanted = without_models(options, wanted)
    benchmarks = []
    for kind in wanted:
        benchmark = kind.look(options[kind], workers)
        for note in benchmark.notes:
            say(f"warning: {note}")
        benchmarks.append(benchmark)
    return benchmarks


def idle_notes(options: Mapping[type[Benchmark[Any]], Config], wanted: Sequence[type[Benchmark[Any]]]) -> list[str]:
    """A note on each option that differs from its default and is of benchmarks that are not `wanted`."""
    owners: dict[str, list[type[Benchmark[Any]]]] = {}
    for kind, of_kind in options.items():
        for name in type(of_kind).model_fields:
            owners.setdefault(name, []).append(kind)
    notes = []
    for name, kinds in owners.items():
        of_kind, flag = options[kinds[0]], name.replace("_", "-")
        value, default = getattr(of_kind, name), type(of_kind).model_fields[name].get_default()
        is_switch = any(f"--{flag}" in kind.asked_by.split() for kind in kinds)  # --no-cost turns its benchmark off
        if value != default and not is_switch and not set(kinds) & set(wanted):
            written = f"--{'no-' if value is False else ''}{flag}"
            notes.append(f"{written}: no effect without {_either(kind.asked_by for kind in kinds)}")
    return notes


def without_models(
    options: Mapping[type[Benchmark[Any]], Config], wanted: Sequence[type[Benchmark[Any]]]
) -> list[type[Benchmark[Any]]]:
    """Those of the `wanted` benchmarks that need no models. One that is on unless it is turned off, such as the cost,
    is left out with a note; one that was asked for is an error.

    Raises:
        ConfigError: a benchmark needs models, or no other is wanted.
    """
    without, needing = _parted(options)
    needless = _either(kind.asked_by for kind in without)
    idle = [kind for kind in wanted if kind in needing]
    if asked := [kind.asked_by for kind in idle if not kind.is_wanted(type(options[kind])())]:
        raise ConfigError(f"{' and '.join(asked)}: give --models, the models to score. Only {needless} needs none")
    if len(idle) == len(wanted):
        with_models = _either(kind.asked_by for kind in needing)
        raise ConfigError(f"nothing to evaluate: give --models with {with_models}; or {needless}")
    for kind in idle:
        say(f"note: {kind.asked_by}: nothing is measured without --models")
    return [kind for kind in wanted if kind in without]


def _parted(kinds: Iterable[type[Benchmark[Any]]]) -> tuple[list[type[Benchmark[Any]]], list[type[Benchmark[Any]]]]:
    """The benchmarks that need no models, and those that do."""
    listed = list(kinds)
    return [kind for kind in listed if not kind.needs_models], [kind for kind in listed if kind.needs_models]


def _either(words: Iterable[str]) -> str:
    """Words as a choice: a, b or c."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def check_models(named: Sequence[NamedModel], benchmarks: Sequence[Benchmark[Any]], reference: str | None) -> None:
    """See before anything is built that the named `reference` is one of the models, and that every benchmark can score
    them.

    Raises:
        ConfigError: not so.
    """
    for note in dict.fromkeys(model.note for model in named if model.note):
        say(f"note: {note}")
    labels = [model.label for model in named] + [label for each in benchmarks for label in each.other_labels]
    if reference is not None and reference not in labels:
        what = "models" if named else "feature sets"
        raise ConfigError(f"--reference {reference}: the {what} are {', '.join(labels)}")
    for benchmark in benchmarks:
        for note in benchmark.check_models(named):
            say(f"note: {note}")


def embed_model(
    named: NamedModel,
    benchmarks: Sequence[Benchmark[Any]],
    *,
    cache: Path,
    batch_size: int | None,
    workers: int,
    device: torch.device,
    precision: str,
) -> Embedded:
    """Build one model, and embed the patches of each benchmark that has some, or take the embeddings from the `cache`.

    Raises:
        G2LError: it cannot be built, or an embedding is not finite.
    """
    say(f"evaluate: {named.label}")
    built = named.build()
    if built.note:
        say(built.note)
    module = built.module.to(device)
    num_rows = batch_size or choose_batch_size(module, named.patch_px, device, precision)

    def embed(source: PatchSource) -> NDArray[np.float32]:
        def compute() -> NDArray[np.float32]:
            return embed_rows(
                module,
                one_by_one(source.read),
                source.rows,
                patch_px=named.patch_px,
                batch_size=num_rows,
                workers=workers,
                device=device,
                precision=precision,
                what=f"embedding {source.name}",
            )

        values = cached(cache, model_key(built, precision), source.data_key(named.patch_px), compute)
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


def described_models(models: Sequence[EvaluatedModel], benchmarks: Sequence[Benchmark[Any]]) -> list[ReportModel]:
    """What the report lists: the models, or without any the feature sets."""
    if models:
        return [model.described() for model in models]
    return [each for benchmark in benchmarks for each in benchmark.feature_sets]


def reference_among(models: Sequence[ReportModel], wanted: str | None) -> str:
    """Label of the model that the others are compared with: the `wanted` one if the report lists it, and it is not only
    the label of some features beside models.
    """
    labels = [model.label for model in models]
    return reference_of(labels, [model.role for model in models], wanted if wanted in labels else None)


def make_section(benchmark: Benchmark[Any], embedded: Sequence[Embedded], evaluation: Evaluation) -> Section:
    """A benchmark's section, of the `evaluation` with the benchmark's embeddings, and with its pictures."""
    say(f"evaluate: {benchmark.name}")
    embeddings = {model.label: values[benchmark.key] for model, values in embedded if benchmark.key in values}
    return with_pictures(benchmark.section(replace(evaluation, embeddings=embeddings)), evaluation.out)


def with_pictures(section: Section, out: Path) -> Section:
    """The section with a picture of its scores before its other figures, and one of how C was chosen behind them."""
    figures: list[Figure] = []
    if scores := [score for score in section.scores if not score.is_cost]:
        figures.append(draw_scores(scores, out / f"{section.key}_scores.png"))
    figures += section.figures
    if curves := curves_to_draw(section.data):
        words = f"{curves.score[0].upper()}{curves.score[1:]} on inner splits"
        figures.append(draw_lines(curves.lines, PROBE_X, words, out / f"{section.key}_by_c.png", log_x=True))
    return replace(section, figures=figures)


def draw_overview(report: Report, out: Path) -> list[Figure]:
    """The figure of scores against sizes, if there is anything to draw."""
    times = next((section.ms_per_patch for section in report.sections if section.ms_per_patch), None)
    scores = figure_scores(report.sections)
    overview = draw_score_against_size(report.models, scores, times, out / "score_against_size.png")
    return [overview] if overview else []


def score_rows(score: Score) -> list[tuple[str, str, str, str]]:
    """The lines of one score in the closing table. Times have a range instead of an interval, and say so."""
    what = ", least and largest round" if score.is_cost else ""
    rows: list[tuple[str, str, str, str]] = []
    for label, value in score.values.items():
        interval = f"{value.low:.3f} to {value.high:.3f}{what}" if np.isfinite(value.low) else ""
        rows.append((score.name if not rows else "", label, f"{value.value:.3f}", interval))
    return rows


def summary(report: Report, out: Path) -> str:
    """The closing table of headline scores, a line a model."""
    rows: list[tuple[str, str, str, str]] = []
    for score in (score for section in report.sections for score in section.scores):
        rows += [("", "", "", "")] * bool(rows) + score_rows(score)
    text = table(rows, ("score", report.noun, "value", "95 % interval"), right=(2,)) if rows else ""
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
