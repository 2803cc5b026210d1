"""Figures of the studies: settings side by side, and learning curves with what they lead to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, isfinite
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from pipeline.report.figure_style import (
    COLOURS,
    INK,
    MAX_COLUMNS,
    NICE_STEPS,
    QUIET,
    WIDTHS_IN,
    canvas_of,
    set_ends,
    write_title,
)
from pipeline.report.labels import short_labels
from pipeline.study.compare import Estimate
from pipeline.study.power_law import Extrapolation

ROW_IN = 0.34
"""Height of a setting's row, inches."""
LEAST_DIFFERENCE = 0.01
"""An axis of differences reaches this far at least, or what is nothing would look large. Our choice."""


@dataclass(frozen=True)
class Panel:
    """A score of all settings, or its differences from the reference.

    Attributes:
        name: of the score.
        estimates: by setting.
        by_seed: scores of the single runs, by setting; empty for differences.
        shown: settings whose difference is shown; `None` for a score.
    """

    name: str
    estimates: Mapping[str, Estimate]
    by_seed: Mapping[str, Sequence[float]] = field(default_factory=dict)
    shown: frozenset[str] | None = None


def draw_settings(panels: Sequence[Panel], settings: Sequence[str], reference: str, path: Path) -> None:
    """Write a panel a score or difference (PNG), a row a setting: the mean, intervals over seeds and over both, and the
    runs.
    """
    names = short_labels(list(settings), 44)
    columns = min(len(panels), 2)
    rows = ceil(len(panels) / columns)
    height = rows * (ROW_IN * max(len(settings), 2) + 0.9) + 0.4
    with canvas_of(WIDTHS_IN[columns] if columns > 1 else WIDTHS_IN[0] + 0.6, height, path) as canvas:
        for i, panel in enumerate(panels):
            axes = canvas.add_subplot(rows, columns, i + 1)
            _draw_panel(axes, panel, settings, reference)
            axes.set_yticks(range(len(settings)), [names[name] for name in settings], color=INK)
            axes.set_ylim(len(settings) - 0.4, -0.6)
            axes.grid(visible=False, axis="y")
            axes.tick_params(axis="y", length=0, labelleft=i % columns == 0)
            write_title(axes, panel.name, columns)
        handles = _legend_of_settings(panels, settings)
        canvas.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def _legend_of_settings(panels: Sequence[Panel], settings: Sequence[str]) -> list[Line2D]:
    """What is drawn in at least one panel."""
    drawn = [(panel, name, panel.estimates[name]) for panel in panels for name in settings if name in panel.estimates]
    hollow = [_is_hollow(panel, name) for panel, name, _ in drawn]
    handles = []
    if not all(hollow):
        handles.append(Line2D([], [], color=INK, marker="o", ms=6, mec="white", lw=0, label="mean"))
    if any(hollow):
        handles.append(Line2D([], [], color=INK, marker="o", ms=6, mfc="white", lw=0, label="difference not shown"))
    if any(panel.by_seed.get(name) for panel, name, _ in drawn):
        handles.append(Line2D([], [], color=INK, marker="|", ms=7, lw=0, label="single runs"))
    for over, width, words in (("seeds", 3.2, "95 %, seeds"), ("both", 1.2, "95 %, seeds and cases")):
        if any(isfinite(each.interval(over)[0]) for _, _, each in drawn):
            handles.append(Line2D([], [], color=INK, lw=width, label=words))
    return handles


def _is_hollow(panel: Panel, name: str) -> bool:
    """Whether a setting's marker is hollow: its difference is not shown to be one."""
    return panel.shown is not None and name not in panel.shown


def _draw_panel(axes: Axes, panel: Panel, settings: Sequence[str], reference: str) -> None:
    """One panel of `draw_settings`."""
    seen: list[float] = []
    for row, name in enumerate(settings):
        if name in panel.estimates:
            colour = COLOURS[int(name != reference)]
            seen += _draw_row(axes, row, panel, name, colour, hollow=_is_hollow(panel, name))
    at = panel.estimates[reference].value if reference in panel.estimates else 0.0
    if panel.shown is not None or reference in panel.estimates:
        axes.axvline(at, color=INK, lw=0.9, ls=(0, (1, 2)), zorder=1)
    if panel.shown is not None:
        most = 1.1 * max(LEAST_DIFFERENCE, *map(abs, seen))
        axes.set_xlim(-most, most)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=NICE_STEPS))
    elif seen:
        set_ends(axes, "x", min(seen), max(seen))


