"""The list of benchmarks: every room has options and a class, and the options load nothing heavy."""

import subprocess
import sys

import pytest
from support.places import ROOT

from pipeline.config.base import Config
from pipeline.evaluate.benchmark import load_benchmark
from pipeline.evaluate.options.benchmarks import BENCHMARKS, options_of


@pytest.mark.parametrize("room", BENCHMARKS)
def test_a_room_has_options_and_a_benchmark(room: str) -> None:
    assert issubclass(options_of(room), Config)
    assert load_benchmark(room).__module__ == f"{room}.benchmark"
    assert options_of(room).__module__ == f"{room}.options"


def test_every_room_with_a_benchmark_is_on_the_list() -> None:
    rooms = {path.parent.name for path in (ROOT / "pipeline" / "evaluate").glob("*/benchmark.py")}
    assert rooms == {room.rpartition(".")[2] for room in BENCHMARKS}
    assert len(BENCHMARKS) == len(rooms)


def test_the_options_load_no_torch() -> None:
    code = (
        "import sys\nfrom pipeline.evaluate.options.config import evaluate_config\nevaluate_config()\n"
        "heavy = {'torch', 'timm', 'numpy', 'zarr', 'h5py', 'openslide'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
