"""Evaluate the students of an ablation by the benchmarks of `g2l evaluate`, and compare their scores.

Each seed has a report of its own, of one student a setting, with the reference setting as reference. Embeddings are
kept in one folder, so that a further setting or benchmark embeds only what is new. A report gives each difference from
the reference with its interval over cases; here they become one over seeds and cases.
"""

from collections.abc import Mapping, Sequence
from math import inf, isfinite, nan, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.console import say
from pipeline.base.errors import BenchmarkError, ConfigError
from pipeline.base.outside import read_json, reading
from pipeline.config.base import read_options
from pipeline.disk.files import sha256_file, sha256_json
from pipeline.evaluate.cost.section import KEY as COST
from pipeline.evaluate.options.config import evaluate_config
from pipeline.evaluate.report_folder import MOST_REPORT_BYTES
from pipeline.study.compare import Estimate, judge
from pipeline.study.grid import Setting
from pipeline.study.inputs import benchmark_inputs
from pipeline.study.tables import ScoreTable
from stages.evaluate import evaluate
from stages.studies.runs import Study, StudyRuns

HALF_WIDTH = 1.959964
"""Half of a 95 % interval in standard errors of a normal distribution."""
SET_HERE = ("out", "reference", "cache")
"""Options of `g2l evaluate` that the study sets."""

SeedReport = Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]
"""Of one seed: by score, "values" and "differences" by model, with `value`, `low` and `high`."""


def read_benchmarks(path: Path) -> dict[str, Any]:
    """The [evaluate] table of a TOML file, without what the study sets itself.

    Raises:
        ConfigError: there is none, or an option of it is wrong.
    """
    table = read_options(path, "evaluate")
    if not table:
        raise ConfigError(f"--evaluate {path}: it has no table [evaluate] with options of g2l evaluate")
    table = {name: value for name, value in table.items() if name not in SET_HERE}
    evaluate_config().build({"models": ["student"], **table})
    return table


def evaluate_students(
    study: Study, settings: Sequence[Setting], runs: StudyRuns, reference: str, table: Mapping[str, Any], level: float
) -> list[ScoreTable]:
    """Evaluate the students of all settings on the seeds that all of them have, and compare each with the reference.

    Raises:
        G2LError: an input of the benchmarks cannot be used.
    """
    labels = [setting.label for setting in settings if setting.label in runs.sums]
    seeds = runs.complete_seeds(study.seeds, labels)
    if reference not in labels:
        say(
            "warning: --evaluate: nothing is evaluated, as all runs of the reference diverged. Give another --reference"
        )
        return []
    inputs = benchmark_inputs(evaluate_config().build({"models": ["student"], **table}).absolute().record())
    reports = [_report_of(study, labels, seed, reference, table, inputs) for seed in seeds]
    names = list(dict.fromkeys(name for report in reports for name in report))
    return [score_table(name, [report[name] for report in reports if name in report], reference, labels, level)
            for name in names]  # fmt: skip


def _report_of(
    study: Study, labels: Sequence[str], seed: int, reference: str, table: Mapping[str, Any], inputs: Mapping[str, str]
) -> SeedReport:
    """The report of one seed: as it is there, or made. `inputs` are the hashes of what the benchmarks read."""
    models = [f"{label}={study.folder.run(label, seed).absolute()}" for label in labels]
    values = {
        **table,
        "models": [*models, *table.get("models", [])],
        "reference": reference,
        "cache": study.folder.reports / "embeddings",
    }
    config = evaluate_config().build(values)
    students = [sha256_file(study.folder.run(label, seed) / "student" / "model.safetensors") for label in labels]
    out = study.folder.reports / f"{seed}-{sha256_json([config.absolute().deciding(), students, dict(inputs)])[:8]}"
    if not (out / "report.json").is_file():
        say(f"evaluate the students of seed {seed}")
        evaluate(out, config)
    return read_report(out / "report.json", labels)


def read_report(path: Path, labels: Sequence[str]) -> SeedReport:
    """Scores and differences of the models of these labels.

    Raises:
        BenchmarkError: the report is damaged.
    """
    with reading(path, "damaged", BenchmarkError, "Delete its folder; the same command makes it again"):
        scores = {}
        for key, section in read_json(path, MOST_REPORT_BYTES)["sections"].items():
            if key == COST:
                continue  # times of a patch: not what a setting changes
            for name, values in section["scores"].items():
                sides = {"values": values, "differences": section["differences"].get(name, {})}
                scores[name] = {
                    side: {label: _numbers(each) for label, each in of_models.items() if label in labels}
                    for side, of_models in sides.items()
                }
        return scores


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """An interval's numbers; those that are null are NaN."""
    return {name: nan if record.get(name) is None else float(record[name]) for name in ("value", "low", "high")}


def score_table(
    name: str, reports: Sequence[Mapping[str, Mapping[str, Mapping[str, float]]]], reference: str,
    labels: Sequence[str], level: float,
) -> ScoreTable:  # fmt: skip
    """One score over seeds. Pairs are those with the reference, of which reports have intervals over cases."""
    values = _of_all(reports, "values", labels)
    by_seed = {label: [each["value"] for each in found] for label, found in values.items()}
    less = _of_all(reports, "differences", [label for label in by_seed if label != reference])
    differences = {(reference, label): combined(found) for label, found in less.items()}
    sizes = {label: max(map(abs, found)) for label, found in by_seed.items()}
    scales = {pair: max(sizes.get(each, 0.0) for each in pair) for pair in differences}
    estimates = {label: combined(values[label]) for label in by_seed}
    return ScoreTable(name, estimates, by_seed, judge(differences, scales, level), [])


def _of_all(
    reports: Sequence[Mapping[str, Mapping[str, Mapping[str, float]]]], side: str, labels: Sequence[str]
) -> dict[str, list[Mapping[str, float]]]:
    """What all reports say of each model; without those of which one of them says nothing."""
    found = {label: [report[side][label] for report in reports if label in report[side]] for label in labels}
    return {
        label: numbers
        for label, numbers in found.items()
        if len(numbers) == len(reports) and all(isfinite(each["value"]) for each in numbers)
    }


def combined(values: Sequence[Mapping[str, float]]) -> Estimate:
    """The mean over seeds of a number that each report gives with an interval over cases.

    The error over cases is the root mean square of those of the reports. Their number of cases is not known here, so
    that beside the error over seeds it gets as few degrees of freedom; by itself it is that of the reports' intervals.
    """
    numbers = np.array([each["value"] for each in values])
    halves = np.array([(each["high"] - each["low"]) / 2 for each in values]) / HALF_WIDTH
    count = len(numbers)
    seed_error = float(numbers.std(ddof=1)) / sqrt(count) if count > 1 else nan
    case_error = sqrt(float(np.square(halves).mean()))
    freedom = max(count - 1, 0)
    return Estimate(float(numbers.mean()), seed_error, case_error, freedom, freedom, freedom_of_cases=inf)
