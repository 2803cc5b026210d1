"""Options of the fidelity benchmark."""

import pytest

from pipeline.base.errors import ConfigError
from pipeline.evaluate.fidelity.options import FidelityOptions


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match="store_rows: "):
        FidelityOptions.build({"store_rows": 1})


def test_no_store_is_scored_unless_it_is_named() -> None:
    assert FidelityOptions().store is None
    assert FidelityOptions().record() == {"store_rows": 4096, "resamples": 1000, "seed": 0}
