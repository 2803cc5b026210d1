"""The paper's figure 1: score against the number of parameters, one point a model, its area the time of a patch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, floor, isfinite, log10, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from pipeline.report.content import AFTER, BEFORE, Figure, Interval, ReportModel, Score, Section
from pipeline.report.figure_style import (
    COLOURS,
    DPI,
    MAX_COLUMNS,
    QUIET,
    WIDTHS_IN,
    alt_of,
    canvas_of,
    chance_in_words,
    cycle_of,
    draw_chance,
    is_number,
    set_range,
    write_title,
)
from pipeline.report.labels import Box, place_labels, short_labels

MAX_PANELS = 6
LARGEST_AREA, SMALLEST_AREA, PLAIN_AREA = 360.0, 14.0, 55.0
"""Areas of markers, square points. The last is that of models without a time."""
HOLLOW_PT = 1.2
"""Width of a hollow marker's line, points."""
MARKER_ROOM = 0.07
"""Of a panel's height, for half of the largest marker."""
DODGE_PT, FARTHEST_PT = 2.0, 2.0
"""Models of the same size whose values or intervals meet stand so far apart, or they would lie on each other; none
farther from its size than the second, or it would seem to have another one.
"""

MOST_WITH_THREES, MOST_DECADES = 3.0, 6.0
"""An axis of more decades has no ticks between them; one of more than the second leaves decades out: "100 M" takes a
seventh of the narrowest panel. Our choice.
"""
SAME_SIZE = 5e-3
"""Sizes that differ by less than this in log10, about 1 %, are taken for equal. Our choice."""
NAME_PT = 7.5
PANEL_IN, TIMES_IN, NAMES_IN, NOTE_IN = 2.95, 0.42, 0.21, 0.2
"""Heights of a row of panels, of the row of three times, of a line of names, and of one of small print, inches."""
PANEL_PT = 0.8 * 72 * PANEL_IN
"""About how high the inside of a panel is, points."""
MOST_NAMES, LONGEST_NAME, LONGEST_IN_KEY = 5, 18, 34
"""More models or longer names than these are numbered, with a key below: six panels full of names are unreadable."""


def figure_scores(sections: Sequence[Section]) -> list[Score]:
    """The headline scores that say how good a model is, not what it costs."""
    return [score for section in sections for score in section.scores if not score.is_cost]


