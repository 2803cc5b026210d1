"""Options that are wrong."""

from typing import Any

import pytest

from pipeline.base.errors import ConfigError
from pipeline.config.base import Config


def assert_refused(config: type[Config], values: dict[str, Any], words: str) -> None:
    """See that the options are refused, and that a line of the message begins with `words`, a pattern."""
    with pytest.raises(ConfigError, match=f"these options are wrong:\n  (.|\n)*{words}"):
        config.build(values)
