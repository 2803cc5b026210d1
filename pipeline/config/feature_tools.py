"""The tools whose feature files G2L reads and writes, one line per tool.

Each tool's specifics are in its module (docs/architecture.md, "A new tool's file layout"). Modules are named here, not
imported: the command line needs only the names, and the modules load torch and h5py.
"""

from typing import NamedTuple


class FeatureTool(NamedTuple):
    """A tool.

    Attributes:
        name: the tool's name, as its makers spell it.
        module: module whose `TOOL` describes its files.
        layout: name of its files for `g2l embed --layout`; `None` if G2L only reads them.
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
"""Tools in the order in which they are asked to read a feature file; the first that recognises it reads it. CLAM comes
last because its files say least about themselves.
"""


def tool_names() -> str:
    """The names of all tools, as a list in a sentence: `A, B or C`."""
    *names, last = (tool.name for tool in TOOLS)
    return f"{', '.join(names)} or {last}" if names else last


def layouts() -> dict[str, str]:
    """Names of the tools whose files `g2l embed` writes, by `--layout`."""
    return {tool.layout: tool.name for tool in TOOLS if tool.layout is not None}
