"""Pages of the site that are made when it is built: the start page, a page a command, the Python reference, a gallery.
To the search's index it adds the options that pages name, by which docs/site/worker-shim.js looks for them.

Links from a page to a file of the code lead to the repository if mkdocs.yml names it (`repo_url`); without one they are
the file's name.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
FROM_ROOT = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "manifests.md": "data_manifests/README.md",
    "results.md": "benchmarks/RESULTS.md",
}
"""Pages by the files that they are, outside docs/."""
API = {
    "The commands as functions": "g2l.commands",
    "A store as a dataset": "g2l.dataset",
    "A student as a module": "g2l.students",
    "The projector": "pipeline.projector.Projector",
    "The loss": "pipeline.loss.log_sum_loss",
    "Errors": "pipeline.base.errors",
}
NAV: dict[str, list[str]] = {
    "Use": [
        "guide.md",
        "commands/",
        "python.md",
        "notebook.md",
        "manifests.md",
        "annotations.md",
        "tissue.md",
        "encoders.md",
        "tools.md",
    ],
    "Understand": ["paper.md", "sampling.md", "cluster-sampling.md", "cohort.md", "caching.md", "ablation.md"],
    "Scale": ["scale.md", "results.md"],
    "Look up": ["api.md", "formats.md", "architecture.md", "gallery.md", "changelog.md"],
    "Take part": ["contributing.md", "security.md", "shown.md", "decisions/"],
}
"""Pages in their order; a folder stands for all of its pages. Those that are named nowhere come last."""
WIDE = ".md-grid { max-width: 78rem; }\n"
"""Style: room for tables and the commands' help."""
OPTION = re.compile(r"(?<![\w-])--([a-z][a-z0-9-]*)")
HELP_ENTRY = re.compile(r"^  (--.*?)(?:  |$)", re.MULTILINE)
"""The names of an option, and their type, before its help."""
SEARCHED = {"options": 1000, "mentions": 10}
"""Weights in the search of options that a command has, and of those that a page only names."""
LINK = re.compile(r"\]\((?!https?:|mailto:|#)(?P<path>[^)\s#]*)(?P<anchor>#[^)\s]*)?\)")
PICTURE = re.compile(r"!\[(?P<words>[^]]+)\]\((?:\.\./|docs/)*images/(?P<name>[^)]+)\)")

HELPS = """
import contextlib, io, json, sys
from g2l.__main__ import main

said = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["g2l", *words, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise
    said.append(shown.getvalue())
print(json.dumps(said))
"""
"""Prints the help of commands, which are lists of words, as a list in JSON."""

OF_OPTIONS = """
`**options` are those of the command, with underscores: `patches_per_slide=500` is `--patches-per-slide 500`. The pages
of the commands, such as [plan](commands/plan.md) and [train-student](commands/train-student.md), list them with their
meaning, as `help(g2l.plan)` does.
"""
"""Above the Python reference, whose signatures do not name them."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, and the navigation over all."""
    made = {page: (ROOT / source).read_text() for page, source in FROM_ROOT.items()}
    made |= {f"commands/{name}.md": words for name, words in command_pages().items()}
    modules = "".join(f"## {title}\n\n::: {name}\n\n" for title, name in API.items())
    made["api.md"] = f"# Python reference\n{OF_OPTIONS}\n{modules}"
    made["gallery.md"] = gallery()
    made["wide.css"] = WIDE
    made["javascripts/iframe-worker.js"] = (ROOT / "docs" / "site" / "worker-shim.js").read_text()
    for page, words in made.items():
        files.append(File.generated(config, page, content=words))
    config.nav = navigation(sorted(file.src_uri for file in files.documentation_pages()))
    return files


def command_pages() -> dict[str, str]:
    """A page a command, from its own help."""
    (overview,) = helps_of([[]])
    names = re.findall(r"^  ([a-z][a-z-]+) {2,}\S", overview[overview.index("Commands:") :], re.MULTILINE)
    helps = helps_of([[name] for name in names])
    pages = {name: f"# g2l {name}\n\n```text\n{words.strip()}\n```\n" for name, words in zip(names, helps, strict=True)}
    return {"_all": f"# All commands\n\n```text\n{overview.strip()}\n```\n"} | pages


