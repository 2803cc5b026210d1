"""Base of all configurations: define options, check them, write and read them as TOML.

A configuration is frozen and dumped with every output; the record can be passed back with `--config`. In a TOML file
each command has its own table, so that one file can hold a whole project:

    [plan]
    patches_per_slide = 500
    [train-student]
    epochs = 20
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self, get_args, get_origin

import tomli_w
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from pipeline.base import outside
from pipeline.base.errors import ConfigError, did_you_mean
from pipeline.base.outside import reading
from pipeline.disk.files import sha256_json
from pipeline.disk.objects.places import as_place

COMMANDS = (
    "make-manifest",
    "plan",
    "extract-teacher",
    "merge",
    "import-features",
    "train-student",
    "export",
    "publish",
    "embed",
    "inspect",
    "doctor",
    "verify",
    "evaluate",
    "reproduce",
    "ablate",
    "curve",
    "models",
    "recipes",
    "demo",
)
"""Names of tables in a TOML file."""


IS_RECORD = "is_record"
"""In the context of validators: whether values are those of a record, perhaps of an earlier version."""
RECIPE = "recipe"
"""Name of the option that takes a recipe (`config.recipes`)."""

Decides = Literal["value", "effect", "nothing"]
"""What must stay the same to continue an output: "value", the option's value; "effect", what it leads to, such as the
hash of a file of weights; "nothing", since the option changes no byte, or only rounding and masks (`--micro-batch`).
"""


def option(
    default: Any = ...,
    *,
    description: str,
    decides: Decides = "value",
    stored: bool = True,
    in_card: bool = True,
    in_plan: bool = True,
    added: bool = False,
    earlier: Any = ...,
    **bounds: Any,
) -> Any:
    """Define an option of a command.

    Args:
        default: value if the option is not given; without a default the option is required.
        description: help text; if the default is `None`, says in brackets what then happens.
        decides: what must stay the same to continue an output.
        stored: whether the output's record keeps it; false for options that apply to this call only.
        in_card: whether the student's card shows it; false for paths, and for what the card says elsewhere.
        in_plan: whether a plan keeps it; false for what changes no plan.
        added: whether records of earlier versions lack it. What these versions did is left out of records, so that
            theirs and ours are alike.
        earlier: what these versions did, where that is no longer the default.
        bounds: bounds for pydantic's `Field`: `ge`, `gt`, `le`, `lt`, `min_length`.
    """
    return Field(
        default,
        description=description,
        json_schema_extra={
            "decides": decides,
            "stored": stored,
            "in_card": in_card,
            "in_plan": in_plan,
            "added": added,
            "earlier": default if earlier is ... else earlier,
        },
        **bounds,
    )


@dataclass(frozen=True)
class OneOf:
    """Annotates the type of an option that must be one of the names in a registry, which `words` gives."""

    words: Callable[[], Collection[str]]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def check(self, value: str | None) -> str | None:
        """Return the value if it is one of the words, or `None` where the option may be off.

        Raises:
            PydanticCustomError: it is not; the error has the type and message of a `Literal`'s.
        """
        if value is not None and value not in self.words():
            *others, last = [repr(word) for word in self.words()]
            expected = f"{', '.join(others)} or {last}" if others else last
            raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected})
        return value


def choice_words(info: FieldInfo) -> tuple[str, ...]:
    """The words of a choice, also of an optional one; empty if the field is no choice."""
    if registries := [mark for mark in info.metadata if isinstance(mark, OneOf)]:
        return tuple(registries[0].words())
    annotations = (info.annotation, *get_args(info.annotation))
    choices = [annotation for annotation in annotations if get_origin(annotation) is Literal]
    return get_args(choices[0]) if choices else ()


class Config(BaseModel):
    """Base of all configurations: frozen, checked, no unknown keys, numbers finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)
    panels: ClassVar[dict[str, str]] = {}
    """Headings of the help by their first field, in the order of the fields; empty for a short list."""
    in_buckets: ClassVar[frozenset[str]] = frozenset()
    """Options that name a folder, which may be in a bucket (`disk.objects.places`)."""

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Python takes `true` for 1 and `false` for 0, so `early_stop_window = false` in a file would not mean off."""
        if isinstance(value, bool) and not of_record(info):
            kinds = _kinds(cls.model_fields[str(info.field_name)].annotation)
            if bool not in kinds and not kinds.isdisjoint((int, float)):
                raise PydanticCustomError("truth_for_number", "Input should be a number, not true or false")
        return value

    @classmethod
    def build(cls, values: dict[str, Any], *, is_record: bool = False) -> Self:
        """Build a configuration from plain values. Those of a record, which `is_record` says, stay as they are where
        validators would now write the same in another way.

        Raises:
            ConfigError: values are missing, unknown, of the wrong type or out of bounds; lists all of them.
        """
        try:
            return cls.model_validate(values, context={IS_RECORD: is_record})
        except ValidationError as error:
            lines = []
            for problem in error.errors():
                # Of a list's member the value says which one it is, and its number is none that a user typed.
                name = ".".join(part for part in problem["loc"] if isinstance(part, str))
                has_none = problem["type"] == "missing" or problem["input"] is None
                value = "" if has_none else f" (got {repr(problem['input']).splitlines()[0]:.300})"  # a module has many
                hint = ""
                if problem["type"] == "extra_forbidden":
                    hint = did_you_mean(name, cls.model_fields)
                elif problem["type"] == "literal_error":
                    hint = did_you_mean(str(problem["input"]), re.findall(r"'([^']*)'", problem["ctx"]["expected"]))
                said = cls._said_of_missing(name) if problem["type"] == "missing" else problem["msg"]
                lines.append(f"  {name}: {said}{value}{hint}")
            raise ConfigError("these options are wrong:\n" + "\n".join(lines)) from None

    @classmethod
    def _said_of_missing(cls, name: str) -> str:
        """What to say of an option that must be given: that it must, and its choices if it has some."""
        words = ", ".join(choice_words(cls.model_fields[name]))
        return f"missing; it must be given{f' (one of {words})' if words else ''}"

    def record(self) -> dict[str, Any]:
        """All values as plain JSON or TOML types, without options that are off (`None`).

        Left out as well is what earlier versions did that lacked an option (`added` of `option`), unless there is a
        recipe: read again, such a record must not take a value of the recipe in its place.
        """
        values = self.model_dump(mode="json", exclude_none=True)
        return values if RECIPE in values else self._as_earlier(values)

    def _as_earlier(self, values: dict[str, Any]) -> dict[str, Any]:
        """These values without what versions did that lacked an option."""
        return {
            name: value
            for name, value in values.items()
            if not self.says(name, "added") or getattr(self, name) != self.says(name, "earlier")
        }

    @classmethod
    def _changed_defaults(cls) -> dict[str, Any]:
        """What earlier versions did that lacked an option, where its default is another: by the option's name."""
        return {
            name: cls.says(name, "earlier")
            for name, field in cls.model_fields.items()
            if cls.says(name, "added") and cls.says(name, "earlier") != field.default
        }

    @classmethod
    def unsaid(cls) -> dict[str, Any]:
        """What a record means that lacks an option, by its name: what earlier versions did, if these lacked it."""
        return {name: cls.says(name, "earlier") for name in cls.model_fields if cls.says(name, "added")}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Self:
        """Build a configuration from a `record`, perhaps of an earlier version.

        Raises:
            ConfigError: as `build`.
        """
        return cls.build(cls._changed_defaults() | record, is_record=True)

    @classmethod
    def says(cls, name: str, of: str) -> Any:
        """The property `of` ("decides", "stored", "in_card", "in_plan", "added" or "earlier") that `option` set for a
        field.
        """
        extra = cls.model_fields[name].json_schema_extra
        assert isinstance(extra, dict), f"{cls.__name__}.{name} is not made by `option`"
        return extra[of]

    def deciding(self) -> dict[str, Any]:
        """The record of the options whose values decide the output."""
        values = self._as_earlier(self.record())
        return {name: value for name, value in values.items() if self.says(name, "decides") == "value"}

    def stored(self) -> dict[str, Any]:
        """The record that an output keeps, for `--config` to read in any folder: paths are absolute, and options whose
        defaults have changed are named.
        """
        named = {name: getattr(self, name) for name in self._changed_defaults()}
        return {name: value for name, value in (self.absolute().record() | named).items() if self.says(name, "stored")}

    def for_card(self) -> dict[str, Any]:
        """The record that a student's card shows."""
        return {name: value for name, value in self.record().items() if self.says(name, "in_card")}

    def absolute(self) -> Self:
        """This configuration with paths made absolute from the working folder, for records that are read elsewhere."""
        paths = {name: as_place(value).absolute() for name, value in self if isinstance(value, Path)}
        return self.model_copy(update=paths)

    def hash(self) -> str:
        """Hex SHA-256 of the whole configuration."""
        return sha256_json(self.record())


