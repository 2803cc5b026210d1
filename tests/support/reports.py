"""Sample reports for tests of the page: a realistic one of four models and five sections, with hostile text in it."""

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.report.content import Column, Exclusion, Figure, Interval, Report, ReportModel, Score, Section, Table
from pipeline.report.figures import draw_lines, draw_scores
from pipeline.report.size_figure import draw_score_against_size, figure_scores

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "it's \"quoted\" & 'done' {{ 7*7 }} {% raw %}",
    "\u202e\u05ea\u05d5\u05d5\u05d9\u05ea \u0645\u0631\u062d\u0628\u0627 label",
    "\u816b\u760d\u5206\u985e\u30e2\u30c7\u30eb",
    "W" * 200,
)
"""Labels as a file may hold them: markup, quotes, template code, right to left, without a glyph, without a space."""

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
TEACHER, BEFORE, AFTER, OTHER = "H-optimus-0", "Hibou-L", "G2L breast", "UNI"
MODELS = (
    ReportModel(
        TEACHER, "teacher", {"source": "hf-hub:bioptimus/H-optimus-0", "weights_sha256": "8c" * 32}, 1_134_774_272
    ),
    ReportModel(BEFORE, "student before distillation", {"source": "hf-hub:histai/hibou-L"}, 303_659_264),
    ReportModel(AFTER, "student after distillation", {"run": "runs/breast", "weights_sha256": "1f" * 32}, 303_659_264),
    ReportModel(OTHER, "", {"source": "hf-hub:MahmoodLab/UNI", "weights_sha256": "d0" * 32}, 303_350_784),
)
MS_PER_PATCH = {TEACHER: 21.4, BEFORE: 5.9, AFTER: 5.9, OTHER: 4.6}


def intervals(labels: list[str], base: float, seed: int) -> dict[str, Interval]:
    """A made-up score for each label, with an interval."""
    generator = np.random.default_rng(seed)
    found = {}
    for label in labels:
        value, half = base + generator.uniform(-0.04, 0.08), generator.uniform(0.01, 0.04)
        found[label] = Interval(float(value), float(value - half), float(min(value + 1.2 * half, 1.0)))
    return found


def differences(values: dict[str, Interval], seed: int) -> dict[str, Interval]:
    """Made-up intervals of the difference from the teacher, for every other label."""
    generator, found = np.random.default_rng(seed), {}
    for label, value in values.items():
        gap, half = value.value - values[TEACHER].value, float(generator.uniform(0.005, 0.03))
        if label != TEACHER:
            found[label] = Interval(gap, gap - half, gap + 1.2 * half)
    return found


def fidelity_section(labels: list[str], folder: Path) -> Section:
    variance, cosine = intervals(labels, 0.62, 1), intervals(labels, 0.8, 2)
    columns = [
        Column("model"),
        Column(
            "R2 linear map",
            "Share of the teacher's standardised embedding that a linear map of the model's "
            "embedding explains; 1 is all, 0 no more than the mean.",
            better="higher",
        ),
        Column(
            "cosine",
            "Mean cosine of the mapped embedding and the teacher's in the standardised space; up to 1.",
            better="higher",
        ),
        Column(
            "retrieval top-5",
            "Share of patches whose own teacher embedding is among the five nearest.",
            better="higher",
        ),
    ]
    rows = [[label, variance[label], cosine[label], 0.91 + 0.01 * i] for i, label in enumerate(labels)]
    by_center: list[list[Any]] = [
        [center, 1200 + 77 * i, 0.61 + 0.02 * i, float("nan") if i == 2 else 0.79 + 0.01 * i]
        for i, center in enumerate(("Nijmegen", "Utrecht", HOSTILE[0], "São Paulo"))
    ]
    center_columns = [
        Column("center", "Where the slide was scanned."),
        Column("patches"),
        Column("R2 linear map", better="higher"),
        Column("cosine"),
    ]
    scores = [Score("R2 linear map", variance, 0.0)]
    return Section(
        "fidelity",
        "Fidelity",
        "How well each model stands in for the teacher on patches that were held out of training: a linear map from "
        "the model's embedding to the teacher's is fitted on other patches of the same store, and its predictions "
        "are compared with the teacher's embeddings.",
        {"patches": 12345, "slides": 210, "cases": 198, "centers": 5},
        [Table("All held-out patches", columns, rows), Table(f"{AFTER}, by center", center_columns, by_center)],
        scores=scores,
        settings={"store_rows": 12345, "seed": 0},
        source={"store": "breast.zarr", "sha256": "ab" * 32},
    )


