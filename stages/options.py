"""Commands from configurations: typer parameters are made from the fields of a `Config`, so each is defined once.

A value comes from its flag, else from the command's table in the `--config` file, else from the default. A long help
is divided by the headings (`panels`) of the configuration.
"""

import inspect
import os
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import typer
from pydantic.fields import FieldInfo
from typer.core import TyperCommand

from pipeline.base.errors import ConfigError
from pipeline.config.base import Config, OneOf, read_toml, to_toml

C = TypeVar("C", bound=Config)
NAME_WIDTH = 30
"""Of the column of flags; a longer one has a line of its own. As typer has it."""


class CommandWithPanels(TyperCommand):
    """A command whose help lists its options under headings; what has none comes first. The columns of all agree.

    Typer does so only with rich, which is not used here.
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options."""
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is not None:
                default = "Arguments" if param.param_type_name == "argument" else "Options"
                panels.setdefault(getattr(param, "rich_help_panel", None) or default, []).append(record)
        width = min(NAME_WIDTH, max(len(name) for records in panels.values() for name, _ in records))
        for heading, records in panels.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl([(name.ljust(width), words) for name, words in records])


WRITES_RECORD = ("plan", "extract-teacher", "import-features", "train-student", "embed", "evaluate", "demo")
"""Commands that write a record of their options and paths, fit for `--config`."""


def _list_item(annotation: Any) -> Any:
    """What a list holds, also of a list that may be `None`; `None` for what is no list."""
    lists = [a for a in (annotation, *typing.get_args(annotation)) if typing.get_origin(a) is list]
    return typing.get_args(lists[0])[0] if lists else None


def _choice(info: FieldInfo) -> tuple[str, ...]:
    """The words of a choice, also of one that may be `None`; empty for what is no choice."""
    if registries := [mark for mark in info.metadata if isinstance(mark, OneOf)]:
        return tuple(registries[0].words)
    annotations = (info.annotation, *typing.get_args(info.annotation))
    choices = [annotation for annotation in annotations if typing.get_origin(annotation) is Literal]
    return typing.get_args(choices[0]) if choices else ()


def _optional(info: FieldInfo) -> Any:
    """The annotation with `None` allowed: absent means "not given here".

    Of a choice of words, also in a list, typer knows only that they are words; the configuration checks them, and says
    which one was meant.
    """
    annotation: Any = info.annotation
    if typing.get_origin(_list_item(annotation)) is Literal:
        return list[str] | None
    if _choice(info):
        return str | None
    if type(None) in typing.get_args(annotation):
        return annotation
    return annotation | None if not typing.get_origin(annotation) else typing.Optional[annotation]  # noqa: UP045


def _help(info: FieldInfo) -> str:
    """The field's description, and its default in brackets unless the description says what happens without it."""
    text = info.description or ""
    if info.is_required():
        return f"{text} [required]"
    if info.default is None:
        return text
    default = info.default
    if isinstance(default, bool):
        default = "on" if default else "off"
    elif isinstance(default, list):
        default = ", ".join(str(value) for value in default)
    return f"{text} [{default}]"


def _panel(name: str, config: type[Config]) -> str | None:
    """The heading that a field stands under: that of the last field with one, up to itself."""
    heading = None
    for field in config.model_fields:
        heading = config.panels.get(field, heading)
        if field == name:
            break
    return heading


def _option(name: str, config: type[Config]) -> inspect.Parameter:
    """The typer option of one field."""
    info = config.model_fields[name]
    flag = "--" + name.replace("_", "-")
    flags = [f"{flag}/--no-{flag[2:]}"] if info.annotation is bool else [flag]
    item = _list_item(info.annotation)
    words = typing.get_args(item) or (getattr(item, "__name__", ""),)
    metavar = f"<{'|'.join(words)}>" if item is not None else None
    if choice := _choice(info):
        metavar = f"[{'|'.join(choice)}]"
    option = typer.Option(
        None, *flags, help=_help(info), show_default=False, metavar=metavar, rich_help_panel=_panel(name, config)
    )
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=_optional(info))


def with_options(*configs: type[Config]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of these configurations and `--config`; it receives the given ones as `given`.

    A field that two configurations share is one option.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command).parameters.values() if p.name not in ("given", "config_file")]
        names = dict.fromkeys(name for config in configs for name in config.model_fields)
        options = [_option(name, next(c for c in configs if name in c.model_fields)) for name in names]
        file_option = inspect.Parameter(
            "config_file",
            inspect.Parameter.KEYWORD_ONLY,
            default=typer.Option(None, "--config", help="TOML file with a table for this command; flags win."),
            annotation=Path | None,
        )

        def wrapped(**values: Any) -> None:
            given = {name: values.pop(name) for name in names}
            command(**values, given={name: value for name, value in given.items() if value is not None})

        keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        wrapped.__signature__ = inspect.Signature([*keyword_only, *options, file_option])  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in [*keyword_only, *options, file_option]}
        wrapped.__doc__ = command.__doc__
        wrapped.__name__ = command.__name__
        return wrapped

    return decorate


def given_path(text: str) -> Path:
    """A path of the command line; an empty one, as from a shell's variable that is not set, is not the folder here.

    Raises:
        typer.BadParameter: it is empty.
    """
    if not str(text):
        raise typer.BadParameter("an empty path")
    return Path(text)


def usable_path(name: str, text: str) -> Path:
    """A path with `~` replaced by the home; an output such as `.` or `..` by its real name, to make files beside it.

    Raises:
        ConfigError: it is empty, or there is no such home.
    """
    if not text:
        raise ConfigError(f"{'--' if name == 'out' else ''}{name} is empty. Give a path")
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise ConfigError(f"{text}: there is no such home. For a folder of that name write ./{text}") from None
    return Path(os.path.realpath(path)) if name == "out" and path.name in ("", "..") else path


def require_utf8(values: dict[str, Any]) -> None:
    """Refuse paths that cannot stand in the record of the options, before anything is done.

    Raises:
        ConfigError: a path is not UTF-8.
    """
    to_toml({"": {name: [str(item) for item in value] if isinstance(value, list) else str(value)
                  for name, value in values.items()}})  # fmt: skip


def resolve(
    config: type[C],
    command: str,
    given: dict[str, Any],
    file: Path | None,
    arguments: dict[str, Any],
    *,
    ignored: frozenset[str] = frozenset(),
) -> tuple[C, dict[str, Path]]:
    """The configuration of a command, and its arguments (paths) filled up from the file.

    Args:
        given: values of flags that were given; other configurations' are ignored.
        arguments: positional arguments and outputs by name, `None` where not given.
        ignored: names in the command's table that are for others.

    Raises:
        ConfigError: an argument is missing, or a value is wrong.
    """
    values = {name: value for name, value in (read_toml(file, command) if file else {}).items() if name not in ignored}
    filled = {name: value if value is not None else values.get(name) for name, value in arguments.items()}
    missing = [name for name, value in filled.items() if value is None]
    if missing:
        words = ", ".join(("--" if name == "out" else "") + name.replace("_", "-") for name in missing)
        raise ConfigError(f"missing: {words}. See g2l {command} --help")
    options = {name: value for name, value in values.items() if name not in arguments}
    paths = {name: usable_path(name, str(value)) for name, value in filled.items()}
    if command in WRITES_RECORD:
        require_utf8({name: str(path) for name, path in paths.items()} | given)
    return config.build(options | {k: v for k, v in given.items() if k in config.model_fields}), paths
