"""What the figures of a report share: size, style, colours, axes around scores, and writing to a file.

A figure is as wide on the page as it is in inches (96 CSS pixels an inch). The same data give the same bytes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from math import inf, isfinite
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from pipeline.disk.files import write_bytes
from pipeline.report.content import Interval, Score
from pipeline.report.labels import font_families, shorten

DPI = 200
COLOURS = ("#1f5fbf", "#c2521a", "#1f7a5c", "#7d4fb0", "#a8325a", "#5a626e", "#8a6a10", "#0f7c94")
"""By the order of models; each has a contrast of at least 4.5 on white. Our choice."""
MARKERS = "osD^vPX<"
INK, QUIET, RULE = "#1c2530", "#5a626e", "#d9dde3"
NICE_STEPS = [1, 2, 2.5, 5, 10]
"""Between the numbers of an axis."""
MAX_COLUMNS = 3
"""Panels side by side."""
WIDTHS_IN = (6.4, 8.4, 10.0)
"""Width of a figure of one, two and three panels side by side, inches."""
MOST_STRETCH = 3.0
"""Chance is drawn unless the axis would have to be stretched more than this; it is then written instead: scores around
0.9 of a task with 50 classes would lie in one line.
"""
LEAST_SPAN = 0.1
"""An axis of scores spans this at least, or differences of a thousandth would look large. Our choice."""
ROUNDING = 1e-9
"""By how much a score or a tick of 0 or 1 may be off."""
TITLE_CHARS = (80, 50, 34)
"""Characters of a line above a panel, for one, two and three panels side by side."""


@contextmanager
def canvas_of(width: float, height: float, path: Path) -> Iterator[Canvas]:
    """A figure of that size in inches, written to `path` (PNG) when the block ends."""
    style: Any = {
        "font.family": list(font_families()),
        "font.size": 8.5,
        "text.parse_math": False,
        "text.color": INK,
        "axes.edgecolor": "#9aa3af",
        "axes.labelcolor": INK,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": 8.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "xtick.color": QUIET,
        "ytick.color": QUIET,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "grid.color": RULE,
        "grid.linewidth": 0.6,
        "axes.grid": True,
        "axes.axisbelow": True,
        "figure.facecolor": "white",
        "legend.frameon": False,
        "legend.fontsize": 8,
        "path.sketch": None,
    }
    with mpl.rc_context(style):
        canvas = Canvas(figsize=(width, height), dpi=DPI, layout=ConstrainedLayoutEngine(w_pad=0.07, h_pad=0.06))
        FigureCanvasAgg(canvas)
        yield canvas
        buffer = BytesIO()
        canvas.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())


def write_title(axes: Axes, name: str, columns: int) -> None:
    """A score's name above its panel, on two lines at most."""
    width = TITLE_CHARS[columns - 1]
    lines = wrap(shorten(name, 2 * width - 6), width)
    axes.set_title("\n".join(lines[:2]))


def is_number(value: Interval | None) -> bool:
    return value is not None and isfinite(value.value)


def cycle_of(values: Sequence[str]) -> Iterator[str]:
    while True:
        yield from values


def _ends(score: Score) -> tuple[float, float]:
    """The least and the largest number of a score's values and intervals."""
    numbers = [x for v in score.values.values() if is_number(v) for x in (v.value, v.low, v.high) if isfinite(x)]
    return (min(numbers), max(numbers)) if numbers else (0.0, 1.0)


def chance_fits(score: Score) -> bool:
    low, high = _ends(score)
    if score.chance is None:
        return False
    return max(high, score.chance) - min(low, score.chance) <= MOST_STRETCH * max(high - low, 0.1)


def set_range(axes: Axes, which: Literal["x", "y"], score: Score, *, below: float = 0.12, room: float = 0.03) -> None:
    """An axis around all values, and chance where it fits, with its ticks.

    Args:
        below: free share of the span at the lower end.
        room: see `set_ends`.
    """
    low, high = _ends(score)
    if score.chance is not None and chance_fits(score):
        low, high = min(low, score.chance), max(high, score.chance)
    set_ends(axes, which, low, high, below=below, room=room)


def set_ends(
    axes: Axes, which: Literal["x", "y"], low: float, high: float, *, below: float = 0.12, room: float = 0.03
) -> None:
    """An axis around two numbers, with its ticks. Numbers up to 1 are taken for a score that cannot be more, those
    from 0 for one that cannot be less: the axis ends there, too.

    Args:
        below: free share of the span at the lower end.
        room: what a marker at 0 or 1 needs, as a share of the span.
    """
    least, most = 0.0 if low >= -ROUNDING else -inf, 1.0 if high <= 1 + ROUNDING else inf
    if high - low < LEAST_SPAN:
        middle = (low + high) / 2
        low = max(min(middle - LEAST_SPAN / 2, most - LEAST_SPAN), least)
        high = low + LEAST_SPAN
    span = high - low
    start, end = max(low - below * span, least - room * span), min(high + 0.12 * span, most + room * span)
    ticks = MaxNLocator(5, steps=NICE_STEPS).tick_values(start, end)
    shown = [tick for tick in ticks if max(start, least - ROUNDING) <= tick <= min(end, most + ROUNDING)]
    if which == "x":
        axes.set_xlim(start, end)
        axes.set_xticks(shown)
    else:
        axes.set_ylim(start, end)
        axes.set_yticks(shown)


def draw_chance(score: Score, line: Callable[..., object]) -> str:
    """The dashed line; or, if it lies far off, the words that say where it is."""
    if score.chance is None:
        return ""
    if not chance_fits(score):
        return f"chance: {score.chance:.3g}"
    line(score.chance, color=QUIET, lw=0.9, ls=(0, (5, 4)), zorder=1)
    return ""


def chance_in_words(scores: Sequence[Score]) -> str:
    """What a caption says of chance: that it is the dashed line where one is drawn, and where it is elsewhere."""
    words = " The dashed line is chance." if any(chance_fits(score) for score in scores) else ""
    far = [(score.name, score.chance) for score in scores if score.chance is not None and not chance_fits(score)]
    if far:
        words += f" Chance lies beyond the axis: {'; '.join(f'{chance:.3g} for {name}' for name, chance in far)}."
    return words


def alt_of(what: str, scores: Sequence[Score]) -> str:
    """What a figure shows, for who cannot see it: the best of each score; the tables have all numbers."""
    best = []
    for score in scores:
        values = {label: value.value for label, value in score.values.items() if is_number(value)}
        if values:
            label = max(values, key=lambda name: values[name])
            best.append(f"{score.name}: highest {label} with {values[label]:.3f}")
    return f"{what}, a panel a score. {'; '.join(best)}. The tables have all numbers."
