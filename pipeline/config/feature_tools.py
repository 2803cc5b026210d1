"""The tools whose feature files are read and written: one line a tool.

All that is particular to a tool is in its module (docs/architecture.md, "A new tool's file layout"). A module is named
here, not imported: the command line needs the names only, and the modules load torch and h5py.
"""

from typing import NamedTuple


class FeatureTool(NamedTuple):
    """A tool.

    Attributes:
        name: as its makers spell it.
        module: the module whose `TOOL` describes its files.
        layout: what `g2l embed --layout` calls its files; `None` for files that are only read.
    """

    name: str
    module: str
    layout: str | None


TOOLS: tuple[FeatureTool, ...] = (
    FeatureTool("TRIDENT", "pipeline.features.tools.trident", "trident"),
    FeatureTool("STAMP", "pipeline.features.tools.stamp", "stamp"),
    FeatureTool("slide2vec", "pipeline.features.tools.slide2vec", "pt"),
    FeatureTool("CLAM", "pipeline.features.tools.clam", "clam"),
)
"""A feature file is offered to them in this order, and the first one that takes it reads it. CLAM's say least of
themselves: it takes what nobody before it does.
"""


def tool_names() -> str:
    """The names of all tools, as a list in a sentence: `A, B or C`."""
    *names, last = (tool.name for tool in TOOLS)
    return f"{', '.join(names)} or {last}" if names else last


def layouts() -> dict[str, str]:
    """The tools whose files `g2l embed` writes: names by `--layout`."""
    return {tool.layout: tool.name for tool in TOOLS if tool.layout is not None}
