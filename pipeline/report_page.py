"""The report as one HTML file that opens anywhere: styles and pictures inside, nothing fetched, no script.

Everything that comes from files is escaped by the template, and a Content-Security-Policy forbids whatever would still
slip through: scripts, frames, requests. What the page leaves out for want of room is in `report.json`.
"""

import base64
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from io import BytesIO
from itertools import groupby
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from pipeline.files import sha256_json, write_json, write_text
from pipeline.report import Cell, Column, Figure, Interval, Report, Score, Section, Table

TEMPLATE_FILE = "report.html.j2"
MAX_EXCLUSIONS = 200
"""Exclusions of a section that the page shows; `report.json` has all."""
PRINT_COLUMNS = 8
"""Columns beside the first that fit the width of a printed page; wider tables are printed in parts. Our choice."""
CSS_PX_PER_INCH = 96
MINUS, EN_DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
COARSE_WIDTH = 2
"""Intervals are shown with a digit less than their values, if each of a column is this many such steps wide."""
AFTER = "student after distillation"
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
"""What HTML or UTF-8 cannot hold, such as bytes of file names that were no UTF-8, and what turns the direction of the
text behind it.
"""


@dataclass(frozen=True)
class Shown:
    """A cell as it is drawn: text, the interval in smaller type, and whether it is a number, missing or the best."""

    text: str = ""
    interval: str = ""
    number: bool = False
    missing: bool = False
    best: bool = False


def write_report(report: Report, folder: Path, figures: Sequence[Figure] = ()) -> None:
    """Write `report.json` and `report.html`, each complete or absent.

    Args:
        folder: where the figures are already.
        figures: those of the whole report, shown before the first section.

    Raises:
        OSError: a figure is not there, or the folder cannot be written.
    """
    page = render_page(report, folder, figures)
    record = report.record() | {"figures": [figure.file for figure in figures]}
    write_json(folder / "report.json", _without_nan(record))
    write_text(folder / "report.html", page)


def render_page(report: Report, folder: Path, figures: Sequence[Figure] = ()) -> str:
    """The whole page.

    Args:
        folder: where the files of the figures (PNG) are.
        figures: those of the whole report, shown before the first section.

    Raises:
        OSError: a figure is not there or no picture.
    """
    template = resources.files("pipeline").joinpath("data", TEMPLATE_FILE).read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(template).render(
        title=report.title,
        reference=report.reference,
        summary=_summary(report),
        glance=_glance(report),
        figures=[_picture(figure, folder) for figure in figures],
        sections=[_section(section, folder) for section in report.sections],
        models=[{"label": model.label, "record": flat(model.record)} for model in report.models],
        settings=flat(report.settings),
        settings_hash=sha256_json(_without_nan(report.settings)),
        run=flat({name: value for name, value in report.run.items() if name != "versions"}),
        versions=flat(report.run.get("versions", {})),
    )
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", page)


def _summary(report: Report) -> list[str]:
    """What the report is about, in a few sentences."""
    titles = ", ".join(section.title for section in report.sections)
    sentences = [f"{_counted(len(report.models), 'model')}, {_counted(len(report.sections), 'part')}: {titles}."]
    if not report.sections:
        sentences = [f"{_counted(len(report.models), 'model')}; nothing was measured."]
    by_label = {model.label: model for model in report.models}
    reference = by_label.get(report.reference)
    if reference is None or len(report.models) < 2:
        return sentences
    role = f", the {reference.role}" if reference.role not in ("", report.reference) else ""
    sentences.append(f"The others are compared with {report.reference}{role}.")
    for model in report.models:
        if model.role == AFTER and model.num_params and reference.num_params:
            share = model.num_params / reference.num_params
            sentences.append(f"{model.label}, the {model.role}, has {share:.0%} of its parameters.")
    return sentences


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _basis(count: int, name: str) -> str:
    """A count of a section's basis, whose names are plural in their first word: 1 case, 2 cases."""
    first, _, rest = name.partition(" ")
    return f"{count:,} {first.removesuffix('s') if count == 1 and first != 'classes' else first} {rest}".rstrip()


