"""Figures of a report: scores with intervals, and lines such as a score by the number of neighbours."""

from collections.abc import Sequence
from math import ceil, isfinite
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from pipeline.report.content import Figure, Interval, Score
from pipeline.report.figure_style import (
    COLOURS,
    INK,
    MARKERS,
    MAX_COLUMNS,
    QUIET,
    WIDTHS_IN,
    alt_of,
    canvas_of,
    chance_in_words,
    cycle_of,
    draw_chance,
    is_number,
    set_ends,
    set_range,
    write_title,
)
from pipeline.report.labels import short_labels, shorten

MOST_TICKS = 10
"""An axis of lines has a tick at each x up to so many. Our choice."""


def draw_scores(scores: Sequence[Score], path: Path, *, reference: str = "") -> Figure:
    """Write scores as dots with their intervals (PNG): a row a model, a panel a score.

    Args:
        scores: at least one; all are drawn, `MAX_COLUMNS` side by side.
        reference: label of a model whose value is drawn through all rows; "" for none.
    """
    assert scores, "no score to draw"
    labels = list(dict.fromkeys(label for score in scores for label in score.values))
    names = short_labels(labels, 34)
    columns = min(len(scores), MAX_COLUMNS)
    rows = ceil(len(scores) / columns)
    height = rows * (0.27 * max(len(labels), 2) + 0.85)
    with canvas_of(WIDTHS_IN[columns - 1], height, path) as canvas:
        for i, score in enumerate(scores):
            axes = canvas.add_subplot(rows, columns, i + 1)
            _draw_dots(axes, score, labels, reference, columns)
            axes.set_yticks(range(len(labels)), [names[label] for label in labels], color=INK)
            if i % columns:
                axes.tick_params(labelleft=False)
    caption = "One row a model; thin lines are intervals." + chance_in_words(scores)
    if reference in labels:
        caption += f" The dotted line is {reference}."
    return Figure(path.name, caption, alt_of("Scores", scores))


def _draw_dots(axes: Axes, score: Score, labels: Sequence[str], reference: str, columns: int) -> None:
    """One panel of `draw_scores`."""
    for row, (colour, label) in enumerate(zip(cycle_of(COLOURS), labels, strict=False)):
        value = score.values.get(label)
        if value is None or not is_number(value):
            continue
        if isfinite(value.low) and isfinite(value.high):
            axes.plot([value.low, value.high], [row, row], color=colour, lw=1.4, solid_capstyle="butt")
        axes.plot([value.value], [row], marker="o", ms=6, color=colour, mec="white", mew=0.7)
    at = score.values.get(reference)
    set_range(axes, "x", score)
    if at is not None and is_number(at):
        axes.axvline(at.value, color=INK, lw=0.9, ls=(0, (1, 2)), zorder=1)
    axes.set_xlabel(draw_chance(score, axes.axvline), color=QUIET, fontsize=7.5, loc="right")
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    write_title(axes, score.name, columns)


def draw_lines(
    lines: dict[str, dict[float, float | Interval]],
    x_label: str,
    y_label: str,
    path: Path,
    log_x: bool = False,
    chance: float | None = None,
) -> Figure:
    """Write a line a model (PNG), such as a score by the number of examples or neighbours.

    Args:
        lines: by label, y by x; an interval is drawn as a band. A y that is not finite is left out.
        log_x: x is positive and its scale logarithmic.
        chance: what a guess gets, as a dashed line.
    """
    names = short_labels(lines, 30)
    with canvas_of(7.6, 3.7, path) as canvas:
        axes = canvas.add_subplot()
        ends: list[tuple[float, Line2D, str]] = []
        for i, (label, line) in enumerate(lines.items()):
            points = sorted((x, _interval(y)) for x, y in line.items() if is_number(_interval(y)))
            if points:
                ends.append((-points[-1][1].value, _draw_line(axes, points, i), names[label]))
        _set_x_axis(axes, {x for line in lines.values() for x in line}, log_x=log_x)
        _set_y_axis(axes, lines, chance)
        axes.set(xlabel=shorten(x_label, 80), ylabel=shorten(y_label, 50))
        ends.sort(key=lambda end: end[0])
        if ends:
            names_of_lines = [_not_hidden(name) for _, _, name in ends]
            canvas.legend([line for _, line, _ in ends], names_of_lines, loc="outside right upper")
    caption = f"{y_label} by {x_label}, one line a model, in the order of their ends."
    if chance is not None:
        caption += " The dashed line is chance."
    listed = "; ".join(f"{name} ends at {-end:.3f}" for end, _, name in ends)
    return Figure(path.name, caption, f"Line chart of {y_label} by {x_label}. {listed}." if listed else caption)


def _set_y_axis(axes: Axes, lines: dict[str, dict[float, float | Interval]], chance: float | None) -> None:
    """Draw chance, and let the axis reach from the lowest to the highest value, intervals and chance included."""
    if chance is not None:
        axes.axhline(chance, color=QUIET, lw=0.9, ls=(0, (5, 4)), zorder=1)
    heights = [end for line in lines.values() for y in line.values() for end in _ends(_interval(y))]
    if heights:
        heights += [] if chance is None else [chance]
        set_ends(axes, "y", min(heights), max(heights))


def _draw_line(axes: Axes, points: Sequence[tuple[float, Interval]], number: int) -> Line2D:
    """One line of `draw_lines`, with a band if all of its points have intervals; `number` chooses colour and marker."""
    xs, ys = [x for x, _ in points], [y.value for _, y in points]
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]
    (line,) = axes.plot(xs, ys, color=colour, lw=1.5, marker=marker, ms=4.5, mec="white", mew=0.6)
    if all(isfinite(y.low) and isfinite(y.high) for _, y in points):
        lows, highs = [y.low for _, y in points], [y.high for _, y in points]
        axes.fill_between(xs, lows, highs, color=colour, alpha=0.10, lw=0)
    return line


def _set_x_axis(axes: Axes, xs: set[float], *, log_x: bool) -> None:
    """A tick at each x where they are few, written as plain numbers."""
    if log_x:
        axes.set_xscale("log")
    if 0 < len(xs) <= MOST_TICKS:
        axes.xaxis.set_major_locator(FixedLocator(sorted(xs)))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def _not_hidden(name: str) -> str:
    """matplotlib leaves names that begin with an underscore out of a legend."""
    return f"\N{ZERO WIDTH SPACE}{name}" if name.startswith("_") else name


def _ends(value: Interval) -> list[float]:
    """A value and the ends of its interval as far as they are finite; none where the value is not."""
    return [x for x in (value.value, value.low, value.high) if isfinite(x)] if is_number(value) else []


def _interval(value: float | Interval) -> Interval:
    return value if isinstance(value, Interval) else Interval(value, float("nan"), float("nan"))
