"""Make commands from configurations: each field of a `Config` becomes a typer parameter, so it is defined once.

A value comes from its flag, else from the command's table in the `--config` file, else from the recipe that one of the
two names, else from the default. The headings (`panels`) of a configuration divide a long help.
"""

import inspect
import os
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import typer
from pydantic.fields import FieldInfo
from typer.core import TyperCommand

from pipeline.base.console import say
from pipeline.base.errors import ConfigError
from pipeline.base.processes import launch_number, launched_processes
from pipeline.config.base import Config, choice_words, read_options, read_tables, to_toml, unknown_options
from pipeline.config.model_names import as_on_disk, split_choice
from pipeline.config.recipes import with_recipe
from pipeline.disk.objects.urls import as_url, readable_url, require_local

C = TypeVar("C", bound=Config)
MODELS_AND_FOLDERS = ("teacher", "student", "weights", "models", "features", "beside")
"""Options whose texts may name a file or folder; those of the type `Path` always do."""
NAME_WIDTH = 30
"""Width of the column of flags, as in typer; a longer flag gets its own line."""


class CommandWithPanels(TyperCommand):
    """A command whose help lists options under headings, those without one first, with aligned columns.

    Typer does this only with rich, which is not used here.
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


WRITES_RECORD = (
    "plan",
    "extract-teacher",
    "import-features",
    "train-student",
    "embed",
    "evaluate",
    "reproduce",
    "ablate",
    "curve",
    "demo",
)
"""Commands that write a record of their options and paths, which `--config` can read."""

KNOWN_OPTIONS: dict[str, set[str]] = {}
"""Names of the options and paths of each command, which `know_options` enters: what its table may hold."""


def _list_item(annotation: Any) -> Any:
    """The item type of a list, also of an optional one; `None` if the annotation is no list."""
    lists = [a for a in (annotation, *typing.get_args(annotation)) if typing.get_origin(a) is list]
    return typing.get_args(lists[0])[0] if lists else None


def _optional(info: FieldInfo) -> Any:
    """The field's annotation, made optional: `None` means that the flag is absent.

    For a choice, also in a list, typer gets plain `str`: the configuration checks the words and suggests the right one.
    """
    annotation: Any = info.annotation
    if typing.get_origin(_list_item(annotation)) is Literal:
        return list[str] | None
    if choice_words(info):
        return str | None
    if type(None) in typing.get_args(annotation):
        return annotation
    return annotation | None if not typing.get_origin(annotation) else typing.Optional[annotation]  # noqa: UP045


def _help(info: FieldInfo) -> str:
    """The field's description and, in brackets, its default; `None` is explained by the description itself."""
    text = info.description or ""
    if info.is_required():
        return f"{text} [required]"
    if info.default in (None, "", []):
        return text
    default = info.default
    if isinstance(default, bool):
        default = "on" if default else "off"
    elif isinstance(default, list):
        default = ", ".join(str(value) for value in default)
    return f"{text} [{default}]"


def _panel(name: str, config: type[Config]) -> str | None:
    """The heading above a field: that of the nearest field, itself or before it, that begins one."""
    heading = None
    for field in config.model_fields:
        heading = config.panels.get(field, heading)
        if field == name:
            break
    return heading


def _option(name: str, config: type[Config]) -> inspect.Parameter:
    """Make the typer option of one field."""
    info = config.model_fields[name]
    flag = "--" + name.replace("_", "-")
    flags = [f"{flag}/--no-{flag[2:]}"] if info.annotation is bool else [flag]
    item = _list_item(info.annotation)
    words = typing.get_args(item) or (getattr(item, "__name__", ""),)
    metavar = f"<{'|'.join(words)}>" if item is not None else None
    if choice := choice_words(info):
        metavar = f"[{'|'.join(choice)}]"
    option = typer.Option(
        None, *flags, help=_help(info), show_default=False, metavar=metavar, rich_help_panel=_panel(name, config)
    )
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=_optional(info))