def patches_section(labels: list[str], folder: Path) -> Section:
    probe, knn = intervals(labels, 0.86, 3), intervals(labels, 0.81, 4)
    difference = differences(probe, 5)
    columns = [
        Column("model"),
        Column(
            "balanced accuracy", "Mean over classes of the share that is recognised; chance is 0.111.", better="higher"
        ),
        Column("difference", "From the reference, on the same resamples; above 0 the model is better."),
        Column("kNN", "The same of the 20 nearest neighbours by cosine.", better="higher"),
    ]
    rows = [[label, probe[label], difference.get(label), knn[label]] for label in labels]
    wide = [Column("model"), *(Column(f"class {i}: {HOSTILE[i % 6][:40]}", better="higher") for i in range(39))]
    wide_rows = [[label, *(0.5 + (i * 7 + j * 3) % 49 / 100 for i in range(39))] for j, label in enumerate(labels)]
    scores = [
        Score("tumour type, balanced accuracy", probe, 1 / 9, difference),
        Score("tumour type, balanced accuracy of neighbours", knn, 1 / 9, differences(knn, 11)),
    ]
    generator = np.random.default_rng(6)
    few: dict[str, dict[float, float | Interval]] = {}
    for label in labels:
        values = {k: float(0.45 + 0.09 * np.log2(k) + generator.uniform(0, 0.05)) for k in (1, 2, 4, 8, 16)}
        few[label] = {k: Interval(value, value - 0.03, value + 0.03) for k, value in values.items()}
    few_shot = draw_lines(
        few, "examples a class", "balanced accuracy", folder / "few_shot.png", log_x=True, chance=1 / 9
    )
    excluded = [Exclusion(f"images/{HOSTILE[i % 6]}/{i}.png", "not an image") for i in range(230)]
    return Section(
        "patches",
        "Patch benchmarks",
        "Classification of single patches from frozen embeddings, in folds that never share a case: a linear probe, "
        "and the nearest neighbours.",
        {"patches": 9876, "cases": 431, "classes": 9, "centers": 3},
        [Table("Linear probe and neighbours", columns, rows), Table("Recall by class", wide, wide_rows)],
        [few_shot],
        scores,
        {"folds": 5, "seed": 0, "knn": 20},
        {"patches": "crc/patches.csv"},
        excluded,
        ["Intervals come from 1,000 resamples of cases; 3 resamples without one of the classes were dropped."],
    )


def slides_section(labels: list[str], folder: Path) -> Section:
    auroc = intervals(labels, 0.78, 7)
    pooled = intervals(labels, 0.73, 8)
    scores = [
        Score("TP53, AUROC", auroc, 0.5, differences(auroc, 12)),
        Score("TP53, mean-pool AUROC", pooled, 0.5, differences(pooled, 13)),
    ]
    columns = [Column("model"), Column("AUROC", "Area under the ROC curve; 0.5 is chance.", better="higher")]
    rows = [[label, auroc[label]] for label in labels]
    figure = draw_scores(scores, folder / "slides.png", reference=TEACHER)
    what = "Prediction of TP53 status from all patches of a case by gated-attention MIL, in folds by case."
    return Section(
        "slides",
        "Slide benchmarks",
        what,
        {"cases": 812, "slides": 830},
        [Table("TP53", columns, rows)],
        [figure],
        scores,
        {"mil_epochs": 30},
    )


def robustness_section(labels: list[str]) -> Section:
    index = intervals(labels, 0.83, 9)
    columns = [
        Column("model"),
        Column("robustness index", "1: neighbours share the biology, never only the centre.", better="higher"),
    ]
    rows = [[label, index[label]] for label in labels]
    what = "Whether a patch's nearest neighbours share its biology or the centre that it comes from."
    return Section(
        "robustness",
        "Robustness",
        what,
        {"patches": 4000, "slides": 160, "centers": 4},
        [Table("Robustness index", columns, rows)],
        scores=[Score("robustness index", index, differences=differences(index, 14))],
    )


def cost_section(labels: list[str]) -> Section:
    faster = {
        label: Interval(MS_PER_PATCH.get(TEACHER, 1) / MS_PER_PATCH.get(label, 3.0), 3.4, 4.9) for label in labels
    }
    columns = [
        Column("model"),
        Column("batch"),
        Column("ms a patch", "Median over rounds.", digits=2, better="lower"),
        Column("peak memory, MiB", digits=0),
    ]
    rows = [[label, batch, MS_PER_PATCH.get(label, 3.0), 1234.5] for label in labels for batch in (1, 32)]
    what = "What one forward pass costs on this machine."
    return Section(
        "cost",
        "Cost",
        what,
        {"models": len(labels)},
        [Table("Speed", columns, rows)],
        scores=[Score(f"times faster than {TEACHER}", faster, is_cost=True)],
    )


def sample_report(folder: Path, *, hostile: bool = True) -> tuple[Report, list[Figure]]:
    """A realistic report, and its leading figure; the pictures are written to `folder`.

    Args:
        hostile: with a further model for each of the `HOSTILE` labels.
    """
    models = [*MODELS]
    if hostile:
        models += [ReportModel(label, "", {"path": label, label: label}, 86_000_000) for label in HOSTILE]
    labels = [model.label for model in models]
    sections = [
        fidelity_section(labels, folder),
        patches_section(labels, folder),
        slides_section(labels, folder),
        robustness_section(labels),
        cost_section(labels),
    ]
    if hostile:
        empty = Section("empty", HOSTILE[1], HOSTILE[2], {}, [Table(HOSTILE[0], [Column("model")], [])])
        sections += [empty, Section("bare", "Bare", "Nothing at all.", {}, [])]
    figure = draw_score_against_size(models, figure_scores(sections), MS_PER_PATCH, folder / "score_size.png")
    assert figure is not None
    settings = {"models": labels, "seed": 0, "nested": {"tolerance": 0.001, "off": None}}
    run = {
        "started": "2026-03-01 12:00:00",
        "machine": "x86_64 CPU, 2 threads",
        "versions": {"g2l": "0.2.0", "python": "3.11.9", "torch": "2.8.0"},
    }
    report = Report("Breast student against its teacher", models, TEACHER, sections, settings, run)
    return report, [figure]
