"""Robustness sets and models of known robustness, for the tests of the section and its tables."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.robustness.data import RobustnessSet, read_robustness_set
from pipeline.evaluate.robustness.section import robustness_section
from pipeline.report.content import Exclusion, Section

Embeddings = dict[str, NDArray[np.float32]]
Row = dict[str, str]


def write_rows(path: Path, rows: list[Row]) -> Path:
    """The table of a set, its columns those of the first row; returns `path`."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write(path: Path, rows: list[Row]) -> RobustnessSet:
    return read_robustness_set(write_rows(path, rows))


def models_of(data: RobustnessSet) -> Embeddings:
    """A model that sees the class, one that sees the centre, and one that sees nothing."""
    rows = data.index
    assert rows is not None
    rng = np.random.default_rng(0)
    label, center, nothing = rng.standard_normal((3, len(data.paths), 12))
    for values, names in ((label, rows.classes), (center, rows.centers)):
        codes = np.unique(names, return_inverse=True)[1]
        values[rows.images] += 6 * np.eye(12)[codes]
    return {
        name: values.astype(np.float32) for name, values in (("class", label), ("centre", center), ("none", nothing))
    }


def section_of(
    robustness_set: RobustnessSet,
    embeddings: Embeddings,
    reference: str,
    exclusions: Sequence[Exclusion] = (),
    **options: Any,
) -> Section:
    """The section of models by label, with 200 resamples and margins, and what `options` say otherwise."""
    values = {"k": None, "with_margins": True, "resamples": 200, "seed": 0} | options
    return robustness_section(robustness_set, embeddings, reference, exclusions, **values)


def rows_of(section: Section, title: str) -> list[dict[str, Any]]:
    (table,) = [table for table in section.record()["tables"] if table["title"] == title]
    return table["rows"]  # type: ignore[no-any-return]
