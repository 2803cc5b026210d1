"""The source of `g2l/options.py`, made of the configurations: `python tests/support/option_types.py` writes it.

Editors and type checkers read source, not configurations; a test sees that the two agree.
"""

import subprocess
import sys
import types
import typing
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)] if str(ROOT) not in sys.path else []

from pipeline.config.base import Config  # noqa: E402
from pipeline.config.plan import PlanConfig  # noqa: E402
from pipeline.config.stages import ExportConfig, ExtractConfig, MergeConfig, TrainConfig, VerifyConfig  # noqa: E402
from pipeline.config.tools import EmbedConfig, ImportConfig  # noqa: E402
from pipeline.evaluate.options.config import evaluate_config  # noqa: E402

PATH = ROOT / "g2l" / "options.py"
HEAD = '''"""Types of the options of each function, for editors and type checkers; `None`: not given.

Made of the configurations by `python tests/support/option_types.py`: change an option there, not here.
"""

from os import PathLike
from typing import Literal, TypedDict

AnyFile = str | PathLike[str]
'''
CLASSES: dict[str, tuple[type[Config], ...]] = {
    "PlanOptions": (PlanConfig,),
    "ExtractOptions": (ExtractConfig, PlanConfig),
    "MergeOptions": (MergeConfig,),
    "ImportOptions": (ImportConfig,),
    "TrainOptions": (TrainConfig,),
    "ExportOptions": (ExportConfig,),
    "EmbedOptions": (EmbedConfig,),
    "EvaluateOptions": (evaluate_config(),),
    "VerifyOptions": (VerifyConfig,),
}
"""Each class, and the configurations whose options it has: those of the command."""


def type_text(annotation: Any) -> str:
    """A type as it is written in source; a path may be given as text."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (None, type(None)):
        return "None"
    if annotation is Path:
        return "AnyFile"
    if origin is typing.Annotated:
        return type_text(parts[0])
    if origin is Literal:
        return f"Literal[{', '.join(repr(part) for part in parts)}]".replace("'", '"')
    if origin in (typing.Union, types.UnionType):
        return " | ".join(dict.fromkeys(type_text(part) for part in parts))
    if origin is not None:
        return f"{origin.__name__}[{', '.join(type_text(part) for part in parts)}]"
    return str(annotation.__name__)


def class_text(name: str, kinds: tuple[type[Config], ...]) -> str:
    """The class of the options of these configurations; one that two of them have is that of the first."""
    fields: dict[str, str] = {}
    for kind in kinds:
        for option, field in kind.model_fields.items():
            text = type_text(field.annotation)
            fields.setdefault(option, text if text.endswith("None") else f"{text} | None")
    lines = [f"    {option}: {text}" for option, text in fields.items()]
    return "\n".join([f"class {name}(TypedDict, total=False):", *lines])


def source() -> str:
    """The source of `g2l/options.py`, formatted."""
    text = "\n\n\n".join([HEAD.rstrip(), *(class_text(name, kinds) for name, kinds in CLASSES.items())]) + "\n"
    ruff = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(PATH), "-"]
    return subprocess.run(ruff, input=text, capture_output=True, text=True, check=True, cwd=ROOT).stdout


if __name__ == "__main__":
    PATH.write_text(source())
