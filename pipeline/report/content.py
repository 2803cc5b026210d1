"""The content of a report, before it is a page: sections of tables and figures, with what each number is and rests on.

A section is plain data. `page` draws it, `record` is the same in JSON with every digit. Pure.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Interval:
    """A number with its confidence interval; `low` and `high` are NaN where none can be given."""

    value: float
    low: float
    high: float

    def record(self) -> dict[str, float | None]:
        """As JSON types; what is not finite is null."""
        return {"value": plain(self.value), "low": plain(self.low), "high": plain(self.high)}


TEACHER, BEFORE, AFTER = "teacher", "student before distillation", "student after distillation"
"""Roles of models that a report knows."""

Cell = str | int | float | Interval | None
"""A cell of a table; `None` is a number that does not exist, shown as a dash."""


@dataclass(frozen=True)
class Column:
    """A column: its name, what it is (one sentence, shown below the table), and digits after the point."""

    name: str
    what: str = ""
    digits: int = 3
    better: str = ""
    """"higher", "lower" or neither; the best of a column is set in bold."""


@dataclass(frozen=True)
class Table:
    """A table; the first column names the row, mostly a model."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            assert len(row) == len(self.columns), f"{self.title}: {len(row)} cells for {len(self.columns)} columns"

    def record(self) -> dict[str, Any]:
        """As JSON types, a dictionary a row by the columns' names, with all digits."""
        names = [column.name for column in self.columns]
        return {
            "title": self.title,
            "rows": [dict(zip(names, (plain(cell) for cell in row), strict=True)) for row in self.rows],
            "what": {column.name: column.what for column in self.columns if column.what},
            "note": self.note,
        }


@dataclass(frozen=True)
class Figure:
    """A picture that was written beside the report: its file name, what it shows, and words for who cannot see it."""

    file: str
    caption: str
    alt: str


@dataclass(frozen=True)
class Exclusion:
    """Something that was left out, and why; `by_rule` where that is no failure, such as a case of unknown status.
    `count`: how many things it stands for.
    """

    what: str
    why: str
    by_rule: bool = False
    count: int = 1

    def record(self) -> dict[str, str | int]:
        """As JSON types; the count where it is not 1."""
        return {"what": self.what, "why": self.why} | ({"count": self.count} if self.count != 1 else {})


@dataclass(frozen=True)
class Score:
    """One number a model, for the figure of score against size.

    Attributes:
        name: what it is, as an axis: "TP53, AUROC".
        values: by model label; models without it are left out.
        chance: what a guess gets, `None` if there is no such thing.
        differences: by model label, the value less the reference's, paired; only of models that are not the reference.
        is_cost: it says what a model costs, not how good it is; `low` and `high` are then the least and the largest
            round of timing, not a confidence interval.
        reference: label that `differences` are from; "" is the report's reference.
    """

    name: str
    values: dict[str, Interval]
    chance: float | None = None
    differences: dict[str, Interval] = field(default_factory=dict)
    is_cost: bool = False
    reference: str = ""


@dataclass(frozen=True)
class Section:
    """One part of a report.

    Attributes:
        key: name in `report.json`.
        title: heading.
        what: what is measured and how, in a few sentences.
        scores: the section's headline numbers.
        basis: how many patches, slides, cases, centres, ... the numbers rest on.
        settings: options that the numbers depend on.
        source: where the data came from, and its hash.
        exclusions: what was left out; listed in full in the JSON.
        notes: what a reader must know beside the numbers.
        data: numbers for the JSON only.
        ms_per_patch: milliseconds a patch by model label, for the figure of score against size only: the tables have
            them too.
    """

    key: str
    title: str
    what: str
    basis: dict[str, int]
    tables: Sequence[Table]
    figures: Sequence[Figure] = ()
    scores: Sequence[Score] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)
    exclusions: Sequence[Exclusion] = ()
    notes: Sequence[str] = ()
    data: dict[str, Any] = field(default_factory=dict)
    ms_per_patch: dict[str, float] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "title": self.title,
            "what": self.what,
            "basis": self.basis,
            "settings": self.settings,
            "source": self.source,
            "tables": [table.record() for table in self.tables],
            "scores": {
                score.name: {label: value.record() for label, value in score.values.items()} for score in self.scores
            },
            "differences": {
                score.name: {label: value.record() for label, value in score.differences.items()}
                for score in self.scores
                if score.differences
            },
            **({"references": references} if (references := self._references()) else {}),
            "figures": [figure.file for figure in self.figures],
            "exclusions": [exclusion.record() for exclusion in self.exclusions],
            "notes": list(self.notes),
            "data": self.data,
        }

    def _references(self) -> dict[str, str]:
        """What the differences of scores are from, where that is not the report's reference, by the score's name."""
        return {score.name: score.reference for score in self.scores if score.differences and score.reference}


@dataclass(frozen=True)
class ReportModel:
    """A model of the report, or a set of features where no model was named.

    Attributes:
        label: its name in every table.
        role: "teacher", "student before distillation", "student after distillation", or "".
        record: what it is: encoder, weights, hashes, or the folder of features; `None` is what is not known.
        num_params: parameters, 0 if not known.
    """

    label: str
    role: str
    record: dict[str, Any]
    num_params: int


@dataclass(frozen=True)
class Report:
    """All of an evaluation.

    Attributes:
        reference: label of the model that the others are compared with.
        settings: the resolved options.
        run: what belongs to this call only and not to the numbers: time, machine, versions.
        of_features: whether no model was named, and `models` are the sets of features.
    """

    title: str
    models: Sequence[ReportModel]
    reference: str
    sections: Sequence[Section]
    settings: dict[str, Any]
    run: dict[str, Any]
    of_features: bool = False

    def __repr__(self) -> str:
        return f"Report({self.title!r}, {len(self.models)} {self.noun}s, {len(self.sections)} sections)"

    @property
    def noun(self) -> str:
        """What `models` are, in words."""
        return "feature set" if self.of_features else "model"

    def record(self) -> dict[str, Any]:
        """All of it as JSON types."""
        return {
            "format": 1,
            "title": self.title,
            "reference": self.reference,
            "models": [{"label": m.label, "role": m.role, "num_params": m.num_params, **m.record} for m in self.models],
            "settings": self.settings,
            "sections": {section.key: section.record() for section in self.sections},
            "run": self.run,
        }


def plain(value: Cell) -> Any:
    """A cell as a JSON type; a float that is not finite becomes null."""
    if isinstance(value, Interval):
        return value.record()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