def _glance(report: Report) -> dict[str, Any]:
    """A row a model, with its role and size, and the headline scores of every section below the section's title."""
    reference = next((model.num_params for model in report.models if model.label == report.reference), 0)
    names = [Shown(model.label, model.role) for model in report.models]
    sizes = []
    for model in report.models:
        share = f"{model.num_params / reference:.0%} of reference" if reference and len(report.models) > 1 else ""
        known = model.num_params > 0
        sizes.append(Shown(_words(model.num_params), share if known else "", number=True, missing=not known))
    columns, groups, cells = [Column("model"), Column("parameters")], ["", ""], [names, sizes]
    for section in report.sections:
        for score in section.scores:
            column = Column(score.name, digits=1 if _largest(score) >= 10 else 3)
            columns.append(column)
            groups.append(section.title)
            cells.append(shown_column(column, [score.values.get(model.label) for model in report.models]))
    return _as_shown("Size and headline scores", columns, cells, groups)


def _largest(score: Score) -> float:
    """The largest finite value of a score, 0 if there is none."""
    return max((abs(value.value) for value in score.values.values() if math.isfinite(value.value)), default=0.0)


def _words(count: int) -> str:
    """A number of parameters: 22 M, 1.13 B."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count}"


def _section(section: Section, folder: Path) -> dict[str, Any]:
    """A section as the template takes it."""
    shown = section.exclusions[:MAX_EXCLUSIONS]
    return {
        "title": section.title,
        "what": section.what,
        "basis": [_basis(count, name) for name, count in section.basis.items() if count],
        "tables": [shown_table(table) for table in section.tables],
        "figures": [_picture(figure, folder) for figure in section.figures],
        "notes": section.notes,
        "exclusions": shown,
        "num_exclusions": len(section.exclusions),
        "hidden_exclusions": len(section.exclusions) - len(shown),
        "settings": flat(section.settings),
        "source": flat(section.source),
    }


def shown_table(table: Table) -> dict[str, Any]:
    """A table as the template takes it: title, columns, rows of `Shown`, and the parts that it is printed in."""
    cells = [shown_column(column, [row[i] for row in table.rows]) for i, column in enumerate(table.columns)]
    return _as_shown(table.title, table.columns, cells) | {"note": table.note}


def _as_shown(
    title: str, columns: Sequence[Column], cells: Sequence[Sequence[Shown]], groups: Sequence[str] = ()
) -> dict[str, Any]:
    """A table of cells by column, as the template takes it.

    Args:
        groups: a title above each column, the same for neighbours that belong together.
    """
    count = len(columns)
    starts = range(1, max(count, 2), PRINT_COLUMNS)
    parts = [[0, *range(start, min(start + PRINT_COLUMNS, count))] for start in starts]
    return {
        "title": title,
        "columns": columns,
        "numeric": [any(cell.number and not cell.missing for cell in column) for column in cells],
        "rows": [list(row) for row in zip(*cells, strict=True)],
        "whole": _part(range(count), groups),
        "parts": [_part(part, groups) for part in parts] if len(parts) > 1 else [],
        "note": "",
    }


def _part(indices: Sequence[int], groups: Sequence[str]) -> dict[str, Any]:
    """Columns that stand beside each other, and the titles above all but the first, with how many they span."""
    runs = [(title, len(list(run))) for title, run in groupby(groups[i] for i in indices[1:])] if groups else []
    return {"indices": list(indices), "groups": runs}


def shown_column(column: Column, cells: Sequence[Cell]) -> list[Shown]:
    """The cells of a column as they are drawn. The best ones are marked, where there is something to compare."""
    coarse = max(column.digits - 1, 0)
    widths = [c.high - c.low for c in cells if isinstance(c, Interval) and math.isfinite(c.high - c.low)]
    fine = any(width < COARSE_WIDTH * 10.0**-coarse for width in widths)
    shown = [_shown(cell, column.digits, column.digits if fine else coarse) for cell in cells]
    numbers = [_rounded(cell, column.digits) for cell in cells]
    found = [number for number in numbers if number is not None]
    if column.better not in ("higher", "lower") or len(found) < 2:
        return shown
    best = max(found) if column.better == "higher" else min(found)
    return [
        Shown(cell.text, cell.interval, cell.number, cell.missing, best=number == best)
        for cell, number in zip(shown, numbers, strict=True)
    ]


def _rounded(cell: Cell, digits: int) -> float | None:
    """The number of a cell as it is shown; `None` if it has none."""
    number = _number(cell.value if isinstance(cell, Interval) else cell)
    return None if number is None else round(number, digits)


def _number(value: object) -> int | float | None:
    """A number of any library as Python's; `None` for what is no number or not finite."""
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and math.isfinite(value):
        return float(value)
    return None


