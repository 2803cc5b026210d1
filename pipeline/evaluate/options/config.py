"""The options of `g2l evaluate`: those of every benchmark on the list, and what they share, as one flat configuration.

A benchmark sees the part that its own class declares, no more.
"""

from functools import cache
from typing import Any, ClassVar, Self, TypeVar

from pydantic import create_model

from pipeline.config.base import Config
from pipeline.evaluate.options import benchmarks
from pipeline.evaluate.options.shared import SHARED, ComparedOptions

P = TypeVar("P", bound=Config)


class EvaluateConfig(Config):
    """Options of `g2l evaluate`; `evaluate_config` gives the class that has them all.

    `parts` are the classes that declare them, in the order of the help.
    """

    parts: ClassVar[tuple[type[Config], ...]] = ()

    def part(self, kind: type[P]) -> P:
        """The options that one class declares, those that it inherits included."""
        return kind(**{name: getattr(self, name) for name in kind.model_fields})

    def absolute(self) -> Self:
        """Every part made absolute in its own way."""
        return self.model_copy(update={k: v for kind in self.parts for k, v in self.part(kind).absolute()})


def evaluate_config() -> type[EvaluateConfig]:
    """The class of the options of `g2l evaluate`, for the benchmarks that are on the list now."""
    return _composed(benchmarks.BENCHMARKS)


@cache
def _composed(rooms: tuple[str, ...]) -> type[EvaluateConfig]:
    """The options of these benchmarks, between what is compared and what they share."""
    parts: tuple[type[Config], ...] = (ComparedOptions, *(benchmarks.options_of(room) for room in rooms), *SHARED)
    shared = {name for kind in SHARED for name in kind.model_fields}
    fields: dict[str, Any] = {}
    headings: dict[str, str] = {}
    for kind in parts:
        declared = {name: info for name, info in kind.model_fields.items() if kind in SHARED or name not in shared}
        assert not fields.keys() & declared.keys(), f"{kind.__name__}: another part has an option of the same name"
        fields |= {name: (info.annotation, info) for name, info in declared.items()}
        headings |= {name: heading for name, heading in kind.panels.items() if name in declared}
    composed = create_model("EvaluateConfig", __base__=EvaluateConfig, __doc__=EvaluateConfig.__doc__, **fields)
    composed.parts, composed.panels = parts, headings
    return composed
