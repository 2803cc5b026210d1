"""Compare measured values with published ones: PASS, FAIL, or why there is no verdict. Pure.

With our value v and its interval [l, h], the published value p with its interval, and the recipe's tolerance t:

- d is the distance from v to the nearest point of the published interval, or to p if it has none;
- u is the distance from v to the end of our interval that faces p (h for a larger p, l for a smaller one), 0 without
  an interval, and never more than t;
- PASS if d <= t + u, else FAIL.

So our interval may at most double the tolerance: a set so small that its interval covers everything proves nothing.
A value that is better than the published one by more than that fails, too: it is not the same measurement.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from pipeline.public_sets.published import PublishedValue
from pipeline.public_sets.recipe import MetricOfSet
from pipeline.report.content import Interval

PASS, FAIL = "PASS", "FAIL"
NO_PUBLISHED = "no published value"
NOT_MEASURED = "not measured"
NOT_COMPARABLE = "not comparable"
VERDICTS = (PASS, FAIL, NO_PUBLISHED, NOT_MEASURED, NOT_COMPARABLE)
"""No published value: of this model. Not measured: `evaluate` has no such metric, or could not give it. Not comparable:
the recipe says that the published value is of another definition of the set, not all of the set was there, or the
published value is of another named protocol.
"""
UNNAMED = "paper"
"""Protocol of published values whose probes are not stated in full: compared with any protocol of ours."""


@dataclass(frozen=True)
class Comparison:
    """One model by one metric.

    Attributes:
        set: name of the set.
        metric: what is compared.
        model: label of our model; "" for a published model that we have not run.
        measured: our value, if there is one.
        published: the published value, if there is one.
        tolerance: of the recipe.
        verdict: one of `VERDICTS`, or "" for a published model that we have not run.
        reason: why our value must not be compared with published ones; "" if it may be.
        protocol: of our probes; "" where no classifier gives the value.
    """

    set: str
    metric: str
    model: str
    measured: Interval | None
    published: PublishedValue | None
    tolerance: float
    verdict: str
    reason: str = ""
    protocol: str = ""

    @property
    def value(self) -> float | None:
        """Our value; `None` if there is none, or it is not defined."""
        return self.measured.value if self.measured is not None and isfinite(self.measured.value) else None


def is_incomparable(rows: Sequence[Comparison]) -> bool:
    """Whether some of ours must not be compared with published values that are among the rows."""
    return any(row.reason for row in rows) and any(row.published is not None for row in rows)


def verdict_of(
    measured: Interval | None, published: PublishedValue | None, metric: MetricOfSet, reason: str = ""
) -> str:
    """The verdict on one model: see the module. `reason` says why the two are not comparable; "" if they are."""
    if published is None:
        return NO_PUBLISHED
    if measured is None or not isfinite(measured.value):
        return NOT_MEASURED
    if metric.differs or reason:
        return NOT_COMPARABLE
    return PASS if distance(measured.value, published) <= allowed(measured, published, metric.tolerance) else FAIL


def distance(value: float, published: PublishedValue) -> float:
    """From a value to the nearest point of the published interval, or to the published value."""
    low = published.value if published.low is None else published.low
    high = published.value if published.high is None else published.high
    return max(low - value, value - high, 0.0)


def allowed(measured: Interval, published: PublishedValue, tolerance: float) -> float:
    """The largest distance that passes."""
    facing = measured.high if published.value > measured.value else measured.low
    widening = abs(facing - measured.value) if isfinite(facing) else 0.0
    return tolerance + min(widening, tolerance)


def compare_with_published(
    set_name: str,
    metric: MetricOfSet,
    measured: Mapping[str, Interval],
    names: Mapping[str, str],
    published: Iterable[PublishedValue],
    not_whole: str = "",
    protocol: str = "",
) -> list[Comparison]:
    """All models by one metric: ours in their order, then the published ones that we have not run.

    Args:
        measured: our values by label.
        names: the published name of each of our models, by label; "" for one that can have none.
        published: values of the set by this metric.
        not_whole: why ours is not of the whole set; "" if it is.
        protocol: of our probes, by its name; "" where no classifier gives the value.
    """
    by_model = {each.model.lower(): each for each in published}
    rows = []
    for label, name in names.items():
        value, theirs = measured.get(label), by_model.get(name)
        reasons = (metric.differs, not_whole, other_protocol(protocol, theirs))
        reason = "; ".join(filter(None, reasons))
        verdict = verdict_of(value, theirs, metric, reason)
        row = Comparison(set_name, metric.name, label, value, theirs, metric.tolerance, verdict, reason, protocol)
        rows.append(row)
    others = [each for name, each in by_model.items() if name not in names.values()]
    return rows + [Comparison(set_name, metric.name, "", None, each, metric.tolerance, "") for each in others]


def other_protocol(ours: str, published: PublishedValue | None) -> str:
    """Why values of probes by these protocols are not compared; "" if they are, or no probe is concerned."""
    if not ours or published is None or published.protocol in (ours, UNNAMED):
        return ""
    return f"the published value is by the protocol {published.protocol}, ours by {ours}"