def _shown(cell: Cell, digits: int, interval_digits: int) -> Shown:
    if isinstance(cell, str):
        return Shown(cell)
    if isinstance(cell, Interval):
        value = _shown(cell.value, digits, digits)
        if value.missing or not (math.isfinite(cell.low) and math.isfinite(cell.high)):
            return value
        low, high = (_signed(end, interval_digits) for end in (cell.low, cell.high))
        dash = " to " if low.startswith(MINUS) or high.startswith(MINUS) else EN_DASH
        return Shown(value.text, f"{low}{dash}{high}", number=True)
    number = _number(cell)
    if number is None:
        return Shown(number=True, missing=True)
    return Shown(f"{number:,}" if isinstance(number, int) else format_number(number, digits), number=True)


def format_number(value: float, digits: int) -> str:
    """A number with a true minus sign; one that is too small for its digits is told from zero: "<0.001"."""
    smallest = 10.0**-digits
    if 0 < abs(value) < smallest / 2:
        return f"<{smallest:.{digits}f}" if value > 0 else f">{MINUS}{smallest:.{digits}f}"
    return _signed(value, digits)


def _signed(value: float, digits: int) -> str:
    """A rounded number with a true minus sign, and none before zero."""
    value = round(value, digits)
    return f"{MINUS if value < 0 else ''}{abs(value):,.{digits}f}"


def _picture(figure: Figure, folder: Path) -> dict[str, Any]:
    """A figure as the template takes it: its bytes in the page, as wide as its inches, else as its pixels.

    Raises:
        OSError: the file is not there or no picture.
    """
    data = (folder / figure.file).read_bytes()
    with Image.open(BytesIO(data), formats=["PNG"]) as image:
        width, height = image.size
        dots = float(image.info.get("dpi", (CSS_PX_PER_INCH, CSS_PX_PER_INCH))[0])
    scale = CSS_PX_PER_INCH / dots
    return {
        "source": f"data:image/png;base64,{base64.b64encode(data).decode()}",
        "width": round(width * scale),
        "height": round(height * scale),
        "caption": figure.caption,
        "alt": figure.alt,
    }


def flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as pairs of a dotted name and its value in words."""
    pairs: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict) and value:
            pairs += flat(value, f"{prefix}{name}.")
        elif isinstance(value, str):
            pairs.append((f"{prefix}{name}", value))
        else:
            pairs.append((f"{prefix}{name}", json.dumps(value, ensure_ascii=False, default=str)))
    return pairs


def _without_nan(value: Any) -> Any:
    """`value` with numbers of any library as JSON's, and null for what is not finite."""
    if isinstance(value, dict):
        return {str(name): _without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    if value is None or isinstance(value, str | bool):
        return value
    return _number(value) if isinstance(value, Real) else str(value)
