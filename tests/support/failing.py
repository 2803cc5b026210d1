"""Functions that fail, to be put in the place of others."""

import os
from collections.abc import Callable
from typing import Any, NoReturn


def failing(error: BaseException) -> Callable[..., NoReturn]:
    """A function that raises `error`, whatever it is called with."""

    def fail(*_: Any, **__: Any) -> NoReturn:
        raise error

    return fail


def os_error(number: int) -> OSError:
    """The error of the system with this number (`errno`), as the system words it."""
    return OSError(number, os.strerror(number))