def _kinds(annotation: Any) -> set[Any]:
    """The types that an annotation is made of: of `int | None`, both."""
    inner = [kind for argument in get_args(annotation) for kind in _kinds(argument)]
    return {*inner} or {annotation}


def of_record(info: ValidationInfo) -> bool:
    """Whether a validator is given the value of a record (`Config.build`)."""
    return bool(info.context and info.context.get(IS_RECORD))


def to_toml(tables: dict[str, dict[str, Any]]) -> str:
    """Format records as TOML for `--config`, one table per command.

    Raises:
        ConfigError: a path is not UTF-8, which TOML cannot hold.
    """
    for table in tables.values():
        for name, value in table.items():
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, str) and not is_utf8(item):
                    raise ConfigError(
                        f"{name}: {item!a} is not UTF-8, so the record of the options cannot hold "
                        "it. Rename it, or use a link to it"
                    )
    return str(tomli_w.dumps(tables))


def is_utf8(text: str) -> bool:
    """Whether a path, as Python decodes it, is UTF-8 on disk."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def read_options(path: Path, command: str) -> dict[str, Any]:
    """Read the table of `command` in a TOML file; empty if the file has none. Errors: as `read_tables`."""
    return dict(read_tables(path, command).get(command, {}))


def unknown_options(tables: Mapping[str, Mapping[str, Any]], known: Mapping[str, Collection[str]]) -> list[str]:
    """The options in the tables of commands that these do not have, a line each, with the one that may be meant."""
    return [
        f"[{command}] {name}: no option of g2l {command}{did_you_mean(name, known[command])}"
        for command, table in tables.items()
        for name in table
        if command in known and name not in known[command]
    ]


def read_tables(path: Path, command: str) -> dict[str, dict[str, Any]]:
    """Read all tables of a TOML file for `command`.

    Raises:
        ConfigError: the file is missing or not TOML, has options outside the tables of commands, or a table of another
            name.
    """
    with reading(f"--config {path}", "not a TOML file", ConfigError):
        try:
            tables = outside.read_toml(path)
        except OSError as error:
            raise ConfigError(f"--config {path}: {error.strerror}") from None
    loose = [name for name, value in tables.items() if not isinstance(value, dict)]
    if loose:
        raise ConfigError(f"--config {path}: {', '.join(loose)} must be in the table of a command, such as [{command}]")
    unknown = sorted(tables.keys() - set(COMMANDS))
    if unknown:
        raise ConfigError(
            f"--config {path}: [{unknown[0]}] is not a command"
            f"{did_you_mean(unknown[0], COMMANDS)}; tables are {', '.join(COMMANDS)}"
        )
    return tables


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], unsaid: Mapping[str, Any] = MappingProxyType({})
) -> list[str]:
    """Differences between two records, one line each: `name: old -> new`; nested records by dotted name. `unsaid` is
    what a record means that lacks a name (`Config.unsaid`), nested as they are; what is in neither is "nothing".
    """
    lines: list[str] = []
    for name in sorted(old.keys() | new.keys()):
        before, after = (record.get(name, unsaid.get(name)) for record in (old, new))
        if isinstance(before, dict) and isinstance(after, dict):
            within = unsaid.get(name)
            inner = differences(before, after, within if isinstance(within, dict) else {})
            lines += [f"{name}.{line}" for line in inner]
        elif before != after:
            lines.append(f"{name}: {_shown(before)} -> {_shown(after)}")
    return lines


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value)
