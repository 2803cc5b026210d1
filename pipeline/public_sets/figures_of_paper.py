"""Figure 1 of the paper and the picture of a comparison: our values and published ones, drawn as scores of a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, product
from math import isfinite
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from pipeline.encoders.table import ENCODERS
from pipeline.public_sets.compare import Comparison, is_incomparable
from pipeline.public_sets.published import PublishedValue
from pipeline.report.content import Interval, ReportModel, Score
from pipeline.report.figure_style import COLOURS, INK, MARKERS, WIDTHS_IN, canvas_of, is_number, set_ends, write_title
from pipeline.report.labels import short_labels
from pipeline.report.size_figure import draw_score_against_size

PAPERS_STUDENT = "hibou-l"
"""What the paper's student is built like: its number of parameters is that of Hibou-L."""
ROW_IN, MARGIN_IN, LEGEND_IN = 0.3, 0.7, 0.3
"""Heights of a row, of a panel's title and axis, and of the legend, inches."""
PAIR_ROWS = 0.16
"""Our value stands above the middle of its row by so much of it, and the published one below."""
LONGEST_NAME = 30
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
            scores.append(Score(_title(chosen), values))
    return scores


def _values(of_metric: Sequence[Comparison]) -> dict[str, Interval]:
    """The values of a metric by the names of our models and of the published ones; NaN where there is none."""
    nothing = float("nan")
    values: dict[str, Interval] = {}
    for row in of_metric:
        if row.model:
            values[row.model] = row.measured or Interval(nothing, nothing, nothing)
        if row.published is not None:
            values[published_label(row.published.model)] = _published_interval(row.published)
    return values


def _title(of_metric: Sequence[Comparison]) -> str:
    """The title of a metric's panel, with a warning where its values must not be compared."""
    warning = " (not comparable)" if is_incomparable(of_metric) else ""
    return f"{of_metric[0].set}, {of_metric[0].metric}{warning}"


def sized_models(models: Sequence[ReportModel], comparisons: Sequence[Comparison]) -> list[ReportModel]:
    """Our models, and the published ones with the sizes that the table of encoders has; 0 if it has none.

    Features have no size of their own: they get that of the published model whose name they bear.
    """
    names = dict.fromkeys(row.published.model for row in comparisons if row.published is not None)
    borne = {row.model: row.published.model for row in comparisons if row.model and row.published is not None}
    ours = [each if each.num_params else replace(each, num_params=_size(borne.get(each.label, ""))) for each in models]
    return [*ours, *(ReportModel(published_label(name), "", {}, _size(name)) for name in names)]


@dataclass(frozen=True)
class ComparisonPanel:
    """A metric of a set, with a row a model that has a value.

    Attributes:
        name: set and metric.
        rows: our value and the published one that it is compared with, by the model's name; `None` where there is none.
    """

    name: str
    rows: Mapping[str, tuple[Interval | None, Interval | None]]


def comparison_panels(comparisons: Sequence[Comparison]) -> list[ComparisonPanel]:
    """The metrics that have a value, and in each the models that have one: ours, then those that only others ran."""
    named = sorted(comparisons, key=lambda row: row.published is not None)
    names = {row.model: _row_name(row) for row in named if row.model}
    panels = []
    for metric in dict.fromkeys(row.metric for row in comparisons):
        compared = [row for row in comparisons if row.metric == metric]
        rows = {names.get(row.model) or _row_name(row): _pair(row) for row in compared}
        if rows := {name: pair for name, pair in rows.items() if any(pair)}:
            panels.append(ComparisonPanel(_title(compared), rows))
    return panels


