"""The order of the rooms and the rules of docs/architecture.md, read from the source; modules to come keep them too."""

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from support.places import ROOT, imports_of, parsed

from pipeline.config.base import Config
from pipeline.config.losses import LOSSES
from pipeline.config.plan import PlanConfig
from pipeline.config.stages import ExportConfig, ExtractConfig, TrainConfig, VerifyConfig
from pipeline.config.studies import AblateConfig, CurveConfig
from pipeline.config.tools import DoctorConfig, EmbedConfig, ImportConfig, ModelsConfig, PublishConfig
from pipeline.disk import first_look
from pipeline.evaluate.options.benchmarks import BENCHMARKS, options_of
from pipeline.evaluate.options.config import evaluate_config
from pipeline.evaluate.options.shared import SHARED, ComparedOptions
from pipeline.public_sets.options import ReproduceConfig

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for folder in ("g2l", "pipeline", "stages")
    for path in (ROOT / folder).rglob("*.py")
    if path.name != "__init__.py"
}
LOSS_FILES = {entry.function.split(":")[0].split(".")[1] for entry in LOSSES.values()}
"""A loss is a file at the top, named in the list of losses."""
ROOMS = (
    ("base",),
    ("disk",),
    ("sampling", "projector", *LOSS_FILES),
    ("config",),
    ("report",),
    ("slides",),
    ("cohort",),
    ("store", "encoders"),
    ("distillation",),
    ("training",),
    ("student", "features"),
    ("evaluate",),
    ("public_sets", "study"),
    ("demo_data", "export"),
)
"""The rooms of `pipeline/` from left to right: each imports only from those to its left. Rooms of one line do not
import each other.
"""
IN_EVALUATE = {room.split(".")[2] for room in BENCHMARKS}
"""A room a benchmark: they use what lies in `evaluate/` itself and in `evaluate/options/`, and not each other."""
PAPER = {"sampling", "projector", "distillation"} | LOSS_FILES
"""The paper's method stands at the top of `pipeline/`, and little else does."""
MOST_MODULES = 15
"""Modules in a folder."""
INTERFACES = (
    (r"pipeline\.features\.tools\.\w+", "read facts write files coords_files", "what each tool's file layout has"),
    (r"pipeline\.evaluate\.\w+\.section", "KEY", "what each benchmark's section has"),
    (
        r"g2l\.commands|stages\.\w+(\.\w+)?",
        "extract_teacher import_features merge train_student embed evaluate ablate curve doctor",
        "a verb, the function of the library, and the stage that both call",
    ),
    (r"g2l\.commands|pipeline\.cohort\.plan_hdf5", "read_plan", "the function, and that of the library, for any path"),
    (r"g2l\.commands|stages\.cli", "plan export verify inspect", "a verb, and the function of the library"),
    (
        r"g2l\.dataset|pipeline\.store\.remote\.opening",
        "open_store",
        "for users of the library, who read rows in any process; and for the stages, which hold it open",
    ),
    (r"stages\.cli|stages\.studies\.\w+", "reproduce", "a verb, and the study it calls"),
    (r"pipeline\.public_sets\.readers\.\w+", "read_members", "what each public set's reader has"),
    (r"g2l\.commands|stages\.cli|pipeline\.cohort\.sources", "make_manifest", "a verb, and the function it calls"),
    (r"stages\.cli|g2l\.__main__", "main", "the entry point of the process, and of the command"),
    (r"pipeline\.report\.logs\.\w+", "start", "what each tracking service's log has"),
    (r"pipeline\.disk\.(first_look|hdf5_input)", "look_at", "what `disk.first_look` calls, by the kind of file"),
    (
        r"pipeline\.(evaluate|training|study)\..+",
        "Floats Ints Names",
        "short names of array types, the same everywhere",
    ),
)
"""Modules that may all define certain names, which these are, and why."""
MAY_BE_ALIKE = {name: modules for modules, names, _ in INTERFACES for name in names.split()}
DISK = ("os", "io", "pathlib", "shutil", "tempfile", "h5py", "zarr", "openslide", "json", "csv", "safetensors")
MAY_READ = {
    "pipeline.base.outside": "the boundary itself",
    "g2l.streams": "the null device, in place of closed streams",
    "pipeline.base.cores": "the system's own files: quotas and limits of a container",
    "pipeline.base.processes": "the system's own files: of processes",
    "pipeline.disk.at_hand": "locks and notes of its own, opened without waiting or following",
    "pipeline.disk.files": "what it has just written, and hashes of files that others have looked at",
    "pipeline.disk.folders": "a note of its own, opened without waiting or following",
    "pipeline.disk.locks": "locks, opened without waiting or following",
    "pipeline.disk.named_locks": "locks, opened without waiting or following",
    "pipeline.disk.objects.bucket": "copies that it fills, which it has been given",
    "pipeline.disk.tables": "asks for a regular file first; bounds its size itself",
    "pipeline.disk.tensor_files": "asks for a regular file first",
    "pipeline.encoders.weight_files": "asks for a regular file first",
    "pipeline.slides.direct.tiled_tiff": "tiles of slides that OpenSlide has opened",
    "pipeline.slides.dicom": "the head of a regular file, for which it asks first",
    "pipeline.slides.identity": "parts of slides that OpenSlide has opened",
    "pipeline.slides.staging.copies": "a regular file, for which it asks first, opened without waiting; and its copy",
    "stages.doctor.reading": "asks for a regular file first, opened without waiting; only how fast it comes counts",
    "pipeline.store.shards": "opened without waiting; reads as many bytes as the index says",
}
"""Modules that open files for reading themselves, and why; all others read through `base.outside`."""
TOUCHES = ("open", "print", "input")
"""Functions of Python's own that a pure module does not call."""