def _draw_row(axes: Axes, row: int, panel: Panel, name: str, colour: str, *, hollow: bool) -> list[float]:
    """One setting of a panel; returns the numbers that were drawn."""
    each, runs = panel.estimates[name], list(panel.by_seed.get(name, ()))
    seen = [each.value, *runs]
    for over, width in (("both", 1.2), ("seeds", 3.2)):
        low, high = each.interval(over)
        if isfinite(low):
            axes.plot([low, high], [row, row], color=colour, lw=width, solid_capstyle="butt")
            seen += [low, high]
    axes.plot(runs, [row + 0.24] * len(runs), ls="", marker="|", ms=7, color=colour)
    inside, edge = ("white", colour) if hollow else (colour, "white")
    axes.plot([each.value], [row], marker="o", ms=6, mfc=inside, mec=edge, mew=1.2 if hollow else 0.7)
    return seen


@dataclass(frozen=True)
class CurveAxis:
    """A learning curve over one axis.

    Attributes:
        name: of the axis, such as "slides".
        numbers: of its points, ascending.
        estimates: their scores.
        by_seed: scores of the single runs, of each point.
        beyond: what is said of twice the largest number.
    """

    name: str
    numbers: Sequence[int]
    estimates: Sequence[Estimate]
    by_seed: Sequence[Sequence[float]]
    beyond: Extrapolation


def draw_learning_curves(curves: Sequence[CurveAxis], score: str, path: Path) -> None:
    """Write a panel an axis (PNG): points with intervals, single runs, the fitted law, and the score it leads to."""
    columns = min(len(curves), MAX_COLUMNS)
    with canvas_of(WIDTHS_IN[columns - 1], 3.6, path) as canvas:
        seen: list[float] = []
        all_axes = [canvas.add_subplot(1, columns, i + 1) for i in range(len(curves))]
        for axes, curve in zip(all_axes, curves, strict=True):
            seen += _draw_curve(axes, curve)
            write_title(axes, f"Over {curve.name}", columns)
            axes.set_xlabel(curve.name)
        all_axes[0].set_ylabel(score)
        for axes in all_axes:
            set_ends(axes, "y", min(seen), max(seen))
        handles = _legend_of_curves(curves)
        canvas.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def _legend_of_curves(curves: Sequence[CurveAxis]) -> list[Line2D]:
    """What is drawn in at least one panel."""
    colour = COLOURS[0]
    if any(isfinite(each.interval()[0]) for curve in curves for each in curve.estimates):
        words, width = "mean, 95 % over seeds and cases", 1.2
    else:
        words, width = "mean", 0.0
    handles = [Line2D([], [], color=colour, marker="o", ms=5, mec="white", lw=width, label=words)]
    if any(runs for curve in curves for runs in curve.by_seed):
        handles.append(Line2D([], [], color=colour, marker="_", ms=7, lw=0, label="single runs"))
    if not all(curve.beyond.why_not for curve in curves):
        colour = COLOURS[1]
        handles += [
            Line2D([], [], color=colour, lw=1.2, ls=(0, (5, 3)), label="fitted law"),
            Line2D([], [], color=colour, marker="D", ms=5, mec="white", lw=1.2, label="extrapolated, 95 %"),
        ]
    return handles


def _draw_curve(axes: Axes, curve: CurveAxis) -> list[float]:
    """One panel of `draw_learning_curves`; returns the heights that were drawn."""
    seen: list[float] = []
    for number, each, runs in zip(curve.numbers, curve.estimates, curve.by_seed, strict=True):
        low, high = each.interval()
        if isfinite(low):
            axes.plot([number, number], [low, high], color=COLOURS[0], lw=1.2, solid_capstyle="butt")
            seen += [low, high]
        axes.plot([number] * len(runs), runs, ls="", marker="_", ms=7, color=COLOURS[0])
        axes.plot([number], [each.value], marker="o", ms=5, color=COLOURS[0], mec="white", mew=0.6)
        seen += [each.value, *runs]
    ticks = list(curve.numbers)
    beyond = curve.beyond
    if not beyond.why_not:
        x = np.geomspace(curve.numbers[0], beyond.at, 60)
        axes.plot(x, beyond.law_at(x), color=COLOURS[1], lw=1.2, ls=(0, (5, 3)), zorder=1)
        axes.plot([beyond.at, beyond.at], [beyond.low, beyond.high], color=COLOURS[1], lw=1.2)
        axes.plot([beyond.at], [beyond.score], marker="D", ms=5, color=COLOURS[1], mec="white", mew=0.6)
        seen += [beyond.low, beyond.high]
        ticks.append(int(beyond.at))
    else:
        axes.text(0.98, 0.03, "no extrapolation", transform=axes.transAxes, ha="right", color=QUIET, fontsize=7.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return seen
