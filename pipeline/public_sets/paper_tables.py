"""The paper's tables, with its columns: published values and ours, a set a row; as rows of text, and drawn.

Accuracy of kNN and AUROC of the linear probe have a column a model; CKA has the student before and after; the ratio of
neighbours of the same class over those of the same centre has a column a k, and a row a model. Models of ours that the
paper does not have get columns behind the paper's. Of several of our values for one place the first stands there.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.public_sets.compare import Comparison, is_incomparable
from pipeline.report.figure_style import INK, RULE, canvas_of

MODELS_OF_PAPER = {"G2L": "g2l", "H-optimus-0": "h-optimus-0", "UNI2-h": "uni2-h", "Hibou-L": "hibou-l"}
"""Columns of the paper's tables, and the names of `published.csv`."""
CKA_COLUMNS = {"before": "hibou-l", "after": "g2l"}
"""Of its table of CKA: the student before and after distillation."""
RATIO = re.compile(r"class to centre, (k = \d+)")
PUBLISHED_ROW, OUR_ROW, INCOMPARABLE_ROW = "published", "ours", "ours, not comparable"
ROW_IN, COLUMN_IN, MARGIN_IN = 0.2, 1.25, 0.25
"""Height of a row and width of a column of a drawn table, and the margin around it, inches."""


@dataclass(frozen=True)
class PaperTable:
    """One table.

    Attributes:
        name: for its files, such as `table_knn_accuracy`.
        title: what the numbers are.
        columns: names; the first two say what a row is.
        rows: cells; `None` for a value that does not exist.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | None, ...], ...]


def shared_places(comparisons: Sequence[Comparison]) -> list[str]:
    """Sets and models, "SET: MODEL" each, whose value stands in no table, as another one stands in its place."""
    taken: dict[tuple[str, str, str], float] = {}
    shared = []
    for row in comparisons:
        if row.value is not None:
            is_other = taken.setdefault(_place(row), row.value) != row.value
            shared += [f"{row.set}: {row.model}"] * is_other
    return list(dict.fromkeys(shared))


def _place(row: Comparison) -> tuple[str, str, str]:
    """Where one of our values stands: a metric of a set, and a column or row."""
    if RATIO.fullmatch(row.metric):
        return row.metric, "", row.model
    return row.metric, row.set, _column(row, _columns_of(row.metric)) or row.model


def paper_tables(comparisons: Sequence[Comparison]) -> list[PaperTable]:
    """The tables of all metrics that were compared, in their order."""
    metrics = list(dict.fromkeys(row.metric for row in comparisons))
    tables = [_by_set(metric, comparisons) for metric in metrics if not RATIO.fullmatch(metric)]
    ratios = [row for row in comparisons if RATIO.fullmatch(row.metric)]
    return tables + ([_by_k(ratios)] if ratios else [])


def _by_set(metric: str, comparisons: Sequence[Comparison]) -> PaperTable:
    """A row a set and whose values they are, a column a model."""
    chosen = [row for row in comparisons if row.metric == metric]
    columns = _columns_of(metric)
    more = dict.fromkeys(row.model for row in chosen if row.model and _column(row, columns) is None)
    names = [*columns, *more]
    rows: list[tuple[str | float | None, ...]] = []
    for name in dict.fromkeys(row.set for row in chosen):
        of_set = [row for row in chosen if row.set == name]
        theirs, ours = _values(of_set, columns)
        rows.append((name, PUBLISHED_ROW, *map(theirs.get, names)))
        rows.append((name, _whose(of_set), *map(ours.get, names)))
    slug = re.sub(r"\W+", "_", metric.lower()).strip("_")
    return PaperTable(f"table_{slug}", metric, ("set", "values", *columns, *more), tuple(rows))


def _values(of_set: Sequence[Comparison], columns: Mapping[str, str]) -> tuple[dict[str, float], dict[str, float]]:
    """The published values of a set and ours, by column; a model that the paper does not have is its own column."""
    theirs: dict[str, float] = {}
    ours: dict[str, float] = {}
    for row in of_set:
        column = _column(row, columns) or row.model
        if row.published is not None:
            theirs[column] = row.published.value
        if row.value is not None:
            ours.setdefault(column, row.value)
    return theirs, ours


def _columns_of(metric: str) -> Mapping[str, str]:
    """The columns of the paper's table of a metric, with the names of `published.csv`."""
    return CKA_COLUMNS if metric.startswith("CKA") else MODELS_OF_PAPER


def _whose(rows: Sequence[Comparison]) -> str:
    """Words for a row of our values, which may be such that published ones must not be compared with them."""
    return INCOMPARABLE_ROW if is_incomparable(rows) else OUR_ROW


def _by_k(ratios: Sequence[Comparison]) -> PaperTable:
    """A row a model, a column a number of neighbours."""
    at = {row.metric: match[1] for row in ratios if (match := RATIO.fullmatch(row.metric))}
    columns = list(dict.fromkeys(at.values()))
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for row in ratios:
        theirs = [each for each in ratios if each.set == row.set and not each.model]
        if row.published is not None:
            shown = {theirs: paper for paper, theirs in MODELS_OF_PAPER.items()}.get(row.published.model)
            key = (shown or row.published.model, PUBLISHED_ROW)
            rows.setdefault(key, {})[at[row.metric]] = row.published.value
        if row.value is not None:
            values = rows.setdefault((row.model, _whose([row, *theirs])), {})
            values.setdefault(at[row.metric], row.value)
    cells = tuple((*key, *(values.get(column) for column in columns)) for key, values in rows.items())
    title = "neighbours of the same class over those of the same centre"
    return PaperTable("table_class_to_centre", title, ("model", "values", *columns), cells)


def _column(row: Comparison, columns: Mapping[str, str]) -> str | None:
    """The paper's column that a comparison belongs to, by the published model or by our label, which may be the name of
    the column itself; `None` if it has none.
    """
    names = {row.published.model} if row.published else {row.model.lower()}
    return next((column for column, theirs in columns.items() if names & {theirs, column.lower()}), None)


def draw_table(table: PaperTable, path: Path) -> None:
    """Write a table as a picture (PNG); numbers with four digits, as in the paper."""
    cells = [[_shown(cell) for cell in row] for row in table.rows]
    width = COLUMN_IN * len(table.columns) + 2 * MARGIN_IN
    height = ROW_IN * (len(cells) + 1) + 2 * MARGIN_IN
    with canvas_of(width, height, path) as canvas:
        axes = canvas.add_subplot()
        axes.axis("off")
        axes.set_title(table.title, color=INK)
        if cells:
            drawn = axes.table(
                cells, colLabels=list(table.columns), cellLoc="right", loc="upper center", edges="horizontal"
            )
            drawn.auto_set_font_size(False)
            drawn.set_fontsize(8.5)
            for (place, column), cell in drawn.get_celld().items():
                cell.set_edgecolor(RULE)
                side = "left" if column < 2 else "right"
                cell.set_text_props(color=INK, weight="bold" if place == 0 else "normal", ha=side)


def _shown(cell: str | float | None) -> str:
    """A cell as it is drawn."""
    if cell is None:
        return "\N{EN DASH}"
    return cell if isinstance(cell, str) else f"{cell:.4f}"
