"""Where the project lies, and what its files import."""

import ast
from functools import cache
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent


@cache
def parsed(path: Path) -> ast.Module:
    """A file's source, parsed once."""
    return ast.parse(path.read_text())


@cache
def imports_of(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Modules that a file imports, by full name; with `top_level_only`, those that importing it imports."""
    tree = parsed(path)
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or "."
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found