MOST_LINES = 60
"""Of a function, its signature and docstring included."""
MOST_BRANCHES = 12
"""Of a function: `if`, `for`, `while`, `except`, `case`, each further operand of `and` and `or`, conditional
expressions, and each `for` and `if` of comprehensions.
"""
STUDIES = (AblateConfig, CurveConfig)
COMMANDS = (
    PlanConfig,
    ExtractConfig,
    ImportConfig,
    EmbedConfig,
    DoctorConfig,
    ModelsConfig,
    ExportConfig,
    PublishConfig,
    VerifyConfig,
    TrainConfig,
    ReproduceConfig,
    *STUDIES,
)
CONFIGURATIONS: dict[str, type[Config]] = {
    kind.__name__: kind
    for kind in (*COMMANDS, evaluate_config(), ComparedOptions, *SHARED, *(options_of(room) for room in BENCHMARKS))
}
"""Configurations that go to no function but one that reads them, by the names of their classes."""
LEAST_READ = 3
"""Options that a function which takes a configuration reads itself. One that needs fewer takes their values."""
MAY_READ_FEWER = {
    "is_wanted": "of a benchmark: the stage asks all of them in the same way",
    "look": "of a benchmark, likewise",
    "pipeline.evaluate.fidelity.benchmark.store_of": "of a benchmark, where one has a store",
    "stages.evaluate.evaluate": "the verb: it gives every benchmark its part",
    "pipeline.evaluate.report_folder.start_folder": "writes the record of all options",
    "pipeline.evaluate.report_folder.require_usable": "compares the record of all options",
    "stages.finished.finished_embedding": "compares the record of all options",
    "stages.studies.reproduce.started_reproduction": "compares and writes the record of all options",
    "stages.studies.reproduce.changed_options": "compares all of them",
}
"""Functions, or methods of any benchmark, that take a whole configuration all the same, and why."""


