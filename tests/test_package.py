"""The wheel and the sdist hold all that runs: installed into an empty environment they plan, load and open.

The environment has a `site-packages` of its own with the wheel, and with links to what its metadata says that it
depends on. A package that the code needs and the metadata does not name is not there.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from support.dependencies import link_declared
from support.earlier import VERSIONS, unpack
from support.places import ROOT
from support.slides import make_slide

FILES = (
    "py.typed",
    "data/report.html.j2",
    "data/tcga_source_sites.csv",
    "data/card/student.md",
    "data/card/store.md",
    "data/timm_versions.csv",
    "data/case_lists/tp53.txt",
    "data/benchmarks/breakhis.toml",
    "data/benchmarks/left_out.toml",
    "data/published.csv",
    "data/adapters/student.py.tmpl",
)
"""Of `pipeline`, beside modules."""

PAPERS = ("README.md", "LICENSE", "NOTICE", "CITATION.cff", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")

pytestmark = pytest.mark.slow

LOAD = """
import sys
from pathlib import Path
import timm, torch
from pipeline.export import load_projector
for folder in sys.argv[1:]:
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.inference_mode():
        embedding = model(torch.zeros(2, *model.pretrained_cfg["input_size"]))
        projected = load_projector(Path(folder)).as_teacher(embedding)
    sound = embedding.isfinite().all() and projected.isfinite().all() and len(projected) == 2
    assert sound, (folder, projected.shape)
    print(folder)
"""
OPEN = """
import sys
import zarr
for store in sys.argv[1:]:
    pixels = zarr.open(store, mode="r")["pixels"]
    patch = pixels[0]
    assert patch.dtype == "uint8" and patch.ndim == 3 and patch.any(), (store, patch.shape)
    print(store)
"""
WHERE = """
import g2l, pipeline, stages
print(*(module.__file__ for module in (g2l, pipeline, stages)), sep="\\n")
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's files as they are, out of reach of the working tree."""
    folder = tmp_path_factory.mktemp("tree") / "g2l"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False).stdout.decode()
    names = [name for name in listed.split("\0") if name] or [
        str(path.relative_to(ROOT)) for name in ("g2l", "pipeline", "stages") for path in (ROOT / name).rglob("*")
    ] + [path.name for path in ROOT.iterdir() if path.is_file()]
    for name in names:
        if (ROOT / name).is_file() and not name.startswith("tests/earlier/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def run(*command: object, folder: Path, **variables: str) -> str:
    """Run a command that must end well, in `folder`."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")} | variables
    done = subprocess.run(list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    build = f"from setuptools import build_meta; print(build_meta.build_sdist({str(out)!r}))"
    run(sys.executable, "-c", build, folder=tree)
    return next(out.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made of the sdist, which so is shown to be whole."""
    folder, out = tmp_path_factory.mktemp("unpacked"), tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    build = f"from setuptools import build_meta; print(build_meta.build_wheel({str(out)!r}))"
    run(sys.executable, "-c", build, folder=next(folder.iterdir()))
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment that the wheel was installed into."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder)
    binaries = folder / ("Scripts" if os.name == "nt" else "bin")
    pip = (sys.executable, "-m", "pip", "--python", binaries / "python")  # the one that is here, for that environment
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, folder=folder)
    packages = Path(
        run(binaries / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=folder).strip()
    )
    (described,) = packages.glob("g2l-*.dist-info")
    link_declared(metadata.PathDistribution(described).requires or [], packages)
    return binaries


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Outputs of each earlier version; not to be changed."""
    folders = [tmp_path_factory.mktemp("earlier") / version for version in VERSIONS]
    return [unpack(version, folder) for version, folder in zip(VERSIONS, folders, strict=True)]


def modules_of(folder: Path) -> set[str]:
    """Modules of the project below a folder."""
    return {
        str(path.relative_to(folder))
        for name in ("g2l", "pipeline", "stages")
        for path in (folder / name).rglob("*.py")
    }


def test_sdist_and_wheel_hold_every_module_and_data_file(tree: Path, sdist: Path, wheel: Path) -> None:
    wanted = modules_of(tree) | {f"pipeline/{name}" for name in FILES}
    assert len(wanted) > 100
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert not wanted - in_wheel
    assert not (wanted | {"pyproject.toml", *PAPERS}) - in_sdist
    in_metadata = {name.split(".dist-info/licenses/")[1] for name in in_wheel if ".dist-info/licenses/" in name}
    assert in_metadata == {*PAPERS} - {"README.md", "CHANGELOG.md"}
    folders = {name.split("/")[0] for name in in_sdist if "/" in name}
    assert folders == {"g2l", "pipeline", "stages", "g2l.egg-info"}  # no tests without what they need, as said:
    assert "The sdist of a package index has what is installed" in (tree / "CONTRIBUTING.md").read_text()
    others = {name.split("/")[0] for name in in_wheel if ".dist-info/" not in name}
    assert others == {"g2l", "pipeline", "stages"}  # neither tests nor benchmarks land in the user's environment


def test_the_command_is_the_installed_one(installed: Path, tmp_path: Path) -> None:
    places = run(installed / "python", "-c", WHERE, folder=tmp_path).split()
    assert len(places) == 3
    assert all(place.startswith(str(installed.parent)) for place in places), places


def test_nothing_is_there_that_the_metadata_does_not_name(installed: Path, tmp_path: Path) -> None:
    """Packages of the tests' environment that the project does not depend on."""
    look = "import importlib.util, sys; print(*(importlib.util.find_spec(name) is not None for name in sys.argv[1:]))"
    names = ("pytest", "hypothesis", "transformers", "torch", "timm")
    assert run(installed / "python", "-c", look, *names, folder=tmp_path).split() == [*["False"] * 3, "True", "True"]


