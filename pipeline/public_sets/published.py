"""Published values of public sets, `data_manifests/published.csv`, one row a value; and which models they are of.

A model of ours has a published value if its label is the published name (`--models g2l=run`), or if it is the encoder
of that name with its published weights; random weights have none. Features have that of the name which their label is
(`--features h-optimus-0=DIR`), unless their files name another encoder. Names of encoders are those of `g2l models`, in
any capitals.
"""

import csv
import io
from dataclasses import dataclass
from functools import cache
from importlib import resources

from pipeline.config.model_names import PRETRAINED, SCRATCH
from pipeline.encoders.names import encoders_named
from pipeline.report.content import ReportModel

PUBLISHED_FILE = "published.csv"
PUBLISHED_COLUMNS = ("set", "model", "metric", "value", "low", "high", "protocol", "source", "place")


@dataclass(frozen=True)
class PublishedValue:
    """One value.

    Attributes:
        set: name of a set, of a recipe or of those left out.
        model: name of an encoder of `g2l models` if it is one, else as published.
        metric: one of `measured.MEASURED`.
        value: as published.
        low, high: its interval, if one is published.
        protocol: whose settings it was measured with: `paper` (not stated in full), or a named protocol.
        source: the publication.
        place: table or section of it.
    """

    set: str
    model: str
    metric: str
    value: float
    low: float | None
    high: float | None
    protocol: str
    source: str
    place: str


@cache
def published_values() -> tuple[PublishedValue, ...]:
    """All of them, in the order of the file."""
    text = resources.files("pipeline").joinpath("data", PUBLISHED_FILE).read_text("utf-8")
    return tuple(
        PublishedValue(
            **{name: line[name] for name in ("set", "model", "metric", "protocol", "source", "place")},
            value=float(line["value"]),
            low=float(line["low"]) if line["low"] else None,
            high=float(line["high"]) if line["high"] else None,
        )
        for line in csv.DictReader(io.StringIO(text))
    )


def published_name(label: str, model: ReportModel | None) -> str:
    """The name, in small letters, under which values of a model may be published; "" if there can be none.

    Args:
        label: in the report.
        model: what it is; `None` for features beside models, of which only the label is known.
    """
    if model is not None and names_another(label, model):
        return ""
    weights = "" if model is None else model.record.get("weights")
    if weights == SCRATCH:
        return ""
    if label.lower() in _names() or model is None:
        return label.lower()
    return str(model.record.get("name", "")).lower() if weights == PRETRAINED and not model.role else ""


def names_another(label: str, model: ReportModel) -> bool:
    """Whether a label is the name of one encoder, and the files of features name another that is known."""
    wanted, stated = encoders_named(label), encoders_named(str(model.record.get("encoder") or ""))
    return bool(wanted and stated) and not wanted & stated


def value_of(set_name: str, model: str, metric: str) -> PublishedValue | None:
    """The published value, if there is one; `model` is a name in small letters."""
    wanted = (set_name, model, metric)
    return next((each for each in published_values() if (each.set, each.model.lower(), each.metric) == wanted), None)


@cache
def _names() -> frozenset[str]:
    """Published models, in small letters."""
    return frozenset(each.model.lower() for each in published_values())