def branches(function: ast.AST) -> int:
    """Places where a function goes one way or another, those of functions within it included."""
    count = 0
    for node in ast.walk(function):
        if isinstance(node, ast.If | ast.IfExp | ast.For | ast.While | ast.ExceptHandler | ast.match_case):
            count += 1
        elif isinstance(node, ast.comprehension):
            count += 1 + len(node.ifs)
        elif isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
    return count


def for_each(names: Iterable[str]) -> Callable[[Callable[[str], None]], Callable[[], None]]:
    """One test of what holds for each of `names`, that tells all for which it does not."""

    def decorate(check: Callable[[str], None]) -> Callable[[], None]:
        def test() -> None:
            failed = []
            for name in names:
                try:
                    check(name)
                except AssertionError as error:
                    failed.append(f"{name}: {error}")
            assert not failed, "\n".join(failed)

        test.__doc__ = check.__doc__
        return test

    return decorate


def is_pure(path: Path) -> bool:
    """Whether a module says in its docstring that it is pure: the word alone begins a sentence."""
    return bool(re.search(r"\bPure[.;]", ast.get_docstring(parsed(path)) or ""))


PURE = sorted(name for name, path in MODULES.items() if is_pure(path))


def ours(name: str, *, top_level_only: bool = False) -> set[str]:
    """Modules of this project that a module imports."""
    return {found for found in imports_of(MODULES[name], top_level_only=top_level_only) if found in MODULES}


def place(room: str) -> int:
    """Where a room stands, from the left."""
    return next(number for number, rooms in enumerate(ROOMS) if room in rooms)


def test_the_modules_are_found() -> None:
    assert {"pipeline.loss", "pipeline.base.errors", "stages.cli", "stages.train_student"} <= MODULES.keys()


def test_every_module_is_in_a_room() -> None:
    found = {name.split(".")[1] for name in MODULES if name.startswith("pipeline.")}
    assert found == {room for rooms in ROOMS for room in rooms}
    files = {name.split(".")[1] for name in MODULES if name.startswith("pipeline.") and name.count(".") == 1}
    assert files == PAPER | {"demo_data", "export"}


@for_each(sorted(name for name in MODULES if name.startswith("pipeline.")))
def test_a_room_imports_only_from_rooms_to_its_left(name: str) -> None:
    room = name.split(".")[1]
    for found in ours(name):
        assert found.startswith("pipeline."), found
        other = found.split(".")[1]
        assert other == room or place(other) < place(room), found


@for_each(sorted(name for name in MODULES if name.startswith("pipeline.evaluate.")))
def test_a_benchmark_does_not_import_another(name: str) -> None:
    parts = name.split(".")
    benchmark = parts[2] if len(parts) > 3 else None
    used = {found.split(".")[2] for found in ours(name) if found.startswith("pipeline.evaluate.")} & set(IN_EVALUATE)
    assert used <= {benchmark}


def test_no_folder_holds_many_modules() -> None:
    for folder in {path.parent for path in MODULES.values()}:
        held = [path.stem for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(held) <= MOST_MODULES, (folder, len(held))


def test_functions_of_the_tests_are_short() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= MOST_LINES
    ]
    assert found == []


@for_each(sorted(MODULES))
def test_a_function_is_short_and_has_few_branches(name: str) -> None:
    for node in ast.walk(parsed(MODULES[name])):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < MOST_LINES, node.name
            count = branches(node)
            assert count <= MOST_BRANCHES, f"{node.name}: {count}"


def configurations_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, type[Config]]]:
    """The parameters that are configurations, also optional ones, and of which class."""
    arguments = function.args
    for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        words = ast.unparse(each.annotation).split(" | ") if each.annotation else []
        yield from ((each.arg, CONFIGURATIONS[word]) for word in words if word in CONFIGURATIONS)


def options_read(function: ast.AST, parameter: str, kind: type[Config]) -> set[str]:
    """Options that a function reads of a parameter itself."""
    return {
        node.attr
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == parameter
    } & kind.model_fields.keys()


