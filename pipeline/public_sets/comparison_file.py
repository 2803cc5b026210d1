"""`comparison.csv`: each model by each metric, ours beside the published value; written, and read for other tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.base.errors import BenchmarkError, ManifestError
from pipeline.base.outside import reading
from pipeline.disk.tables import read_table, refuse, write_records
from pipeline.public_sets.compare import Comparison
from pipeline.public_sets.published import PublishedValue
from pipeline.report.content import Interval

COMPARISON_FILE = "comparison.csv"
REASON, PROTOCOL = "reason", "protocol"
"""The last columns; files of earlier versions lack them."""
COMPARISON_COLUMNS = (
    *("set", "metric", "model", "measured", "low", "high"),
    *("published_model", "published", "published_low", "published_high", "published_protocol", "source", "place"),
    *("tolerance", "verdict", REASON, PROTOCOL),
)


def write_comparisons(path: Path, comparisons: Sequence[Comparison]) -> None:
    """Write a row a comparison, complete or absent; a number that does not exist is an empty cell."""
    write_records(path, [_record(row) for row in comparisons], COMPARISON_COLUMNS)


def read_comparisons(folder: Path) -> list[Comparison]:
    """The comparisons that a folder of `g2l reproduce` holds.

    Raises:
        BenchmarkError: it holds none, or the file is damaged.
    """
    path = folder / COMPARISON_FILE
    try:
        records, problems = read_table(path, COMPARISON_COLUMNS[:-2], ",", known=(REASON, PROTOCOL))
        refuse(path, problems)
    except ManifestError as error:
        raise BenchmarkError(f"{error}. --beside takes the --out of another g2l reproduce") from None
    with reading(path, "damaged", BenchmarkError, "Run that g2l reproduce again"):
        return [_comparison(cells) for _, cells in records]


def _record(row: Comparison) -> dict[str, object]:
    """A comparison as cells."""
    ours, theirs = row.measured.record() if row.measured else {}, row.published
    return {
        "set": row.set,
        "metric": row.metric,
        "model": row.model,
        "measured": ours.get("value"),
        "low": ours.get("low"),
        "high": ours.get("high"),
        "published_model": theirs.model if theirs else "",
        "published": theirs.value if theirs else None,
        "published_low": theirs.low if theirs else None,
        "published_high": theirs.high if theirs else None,
        "published_protocol": theirs.protocol if theirs else "",
        "source": theirs.source if theirs else "",
        "place": theirs.place if theirs else "",
        "tolerance": row.tolerance,
        "verdict": row.verdict,
        REASON: row.reason,
        PROTOCOL: row.protocol,
    }


def _comparison(cells: Mapping[str, str]) -> Comparison:
    """The inverse of `_record`."""
    nothing = float("nan")
    measured = published = None
    if cells["measured"]:
        ends = [nothing if (end := _number(cells[name])) is None else end for name in ("low", "high")]
        measured = Interval(float(cells["measured"]), *ends)
    if cells["published"]:
        published = PublishedValue(
            set=cells["set"],
            model=cells["published_model"],
            metric=cells["metric"],
            value=float(cells["published"]),
            low=_number(cells["published_low"]),
            high=_number(cells["published_high"]),
            protocol=cells["published_protocol"],
            source=cells["source"],
            place=cells["place"],
        )
    return Comparison(
        set=cells["set"],
        metric=cells["metric"],
        model=cells["model"],
        measured=measured,
        published=published,
        tolerance=float(cells["tolerance"]),
        verdict=cells["verdict"],
        reason=cells.get(REASON, ""),
        protocol=cells.get(PROTOCOL, ""),
    )


def _number(cell: str) -> float | None:
    """The number of a cell, `None` of an empty one."""
    return float(cell) if cell else None