@dataclass(frozen=True)
class Call:
    """One call of a command.

    Attributes:
        command: its name, as in `g2l COMMAND`.
        flags: values of the options on the command line.
        file: the file of `--config`.
        table: the command's table in that file, empty without a file.
    """

    command: str
    flags: dict[str, Any]
    file: Path | None
    table: dict[str, Any]

    @classmethod
    def read(cls, command: str, flags: dict[str, Any], file: Path | None) -> "Call":
        """Make a call, and read the command's table from the file. Warns of options in the tables of other commands
        that these do not have: a project's file is mended before the command comes that refuses it.

        Raises:
            ConfigError: the file cannot be used.
        """
        if not file:
            return cls(command, flags, None, {})
        file = Path(as_on_disk(str(file)))
        tables = read_tables(file, command)
        table = tables.pop(command, {})
        if launched_processes() == 1 or launch_number("RANK", 0) == 0:  # one process of several speaks for all
            for line in unknown_options(tables, KNOWN_OPTIONS):
                say(f"warning: --config {file}: {line}; it will be refused there")
        return cls(command, flags, file, table)

    def resolve(
        self,
        config: type[C],
        *,
        others: Iterable[str] = (),
        recipe_for: str | None = None,
        urls: Iterable[str] = (),
        **arguments: Path | None,
    ) -> tuple[C, dict[str, Path]]:
        """Build the configuration; fill in arguments (input paths and output) from the file. Returns both.

        Args:
            others: names in the command's table that belong to another configuration.
            recipe_for: the command whose values a recipe gives; by default this one.
            urls: arguments that may be addresses of object stores.
            arguments: paths on the command line, `None` where absent.

        Raises:
            ConfigError: an argument is missing, or a value is wrong.
        """
        values = {name: value for name, value in self.table.items() if name not in others}
        texts = {n: value if value is not None else values.get(n) for n, value in arguments.items()}
        paths = self._paths(texts, urls)
        if self.command in WRITES_RECORD:
            require_utf8({name: str(path) for name, path in paths.items()} | self.flags)
        options = {name: value for name, value in values.items() if name not in arguments} | self._flags_of(config)
        return _with_files_on_disk(with_recipe(config, options, recipe_for or self.command)), paths

    def _paths(self, arguments: dict[str, Any], urls: Iterable[str] = ()) -> dict[str, Path]:
        """The arguments as paths; those of `urls` may be addresses.

        Raises:
            ConfigError: one is missing, or cannot be a path.
        """
        if missing := [name for name, value in arguments.items() if value is None]:
            words = ", ".join(("--" if name == "out" else "") + name.replace("_", "-") for name in missing)
            raise ConfigError(f"missing: {words}. See g2l {self.command} --help")
        return {
            name: Path(readable_url(url)) if name in urls and (url := as_url(value)) else usable_path(name, str(value))
            for name, value in arguments.items()
        }

    def names(self) -> set[str]:
        """Names of the options on the command line or in the command's table."""
        return self.table.keys() | self.flags.keys()

    def resolve_another(self, config: type[C], command: str) -> C:
        """Build the configuration of another command whose options this one accepts too; options in neither the call
        nor this command's table come from the other command's table.

        Raises:
            ConfigError: a value is wrong.
        """
        table = read_options(self.file, command) if self.file else {}
        options = {name: value for name, value in table.items() if name not in ("manifest", "out")}
        overrides = {name: value for name, value in self.table.items() if name in config.model_fields}
        return _with_files_on_disk(with_recipe(config, options | overrides | self._flags_of(config), command))

    def resolve_study(
        self,
        config: type[C],
        base: type[Config],
        base_command: str,
        *,
        out: Path | None,
        **arguments: list[Path] | None,
    ) -> tuple[C, dict[str, Any], dict[str, list[Path]], dict[str, Any]]:
        """Build the configuration of a study, whose command takes the options of another one, `base_command`, as the
        base of its runs; a recipe gives the values of that one.

        Returns it; the values of the base that are given, the rest being defaults; all paths, by argument; and the
        record of it all, in which an option of the base whose default depends on the store is left out.

        Raises:
            ConfigError: an argument is missing, or a value is wrong.
        """
        mine, theirs = config.model_fields.keys(), base.model_fields.keys()
        study, paths = self.resolve(config, others=[*theirs, *arguments], out=out)
        resolved, _ = self.resolve(base, others=[*mine, *arguments, "out"], recipe_for=base_command)
        lists = {"out": [paths["out"]]} | {name: self.path_list(name, given) for name, given in arguments.items()}
        values = {name: value for name, value in resolved.absolute() if name in resolved.model_fields_set}
        texts = {name: [str(path.absolute()) for path in lists[name]] for name in arguments}
        record = {**texts, **study.stored(), **resolved.stored()}
        if "augment" not in values:
            record.pop("augment", None)
        return study, values, lists, record

    def path_list(self, name: str, given: list[Path] | None) -> list[Path]:
        """The paths of an argument that takes several, from the command line or else the file.

        Raises:
            ConfigError: there is none, or one cannot be a path.
        """
        values = given or self.table.get(name)
        if not values:
            return list(self._paths({name: None}).values())
        return [usable_path(name, str(value)) for value in values]

    def _flags_of(self, config: type[Config]) -> dict[str, Any]:
        return {name: value for name, value in self.flags.items() if name in config.model_fields}