def draw_comparison(comparisons: Sequence[Comparison], path: Path) -> bool:
    """Write a panel a metric (PNG), a row and a look a model: our value filled, the published one below it hollow.

    Returns whether there was anything to draw.
    """
    panels = comparison_panels(comparisons)
    if not panels:
        return False
    models = dict.fromkeys(name for panel in panels for name in panel.rows)
    looks = dict(zip(models, cycle(product(MARKERS, COLOURS)), strict=False))
    names = short_labels(models, LONGEST_NAME)
    columns = _in_columns(panels)
    heights = [sum(map(_height_in, column)) for column in columns]
    with canvas_of(WIDTHS_IN[len(columns) - 1], max(heights) + LEGEND_IN, path) as canvas:
        grid = canvas.add_gridspec(1, len(columns))
        for i, (column, height) in enumerate(zip(columns, heights, strict=True)):
            ratios = [*map(_height_in, column), max(heights) - height + 1e-3]
            places = grid[0, i].subgridspec(len(ratios), 1, height_ratios=ratios)
            for j, panel in enumerate(column):
                axes = canvas.add_subplot(places[j])
                _draw_panel(axes, panel, looks)
                axes.set_yticks(range(len(panel.rows)), [names[name] for name in panel.rows], color=INK)
                write_title(axes, panel.name, len(columns))
        _draw_legend(canvas, panels)
    return True


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
    times, ours = milliseconds or {}, {row.model for row in comparisons if row.model}
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


def _published_interval(published: PublishedValue) -> Interval:
    """A published value; NaN where no interval is published."""
    ends = (float("nan") if end is None else end for end in (published.low, published.high))
    return Interval(published.value, *ends)


def _pair(row: Comparison) -> tuple[Interval | None, Interval | None]:
    """Our value and the published one, `None` where there is none."""
    theirs = None if row.published is None else _published_interval(row.published)
    return row.measured if is_number(row.measured) else None, theirs


def _row_name(row: Comparison) -> str:
    """Our model's label, with the published name that it stands for where that is another; or the published model's."""
    theirs = row.published.model if row.published is not None else ""
    if not row.model:
        return published_label(theirs)
    return row.model if theirs.lower() in ("", row.model.lower()) else f"{row.model} ({theirs})"


def _in_columns(panels: Sequence[ComparisonPanel]) -> list[list[ComparisonPanel]]:
    """Two columns, of which the shorter one takes the next panel; one of a single panel."""
    columns: list[list[ComparisonPanel]] = [[] for _ in range(min(len(panels), 2))]
    for panel in panels:
        min(columns, key=lambda column: sum(map(_height_in, column))).append(panel)
    return columns


def _height_in(panel: ComparisonPanel) -> float:
    """Of a panel, with its title and axis, inches."""
    return ROW_IN * len(panel.rows) + MARGIN_IN


def _draw_panel(axes: Axes, panel: ComparisonPanel, looks: Mapping[str, tuple[str, str]]) -> None:
    """One panel of `draw_comparison`."""
    seen: list[float] = []
    for row, (name, values) in enumerate(panel.rows.items()):
        marker, colour = looks[name]
        apart = PAIR_ROWS if all(values) else 0.0
        for value, y, inside in zip(values, (row - apart, row + apart), (colour, "white"), strict=True):
            if value is None:
                continue
            seen.append(value.value)
            if isfinite(value.low) and isfinite(value.high):
                axes.plot([value.low, value.high], [y, y], color=colour, lw=1.2, solid_capstyle="butt")
                seen += [value.low, value.high]
            axes.plot([value.value], [y], marker=marker, ms=5.5, mfc=inside, mec=colour, mew=1.1, lw=0)
    set_ends(axes, "x", min(seen), max(seen))
    axes.set_ylim(len(panel.rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def _draw_legend(canvas: Canvas, panels: Sequence[ComparisonPanel]) -> None:
    """What filled and hollow markers are, as far as they are drawn, with a line where one has an interval."""
    pairs = [pair for panel in panels for pair in panel.rows.values()]
    handles = []
    for words, inside, values in zip(("ours", "published"), (INK, "white"), zip(*pairs, strict=True), strict=True):
        shown = [value for value in values if value is not None]
        width = 1.2 if any(isfinite(value.low) for value in shown) else 0.0
        if shown:
            handles.append(Line2D([], [], color=INK, marker="o", ms=5.5, mfc=inside, mew=1.1, lw=width, label=words))
    canvas.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def _size(name: str) -> int:
    """The number of parameters of a published model; 0 if it is not known."""
    spec = ENCODERS.get(PAPERS_STUDENT if name == "g2l" else name)
    return round(spec.params_m * 1e6) if spec else 0
