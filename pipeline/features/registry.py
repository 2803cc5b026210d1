"""The tools that `config.feature_tools` lists, loaded."""

import importlib

from pipeline.config import feature_tools
from pipeline.features.layouts import Writer
from pipeline.features.tool import Tool


def all_tools() -> tuple[Tool, ...]:
    """All tools, in the order in which a feature file is offered to them."""
    return tuple(_load(entry) for entry in feature_tools.TOOLS)


def find_writer(layout: str) -> Writer:
    """How the files that `--layout` names are written."""
    writer = next(_load(entry) for entry in feature_tools.TOOLS if entry.layout == layout).writer
    assert writer is not None, f"{layout} has no writer"
    return writer


def feature_suffixes() -> tuple[str, ...]:
    """Endings of the feature files of all tools."""
    return tuple(dict.fromkeys(suffix for tool in all_tools() for suffix in tool.suffixes))


def _load(entry: feature_tools.FeatureTool) -> Tool:
    """The tool of a line of the list."""
    tool = importlib.import_module(entry.module).TOOL
    assert isinstance(tool, Tool), f"{entry.module}.TOOL is no Tool"
    return tool
