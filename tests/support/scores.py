"""Models and scores for the tests of the report's figures."""

from pipeline.report.content import Interval, ReportModel, Score


def models(*labels: str, params: int = 300_000_000) -> list[ReportModel]:
    return [ReportModel(label, "", {}, params + i) for i, label in enumerate(labels)]


def score(values: dict[str, float], name: str = "AUROC", chance: float | None = 0.5) -> Score:
    return Score(name, {label: Interval(value, value - 0.03, value + 0.02) for label, value in values.items()}, chance)
