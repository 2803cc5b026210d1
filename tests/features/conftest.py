"""The list of tools, and a toy in it (support/toy_tool.py)."""

import pytest
from support.toy_tool import TOY

from pipeline.config import feature_tools
from pipeline.config.feature_tools import FeatureTool
from pipeline.features.registry import all_tools
from pipeline.features.tool import Tool

ENTRIES = {entry.name: entry for entry in (*feature_tools.TOOLS, TOY)}


@pytest.fixture
def with_toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of tools has one line more: that of a toy."""
    monkeypatch.setattr(feature_tools, "TOOLS", (*feature_tools.TOOLS, TOY))


@pytest.fixture(params=ENTRIES)
def entry(request: pytest.FixtureRequest, with_toy: None) -> FeatureTool:
    """A line of the list."""
    return ENTRIES[request.param]


@pytest.fixture
def tool(entry: FeatureTool) -> Tool:
    """Its tool."""
    return next(tool for tool in all_tools() if tool.name == entry.name)