@for_each(sorted(name for name in MODULES if name.startswith(("pipeline.", "stages."))))
def test_a_configuration_goes_where_it_is_read_and_no_further(name: str) -> None:
    for node in ast.walk(parsed(MODULES[name])):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        of_benchmark = name.endswith(".benchmark") and node.name in MAY_READ_FEWER
        if of_benchmark or f"{name}.{node.name}" in MAY_READ_FEWER:
            continue
        for parameter, kind in configurations_of(node):
            assert len(options_read(node, parameter, kind)) >= LEAST_READ, f"{node.name}({parameter}: {kind.__name__})"


def test_a_configuration_that_is_only_handed_on_is_seen() -> None:
    """The check itself: what counts is what the function reads of its own parameter."""
    source = "def one(a: int, *, options: PatchOptions | None = None) -> int:\n    "
    (function,) = ast.parse(f"{source}return two(options, options.knn, options.no_option, a.seed)").body
    assert isinstance(function, ast.FunctionDef)
    ((parameter, kind),) = configurations_of(function)
    assert (parameter, kind.__name__) == ("options", "PatchOptions")
    assert options_read(function, parameter, kind) == {"knn"}


def test_what_may_read_fewer_is_there() -> None:
    for name in MAY_READ_FEWER:
        module, _, function = name.rpartition(".")
        paths = [MODULES[module]] if module else [MODULES[f"{room}.benchmark"] for room in BENCHMARKS]
        for path in paths:
            assert function in {node.name for node in ast.walk(parsed(path)) if isinstance(node, ast.FunctionDef)}


def test_the_map_of_the_house_names_every_module_once() -> None:
    """docs/architecture.md has a heading a folder, and below it a line a file."""
    folder, listed = "", set()
    for line in (ROOT / "docs" / "architecture.md").read_text().splitlines():
        if line.startswith("#"):
            folder = line.removeprefix("### ") if line.startswith("### ") and line.endswith("/") else ""
        elif folder and line.startswith("| `"):
            listed.add(f"{folder}{line.split('`')[1]}.py")
    assert listed == {str(path.relative_to(ROOT)) for path in MODULES.values()}


@for_each(sorted(MODULES))
def test_every_module_has_its_own_test_module(name: str) -> None:
    """`tests/` mirrors the tree; what lies in `pipeline/` has no folder of that name there."""
    *folders, module = name.removeprefix("pipeline.").split(".")
    path = ROOT.joinpath("tests", *folders, f"test_{module.strip('_')}.py")
    assert path.exists(), path
    tests = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    assert any(test.name.startswith("test_") for test in tests), path


def test_nothing_is_imported_through_a_package() -> None:
    """No re-exports: a package's own file is empty, but for the one that comes before everything."""
    for folder in ("pipeline", "stages"):
        for path in (ROOT / folder).rglob("__init__.py"):
            assert path == ROOT / "pipeline" / "__init__.py" or not ast.parse(path.read_text()).body[1:], path


@for_each(sorted(MODULES.keys() - {"pipeline.export"}))
def test_a_name_is_imported_from_where_it_is_made(name: str) -> None:
    """`import X as X` says that others may take it from here; only the path in cards of exported students does so."""
    for node in ast.walk(parsed(MODULES[name])):
        if isinstance(node, ast.ImportFrom):
            assert not [alias.name for alias in node.names if alias.name == alias.asname]


def test_what_a_child_process_imports_by_name_exists() -> None:
    """`first_look` names two modules as text, itself one of them."""
    assert {first_look.SLIDE, first_look.HDF5} <= MODULES.keys()


def test_the_rooms_of_benchmarks_that_are_named_as_text_exist() -> None:
    """`evaluate.options` names them so that the command's help loads their options only."""
    assert {f"{room}.{module}" for room in BENCHMARKS for module in ("options", "benchmark")} <= MODULES.keys()