def _with_files_on_disk(config: C) -> C:
    """The configuration with the paths of existing files and folders as the disk spells them: a keyboard composes
    accents, the disk may hold them decomposed, or the other way round.
    """
    changed: dict[str, Any] = {}
    for name, value in config:
        if isinstance(value, Path) and name in config.in_buckets and (url := as_url(value)):
            readable_url(url)
        elif isinstance(value, Path):
            require_local(f"--{name}", value)
            changed[name] = _path_on_disk(value)
        elif name in MODELS_AND_FOLDERS and isinstance(value, str):
            changed[name] = as_on_disk(value)
        elif name in MODELS_AND_FOLDERS and isinstance(value, list):
            changed[name] = [as_on_disk(item) for item in value]
    return config.model_copy(update={name: value for name, value in changed.items() if value != getattr(config, name)})


def with_options(command: str, *configs: type[Config]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of these configurations and `--config`; its first argument receives them as a `Call`.

    A field that two configurations share becomes one option.
    """

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        arguments = list(inspect.signature(verb).parameters.values())[1:]
        names = dict.fromkeys(name for config in configs for name in config.model_fields)
        options = [_option(name, next(c for c in configs if name in c.model_fields)) for name in names]
        file_option = inspect.Parameter(
            "config_file",
            inspect.Parameter.KEYWORD_ONLY,
            default=typer.Option(None, "--config", help="TOML file with a table for this command; flags override it."),
            annotation=Path | None,
        )

        def wrapped(*, config_file: Path | None = None, **values: Any) -> None:
            flags = {name: value for name in names if (value := values.pop(name)) is not None}
            verb(Call.read(command, flags, config_file), **values)

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in arguments] + options + [file_option]
        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
        wrapped.__doc__ = verb.__doc__
        wrapped.__name__ = verb.__name__
        return wrapped

    return decorate


def know_options(command: str, verb: Callable[..., None], configs: Iterable[type[Config]]) -> None:
    """Enter a command with its paths, the verb's arguments but the first, and the options of its configurations."""
    options = {name for config in configs for name in config.model_fields}
    KNOWN_OPTIONS[command] = options | {*list(inspect.signature(verb).parameters)[1:]}


def nonempty_path(text: str) -> Path:
    """Parse a path from the command line. An empty one, as from an unset shell variable, must not mean the working
    folder.

    Raises:
        typer.BadParameter: it is empty.
    """
    if not str(text):
        raise typer.BadParameter("an empty path")
    return Path(text)


def usable_path(name: str, text: str) -> Path:
    """Expand `~` in a path, and spell what exists of it as the disk does. Resolve an output such as `.` or `..` to its
    real name, as files are made beside it.

    Raises:
        ConfigError: it is empty, names a home that does not exist, or is an address of an object store.
    """
    require_local(name, text)
    if not text:
        raise ConfigError(f"{'--' if name == 'out' else ''}{name} is empty. Give a path")
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise ConfigError(f"{text}: no such home folder. For a folder of that name, write ./{text}") from None
    if name == "out" and path.name in ("", ".."):
        return Path(os.path.realpath(path))
    return _path_on_disk(path)


def _path_on_disk(path: Path) -> Path:
    """A path whose longest part that exists is spelled as on the disk: what is made at its end lies in the folder that
    is there, not in a second one that looks the same.
    """
    for part in () if str(path).isascii() else (path, *path.parents):
        spelled = Path(as_on_disk(str(part)))
        if os.path.lexists(split_choice(spelled)[0]):
            return spelled / path.relative_to(part)
    return path


def require_utf8(values: dict[str, Any]) -> None:
    """Refuse paths that the record of the options cannot hold, before anything is done.

    Raises:
        ConfigError: a path is not UTF-8.
    """
    to_toml(
        {
            "": {
                name: [str(item) for item in value] if isinstance(value, list) else str(value)
                for name, value in values.items()
            }
        }
    )
