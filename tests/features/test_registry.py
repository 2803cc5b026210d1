"""Every line of the list of tools is loaded, in its order."""

import pytest
from support.toy_tool import TOOL

from pipeline.config import feature_tools
from pipeline.config.feature_tools import FeatureTool, layouts
from pipeline.features.registry import all_tools, feature_suffixes, find_writer
from pipeline.features.tool import Tool


def test_a_line_of_the_list_and_its_tool_agree(entry: FeatureTool, tool: Tool) -> None:
    assert tool.name == entry.name
    assert (tool.writer is None) == (entry.layout is None)
    assert all(suffix.startswith(".") for suffix in (*tool.suffixes, *tool.not_features))
    assert set(tool.suffixes) <= set(feature_suffixes())


@pytest.mark.usefixtures("with_toy")
def test_tools_come_in_the_order_of_the_list() -> None:
    assert [tool.name for tool in all_tools()] == [entry.name for entry in feature_tools.TOOLS]
    assert all_tools()[-1] is TOOL
    suffixes = feature_suffixes()
    assert len(set(suffixes)) == len(suffixes)
    assert set(suffixes) == {suffix for tool in all_tools() for suffix in tool.suffixes}


@pytest.mark.usefixtures("with_toy")
def test_every_layout_has_a_writer_of_its_own() -> None:
    writers = [find_writer(layout) for layout in layouts()]
    assert all(writer is tool.writer for writer, tool in zip(writers, all_tools(), strict=True))


def test_a_module_without_a_tool_is_a_mistake_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.toy_tool.TOOL", "toy")
    monkeypatch.setattr(feature_tools, "TOOLS", (FeatureTool("Toy", "support.toy_tool", "toy"),))
    with pytest.raises(AssertionError, match=r"support\.toy_tool\.TOOL is no Tool"):
        all_tools()


def test_a_tool_that_is_only_read_has_no_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_tools, "TOOLS", (FeatureTool("Toy", "support.toy_tool", None),))
    assert (len(all_tools()), layouts()) == (1, {})