def test_the_command_helps_and_lists_models(installed: Path, tmp_path: Path) -> None:
    assert "extract-teacher" in run(installed / "g2l", "--help", folder=tmp_path)
    assert "h-optimus-0" in run(installed / "g2l", "models", folder=tmp_path)
    assert "breakhis: BreakHis at 40x" in run(installed / "g2l", "reproduce", "--list", folder=tmp_path)
    assert run(installed / "g2l", "--version", folder=tmp_path).startswith("g2l ")


def test_it_plans(installed: Path, tmp_path: Path) -> None:
    """From a folder whose names ask for the table of TCGA's source sites, a file of data."""
    slides = tmp_path / "slides"
    slides.mkdir()
    make_slide(slides / "TCGA-A1-A0SB-01Z-00-DX1.svs", width=1000, height=800, mpp=0.5)
    run(installed / "g2l", "make-manifest", "slides", "--out", "manifest.csv", folder=tmp_path)
    assert "TCGA-A1-A0SB" in (tmp_path / "manifest.csv").read_text()
    said = run(
        installed / "g2l",
        "plan",
        "manifest.csv",
        "--out",
        "plan.h5",
        "--slides-root",
        "slides",
        "--val-strip",
        "0.2",
        folder=tmp_path,
    )
    assert "plan.h5" in said
    assert (tmp_path / "plan.h5").stat().st_size > 0


def test_students_of_earlier_versions_load_with_timm(installed: Path, earlier: list[Path], tmp_path: Path) -> None:
    students = [str(folder / "exported") for folder in earlier]
    loaded = run(installed / "python", "-c", LOAD, *students, folder=tmp_path, HF_HUB_OFFLINE="1")
    assert loaded.splitlines() == students != []


def test_stores_of_earlier_versions_open_with_zarr_alone(installed: Path, earlier: list[Path], tmp_path: Path) -> None:
    """The codec of the pixels is found by its entry point."""
    stores = [str(folder / "store.zarr") for folder in earlier]
    opened = run(installed / "python", "-c", OPEN, *stores, folder=tmp_path)
    assert opened.splitlines() == stores != []
