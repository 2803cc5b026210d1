"""Figure 1 of the paper and the picture of a comparison: our values and published ones, drawn as scores of a report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.encoders.table import ENCODERS
from pipeline.public_sets.compare import Comparison
from pipeline.report.content import Interval, ReportModel, Score
from pipeline.report.figure_style import is_number
from pipeline.report.figures import draw_scores
from pipeline.report.size_figure import draw_score_against_size

PAPERS_STUDENT = "hibou-l"
"""What the paper's student is built like: its number of parameters is that of Hibou-L."""
FIGURE_1_COLUMNS = ("metric", "model", "whose", "parameters", "ms_per_patch", "value", "low", "high")


def published_label(model: str) -> str:
    """A published model's name in figures."""
    return f"{model}, published"


def comparison_scores(comparisons: Sequence[Comparison]) -> list[Score]:
    """A score a set and metric: our models, each before the published value that it is compared with, and the others.

    A value that does not exist is NaN, so that all scores list the models in the same order.
    """
    scores = []
    for metric in dict.fromkeys(row.metric for row in comparisons):
        chosen = [row for row in comparisons if row.metric == metric]
        values = _values(chosen)
        if any(is_number(value) for value in values.values()):
            warning = " (not comparable)" if any(row.reason for row in chosen) else ""
            scores.append(Score(f"{chosen[0].set}, {metric}{warning}", values))
    return scores


def _values(of_metric: Sequence[Comparison]) -> dict[str, Interval]:
    """The values of a metric by the names of our models and of the published ones; NaN where there is none."""
    nothing = float("nan")
    values: dict[str, Interval] = {}
    for row in of_metric:
        if row.model:
            values[row.model] = row.measured or Interval(nothing, nothing, nothing)
        if row.published is not None:
            low, high = row.published.low, row.published.high
            ends = (nothing if low is None else low, nothing if high is None else high)
            values[published_label(row.published.model)] = Interval(row.published.value, *ends)
    return values


def sized_models(models: Sequence[ReportModel], comparisons: Sequence[Comparison]) -> list[ReportModel]:
    """Our models, and the published ones with the sizes that the table of encoders has; 0 if it has none."""
    names = dict.fromkeys(row.published.model for row in comparisons if row.published is not None)
    return [*models, *(ReportModel(published_label(name), "", {}, _size(name)) for name in names)]


def draw_comparison(comparisons: Sequence[Comparison], path: Path) -> bool:
    """Write the values of every metric side by side (PNG); returns whether there was anything to draw."""
    scores = comparison_scores(comparisons)
    if scores:
        draw_scores(scores, path)
    return bool(scores)


def draw_figure_1(
    models: Sequence[ReportModel], comparisons: Sequence[Comparison], milliseconds: dict[str, float] | None, path: Path
) -> bool:
    """Write scores against parameters and time (PNG); returns whether there was anything to draw."""
    sized = sized_models(models, comparisons)
    return draw_score_against_size(sized, comparison_scores(comparisons), milliseconds, path) is not None


def figure_1_rows(
    models: Sequence[ReportModel], comparisons: Sequence[Comparison], milliseconds: Mapping[str, float] | None
) -> list[tuple[object, ...]]:
    """The numbers of Figure 1, a row a metric and model, by `FIGURE_1_COLUMNS`."""
    times, ours = milliseconds or {}, {model.label for model in models}
    sizes = {model.label: model.num_params or None for model in sized_models(models, comparisons)}
    return [
        (
            score.name,
            label,
            "ours" if label in ours else "published",
            sizes.get(label),
            times.get(label),
            *value.record().values(),
        )
        for score in comparison_scores(comparisons)
        for label, value in score.values.items()
        if is_number(value)
    ]


def _size(name: str) -> int:
    """The number of parameters of a published model; 0 if it is not known."""
    spec = ENCODERS.get(PAPERS_STUDENT if name == "g2l" else name)
    return round(spec.params_m * 1e6) if spec else 0