def format_params(count: float) -> str:
    """A number of parameters in words: 370 K, 22 M, 1.1 B."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= size * 0.9995:
            value = count / size
            return f"{value:.1f} {unit}" if value < 9.95 and round(value, 1) != round(value) else f"{value:.0f} {unit}"
    return f"{count:.0f}"


@dataclass(frozen=True)
class _Look:
    """How a model is drawn: log10 of its parameters, which a panel may move a little (`_apart`); colour, area of the
    marker in square points, whether it is hollow, and the name or number written beside it."""

    x: float
    colour: str
    area: float
    is_hollow: bool
    text: str

    @property
    def radius(self) -> float:
        """Of the marker, points."""
        return sqrt(self.area) / 2


def draw_score_against_size(
    models: Sequence[ReportModel], scores: Sequence[Score], milliseconds: dict[str, float] | None, path: Path
) -> Figure | None:
    """Write the paper's figure 1 (PNG): a panel a score, a point a model, score against parameters.

    Args:
        models: in the order of their colours; those without a number of parameters are left out.
        scores: the first `MAX_PANELS` are drawn.
        milliseconds: a patch, by label, as the area of a point; `None` if not measured.

    Returns:
        The figure, or `None` where no model has both a score and a size: nothing is written then.
    """
    sized = [model for model in models if model.num_params > 0]
    drawn = _scores_of(sized, scores)[:MAX_PANELS]
    if not drawn:
        return None
    known = _times_of(sized, milliseconds or {})
    columns = min(len(drawn), MAX_COLUMNS)
    rows = ceil(len(drawn) / columns)
    limits = _limits(sized)
    numbered = _are_numbered(sized)
    looks = _looks(sized, known, numbered=numbered)
    per_point, apart = (limits[1] - limits[0]) / _panel_pt(columns), _apart_words(sized, drawn)
    lines = ceil(len(sized) / max(columns, 2)) if numbered else 0
    heights = [PANEL_IN] * rows + [TIMES_IN] * bool(known) + [NAMES_IN * lines + 0.1] * numbered
    heights += [NOTE_IN] * bool(apart)
    with canvas_of(WIDTHS_IN[columns - 1], sum(heights), path) as canvas:
        grid = canvas.add_gridspec(len(heights), columns, height_ratios=heights)
        panels = [canvas.add_subplot(grid[i // columns, i % columns]) for i in range(len(drawn))]
        placed = []
        for axes, score in zip(panels, drawn, strict=True):
            axes.set_xlim(*limits)
            set_range(axes, "y", score, below=0.22, room=MARKER_ROOM)
            placed.append(_apart(looks, score, float(np.ptp(axes.get_ylim())) / PANEL_PT, per_point))
            _draw_panel(axes, score, placed[-1], _pairs(models), columns)
        for axes in panels[-columns:]:
            axes.set_xlabel("parameters")
        below = (canvas.add_subplot(grid[row, :]) for row in range(rows, len(heights)))
        _draw_below(below, looks, known, apart, max(columns, 2) if numbered else 0)
        canvas.draw_without_rendering()
        canvas.set_layout_engine("none")
        for axes, score, of_panel in zip(panels, drawn, placed, strict=True):
            _label_points(axes, score, of_panel)
    return Figure(path.name, _size_caption(models, scores, drawn, known), alt_of("Score against parameters", drawn))


def _size_caption(
    models: Sequence[ReportModel], scores: Sequence[Score], drawn: Sequence[Score], known: dict[str, float]
) -> str:
    parts = ["Score against size: one point a model, parameters on a logarithmic scale; thin lines are intervals."]
    if known:
        parts.append("The area of a point is the time of one patch on this machine.")
    if words := chance_in_words(drawn):
        parts.append(words.strip())
    if _pairs(models):
        parts.append("The arrow leads from the student before distillation to the student after.")
    if apart := _apart_words(models, drawn):
        parts.append(apart)
    if unsized := _unsized(models, drawn):
        parts.append(f"Left out, as their size is not known: {', '.join(unsized)}.")
    untimed = [model.label for model in models if model.num_params > 0 and model.label not in known] if known else []
    if untimed:
        parts.append(f"Hollow, as their time was not measured: {', '.join(untimed)}.")
    if len(scores) > len(drawn):
        parts.append(f"{len(drawn)} of {len(scores)} scores are drawn; the tables have all.")
    return " ".join(parts)


def _unsized(models: Sequence[ReportModel], drawn: Sequence[Score]) -> list[str]:
    """Labels with scores, or models, of which no size is known."""
    sizes = {model.label: model.num_params for model in models}
    labels = dict.fromkeys([*sizes, *(label for score in drawn for label in score.values)])
    return [label for label in labels if sizes.get(label, 0) <= 0]


def _are_numbered(models: Sequence[ReportModel]) -> bool:
    """Whether points have numbers beside them instead of names (`MOST_NAMES`)."""
    return len(models) > MOST_NAMES or any(len(model.label) > LONGEST_NAME for model in models)


def _scores_of(models: Sequence[ReportModel], scores: Sequence[Score]) -> list[Score]:
    """The scores that at least one of the models has."""
    return [score for score in scores if any(is_number(score.values.get(model.label)) for model in models)]


def _times_of(models: Sequence[ReportModel], milliseconds: dict[str, float]) -> dict[str, float]:
    """The measured times of models, by label."""
    return {model.label: milliseconds[model.label] for model in models if model.label in milliseconds}


def _areas(labels: Sequence[str], known: dict[str, float]) -> dict[str, float]:
    """Areas of markers by label, proportional to time, square points; the plain one without a time."""
    scale = LARGEST_AREA / max(known.values()) if known else 0.0
    return {label: max(known[label] * scale, SMALLEST_AREA) if label in known else PLAIN_AREA for label in labels}


def _limits(models: Sequence[ReportModel]) -> tuple[float, float]:
    """Ends of the axis of parameters, as log10."""
    sizes = [log10(model.num_params) for model in models]
    margin = max(0.28 * (max(sizes) - min(sizes)), 0.25)
    return min(sizes) - margin, max(sizes) + margin


def _panel_pt(columns: int) -> float:
    """About how wide a panel is, points."""
    return 0.85 * 72 * WIDTHS_IN[columns - 1] / columns


def _looks(models: Sequence[ReportModel], known: dict[str, float], *, numbered: bool) -> dict[str, _Look]:
    """How each model is drawn at its own size, by label."""
    areas = _areas([model.label for model in models], known)
    texts = short_labels([model.label for model in models], LONGEST_NAME)
    looks: dict[str, _Look] = {}
    for number, (colour, model) in enumerate(zip(cycle_of(COLOURS), models, strict=False), start=1):
        text = str(number) if numbered else texts[model.label]
        is_hollow = bool(known) and model.label not in known
        looks[model.label] = _Look(log10(model.num_params), colour, areas[model.label], is_hollow, text)
    return looks


def _apart(looks: Mapping[str, _Look], score: Score, y_per_point: float, x_per_point: float) -> dict[str, _Look]:
    """The looks of the models that have a value of `score`: those of one size side by side where markers or intervals
    meet, all others at their own size.

    Args:
        y_per_point, x_per_point: units of the axes a point of the page.
    """
    placed = {label: look for label, look in looks.items() if is_number(score.values.get(label))}
    for group in _meeting(placed, score, y_per_point):
        step = min(DODGE_PT, 2 * FARTHEST_PT / max(len(group) - 1, 1))
        for rank, label in enumerate(group):
            moved = (rank - (len(group) - 1) / 2) * step * x_per_point
            placed[label] = replace(placed[label], x=placed[label].x + moved)
    return placed


def _meeting(looks: Mapping[str, _Look], score: Score, y_per_point: float) -> list[list[str]]:
    """Labels of models of one size in groups, each of models whose markers or intervals meet at one height, directly or
    by others of the group; within a group in the order of `looks`.
    """
    groups: list[list[str]] = []
    for label in looks:
        touching = [group for group in groups if any(_meet(label, other, looks, score, y_per_point) for other in group)]
        groups = [group for group in groups if group not in touching]
        groups.append([name for name in looks if name == label or any(name in group for group in touching)])
    return groups


def _meet(one: str, other: str, looks: Mapping[str, _Look], score: Score, y_per_point: float) -> bool:
    """Whether two models of one size stand at one height."""
    (bottom, top), (low, high) = (
        _ends_of(score.values[label], looks[label].radius * y_per_point) for label in (one, other)
    )
    return abs(looks[one].x - looks[other].x) < SAME_SIZE and bottom <= high and low <= top


def _ends_of(value: Interval, radius: float) -> tuple[float, float]:
    """What a point takes of the vertical axis: its marker, and its interval if it has one."""
    ends = [value.value - radius, value.value + radius, *filter(isfinite, (value.low, value.high))]
    return min(ends), max(ends)


def _apart_words(models: Sequence[ReportModel], drawn: Sequence[Score]) -> str:
    """That models may be moved beside their size, for the picture itself and for its caption; "" if none can be."""
    sized = {model.label: log10(model.num_params) for model in models if model.num_params > 0}
    sizes = [sorted(sized[label] for label in sized if is_number(score.values.get(label))) for score in drawn]
    if not any(after - before < SAME_SIZE for of_score in sizes for before, after in pairwise(of_score)):
        return ""
    return f"Where models of one size meet, they are set apart, by {FARTHEST_PT:g} pt at most."


def _draw_below(
    below: Iterator[Axes], looks: dict[str, _Look], known: dict[str, float], apart: str, columns_of_key: int
) -> None:
    """The rows below the panels, as far as there are such: times, the key, and the note on models set apart."""
    if known:
        _draw_times(next(below), known, untimed=any(look.is_hollow for look in looks.values()))
    if columns_of_key:
        _draw_key(next(below), looks, columns_of_key)
    if apart:
        _draw_note(next(below), apart)


def _draw_note(axes: Axes, words: str) -> None:
    """A line of small print."""
    axes.axis("off")
    axes.text(0.5, 0.5, words, transform=axes.transAxes, fontsize=NAME_PT, color=QUIET, ha="center", va="center")


def _draw_times(axes: Axes, known: dict[str, float], *, untimed: bool) -> None:
    """Three markers, each of twice the width of the one before, and their times; with `untimed`, a hollow one."""
    most = max(known.values())
    handles = [
        Line2D([], [], ls="", marker="o", ms=sqrt(LARGEST_AREA) * share, mfc="#c9d0d9", mec="#7b8593", mew=0.7)
        for share in (0.25, 0.5, 1.0)
    ]
    labels = [f"{_two_digits(most * share**2)} ms a patch" for share in (0.25, 0.5, 1.0)]
    if untimed:
        handles.append(
            Line2D([], [], ls="", marker="o", ms=sqrt(PLAIN_AREA), mfc="white", mec="#7b8593", mew=HOLLOW_PT)
        )
        labels.append("not timed")
    axes.axis("off")
    axes.legend(handles, labels, loc="center", ncols=len(labels), columnspacing=2.5, handletextpad=1.0, borderpad=0)


def _two_digits(value: float) -> str:
    """A positive number with two significant digits, never with an exponent: 0.13, 5.3, 21, 130."""
    digits = 1 - floor(log10(value))
    return f"{round(value, digits):.{max(digits, 0)}f}"


def _draw_key(axes: Axes, looks: dict[str, _Look], columns: int) -> None:
    """Which number is which model."""
    names = short_labels(looks, LONGEST_IN_KEY)
    handles = [
        Line2D([], [], ls="", marker="o", ms=6, color=look.colour, mfc="white" if look.is_hollow else look.colour)
        for look in looks.values()
    ]
    labels = [f"{look.text}  {names[label]}" for label, look in looks.items()]
    axes.axis("off")
    axes.legend(handles, labels, loc="center", ncols=columns, columnspacing=2.0, handletextpad=0.4, borderpad=0)


def _draw_panel(
    axes: Axes, score: Score, looks: dict[str, _Look], pairs: Sequence[tuple[str, str]], columns: int
) -> None:
    """Points, intervals and arrows of one score; `looks` are those of the models that have it (`_apart`)."""
    for label, look in sorted(looks.items(), key=lambda each: -each[1].area):  # the small ones stay in sight
        value = score.values[label]
        if isfinite(value.low) and isfinite(value.high):
            ends = [value.low, value.high]
            axes.plot([look.x, look.x], ends, color=look.colour, lw=1.0, solid_capstyle="butt", zorder=2)
        paint: dict[str, Any] = {"color": look.colour, "alpha": 0.85, "ec": "white", "lw": 0.8}
        if look.is_hollow:
            paint = {"color": "white", "ec": look.colour, "lw": HOLLOW_PT}
        axes.scatter([look.x], [value.value], s=look.area, zorder=3, **paint)
    for before, after in pairs:
        start, end = score.values.get(before), score.values.get(after)
        if start is None or end is None or not (is_number(start) and is_number(end)):
            continue
        axes.annotate(
            "",
            (looks[after].x, end.value),
            (looks[before].x, start.value),
            zorder=2.5,
            arrowprops={
                "arrowstyle": "->",
                "color": QUIET,
                "lw": 1.0,
                "shrinkA": looks[before].radius + 1,
                "shrinkB": looks[after].radius + 1,
            },
        )
    if words := draw_chance(score, axes.axhline):
        axes.text(0.99, 0.02, words, transform=axes.transAxes, fontsize=7.5, color=QUIET, ha="right", va="bottom")
    write_title(axes, score.name, columns)
    axes.xaxis.set_major_locator(FixedLocator(_size_ticks(*axes.get_xlim())))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: format_params(10**x)))


def _size_ticks(low: float, high: float) -> list[float]:
    """log10 of 1, 3, 10, 30, ... within the axis, of finer steps where there would be fewer than three; above
    `MOST_WITH_THREES` decades of 1, 10, 100, ..., or so few of them that their words do not touch.
    """
    if high - low > MOST_WITH_THREES:
        every = ceil((high - low) / MOST_DECADES)
        return [float(power) for power in range(ceil(low), floor(high) + 1) if power % every == 0]
    for steps in ((1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        values = [log10(step) + power for power in range(int(low) - 1, int(high) + 2) for step in steps]
        ticks = [value for value in values if low <= value <= high]
        if len(ticks) >= 3:
            break
    return ticks


def _label_points(axes: Axes, score: Score, looks: dict[str, _Look]) -> None:
    """Write names or numbers beside the points, where they cover least."""
    to_points = 72 / DPI
    shown = {label: value for label, value in score.values.items() if label in looks and is_number(value)}
    points, sizes, obstacles = [], [], []
    for label, value in shown.items():
        look = looks[label]
        px, py = axes.transData.transform((look.x, value.value)) * to_points
        points.append((px, py, look.radius))
        probe = axes.text(0, 0, look.text, fontsize=NAME_PT)
        extent = probe.get_window_extent()
        probe.remove()
        sizes.append((extent.width * to_points + 2, extent.height * to_points + 1))
        if isfinite(value.low) and isfinite(value.high):
            (_, bottom), (_, top) = (axes.transData.transform((0, y)) * to_points for y in (value.low, value.high))
            obstacles.append(Box(px - 1.5, bottom, px + 1.5, top))
    bounds = axes.get_window_extent()
    frame = Box(bounds.x0 * to_points, bounds.y0 * to_points, bounds.x1 * to_points, bounds.y1 * to_points)
    placed = place_labels(points, sizes, obstacles, frame)
    for (label, value), (x, y, radius), (box, far) in zip(shown.items(), points, placed, strict=True):
        look = looks[label]
        offset = ((box.left + box.right) / 2 - x, (box.bottom + box.top) / 2 - y)
        line = {"arrowstyle": "-", "color": look.colour, "lw": 0.5, "shrinkA": 0, "shrinkB": radius}
        axes.annotate(
            look.text,
            (look.x, value.value),
            offset,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=NAME_PT,
            color=look.colour,
            zorder=4,
            arrowprops=line if far else None,
            annotation_clip=False,
        )


def _pairs(models: Sequence[ReportModel]) -> list[tuple[str, str]]:
    """Labels of students before and after, where it is clear which belong together: by their size."""
    pairs = []
    for after in (model for model in models if model.role == AFTER):
        before = [model.label for model in models if model.role == BEFORE and model.num_params == after.num_params]
        if len(before) == 1:
            pairs.append((before[0], after.label))
    return pairs