def helps_of(commands: list[list[str]]) -> list[str]:
    """What `g2l COMMAND --help` prints of each command, 88 columns wide; of them all in one process."""
    environment = os.environ | {"COLUMNS": "88", "PYTHONPATH": str(ROOT)}
    call = [sys.executable, "-c", HELPS, json.dumps(commands)]
    done = subprocess.run(call, capture_output=True, text=True, check=True, env=environment, cwd=ROOT)
    said: list[str] = json.loads(done.stdout)
    return said


def gallery() -> str:
    """Every picture of the documents with the words that stand at it, and where it is from."""
    parts, seen = ["# Gallery\n\nThe pictures of these pages, with where each is explained.\n"], set()
    for source in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        page = "index.md" if source.name == "README.md" else source.name
        for found in PICTURE.finditer(source.read_text()):
            if found["name"] not in seen:
                seen.add(found["name"])
                title = page.removesuffix(".md").replace("index", "start page")
                parts.append(
                    f"## {found['words']}\n\n![{found['words']}](images/{found['name']})\n\nFrom [{title}]({page}).\n"
                )
    return "\n".join(parts)


def navigation(pages: list[str]) -> list[Any]:
    """The pages under the headings of `NAV`."""
    left = [page for page in pages if page != "index.md"]
    nav: list[Any] = [{"Start": "index.md"}]
    for heading, names in NAV.items():
        found = [
            page for name in names for page in pages if page == name or (name.endswith("/") and page.startswith(name))
        ]
        left = [page for page in left if page not in found]
        inner: list[Any] = []
        for name in names:
            below = [page for page in found if name.endswith("/") and page.startswith(name)]
            inner += [{name.rstrip("/").capitalize(): below}] if below else [page for page in found if page == name]
        nav.append({heading: inner})
    return [*nav, {"More": left}] if left else nav


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files into links to pages, or to the repository."""
    uri = page.file.src_uri
    source = ROOT / FROM_ROOT.get(uri, f"docs/{uri}")
    pages = {source_name: page_name for page_name, source_name in FROM_ROOT.items()}

    def mended(found: re.Match[str]) -> str:
        path, anchor = found["path"], found["anchor"] or ""
        target = Path(os.path.normpath(source.parent / path))
        if not target.is_relative_to(ROOT):
            return found[0]
        name = target.relative_to(ROOT).as_posix()
        inside = pages.get(name) or (name.removeprefix("docs/") if name.startswith("docs/") else None)
        if inside is not None and files.get_file_from_path(inside) is not None:
            return f"]({os.path.relpath(inside, Path(uri).parent)}{anchor})"
        if name == "docs/decisions":
            return f"]({os.path.relpath('decisions/0001-rows-in-slide-order.md', Path(uri).parent)})"
        if not target.exists():
            return found[0]  # the strict build says so, and fails
        return f"]({config.repo_url.rstrip('/')}/blob/main/{name})" if config.repo_url else "](#)"

    markdown = LINK.sub(mended, markdown)
    return re.sub(r"(?<!!)\[([^]]*)\]\(#\)", r"\1", markdown)  # no repository: the name without a link


@event_priority(-50)  # after the search has written its index, before the plugin `offline` copies it
def on_post_build(config: MkDocsConfig) -> None:
    """Add to each entry of the search's index the options it names, as words that are not parted at their dashes."""
    path = Path(config.site_dir) / "search" / "search_index.json"
    index = json.loads(path.read_text())
    index["config"]["fields"] |= {field: {"boost": weight} for field, weight in SEARCHED.items()}
    for entry in index["docs"]:
        of_command = entry["location"].startswith("commands/")
        has = option_words(" ".join(HELP_ENTRY.findall(entry["text"]))) if of_command else set()
        entry |= {"options": sorted(has), "mentions": sorted(option_words(f"{entry['title']} {entry['text']}") - has)}
    path.write_text(json.dumps(index, separators=(",", ":")))


def option_words(text: str) -> set[str]:
    """`option_stage_dir` for `--stage-dir`, of every option in a text."""
    return {"option_" + "_".join(filter(None, name.split("-"))) for name in OPTION.findall(text)}
