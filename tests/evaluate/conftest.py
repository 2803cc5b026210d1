"""What tests of several benchmarks ask for."""

import pytest

from pipeline.evaluate.cost import measure


@pytest.fixture
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost of a model is measured for a hundredth of a second."""
    monkeypatch.setitem(measure.LEAST_SECONDS, "cpu", 0.01)
