"""The import rules of docs/architecture.md, read from the source; they hold for modules to come as well."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = {
    f"{path.parent.name}.{path.stem}": path
    for folder in ("g2l", "pipeline", "stages")
    for path in (ROOT / folder).glob("*.py")
}
PURE = ("units", "geometry", "glass", "sampling", "loss", "projector", "metrics", "intervals", "folds", "linear_map",
        "report", "views", "draws")  # fmt: skip
DISK = ("os", "io", "pathlib", "shutil", "tempfile", "h5py", "zarr", "openslide", "json", "csv", "safetensors")


def imports_of(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Modules that a file imports, by full name; with `top_level_only`, those that importing it imports."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_the_modules_are_found() -> None:
    assert {"pipeline.loss", "stages.cli", "stages.extract_teacher", "stages.train_student"} <= MODULES.keys()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_pipeline_never_imports_stages(name: str) -> None:
    if name.startswith("pipeline."):
        assert not {found for found in imports_of(MODULES[name]) if found.split(".")[0] == "stages"}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_nothing_but_the_entry_point_imports_the_command(name: str) -> None:
    if name != "g2l.__main__":
        assert not {found for found in imports_of(MODULES[name]) if found.startswith("stages.cli")}


def reachable(name: str) -> set[str]:
    """Modules of this project that a module imports, directly or not."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        for found in imports_of(MODULES[current]):
            if found in MODULES and found not in seen:
                seen.add(found)
                waiting.append(found)
    return seen


def test_the_stages_meet_only_on_disk() -> None:
    assert "stages.train_student" not in reachable("stages.extract_teacher")
    assert "stages.extract_teacher" not in reachable("stages.train_student")
    assert "pipeline.slides.reader" in reachable("stages.extract_teacher")  # the check sees indirect imports


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_touch_no_disk(name: str) -> None:
    found = {module.split(".")[0] for module in imports_of(MODULES[f"pipeline.{name}"])}
    assert not found & set(DISK)


@pytest.mark.parametrize(
    ("library", "owners"),
    [
        ("openslide", {"pipeline.slides.reader"}),
        ("zarr", {"pipeline.store.zarr_format"}),
        (
            "h5py",
            {"pipeline.cohort.plan", "pipeline.features.files", "pipeline.disk.hdf5_input"},
        ),  # decisions 0015, 0038
        ("croma", {"pipeline.evaluate.robustness.margins"}),
        ("onnx", {"pipeline.student.onnx_file"}),
        ("onnxruntime", {"pipeline.student.onnx_file"}),
        ("typer", {"stages.cli", "stages.options"}),
    ],
)
def test_a_library_has_its_owners(library: str, owners: set[str]) -> None:
    users = {name for name, path in MODULES.items() if library in {m.split(".")[0] for m in imports_of(path)}}
    assert users == owners


def test_the_command_imports_nothing_heavy_at_start() -> None:
    heavy = {"torch", "timm", "numpy", "h5py", "zarr", "openslide", "matplotlib", "skimage", "PIL", "sklearn", "pandas"}
    for name in (
        "stages.cli",
        "stages.options",
        "pipeline.config.stages",
        "pipeline.config.tools",
        "pipeline.base.errors",
        "pipeline.disk.files",
        "pipeline.disk.asides",
        "pipeline.disk.locks",
        "pipeline.base.interrupts",
    ):
        found = {module.split(".")[0] for module in imports_of(MODULES[name], top_level_only=True)}
        assert not found & heavy, name
