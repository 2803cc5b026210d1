"""Lists of cases that come with the project, by name: `g2l plan --exclude-cases NAME`.

A list is a text file in `pipeline/data/case_lists`: a case a line, and above them its source, commit and date.
"""

from importlib import resources

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
