"""G2L as a library: `import g2l` gives the commands as functions, a store as a dataset, and a student as a module.

Whatever is asked for is loaded then; the import itself loads nothing, as it also comes first in the command's process
(`g2l.__main__`). docs/python.md has the reference.
"""

TYPE_CHECKING = False  # as `typing` has it, which is not imported before the command has cleaned its module path
if TYPE_CHECKING:
    from g2l.commands import (
        embed,
        evaluate,
        export,
        extract_teacher,
        import_features,
        inspect,
        make_manifest,
        merge,
        plan,
        read_plan,
        train_student,
        verify,
    )
    from g2l.dataset import ShardOrder, StoreDataset, StoreRow, StoreStream, open_store
    from g2l.students import LoadedStudent, PatchTransform, StudentModel, load_student
    from pipeline.base.errors import ConfigError, EncoderError, G2LError, ManifestError, PlanError, StoreError
    from pipeline.loss import log_sum_loss
    from pipeline.projector import Projector

_HOMES = {
    "g2l.commands": (
        "embed",
        "evaluate",
        "export",
        "extract_teacher",
        "import_features",
        "inspect",
        "make_manifest",
        "merge",
        "plan",
        "read_plan",
        "train_student",
        "verify",
    ),
    "g2l.dataset": ("ShardOrder", "StoreDataset", "StoreRow", "StoreStream", "open_store"),
    "g2l.students": ("LoadedStudent", "PatchTransform", "StudentModel", "load_student"),
    "pipeline.base.errors": ("ConfigError", "EncoderError", "G2LError", "ManifestError", "PlanError", "StoreError"),
    "pipeline.loss": ("log_sum_loss",),
    "pipeline.projector": ("Projector",),
}
"""Where each name is made."""

__all__ = [
    "ConfigError",
    "EncoderError",
    "G2LError",
    "LoadedStudent",
    "ManifestError",
    "PatchTransform",
    "PlanError",
    "Projector",
    "ShardOrder",
    "StoreDataset",
    "StoreError",
    "StoreRow",
    "StoreStream",
    "StudentModel",
    "__version__",
    "embed",
    "evaluate",
    "export",
    "extract_teacher",
    "import_features",
    "inspect",
    "load_student",
    "log_sum_loss",
    "make_manifest",
    "merge",
    "open_store",
    "plan",
    "read_plan",
    "train_student",
    "verify",
]

__version__: str


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib import metadata  # once asked for

        return metadata.version("g2l")
    for home, names in _HOMES.items():
        if name in names:
            from importlib import import_module  # once asked for

            from g2l.guest import environment_kept  # likewise

            with environment_kept():
                value = globals()[name] = getattr(import_module(home), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__})