def defined_in(name: str) -> dict[str, str]:
    """Public names that a module defines at its top, each as `function`, `class` or `constant`."""
    kinds: dict[str, str] = {}
    for node in parsed(MODULES[name]).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            kinds[node.name] = "function"
        elif isinstance(node, ast.ClassDef):
            kinds[node.name] = "class"
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            stored = (part for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))
            kinds |= {part.id: "constant" for part in stored}
    return {each: kind for each, kind in kinds.items() if not each.startswith("_")}


def imported_by_name() -> set[tuple[str, str]]:
    """Modules, and names that another module imports from them."""
    return {
        (node.module, alias.name)
        for path in MODULES.values()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def test_a_name_has_one_meaning() -> None:
    """No function, class or shared constant has the name of another one of `pipeline/` and `stages/`."""
    shared = imported_by_name()
    modules_of: dict[str, list[str]] = {}
    matters: set[str] = set()
    for module in sorted(MODULES):
        for name, kind in defined_in(module).items():
            modules_of.setdefault(name, []).append(module)
            if kind != "constant" or (module, name) in shared:
                matters.add(name)
    alike = {name: modules_of[name] for name in matters if len(modules_of[name]) > 1}
    for name, modules in alike.items():
        expected = MAY_BE_ALIKE.get(name, "")
        assert all(re.fullmatch(expected, module) for module in modules), (name, modules)
    assert MAY_BE_ALIKE.keys() <= alike.keys()


@for_each(sorted(MODULES.keys() - {"stages.cli", "g2l.commands"}))
def test_an_import_within_a_function_says_why(name: str) -> None:
    """On its line; `stages.cli` and `g2l.commands` say it once, for all their verbs."""
    lines = MODULES[name].read_text().splitlines()
    for function in ast.walk(parsed(MODULES[name])):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    assert "  # " in lines[node.lineno - 1], f"{name}: {lines[node.lineno - 1].strip()}"


def test_there_is_no_import_circle() -> None:
    """Also not through an import within a function."""
    left = {name: ours(name) for name in MODULES}
    while free := [name for name, needed in left.items() if not needed & left.keys()]:
        for name in free:
            del left[name]
    assert not left


@for_each(sorted(MODULES))
def test_nothing_imports_the_library(name: str) -> None:
    """`g2l/` is in front of all: only its users import it. The streams of the process are the command's, too."""
    if not name.startswith("g2l."):
        assert {found for found in ours(name) if found.startswith("g2l.")} <= {"g2l.streams"}


@for_each(sorted(MODULES))
def test_nothing_but_the_entry_point_imports_the_command(name: str) -> None:
    if name != "g2l.__main__":
        assert not {found for found in imports_of(MODULES[name]) if found.startswith("stages.cli")}


def reachable(name: str) -> set[str]:
    """Modules of this project that a module imports, directly or not."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        for found in ours(waiting.pop()) - seen:
            seen.add(found)
            waiting.append(found)
    return seen


def test_the_stages_meet_only_on_disk() -> None:
    assert "stages.train_student" not in reachable("stages.extract_teacher")
    assert "stages.extract_teacher" not in reachable("stages.train_student")
    assert "pipeline.slides.reader" in reachable("stages.extract_teacher")  # the check sees indirect imports


@for_each(PURE)
def test_pure_modules_touch_no_disk(name: str) -> None:
    found = {module.split(".")[0] for module in imports_of(MODULES[name])}
    assert not found & set(DISK)
    calls = {ast.unparse(node.func) for node in ast.walk(parsed(MODULES[name])) if isinstance(node, ast.Call)}
    assert not calls & {*TOUCHES, "say"}


def test_the_modules_that_say_they_are_pure_are_found() -> None:
    assert {"pipeline.sampling", "pipeline.loss", "pipeline.projector", "pipeline.evaluate.folds"} <= set(PURE)
    assert "pipeline.disk.files" not in PURE


@pytest.mark.parametrize(
    ("library", "owners"),
    [
        ("openslide", {"pipeline.slides.reader", "pipeline.disk.first_look"}),
        ("zarr", {"pipeline.store.zarr_format"}),
        ("h5py", {"pipeline.cohort.plan_hdf5", "pipeline.features.files", "pipeline.disk.hdf5_input"}),  # 0015, 0038
        (
            "croma",
            {f"pipeline.evaluate.robustness.{name}" for name in ("margins", "sweep", "sweep_plan")},
        ),  # 0016, 0049
        ("obstore", {"pipeline.disk.objects.bucket"}),
        ("cv2", {"pipeline.training.augment"}),
        ("onnx", {"pipeline.student.onnx_file"}),
        ("onnxruntime", {"pipeline.student.onnx_file"}),
        ("typer", {"stages.cli", "stages.options"}),
    ],
)
def test_a_library_has_its_owners(library: str, owners: set[str]) -> None:
    users = {name for name, path in MODULES.items() if library in {m.split(".")[0] for m in imports_of(path)}}
    assert users == owners


def reads_directly(tree: ast.AST) -> list[str]:
    """Calls that open or read a file, but for those that open it to write and those that read the package's data."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        words = ast.unparse(node)
        called = ast.unparse(node.func)
        if called == "open":
            mode = ast.unparse(node.args[1]).strip("'") if len(node.args) > 1 else "r"
            is_read = not set(mode) & set("wxa")
        elif called == "os.open":
            is_read = "O_WRONLY" not in words and "flags" not in words
        else:
            is_read = bool(re.search(r"\.read_(bytes|text)$", called)) and "resources.files(" not in called
        if is_read:
            found.append(words)
    return found


@for_each(sorted(MODULES))
def test_files_are_read_behind_the_boundary(name: str) -> None:
    """A pipe in a file's place would wait for ever, a device fill the memory; `outside.read_bytes` refuses both."""
    assert bool(reads_directly(parsed(MODULES[name]))) == (name in MAY_READ)


def test_a_direct_read_is_seen() -> None:
    reads = "open(p); open(p, 'rb'); os.open(p, os.O_RDONLY); p.read_text(); (a / b).read_bytes()"
    others = "open(p, 'xb'); open(fd, 'ab'); os.open(p, os.O_WRONLY); resources.files(p).read_text(); read_bytes(p)"
    assert len(reads_directly(ast.parse(reads))) == 5
    assert not reads_directly(ast.parse(others))


def test_the_command_imports_nothing_heavy_at_start() -> None:
    heavy = {"torch", "timm", "numpy", "h5py", "zarr", "openslide", "matplotlib", "skimage", "PIL", "sklearn", "pandas"}
    for name in (
        "stages.cli",
        "stages.options",
        "g2l.commands",
        "g2l.guest",
        "g2l.signatures",
        "pipeline.config.plan",
        "pipeline.config.stages",
        "pipeline.config.studies",
        "pipeline.config.tools",
        "pipeline.evaluate.options.benchmarks",
        "pipeline.evaluate.options.config",
        "pipeline.evaluate.options.shared",
        *(f"{room}.options" for room in BENCHMARKS),
        "pipeline.base.errors",
        "pipeline.base.interrupts",
        "pipeline.disk.files",
        "pipeline.disk.asides",
        "pipeline.disk.locks",
    ):
        found = {module.split(".")[0] for module in imports_of(MODULES[name], top_level_only=True)}
        assert not found & heavy, name


@for_each(sorted(MODULES))
def test_real_paths_are_found_without_an_error_for_links_in_a_circle(name: str) -> None:
    """`os.path.realpath` returns such a path; `Path.resolve` raises a RuntimeError before Python 3.13."""
    calls = [node for node in ast.walk(parsed(MODULES[name])) if isinstance(node, ast.Call)]
    bare = [call.func for call in calls if not call.args and not call.keywords]
    assert not [f.lineno for f in bare if isinstance(f, ast.Attribute) and f.attr == "resolve"]
