"""The list of tools: names and layouts of their own, and modules that exist."""

import sys
from importlib.util import find_spec

import pytest

from pipeline.config import feature_tools
from pipeline.config.feature_tools import TOOLS, FeatureTool, layouts, tool_names


def test_no_two_tools_share_a_name_a_module_or_a_layout() -> None:
    written = [tool.layout for tool in TOOLS if tool.layout is not None]
    for values in ([tool.name.lower() for tool in TOOLS], [tool.module for tool in TOOLS], written):
        assert len(set(values)) == len(values)


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_a_tool_s_module_is_there(tool: FeatureTool) -> None:
    assert find_spec(tool.module) is not None


def test_the_tool_that_takes_what_nobody_else_does_comes_last() -> None:
    assert TOOLS[-1].name == "CLAM"


def test_names_make_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tool_names() == "TRIDENT, STAMP, slide2vec or CLAM"
    for count, words in ((1, "TRIDENT"), (2, "TRIDENT or STAMP")):
        monkeypatch.setattr(feature_tools, "TOOLS", TOOLS[:count])
        assert tool_names() == words


def test_a_tool_whose_files_are_only_read_is_no_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    assert layouts() == {"trident": "TRIDENT", "stamp": "STAMP", "pt": "slide2vec", "clam": "CLAM"}
    monkeypatch.setattr(feature_tools, "TOOLS", (FeatureTool("Reader", "none", None), *TOOLS[1:2]))
    assert layouts() == {"stamp": "STAMP"}
    assert "none" not in sys.modules  # named, not imported
