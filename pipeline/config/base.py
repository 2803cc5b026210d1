"""What all configurations share: an option, a table of them, and how they are written and read.

A configuration is frozen and is dumped with every output; a record can be fed back with `--config`. In a TOML file each
command has a table of its own, so that one file can hold a whole project:

    [plan]
    patches_per_slide = 500
    [train-student]
    epochs = 20
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from pipeline.base import outside
from pipeline.base.errors import ConfigError, did_you_mean
from pipeline.base.outside import reading
from pipeline.disk.files import sha256_json

COMMANDS = (
    "make-manifest",
    "plan",
    "extract-teacher",
    "import-features",
    "train-student",
    "export",
    "embed",
    "inspect",
    "verify",
    "evaluate",
    "models",
    "demo",
)
"""Names that a table in a TOML file may have."""


Decides = Literal["value", "effect", "nothing"]
"""What an output is continued under: an option's value; or what the option leads to, such as the hash of the weights in
a file; or nothing of it, since it changes no byte.
"""


def option(
    default: Any = ...,
    *,
    description: str,
    decides: Decides = "value",
    stored: bool = True,
    in_card: bool = True,
    **bounds: Any,
) -> Any:
    """An option of a command, with all that is to be known of it.

    Args:
        default: its value where none is given; without it the option is required.
        description: for the help; says in brackets what happens without the option where the default is `None`.
        decides: what an output keeps of it, to be continued by the same only.
        stored: whether it goes into the record of the options; false for what applies to one call.
        in_card: whether the card of a student tells it; false for paths, and for what the card says elsewhere.
        bounds: as pydantic's `Field` takes them: `ge`, `gt`, `le`, `lt`, `min_length`.
    """
    return Field(
        default,
        description=description,
        json_schema_extra={"decides": decides, "stored": stored, "in_card": in_card},
        **bounds,
    )


@dataclass(frozen=True)
class OneOf:
    """Marks the type of an option that is one of the names in a registry, as `words` gives them at the time."""

    words: Callable[[], Collection[str]]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def check(self, value: str) -> str:
        """The value.

        Raises:
            PydanticCustomError: it is none of the words; of the type and with the words of a `Literal`.
        """
        if value not in self.words():
            *others, last = [repr(word) for word in self.words()]
            expected = f"{', '.join(others)} or {last}" if others else last
            raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected})
        return value


class Config(BaseModel):
    """Base of all configurations: frozen, checked, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
    panels: ClassVar[dict[str, str]] = {}
    """Headings of the help by the field that each begins with, in the order of the fields; none for a short list."""

    @classmethod
    def build(cls, values: dict[str, Any]) -> Self:
        """A configuration from plain values.

        Raises:
            ConfigError: a value is missing, unknown, of the wrong type or out of bounds; all of them are listed.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            lines = []
            for problem in error.errors():
                name = ".".join(str(part) for part in problem["loc"])
                given = "" if problem["type"] == "missing" else f" (got {problem['input']!r})"
                meant = ""
                if problem["type"] == "extra_forbidden":
                    meant = did_you_mean(name, cls.model_fields)
                elif problem["type"] == "literal_error":
                    meant = did_you_mean(str(problem["input"]), re.findall(r"'([^']*)'", problem["ctx"]["expected"]))
                lines.append(f"  {name}: {problem['msg']}{given}{meant}")
            raise ConfigError("these options are wrong:\n" + "\n".join(lines)) from None

    def record(self) -> dict[str, Any]:
        """All values as plain JSON or TOML types; options that are off (`None`) are left out."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def says(cls, name: str, of: str) -> Any:
        """What `option` was told of a field."""
        extra = cls.model_fields[name].json_schema_extra
        assert isinstance(extra, dict), f"{cls.__name__}.{name} is not made by `option`"
        return extra[of]

    def deciding(self) -> dict[str, Any]:
        """The record of the options whose values decide what the output is."""
        return {name: value for name, value in self.record().items() if self.says(name, "decides") == "value"}

    def stored(self) -> dict[str, Any]:
        """The record that an output keeps, fit for `--config` in any folder: paths are absolute."""
        return {name: value for name, value in self.absolute().record().items() if self.says(name, "stored")}

    def for_card(self) -> dict[str, Any]:
        """The record that the card of a student tells."""
        return {name: value for name, value in self.record().items() if self.says(name, "in_card")}

    def absolute(self) -> Self:
        """The same with absolute paths, as they are from the present working folder: fit for a record, which is read
        from other folders.
        """
        paths = {name: value.absolute() for name, value in self if isinstance(value, Path)}
        return self.model_copy(update=paths)

    def hash(self) -> str:
        """Hex SHA-256 of the whole configuration."""
        return sha256_json(self.record())


def to_toml(tables: dict[str, dict[str, Any]]) -> str:
    """Records as a TOML text, one table a command, that `--config` reads back.

    Raises:
        ConfigError: a path in it is not UTF-8, which TOML cannot hold.
    """
    for table in tables.values():
        for name, value in table.items():
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, str) and not is_utf8(item):
                    raise ConfigError(f"{name}: {item!a} is not UTF-8, and cannot stand in the record of the "
                                      "options. Rename it, or lead to it by a link")  # fmt: skip
    return str(tomli_w.dumps(tables))


def is_utf8(text: str) -> bool:
    """Whether a path, as Python decodes it, is UTF-8 on disk."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def read_toml(path: Path, command: str) -> dict[str, Any]:
    """The table of `command` in a TOML file; empty when the file has none.

    Raises:
        ConfigError: the file is missing or no TOML, or it has options outside the tables of commands, or a table of
            another name.
    """
    with reading(f"--config {path}", "not a TOML file", ConfigError):
        try:
            tables = outside.read_toml(path)
        except OSError as error:
            raise ConfigError(f"--config {path}: {error.strerror}") from None
    loose = [name for name, value in tables.items() if not isinstance(value, dict)]
    if loose:
        raise ConfigError(
            f"--config {path}: {', '.join(loose)} must stand in the table of a command, such as [{command}]"
        )
    unknown = sorted(tables.keys() - set(COMMANDS))
    if unknown:
        raise ConfigError(f"--config {path}: [{unknown[0]}] is no command"
                          f"{did_you_mean(unknown[0], COMMANDS)}; tables are {', '.join(COMMANDS)}")  # fmt: skip
    return dict(tables.get(command, {}))


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between two records, a line each: `name: old -> new`; nested records by dotted name."""
    lines: list[str] = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += [f"{name}.{line}" for line in differences(before, after)]
        elif before != after:
            lines.append(f"{name}: {before!r} -> {after!r}")
    return lines
