"""Show the options of a function in its signature and its help; made of the configurations."""

import textwrap
from collections.abc import Callable
from inspect import Parameter, cleandoc, signature
from typing import TypeVar

from pydantic.fields import FieldInfo

from pipeline.config.base import Config

F = TypeVar("F", bound=Callable[..., object])
WIDTH = 116
"""Of a line of help."""


def with_options_shown(*kinds: type[Config]) -> Callable[[F], F]:
    """Let a function's signature and docstring list the options of these configurations in place of `**options`. An
    option that two of them have is that of the first.
    """
    fields = {name: field for kind in reversed(kinds) for name, field in kind.model_fields.items()}
    names = dict.fromkeys(name for kind in kinds for name in kind.model_fields)

    def decorate(function: F) -> F:
        before = signature(function)
        named = [each for each in before.parameters.values() if each.kind is not Parameter.VAR_KEYWORD]
        shown = [_parameter(name, fields[name]) for name in names]
        function.__signature__ = before.replace(parameters=[*named, *shown])  # type: ignore[attr-defined]
        lines = [_described(name, fields[name].description or "") for name in names]
        function.__doc__ = "\n".join([cleandoc(function.__doc__ or ""), "", "Options:", *lines, ""])
        return function

    return decorate


def _parameter(name: str, field: FieldInfo) -> Parameter:
    default = Parameter.empty if field.is_required() else field.default
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=field.annotation)


def _described(name: str, description: str) -> str:
    return textwrap.fill(f"{name}: {description}", WIDTH, initial_indent="    ", subsequent_indent=" " * 8)
