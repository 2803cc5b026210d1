"""Lists of cases that come with the project, by name, and the option that takes them: `--exclude-cases NAME`.

A list is a text file in `pipeline/data/case_lists`: a case a line, and above them its source, commit and date.
"""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pipeline.config.base import Decides, option

LISTS_FOLDER = ("data", "case_lists")
LIST_ENDING = ".txt"


def case_list_names() -> tuple[str, ...]:
    """The names of the lists, in order."""
    folder = resources.files("pipeline").joinpath(*LISTS_FOLDER)
    return tuple(
        sorted(file.name.removesuffix(LIST_ENDING) for file in folder.iterdir() if file.name.endswith(LIST_ENDING))
    )


def case_list_text(name: str) -> str:
    """The text of a list."""
    return resources.files("pipeline").joinpath(*LISTS_FOLDER, name + LIST_ENDING).read_text("utf-8")


def exclude_cases_option(*, decides: Decides, in_plan: bool = True) -> Any:
    """Define the option `--exclude-cases`; the arguments are those of `option`."""
    return option(
        None,
        description="File of cases, slides or TCGA barcodes that must not be trained on, since a benchmark asks about "
        f"them, or the name of a list that is here: {', '.join(case_list_names())}; repeat for several [none].",
        decides=decides,
        in_plan=in_plan,
        added=True,
    )


def absolute_lists(lists: Sequence[str] | None) -> list[str] | None:
    """Lists of cases as records keep them: files by their absolute paths, lists that are here by their names."""
    named = case_list_names()
    return [text if text in named else str(Path(text).absolute()) for text in lists or ()] or None


def list_files(lists: Sequence[str] | None) -> list[Path]:
    """The lists that are files."""
    named = case_list_names()
    return [Path(text) for text in lists or () if text not in named]
